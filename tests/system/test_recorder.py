# SPDX-License-Identifier: Apache-2.0
"""The recorder's dumps in the built daemon: of whom they are written, what is in them, and what is in
the way."""

import glob
import os
import signal
import subprocess
import time
from fractions import Fraction

import ctl
import kvmfd
import lab
import tap
from exposed import first_sample, row, series
from recorded import columns, exact, history, only, setup, stats_files, wait_ticks

t = tap.Tests()


def dumps(daemon):
    return sorted(glob.glob(os.path.join(daemon.home, "dumps", "*")))


def wait_dumps(daemon, n):
    tap.wait_for(lambda: len(dumps(daemon)) >= n, what=f"{n} dumps")
    return dumps(daemon)


def read_dump(path, *args):
    done = ctl.run("dump", "--json", *args, path)
    tap.equal(done.returncode, 0, done.stderr)
    return {vm["vm"]: columns(vm) for vm in exact(done.stdout)}


def counted(daemon, result):
    return series(daemon)[f'kvmstatd_dumps_total{{result="{result}"}}']


@t.test("a VMM killed by SIGKILL: its last second is in the dump")
def _():
    setup()
    name = f"rec{os.getpid()}d"
    with lab.DemoVms(vms=2, vcpus=2, name=name, load="mix") as demo, \
            lab.Daemon(only(name)) as daemon:
        (vm, pid), (other, _) = demo.vms
        first_sample(daemon, vm)
        first_sample(daemon, other)
        files = stats_files(pid)
        time.sleep(1)
        own = {n: f.read() for n, f in files.items()}
        own_time = time.time()
        time.sleep(1)
        os.kill(pid, signal.SIGKILL)
        [path] = wait_dumps(daemon, 1)
        last = {n: f.read() for n, f in files.items()}  # as they were when it died
        for f in files.values():
            f.close()
        found = read_dump(path)
        tap.equal(set(found), {vm}, "VMs in the dump")
        times, values, _ = found[vm][0, "exits"]
        tap.between(own[0]["exits"][0], values[-1], last[0]["exits"][0], "exits at the end")
        tap.check(values[-1] > own[0]["exits"][0], "the last second is not there")
        tap.check(float(times[-1]) > own_time and float(times[0]) < own_time, "its times")
        tap.check(len([x for x in times if x > own_time]) > 20, f"{len(times)} ticks")
        tap.equal({v for v, _ in found[vm]}, {-1, 0, 1}, "targets")

        summary = ctl.run("dump", path)
        tap.equal(summary.returncode, 0, summary.stderr)
        for word in (vm, f"pid {pid}", "killed by signal 9", "ticks in"):
            tap.check(word in summary.stdout, f"{word}: {summary.stdout}")
        some = read_dump(path, "--stat", "exits", "--vcpu", "1", "--last", "500ms")
        tap.equal(set(some[vm]), {(1, "exits")})
        tap.between(5, len(some[vm][1, "exits"][0]), 30, "ticks in 500 ms of 20 ms")
        # It is counted and said when it is safely there.
        tap.wait_for(lambda: f"VM {vm}: its VMM was killed by signal 9" in daemon.errors(),
                     what="what is said of it")
        tap.equal(os.stat(path).st_mode & 0o777, 0o640)
        tap.equal(counted(daemon, "written"), 1)
        history(daemon, other)


@t.test("a VM that has all of the recorder's memory is dumped all the same, as far back as it may")
def _():
    setup()
    name = f"rec{os.getpid()}k"
    config = only(name, "  memory: 1MiB\n", interval="1ms")
    with lab.DemoVms(vcpus=8, name=name, load="mix") as demo, lab.Daemon(config) as daemon:
        [(vm, pid)] = demo.vms
        first_sample(daemon, vm)
        tap.wait_for(lambda: series(daemon)["kvmstatd_recorder_memory_bytes"] > 900 << 10,
                     what="the memory to fill")
        os.kill(pid, signal.SIGKILL)
        [path] = wait_dumps(daemon, 1)
        # What others have not written over yet is there, too.
        tap.check(os.path.getsize(path) > 400 << 10, f"{os.path.getsize(path)} bytes")
        times, _, _ = read_dump(path, "--stat", "exits", "--vcpu", "7")[vm][7, "exits"]
        tap.check(len(times) > 100, f"{len(times)} ticks")
        tap.wait_for(lambda: counted(daemon, "written") == 1, what="it to be counted")
        tap.equal(counted(daemon, "skipped"), 0)


