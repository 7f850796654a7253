# SPDX-License-Identifier: Apache-2.0
"""Debian's Prometheus with native histograms switched on: it asks for protobuf, and what it stores
and computes is compared with what the daemon says in other formats and to other parsers."""

import functools
import math
import os
import re
import time

import lab
import metricfamily
import prometheus_client.parser as text_format
import relay
import tap

t = tap.Tests()

NAME = f"native-{os.getpid()}"
OURS = f'vm=~"{NAME}.*"'
HIST = "kvm_vcpu_halt_wait_hist_seconds"
RATES = "kvm_vcpu_exits_tick_rate"
# What is one series in one format and many in the other.
HISTOGRAM = re.compile(r"_hist_|_tick_rate|_tick_ratio")
FLAGS = ["--enable-feature=native-histograms"]
PROTOBUF = ("application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; "
            "encoding=delimited")
# KVM's bounds in nanoseconds and the native ones, in seconds: 2^-30 for 10^-9.
SHIFT = 2.0**-30 / 1e-9


def require_all():
    tap.require_kvm()
    tap.require_root()
    tap.require_tool("prometheus")


@functools.cache
def scene():
    """A daemon over two demo VMs, and a Prometheus that scrapes it."""
    require_all()
    t.shared.enter_context(lab.DemoVms(vms=2, vcpus=2, name=NAME, rate=500))
    daemon = t.shared.enter_context(lab.Daemon())
    target = f"127.0.0.1:{daemon.port}"
    return daemon, t.shared.enter_context(lab.Prometheus([target], flags=FLAGS))


def wait_histograms(prometheus, n, family=HIST):
    tap.wait_for(lambda: len(prometheus.query(f"histogram_count({family}{{{OURS}}})")) == n,
                 what=f"native histograms of {family} in Prometheus")


def stored(prometheus, family):
    """{vm: (count, sum, [(lower, upper, count)])} of the newest native histograms."""
    found = {}
    for series in prometheus.api("query", query=f"{family}{{{OURS}}}")["result"]:
        histogram = series["histogram"][1]
        found[series["metric"]["vm"]] = (
            int(histogram["count"]), float(histogram["sum"]),
            [(float(low), float(high), int(n)) for _, low, high, n in histogram["buckets"]])
    return found


def sent(body, name):
    """The same of what the daemon sent, by the definition of buckets."""
    found = {}
    for family in metricfamily.parse(body):
        for metric in family.metric if family.name == name else []:
            h = metric.histogram
            buckets = [(-h.zero_threshold, h.zero_threshold, h.zero_count)] if h.zero_count else []
            for i, n in sorted(metricfamily.native_counts(h).items()):
                buckets.append((2.0**((i - 1) / 2**h.schema), 2.0**(i / 2**h.schema), n))
            found[metricfamily.labels(metric)["vm"]] = (h.sample_count, h.sample_sum, buckets)
    return found


def equal(one, other):
    """Bounds are worked out on both sides, and may differ in the last digit."""
    return (one[:2] == other[:2] and [b[2] for b in one[2]] == [b[2] for b in other[2]] and all(
        math.isclose(x, y, rel_tol=1e-12)
        for a, b in zip(one[2], other[2]) for x, y in zip(a[:2], b[:2])))


@t.test("Prometheus asks for protobuf, gzipped, and stores the native histograms as they were sent")
def _():
    # The relay's thread comes last: the children's death signal follows the thread they are of.
    require_all()
    with lab.DemoVms(vms=2, vcpus=2, name=NAME, rate=500) as demo, lab.Daemon() as daemon:
        between = relay.Relay(daemon)
        with lab.Prometheus([between.address], flags=FLAGS) as prometheus, between:
            wait_histograms(prometheus, 2)
            wait_histograms(prometheus, 2, RATES)
            time.sleep(2)
            got = {family: stored(prometheus, family) for family in (HIST, RATES)}
            [scraped] = prometheus.targets()
            tap.equal(scraped["health"], "up", scraped["lastError"])
        asked, answer = between.exchanges[-1]
        tap.check(asked["Accept"].startswith("application/vnd.google.protobuf"), asked["Accept"])
        tap.equal((answer.status, answer.headers["Content-Type"],
                   answer.headers["Content-Encoding"]), (200, PROTOBUF, "gzip"))
        for family, histograms in got.items():
            tap.equal(set(histograms), {name for name, _ in demo.vms}, f"VMs of {family}")
            said = [sent(answer.body, family) for _, answer in between.exchanges]
            for vm, histogram in histograms.items():
                tap.check(histogram[0] > 0 and histogram[2], f"{family} of {vm}: {histogram}")
                tap.check(any(vm in one and equal(one[vm], histogram) for one in said),
                          f"{histogram} of {vm} is what one of {len(said)} scrapes said")


@t.test("counters, gauges and the info of VMs are the series that they are in OpenMetrics")
def _():
    daemon, by_protobuf = scene()
    with lab.Prometheus([f"127.0.0.1:{daemon.port}"]) as by_text:
        series = []
        for prometheus in (by_protobuf, by_text):
            tap.wait_for(lambda: len(prometheus.query(f"kvm_vm_info{{{OURS}}}")) == 2)
            tap.equal(prometheus.query("up")[0][1], 1.0)
            found = prometheus.api("query", query=f'{{__name__=~"kvm_.*",{OURS}}}')["result"]
            series.append({
                tuple(sorted((k, v) for k, v in one["metric"].items() if k != "instance"))
                for one in found if not HISTOGRAM.search(one["metric"]["__name__"])})
        tap.check(len(series[0]) > 100, f"{len(series[0])} series")
        tap.equal(series[0], series[1])


