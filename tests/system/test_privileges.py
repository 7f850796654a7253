# SPDX-License-Identifier: Apache-2.0
"""Who may do what: the capabilities of each thread, and what is read as a user of one's own with the
capabilities and system calls of the unit and of the tighter ways of running it."""

import contextlib
import os
import re
import shlex
import socket
import subprocess
import tempfile

import lab
import tap
import units
from confined import As, Unit, USER
from exposed import first_sample, held_between
from faulted import Faults
from handing import FAST, HANDOFF, demo_under_shim, info, place, preloaded, socket_config, whole

t = tap.Tests()
os.environ.pop("KVMSTATD_CONFINED", None)  # here it is confined more exactly
BITS = {"dac_override": 1, "net_bind_service": 10, "sys_ptrace": 19, "perfmon": 38, "bpf": 39}
VMM_USER = USER + 1  # of VMs that are neither root's nor the daemon's


def bits(names):
    return sum(1 << BITS[name] for name in names)


def capabilities(pid):
    """{(thread's name, its permitted and effective capabilities)}; none may be inheritable."""
    found = set()
    for tid, text in lab.of_threads(pid, "status").items():
        status = dict(re.findall(r"^(\w+):\s*(\S+)", text, re.M))
        sets = {key: int(status[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapAmb")}
        tap.equal((sets["CapInh"], sets["CapAmb"]), (0, 0), "what a program executed would get")
        tap.equal(sets["CapPrm"], sets["CapEff"])
        tap.equal(status["NoNewPrivs"], "1")
        # The thread sanitizer has a thread of its own, from before main().
        if not (lab.sanitized() and tid != pid and status["Name"] == "kvmstatd"):
            found.add((status["Name"], sets["CapPrm"]))
    return found


def check_threads(daemon, of_discovery, of_others=0):
    """Two threads more look at other users' processes, where /proc hides them from most: at their
    threads, and at how they ended."""
    looking = of_others | (of_discovery & bits(["sys_ptrace"]))
    special = {"discovery": of_discovery, "kvmstatd-sched": looking, "kvmstatd-dump": looking}
    for name, have in capabilities(daemon.pid):
        tap.equal(have, special.get(name, of_others), name)


def program_of_another_user(confined):
    """lab.program() with a script that makes the demo VM another user's."""
    path = os.path.join(confined.folder.name, "demo")
    with open(path, "w", encoding="utf-8") as f:
        words = " ".join("'" + word.replace("'", "'\\''") + "'" for word in confined.prefix())
        f.write(f'#!/bin/sh\nexec {words} {lab.program("kvmstatd-demo-vm")} "$@"\n')
    os.chmod(path, 0o755)
    return path


def demo_of_another_user(confined, **kwargs):
    """lab.DemoVms as the user of `confined`."""
    real, script = lab.program, program_of_another_user(confined)
    lab.program = lambda name: script if name == "kvmstatd-demo-vm" else real(name)
    try:
        return lab.DemoVms(**kwargs)
    finally:
        lab.program = real


@t.test("the shipped unit: others' VMs by their files and by BPF; one thread has capabilities")
def _():
    tap.require_kvm()
    if not os.path.exists("/sys/kernel/btf/vmlinux"):
        tap.skip("the kernel has no BTF")
    with Unit() as unit, As(user=VMM_USER) as other, \
            demo_of_another_user(other, vcpus=2, name="keeps", stats_fds="keep") as keeps, \
            demo_of_another_user(other, vcpus=2, name="stock", stats_fds="none", load="mix") as stock, \
            lab.DemoVms(vcpus=2, name="roots", stats_fds="keep") as roots, \
            lab.Daemon(FAST + "metrics: {histograms: vcpu}\n", prefix=unit.prefix()) as daemon:
        for vms, source in ((keeps, "statsfd"), (stock, "bpf"), (roots, "statsfd")):
            [(vm, pid)] = vms.vms
            whole(daemon, vm, pid, 2)
            tap.equal(info(daemon, vm), source, vm)
        held_between(daemon, "keeps", keeps.vms[0][1], None)
        for vm in ("keeps", "stock", "roots"):
            tap.wait_for(lambda vm=vm: f'kvm_vcpu_cpu_seconds_total{{vm="{vm}",vcpu="1"}}' in
                         daemon.metrics(), what="the CPU time of others' threads")
        check_threads(daemon, bits(["sys_ptrace", "bpf", "perfmon"]))
        [(_, pid)] = keeps.vms
        keeps.stop()
        tap.wait_for(lambda: not info(daemon, "keeps"), what="the VM to be gone")
        # A reload takes files, users and threads once more.
        daemon.reload("sampling: {interval: 20ms}\n")
        tap.wait_for(lambda: "configuration reloaded" in daemon.errors(), what="the reload")
        tap.check(daemon.running(), daemon.errors())
        tap.equal(daemon.stop(), 0)


@t.test("borrow only: others' VMs by their files, with CAP_SYS_PTRACE alone and without bpf()")
def _():
    tap.require_kvm()
    with Unit("borrow-only") as unit, As(user=VMM_USER) as other, \
            demo_of_another_user(other, vcpus=2, name="keeps", stats_fds="keep", fds=50) as keeps, \
            demo_of_another_user(other, vcpus=2, name="stock", stats_fds="none") as stock, \
            lab.Daemon(unit.config("borrow-only").replace("/run/kvmstatd", "@DIR@") + FAST +
                       "metrics: {histograms: vcpu}\n",
                       prefix=unit.prefix(), listen=False, wait=False) as daemon:
        daemon.url = f"unix:{daemon.home}/metrics.sock:"
        daemon.wait_ready()
        [(_, pid)] = keeps.vms
        whole(daemon, "keeps", pid, 2)
        tap.equal(info(daemon, "keeps"), "statsfd")
        held_between(daemon, "keeps", pid, None)
        tap.check(stock.running() and not info(daemon, "stock"))
        check_threads(daemon, bits(["sys_ptrace"]))


@t.test("handoff only: others' VMs as they are handed over, without a capability or /dev/kvm")
def _():
    with place() as folder, Unit("handoff-only") as unit, As(user=VMM_USER) as other:
        os.chmod(folder, 0o777)
        config = unit.config("handoff-only").replace("/run/kvmstatd", "@DIR@") + FAST
        config = config.replace("handoff:\n", f"handoff:\n  socket: {folder}/handoff.sock\n")
        config = config.replace("libvirt-qemu", f'"{VMM_USER}"')
        with lab.Daemon(config, prefix=unit.prefix(), listen=False, wait=False) as daemon:
            daemon.url = f"unix:{daemon.home}/metrics.sock:"
            daemon.wait_ready()
            with preloaded(folder), demo_of_another_user(other, vcpus=2, name="given",
                                                         stats_fds="none") as given, \
                    demo_under_shim(folder, vcpus=2, name="roots") as roots:
                for vm, pid in given.vms + roots.vms:
                    whole(daemon, vm, pid, 2)
                    tap.equal(info(daemon, vm), "handoff", vm)
            tap.wait_for(lambda: not info(daemon, "given"), what="the VM to be gone")
            check_threads(daemon, 0)


@t.test("handoff alone where /proc hides VMMs: nothing is read, and the log says what it takes")
def _():
    with place() as folder, Unit() as unit:
        os.chmod(folder, 0o777)
        with lab.Daemon(HANDOFF + socket_config(folder), prefix=unit.prefix()) as daemon, \
                demo_under_shim(folder, name="hidden"):
            tap.wait_for(lambda: "not read though they are handed over" in daemon.errors(),
                         what="the log line")
            tap.check(not info(daemon, "hidden"))


@t.test("systemctl reload: the unit's own command, outside of the sandbox, in which there is no kill()")
def _():
    for dropin in (None, "borrow-only", "handoff-only"):
        command = units.settings(dropin)["ExecReload"][-1]
        tap.check(command.startswith("+"), command)
        with Unit(dropin) as unit, \
                lab.Daemon("discovery: {sources: [handoff]}\n", prefix=unit.prefix()) as daemon:
            done = subprocess.run(shlex.split(command[1:]), capture_output=True, text=True, check=False,
                                  env={"MAINPID": str(daemon.pid)})
            tap.equal((done.returncode, done.stderr), (0, ""), f"{command} with {dropin}")
            tap.wait_for(lambda: "configuration reloaded" in daemon.errors(), what="the reload")


@t.test("with CAP_SYS_PTRACE alone, nothing of another user's process is duplicated but anonymous files")
def _():
    tap.require_kvm()
    tap.require_tool("strace")
    with As(["sys_ptrace"]) as unit, As(user=VMM_USER) as other, \
            tempfile.TemporaryDirectory() as folder, \
            demo_of_another_user(other, vcpus=1, name="mixed", stats_fds="keep", fds=30) as vms:
        [(_, pid)] = vms.vms
        links = {int(fd): os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
        tap.check(any(not link.startswith("anon_inode:") for link in links.values()))
        trace = f"{folder}/trace"
        prefix = ["strace", "-D", "-f", "-qq", "-e", "trace=pidfd_open,pidfd_getfd", "-o", trace,
                  *unit.prefix()]
        with lab.Daemon("discovery: {sources: [statsfd]}\n", prefix=prefix) as daemon:
            whole(daemon, "mixed", pid, 1)
            daemon.stop()
        with open(trace, encoding="utf-8") as f:
            text = f.read()
    pidfds = set(re.findall(rf"pidfd_open\({pid}, 0\)\s*= (\d+)", text))
    taken = {int(fd) for own, fd in re.findall(r"pidfd_getfd\((\d+), (\d+), 0\)", text)
             if own in pidfds and int(fd) in links}
    tap.check(taken, "nothing was borrowed")
    for fd in taken:
        tap.check(links[fd].startswith("anon_inode:"), f"{links[fd]} was taken")


@t.test("who users are is asked by a thread without capabilities, at the start and at a reload")
def _():
    faults = Faults()
    with place() as folder, As(["sys_ptrace", "bpf", "perfmon"]) as unit, \
            contextlib.ExitStack() as stack:
        os.chmod(folder, 0o777)
        with lab.Daemon(socket_config(folder, "[root]"), prefix=unit.prefix(),
                        env=faults.env) as daemon:
            tap.equal(faults.lookups(), (1, 0))
            daemon.reload(socket_config(folder, "[root, daemon]"))
            tap.wait_for(lambda: "configuration reloaded" in daemon.errors(), what="the reload")
            # What discovery does with it is done when it finds a VM.
            stack.enter_context(lab.DemoVms(name="later", stats_fds="keep"))
            first_sample(daemon, "later")
            tap.equal(faults.lookups(), (3, 0))


def free_low_ports(n):
    """Ports of loopback that take CAP_NET_BIND_SERVICE."""
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as f:
        candidates = range(1, min(int(f.read()), 1024))
    found = []
    for port in reversed(candidates):
        with contextlib.suppress(OSError), socket.socket() as s:
            s.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == n:
            return found
    return tap.skip("no port of this host needs a capability")


@t.test("a drop-in's CAP_NET_BIND_SERVICE is kept: low ports are opened, at the start and at a reload")
def _():
    tap.require_root()
    first, second = free_low_ports(2)
    listen = "discovery: {{sources: [statsfd]}}\nweb: {{listen: ['127.0.0.1:{}']}}\n".format
    own = bits(["net_bind_service"])
    with As(["sys_ptrace", "net_bind_service"]) as unit, \
            lab.Daemon(listen(first), prefix=unit.prefix(), listen=False, wait=False) as daemon:
        daemon.url = f"http://127.0.0.1:{first}"
        daemon.wait_ready()
        check_threads(daemon, own | bits(["sys_ptrace"]), own)
        daemon.reload(listen(second))
        daemon.url = f"http://127.0.0.1:{second}"
        daemon.wait_ready()


@t.test("root by hand: all but the three of discovery and two of his own paths and ports are dropped")
def _():
    tap.require_root()
    own = bits(["dac_override", "net_bind_service"])
    with lab.Daemon() as daemon:
        check_threads(daemon, own | bits(["sys_ptrace", "bpf", "perfmon"]), own)
    with lab.Daemon("discovery: {sources: [statsfd]}\n") as daemon:
        check_threads(daemon, own | bits(["sys_ptrace"]), own)


@t.test("what nothing needs at the start is gone for good: a reload that needs it says so")
def _():
    tap.require_root()
    with place() as folder, lab.Daemon("discovery: {sources: [handoff]}\n" + socket_config(folder)) \
            as daemon:
        check_threads(daemon, *[bits(["dac_override", "net_bind_service"])] * 2)
        daemon.reload("discovery: {sources: [handoff, statsfd]}\n" + socket_config(folder))
        tap.wait_for(lambda: "takes CAP_SYS_PTRACE, which was dropped" in daemon.errors(),
                     what="the log line")


t.main()
