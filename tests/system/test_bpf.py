# SPDX-License-Identifier: Apache-2.0
"""VMs read by BPF: what no stats fd is kept for, several in one process, and the change from one way of
reading to another."""

import os
import re
import signal
import time

import kvmfd
import lab
import tap
from exposed import OPENMETRICS, first_sample, held_between, row, series, shown

t = tap.Tests()

BPF = "sampling: {interval: 10ms}\ndiscovery: {sources: [bpf], rescan: 200ms}\n"


def setup():
    tap.require_kvm()
    tap.require_root()
    if not os.path.exists("/sys/kernel/btf/vmlinux"):
        tap.skip("the kernel has no BTF")


def info(daemon, vm):
    match = re.search(f'^kvm_vm_info{{vm="{vm}",.*source="([^"]*)"}}', daemon.metrics(), re.M)
    return match and match[1]


@t.test("every value lies between two own reads of the VM's stats fds, which BPF does not need")
def _():
    setup()
    config = BPF + "metrics: {histograms: vcpu}\n"
    with lab.DemoVms(vms=2, vcpus=2, name="web", load="mix") as demo, lab.Daemon(config) as daemon:
        for vm, pid in demo.vms:
            first_sample(daemon, vm)
            tap.equal(info(daemon, vm), "bpf", "source")
            for accept in (None, OPENMETRICS):
                moved = held_between(daemon, vm, pid, accept)
                tap.check(moved > 20, f"only {moved} series of a busy guest moved")
        tap.equal(row(daemon, demo.vms[0][1])["source"], "bpf")


@t.test("a VMM without stats fds is read whole, with the default configuration")
def _():
    setup()
    with lab.DemoVms(vcpus=3, name="none", stats_fds="none") as demo, lab.Daemon() as daemon:
        first_sample(daemon, "none")
        [(_, pid)] = demo.vms
        tap.equal(row(daemon, pid)["vcpus_read"], 3)
        tap.equal(row(daemon, pid)["vm_scope_read"], True)
        before = series(daemon)['kvm_vcpu_exits_total{vm="none",vcpu="2"}']
        tap.wait_for(lambda: series(daemon)['kvm_vcpu_exits_total{vm="none",vcpu="2"}'] > before,
                     what="the guest's exits")


@t.test("a VM with more vCPUs than limits.max_vcpus_per_vm is not read by half, and counted")
def _():
    setup()
    config = BPF + "limits: {max_vcpus_per_vm: 2}\n"
    with lab.DemoVms(vcpus=3, name="large", stats_fds="none") as large, \
            lab.DemoVms(vcpus=2, name="small", stats_fds="none"), lab.Daemon(config) as daemon:
        first_sample(daemon, "small")
        [(_, pid)] = large.vms
        tap.wait_for(lambda: row(daemon, pid)["reason"] == "limit", what="the reason")
        tap.check("limits.max_vcpus_per_vm" in row(daemon, pid)["detail"], str(row(daemon, pid)))
        tap.equal((shown(daemon, "large"), shown(daemon, "small")), (0, 1))
        tap.check(float(series(daemon)['kvmstatd_vms_unreadable{reason="limit"}']) >= 1, "counted")
        with kvmfd.TinyVmm("vm a", "vcpu a 0", "vcpu a 1") as vmm:  # and one that grows
            tap.wait_for(lambda: shown(daemon, f"pid-{vmm.pid}") == 1, what="its first samples")
            vmm.tell("vcpu a 2")
            tap.wait_for(lambda: row(daemon, vmm.pid)["reason"] == "limit", what="the reason")
            tap.wait_for(lambda: shown(daemon, f"pid-{vmm.pid}") == 0, what="it to be let go")


@t.test("several VMs in one process are told apart")
def _():
    setup()
    with kvmfd.TinyVmm("vm a", "vcpu a 0", "vm b", "vcpu b 0", "vcpu b 1", "vcpu b 2") as vmm, \
            lab.Daemon(BPF) as daemon:
        label = f"pid-{vmm.pid}"
        tap.wait_for(lambda: shown(daemon, label) == 2, what="both VMs")
        rows = [v for v in daemon.get("/api/v1/vms").json()["vms"] if v["pid"] == vmm.pid]
        tap.equal(sorted(v["vcpus_read"] for v in rows), [1, 3], "vCPUs")
        tap.equal(sorted(v["vcpus"] for v in rows), [1, 3], "vCPUs")
        vmm.tell("close b/0")
        for name in ("b/1", "b/2", "b"):
            vmm.tell("close " + name)
        tap.wait_for(lambda: shown(daemon, label) == 1, what="one VM to go")
        tap.equal(row(daemon, vmm.pid)["vcpus_read"], 1)


@t.test("a vCPU that comes later is found")
def _():
    setup()
    with kvmfd.TinyVmm("vm a", "vcpu a 0") as vmm, lab.Daemon(BPF) as daemon:
        first_sample(daemon, f"pid-{vmm.pid}")
        vmm.tell("vcpu a 5")
        tap.wait_for(lambda: row(daemon, vmm.pid)["vcpus_read"] == 2, what="vCPU 5")
        key = f'kvm_vcpu_exits_total{{vm="pid-{vmm.pid}",vcpu="5"}}'
        tap.wait_for(lambda: key in series(daemon), what="its first sample")