@t.test("a VMM that exits by itself, also when asked by SIGTERM, leaves no dump")
def _():
    setup()
    name = f"rec{os.getpid()}e"
    with lab.Daemon(only(name)) as daemon:
        demo = lab.DemoVms(name=name)
        with demo:
            first_sample(daemon, name)
            tap.equal(demo.stop(signal.SIGTERM), 0, "it handles SIGTERM")
        tap.wait_for(lambda: f'vm="{name}"' not in daemon.metrics(), what="its end")
        # The next one is killed: when its dump is there, the first VM would have had one too.
        with lab.DemoVms(name=name + "-2") as second:
            first_sample(daemon, name + "-2")
            second.kill(signal.SIGKILL)
            second.wait()
            [path] = wait_dumps(daemon, 1)
        tap.check("-killed-" + name + "-2" in path, path)
        tap.equal(set(read_dump(path)), {name + "-2"})


@t.test("QEMU that ends on SIGTERM leaves no dump, one that is killed does")
def _():
    setup()
    name = f"rec{os.getpid()}q"
    with lab.Daemon(only(name)) as daemon, lab.Qemu(name=name + "-a") as clean, \
            lab.Qemu(name=name + "-b") as killed:
        first_sample(daemon, name + "-a")
        first_sample(daemon, name + "-b")
        time.sleep(0.2)
        clean.stop(signal.SIGTERM)
        tap.wait_for(lambda: f'vm="{name}-a"' not in daemon.metrics(), what="its end")
        killed.kill(signal.SIGKILL)
        killed.wait()
        [path] = wait_dumps(daemon, 1)
        tap.check(f"-killed-{name}-b" in path, path)


@t.test("killed by a signal it does not handle, reaped late or at once")
def _():
    setup()
    with kvmfd.TinyVmm("vm a", "stats a", "vcpu a 0", "stats a/0") as late, \
            kvmfd.TinyVmm("vm a", "stats a", "vcpu a 0", "stats a/0") as at_once:
        names = {late.pid: f"pid-{late.pid}", at_once.pid: f"pid-{at_once.pid}"}
        both = only(names[late.pid]).replace("  rules:\n", f"""  rules:
    - match: {{vm: "{names[at_once.pid]}"}}
      enabled: true
""")
        with lab.Daemon(both) as daemon:
            for name in names.values():
                first_sample(daemon, name)
                wait_ticks(daemon, name, 0, 3)  # of less there is nothing to be dumped
            late.kill(signal.SIGQUIT)  # a zombie until the end of the test
            wait_dumps(daemon, 1)
            at_once.kill(signal.SIGABRT)
            at_once.wait()
            paths = wait_dumps(daemon, 2)
            found = [ctl.run("dump", path).stdout for path in paths]
            tap.check(names[late.pid] in found[0] and "killed by signal 3" in found[0], found[0])
            tap.check(names[at_once.pid] in found[1] and "killed by signal 6" in found[1], found[1])


@t.test("a VMM whose fds are gone before it has ended is one that lives, and its kill is seen")
def _():
    setup()
    with kvmfd.TinyVmm("vm a", "stats a", "vcpu a 0", "stats a/0") as vmm, \
            kvmfd.TinyVmm("vm a", "stats a", "vcpu a 0", "stats a/0") as other:
        vm = f"pid-{vmm.pid}"
        config = only(vm).replace("  rules:\n", f"""  rules:
    - match: {{vm: "pid-{other.pid}"}}
      enabled: true
""") + "discovery: {rescan: 200ms, sources: [statsfd]}\n"
        with lab.Daemon(config) as daemon:
            first_sample(daemon, vm)
            first_sample(daemon, f"pid-{other.pid}")
            # As of a VMM that is ending: of a process without its first thread /proc shows no fds.
            vmm.tell("leave")
            tap.wait_for(lambda: not os.listdir(f"/proc/{vmm.pid}/fd"), what="its thread's end")
            other.tell("close a/0:stats")  # no event tells of it: all are looked at
            tap.wait_for(lambda: row(daemon, other.pid)["vcpus_read"] == 0, what="the next look")
            tap.equal(row(daemon, vmm.pid)["vcpus_read"], 1, "as before")
            wait_ticks(daemon, vm, 0, len(wait_ticks(daemon, vm, 0, 1)) + 3)
            os.kill(vmm.pid, signal.SIGKILL)
            [path] = wait_dumps(daemon, 1)
            tap.check(f"-killed-{vm}" in path, path)
            tap.wait_for(lambda: f'vm="{vm}"' not in daemon.metrics(), what="its end")


