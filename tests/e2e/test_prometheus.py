# SPDX-License-Identifier: Apache-2.0
"""Debian's Prometheus scrapes the daemon over demo VMs: what its query API says is compared with
what the guests did by the count of their own VMM, which knows nothing of KVM's statistics."""

import functools
import math
import os
import time

import lab
import relay
import tap
from prometheus_client.openmetrics import parser as openmetrics

t = tap.Tests()

EXITS = "kvm_vcpu_exits_total"
# What KVM and the VMM (or the guest) both count. Not io_exits: a KVM that emulates the instruction
# may leave it at 0.
COUNTED_TWICE = {"kvm_vcpu_mmio_exits_total": "mmio", "kvm_vcpu_halt_exits_total": "halt"}
SAMPLED = "kvm_vm_last_sample_timestamp_seconds"
# KVM counts an exit before the VMM sees it: one a vCPU may be on its way between the two counts.
IN_FLIGHT = 1
# This machine may run VMs that are not ours.
NAME = f"web-{os.getpid()}"
OURS = f'vm=~"{NAME}.*"'


VMS, VCPUS = 2, 2


def require_all():
    tap.require_kvm()
    tap.require_root()
    tap.require_tool("prometheus")


@functools.cache
def scene():
    """Demo VMs that are ours by name, and the Prometheus that scrapes a daemon over them."""
    require_all()
    demo = t.shared.enter_context(lab.DemoVms(vms=VMS, vcpus=VCPUS, name=NAME, rate=500))
    daemon = t.shared.enter_context(lab.Daemon())
    prometheus = t.shared.enter_context(lab.Prometheus([target(daemon)]))
    wait_samples(prometheus)
    return demo, prometheus


def target(daemon):
    return f"127.0.0.1:{daemon.port}"


def value_of(result, what):
    tap.equal(len(result), 1, f"number of series of {what}")
    return result[0][1]


def wait_samples(prometheus):
    tap.wait_for(lambda: prometheus.query(f"{EXITS}{{{OURS}}}"), what="first samples in Prometheus")


def first_scrape_after(prometheus, instant, vm):
    """The time of a scrape whose values of `vm` were all read from the kernel after `instant`."""

    def look():
        data = prometheus.api("query", query=f'{SAMPLED}{{vm="{vm}"}}[2m]')["result"]
        samples = [sample for series in data for sample in series["values"]]
        return min((when for when, value in samples if float(value) > instant), default=None)

    return tap.wait_for(look, lab.TIMEOUT_S, 0.1, f"a scrape of {vm} after {instant}")


@t.test("the target is up, and every VM and vCPU is there under its name")
def _():
    demo, prometheus = scene()
    [scraped] = prometheus.targets()
    tap.equal(scraped["health"], "up", scraped["lastError"])
    tap.equal(value_of(prometheus.query("up"), "up"), 1.0)
    expected = {(name, str(vcpu)) for name, _ in demo.vms for vcpu in range(VCPUS)}
    found = {(m["vm"], m["vcpu"]) for m, _ in prometheus.query(f"{EXITS}{{{OURS}}}")}
    tap.equal(found, expected, f"series of {EXITS}")
    infos = {m["vm"]: m["pid"] for m, _ in prometheus.query(f"kvm_vm_info{{{OURS}}}")}
    tap.equal(infos, {name: str(pid) for name, pid in demo.vms}, "kvm_vm_info")
    # All VMs that it says it reads are there, also those that are not ours and come and go.
    tap.wait_for(lambda: prometheus.query("sum(kvmstatd_vms) == count(kvm_vm_info)"),
                 what="as many VMs with samples as are read")


@t.test("increases in Prometheus are those that the guests made")
def _():
    demo, prometheus = scene()
    # Each scrape's values were read between two of the VMMs' counts; so the increase between two
    # scrapes has exact bounds, however late anybody was.
    brackets = []
    for _ in range(2):
        before = demo.counts()
        instant = time.time()
        scrape = max(first_scrape_after(prometheus, instant, name) for name, _ in demo.vms)
        brackets.append((before, scrape, demo.counts()))
        time.sleep(5)
    (before_a, scrape_a, after_a), (before_b, scrape_b, after_b) = brackets
    tap.check(scrape_b > scrape_a, "the second scrape is a later one")
    for metric, word in COUNTED_TWICE.items():
        for (name, vcpu), _ in before_a.items():
            series = f'{metric}{{vm="{name}",vcpu="{vcpu}"}}'
            query = f"{series} @ {scrape_b:.3f} - {series} @ {scrape_a:.3f}"
            increase = value_of(prometheus.query(query), query)
            key = (name, vcpu)
            low = before_b[key][word] - after_a[key][word] - IN_FLIGHT
            high = after_b[key][word] - before_a[key][word] + IN_FLIGHT
            tap.check(low > 0, f"{series}: the guest did something ({low})")
            tap.between(low, increase, high, series)


