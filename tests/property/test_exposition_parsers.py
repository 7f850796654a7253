# SPDX-License-Identifier: Apache-2.0
"""Random views, rendered by kvmstatd and read back by independent parsers.

property-exposition writes what is in the view as JSON and what kvmstatd makes of it. Here the
contract is written down a second time, by someone who has not seen the C: from the JSON, which
samples must there be? prometheus_client's two parsers and Google's protobuf say which there are.
Numbers are compared as exact fractions; in protobuf, which has doubles, each must be the nearest.
"""

import decimal
import fnmatch
import fractions
import http.server
import io
import json
import math
import os
import re
import subprocess
import threading
import typing

import built
import lab
import metricfamily
import tap

try:
    import prometheus_client.openmetrics.parser as openmetrics
    import prometheus_client.parser as text_format
except ImportError:
    openmetrics = None

t = tap.Tests()
PROGRAM = built.command("tests", "property-exposition")

CONTENT_TYPES = {
    "text": "text/plain; version=0.0.4; charset=utf-8",
    "openmetrics": "application/openmetrics-text; version=1.0.0; charset=utf-8",
    "protobuf": "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; "
                "encoding=delimited",
}
CUMULATIVE, INSTANT, PEAK, LINEAR, LOG = range(5)
NONE, BYTES, SECONDS, CYCLES, BOOLEAN = range(5)
POW10, POW2 = range(2)
WORDS = {BYTES: "bytes", SECONDS: "seconds", CYCLES: "cycles"}
MASK = (1 << 64) - 1


class Exact(decimal.Decimal):
    """What the parsers get instead of a float."""

    def is_integer(self):
        return self == self.to_integral_value()


def exact(text):
    """A parsed number, or an error for what is no plain decimal."""
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        raise AssertionError(f"{text!r} is no plain decimal")
    return Exact(text)


def parse(text, format):
    """[(family name, type, unit, help, [(sample name, labels, value)])]"""
    if openmetrics is None:
        tap.skip("python3-prometheus-client is not installed")
    if format == "openmetrics":
        openmetrics._parse_value = lambda value: exact("".join(value))
        families = list(openmetrics.text_string_to_metric_families(text))
    else:
        text_format._parse_value_and_timestamp = lambda s: (exact(s.strip()), None)
        families = list(text_format.text_string_to_metric_families(text))
    return [
        (f.name, f.type, f.unit, f.documentation, [(s.name, s.labels, s.value) for s in f.samples])
        for f in families
    ]


def decimal_text(value):
    """An exact fraction as the shortest plain decimal."""
    with decimal.localcontext() as context:
        context.prec = 600
        number = decimal.Decimal(value.numerator) / decimal.Decimal(value.denominator)
        assert fractions.Fraction(number) == value
        text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


class Stat:
    """One descriptor, and what the contract makes of it."""

    def __init__(self, scope, raw):
        self.scope = scope
        self.__dict__.update(raw)
        self.name_bytes = bytes.fromhex(raw["name"])
        self.known = self.type <= LOG and self.unit <= BOOLEAN and self.base <= POW2
        self.histogram = self.known and self.type in (LINEAR, LOG)
        if self.histogram:
            self.kind = "histogram"
        elif self.known and self.type == CUMULATIVE and self.unit != BOOLEAN:
            self.kind = "counter"
        else:
            self.kind = "gauge"
        self.word = WORDS.get(self.unit) if self.known else None

    def family(self, raw):
        stem = re.sub(rb"[^a-zA-Z0-9_]", b"_", self.name_bytes).decode()
        if self.kind == "counter":
            stem = stem.removesuffix("_total")
        name = f"kvm_{self.scope}_{stem}"
        if self.word and not raw:
            if self.word == "seconds":
                name = re.sub(r"_(ns|us|ms|s)$", "", name)
            if not name.endswith("_" + self.word):
                name += "_" + self.word
        return name

    def claims(self, name):
        suffixes = {
            "counter": ["", "_total", "_created"],
            "gauge": [""],
            "histogram": ["", "_bucket", "_sum", "_count", "_created"],
        }
        return {name + suffix for suffix in suffixes[self.kind]}

    def scaled(self, raw):
        if not self.known:
            return fractions.Fraction(raw)
        if self.unit == BOOLEAN and not self.histogram:
            return fractions.Fraction(int(raw != 0))
        return raw * fractions.Fraction(2 if self.base == POW2 else 10) ** self.exponent

    def bounds(self):
        """The finite bounds; what lies above them is +Inf."""
        for k in range(self.size - 1):
            bound = (k + 1) * self.bucket_size - 1 if self.type == LINEAR else (1 << k) - 1
            if bound > MASK:
                return
            text = decimal_text(self.scaled(bound))
            yield text if "." in text else text + ".0"


