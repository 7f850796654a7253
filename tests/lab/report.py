# SPDX-License-Identifier: Apache-2.0
"""What the lab has proved: results as JSON, and the table of the README that is made from them."""

import json
import os
import re

import machines

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COMMITTED = os.path.join(SOURCE, "tests/lab/results.json")
README = os.path.join(SOURCE, "README.md")
BEGIN = "<!-- tests/lab/run --table writes this -->"
END = "<!-- until here -->"


def load(path=COMMITTED):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def save(results, path):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(results, f, indent=1)
        f.write("\n")


def _row(result):
    sources = ", ".join(f"`{s}`" for s in result["sources"]) or "none"
    return (f"| {result['architecture']} | {result['release']} | {sources} "
            f"| {result['vm_stats']} / {result['vcpu_stats']} "
            f"| `tests/lab/run {result['kernel']}` |")


def table(results):
    return "\n".join(("| architecture | kernel | read by | statistics of a VM / vCPU | proved by |",
                      "| --- | --- | --- | --- | --- |", *(_row(r) for r in results)))


def _block(text):
    match = re.search(f"{re.escape(BEGIN)}\n(.*?){re.escape(END)}", text, re.S)
    if not match:
        raise ValueError(f"README.md has no place for the table, between {BEGIN!r} and {END!r}")
    return match


def written_table():
    """The table as the README has it."""
    with open(README, encoding="utf-8") as f:
        return _block(f.read())[1].strip()


def missing(results):
    """Kernels of the lab that are not among the results, or of which something was not proved."""
    good = {r["kernel"] for r in results if r["passed"] and not r["failed"]}
    return [k.name for k in machines.KERNELS if k.name not in good]


def write_table(results):
    save(results, COMMITTED)
    with open(README, encoding="utf-8") as f:
        text = f.read()
    match = _block(text)
    text = text[:match.start()] + f"{BEGIN}\n{table(results)}\n{END}" + text[match.end():]
    with open(README, "w", encoding="utf-8") as f:
        f.write(text)
