#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Whole statistics files of many architectures' kernels, in this build's byte order, through decoder
and renderer: recorded ones, and for architectures whose KVM no emulator runs, ones made from the
kernel's list of statistics. What must come out is worked out here (test_exposition_parsers.py).

The build may be for another machine: tests/lab/cross runs this for big-endian and 32-bit ones.
"""

import glob
import os
import subprocess
import tempfile

import built
import stats_file
import tap
import test_exposition_parsers as parsers

FIXTURES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "fixtures")
PROGRAM = built.command("tests", "exposition-blobs")
t = tap.Tests()


def program(*arguments):
    return subprocess.run([*PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          check=False)


def order():
    return program("order").stdout.decode().strip()


def schema(file):
    return {
        "scope": "vcpu" if file.vcpu else "vm",
        "stats": [{"name": s.name.hex(), "type": s.flags & 15, "unit": s.flags >> 4 & 15,
                   "base": s.flags >> 8 & 15, "exponent": s.exponent, "size": s.size,
                   "bucket_size": s.bucket_size} for s in file.stats],
    }


def model(files, histograms):
    """The VM as test_exposition_parsers.py wants it described. All vCPUs have one schema."""
    block = [{"schema": min(i, 1), "values": [s.values for s in file.stats]}
             for i, file in enumerate(files)]
    targets = [{"vcpu": i - 1, "status": "read", "block": b} for i, b in enumerate(block)]
    vm = {"vm": b"a".hex(), "uuid": "", "machine": "", "unit": "", "pid": 7, "start_ns": 0,
          "n_vcpus": len(files) - 1, "retired": None, "targets": targets}
    return {"schemas": [schema(file) for file in files[:2]], "vms": [vm], "vcpu": True,
            "histograms": histograms, "exclude": None}


def check_files(files):
    """The VM's and its vCPUs' files, by every way there is."""
    tap.check(not files[0].vcpu and all(file.vcpu for file in files[1:]), "the VM's comes first")
    blobs = [file.encode(order()) for file in files]
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, str(i)) for i in range(len(blobs))]
        for path, blob in zip(paths, blobs):
            with open(path, "wb") as f:
                f.write(blob)
            tap.equal(program("copy", path).stdout, blob, "decoded and encoded again")
        for format in parsers.CONTENT_TYPES:
            for histograms in ("vm", "vcpu"):
                done = program(format, histograms, *paths)
                tap.equal((done.returncode, done.stderr), (0, b""), "exit status and errors")
                expected = parsers.Oracle().expect(model(files, histograms), format)
                n = sum(len(file.stats) for file in files[:2])  # a native histogram is one
                tap.check(len(expected.samples) >= n, "that is not all of them")
                parsers.compare(done.stdout, expected, format)


def listed_files(name):
    path = os.path.join(FIXTURES, "statistics", name)
    return [stats_file.from_list(path, "vm", b"kvm-4711", t.random),
            *(stats_file.from_list(path, "vcpu", b"kvm-4711/vcpu-%d" % i, t.random)
              for i in range(3))]


def add_listed(name):
    @t.test(f"the statistics of {name}, any values")
    def _():
        for _ in range(3):
            check_files(listed_files(name))


def add_recorded(path):
    name = os.path.basename(path).removesuffix(".kvmstats")

    @t.test(f"the statistics recorded of {name}")
    def _():
        files = stats_file.read_recording(path)
        with open(path, "rb") as f:
            tap.equal(b"".join(file.encode("little") for file in files), f.read(), "the recording")
        tap.check(len(files) > 1, "there is a vCPU in it")
        exits = {s.name: s.values[0] for s in files[1].stats}
        tap.check(any(exits.values()), "the vCPU had run")
        check_files(files)


for list_path in sorted(glob.glob(os.path.join(FIXTURES, "statistics", "*"))):
    add_listed(os.path.basename(list_path))
for recording in sorted(glob.glob(os.path.join(FIXTURES, "*.kvmstats"))):
    add_recorded(recording)


@t.test("a file in the other byte order is refused")
def _():
    for file in listed_files("s390x"):
        with tempfile.NamedTemporaryFile() as f:
            f.write(file.encode("big" if order() == "little" else "little"))
            f.flush()
            done = program("copy", f.name)
            tap.equal(done.returncode, 1, "exit status")
            tap.check(b"name_size" in done.stderr, done.stderr)


if __name__ == "__main__":
    t.main()
