# SPDX-License-Identifier: Apache-2.0
"""A guest that bursts, and scrapers of several paces: whether each sees each burst's peak.

The truth is the demo VM's own: when each burst really began, how long it took, how many exits it
had. Nothing here depends on how busy the machine is: what ticks were missed is asked for and allowed
for, and a scraper counts only where its scrapes came no further apart than the window.
"""

import json
import re
import threading
import time
from dataclasses import dataclass

import lab
import tap
from exposed import first_sample

NAME = "bursting"
PEAK = re.compile(f'^kvm_vcpu_exits_peak_rate{{vm="{NAME}",window="[^"]*"}} (\\S+)$', re.M)
EXITS = re.compile(f'^kvm_vcpu_exits_total{{vm="{NAME}",vcpu="0"}} (\\S+)$', re.M)
MISSED = re.compile(r"^kvmstatd_ticks_missed_total (\S+)$", re.M)


@dataclass
class Plan:
    window_s: float
    every_s: float  # longer than window and interval together: a burst is alone in its window
    intervals_s: tuple
    n_bursts: int
    tick_s: float
    exits: int = 500
    burst_ms: int = 100


@dataclass
class Burst:
    begin_s: float  # CLOCK_MONOTONIC, as time.monotonic()
    length_s: float
    exits: int

    @property
    def end_s(self):
        return self.begin_s + self.length_s


@dataclass
class Scrape:
    begin_s: float
    end_s: float
    peak: float  # None: no series
    exits: float
    missed: int  # ticks, so far


class Scraper(threading.Thread):
    """Scrapes at its own pace, on a grid whose phase is its own."""

    def __init__(self, daemon, interval_s, phase_s):
        super().__init__(daemon=True)
        self.source, self.interval_s, self.due_s = daemon, interval_s, time.monotonic() + phase_s
        self.scrapes, self.stopping = [], threading.Event()
        self.start()

    def run(self):
        while not self.stopping.wait(max(0, self.due_s - time.monotonic())):
            begin_s = time.monotonic()
            text = self.source.metrics()
            end_s = time.monotonic()
            peak, exits = PEAK.search(text), EXITS.search(text)
            self.scrapes.append(Scrape(begin_s, end_s, float(peak[1]) if peak else None,
                                       float(exits[1]) if exits else None,
                                       int(MISSED.search(text)[1])))
            self.due_s += self.interval_s

    def stop(self):
        self.stopping.set()
        self.join()


def read_bursts(demo, n):
    bursts = []
    while len(bursts) < n:
        line = demo.read_line(60)
        tap.check(line is not None, f"the demo VM ended: {demo.errors()}")
        if line.startswith("burst "):
            told = json.loads(line[len("burst "):])
            bursts.append(Burst(told["start_monotonic_ns"] / 1e9, told["duration_ns"] / 1e9,
                                told["exits"]))
    return bursts


def run(plan, rng):
    """Returns (bursts, scrapers)."""
    config = (f"sampling:\n  interval: {round(plan.tick_s * 1000)}ms\n"
              f"bursts:\n  windows: [{round(plan.window_s * 1000)}ms]\n")
    args = ["--burst-ms", str(plan.burst_ms), "--burst-every", f"{round(plan.every_s * 1000)}ms",
            "--burst-exits", str(plan.exits)]
    with lab.Daemon(config) as daemon, lab.DemoVms(name=NAME, load="burst", args=args) as demo:
        first_sample(daemon, NAME)
        scrapers = [Scraper(daemon, s, rng.uniform(0, s)) for s in plan.intervals_s]
        try:
            bursts = read_bursts(demo, plan.n_bursts + 1)
            # The first may be over before all scrapers have begun; the last is seen by all.
            time.sleep(max(plan.intervals_s) + plan.tick_s)
        finally:
            for scraper in scrapers:
                scraper.stop()
    return bursts[1:], scrapers


@dataclass
class Verdict:
    interval_s: float
    seen: list      # of each burst: the highest peak shown / the burst's true rate
    gained: list    # and what the counter shows: its rate over the scrape's interval / the true one
    unseen: list    # bursts whose peak no scrape showed
    stale: list     # scrapes that showed a peak that was out of the window


def least_rate(plan, burst, missed):
    """What some tick must have seen: all exits fall into ticks that cover little more than the burst.
    A tick may be late by less than an interval without being missed."""
    slack_s = 2 * (2 + missed) * plan.tick_s
    return burst.exits / (burst.length_s + slack_s)


def judge_burst(plan, burst, scraper, missed, verdict):
    settled_s = burst.end_s + (2 + missed) * plan.tick_s
    before = [s for s in scraper.scrapes if s.end_s < burst.begin_s]
    after = [s for s in scraper.scrapes if s.begin_s > settled_s]
    if not before or not after:
        return
    chain = [before[-1], *(s for s in scraper.scrapes
                           if before[-1].end_s < s.begin_s <= after[0].begin_s)]
    if any(b.end_s - a.begin_s > plan.window_s * (1 + 1 / 30) for a, b in zip(chain, chain[1:])):
        return  # not at the pace that was promised: this machine was too busy
    peaks = [s.peak for s in chain[1:] if s.peak is not None]
    true = burst.exits / burst.length_s
    if not peaks or max(peaks) < least_rate(plan, burst, missed):
        verdict.unseen.append((burst, peaks))
        return
    verdict.seen.append(max(peaks) / true)
    gained = (chain[-1].exits - chain[0].exits) / (chain[-1].begin_s - chain[0].begin_s)
    verdict.gained.append(gained / true)


def missed_about(burst, scrapers):
    """How many ticks were missed about a burst, as the scrapes nearest to it tell."""
    scrapes = [s for scraper in scrapers for s in scraper.scrapes]
    before = [s.missed for s in scrapes if s.end_s < burst.begin_s]
    after = [s.missed for s in scrapes if s.begin_s > burst.end_s + 1]
    most = max(s.missed for s in scrapes)
    return min(after, default=most) - max(before, default=0)


def judge(plan, bursts, scraper, scrapers):
    verdict = Verdict(scraper.interval_s, [], [], [], [])
    for i, burst in enumerate(bursts):
        missed = missed_about(burst, scrapers)
        judge_burst(plan, burst, scraper, missed, verdict)
        gone_s = burst.end_s + plan.window_s * (1 + 2 / 30) + (3 + missed) * plan.tick_s
        next_s = bursts[i + 1].begin_s if i + 1 < len(bursts) else gone_s
        verdict.stale += [s for s in scraper.scrapes
                          if gone_s < s.begin_s and s.end_s < next_s and s.peak is not None and
                          s.peak > least_rate(plan, burst, missed) / 2]
    return verdict


def check(plan, rng):
    """Runs the plan and checks it; returns the verdicts, for whoever wants to show them."""
    bursts, scrapers = run(plan, rng)
    verdicts = [judge(plan, bursts, scraper, scrapers) for scraper in scrapers]
    for v in verdicts:
        tap.check(not v.unseen, f"at {v.interval_s} s not seen: {v.unseen}")
        tap.check(not v.stale, f"at {v.interval_s} s still shown: {v.stale}")
    tap.check(any(v.seen for v in verdicts), "the machine was too busy for any scraper's pace")
    return verdicts
