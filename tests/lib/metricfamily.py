# SPDX-License-Identifier: Apache-2.0
"""io.prometheus.client.MetricFamily read by Google's own protobuf library.

The messages are described here at run time, from the field numbers of prometheus/client_model's
metrics.proto, so that nothing is generated and nothing of kvmstatd's encoder is used.
"""

import tap

try:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
except ImportError:
    descriptor_pb2 = None

PACKAGE = "io.prometheus.client"
COUNTER, GAUGE, SUMMARY, UNTYPED, HISTOGRAM = range(5)
# message: {field: (number, type)}; a trailing * is repeated, a capital a message or an enumeration.
MESSAGES = {
    "LabelPair": {"name": (1, "string"), "value": (2, "string")},
    "Gauge": {"value": (1, "double")},
    "Counter": {"value": (1, "double")},
    "Bucket": {"cumulative_count": (1, "uint64"), "upper_bound": (2, "double")},
    "BucketSpan": {"offset": (1, "sint32"), "length": (2, "uint32")},
    "Histogram": {
        "sample_count": (1, "uint64"), "sample_sum": (2, "double"), "bucket": (3, "Bucket*"),
        "schema": (5, "sint32"), "zero_threshold": (6, "double"), "zero_count": (7, "uint64"),
        "positive_span": (12, "BucketSpan*"), "positive_delta": (13, "sint64*"),
    },
    "Metric": {"label": (1, "LabelPair*"), "gauge": (2, "Gauge"), "counter": (3, "Counter"),
               "timestamp_ms": (6, "int64"), "histogram": (7, "Histogram")},
    "MetricFamily": {"name": (1, "string"), "help": (2, "string"), "type": (3, "MetricType"),
                     "metric": (4, "Metric*"), "unit": (5, "string")},
}


def _field(message, name, number, kind):
    Field = descriptor_pb2.FieldDescriptorProto
    field = message.field.add(name=name, number=number, label=Field.LABEL_OPTIONAL)
    if kind.endswith("*"):
        field.label = Field.LABEL_REPEATED
        kind = kind[:-1]
    if kind == "MetricType":
        field.type, field.type_name = Field.TYPE_ENUM, f".{PACKAGE}.{kind}"
    elif kind[0].isupper():
        field.type, field.type_name = Field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    else:
        field.type = getattr(Field, f"TYPE_{kind.upper()}")


def _family_class():
    file = descriptor_pb2.FileDescriptorProto(name="metrics.proto", package=PACKAGE, syntax="proto2")
    kinds = file.enum_type.add(name="MetricType")
    for number, name in enumerate(("COUNTER", "GAUGE", "SUMMARY", "UNTYPED", "HISTOGRAM")):
        kinds.value.add(name=name, number=number)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            _field(message, field, number, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    descriptor = pool.FindMessageTypeByName(f"{PACKAGE}.MetricFamily")
    return message_factory.MessageFactory(pool).GetPrototype(descriptor)


def _varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _check_known(message):
    """Nothing may be there that the description above does not have."""
    tap.equal(len(message.UnknownFields()), 0, f"unknown fields in {message.DESCRIPTOR.name}")
    for field, value in message.ListFields():
        if field.message_type:
            for part in value if field.label == field.LABEL_REPEATED else [value]:
                _check_known(part)


def parse(data):
    """The MetricFamily messages of a delimited exposition."""
    if descriptor_pb2 is None:
        tap.skip("python3-protobuf is not installed")
    family_class = _family_class()
    families, at = [], 0
    while at < len(data):
        length, at = _varint(data, at)
        tap.check(at + length <= len(data), "the last message is cut off")
        family = family_class()
        family.ParseFromString(data[at:at + length])
        _check_known(family)
        families.append(family)
        at += length
    return families


def labels(metric):
    pairs = {pair.name: pair.value for pair in metric.label}
    tap.equal(len(pairs), len(metric.label), "labels that are there once")
    return pairs


def native_counts(histogram):
    """{bucket number: count} of a native histogram's positive buckets, empty ones left out."""
    counts, at, number, count = {}, 0, 0, 0
    for span in histogram.positive_span:
        number += span.offset
        for _ in range(span.length):
            count += histogram.positive_delta[at]
            at += 1
            if count:
                counts[number] = count
            number += 1
    tap.equal(at, len(histogram.positive_delta), "deltas for all spans")
    return counts