def name_all(model):
    """{(schema, stat index): (Stat, family name or None, raw)}"""
    taken = {"kvm_vm", "kvm_vm_info", "kvm_vm_vcpus", "kvm_vm_start_time_seconds",
             "kvm_vm_last_sample_timestamp_seconds"}
    names, first = {}, {}
    for s, schema in enumerate(model["schemas"]):
        seen = set()
        for i, raw_stat in enumerate(schema["stats"]):
            stat = Stat(schema["scope"], raw_stat)
            key = (stat.scope, stat.name, stat.type, stat.unit, stat.known)
            if key in first and key not in seen:
                names[s, i] = (stat, *first[key])
                seen.add(key)
                continue
            chosen = (None, False)
            for raw in (False, True):
                name = stat.family(raw)
                if not taken & stat.claims(name):
                    taken |= stat.claims(name)
                    chosen = (name, raw)
                    break
            names[s, i] = (stat, *chosen)
            if key not in seen:
                first[key] = chosen
                seen.add(key)
    return names


def sibling(model, schema, stat):
    name = stat.name_bytes
    if not stat.word or not name.endswith(b"_hist"):
        return None
    suffixes = [b"_ns", b"_us", b"_ms", b"_s", b"_seconds", b"_bytes", b"_cycles"]
    for i, raw in enumerate(model["schemas"][schema]["stats"]):
        other = Stat(stat.scope, raw)
        if (other.known and other.type == CUMULATIVE and other.unit == stat.unit
                and other.size == 1 and other.name_bytes in [name[:-5] + s for s in suffixes]):
            return i
    return None


class Sums:
    """Per VM: the sums shown last, and what was added so that they do not fall."""

    def __init__(self):
        self.shown, self.added = {}, {}

    def lift(self, key, value):
        added = self.added.get(key, 0)
        if value + added < self.shown.get(key, 0):
            added = self.added[key] = self.shown[key] - value
        self.shown[key] = value + added
        return value + added


