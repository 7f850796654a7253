# SPDX-License-Identifier: Apache-2.0
"""VMs that are read by BPF, which asks nothing of their VMMs."""

import os
import time

import bench_latency
import bench_programs
import figures
import lab
import libvirt
from figures import Figure, info

SWEEP_BAR = 0.5
LIST_BAR_S = 0.010
LIBVIRT_BAR = 1000
GUESTS = 40
VCPUS = 4
COMMAND = "tests/bench/run bpf"


def sweep(options):
    """All blocks by BPF against a loop of preads over the same VMs; one pass of discovery."""
    rounds = 20 if options.quick else 200
    # One fd besides KVM's own: the bar counts KVM's.
    # In a PID namespace of its own the pass sees these VMs, and not whatever else this host runs.
    argv = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc",
            bench_programs.program("bench-bpf"), "--vms", str(options.vms), "--vcpus", str(VCPUS),
            "--fds", "1", "--rounds", str(rounds)]
    command = " ".join([*argv[:5], "build-bench/tests/bench-bpf", *argv[6:]])
    got = {k: float(v) for k, v in
           (line.split() for line in bench_programs.run(argv).splitlines())}
    ratio, took = got["ratio_cpu"], got["list_cpu_ns"] / 1e9
    return [
        Figure(f"sweep of {int(got['blocks']):,} blocks by BPF / a bare loop of preads",
               f"≤ {SWEEP_BAR:.2f}×", f"{ratio:.3f}×", ratio <= SWEEP_BAR, command),
        info("… the sweep; the bare loop", f"{got['sweep_cpu_ns_per_block']:.0f} ns a block; "
             f"{got['bare_cpu_ns_per_block']:.0f} ns", command),
        info("… by the wall clock instead of the thread's CPU time", f"{got['ratio_wall']:.3f}×",
             command),
        Figure(f"one discovery pass by BPF over {options.vms:,} VMs × {VCPUS} vCPUs",
               f"≤ {figures.ms(LIST_BAR_S)}", figures.ms(took), took <= LIST_BAR_S, command),
        info("… files that the pass looks at; a file",
             f"{got['open_files']:,.0f}; {got['list_cpu_ns'] / max(1, got['open_files']):.0f} ns", command),
        info("… by the wall clock", figures.ms(got["list_wall_ns"] / 1e9), command),
    ]


def _mean_sweep_s(daemon, seconds):
    """The mean of kvmstatd_sweep_duration_seconds over that long."""
    def read():
        text = daemon.metrics()
        return [figures.value(text, f"kvmstatd_sweep_duration_seconds_{what}")
                for what in ("sum", "count")]
    before = read()
    time.sleep(seconds)
    after = read()
    return (after[0] - before[0]) / (after[1] - before[1])


def _median_domstats_s(virt, n):
    took = []
    for _ in range(n):
        begin = time.monotonic()
        virt.virsh("domstats", "--vcpu", "--vm")
        took.append(time.monotonic() - begin)
    return figures.percentile(took, 50)


def against_libvirt(options):
    """One sweep of stock QEMU guests against virsh domstats of the same guests, in turns."""
    prefix = f"bench-{os.getpid()}-lv-"
    config = figures.only_ours(prefix, "discovery: {sources: [bpf]}\n")
    with libvirt.Libvirt() as virt, lab.Daemon(config) as daemon:
        for i in range(GUESTS):
            virt.create(f"{prefix}{i}", f"5d1f0a5e-3b7c-4a35-9c8e-{i:012x}", VCPUS)
        figures.say(f"{GUESTS} guests run")
        poller = bench_latency.Poller(daemon)
        for i in range(GUESTS):
            poller.wait_seen(f"{prefix}{i}")
        time.sleep(3)  # vCPUs that came later are found by then
        sweeps, stats = [], []
        for _ in range(2 if options.quick else 5):
            sweeps.append(_mean_sweep_s(daemon, 2))
            stats.append(_median_domstats_s(virt, 5))
        text = daemon.metrics()
        read = sum(figures.value(text, f'kvm_vm_vcpus{{vm="{prefix}{i}"}}') for i in range(GUESTS))
    if read != GUESTS * VCPUS:
        raise RuntimeError(f"{read:.0f} of {GUESTS * VCPUS} vCPUs are read")
    one, other = figures.percentile(sweeps, 50), figures.percentile(stats, 50)
    return [
        Figure(f"virsh domstats --vcpu --vm of {GUESTS} stock QEMU guests × {VCPUS} vCPUs / one "
               "sweep of the daemon", f"≥ {LIBVIRT_BAR:,}×", f"{other / one:,.0f}×",
               other / one >= LIBVIRT_BAR, COMMAND),
        info("… domstats; the sweep (mean of kvmstatd_sweep_duration_seconds)",
             f"{figures.ms(other)}; {one * 1e6:.0f} µs", COMMAND),
    ]


def run(options):
    collected = sweep(options)
    figures.say("sweep: done")
    collected += bench_latency.run(options, sources="bpf", command=COMMAND)
    figures.say("latency: done")
    if os.access("/usr/sbin/libvirtd", os.X_OK):
        collected += against_libvirt(options)
    else:
        figures.say("libvirt is not installed: not compared with it")
    return collected
