# SPDX-License-Identifier: Apache-2.0
"""What a host can be short of or forbid: named in the log once, counted, and made good when the cause
goes. What other tests have: forbidden pidfd_getfd and listing of fds (test_unpinned), no BPF."""

import contextlib
import ctypes
import os
import resource
import signal
import socket
import subprocess
import tempfile
import time

import lab
import tap
from exposed import first_sample, held_between, row, series, shown
from faulted import Faults

t = tap.Tests()
PREFIX = f"flt{os.getpid()}"
# What held_between() compares.
EACH = "metrics: {histograms: vcpu}\n"

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS, _MS_REC, _MS_PRIVATE, _MNT_DETACH = 0x20000, 0x4000, 0x40000, 2
_MS_BIND = 0x1000
CAP_PERFMON, CAP_BPF = 38, 39
NOBODY = 65534
SYS_SETSOCKOPT = 54  # x86-64


def _must(result):
    if result != 0:
        os._exit(1)


def private_mounts():
    _must(_libc.unshare(_CLONE_NEWNS))
    _must(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))


def lines(daemon, word):
    return [line for line in daemon.errors().splitlines() if word in line]


def try_get(daemon, path):
    """A status, or None: a connection may be refused where there is no memory for it."""
    try:
        return daemon.get(path, timeout_s=5).status
    except OSError:
        return None
    except Exception:  # an answer that was cut off
        return None


@t.test("out of memory, again and again: it goes on, and afterwards everything is there")
def _():
    tap.require_kvm()
    faults = Faults()
    with lab.DemoVms(name=f"{PREFIX}a", vms=3, vcpus=2) as old, \
            lab.Daemon(EACH + "discovery: {rescan: 500ms}\n", env=faults.env) as daemon:
        first_sample(daemon, f"{PREFIX}a-1")
        statuses = set()
        for rate in (20, 200, 2000, 20000, 65536):
            faults.fail_allocations(rate)
            with lab.DemoVms(name=f"{PREFIX}x", vms=3, vcpus=2):
                for _ in range(4):
                    statuses.add(try_get(daemon, "/metrics"))
                    statuses.add(try_get(daemon, "/api/v1/vms"))
                    daemon.reload()
                    time.sleep(0.05)
            tap.check(daemon.running(), daemon.errors())
        tap.check(faults.failed() > 50, f"only {faults.failed()} allocations failed")
        tap.check(statuses <= {200, 500, 503, None}, f"answers: {statuses}")
        faults.fail_allocations(0)
        with lab.DemoVms(name=f"{PREFIX}new", vms=2, vcpus=2) as new:
            for vms, name in ((old, f"{PREFIX}a-1"), (new, f"{PREFIX}new-1")):
                first_sample(daemon, name)
                held_between(daemon, name, dict(vms.vms)[name], None)
            tap.wait_for(lambda: shown(daemon, PREFIX) == 5, what="all that is there and no more")
        tap.check(len(lines(daemon, "memory")) < 60, daemon.errors())
        tap.equal(daemon.stop(), 0)


@t.test("out of file descriptors: the VMs that are not read are counted, and read when there are more")
def _():
    tap.require_kvm()
    n = 30

    config = f"""
discovery: {{sources: [statsfd], rescan: 500ms}}
scheduler: {{interval: off}}
sampling: {{rules: [{{match: {{vm: "{PREFIX}*"}}, enabled: true}}, {{match: {{vm: "*"}}, enabled: false}}]}}
"""
    with lab.Daemon(config) as daemon:
        _, most = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
        # A third of them is kept for others than VMs, and these want five each.
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (daemon.n_fds() + 90, most))
        runs_out(daemon, n, most)


def runs_out(daemon, n, most):
    with lab.DemoVms(name=f"{PREFIX}f", vms=n, vcpus=3) as demo:
        key = 'kvmstatd_vms_unreadable{reason="fd_limit"}'
        tap.wait_for(lambda: series(daemon)[key] + shown(daemon, f"{PREFIX}f") == n,
                     what="all VMs, read or counted")
        tap.check(0 < series(daemon)[key] < n, f"{series(daemon)[key]} not read")
        reasons = {row(daemon, pid)["reason"] for _, pid in demo.vms}
        tap.check("fd_limit" in reasons, reasons)
        time.sleep(1.2)  # two more looks have nothing new to say
        # Scrapes and other connections have theirs, however many VMs there are.
        with contextlib.ExitStack() as stack:
            for _ in range(10):
                stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port)))
            for _ in range(10):
                tap.equal(daemon.get("/metrics").status, 200, "a scrape")
        tap.equal(lines(daemon, "cannot take a connection"), [])
        told = lines(daemon, "fd_limit")
        tap.equal(len(told), len(set(line.split("VM ")[1] for line in told)), "lines of one VM")
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (most, most))
        tap.wait_for(lambda: shown(daemon, f"{PREFIX}f") == n and series(daemon)[key] == 0,
                     what="all VMs, now that there are fds")


