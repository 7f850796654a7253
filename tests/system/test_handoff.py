# SPDX-License-Identifier: Apache-2.0
"""VMs that are handed over: by the preload shim under VMMs that know nothing of it, and by the client
that the protocol's document shows."""

import os
import re
import signal
import struct
import subprocess
import tempfile
import time

import kvmfd
import lab
import tap
from exposed import OPENMETRICS, first_sample, held_between, row, series, shown
from handing import CLIENT, FAST, HANDOFF, KvmHere, demo_under_shim, info, kvm_files, place, \
    preloaded, qemu_under_shim, rejected, socket_config, whole

t = tap.Tests()


@t.test("an unmodified VMM under the shim: every value lies between two own reads")
def _():
    with place() as folder, \
            lab.Daemon(HANDOFF + FAST + socket_config(folder) + "metrics: {histograms: vcpu}\n") \
            as daemon, demo_under_shim(folder, vms=2, vcpus=2, name="web", load="mix") as demo:
        for vm, pid in demo.vms:
            whole(daemon, vm, pid, 2)
            tap.equal(info(daemon, vm), "handoff", "source")
            for accept in (None, OPENMETRICS):
                moved = held_between(daemon, vm, pid, accept)
                tap.check(moved > 20, f"only {moved} series of a busy guest moved")
        tap.equal(row(daemon, demo.vms[0][1])["source"], "handoff")
        targets = series(daemon)
        tap.equal(targets['kvmstatd_targets{scope="vm",source="handoff"}'], 2)
        tap.equal(targets['kvmstatd_targets{scope="vcpu",source="handoff"}'], 4)


SANDBOX = ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")


@t.test("stock QEMU under the shim, with and without its seccomp sandbox as libvirt sets it")
def _():
    with place() as folder, \
            lab.Daemon(HANDOFF + FAST + socket_config(folder) + "metrics: {histograms: vcpu}\n") \
            as daemon, qemu_under_shim(folder, name="plain", vcpus=2) as plain, \
            qemu_under_shim(folder, name="boxed", vcpus=2, args=SANDBOX) as boxed:
        with open(f"/proc/{boxed.pid}/status", encoding="ascii") as f:
            tap.check("Seccomp:\t2" in f.read(), "the sandbox is not on")
        for vm, qemu in (("plain", plain), ("boxed", boxed)):
            whole(daemon, vm, qemu.pid, 2)
            tap.equal(info(daemon, vm), "handoff", "source")
            held_between(daemon, vm, qemu.pid, None)
        for qemu in (plain, boxed):
            tap.check(qemu.running(), qemu.errors())


@t.test("a VMM under the shim needs no daemon, and one that comes later finds it")
def _():
    with place() as folder, demo_under_shim(folder, vcpus=2, name="early") as demo:
        [(_, pid)] = demo.vms
        with lab.Daemon(HANDOFF + FAST + socket_config(folder)) as daemon:
            whole(daemon, "early", pid, 2)


@t.test("a daemon that is restarted, or killed, is given everything again; values go on")
def _():
    with place() as folder, demo_under_shim(folder, vms=20, vcpus=2, name="again") as demo:
        last = {}
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
            with lab.Daemon(HANDOFF + FAST + socket_config(folder)) as daemon:
                for vm, pid in demo.vms:
                    whole(daemon, vm, pid, 2)
                now = series(daemon)
                for vm, _ in demo.vms:
                    key = f'kvm_vcpu_exits_total{{vm="{vm}",vcpu="1"}}'
                    tap.check(now[key] >= last.get(key, 0), f"{key} fell")
                    last[key] = now[key]
                tap.equal(rejected(daemon, "bad_message"), 0)
                daemon.stop(number)


