# SPDX-License-Identifier: Apache-2.0
"""The daemon over many VMs: CPU and ticks while nobody scrapes, memory, and what scrapes cost."""

import os
import time

import figures
import lab
import tap
from figures import MIB, Figure, info

CPU_BAR = 3.0
MEMORY_BAR = 64 * MIB
LATENESS_BAR_S = 0.002
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}
PROTOBUF = {"Accept": "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;"
                      "encoding=delimited"}
VCPUS = 4
SAMPLER = "kvmstatd-sample"
COMMAND = "tests/bench/run daemon"


# Each way of reading is measured by itself.
STATSFD = "discovery:\n  sources: [statsfd]\n"
BPF = "discovery:\n  sources: [bpf]\n"


def _start(options, prefix, config=""):
    """The daemon, once it holds the fds of all VMs; it has not been scraped yet."""
    daemon = lab.Daemon(figures.only_ours(prefix, config))
    try:
        # One pidfd a VM and its stats fds; by BPF, one kvm-vm fd.
        fds = options.vms * (2 if BPF in config else 1 + VCPUS + 1)
        tap.wait_for(lambda: daemon.n_fds() >= fds, lab.TIMEOUT_S, 0.1, "the fds of all VMs")
    except BaseException:
        daemon.end()
        raise
    return daemon


def _idle_window(options, prefix, source, seconds):
    """CPU, ticks and memory over a time in which nobody scrapes.

    The scrapes before and after it are made small, so that the ticks beside them, which are counted
    with those of the window, are nearly none.
    """
    with _start(options, prefix, source + 'metrics:\n  include: ["guest_mode"]\n') as daemon:
        time.sleep(6)  # past the first rescan
        before = daemon.metrics()
        figures.scrape(daemon)
        time.sleep(1)
        total, threads = figures.process_cpu(daemon.pid)
        wait = figures.cpu_wait(daemon.pid, SAMPLER)
        machine, began = figures.machine_cpu(), time.monotonic()
        time.sleep(seconds)
        total_after, threads_after = figures.process_cpu(daemon.pid)
        took, busy = time.monotonic() - began, figures.busy_since(machine)
        wait = figures.cpu_wait(daemon.pid, SAMPLER) - wait
        after = daemon.metrics()
    n_vms = figures.value(after, "kvmstatd_vms")
    tap.check(n_vms >= 0.99 * options.vms, f"{n_vms:.0f} of {options.vms} VMs are read")
    percent = {name: 100 * (seconds_ - threads.get(name, 0)) / took
               for name, seconds_ in threads_after.items()}
    return {"cpu": 100 * (total_after - total) / took, "threads": percent, "busy": busy,
            "wait": wait, "before": before, "after": after, "seconds": took}


def _ticks(window, options, title):
    family = "kvmstatd_tick_lateness_seconds"
    before, after = (figures.histogram(window[k], family) for k in ("before", "after"))
    p99 = figures.histogram_percentile(before, after, 99)
    p50 = figures.histogram_percentile(before, after, 50)
    n = after[-1][1] - before[-1][1]
    family = "kvmstatd_sweep_duration_seconds"
    sweep = figures.histogram_percentile(*(figures.histogram(window[k], family)
                                           for k in ("before", "after")), 50)
    missed = (figures.value(window["after"], "kvmstatd_ticks_missed_total")
              - figures.value(window["before"], "kvmstatd_ticks_missed_total"))
    what = f"{window['seconds']:.0f} s at 10 Hz over {options.vms:,} VMs, {title}"
    return [
        Figure(f"missed ticks in {what}", "0", f"{missed:.0f} of {n:.0f}", missed == 0, COMMAND),
        Figure("p99 lateness of a tick there", f"≤ {figures.ms(LATENESS_BAR_S)}",
               f"≤ {figures.ms(p99)}", p99 <= LATENESS_BAR_S, COMMAND),
        info("… half of the ticks are late by; of the sweeps take",
             f"≤ {figures.ms(p50)}; ≤ {figures.ms(sweep)}", COMMAND),
    ]


