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


t.main()