@t.test("from one source to the other and back: no gap, nothing twice, nothing falls")
def _():
    with place() as folder:
        def config(sources):
            return (FAST + f"discovery: {{sources: [{sources}], rescan: 200ms}}\n" +
                    socket_config(folder) + "metrics: {histograms: vm}\n")
        with lab.Daemon(config("handoff, statsfd")) as daemon, \
                demo_under_shim(folder, vcpus=2, name="moves", load="mix") as demo:
            [(_, pid)] = demo.vms
            whole(daemon, "moves", pid, 2)
            own = re.compile(r'kvm_\w+_(total|bucket|count|sum)\{vm="moves"')
            before, seen = {}, set()
            # The shim's own duplicates can be borrowed like any VMM's.
            for sources in ("statsfd, handoff", "handoff, statsfd", "statsfd", "handoff",
                            "handoff, statsfd") * 2:
                daemon.reload(config(sources))
                best = sources.split(",", maxsplit=1)[0]

                def moved(best=best):
                    nonlocal before
                    now = {k: v for k, v in series(daemon).items() if own.match(k)}
                    tap.equal(set(before) - set(now), set(), "series that are missing")
                    for key, value in before.items():
                        tap.check(now[key] >= value, f"{key} fell")
                    before = now
                    source = info(daemon, "moves")
                    seen.add(source)
                    return source == best
                tap.wait_for(moved, lab.TIMEOUT_S, 0.005, f"{best} to be used")
                tap.equal(shown(daemon, "moves"), 1, "VMs of that name")
                tap.equal(row(daemon, pid)["vcpus_read"], 2)
            tap.check({"handoff", "statsfd"} <= seen, f"only {seen}")


@t.test("BPF takes over what is taken back, and gives way to what is handed over")
def _():
    if not os.path.exists("/sys/kernel/btf/vmlinux"):
        tap.skip("the kernel has no BTF")
    config = "discovery: {sources: [handoff, bpf], rescan: 200ms}\n"
    with place() as folder, lab.Daemon(FAST + config + socket_config(folder)) as daemon, \
            KvmHere() as kvm:
        name, vm = f"pid-{os.getpid()}", kvm.vm()
        vcpus = [kvm.vcpu(vm, n) for n in range(2)]
        key = f'kvm_vcpu_exits_total{{vm="{name}",vcpu="1"}}'

        def wait_source(source):
            def reached():
                tap.check(key in daemon.metrics(), "a gap")
                return info(daemon, name) == source
            tap.wait_for(reached, lab.TIMEOUT_S, 0.005, source)
        tap.wait_for(lambda: key in daemon.metrics(), what="BPF")
        wait_source("bpf")
        client = kvm.client(folder)
        for number in range(3):
            tap.equal(client.vm(number, vm), CLIENT["ACCEPTED"])
            wait_source("handoff+bpf")
            for vcpu_id, vcpu in enumerate(vcpus):
                tap.equal(client.vcpu(number, vcpu_id, vcpu), CLIENT["ACCEPTED"])
            wait_source("handoff")
            tap.equal(row(daemon, os.getpid())["vcpus_read"], 2)
            tap.equal(client.ask(4, struct.pack("=Q", number)), CLIENT["ACCEPTED"])
            wait_source("bpf")


@t.test("several VMs in one process are told apart, and one that is closed is let go")
def _():
    with place() as folder, kvmfd.Uevents() as events, \
            lab.Daemon(HANDOFF + FAST + socket_config(folder)) as daemon:
        with preloaded(folder):
            vmm = kvmfd.TinyVmm("vm a", "vcpu a 0", "vcpu a 1", "vm b", "vcpu b 0")
        with vmm:
            def read():
                rows = [v for v in daemon.get("/api/v1/vms").json()["vms"] if v["pid"] == vmm.pid]
                return sorted(v["vcpus_read"] for v in rows if v["vm_scope_read"])
            tap.wait_for(lambda: read() == [1, 2], what="both VMs")
            tap.wait_for(lambda: shown(daemon, f"pid-{vmm.pid}") == 2, what="both in /metrics")
            for name in ("a/0", "a/1", "a"):
                vmm.tell(f"close {name}")
            events.wait("destroy", [vmm.pid])
            tap.wait_for(lambda: read() == [1], what="the other one alone")
            vmm.tell("vcpu b 1")
            tap.wait_for(lambda: read() == [2], what="its second vCPU")
            vmm.tell("close b")  # it lives on by its vCPUs
            time.sleep(0.5)
            tap.equal(read(), [2])
            vmm.tell("close b/1")
            tap.wait_for(lambda: read() == [1], what="the vCPU to go")
            vmm.tell("close b/0")
            events.wait("destroy", [vmm.pid])
            tap.wait_for(lambda: read() == [], what="nothing left")
            tap.equal(kvm_files(vmm.pid), {}, "the shim's own fds")


