# SPDX-License-Identifier: Apache-2.0
"""kvmstatctl dump FILE, of files that anybody may have made."""

import json
import os
import re
import struct
import subprocess
import tempfile
import zlib

import ctl
import lab
import tap

t = tap.Tests()


def sections(content):
    """The sections of a recording: [(tag, content)]."""
    at, found = 16, []
    while at < len(content):
        tag, _, size = struct.unpack_from("<4sIQ", content, at)
        found.append((tag, content[at + 16:at + 16 + size]))
        at += 16 + (size + 7) // 8 * 8
    return found


def recording(head, parts):
    """The same put together, with checksums that are right."""
    for tag, part in parts:
        size = struct.pack("<Q", len(part))
        crc = zlib.crc32(tag + size + part)
        head += tag + struct.pack("<I", crc) + size + part + bytes(-len(part) % 8)
    return head


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def record(kind, ids=(), blocks=b"", since=None, time=1000):
    """A record of a recording: a TICK (1) is uniform; FIRST (2) and LAST (3) list their targets,
    all of schema 0. `blocks` are the targets' as they stand."""
    if kind == 1:
        body = bytes([0x81]) + varint(since) + blocks
    else:
        body = (bytes([kind]) + struct.pack("<Q", time) + varint(len(ids)) +
                b"".join(varint(2 * i) + varint(0) for i in ids) + blocks)
    return varint(len(body)) + body


def made(values, *vms):
    """A dump of VMs, each (name, records), whose blocks are of one statistic of so many values."""
    schema = struct.pack("=6I", 0, 8, 1, 24, 32, 64) + b"kvm-1".ljust(8, b"\0") + struct.pack(
        "=IhHII", 0, 0, values, 0, 0) + b"any".ljust(8, b"\0")
    parts = [(b"HOST", b"why\0killed\0"), (b"SCHM", struct.pack("<2I", 0, 1) + schema)]
    for name, records in vms:
        parts.append((b"VMID", b"vm\0" + name + b"\0"))
        parts.append((b"TICK", struct.pack("<Q2I", 1000, 1, 0) + records))
    return recording(b"KVMSTATD" + struct.pack("<I", 1) + struct.pack("=I", 0x01020304),
                     [*parts, (b"DONE", b"")])


# Of one target: it is read and has what it had; it had nothing; it has nothing any more.
STILL, BEGINS, ENDS = b"\0", b"\1\0", b"\4\0"


@t.test("a recording that lies: what is damaged is said, what is printed is what it is called")
def _():
    with open(os.path.join(lab.SOURCE, "tests/fuzz/corpus/recorder__dump/signal"), "rb") as f:
        whole = f.read()
    parts = sections(whole)
    tap.equal(recording(whole[:16], parts), whole, "as it was")
    names = [part.split(b"\0")[1] for tag, part in parts if tag == b"VMID"]
    tap.check(len(names) > 1, names)

    def dump(change, *args):
        with tempfile.NamedTemporaryFile() as f:
            f.write(recording(whole[:16], change(list(parts))))
            f.flush()
            return subprocess.run([lab.program("kvmstatctl"), "dump", *args, f.name], check=False,
                                  capture_output=True, timeout=lab.TIMEOUT_S)

    def damaged(n):
        def change(parts):
            at = [i for i, (tag, _) in enumerate(parts) if tag == b"TICK"][n]
            parts[at] = (b"TICK", parts[at][1][:-1])
            return parts
        return change
    recorded = len([tag for tag, _ in parts if tag == b"TICK"])
    for n in range(recorded):
        done = dump(damaged(n), "--json")
        tap.equal(done.returncode, 1, done.stderr)
        tap.check(b"contradict" in done.stderr, done.stderr)
        tap.equal(len(json.loads(done.stdout)), len(names) - 1, "VMs that are whole")

    def renamed(parts):
        return [(tag, part.replace(b"vm\0" + names[0], b"vm\0\xff\xc3\x1b\"" + names[0]))
                if tag == b"VMID" else (tag, part) for tag, part in parts]
    done = dump(renamed, "--json")
    tap.equal((done.returncode, done.stderr), (0, b""))
    tap.equal(json.loads(done.stdout.decode())[0]["vm"],
              "\ufffd\ufffd\x1b\"" + names[0].decode())

    # No terminal is told anything: neither by one byte, nor by the two of U+009B, nor by half of it.
    def commanding(parts):
        return [(tag, part.replace(b"vm\0" + names[0], b"vm\0\x1b[1m\xc2\x9b2J\x9b3J\x7f" + names[0])
                 if tag == b"VMID" else part) for tag, part in parts]
    for change in (commanding, lambda parts: damaged(0)(commanding(parts))):
        done = dump(change)
        for said in (done.stdout, done.stderr):
            tap.check(not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|(?<![\xc2-\xf4])\x9b",
                                    said), said)
        tap.check(b"VM ?[1m?2J?3J?" + names[0] in done.stdout + done.stderr, done.stdout)

    for offset in (-2 ** 63, 2 ** 63 - 1, 0):
        def moved(parts, offset=offset):
            return [(tag, re.sub(rb"wall_offset_ns\0[-0-9]*", b"wall_offset_ns\0%d" % offset, part))
                    if tag == b"HOST" else (tag, part) for tag, part in parts]
        for args in ((), ("--json",), ("--csv", "--last", "1s")):
            done = dump(moved, *args)
            tap.equal((done.returncode, done.stderr), (0, b""), f"{offset} {args}")


