# SPDX-License-Identifier: Apache-2.0
"""What is seen of a daemon while something goes on around it: scrapes, sockets, memory, ticks."""

import os
import time

import exposed
import lab
import tap
import web


def own_counter(text, name):
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(name + " "))


def stolen_s():
    """How long this machine's CPUs were ready to run and did not, where it is a VM itself."""
    with open("/proc/stat", encoding="ascii") as f:
        return int(f.readline().split()[8]) / os.sysconf("SC_CLK_TCK")


def sampler_wait_s(pid):
    """How long the sampling thread has waited for a CPU so far, or may have had one that stood still."""
    [sampler] = [tid for tid, name in lab.of_threads(pid, "comm").items() if name == "kvmstatd-sample\n"]
    return int(lab.of_threads(pid, "schedstat")[sampler].split()[1]) / 1e9 + stolen_s()


class Ticks:
    """Those from here on. `scrape` gives the text of /metrics; `interval_s` is that of the VMs."""

    def __init__(self, daemon, scrape, interval_s=0.1):
        self.daemon, self.scrape, self.interval_s = daemon, scrape, interval_s
        self.before, self.wait_s = self.count(), sampler_wait_s(daemon.pid)

    def count(self):
        text = self.scrape()
        return [own_counter(text, f"kvmstatd_ticks_{what}") for what in ("total", "missed_total")]

    def check(self):
        """None was missed but for want of a CPU, which is the host's doing. Returns words."""
        total, missed = (now - then for now, then in zip(self.count(), self.before))
        wait_s = sampler_wait_s(self.daemon.pid) - self.wait_s
        words = f"{missed} of {total + missed} ticks missed, {wait_s:.2f} s without a CPU"
        tap.check(total > 0, "no tick at all")
        if not lab.sanitized():
            tap.check(missed <= int(wait_s / self.interval_s), words)
        return words


class Watcher:
    """Looks again and again: each of `scrapes` is a function that takes a path."""

    def __init__(self, daemon, scrapes, needle="kvm_vcpu_exits_total"):
        self.daemon, self.scrapes, self.needle = daemon, scrapes, needle
        self.done = dict.fromkeys(scrapes, 0)
        self.sockets = self.resident = 0
        self.slowest = 0.0

    def look(self):
        for name, scrape in self.scrapes.items():
            started = time.monotonic()
            answer = scrape("/metrics")
            tap.equal(answer.status, 200, f"a scrape by {name}")
            tap.check(self.needle in answer.text, "the VMs")
            self.slowest = max(self.slowest, time.monotonic() - started)
            self.done[name] += 1
        self.sockets = max(self.sockets, web.n_sockets(self.daemon))
        self.resident = max(self.resident, exposed.resident_kib(self.daemon.pid))

    def until(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.look()
            time.sleep(0.1)

    def until_true(self, condition, what):
        def look():
            self.look()
            return condition()
        tap.wait_for(look, lab.TIMEOUT_S, 0.1, what)

    def words(self):
        return f"{self.done} scrapes, the slowest {self.slowest * 1000:.0f} ms"