@t.test("vCPUs that are made by a duplicate of the VM's fd are that VM's, which lives on by it")
def _():
    with place() as folder, kvmfd.Uevents() as events, \
            lab.Daemon(HANDOFF + FAST + socket_config(folder)) as daemon:
        with preloaded(folder):
            vmm = kvmfd.TinyVmm("vm a", "vcpu a 0", "dup a b", "vcpu b 1", "vcpu b 2")
        with vmm:
            whole(daemon, f"pid-{vmm.pid}", vmm.pid, 3)
            for name in ("a", "a/0", "b/1", "b/2"):
                vmm.tell(f"close {name}")
            tap.wait_for(lambda: row(daemon, vmm.pid)["vcpus_read"] == 0, what="the vCPUs to go")
            tap.equal(row(daemon, vmm.pid)["vm_scope_read"], True)
            vmm.tell("close b")
            events.wait("destroy", [vmm.pid])
            tap.wait_for(lambda: not shown(daemon, f"pid-{vmm.pid}"), what="its end")


@t.test("a child that a VMM forks has nothing of it, and the VM ends with the VMM")
def _():
    with place() as folder, kvmfd.Uevents() as events, \
            lab.Daemon(HANDOFF + FAST + socket_config(folder)) as daemon:
        with preloaded(folder):
            vmm = kvmfd.TinyVmm("vm a", "vcpu a 0")
        with vmm:
            whole(daemon, f"pid-{vmm.pid}", vmm.pid, 1)
            tap.equal({k: len(v) for k, v in kvm_files(vmm.pid).items()},
                      {"anon_inode:kvm-vm": 2, "anon_inode:kvm-vm-stats": 1,
                       "anon_inode:kvm-vcpu:0": 1, "anon_inode:kvm-vcpu-stats:0": 1})
            child = int(vmm.tell("fork"))
            # The parent goes on before the child has cleaned up.
            tap.wait_for(lambda: {k: len(v) for k, v in kvm_files(child).items()} ==
                         {"anon_inode:kvm-vm": 1, "anon_inode:kvm-vcpu:0": 1},
                         what="the child to have closed what is the shim's")
            os.kill(child, signal.SIGKILL)
            vmm.kill()
            vmm.wait()
            events.wait("destroy", [vmm.pid])
            tap.wait_for(lambda: not shown(daemon, f"pid-{vmm.pid}"), what="its end")


@t.test("VMMs killed in the middle of everything: every VM is destroyed, no fd stays")
def _():
    with place() as folder, lab.Daemon("sampling: {interval: 1ms}\n" + HANDOFF +
                                       socket_config(folder)) as daemon:
        tap.wait_for(lambda: daemon.n_fds(), what="fds")
        fds = daemon.n_fds()
        for _ in range(5):
            with kvmfd.Uevents() as events, \
                    demo_under_shim(folder, vms=20, vcpus=2, name="dies") as demo:
                for vm, _ in demo.vms[:t.random.randrange(20)]:
                    first_sample(daemon, vm)
                for _, pid in demo.vms:
                    os.kill(pid, signal.SIGKILL)
                events.wait("destroy", [pid for _, pid in demo.vms])
        tap.wait_for(lambda: daemon.n_fds() <= fds, what="all fds to be closed")
        tap.equal(shown(daemon, "dies"), 0)
        tap.check(daemon.running(), daemon.errors())


def drop_to_nobody(folder):
    """Before exec: nobody, without any capability."""
    def drop():
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    os.chmod(folder, 0o777)
    return drop


