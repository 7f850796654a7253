#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""kvmstats_format_scaled() against Python's own exact arithmetic, for random and extreme values."""

import os
import random
import subprocess
import sys
import time
from fractions import Fraction

import built

LIMIT = 256
BASES = {0: 10, 1: 2}
RANDOM_CASES = 20000


def expected(raw, base, exponent):
    """The shortest exact decimal of raw * base^exponent."""
    value = Fraction(raw)
    if base in BASES and abs(exponent) <= LIMIT:
        value *= Fraction(BASES[base]) ** exponent
    whole, rest = divmod(value.numerator, value.denominator)
    digits = []
    while rest:
        digit, rest = divmod(rest * 10, value.denominator)
        digits.append(str(digit))
    return str(whole) + ("." + "".join(digits) if digits else "")


def extreme_cases():
    raws = {0, 2**64 - 1, 5**27, 10**19, 2**63, 10**9, 10**9 - 1, 10**18 - 1, 999, 1000, 1023}
    raws |= {2**k for k in range(0, 64, 7)} | {10**k - j for k in range(20) for j in (0, 1)}
    exponents = {0, 1, -1, -9, 9, 10, 18, -18, 19, -19, 20, -20, 63, 64, -63, -64, 65, -65}
    exponents |= {255, -255, 256, -256, 257, -257, 32767, -32768}
    return [(raw, base, e) for raw in sorted(raws) for base in (0, 1, 2, 15) for e in exponents]


def random_cases(rng):
    for _ in range(RANDOM_CASES):
        raw = rng.getrandbits(rng.randint(1, 64))
        if rng.random() < 0.3:
            raw = raw // 10 ** (k := rng.randint(0, 19)) * 10**k
        if rng.random() < 0.3:
            raw = raw >> (k := rng.randint(0, 63)) << k
        exponent = rng.randint(-LIMIT, LIMIT) if rng.random() < 0.5 else rng.randint(-25, 25)
        yield raw, rng.randint(0, 1), exponent


def main():
    seed = int(os.environ.get("KVMSTATD_TEST_SEED") or time.time_ns())
    print(f"# seed: KVMSTATD_TEST_SEED={seed}")
    program = built.command("tests", "kvmstats-decimals")
    failed = False
    groups = [("extreme", extreme_cases()), ("random", list(random_cases(random.Random(seed))))]
    for number, (name, cases) in enumerate(groups, 1):
        lines = "".join(f"{raw} {base} {exponent}\n" for raw, base, exponent in cases)
        run = subprocess.run(program, input=lines, capture_output=True, text=True, check=False)
        got = run.stdout.split("\n")[:-1]
        wrong = [(c, g) for c, g in zip(cases, got) if g != expected(*c)]
        good = run.returncode == 0 and len(got) == len(cases) and not wrong
        failed = failed or not good
        print(f"{'ok' if good else 'not ok'} {number} - {len(cases)} {name} values are exact")
        for case, decimal in wrong[:5]:
            print(f"# raw, base, exponent {case}: got {decimal}, expected {expected(*case)}")
        if run.returncode or len(got) != len(cases):
            print(f"# {len(got)} lines, status {run.returncode}: {run.stderr[:2000]!r}")
    print(f"1..{len(groups)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
