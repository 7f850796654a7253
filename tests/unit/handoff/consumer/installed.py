#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""libkvmstatd-handoff exports what its header declares, is found by pkg-config once installed and
links, shared and static, C and C++; the preload shim exports what it stands in for, and no more.

Usage: installed.py CMAKE BUILD SOURCE HEADER LIBRARY PRELOAD CC CXX [FLAG...]
"""

import os
import re
import subprocess
import sys
import tempfile


def run(*args, **options):
    done = subprocess.run(args, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        print("\n".join(f"# {line}" for line in (done.stdout + done.stderr).splitlines()))
    return done.returncode == 0, done.stdout


def symbols(library):
    """[(kind, name, version)…] of what a shared library exports."""
    _, listing = run("nm", "-D", "--defined-only", library)
    return [(f[-2], *re.split("@+", f[-1])) for f in map(str.split, listing.splitlines())]


def dynamic(library, tag):
    return re.findall(rf"\({tag}\).*\[(.*)\]", run("readelf", "-d", library)[1])


def check_symbols(header, library, preload):
    with open(header, encoding="utf-8") as file:
        text = re.sub(r"/\*.*?\*/", "", file.read(), flags=re.S)
    declared = set(re.findall(r"\b(kvmstatd_handoff_\w+)\([^;{]*\);", text))
    found = symbols(library)
    exported = {name for kind, name, *_ in found if kind != "A"}
    yield len(declared) == 9, f"the header declares {len(declared)} functions"
    yield exported == declared, f"exported and declared differ by {sorted(exported ^ declared)}"
    yield {s[2:] for s in found if s[0] != "A"} == {("KVMSTATD_HANDOFF_1",)}, "their versions"
    yield dynamic(library, "SONAME") == ["libkvmstatd-handoff.so.1"], "the soname"
    yield "NODELETE" in run("readelf", "-d", library)[1], "it cannot be unloaded"
    yield {s[1] for s in symbols(preload)} == {"ioctl", "close"}, "what the shim stands in for"
    needed = set(dynamic(preload, "NEEDED"))
    yield needed <= {"libc.so.6", "ld-linux-x86-64.so.2"}, f"the shim needs {sorted(needed)}"


def check_installed(cmake, build, source, cc, cxx, flags):
    with tempfile.TemporaryDirectory() as prefix:
        yield run(cmake, "--install", build, "--component", "handoff",
                  "--prefix", prefix)[0], "install"
        folders = [d for d, _, files in os.walk(prefix) if "kvmstatd-handoff.pc" in files]
        env = dict(os.environ, PKG_CONFIG_PATH=":".join(folders))
        good, options = run("pkg-config", f"--define-variable=prefix={prefix}", "--cflags",
                            "--libs", "kvmstatd-handoff", env=env)
        yield good, "pkg-config"
        libdir = os.path.dirname(folders[0]) if folders else prefix
        static = [o if o != "-lkvmstatd-handoff" else "-l:libkvmstatd-handoff.a"
                  for o in options.split()] + ["-pthread"]
        for name, compiler, file, libs in [
            ("c, shared", cc, "consumer.c", options.split()),
            ("c, static", cc, "consumer.c", static),
            ("c++, shared", cxx, "consumer.cpp", options.split()),
            ("c++, static", cxx, "consumer.cpp", static),
        ]:
            program = os.path.join(prefix, "consumer")
            good, _ = run(compiler, *flags, "-o", program, os.path.join(source, file), *libs)
            if good:
                good, _ = run(program, env=dict(os.environ, LD_LIBRARY_PATH=libdir))
            yield good, name


def main():
    cmake, build, source, header, library, preload, cc, cxx, *flags = sys.argv[1:]
    results = list(check_symbols(header, library, preload))
    results += check_installed(cmake, build, source, cc, cxx, flags)
    for number, (good, what) in enumerate(results, 1):
        print(f"{'ok' if good else 'not ok'} {number} - {what}")
    print(f"1..{len(results)}")
    return 0 if all(good for good, _ in results) else 1


if __name__ == "__main__":
    sys.exit(main())