@t.test("a log that is full or has nobody at its other end stops nothing")
def _():
    tap.require_kvm()

    def to_full_disk():
        os.dup2(os.open("/dev/full", os.O_WRONLY), 2)

    def to_nobody():
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 2)
    for preexec in (to_full_disk, to_nobody):
        with lab.DemoVms(name=f"{PREFIX}l", vcpus=1) as demo, \
                lab.Daemon(EACH, args=("--log.level", "debug"), preexec=preexec) as daemon:
            first_sample(daemon, f"{PREFIX}l")
            held_between(daemon, f"{PREFIX}l", demo.vms[0][1], None)
            tap.equal(daemon.stop(), 0)


@t.test("kernel events that were lost are noticed, and nothing is missed")
def _():
    tap.require_kvm()
    # Without setsockopt() its receive buffer is as small as everybody's.
    small_buffer = lab.forbid_call(SYS_SETSOCKOPT)
    config = 'discovery: {rescan: 1h}\nweb: {listen: ["unix:@DIR@/http"]}\n'
    with lab.Daemon(config, preexec=small_buffer, listen=False, wait=False) as daemon:
        daemon.url = f"unix:{daemon.home}/http:"
        daemon.wait_ready()
        daemon.freeze()
        try:
            for _ in range(2):
                with lab.DemoVms(name=f"{PREFIX}e", vms=100):
                    pass
            with lab.DemoVms(name=f"{PREFIX}late", vms=2) as demo:
                daemon.kill(signal.SIGCONT)
                tap.wait_for(lambda: lines(daemon, "events were lost"), what="the log's word")
                for name, _ in demo.vms:
                    first_sample(daemon, name)
                tap.equal(shown(daemon, f"{PREFIX}e"), 0)
        finally:
            daemon.kill(signal.SIGCONT)


@t.test("a clock that is set changes no rate and no tick, only what the time is said to be")
def _():
    tap.require_kvm()
    faults = Faults()
    with lab.DemoVms(name=f"{PREFIX}c"), lab.Daemon(env=faults.env) as daemon:
        name = f"{PREFIX}c"
        first_sample(daemon, name)
        at = f'kvm_vm_last_sample_timestamp_seconds{{vm="{name}"}}'
        for ahead_s in (3600, -86400, 0):
            before = series(daemon)
            faults.step_clock(ahead_s)
            time.sleep(0.5)
            after = series(daemon)
            tap.between(-2, after[at] - int(time.time()) - ahead_s, 2, "time of the sample, off by")
            tap.between(1, after["kvmstatd_ticks_total"] - before["kvmstatd_ticks_total"], 100, "ticks")
            tap.between(0, after["kvmstatd_ticks_missed_total"]
                        - before["kvmstatd_ticks_missed_total"], 10, "missed ticks")
        tap.equal(lines(daemon, "clock"), [])


@t.test("stopped for a while, as by a suspend: ticks are counted as missed, not made up for")
def _():
    tap.require_kvm()
    with lab.DemoVms(name=f"{PREFIX}s") as demo, lab.Daemon(EACH) as daemon:
        name = f"{PREFIX}s"
        first_sample(daemon, name)
        before = series(daemon)
        began = time.monotonic()
        daemon.freeze()
        time.sleep(2)
        daemon.kill(signal.SIGCONT)
        missed = "kvmstatd_ticks_missed_total"
        tap.wait_for(lambda: series(daemon)[missed] - before[missed] >= 15, what="missed ticks")
        after = series(daemon)
        lasted = time.monotonic() - began
        ticks = after["kvmstatd_ticks_total"] - before["kvmstatd_ticks_total"]
        # One other group may be there for another test's VMs.
        tap.check(ticks <= (lasted - 2 + 0.3) * 10 * 4 + 4, f"{ticks} ticks in {lasted} s")
        held_between(daemon, name, demo.vms[0][1], None)