@t.test("a VM closed by a VMM that lives on is let go: the kernel says destroy")
def _():
    setup()
    with kvmfd.Uevents() as events, kvmfd.TinyVmm("vm a", "vcpu a 0") as vmm, \
            lab.Daemon(BPF) as daemon:
        first_sample(daemon, f"pid-{vmm.pid}")
        fds = daemon.n_fds()
        vmm.tell("close a/0")
        vmm.tell("close a")
        events.wait("destroy", [vmm.pid])
        tap.equal(shown(daemon, f"pid-{vmm.pid}"), 0)
        tap.wait_for(lambda: daemon.n_fds() < fds, what="the pin to be closed")


@t.test("VMMs killed in the middle of sweeps: every VM is destroyed, the others go on")
def _():
    setup()
    config = "sampling: {interval: 1ms}\ndiscovery: {sources: [bpf]}\n"
    with lab.DemoVms(name="stays", vcpus=2, stats_fds="none") as _stays, \
            lab.Daemon(config) as daemon:
        first_sample(daemon, "stays")
        fds = daemon.n_fds()
        for _ in range(10):
            with kvmfd.Uevents() as events, \
                    lab.DemoVms(vms=20, vcpus=2, name="dies", stats_fds="none") as demo:
                tap.wait_for(lambda: shown(daemon, "dies") == 20, what="20 VMs")
                for _, pid in demo.vms:
                    os.kill(pid, signal.SIGKILL)
                events.wait("destroy", [pid for _, pid in demo.vms])
            tap.equal(shown(daemon, "dies"), 0, "dead VMs shown")
        before = series(daemon)['kvm_vcpu_exits_total{vm="stays",vcpu="0"}']
        tap.wait_for(lambda: series(daemon)['kvm_vcpu_exits_total{vm="stays",vcpu="0"}'] > before,
                     what="the one that stays to go on")
        tap.wait_for(lambda: daemon.n_fds() <= fds + 2, what="all fds to be closed")
        tap.check("Warning" not in daemon.errors() and daemon.running(), daemon.errors())


@t.test("from one way of reading to the other and back: no gap, nothing twice, nothing falls")
def _():
    setup()
    base = "sampling: {interval: 5ms}\nmetrics: {histograms: vcpu}\n"
    ways = ["[statsfd, bpf]", "[bpf, statsfd]", "[bpf]", "[statsfd]"]
    vm = f"web{os.getpid()}"  # nobody else's on this host
    with lab.DemoVms(name=vm, vcpus=2, load="mix") as demo, \
            lab.Daemon(base + "discovery: {sources: [statsfd, bpf]}\n") as daemon:
        first_sample(daemon, vm)
        last, sources = {}, set()
        for i in range(24):
            daemon.reload(base + f"discovery: {{sources: {ways[i % 4]}}}\n")
            end = time.monotonic() + 0.25
            while time.monotonic() < end:
                now = {k: v for k, v in series(daemon).items() if f'vm="{vm}"' in k and
                       "kvm_vm_info" not in k}
                missing = {k for k in last if k not in now}
                tap.equal(missing, set(), "series that vanished")
                for key, value in now.items():
                    if re.match(r"kvm_v[a-z]+_\w+_(total|bucket|count|sum)\{", key):
                        tap.check(value >= last.get(key, 0), f"{key} fell")
                        last[key] = value
                sources.add(info(daemon, vm))
        tap.equal(sources, {"statsfd", "bpf"}, "ways it was read")
        tap.equal(len(demo.vms), 1)


@t.test("a reload to BPF alone: the recording and the distribution have every tick over the change")
def _():
    setup()
    base = "sampling: {interval: 20ms}\n"
    vm = f"web{os.getpid()}"
    count = f'kvm_vcpu_exits_tick_rate_count{{vm="{vm}"}}'
    with lab.DemoVms(name=vm, vcpus=2, load="mix") as _demo, \
            lab.Daemon(base + "discovery: {sources: [statsfd, bpf]}\n") as daemon:
        def observed():
            return int(series(daemon).get(count, 0))

        first_sample(daemon, vm)
        tap.wait_for(lambda: observed() >= 5, what="ticks by stats fds")
        tap.equal(info(daemon, vm), "statsfd", "source")
        daemon.reload(base + "discovery: {sources: [bpf]}\n")
        tap.wait_for(lambda: info(daemon, vm) == "bpf", what="the change")
        changed = observed()
        tap.wait_for(lambda: observed() >= changed + 5, what="ticks by BPF")
        before = observed()
        answer = daemon.get(f"/api/v1/history?vm={vm}&stat=exits")
        after = observed()
        tap.equal(answer.status, 200, answer.text[:300])
        vcpus = [target for target in answer.json()["targets"] if target["vcpu"] is not None]
        tap.equal(len(vcpus), 2)
        for target in vcpus:
            # All but the first have a rate, and each is an observation.
            rates = target["stats"][0]["rates"]
            tap.equal([i for i, rate in enumerate(rates) if rate is None], [0], "without a rate")
            tap.between(before, len(rates) - 1, after, "ticks recorded")


if __name__ == "__main__":
    t.main()