@t.test("rate() is what the raw samples say, and no counter resets")
def _():
    demo, prometheus = scene()
    name = demo.vms[0][0]
    first = first_scrape_after(prometheus, time.time(), name)
    last = tap.wait_for(
        lambda: next((w for w in (first_scrape_after(prometheus, time.time(), name),)
                      if w > first + 8), None), lab.TIMEOUT_S, 0.1, "eight seconds of scrapes")
    window = f"[{math.ceil(last - first)}s] @ {last:.3f}"
    for metric in (*COUNTED_TWICE, EXITS, "kvm_vcpu_halt_wait_seconds_total"):
        raw = prometheus.api("query", query=f"{metric}{{{OURS}}}{window}")["result"]
        tap.equal(len(raw), VMS * VCPUS, f"number of series of {metric}")
        for series in raw:
            values = [(float(when), float(value)) for when, value in series["values"]]
            tap.check(len(values) >= 3, f"{metric} was scraped more than twice")
            tap.check(all(a[1] <= b[1] for a, b in zip(values, values[1:])), f"{metric} fell")
            labels = series["metric"]
            chosen = f'{metric}{{vm="{labels["vm"]}",vcpu="{labels["vcpu"]}"}}'
            rate = value_of(prometheus.query(f"rate({chosen}{window})"), metric)
            slope = (values[-1][1] - values[0][1]) / (values[-1][0] - values[0][0])
            # rate() extrapolates to the window's ends: by up to one interval at each.
            tap.between(slope * 0.7, rate, slope * 1.3, f"rate of {metric}")
    halted = prometheus.query(f"rate(kvm_vcpu_halt_wait_seconds_total{{{OURS}}}{window})")
    tap.equal(len(halted), VMS * VCPUS, "vCPUs that halt")
    for labels, rate in halted:
        tap.between(0, rate, 1.5, f"seconds a second that {labels} waited halted")


@t.test("a stopped VM's series goes stale, its neighbour's goes on")
def _():
    stays, prometheus = scene()
    with lab.DemoVms(vcpus=2, name=f"goes-{os.getpid()}") as demo:
        name = demo.vms[0][0]
        everything = f'{{vm="{name}"}}'
        tap.wait_for(lambda: prometheus.query(everything), what="the VM in Prometheus")
        demo.end()
        # Without a staleness marker Prometheus would go on answering with the last value for five
        # minutes, which is longer than this waits.
        tap.wait_for(lambda: not prometheus.query(everything), 60, 0.2, "staleness")
        tap.check(prometheus.query(f'{EXITS}{{vm="{stays.vms[0][0]}"}}'), "the other VM is there")
        tap.equal(value_of(prometheus.query("up"), "up"), 1.0)
        # Up to its end it was there: what it did is still history.
        tap.check(prometheus.query(f"count_over_time({EXITS}{everything}[2m])"), "its history")


@t.test("Prometheus learns type, unit and help of what it scrapes")
def _():
    _, prometheus = scene()
    metadata = {entry["metric"]: entry for entry in prometheus.api("targets/metadata")}
    for family, kind, unit in (
        ("kvm_vcpu_io_exits", "counter", ""),
        ("kvm_vcpu_halt_wait_seconds", "counter", "seconds"),
        ("kvm_vcpu_halt_wait_hist_seconds", "histogram", "seconds"),
        ("kvm_vcpu_blocking", "gauge", ""),
        ("kvm_vm", "info", ""),
    ):
        tap.check(family in metadata, f"{family} is not in the metadata")
        entry = metadata[family]
        tap.equal((entry["type"], entry["unit"]), (kind, unit), family)
        tap.check(entry["help"], f"{family} has no help")


@t.test("quantiles come out of the histograms")
def _():
    _, prometheus = scene()
    buckets = f"kvm_vcpu_halt_wait_hist_seconds_bucket{{{OURS}}}"
    query = f"histogram_quantile(0.5, rate({buckets}[10s]))"

    def quantiles():
        return [v for _, v in prometheus.query(query) if not math.isnan(v)]

    for value in tap.wait_for(quantiles, lab.TIMEOUT_S, 0.2, "quantiles"):
        tap.between(0, value, 10, "median wait of a halted vCPU, in seconds")


@t.test("Prometheus gets OpenMetrics, gzipped, and an independent parser reads the same bytes")
def _():
    # The relay's thread comes last: the children's death signal follows the thread they are of.
    require_all()
    with lab.DemoVms(vcpus=VCPUS, name=NAME, rate=500), lab.Daemon() as daemon:
        between = relay.Relay(daemon)
        with lab.Prometheus([between.address]) as prometheus, between:
            wait_samples(prometheus)
            tap.equal(value_of(prometheus.query("up"), "up"), 1.0)
        asked, answer = between.exchanges[-1]
        tap.check("openmetrics" in asked["Accept"], f"Prometheus asked for {asked['Accept']}")
        tap.check("gzip" in asked["Accept-Encoding"], "Prometheus asked for gzip")
        tap.equal(answer.status, 200)
        tap.equal(answer.headers.get("Content-Type"),
                  "application/openmetrics-text; version=1.0.0; charset=utf-8")
        tap.equal(answer.headers.get("Content-Encoding"), "gzip")
        tap.check(len(answer.raw) < len(answer.body) / 2, "gzip makes it smaller")
        families = {f.name for f in openmetrics.text_string_to_metric_families(answer.text)}
        tap.check({"kvm_vcpu_io_exits", "kvm_vcpu_halt_wait_seconds"} <= families, "families")


t.main()
