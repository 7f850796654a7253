#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The shared library exports the functions its header declares: all of them, and nothing else.

Usage: symbols.py HEADER LIBRARY
"""

import re
import subprocess
import sys


def main():
    header, library = sys.argv[1:]
    with open(header, encoding="utf-8") as file:
        text = re.sub(r"/\*.*?\*/", "", file.read(), flags=re.S)
    text = re.sub(r"static inline [^{;]*\{.*?\n\}", "", text, flags=re.S)
    declared = set(re.findall(r"\b(kvmstats_\w+)\([^;{]*\);", text))
    listing = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True,
                             text=True, check=True).stdout
    symbols = [(f[-2], *re.split("@+", f[-1])) for f in map(str.split, listing.splitlines())]
    exported = {name for kind, name, *_ in symbols if kind != "A"}
    versions = {name for kind, name, *_ in symbols if kind == "A"}
    soname = re.search(r"SONAME.*\[(.*)\]", subprocess.run(
        ["readelf", "-d", library], capture_output=True, text=True, check=True).stdout).group(1)
    checks = [
        (len(declared) > 10, f"the header declares {len(declared)} functions"),
        (exported == declared, f"exported and declared differ by {sorted(exported ^ declared)}"),
        (all(len(s) == 3 for s in symbols if s[0] != "A"), "every one has a version"),
        (versions == {"KVMSTATS_1"}, f"versions {sorted(versions)}"),
        (soname == "libkvmstats.so.1", f"soname {soname}"),
    ]
    for number, (good, what) in enumerate(checks, 1):
        print(f"{'ok' if good else 'not ok'} {number} - {what}")
    print(f"1..{len(checks)}")
    return 0 if all(good for good, _ in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
