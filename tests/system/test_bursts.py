# SPDX-License-Identifier: Apache-2.0
"""What happens between two scrapes, by the built daemon over a guest that bursts on command."""

import re
import subprocess

import bursting
import lab
import tap
from exposed import OPENMETRICS, first_sample, series

t = tap.Tests()


def setup():
    tap.require_kvm()
    tap.require_root()


@t.test("scrapers of any pace and phase see every burst's peak, and none after its window")
def _():
    setup()
    plan = bursting.Plan(window_s=1.5, every_s=3.7, intervals_s=(0.1, 0.5, 1.3, 1.5), n_bursts=3,
                         tick_s=0.02)
    for v in bursting.check(plan, t.random):
        print(f"# every {v.interval_s} s: {len(v.seen)} of {plan.n_bursts} bursts judged, "
              f"peak/truth {[round(x, 2) for x in v.seen]}, "
              f"counter/truth {[round(x, 3) for x in v.gained]}")


def peaks(daemon, vm):
    """{statistic, vcpu or None, window: value} of what is shown of a VM."""
    found = {}
    for name, value in series(daemon).items():
        match = re.fullmatch(f'kvm_vcpu_(\\w+)_peak_rate{{vm="{vm}"(?:,vcpu="(\\d+)")?,'
                             'window="(\\w+)"}', name)
        if match:
            found[match.groups()] = value
    return found


@t.test("a reload changes what is watched, without a restart and without losing what stays")
def _():
    setup()
    with lab.DemoVms(vcpus=2, name="reload", load="mix") as _demo, lab.Daemon() as daemon:
        first_sample(daemon, "reload")
        tap.wait_for(lambda: ("exits", None, "15s") in peaks(daemon, "reload"), what="a peak")
        tick_count = 'kvm_vcpu_exits_tick_rate_count{vm="reload"}'
        count = series(daemon)[tick_count]
        daemon.reload("bursts:\n  stats: [exits, hypercalls]\n  windows: [1m, 2s]\n")
        tap.wait_for(lambda: ("hypercalls", None, "1m") in peaks(daemon, "reload"), what="1m")
        tap.equal({key[0] for key in peaks(daemon, "reload")}, {"exits", "hypercalls"})
        tap.equal({key[2] for key in peaks(daemon, "reload")}, {"1m", "2s"})
        tap.check(series(daemon)[tick_count] >= count, "the distribution began anew")
        daemon.reload("bursts:\n  stats: [exits]\n  scope: vcpu\n")
        tap.wait_for(lambda: set(peaks(daemon, "reload")) ==
                     {("exits", "0", "15s"), ("exits", "1", "15s")}, what="each vCPU's")
        daemon.reload("bursts:\n  stats: []\n  distribution: []\n")
        tap.wait_for(lambda: "_peak_rate" not in daemon.metrics() and
                     "_tick_rate" not in daemon.metrics(), what="none")


@t.test("a distribution has one observation a tick")
def _():
    setup()
    with lab.DemoVms(name="ticks", load="io") as _demo, \
            lab.Daemon("sampling:\n  interval: 20ms\n") as daemon:
        first_sample(daemon, "ticks")

        def look():
            now = series(daemon)
            return (now["kvmstatd_ticks_total"],
                    now['kvm_vcpu_exits_tick_rate_count{vm="ticks"}'],
                    now['kvm_vcpu_exits_tick_rate_bucket{vm="ticks",le="+Inf"}'])
        ticks, count, _last = look()
        tap.wait_for(lambda: look()[0] > ticks + 50, what="some ticks")
        ticks_after, count_after, last = look()
        tap.equal(count_after, last)
        tap.between(ticks_after - ticks - 1, count_after - count, ticks_after - ticks + 1)


@t.test("both formats are in order for Prometheus")
def _():
    setup()
    tap.require_tool("promtool")
    with lab.DemoVms(name="lint", load="mix") as _demo, \
            lab.Daemon("bursts:\n  stats: [\"*\"]\n  distribution: [\"*\"]\n") as daemon:
        first_sample(daemon, "lint")
        tap.wait_for(lambda: peaks(daemon, "lint"), what="a peak")
        text = daemon.metrics()
        done = subprocess.run(["promtool", "check", "metrics"], input=text, text=True,
                              capture_output=True, check=False)
        about = [line for line in (done.stdout + done.stderr).splitlines()
                 if re.search("_peak|_low|_tick_", line)]
        tap.check(not about, f"promtool: {about}")
        families = re.findall(r"^# TYPE (\S+)", daemon.metrics(OPENMETRICS), re.M)
        tap.equal(len(families), len(set(families)), "families")
        tap.check("kvm_vm_pages_4k_low" in families and "kvm_vcpu_halt_wait_tick_ratio" in families,
                  "families of bursts")


t.main()
