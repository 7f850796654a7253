#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An installed libkvmstats is found by pkg-config and links, shared and static, C and C++.

Usage: install.py CMAKE BUILD SOURCE CC CXX [FLAG...]
"""

import os
import subprocess
import sys
import tempfile


def run(*args, **options):
    done = subprocess.run(args, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        print("\n".join(f"# {line}" for line in (done.stdout + done.stderr).splitlines()))
    return done.returncode == 0, done.stdout


def main():
    cmake, build, source, cc, cxx, *flags = sys.argv[1:]
    results = []
    with tempfile.TemporaryDirectory() as prefix:
        good, _ = run(cmake, "--install", build, "--component", "kvmstats", "--prefix", prefix)
        results.append((good, "install"))
        # Below the prefix the folder for libraries is the distribution's choice.
        folders = [d for d, _, files in os.walk(prefix) if "kvmstats.pc" in files]
        env = dict(os.environ, PKG_CONFIG_PATH=":".join(folders))
        good, options = run("pkg-config", f"--define-variable=prefix={prefix}", "--cflags",
                            "--libs", "kvmstats", env=env)
        results.append((good, "pkg-config"))
        libdir = os.path.dirname(folders[0]) if folders else prefix
        static = [o if o != "-lkvmstats" else "-l:libkvmstats.a" for o in options.split()]
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
            results.append((good, name))
    for number, (good, what) in enumerate(results, 1):
        print(f"{'ok' if good else 'not ok'} {number} - {what}")
    print(f"1..{len(results)}")
    return 0 if all(good for good, _ in results) else 1


if __name__ == "__main__":
    sys.exit(main())