@t.test("SIGUSR1: all VMs, as their history has them")
def _():
    setup()
    name = f"rec{os.getpid()}f"
    with lab.DemoVms(vms=3, vcpus=2, name=name, load="mix") as demo, \
            lab.Daemon(only(name)) as daemon:
        for vm, _ in demo.vms:
            first_sample(daemon, vm)
        time.sleep(0.5)
        daemon.kill(signal.SIGUSR1)
        [path] = wait_dumps(daemon, 1)
        found = read_dump(path)
        tap.equal(set(found), {vm for vm, _ in demo.vms})
        for vm, _ in demo.vms:
            live = columns(exact(history(daemon, vm)))
            tap.equal(set(live), set(found[vm]), "series")
            for key, (times, values, rates) in found[vm].items():
                n = len(values)
                tap.check(n > 5, f"{n} ticks of {vm}")
                tap.equal(values[-5:], live[key][1][:n][-5:], f"{key} of {vm}")
                tap.check(abs(times[-1] - live[key][0][n - 1]) < Fraction(1, 100), "times")
                if rates:
                    tap.equal(rates[-1], live[key][2][n - 1], "rates")


@t.test("files are bounded in number: the oldest go")
def _():
    setup()
    name = f"rec{os.getpid()}g"
    with lab.DemoVms(name=name) as demo, lab.Daemon(only(name)) as daemon:
        first_sample(daemon, demo.vms[0][0])
        seen = []
        for i in range(34):
            daemon.kill(signal.SIGUSR1)
            tap.wait_for(lambda i=i: counted(daemon, "written") == i + 1, what=f"dump {i + 1}")
            seen.append(dumps(daemon)[-1])
        tap.equal(dumps(daemon), seen[2:], "files")


def fails(daemon, vm, said):
    """A dump that cannot be written costs one line and nothing else."""
    ticks = series(daemon)["kvmstatd_ticks_total"]
    daemon.kill(signal.SIGUSR1)
    tap.wait_for(lambda: counted(daemon, "failed") >= 1, what="the failure")
    daemon.kill(signal.SIGUSR1)
    tap.wait_for(lambda: counted(daemon, "failed") >= 2, what="the second failure")
    lines = [line for line in daemon.errors().splitlines() if "no dump of it" in line]
    tap.equal(len(lines), 1, "\n".join(lines))
    tap.check(said in lines[0] and " warn " in lines[0], lines[0])
    tap.equal(counted(daemon, "written"), 0)
    tap.wait_for(lambda: series(daemon)["kvmstatd_ticks_total"] > ticks + 5, what="ticks")
    tap.check(len(columns(exact(history(daemon, vm)))) > 50, "history")


@t.test("a directory that is missing, a disk that is full or read-only: a log line, nothing else")
def _():
    setup()
    tap.require_tool("mount")
    name = f"rec{os.getpid()}h"
    with lab.DemoVms(vcpus=4, name=name, load="mix") as demo:
        vm = demo.vms[0][0]
        missing = only(name).replace("@DIR@/dumps", "@DIR@/not/there")
        with lab.Daemon(missing) as daemon:
            first_sample(daemon, vm)
            fails(daemon, vm, "No such file or directory")
        for options, said in (("size=4k", "No space left"), ("ro", "Read-only file system")):
            with lab.Daemon(only(name)) as daemon:
                folder = os.path.join(daemon.home, "dumps")
                os.mkdir(folder)
                subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], check=True)
                try:
                    first_sample(daemon, vm)
                    time.sleep(0.5)
                    fails(daemon, vm, said)
                    tap.equal(os.listdir(folder), [], "left behind")
                finally:
                    subprocess.run(["umount", folder], check=True)
                daemon.kill(signal.SIGUSR1)  # now there is room
                wait_dumps(daemon, 1)


@t.test("a directory that will not do is said at the start and at a reload, where dumps are wanted")
def _():
    setup()
    name = f"rec{os.getpid()}d"
    said = "no dump can be written to"
    missing = only(name).replace("@DIR@/dumps", "@DIR@/not/there")
    with lab.Daemon(missing) as daemon:
        tap.wait_for(lambda: daemon.errors().count(said) == 1, what="the log line")
        tap.check(any(said in line and " warn " in line and "No such file" in line
                      for line in daemon.errors().splitlines()), daemon.errors())
        daemon.reload(only(name).replace("@DIR@/dumps", "/dev/null"))
        tap.wait_for(lambda: daemon.errors().count(said) == 2, what="the other reason")
        tap.check("/dev/null (recorder.directory): Not a directory" in daemon.errors(), daemon.errors())
        for fine in (only(name), only(name).replace("/dumps", "/others/"), missing + "  dump_on: []\n", missing + "  memory: 0\n"):
            before = daemon.errors().count("configuration reloaded")
            daemon.reload(fine)
            tap.wait_for(lambda: daemon.errors().count("configuration reloaded") > before, what="reload")
        daemon.stop()
        tap.equal(daemon.errors().count(said), 2, daemon.errors())