@t.test("what is no file is said to be none, and not waited for")
def _():
    with tempfile.TemporaryDirectory() as folder:
        pipe = os.path.join(folder, "pipe")
        os.mkfifo(pipe)
        for path in (folder, pipe, "/dev/null"):
            done = ctl.run("dump", path)
            tap.equal((done.returncode, done.stderr),
                      (1, f"kvmstatctl dump: {path}: is no regular file\n"))


@t.test("what a recording has nothing of is no success")
def _():
    path = os.path.join(lab.SOURCE, "tests/fuzz/corpus/recorder__dump/signal")
    for args, fits in ((("--stat", "exits"), True), (("--stat", "nothing"), False),
                       (("--vcpu", "0"), True), (("--vcpu", "77"), False),
                       (("--stat", "nothing", "--last", "1s"), False), ((), True)):
        for output in ("--csv", "--json"):
            done = ctl.run("dump", output, *args, path)
            tap.equal((done.returncode, "nothing in it fits" in done.stderr), (int(not fits), not fits),
                      f"{output} {args}: {done.stderr}")


@t.test("ticks are counted as such: that targets change is none")
def _():
    part = record(2, [0], BEGINS) + 5 * record(1, blocks=STILL, since=1) + record(3, [0], ENDS)
    with tempfile.NamedTemporaryFile() as f:
        f.write(made(1, (b"web", 3 * part)))
        f.flush()
        tap.check(" 18 ticks in " in ctl.good("dump", f.name), ctl.good("dump", f.name))
        tap.equal(len(ctl.good("dump", "--csv", f.name).splitlines()), 1 + 18)


@t.test("more values than can be shown: it says how to ask for less")
def _():
    ticks = 140000  # of 8,192 values each
    records = record(2, [0], BEGINS) + ticks * record(1, blocks=STILL, since=1000) + \
        record(3, [0], ENDS, time=1000 + ticks * 1000)
    with tempfile.NamedTemporaryFile() as f:
        f.write(made(8192, (b"web", records)))
        f.flush()
        tap.check(f" {ticks + 1} ticks in " in ctl.good("dump", f.name), "the summary")
        done = ctl.run("dump", "--csv", f.name)
        tap.equal(done.returncode, 1)
        for word in ("VM web", "--stat", "--vcpu", "--last"):
            tap.check(word in done.stderr, done.stderr)
        tap.equal(len(ctl.good("dump", "--csv", "--last", "1us", f.name).splitlines()), 3)


@t.test("a target that stands twice in a recording is refused")
def _():
    records = record(2, [5, 5], 2 * BEGINS) + 100 * record(1, blocks=2 * STILL, since=1) + \
        record(3, [5, 5], 2 * ENDS)
    with tempfile.NamedTemporaryFile() as f:
        f.write(made(1, (b"web", records)))
        f.flush()
        for output in ("--csv", "--json"):
            done = ctl.run("dump", output, f.name)
            tap.equal((done.returncode, "contradict" in done.stderr), (1, True), done.stderr)


@t.test("a file that is cut while it is read is an error that is said")
def _():
    records = record(2, [0], BEGINS) + 20000 * record(1, blocks=STILL, since=1) + record(3, [0], ENDS)
    with tempfile.NamedTemporaryFile() as f:
        f.write(made(1, (b"first", records), (b"second", records)))
        f.flush()
        with subprocess.Popen([lab.program("kvmstatctl"), "dump", "--csv", f.name],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as done:
            # It has begun to print the first, waits for a reader, and has not come to the second.
            tap.equal(len(done.stdout.read(1)), 1)
            f.truncate(0)
            out, errors = done.communicate(timeout=lab.TIMEOUT_S)
        tap.check(b"first" in out and b"second" not in out, out[:200])
        tap.equal(done.returncode, 1, errors)
        tap.check(b"the file was cut" in errors, errors)


t.main()
