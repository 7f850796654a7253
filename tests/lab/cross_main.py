# SPDX-License-Identifier: Apache-2.0
"""Cross-compiles the decoder, the store and the renderer for other architectures, and runs their unit,
property and fuzz corpus tests under QEMU's emulation of user programs.

For each architecture tests/run's own runner does the work. The last line is
`N passed, N failed, N skipped`, over all of them.
"""

import argparse
import os
import re
import subprocess
import sys

import archive
import cross_targets

COUNTS = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped$")


def run_target(target, build_root, extra):
    """(passed, failed, skipped) of one architecture. Its output is shown as it comes."""
    options = cross_targets.toolchain_options(target)
    sysroot = cross_targets.sysroot(target.name, options)
    definitions = [*options, f"-DKVMSTATD_SYSROOT={sysroot}", "-DKVMSTATD_DAEMON=OFF",
                   "-DKVMSTATD_WERROR=ON"]
    command = [sys.executable, "-B", os.path.join(cross_targets.ROOT, "tests/lib/run_tests.py"),
               "--build-dir", os.path.join(build_root, target.name), "--no-install", *extra,
               *definitions]
    counts = None
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          text=True) as runner:
        for line in runner.stdout:
            if found := COUNTS.match(line):
                counts = [int(n) for n in found.groups()]
            else:
                print(f"  {line}" if line.strip() else "", end="" if line.strip() else "\n",
                      flush=True)
    return counts or [0, 1, 0]


def parse_arguments():
    parser = argparse.ArgumentParser(prog="tests/lab/cross", description=__doc__.split("\n\n")[0],
                                     epilog="With KVMSTATD_REQUIRE_LAB=1 what is missing is a failure.")
    names = [target.name for target in cross_targets.TARGETS]
    parser.add_argument("arch", nargs="*", choices=[*names, []], metavar="ARCH",
                        help=f"of {', '.join(names)}; default: all")
    parser.add_argument("-k", "--match", metavar="REGEX", help="only programs whose name matches")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what passing ones print")
    parser.add_argument("--build-dir", default=os.path.join(cross_targets.ROOT, "build-cross"))
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    required = os.environ.get("KVMSTATD_REQUIRE_LAB") == "1"
    extra = (["-k", arguments.match] if arguments.match else []) + ["-v"] * arguments.verbose
    totals = [0, 0, 0]
    lines = []
    for target in cross_targets.TARGETS:
        if arguments.arch and target.name not in arguments.arch:
            continue
        print(f"{target.name}: {target.what}", flush=True)
        try:
            counts = run_target(target, os.path.abspath(arguments.build_dir), extra)
            said = "{} passed, {} failed, {} skipped".format(*counts)
        except archive.Unavailable as e:
            counts = [0, 1, 0] if required else [0, 0, 1]
            said = f"{'FAILED' if required else 'skipped'}: {e}"
        except cross_targets.Failed as e:
            counts, said = [0, 1, 0], f"FAILED: {e}"
        lines.append(f"{target.name:12} {target.what:24} {said}")
        totals = [a + b for a, b in zip(totals, counts)]
    print("\n" + "\n".join(lines))
    print("\n{} passed, {} failed, {} skipped".format(*totals), flush=True)
    return 1 if totals[1] else 0


if __name__ == "__main__":
    sys.exit(main())