@t.test("reload: off, on again, and what is dumped")
def _():
    setup()
    name = f"rec{os.getpid()}i"
    with lab.DemoVms(vms=2, name=name) as demo, lab.Daemon(only(name)) as daemon:
        (vm, _), (other, other_pid) = demo.vms
        first_sample(daemon, vm)
        time.sleep(0.3)
        tap.check(history(daemon, vm).json()["targets"], "something is recorded")
        daemon.reload(only(name, "  memory: 0\n"))
        tap.wait_for(lambda: daemon.get(f"/api/v1/history?vm={vm}").status == 404, what="its end")
        tap.wait_for(lambda: "kvmstatd_recorder_memory_bytes" not in daemon.metrics(),
                     what="the end of its memory")
        began = time.time()
        daemon.reload(only(name, "  memory: 1MiB\n  dump_on: [signal]\n"))
        tap.wait_for(lambda: daemon.get(f"/api/v1/history?vm={vm}").status == 200, what="the new one")
        tap.wait_for(lambda: history(daemon, vm).json()["targets"], what="something recorded")
        times, _, _ = columns(exact(history(daemon, vm)))[-1, "remote_tlb_flush"]
        tap.check(float(times[0]) > began, "older than the new memory")
        os.kill(other_pid, signal.SIGKILL)
        # Discovery can know of it before the sampler does, whose recording it is.
        tap.wait_for(lambda: f'vm="{other}"' not in daemon.metrics(), what="its end")
        daemon.kill(signal.SIGUSR1)
        [path] = wait_dumps(daemon, 1)
        tap.check("-signal" in path, path)
        tap.equal(set(read_dump(path)), {vm})
        daemon.reload(only(name, "  memory: 1MiB\n  dump_on: []\n"))
        tap.wait_for(lambda: daemon.errors().count("configuration reloaded") == 3, what="the reload")
        daemon.kill(signal.SIGUSR1)
        tap.wait_for(lambda: "nothing is dumped" in daemon.errors(), what="the log line")
        tap.equal(len(dumps(daemon)), 1)


@t.test("kvmstatctl dump refuses what is no dump, and reads what there is of a short one")
def _():
    setup()
    name = f"rec{os.getpid()}j"
    with lab.DemoVms(vms=2, name=name) as demo, lab.Daemon(only(name)) as daemon:
        for vm, _ in demo.vms:
            first_sample(daemon, vm)
        time.sleep(0.3)
        daemon.kill(signal.SIGUSR1)
        [path] = wait_dumps(daemon, 1)
        with open(path, "rb") as f:
            whole = f.read()
        broken = os.path.join(daemon.home, "broken")

        def tried(content):
            with open(broken, "wb") as f:
                f.write(content)
            return ctl.run("dump", broken)
        for content in (b"", b"no dump", os.urandom(5000)):
            done = tried(content)
            tap.equal((done.returncode, done.stdout), (1, ""))
            tap.check("is no dump of kvmstatd" in done.stderr, done.stderr)
        for _ in range(50):
            # A bit anywhere but in the padding between sections, which nothing depends on.
            at = t.random.randrange(len(whole))
            if whole[at] == 0:
                continue
            damaged = bytearray(whole)
            damaged[at] ^= 1 << t.random.randrange(8)
            done = tried(bytes(damaged))
            tap.equal(done.returncode, 1, f"byte {at}: {done.stdout} {done.stderr}")
        done = tried(whole[:len(whole) - 40])
        tap.equal(done.returncode, 1)
        tap.check("cut short" in done.stderr and "1 VM" in done.stdout or "2 VMs" in done.stdout,
                  done.stderr + done.stdout)
        tap.equal(ctl.run("dump").returncode, 2)
        tap.equal(ctl.run("dump", "--vcpu", "x", path).returncode, 2)
        tap.equal(ctl.run("nosuch").returncode, 2)
        tap.equal(ctl.run("dump", "--vm", "nosuch", path).returncode, 1)
        tap.equal(ctl.run("--help").returncode, 0)


t.main()