def nobodys_daemon(folder):
    """A daemon without any privilege, which may not list the fds of root's processes."""
    config = HANDOFF + FAST + socket_config(folder) + "recorder: {memory: 0}\n"
    home = tempfile.mkdtemp(prefix="kvmstatd-nobody-", dir=folder)
    os.chmod(home, 0o777)
    before = tempfile.tempdir
    tempfile.tempdir = home
    try:
        return NobodysDaemon(config, preexec=drop_to_nobody(folder))
    finally:
        tempfile.tempdir = before


@t.test("a daemon without any privilege reads what it is given, several VMs of a process too")
def _():
    with place() as folder, nobodys_daemon(folder) as daemon, \
            demo_under_shim(folder, vcpus=2, name="open", load="mix") as demo:
        [(_, pid)] = demo.vms
        whole(daemon, "open", pid, 2)
        tap.equal(info(daemon, "open"), "handoff")
        with preloaded(folder):
            vmm = kvmfd.TinyVmm("vm a", "vcpu a 0", "vcpu a 1", "vm b", "vcpu b 0")
        with vmm:
            def read():
                rows = [v for v in daemon.get("/api/v1/vms").json()["vms"]
                        if v["pid"] == vmm.pid]
                return sorted(v["vcpus_read"] or 0 for v in rows)
            tap.wait_for(lambda: read() == [1, 2], what="both VMs, each once")
            for name in ("a/0", "a/1", "a"):
                vmm.tell(f"close {name}")
            tap.wait_for(lambda: read() == [1], what="one to go")
        tap.wait_for(lambda: read() == [], what="its VMM's end")


@t.test("a daemon without any privilege: the end of a thread's second VM is not taken for the first's")
def _():
    with place() as folder, nobodys_daemon(folder) as daemon, KvmHere() as kvm, \
            kvmfd.Uevents() as events:
        client = kvm.client(folder)
        for number, name in enumerate((b"first", b"second")):
            vm = kvm.vm()
            given = len(kvm.fds)
            tap.equal(client.vm(number, vm, name), CLIENT["ACCEPTED"])
            tap.equal(client.vcpu(number, 0, kvm.vcpu(vm, 0)), CLIENT["ACCEPTED"])
            first_sample(daemon, name.decode())
        tap.equal(client.ask(4, struct.pack("=Q", 1)), CLIENT["ACCEPTED"])
        for fd in kvm.fds[given - 1:]:
            os.close(fd)
        del kvm.fds[given - 1:]
        events.wait("destroy", [os.getpid()])
        tap.wait_for(lambda: not shown(daemon, "second"), what="its end")
        # Another that comes and goes: by then the daemon has had that event, too.
        client.vm(2, kvm.vm(), b"third")
        first_sample(daemon, "third")
        tap.equal(info(daemon, "first"), "handoff")
        tap.equal(shown(daemon, "second"), 0)
        tap.equal([line for line in daemon.errors().splitlines()
                   if ": gone," in line and "VM first " in line], [])


class NobodysDaemon(lab.Daemon):
    """Its files are in a folder that everybody may enter."""

    def write_config(self, text, complete=True):
        os.chmod(self.home, 0o777)
        super().write_config(text, complete)
        os.chmod(self.config_path, 0o644)


