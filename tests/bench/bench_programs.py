# SPDX-License-Identifier: Apache-2.0
"""The benchmarks that are programs of their own: one tick, and rendering."""

import os
import re

import figures
import lab
from figures import Figure, info

SWEEP_BAR = 1.10
RENDER_BAR_NS = 40
PROTOBUF_BYTES_BAR = 0.5
PROTOBUF_TIME_BAR = 0.7
BURSTS_BAR = 0.25


def run(argv):
    """Its output; the program and what it started end with us."""
    with lab.Process(argv) as process:
        output = process.read_all()
        if process.wait() != 0:
            raise RuntimeError(f"{argv[0]} failed: {process.errors()}")
    return output


def program(name):
    return os.path.join(lab.BUILD, "tests", name)


def sweep(options):
    """One tick over all targets against a bare loop of preads over the same fds."""
    rounds = 50 if options.quick else 400
    argv = [program("bench-sweep"), "--vms", str(options.vms), "--vcpus", "4", "--fds", "100",
            "--rounds", str(rounds)]
    command = "build-bench/tests/" + " ".join(["bench-sweep", *argv[1:]])
    got = {k: float(v) for k, v in (line.split() for line in run(argv).splitlines())}
    n = int(got["targets"])
    ratio = got["ratio_cpu"]
    paced = {k: float(v) for k, v in (line.split() for line in run(
        [*argv[:-1], "10" if options.quick else "40", "--pause-ms", "100"]).splitlines())}
    pace = command.rpartition(" ")[0] + " 40 --pause-ms 100"
    bursts = got["bursts_on_top_cpu"]
    return [
        Figure(f"one tick over {n:,} targets / a bare loop of preads", f"≤ {SWEEP_BAR:.2f}×",
               f"{ratio:.3f}×", ratio <= SWEEP_BAR, command),
        info("… the tick; the bare loop", f"{got['tick_cpu_ns_per_target']:.0f} ns a target; "
             f"{got['bare_one_buffer_cpu_ns_per_target']:.0f} ns", command),
        info("… against a bare loop that alternates between two buffers, as frames do",
             f"{got['ratio_cpu_two_buffers']:.3f}×", command),
        info("… by the wall clock instead of the thread's CPU time", f"{got['ratio_wall']:.3f}×",
             command),
        info("… at 10 Hz, caches gone cold between: the tick; the bare loop",
             f"{paced['tick_cpu_ns_per_target']:.0f} ns a target; "
             f"{paced['bare_one_buffer_cpu_ns_per_target']:.0f} ns "
             f"= {paced['bare_one_buffer_cpu_ns'] * 10 / 1e9:.1%} of a core", pace),
        Figure(f"peaks and distributions of {n:,} targets, on top of that tick",
               f"≤ {BURSTS_BAR:.2f}×", f"{bursts:.3f}×", bursts <= BURSTS_BAR, command),
        info("… at 10 Hz, caches gone cold between", f"{paced['bursts_on_top_cpu']:.3f}×", pace),
    ]


def render(options):
    """Rendering of all statistics with per-vCPU histograms, one thread."""
    argv = [program("bench-render"), str(options.vms), "4", "5" if options.quick else "31"]
    command = "build-bench/tests/" + " ".join(["bench-render", *argv[1:]])
    output = run(argv)
    samples, size = re.search(r"(\d+) samples, (\d+) bytes", output).groups()
    ns = {what.strip(): float(median) for what, median in
          re.findall(r"^(.*?)\s+([\d.]+) ns a sample", output, re.M)}
    first = ns.pop("OpenMetrics 1.0.0")
    rivals = re.findall(r"^protobuf / OpenMetrics, (.*): bytes ([\d.]+) \((\d+) / (\d+)\), "
                        r"time ([\d.]+)", output, re.M)
    compared = []
    for what, size_ratio, pb_size, open_size, time_ratio in rivals:
        sizes = f"({figures.mib(int(pb_size))} / {figures.mib(int(open_size))})"
        compared += [
            Figure(f"protobuf / OpenMetrics, {what}: bytes before gzip", f"≤ {PROTOBUF_BYTES_BAR}×",
                   f"{float(size_ratio):.2f}× {sizes}", float(size_ratio) <= PROTOBUF_BYTES_BAR,
                   command),
            Figure("… time to render", f"≤ {PROTOBUF_TIME_BAR}×", f"{float(time_ratio):.2f}×",
                   float(time_ratio) <= PROTOBUF_TIME_BAR, command),
        ]
    return [
        Figure(f"rendering {int(samples):,} samples of OpenMetrics ({figures.mib(int(size))})",
               f"≤ {RENDER_BAR_NS} ns a sample", f"{first:.1f} ns", first <= RENDER_BAR_NS, command),
        *(info(f"… {what}", f"{value:.1f} ns", command) for what, value in ns.items()),
        *compared,
    ]