class Oracle:
    """Works out the samples of one view after another of the same VMs."""

    def __init__(self):
        self.sums = Sums()

    def expect(self, model, format):
        self.model, self.format = model, format
        self.samples, self.types, self.units = {}, {}, {}
        self.names = name_all(model)
        for index, vm in enumerate(model["vms"]):
            self.vm(index, vm)
        return self

    def put(self, name, labels, value):
        key = (name, tuple(sorted(labels.items())))
        assert key not in self.samples, key
        self.samples[key] = value

    def vm(self, index, vm):
        label = {"vm": bytes.fromhex(vm["vm"]).decode(errors="replace")}
        status = {target["status"] for target in vm["targets"]}
        if status & {"read", "held"}:
            text = {k: bytes.fromhex(vm[k]).decode() for k in ("uuid", "machine", "unit")}
            self.put("kvm_vm_info", {**label, **text, "vmm": "qemu", "pid": str(vm["pid"]),
                                     "source": "statsfd"}, 1)
            self.put("kvm_vm_vcpus", label, vm["n_vcpus"])
            if vm["start_ns"] > 0:
                self.put("kvm_vm_start_time_seconds", label,
                         fractions.Fraction(vm["start_ns"], 10**9))
        if "read" in status:
            self.put("kvm_vm_last_sample_timestamp_seconds", label, None)
        for target in vm["targets"]:
            if target["status"] != "read":
                continue
            if target["vcpu"] < 0:
                self.block(label, target["block"], lambda stat: True, False)
            else:
                self.block({**label, "vcpu": str(target["vcpu"])}, target["block"],
                           lambda stat: not self.summed(stat), False)
        self.sum(index, vm, label)

    def summed(self, stat):
        return not self.model["vcpu"] or (stat.histogram and self.model["histograms"] == "vm")

    def sum(self, index, vm, label):
        targets = [t for t in vm["targets"] if t["vcpu"] >= 0 and t["status"] != "absent"]
        if not targets:
            return
        schema = targets[0]["block"]["schema"]
        fresh = any(t["status"] == "read" for t in targets)
        blocks = [(t["block"], t["status"] == "read") for t in targets]
        if vm["retired"] and vm["retired"]["schema"] == schema:
            blocks.append((vm["retired"], False))
        values = []
        needed = not self.model["vcpu"] or self.model["histograms"] == "vm"
        for i, raw in enumerate(self.model["schemas"][schema]["stats"]):
            stat = Stat("vcpu", raw)
            cells = [0] * stat.size
            for block, read in blocks:
                for k, value in enumerate(block["values"][i]):
                    if stat.kind != "gauge":
                        cells[k] += value
                    elif read:
                        cells[k] += int(value != 0) if stat.known and stat.unit == BOOLEAN else value
            if stat.kind != "gauge" and needed:
                cells = [self.sums.lift((index, i, k), v) for k, v in enumerate(cells)]
            values.append([v & MASK for v in cells])
        self.block(label, {"schema": schema, "values": values},
                   lambda stat: self.summed(stat) and (fresh or stat.kind != "gauge"), True)

    def wanted(self, stat):
        if stat.histogram and self.model["histograms"] == "off":
            return False
        exclude = self.model["exclude"]
        return not (exclude and fnmatch.fnmatchcase(stat.name_bytes.decode("latin-1"), exclude))

    def block(self, label, block, chosen, is_sum):
        schema = block["schema"]
        for i, values in enumerate(block["values"]):
            stat, name, raw = self.names[schema, i]
            if name is None or not self.wanted(stat) or not chosen(stat):
                continue
            self.types[name] = stat.kind
            self.units[name] = "" if raw or not stat.word else stat.word
            if stat.histogram:
                self.histogram(label, stat, name, values, block, schema)
                continue
            name += "_total" if stat.kind == "counter" else ""
            for k, value in enumerate(values):
                count = is_sum and stat.known and stat.unit == BOOLEAN
                self.put(name, label if stat.size == 1 else {**label, "index": str(k)},
                         value if count else stat.scaled(value))

    def histogram(self, label, stat, name, values, block, schema):
        if self.format == "protobuf":
            self.put(name, label, self.protobuf_histogram(stat, values, block, schema))
            return
        seen, used = 0, 0
        for le in stat.bounds():
            seen += values[used]
            used += 1
            self.put(name + "_bucket", {**label, "le": le}, seen)
        seen += sum(values[used:])
        self.put(name + "_bucket", {**label, "le": "+Inf"}, seen)
        other = sibling(self.model, schema, stat)
        if other is not None:
            value = Stat(stat.scope, self.model["schemas"][schema]["stats"][other]).scaled(
                block["values"][other][0])
            self.put(name + "_sum", label, value)
        if other is not None or self.format == "text":
            self.put(name + "_count", label, seen)


    def protobuf_histogram(self, stat, values, block, schema):
        other = sibling(self.model, schema, stat)
        total = None
        if other is not None:
            raw = self.model["schemas"][schema]["stats"][other]
            total = Stat(stat.scope, raw).scaled(block["values"][other][0])
        if stat.type == LINEAR:
            bounds = [float(fractions.Fraction(le)) for le in stat.bounds()]
            seen, buckets = 0, {}
            for bound, value in zip(bounds, values):
                seen += value
                buckets[bound] = seen
            return Classic(sum(values), total, buckets)
        shift = round(stat.exponent * math.log2(2 if stat.base == POW2 else 10))
        n = min(len(values) - 1, 65)
        counts = values[1:n] + [sum(values[max(n, 1):])] if n else []
        zero = values[0]
        return Native(sum(values), total, zero, shift,
                      {k + shift: v for k, v in enumerate(counts, 1) if v})


class Classic(typing.NamedTuple):
    count: int
    sum: fractions.Fraction
    buckets: dict  # {bound: how many up to there}


