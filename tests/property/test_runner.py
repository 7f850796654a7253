# SPDX-License-Identifier: Apache-2.0
"""tests/run itself: what it counts, and what it does not let pass as a success."""

import os
import subprocess
import tempfile
from pathlib import Path

import run_tests
import tap

t = tap.Tests()


def judged(text, status=0):
    program = run_tests.Program("p", [], [], 1, {}, "/")
    outcome = run_tests.Outcome(program)
    run_tests.judge(text, status, outcome)
    return outcome


def counts(outcome):
    return outcome.passed, outcome.failed, len(outcome.skips)


def ran(script, timeout=60.0, sanitize=""):
    """The outcome of a shell script run as a test program."""
    with tempfile.TemporaryDirectory() as folder:
        runner = run_tests.Runner(Path(folder), sanitize, False, False)
        program = run_tests.Program("p", ["/bin/sh", "-c", script], ["unit"], timeout, {}, "/")
        return runner.run(program)


@t.test("results are counted, the plan first or last")
def _():
    tap.equal(counts(judged("1..2\nok 1 - a\nok 2 - b\n")), (2, 0, 0))
    tap.equal(counts(judged("ok 1 - a\nnot ok 2 - b\n# why\n1..2\n", 1)), (1, 1, 0))


@t.test("a skip is neither passed nor failed, and keeps its reason")
def _():
    outcome = judged("ok 1 - a # SKIP no /dev/kvm\nok 2 - b\n1..2\n")
    tap.equal(counts(outcome), (1, 0, 1))
    tap.equal(outcome.skips, ["a: no /dev/kvm"])
    outcome = judged("1..2\nok 1 - f.c:core:a: Passed\nok 2 - f.c:core:b: Passed\n# SKIPPED no kvm\n")
    tap.equal(counts(outcome), (1, 0, 1))
    tap.equal(outcome.skips, ["no kvm"])
    tap.equal(counts(judged("1..0 # SKIP not this machine\n")), (0, 0, 1))


@t.test("a failure that says skip is a failure")
def _():
    tap.equal(counts(judged("not ok 1 - a # SKIP no\n1..1\n", 1)), (0, 1, 0))


@t.test("no plan, a broken plan, no test at all: each is a failure")
def _():
    tap.equal(counts(judged("")), (0, 1, 0))
    tap.equal(counts(judged("ok 1 - a\n")), (1, 1, 0))
    tap.equal(counts(judged("1..3\nok 1 - a\n")), (1, 1, 0))
    tap.equal(counts(judged("1..0\n")), (0, 1, 0))


@t.test("a program that passes everything and exits badly has failed")
def _():
    tap.equal(counts(judged("ok 1 - a\n1..1\n", 3)), (1, 1, 0))
    tap.equal(counts(judged("ok 1 - a\n1..1\n", -11)), (1, 1, 0))


@t.test("a program that does not end is ended with its children, and has failed")
def _():
    outcome = ran("trap '' TERM; echo 1..1; echo ok 1 - a; sleep 1000 & echo $! >&2; wait", 3)
    tap.equal(counts(outcome), (1, 1, 0))
    child = Path("/proc", outcome.errors.split()[0], "stat")
    tap.check(not child.exists() or ") Z " in child.read_text(), "its child still runs")


@t.test("a process left behind is killed and is a failure")
def _():
    outcome = ran("echo 1..1; echo ok 1 - a; setsid sleep 1000 >/dev/null 2>&1 &")
    tap.equal(counts(outcome), (1, 1, 0))
    tap.check("left 1 process(es) behind" in outcome.troubles, outcome.troubles)


@t.test("a process is found at any moment, also while it becomes another program")
def _():
    mark = f"KVMSTATD_TEST_RUN={os.getpid()}.becoming"
    words = ["/bin/sh", "-c", 'exec /bin/sh -c "$0" "$0"', 'exec /bin/sh -c "$0" "$0"']
    with subprocess.Popen(words, env=dict([mark.split("=")])) as process:
        try:
            seen = [run_tests.marked_processes(mark) for _ in range(300)]
        finally:
            process.kill()
    tap.equal([pids for pids in seen if pids != [process.pid]], [])


@t.test("a sanitizer's report from any process is a failure")
def _():
    script = r"""log=${ASAN_OPTIONS##*log_path=}; echo report >"$log.123"; echo ok 1 - a; echo 1..1"""
    tap.equal(counts(ran(script, sanitize="address,undefined")), (1, 1, 0))
    tap.equal(counts(ran("echo ok 1 - a; echo 1..1", sanitize="address,undefined")), (1, 0, 0))


@t.test("what cannot be started has failed")
def _():
    with tempfile.TemporaryDirectory() as folder:
        runner = run_tests.Runner(Path(folder), "", False, False)
        outcome = runner.run(run_tests.Program("p", ["/nonexistent"], ["unit"], 1, {}, "/"))
        tap.equal(counts(outcome), (0, 1, 0))


t.main()
