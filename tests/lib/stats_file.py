# SPDX-License-Identifier: Apache-2.0
"""KVM's statistics files in Python: written as a kernel of either byte order writes them, and read
back. Nothing of ours is used; include/uapi/linux/kvm.h has the layout.

A recording, *.kvmstats, holds one such file after another, the VM's first.
"""

import struct
from dataclasses import dataclass

TYPES = ["cumulative", "instant", "peak", "linear_hist", "log_hist"]
UNITS = ["none", "bytes", "seconds", "cycles", "boolean"]
NAME_SIZE = 48
HEADER = "6I"
DESCRIPTOR = "IhHII"
ORDERS = {"little": "<", "big": ">"}


@dataclass
class Stat:
    name: bytes
    flags: int
    exponent: int
    size: int
    offset: int
    bucket_size: int
    values: list


@dataclass
class StatsFile:
    id: bytes
    stats: list
    flags: int = 0
    name_size: int = NAME_SIZE
    id_offset: int = 24
    desc_offset: int = 24 + NAME_SIZE
    data_offset: int = 0
    data_bytes: int = 0

    @property
    def vcpu(self):
        return b"/vcpu-" in self.id

    def encode(self, order):
        """The bytes as a machine of that byte order ("little", "big") has them."""
        o = ORDERS[order]
        out = bytearray(self.data_offset + self.data_bytes)
        struct.pack_into(o + HEADER, out, 0, self.flags, self.name_size, len(self.stats),
                         self.id_offset, self.desc_offset, self.data_offset)
        struct.pack_into(f"{self.name_size}s", out, self.id_offset, self.id)
        for i, stat in enumerate(self.stats):
            at = self.desc_offset + i * (16 + self.name_size)
            struct.pack_into(o + DESCRIPTOR, out, at, stat.flags, stat.exponent, stat.size,
                             stat.offset, stat.bucket_size)
            struct.pack_into(f"{self.name_size}s", out, at + 16, stat.name)
            struct.pack_into(f"{o}{stat.size}Q", out, self.data_offset + stat.offset, *stat.values)
        return bytes(out)


def decode(data, order, start=0):
    """(StatsFile, where it ends) of what stands at `start`."""
    o = ORDERS[order]
    flags, name_size, n, id_offset, desc_offset, data_offset = struct.unpack_from(
        o + HEADER, data, start)

    def text(at):
        return data[start + at:start + at + name_size].split(b"\0")[0]

    stats = []
    for i in range(n):
        at = desc_offset + i * (16 + name_size)
        fields = struct.unpack_from(o + DESCRIPTOR, data, start + at)
        size, offset = fields[2:4]
        values = struct.unpack_from(f"{o}{size}Q", data, start + data_offset + offset)
        stats.append(Stat(text(at + 16), *fields, list(values)))
    data_bytes = max((s.offset + 8 * s.size for s in stats), default=0)
    return StatsFile(text(id_offset), stats, flags, name_size, id_offset, desc_offset, data_offset,
                     data_bytes), start + data_offset + data_bytes


def read_recording(path, order="little"):
    with open(path, "rb") as f:
        data = f.read()
    files, at = [], 0
    while at < len(data):
        file, at = decode(data, order, at)
        files.append(file)
    return files


def from_list(path, scope, id, random):
    """A file with the statistics of a list in tests/fixtures/statistics, as the kernel lays them out:
    descriptors behind the id, data behind the descriptors, one after another; random values."""
    stats, offset = [], 0
    with open(path, encoding="ascii") as f:
        rows = [line.split() for line in f if not line.startswith("#")]
    for row_scope, type, unit, exponent, size, name in rows:
        if row_scope != scope:
            continue
        values = [random.getrandbits(random.choice([1, 20, 33, 63, 64])) for _ in range(int(size))]
        if type == "log_hist":  # whose buckets are summed
            values = [value >> 8 for value in values]
        stats.append(Stat(name.encode(), TYPES.index(type) | UNITS.index(unit) << 4, int(exponent),
                          int(size), offset, 0, values))
        offset += 8 * int(size)
    return StatsFile(id, stats, data_bytes=offset,
                     data_offset=24 + NAME_SIZE + len(stats) * (16 + NAME_SIZE))