class Native(typing.NamedTuple):
    count: int
    sum: fractions.Fraction
    zero: int
    shift: int  # of KVM's bucket numbers to native ones
    buckets: dict  # {number: count}, none empty


def compare(text, oracle, format):
    if format == "protobuf":
        compare_protobuf(text, oracle)
        return
    text = text.decode()
    got = {}
    for name, kind, unit, documentation, samples in parse(text, format):
        tap.check(documentation, f"{name} has no help")
        if not name.startswith("kvm_"):
            continue
        if name in oracle.types:
            tap.equal(kind, oracle.types[name], f"type of {name}")
            if format == "openmetrics":
                tap.equal(unit, oracle.units[name], f"unit of {name}")
        for sample, labels, value in samples:
            key = (sample, tuple(sorted(labels.items())))
            tap.check(key not in got, f"{key} is there twice")
            got[key] = value
    tap.equal(sorted(set(got) - set(oracle.samples)), [], "samples that should not be there")
    tap.equal(sorted(set(oracle.samples) - set(got)), [], "samples that are missing")
    for key, value in oracle.samples.items():
        if value is not None:
            tap.equal(fractions.Fraction(got[key]), fractions.Fraction(value), f"{key}")


def compare_protobuf(data, oracle):
    got = {}
    names = set()
    for family in metricfamily.parse(data):
        tap.check(family.help, f"{family.name} has no help")
        tap.check(family.name not in names, f"{family.name} is there twice")
        names.add(family.name)
        if not family.name.startswith("kvm_"):
            continue
        name = family.name
        if oracle.types.get(name.removesuffix("_total")) == "counter":
            name = name.removesuffix("_total")
        kind = {metricfamily.COUNTER: "counter", metricfamily.GAUGE: "gauge",
                metricfamily.HISTOGRAM: "histogram"}[family.type]
        if name in oracle.types:
            tap.equal((kind, family.unit), (oracle.types[name], oracle.units[name]), name)
        for metric in family.metric:
            key = (family.name, tuple(sorted(metricfamily.labels(metric).items())))
            tap.check(key not in got, f"{key} is there twice")
            fields = {field.name for field, _ in metric.ListFields()} - {"label"}
            tap.equal(fields, {kind}, f"what {key} has")
            got[key] = getattr(metric, kind)
    tap.equal(sorted(set(got) - set(oracle.samples)), [], "samples that should not be there")
    tap.equal(sorted(set(oracle.samples) - set(got)), [], "samples that are missing")
    for key, value in oracle.samples.items():
        if isinstance(value, (Classic, Native)):
            compare_protobuf_histogram(got[key], value, f"{key}")
        elif value is not None:
            tap.check(got[key].HasField("value"), f"{key} has a value, be it 0")
            tap.equal(got[key].value, float(fractions.Fraction(value)), f"{key}")


def compare_protobuf_histogram(got, wanted, what):
    tap.equal(got.sample_count, wanted.count, f"count of {what}")
    if wanted.sum is None:
        tap.check(math.isnan(got.sample_sum), f"sum of {what}: {got.sample_sum}")
    else:
        tap.equal(got.sample_sum, float(wanted.sum), f"sum of {what}")
    if isinstance(wanted, Classic):
        tap.check(not got.HasField("schema") and not got.positive_span, f"{what} is no native one")
        tap.equal({b.upper_bound: b.cumulative_count for b in got.bucket}, wanted.buckets, what)
        return
    tap.equal((got.schema, len(got.bucket)), (0, 0), f"schema, classic buckets of {what}")
    tap.equal(got.zero_count, wanted.zero, f"zeros of {what}")
    # Nothing but zero may be in the zero bucket: what is 1 raw is above half of it.
    tap.between(2.0**-1022, got.zero_threshold, 2.0**wanted.shift, f"zero threshold of {what}")
    tap.check(got.positive_span, f"{what} can be told from a classic one")
    tap.equal(metricfamily.native_counts(got), wanted.buckets, what)


