# SPDX-License-Identifier: Apache-2.0
"""What is kept between two scrapes: its size, what it costs beside the sweep, and asking for it."""

import http.client
import os
import tempfile
import time

import figures
import lab
import tap
from bench_programs import program, run as run_program
from figures import Figure, info

BYTES_BAR = 60
COST_BAR = 1
QUERY_BAR_S = 0.05
VCPUS = 4
RATES = (300, 1000)  # rounds a second: some 1,000 and 2,000 exits a vCPU
HOLD_BARS = ((4000, 25), (200, 8 * 60))  # vCPUs, seconds that their ticks are there
SAMPLER = "kvmstatd-sample"
COMMAND = "tests/bench/run recorder"


def _recorder(*words):
    """What bench-recorder prints, and the command."""
    argv = ["bench-recorder", *map(str, words)]
    output = run_program([program(argv[0]), *argv[1:]])
    return ({k: float(v) for k, v in (line.split() for line in output.splitlines())},
            "build-bench/tests/" + " ".join(argv))


def _bytes(options, kept):
    rows = []
    for rate in RATES:
        figures.say(f"busy VMs are recorded, {rate} rounds a second")
        got, _ = _recorder("busy", "--vms", 10, "--vcpus", VCPUS, "--rate", rate, "--rounds",
                           50 if options.quick else 150, "--keep", kept)
        size = got["bytes_per_vcpu_tick"]
        rows.append(Figure(
            f"recorder at 10 Hz, guests of {got['exits_per_second_and_vcpu']:,.0f} exits a second and "
            "vCPU, all overhead included", f"≤ {BYTES_BAR} bytes a vCPU tick", f"{size:.1f}",
            size <= BYTES_BAR, f"build-bench/tests/bench-recorder busy --rate {rate}"))
    return rows


def _holds(options, kept):
    """The memory is filled with what the busier of the VMs did, as fast as it goes."""
    rows = []
    for vcpus, bar_s in HOLD_BARS[:1 if options.quick else 2]:
        figures.say(f"64 MiB are filled by {vcpus} vCPUs")
        got, _ = _recorder("fill", "--vms", vcpus // VCPUS, "--vcpus", VCPUS, "--as", kept)
        held_s = got["ticks_held_at_least"] / 10
        rows.append(Figure(
            f"ticks of {vcpus:,} such vCPUs that 64 MiB hold, of the VM with the fewest (played)",
            f"≥ {bar_s} s of 10 Hz", f"{held_s:.0f} s", held_s >= bar_s, COMMAND))
    return rows


def _on_top(what, plain, everything, sweep):
    """Rows of what all that is derived costs, beside a sweep of the kernel's files."""
    cost = everything - plain
    return [
        Figure(f"peaks, distributions and recorder together, {what}, on top of plain sampling",
               f"≤ {COST_BAR}×", f"{cost / sweep:.2f}×", cost <= COST_BAR * sweep, COMMAND),
        info("… they; the sweep", f"{cost:.0f} ns a target; {sweep:.0f} ns", COMMAND),
    ]


def _cost(options, kept):
    rounds = ("--vms", options.vms, "--vcpus", VCPUS, "--rounds", 40 if options.quick else 120)
    figures.say("all that is derived, of idle VMs")
    idle, _ = _recorder("idle", *rounds)
    figures.say("all that is derived, of busy VMs that are played")
    busy, _ = _recorder("played", *rounds, "--as", kept)
    n, rows = int(idle["targets"]), []
    for pace, title in (("_paced", "at 10 Hz, caches gone cold between"), ("", "back to back")):
        rows += _on_top(f"{n:,} idle targets {title}", idle["plain" + pace], idle["all" + pace],
                        idle["plain" + pace])
        rows += _on_top(f"{n:,} busy targets (played) {title}", busy["plain" + pace],
                        busy["all" + pace], busy["idle" + pace])
    return rows


def _query(daemon, target):
    """(seconds to the last byte, bytes)"""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=120)
    room, size = bytearray(1 << 20), 0
    begin = time.monotonic()
    connection.request("GET", target, headers={"Accept-Encoding": "identity"})
    answer = connection.getresponse()
    while n := answer.readinto(room):
        size += n
    took = time.monotonic() - begin
    connection.close()
    tap.equal(answer.status, 200, target)
    return took, size