def classic(daemon, name=HIST):
    """{vm: [(bound, cumulative count)]} of a histogram in text."""
    found = {}
    text = daemon.metrics(accept="text/plain")
    for family in text_format.text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name + "_bucket" and sample.labels["vm"].startswith(NAME):
                found.setdefault(sample.labels["vm"], []).append(
                    (float(sample.labels["le"]), sample.value))
    return found


def quantile(q, buckets):
    """By linear interpolation in KVM's exact buckets; None in the one that has no bound."""
    rank = q * buckets[-1][1]
    low, before = 0.0, 0.0
    for bound, count in buckets:
        if count >= rank and count > before:
            return None if math.isinf(bound) else low + (bound - low) * (rank - before) / (
                count - before)
        low, before = bound, count
    raise AssertionError(f"no bucket has rank {rank}: {buckets}")


@t.test("quantiles of the native histogram are those of KVM's buckets, but for the bounds' shift")
def _():
    wait_histograms(scene()[1], 2)  # they have done something
    # One sample, which stays as it is for an hour.
    with lab.Daemon("sampling:\n  interval: 1h\n") as daemon, \
            lab.Prometheus([f"127.0.0.1:{daemon.port}"], flags=FLAGS) as prometheus:
        wait_histograms(prometheus, 2)
        exact = classic(daemon)
        tap.equal(len(exact), 2, "VMs")
        counts = dict((m["vm"], v) for m, v in
                      prometheus.query(f"histogram_count({HIST}{{{OURS}}})"))
        tap.equal(counts, {vm: buckets[-1][1] for vm, buckets in exact.items()}, "counts")
        n = 0
        for q in (0.05, 0.25, 0.5, 0.75, 0.9, 0.99):
            for metric, got in prometheus.query(f"histogram_quantile({q}, {HIST}{{{OURS}}})"):
                ours = quantile(q, exact[metric["vm"]])
                if ours is None:
                    continue
                # KVM's bounds are 2^k - 1: a nanosecond is nothing beyond a few microseconds.
                tap.check(ours > 4e-6, f"{ours} is long enough")
                tap.between(0.999 * SHIFT * ours, got, 1.001 * SHIFT * ours,
                            f"quantile {q} of {metric['vm']}, {ours} by KVM's own buckets")
                tap.between(0.93 * ours, got, ours, "what README.md says of the shift")
                n += 1
        tap.check(n >= 6, f"{n} quantiles compared")


@t.test("rates of native histograms add up with the counter beside them")
def _():
    _, prometheus = scene()
    wait_histograms(prometheus, 2)
    query = (f"histogram_sum(rate({HIST}{{{OURS}}}[8s])) / on(vm) "
             f"sum by (vm) (rate(kvm_vcpu_halt_wait_seconds_total{{{OURS}}}[8s]))")
    ratios = tap.wait_for(lambda: prometheus.query(query), lab.TIMEOUT_S, 0.2, "rates")
    for labels, ratio in ratios:
        tap.between(0.999, ratio, 1.001, f"sum of the histogram / the counter of {labels}")
    medians = tap.wait_for(
        lambda: [v for _, v in prometheus.query(
            f"histogram_quantile(0.5, rate({HIST}{{{OURS}}}[8s]))") if not math.isnan(v)],
        lab.TIMEOUT_S, 0.2, "a median")
    for median in medians:
        tap.between(1e-6, median, 10, "median wait of a halted vCPU, in seconds")


@t.test("distributions of rates are finer in protobuf and count the same ticks")
def _():
    daemon, prometheus = scene()
    wait_histograms(prometheus, 2, RATES)
    before = classic(daemon, RATES)
    instant = time.time()
    query = f"count(timestamp({RATES}{{{OURS}}}) > {instant}) == 2"
    tap.wait_for(lambda: prometheus.query(query), lab.TIMEOUT_S, 0.2, "another scrape")
    got = stored(prometheus, RATES)
    after = classic(daemon, RATES)
    tap.equal((set(got), set(after)), (set(before), set(before)), "VMs")
    for vm, (count, _, buckets) in got.items():
        tap.between(before[vm][-1][1], count, after[vm][-1][1], "ticks counted")
        # At any bound, as many as classic buckets have there, but for the bucket it falls in.
        for (bound, low), (_, high) in zip(before[vm][:-1], after[vm]):
            under = sum(n for _, upper, n in buckets if upper <= bound)
            upto = sum(n for lower, _, n in buckets if lower < bound)
            tap.check(under <= high and upto >= low, f"{under} to {upto} rates up to {bound}, "
                      f"between {low} and {high} in text")


@t.test("a VM that never halted has a native histogram, of nothing")
def _():
    _, prometheus = scene()
    name = f"awake-{os.getpid()}"
    with lab.DemoVms(name=name, load="io"):
        query = f'histogram_count({HIST}{{vm="{name}"}})'
        [(_, count)] = tap.wait_for(lambda: prometheus.query(query), what="its histogram")
        tap.equal(count, 0.0)
        tap.equal(prometheus.query(f'{HIST}_count{{vm="{name}"}}'), [], "classic series")


t.main()