def views(format, seed, n):
    """[(model, exposition)] of one random view, tick after tick."""
    env = dict(os.environ, KVMSTATD_TEST_SEED=str(seed))
    out = subprocess.run([*PROGRAM, "views", format, str(n)], env=env, check=True,
                         stdout=subprocess.PIPE).stdout
    stream = io.BytesIO(out)
    for line in iter(stream.readline, b""):
        if line.startswith(b"{"):
            word, length = stream.readline().split()
            tap.equal(word, b"exposition")
            yield json.loads(line), stream.read(int(length))


def check_views(format):
    for _ in range(20 if built.EMULATED else 100):
        seed = t.random.getrandbits(48) | 1
        oracle = Oracle()
        try:
            n = 0
            for model, text in views(format, seed, 4):
                compare(text, oracle.expect(model, format), format)
                n += 1
            tap.equal(n, 4, "views")
        except Exception as e:
            raise AssertionError(f"with seed {seed}: {type(e).__name__}: {e}") from e


@t.test("random views in OpenMetrics 1.0.0 say what they should")
def _():
    check_views("openmetrics")


@t.test("random views in text 0.0.4 say what they should")
def _():
    check_views("text")


@t.test("random views in protobuf say what they should")
def _():
    check_views("protobuf")


@t.test("protobuf has the families, help texts and series that OpenMetrics has")
def _():
    for _ in range(20):
        seed = t.random.getrandbits(48) | 1
        [(_, text)] = views("openmetrics", seed, 1)
        [(_, data)] = views("protobuf", seed, 1)
        wanted, got = {}, {}
        for name, kind, unit, documentation, samples in parse(text.decode(), "openmetrics"):
            name += {"counter": "_total", "info": "_info"}.get(kind, "")
            series = {tuple(sorted((k, v) for k, v in labels.items() if k != "le"))
                      for _, labels, _ in samples}
            wanted[name] = ("gauge" if kind == "info" else kind, unit, documentation, series)
        for family in metricfamily.parse(data):
            kind = ("counter", "gauge", "", "", "histogram")[family.type]
            series = {tuple(sorted(metricfamily.labels(m).items())) for m in family.metric}
            got[family.name] = (kind, family.unit, family.help, series)
        tap.equal(got, wanted, f"with seed {seed}")


class Views(http.server.BaseHTTPRequestHandler):
    """Serves /FORMAT/SEED: the first tick of that random view, rendered before: an emulator that
    renders a dozen at once is slower than Prometheus has patience."""

    texts = {}  # by path

    def do_GET(self):
        format = self.path.split("/")[1]
        text = self.texts[self.path]
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPES[format])
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_args):
        pass


@t.test("Prometheus itself takes random views in every format")
def _():
    tap.require_tool("prometheus")
    for format in CONTENT_TYPES:
        for _ in range(12):
            seed = t.random.getrandbits(48) | 1
            _, Views.texts[f"/{format}/{seed}"] = next(views(format, seed, 1))
    paths = list(Views.texts)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Views) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        configs = [{"targets": [f"127.0.0.1:{server.server_port}"],
                    "labels": {"__metrics_path__": path, "view": path}} for path in paths]
        try:
            with lab.Prometheus([], "5s", jobs={"kvmstatd": {"static_configs": configs}},
                                flags=["--enable-feature=native-histograms"]) as prometheus:
                tap.wait_for(lambda: len(prometheus.targets()) == len(paths) and all(
                    target["health"] != "unknown" for target in prometheus.targets()), timeout_s=60)
                errors = {target["labels"]["view"]: target["lastError"]
                          for target in prometheus.targets() if target["lastError"]}
                tap.equal(errors, {})
        finally:
            server.shutdown()


@t.test("promtool finds nothing to complain about in x86's statistics")
def _():
    promtool = tap.require_tool("promtool")
    text = subprocess.run([*PROGRAM, "x86"], check=True, stdout=subprocess.PIPE).stdout
    tap.check(text.count(b"\n") > 300, "that is not all of it")
    result = subprocess.run([promtool, "check", "metrics"], input=text, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT)
    tap.equal((result.returncode, result.stdout.decode()), (0, ""))


@t.test("promtool does complain where there is something")
def _():
    promtool = tap.require_tool("promtool")
    result = subprocess.run([promtool, "check", "metrics"], input=b"a_ns 1\n",
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    tap.check(result.returncode != 0 and result.stdout)


if __name__ == "__main__":
    t.main()