@t.test("the client of the document: hints, refusals, the same VM by two connections is one")
def _():
    with place() as folder, lab.Daemon(HANDOFF + FAST + socket_config(folder)) as daemon, \
            KvmHere() as kvm:
        vm, vcpu = kvm.vm(), None
        vcpu = kvm.vcpu(vm, 0)
        first = kvm.client(folder)
        tap.equal(first.vm(7, vm, b'na"me'), CLIENT["ACCEPTED"])
        tap.equal(first.vcpu(7, 0, vcpu), CLIENT["ACCEPTED"])
        tap.equal(first.vcpu(7, 1, vcpu), CLIENT["REFUSED"])  # it is vCPU 0; and that was the end
        second = kvm.client(folder)
        tap.equal(second.vm(1, vm, b'na"me'), CLIENT["ACCEPTED"])
        tap.equal(second.vcpu(1, 0, vcpu), CLIENT["ACCEPTED"])
        third = kvm.client(folder)
        tap.equal(third.vm(99, vm), CLIENT["ACCEPTED"])
        tap.equal(third.vcpu(8, 0, vcpu), CLIENT["REFUSED"])
        tap.wait_for(lambda: 'kvm_vm_info{vm="na\\"me",' in daemon.metrics(), what="its name")
        tap.equal(row(daemon, os.getpid())["vcpus_read"], 1)
        # A connection that ends changes nothing; what is given back goes.
        second.socket.close()
        time.sleep(0.5)
        tap.equal(row(daemon, os.getpid())["vcpus_read"], 1)
        fourth = kvm.client(folder)
        tap.equal(fourth.vm(5, vm, b'na"me'), CLIENT["ACCEPTED"])
        tap.equal(fourth.vcpu(5, 0, vcpu), CLIENT["ACCEPTED"])
        tap.equal(fourth.ask(5, struct.pack("=QII", 5, 0, 0)), CLIENT["ACCEPTED"])
        tap.wait_for(lambda: row(daemon, os.getpid())["vcpus_read"] == 0, what="the vCPU to go")
        tap.equal(fourth.ask(5, struct.pack("=QII", 5, 0, 0)), CLIENT["REFUSED"])
        tap.equal(fourth.ask(4, struct.pack("=Q", 5)), CLIENT["ACCEPTED"])
        tap.equal(third.ask(4, struct.pack("=Q", 99)), CLIENT["ACCEPTED"])
        tap.wait_for(lambda: not shown(daemon, "na"), what="the VM to go")


@t.test("a user who may not is refused, and his VM listed with what would help")
def _():
    with place() as folder, \
            lab.Daemon(HANDOFF + FAST + socket_config(folder, "[65533]")) as daemon, \
            demo_under_shim(folder, name="stranger") as demo:
        [(_, pid)] = demo.vms
        tap.wait_for(lambda: rejected(daemon, "peer") > 0, what="the refusal")
        tap.wait_for(lambda: row(daemon, pid)["reason"] == "no_stats_fd", what="the report")
        tap.check("libkvmstatd-preload.so" in row(daemon, pid)["detail"], row(daemon, pid)["detail"])
        # Allowed from now on: the shim asks again.
        daemon.reload(HANDOFF + FAST + socket_config(folder, "[65533, root]"))
        whole(daemon, "stranger", pid, 1)
        daemon.reload(HANDOFF + FAST + socket_config(folder, "[65533]"))
        tap.wait_for(lambda: not shown(daemon, "stranger"), what="what he gave to go")


@t.test("the shim does not change what a VMM does: results, errno, a missing file")
def _():
    with place() as folder, preloaded(folder):
        code = """
import errno, fcntl, os
kvm = os.open("/dev/kvm", os.O_RDWR)
for request in (0xae01, 0xae41, 0xaece):
    try:
        fcntl.ioctl(0, request, 0)
    except OSError as e:
        assert e.errno in (errno.ENOTTY, errno.EINVAL), e
    try:
        fcntl.ioctl(9999, request, 0)
    except OSError as e:
        assert e.errno == errno.EBADF, e
vms = [fcntl.ioctl(kvm, 0xae01, 0) for _ in range(3)]
assert fcntl.ioctl(kvm, 0xae00, 0) == 12
for vm in vms:
    fcntl.ioctl(vm, 0xae41, 0)
    try:
        fcntl.ioctl(vm, 0xae41, 0)
        raise SystemExit("a vCPU twice")
    except OSError as e:
        assert e.errno == errno.EEXIST, e
    os.close(vm)
    try:
        os.close(vm)
        raise SystemExit("closed twice")
    except OSError as e:
        assert e.errno == errno.EBADF, e
print("good")
"""
        done = subprocess.run(["/usr/bin/python3", "-c", code], capture_output=True, text=True,
                              check=False, timeout=lab.TIMEOUT_S)
        tap.equal(done.stdout, "good\n", done.stderr)
        tap.equal(done.stderr, "", "what the shim says")


if __name__ == "__main__":
    t.main()