def _tick_cost(options, daemon, seconds):
    """Of the sampling thread, in nanoseconds of CPU time a target and tick."""
    def now():
        return (figures.process_cpu(daemon.pid)[1][SAMPLER],
                figures.histogram(daemon.metrics(), "kvmstatd_sweep_duration_seconds")[-1][1])
    before = now()
    time.sleep(seconds)
    after = now()
    targets = options.vms * (VCPUS + 1)
    return 1e9 * (after[0] - before[0]) / (after[1] - before[1]) / targets


def _started(options, prefix, config=""):
    daemon = lab.Daemon(figures.only_ours(prefix, config))
    fds = options.vms * (VCPUS + 2)
    try:
        tap.wait_for(lambda: daemon.n_fds() >= fds, lab.TIMEOUT_S, 0.1, "the fds of all VMs")
    except BaseException:
        daemon.end()
        raise
    return daemon


def _history(options, daemon, vm, seconds):
    before = figures.value(daemon.metrics(), "kvmstatd_ticks_missed_total")
    rows = []
    for kind in ("json", "csv"):
        target = f"/api/v1/history?vm={vm}&last=60s&format={kind}"
        got = [_query(daemon, target) for _ in range(20)]
        took = figures.percentile([t for t, _ in got], 50)
        name = (f"history of one VM, {min(60, seconds)} s, all statistics, {kind.upper()}, while "
                f"sampling {options.vms * (VCPUS + 1):,} targets")
        rows.append(Figure(name, f"≤ {figures.ms(QUERY_BAR_S)}", figures.ms(took),
                           took <= QUERY_BAR_S, COMMAND))
        rows.append(info("… highest of 20; bytes",
                         f"{figures.ms(max(t for t, _ in got))}; {figures.mib(got[0][1])}", COMMAND))
    missed = figures.value(daemon.metrics(), "kvmstatd_ticks_missed_total") - before
    return [*rows, Figure("ticks missed meanwhile", "0", f"{missed:.0f}", missed == 0, COMMAND)]


def _daemon(options):
    """The daemon as it is, over idle VMs and one that is busy."""
    seconds = 12 if options.quick else 62
    prefix = f"bench-{os.getpid()}"
    with lab.DemoVms(options.vms - 1, VCPUS, name=prefix, load="idle"), \
            lab.DemoVms(1, VCPUS, name=prefix + "-busy", load="mix", rate=RATES[0]) as busy:
        with _started(options, prefix, "bursts: {stats: [], distribution: []}\n"
                                       "recorder: {memory: 0}\n") as plain:
            figures.say("plain sampling")
            plain_cost = _tick_cost(options, plain, seconds / 3)
        with _started(options, prefix) as daemon:
            figures.say(f"{seconds} s are recorded")
            cost = _tick_cost(options, daemon, seconds)
            rows = _history(options, daemon, busy.vms[0][0], seconds)
    return [
        Figure(f"the daemon's sampling thread at 10 Hz over {options.vms:,} VMs × {VCPUS} vCPUs, with "
               "peaks, distributions and recorder (the default) / without", f"≤ {1 + COST_BAR}×",
               f"{cost / plain_cost:.2f}×", cost <= (1 + COST_BAR) * plain_cost, COMMAND),
        info("… with; without", f"{cost:.0f} ns a target and tick; {plain_cost:.0f} ns", COMMAND),
        *rows,
    ]


def run(options):
    with tempfile.TemporaryDirectory(prefix="kvmstatd-bench-") as folder:
        kept = os.path.join(folder, "kept")
        rows = _bytes(options, kept) + _holds(options, kept) + _cost(options, kept)
    return rows + _daemon(options)
