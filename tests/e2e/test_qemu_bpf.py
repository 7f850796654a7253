# SPDX-License-Identifier: Apache-2.0
"""Debian's QEMU as it is, with its seccomp sandbox, read by BPF: held against QEMU's own answers.

QEMU reads the same statistics by stats fds of its own while it answers query-stats, and knows nothing
of the daemon. What the daemon shows must lie between an answer before and an answer after.
"""

import os
import time
from fractions import Fraction

import lab
import qmp
import tap
from exposed import OPENMETRICS, expected_of, first_sample, info, row, series

t = tap.Tests()

SANDBOX = ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
BPF = ("sampling: {interval: 10ms}\ndiscovery: {sources: [bpf], rescan: 200ms}\n"
       "metrics: {histograms: vcpu}\n")
VCPUS = 4


def setup():
    tap.require_kvm()
    tap.require_root()
    if not os.path.exists("/sys/kernel/btf/vmlinux"):
        tap.skip("the kernel has no BTF")


def sandboxed_qemu(name):
    return lab.Qemu(name=name, vcpus=VCPUS, args=SANDBOX + qmp.ARGS)


def answers(monitor, vm):
    """{series: (value, whether it is a gauge)} by QEMU's answer, named by the contract."""
    return expected_of(vm, None, monitor.stats())


def fresh(daemon, vm, accept=None):
    """The VM's series from a sample taken after this call."""
    started = Fraction(time.time())
    stamp = f'kvm_vm_last_sample_timestamp_seconds{{vm="{vm}"}}'
    tap.wait_for(lambda: series(daemon)[stamp] > started, lab.TIMEOUT_S, 0.01, "a fresh sample")
    return qmp.own_series(series(daemon, accept=accept), vm)


def held_between_answers(daemon, monitor, vm, accept=None):
    """Every series lies between two answers of QEMU; none is missing, none invented."""
    before = answers(monitor, vm)
    shown = fresh(daemon, vm, accept)
    after = answers(monitor, vm)
    tap.equal(set(shown) ^ set(before), set(), "series missing or too many")
    buckets = 0
    for key, value in shown.items():
        low, is_gauge = before[key]
        if not is_gauge:
            tap.between(low, value, after[key][0], key)
            buckets += "_bucket{" in key
    tap.check(buckets > 0, "QEMU's answers had no histogram to compare with")
    return shown


@t.test("a sandboxed QEMU is read by BPF: every value lies between two of QEMU's own answers")
def _():
    setup()
    with sandboxed_qemu("sandboxed") as qemu, qmp.Qmp(qemu) as monitor, lab.Daemon(BPF) as daemon:
        first_sample(daemon, "sandboxed")
        tap.equal(info(daemon, "sandboxed")["source"], "bpf", "source")
        tap.equal(row(daemon, qemu.pid)["vcpus_read"], VCPUS)
        tap.equal(row(daemon, qemu.pid)["vm_scope_read"], True)
        for accept in (None, OPENMETRICS, None):
            shown = held_between_answers(daemon, monitor, "sandboxed", accept)
            tap.check(shown['kvm_vcpu_exits_total{vm="sandboxed",vcpu="0"}'] > 0, "its BIOS ran")


@t.test("a stopped QEMU is read on, and what is shown is exactly what QEMU answers")
def _():
    setup()
    with sandboxed_qemu("stopped") as qemu, qmp.Qmp(qemu) as monitor, lab.Daemon(BPF) as daemon:
        first_sample(daemon, "stopped")
        monitor.do("stop")
        tap.equal(monitor.do("query-status")["running"], False)
        # Nothing counts any more, but it is KVM's to say so: wait for two answers that are the same.
        tap.wait_for(lambda: answers(monitor, "stopped") == answers(monitor, "stopped"),
                     what="the guest's counters to rest")
        before = answers(monitor, "stopped")
        shown = fresh(daemon, "stopped")
        tap.equal(answers(monitor, "stopped"), before, "QEMU's answers of a stopped guest")
        wrong = {k: (v, before.get(k)) for k, v in shown.items() if before.get(k, (None,))[0] != v}
        tap.equal(wrong, {}, "shown, and QEMU's answer")
        tap.equal(set(shown), set(before), "series")
        monitor.do("cont")
        held_between_answers(daemon, monitor, "stopped")


@t.test("by borrowing alone it is not read, and the daemon says why and what would help")
def _():
    setup()
    config = "discovery: {sources: [statsfd]}\n"
    with sandboxed_qemu("fdless") as qemu, lab.Daemon(config) as daemon:
        if any(link.startswith("anon_inode:kvm-vcpu-stats") for link in lab.fd_links(qemu.pid)):
            tap.skip("this QEMU keeps stats fds")
        vm = tap.wait_for(lambda: (r := row(daemon, qemu.pid)).get("reason") and r,
                          what="the VM in /api/v1/vms")
        tap.equal(vm["reason"], "no_stats_fd")
        tap.check('"bpf"' in vm["detail"], f"what would help: {vm['detail']}")
        tap.check(not qmp.own_series(series(daemon), "fdless"), "what is not read is absent")


t.main()