def _cpu(window, options, title):
    threads = ", ".join(f"{name} {value:.2f} %" for name, value in
                        sorted(window["threads"].items(), key=lambda item: -item[1])
                        if value >= 0.005)
    return [
        Figure(f"CPU at 10 Hz over {options.vms:,} VMs × {VCPUS} vCPUs, {window['seconds']:.0f} s "
               f"unscraped, {title}", f"≤ {CPU_BAR:.0f} % of a core", f"{window['cpu']:.2f} %",
               window["cpu"] <= CPU_BAR, COMMAND),
        info("… by thread", threads, COMMAND),
        info("… the machine's CPUs were in use meanwhile; the sampling thread waited for one",
             f"{window['busy']:.0f} %; {figures.ms(window['wait'])} in all", COMMAND),
    ]


def _scrapes(daemon, rounds):
    """{kind: (median seconds, bytes)}"""
    kinds = {"text": None, "OpenMetrics": OPENMETRICS,
             "OpenMetrics, gzip": {**OPENMETRICS, "Accept-Encoding": "gzip"},
             "protobuf": PROTOBUF,
             "protobuf, gzip": {**PROTOBUF, "Accept-Encoding": "gzip"}}
    result = {}
    for kind, headers in kinds.items():
        got = [figures.scrape(daemon, headers) for _ in range(rounds)]
        result[kind] = (figures.percentile([took for took, _ in got], 50),
                        max(size for _, size in got))
    return result


def _memory(options, prefix, title, config):
    rounds = 1 if options.quick else 5
    with _start(options, prefix, config) as daemon:
        time.sleep(3)
        resident, _ = figures.process_memory(daemon.pid)
        first, size = figures.scrape(daemon, OPENMETRICS)
        after, highest = figures.process_memory(daemon.pid)
        scrapes = _scrapes(daemon, rounds)
        after_all, highest_all = figures.process_memory(daemon.pid)
    bar = MEMORY_BAR + 2 * size
    rows = [
        Figure(f"resident memory, unscraped ({title})", f"≤ {figures.mib(MEMORY_BAR)}",
               figures.mib(resident), resident <= MEMORY_BAR, COMMAND),
        Figure(f"resident memory after a full scrape ({title})",
               f"≤ 64 MiB + 2 × {figures.mib(size)} = {figures.mib(bar)}",
               f"{figures.mib(after)}, highest {figures.mib(highest)}", highest <= bar, COMMAND),
        info(f"… after {3 * rounds} more", f"{figures.mib(after_all)}, "
             f"highest {figures.mib(highest_all)}", COMMAND),
        info("… the first scrape", figures.ms(first), COMMAND),
    ]
    for kind, (took, n_bytes) in scrapes.items():
        rows.append(info(f"… a scrape: {kind}", f"{figures.ms(took)}, {figures.mib(n_bytes)}",
                         COMMAND))
    return rows


def _has_bpf(prefix):
    """Whether this build, this kernel and our privileges let VMs be read by BPF."""
    with lab.Daemon(figures.only_ours(prefix, BPF)) as daemon:
        vms = daemon.get("/api/v1/vms").json()["vms"]
        return any(vm["source"] == "bpf" for vm in vms)


def run(options):
    """All of it, over one set of VMs; a daemon each for what depends on its configuration."""
    prefix = f"bench-{os.getpid()}-"
    with lab.DemoVms(options.vms, VCPUS, name=prefix.rstrip("-"), load="idle", fds=100):
        figures.say(f"{options.vms} VMs run")
        rows = []
        for title, source in (("by stats fds", STATSFD), ("by BPF", BPF)):
            if source is BPF and not _has_bpf(prefix):
                figures.say("BPF cannot be used here")
                continue
            figures.say(f"CPU and ticks, {title}")
            window = _idle_window(options, prefix, source, 10 if options.quick else 60)
            rows += _cpu(window, options, title) + _ticks(window, options, title)
        for title, config in (("default configuration", ""),
                              ("histograms: vcpu", "metrics:\n  histograms: vcpu\n")):
            figures.say(f"memory and scrapes: {title}")
            rows += _memory(options, prefix, title, config)
    return rows
