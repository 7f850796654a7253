# SPDX-License-Identifier: Apache-2.0
"""BPF under hard treatment: the daemon killed under many VMs, VMMs killed during sweeps. The kernel's
own log says whether anything was touched that should not have been."""

import os
import re
import signal

import kvmfd
import lab
import tap
from exposed import series, shown

t = tap.Tests()

VMS = 200
KILLED = 1000
VCPUS = 2
TROUBLE = re.compile(r"WARNING:|BUG:|Oops|general protection|use-after-free|refcount_t|"
                     r"unable to handle|soft lockup|rcu:.*stall|Kernel panic")


class KernelLog:
    """What the kernel logs from now on."""

    def __init__(self):
        try:
            self.fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as e:
            tap.skip(f"/dev/kmsg: {e.strerror}")
        os.lseek(self.fd, 0, os.SEEK_END)

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        os.close(self.fd)

    def lines(self):
        found = []
        while True:
            try:
                found.append(os.read(self.fd, 8192).decode(errors="replace"))
            except BlockingIOError:
                return found
            except BrokenPipeError:
                found.append("BUG: lines were overwritten before they were read")

    def check_clean(self):
        """A line of our own at the end proves that the log is really read."""
        mark = f"kvmstatd test {os.getpid()} looked here\n"
        with open("/dev/kmsg", "w", encoding="ascii") as f:
            f.write(mark)
        lines = self.lines()
        tap.check(any(mark.strip() in line for line in lines), "the kernel's log cannot be read")
        tap.equal([line for line in lines if TROUBLE.search(line)], [], "kernel log")


def setup():
    tap.require_kvm()
    tap.require_root()
    if not os.path.exists("/sys/kernel/btf/vmlinux"):
        tap.skip("the kernel has no BTF")


def prefix(word):
    return f"{word}{os.getpid()}"  # nobody else's on this host


def demo_vms(n, name):
    return lab.DemoVms(vms=n, vcpus=VCPUS, name=name, stats_fds="none", load="idle")


def config(name, interval, more=""):
    """BPF alone, and of this host's VMs ours alone."""
    return (f'sampling:\n  interval: {interval}\n  rules:\n    - match: {{vm: "{name}*"}}\n'
            f'      interval: {interval}\n    - match: {{vm: "*"}}\n      enabled: false\n'
            f"discovery: {{sources: [bpf], rescan: 1s}}\nscheduler: {{interval: off}}\n{more}")


def whole(daemon, name):
    """How many vCPUs are read of the VMs so called."""
    return sum(key.startswith(f'kvm_vcpu_exits_total{{vm="{name}') for key in series(daemon))


@t.test("the daemon killed and started again under 200 VMs: all are read again")
def _():
    setup()
    name = prefix("again")
    with KernelLog() as log, demo_vms(VMS, name) as demo:
        for _ in range(4):
            with lab.Daemon(config(name, "10ms")) as daemon:
                tap.wait_for(lambda: whole(daemon, name) == VMS * VCPUS, lab.TIMEOUT_S, 0.1, "all VMs")
                tap.equal(shown(daemon, name), VMS)
                daemon.kill(signal.SIGKILL)
                tap.equal(daemon.wait(), -signal.SIGKILL)
        tap.equal(len([pid for _, pid in demo.vms if os.path.exists(f"/proc/{pid}")]), VMS, "VMMs")
        log.check_clean()


@t.test("a daemon that was killed pins nothing: VMs that end while none runs are destroyed")
def _():
    setup()
    name = prefix("unpinned")
    with kvmfd.Uevents() as events, KernelLog() as log, demo_vms(VMS, name) as demo:
        with lab.Daemon(config(name, "10ms")) as daemon:
            tap.wait_for(lambda: whole(daemon, name) == VMS * VCPUS, lab.TIMEOUT_S, 0.1, "all VMs")
            daemon.kill(signal.SIGKILL)
            daemon.wait()
        for _, pid in demo.vms:
            os.kill(pid, signal.SIGKILL)
        events.wait("destroy", [pid for _, pid in demo.vms])
        log.check_clean()


@t.test("1,000 VMMs killed during sweeps: each VM is destroyed, the kernel has nothing to say")
def _():
    setup()
    name, stays = prefix("dies"), prefix("stays")
    at_once = 100
    with KernelLog() as log, demo_vms(2, stays), \
            lab.Daemon(config("*" + str(os.getpid()), "1ms")) as daemon:
        tap.wait_for(lambda: whole(daemon, stays) == 2 * VCPUS, what="those that stay")
        fds = daemon.n_fds()
        for _ in range(KILLED // at_once):
            with kvmfd.Uevents() as events, demo_vms(at_once, name) as demo:
                pids = [pid for _, pid in demo.vms]
                tap.wait_for(lambda: whole(daemon, name) == at_once * VCPUS, lab.TIMEOUT_S, 0.02,
                             "VMs to be swept")
                before = series(daemon)["kvmstatd_ticks_total"]
                for pid in t.random.sample(pids, len(pids)):
                    os.kill(pid, signal.SIGKILL)
                events.wait("destroy", pids)
                tap.wait_for(lambda: series(daemon)["kvmstatd_ticks_total"] > before,
                             what="sweeps to go on")
            tap.equal(shown(daemon, name), 0, "dead VMs shown")
        tap.equal(whole(daemon, stays), 2 * VCPUS, "those that stay")
        tap.wait_for(lambda: daemon.n_fds() <= fds + 2, what="all fds to be closed")
        tap.check(daemon.running(), daemon.errors())
        log.check_clean()


if __name__ == "__main__":
    t.main()
