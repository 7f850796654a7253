# SPDX-License-Identifier: Apache-2.0
"""TAP on standard output for tests written in Python.

    import tap
    t = tap.Tests()

    @t.test("a scrape answers 200")
    def _():
        tap.require_kvm()
        tap.equal(get("/metrics").status, 200)

    t.main()

Each test prints `ok N - name`, `ok N - name # SKIP reason` or `not ok N - name` with its traceback as
diagnostics; the plan comes last. Words on the command line choose the tests whose names contain one
of them. Randomised tests take their numbers from Tests.random, whose seed is printed and taken back
from KVMSTATD_TEST_SEED.

What is dear to start and does not suffer from being looked at may be shared: enter it into
Tests.shared, which is left when all tests are done.
"""

import contextlib
import os
import random
import sys
import time
import traceback


# A safety net for everything that is waited for; sanitizer builds on busy machines are slow.
TIMEOUT_S = float(os.environ.get("KVMSTATD_TEST_TIMEOUT", "60"))


class Skip(Exception):
    """Raised by skip(): the test could not run here, and says why."""


def skip(reason):
    """End the running test as skipped."""
    raise Skip(reason)


def kvm_is_required():
    return os.environ.get("KVMSTATD_REQUIRE_KVM") == "1"


def require_kvm():
    """Skip where /dev/kvm cannot be used; with KVMSTATD_REQUIRE_KVM=1 that is a failure."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as e:
        if kvm_is_required():
            raise AssertionError(f"KVMSTATD_REQUIRE_KVM=1, but /dev/kvm: {e.strerror}") from e
        skip(f"/dev/kvm: {e.strerror}")


def require_root():
    if os.geteuid() != 0:
        skip("needs root")


def require_tool(name):
    """The path of a program; skips where it is not installed."""
    for folder in os.environ.get("PATH", "").split(":") + ["/usr/sbin", "/sbin"]:
        path = os.path.join(folder, name)
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
    return skip(f"{name} is not installed")


def check(condition, message="condition does not hold"):
    if not condition:
        raise AssertionError(message)


def equal(actual, expected, what="value"):
    if actual != expected:
        got, wanted = (v if len(v) < 2000 else v[:2000] + "…" for v in (repr(actual), repr(expected)))
        raise AssertionError(f"{what}: got {got}, expected {wanted}")


def between(low, value, high, what="value"):
    if not low <= value <= high:
        raise AssertionError(f"{what}: {value!r} is not within [{low!r}, {high!r}]")


def wait_for(condition, timeout_s=TIMEOUT_S, every_s=0.05, what="what the test waits for"):
    """Poll until condition() is true and return its value. The timeout is a safety net, no bar."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: nothing came in {timeout_s} s")
        time.sleep(every_s)


class Tests:
    """The tests of one file, in the order in which they were declared."""

    def __init__(self):
        self.tests = []
        seed = os.environ.get("KVMSTATD_TEST_SEED")
        self.seed = int(seed, 0) if seed else random.SystemRandom().getrandbits(32)
        self.random = random.Random(self.seed)
        self.shared = contextlib.ExitStack()

    def test(self, name=None):
        """Decorator: collects a test function; its name is the given text, else the function's."""

        def collect(function):
            self.tests.append((name or function.__name__.replace("_", " "), function))
            return function

        return collect

    def _run_one(self, number, name, function):
        try:
            function()
        except Skip as e:
            reason = " ".join(str(e).split())
            print(f"ok {number} - {name} # SKIP {reason}", flush=True)
            return True
        except Exception:
            print(f"not ok {number} - {name}")
            for line in traceback.format_exc().rstrip().split("\n"):
                print(f"#   {line}")
            sys.stdout.flush()
            return False
        print(f"ok {number} - {name}", flush=True)
        return True

    def run(self, words=()):
        """Run them; returns the process's exit status."""
        chosen = [(n, f) for n, f in self.tests if not words or any(w in n for w in words)]
        print(f"# seed: KVMSTATD_TEST_SEED={self.seed}", flush=True)
        failed = 0
        with self.shared:
            for number, (name, function) in enumerate(chosen, 1):
                failed += not self._run_one(number, name.replace("#", "no."), function)
        print(f"1..{len(chosen)}", flush=True)
        return 1 if failed or not chosen else 0

    def main(self):
        sys.exit(self.run(sys.argv[1:]))