@t.test("without /sys there is no BPF, which is said once; what has files is read")
def _():
    tap.require_kvm()
    tap.require_root()

    def no_sys():
        private_mounts()
        _must(_libc.umount2(b"/sys", _MNT_DETACH))
    with lab.DemoVms(name=f"{PREFIX}y") as demo, \
            lab.DemoVms(name=f"{PREFIX}z", stats_fds="none") as without, \
            lab.Daemon(EACH + "discovery: {rescan: 300ms}\n", preexec=no_sys) as daemon:
        first_sample(daemon, f"{PREFIX}y")
        held_between(daemon, f"{PREFIX}y", demo.vms[0][1], None)
        tap.equal(row(daemon, without.vms[0][1])["reason"], "no_stats_fd")
        time.sleep(1)
        tap.equal(len(lines(daemon, "cannot be read by BPF")), 1)


def hide(path, behind):
    """For preexec: in the daemon's own mounts another file is there, until show()."""
    def mount():
        private_mounts()
        _must(_libc.mount(behind.encode(), path.encode(), None, _MS_BIND, None))
    return mount


def show(daemon, path):
    subprocess.run(["nsenter", "-t", str(daemon.pid), "-m", "umount", "-l", path], check=True)


@t.test("BPF that cannot be used at first is used once it can: /dev/kvm comes later")
def _():
    tap.require_kvm()
    tap.require_root()
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as none:
        none.bind(f"{folder}/none")  # which nobody can open
        with lab.DemoVms(name=f"{PREFIX}k", stats_fds="none", vcpus=2) as demo, \
                lab.Daemon("discovery: {sources: [bpf], rescan: 200ms}\n",
                           preexec=hide("/dev/kvm", f"{folder}/none")) as daemon:
            [(vm, pid)] = demo.vms
            tap.wait_for(lambda: "BPF cannot be used" in row(daemon, pid).get("detail", ""),
                         what="its reason")
            show(daemon, "/dev/kvm")
            first_sample(daemon, vm)
            tap.wait_for(lambda: row(daemon, pid)["vcpus_read"] == 2, what="its vCPUs")
            tap.equal(len(lines(daemon, "cannot be read by BPF")), 1)


@t.test("the kernel's types come later: VMs of which only events told are read, each once")
def _():
    tap.require_kvm()
    tap.require_root()
    btf = "/sys/kernel/btf/vmlinux"
    hidden = hide(btf, "/dev/null")

    def drop():
        hidden()
        lab.keep_capabilities(CAP_PERFMON, CAP_BPF)()
    with lab.Daemon("discovery: {sources: [bpf], rescan: 200ms}\n", preexec=drop) as daemon, \
            lab.DemoVms(name=f"{PREFIX}t", stats_fds="none", vcpus=2) as demo:
        [(vm, pid)] = demo.vms
        tap.wait_for(lambda: row(daemon, pid)["reason"] == "permission", what="its reason")
        show(daemon, btf)
        first_sample(daemon, vm)
        tap.wait_for(lambda: row(daemon, pid)["vcpus_read"] == 2, what="its vCPUs, and one VM")
        tap.equal(len(lines(daemon, "cannot be read by BPF")), 1)


@t.test("processes that /proc hides are missed, and the log says so once")
def _():
    tap.require_kvm()
    tap.require_root()

    def hidden():
        private_mounts()
        _must(_libc.mount(b"proc", b"/proc", b"proc", 0, b"hidepid=2"))
        os.chmod(".", 0o777)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    with lab.Daemon("discovery: {rescan: 200ms}\n", preexec=hidden) as daemon, \
            lab.DemoVms(name=f"{PREFIX}h", vms=2):
        tap.wait_for(lambda: lines(daemon, "hidepid"), what="the log's word on hidepid")
        tap.wait_for(lambda: lines(daemon, "VMs are alive"), what="the log's word on the VMs")
        tap.check(series(daemon)["kvmstatd_kernel_vms"] >= 2, "the kernel's count")
        tap.equal(shown(daemon, f"{PREFIX}h"), 0)
        time.sleep(1)
        tap.equal(len(lines(daemon, "hidepid")), 1)
        tap.check(len(lines(daemon, "VMs are alive")) <= 2, daemon.errors())


t.main()
