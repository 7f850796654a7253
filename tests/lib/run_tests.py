#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Builds kvmstatd and runs its tests, which CTest lists and which each print TAP.

CTest knows a program's command, time limit, environment and kind, but it counts programs, takes
exit status 0 for "passed" even where nothing ran, and shows no skip's reason. So it is asked for
the list only; running and counting is done here. What counts as a failure besides `not ok`: a plan
that is missing or not kept, a program that ran nothing, died, ran out of time, left processes
behind, or whose sanitizers reported anything from any of its processes.

The last line is `N passed, N failed, N skipped`; exit status 1 when anything failed.
"""

import argparse
import concurrent.futures
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Cheap first. Programs of a parallel kind share nothing but the CPU; the others own the machine.
KINDS = ["unit", "property", "fuzz", "integration", "system", "e2e"]
PARALLEL_KINDS = {"unit", "property", "fuzz"}
JOBS_MAX = 4
BUILD_FOLDERS = {
    "": "build-tests",
    "address,undefined": "build-tests-asan",
    "thread": "build-tests-tsan",
}
TIMEOUT_DEFAULT = 300.0
# A sanitized program is several times slower, the thread sanitizer's most of all.
TIMEOUT_FACTOR = {"": 1, "address,undefined": 3, "thread": 4}
TERM_GRACE = 5.0
LEFTOVER_GRACE = 2.0  # seconds in which a program's dying children may still be seen
MARKED_PASSES_MAX = 20
EXEC_SECONDS = 1.0  # how long an execve() may take to give a process its environment
PF_KTHREAD = 0x00200000  # <linux/sched.h>
SHOWN_LINES_MAX = 120

PLAN = re.compile(r"^1\.\.(\d+)(?:\s*#\s*skip\S*\s*(.*))?$", re.IGNORECASE)
RESULT = re.compile(r"^(not )?ok\b\s*(\d+)?\s*(?:-\s*)?(.*)$")
DIRECTIVE = re.compile(r"\s#\s*(skip|todo)\S*\s*(.*)$", re.IGNORECASE)
PROGRESS = re.compile(r"^\[\s*\d+[/%]")  # Ninja's and make's
# libcheck has no word for a skipped test: its `ok` line is followed by this (tests/lib/testing.c).
C_SKIP = re.compile(r"^# SKIPPED\s*(.*)$")


@dataclass
class Program:
    name: str
    command: list
    labels: list
    timeout: float
    environment: dict
    directory: str

    @property
    def kind(self):
        return next((kind for kind in KINDS if kind in self.labels), "e2e")


@dataclass
class Outcome:
    program: Program
    passed: int = 0
    failed: int = 0
    skips: list = field(default_factory=list)  # reasons
    troubles: list = field(default_factory=list)  # what failed besides `not ok` lines
    seconds: float = 0.0
    output: str = ""
    errors: str = ""
    reports: str = ""  # of the sanitizers

    def trouble(self, text):
        self.troubles.append(text)
        self.failed += 1


def read_tap(text, outcome):
    """Counts one program's results. Returns (planned, seen); planned is None without a plan."""
    planned, seen = None, 0
    for line in text.splitlines():
        if plan := PLAN.match(line):
            planned = int(plan[1])
            if planned == 0 and plan[2] is not None:
                outcome.skips.append(plan[2] or "no reason given")
        elif result := RESULT.match(line):
            seen += 1
            directive = DIRECTIVE.search(line)
            if directive and directive[1].lower() == "skip" and not result[1]:
                outcome.skips.append(f"{DIRECTIVE.sub('', result[3])}: {directive[2]}")
            elif result[1]:
                outcome.failed += 1
            else:
                outcome.passed += 1
        elif skip := C_SKIP.match(line):
            outcome.passed -= 1
            outcome.skips.append(skip[1] or "no reason given")
    return planned, seen


def judge(text, status, outcome):
    """Fills an outcome from a program's standard output and exit status (None: killed by us)."""
    planned, seen = read_tap(text, outcome)
    if status is not None:
        if planned is None:
            outcome.trouble("no TAP plan: it died early or is no test program")
        elif planned != seen:
            outcome.trouble(f"{seen} results where {planned} were planned")
        elif planned == 0 and not outcome.skips:
            outcome.trouble("it ran no test")
        if status < 0:
            outcome.trouble(f"killed by {signal.Signals(-status).name}")
        elif status > 0 and outcome.failed == 0:
            outcome.trouble(f"exit status {status} though no test failed")


def _is_becoming_another(pid):
    """Whether a process without environment is one whose execve() is under way: its new memory has
    neither arguments nor environment yet. Zombies and kernel threads have none for ever."""
    try:
        if Path("/proc", pid, "cmdline").read_bytes():
            return False
        fields = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] not in "ZX" and not int(fields[6]) & PF_KTHREAD


def _environment_of(pid):
    """What a process was started with, or None if there is no such process (any more)."""
    file = Path("/proc", pid, "environ")
    deadline = time.monotonic() + EXEC_SECONDS
    try:
        while not (environment := file.read_bytes()):
            if not _is_becoming_another(pid) or time.monotonic() > deadline:
                environment = file.read_bytes()  # it may have become one since
                break
            time.sleep(0.001)
    except OSError:
        return None
    return environment.split(b"\0")


def marked_processes(mark):
    """Pids of the processes that have `mark` in the environment they were started with: a test
    program and all its descendants, whatever session they went to. Zombies have none."""
    for _ in range(MARKED_PASSES_MAX):
        pids = [entry for entry in os.listdir("/proc") if entry.isdigit()]
        environments = {pid: _environment_of(pid) for pid in pids}
        found = [int(pid) for pid, words in environments.items() if words and mark.encode() in words]
        # One that ended between the list and the look may have left a child that is not listed.
        if found or None not in environments.values():
            break
    return found


def end_marked(mark, grace=0.0):
    """Kills those that are still there after the grace. Returns how many that were."""
    deadline = time.monotonic() + grace
    while (members := marked_processes(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    killed = len(members)
    while members:
        for pid in members:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)
        members = marked_processes(mark)
    return killed


class Runner:
    def __init__(self, build, sanitize, seccomp, verbose):
        self.build = build
        self.sanitize = sanitize
        self.verbose = verbose
        self.output = build / "test-output"
        self.prefix = self.no_randomisation() if sanitize == "thread" else []
        self.lock = threading.Lock()
        shutil.rmtree(self.output, ignore_errors=True)
        self.output.mkdir(parents=True)
        self.confined = self.make_confined() if seccomp else None

    def make_confined(self):
        """A program that becomes the daemon under the system call filter of the unit."""
        os.environ.setdefault("KVMSTATD_BUILD", str(self.build))
        import confined  # pylint: disable=import-outside-toplevel

        folder = self.output / "confined"
        folder.mkdir()
        confined.write_filter(folder / "calls")
        script = folder / "kvmstatd"
        launcher = confined.launcher()
        script.write_text(
            f'#!/bin/sh\nexec {launcher} {folder}/calls {self.build}/bin/kvmstatd "$@"\n'
        )
        folder.chmod(0o755)
        script.chmod(0o755)
        return script

    @staticmethod
    def no_randomisation():
        """The thread sanitizer's shadow memory needs addresses that a kernel with many bits of
        randomisation does not give; containers may forbid turning it off, older kernels don't
        need to."""
        prefix = ["setarch", "-R"]
        tried = subprocess.run([*prefix, "true"], capture_output=True, check=False)
        return prefix if tried.returncode == 0 else []

    def environment(self, program, mark):
        env = dict(os.environ, **program.environment)
        env.update([mark.split("=", 1)])
        if self.confined:
            env["KVMSTATD_CONFINED"] = str(self.confined)
        # libcheck's own limit, 4 s a test, is for an idle machine; the program's stands anyway.
        env.setdefault("CK_TIMEOUT_MULTIPLIER", "15" if self.sanitize else "5")
        if self.sanitize:
            env["KVMSTATD_SANITIZE"] = self.sanitize
            env.setdefault("KVMSTATD_TEST_TIMEOUT", "240")  # of tests/lib/lab.py
            reports = f"log_path={self.output / (program.name + '.sanitizer')}"
            suppressions = ROOT / "tests" / "lib" / "tsan.supp"
            env["ASAN_OPTIONS"] = (
                f"detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1:{reports}"
            )
            env["UBSAN_OPTIONS"] = f"print_stacktrace=1:halt_on_error=1:{reports}"
            env["TSAN_OPTIONS"] = f"second_deadlock_stack=1:{reports}"
            if suppressions.exists():
                env["TSAN_OPTIONS"] += f":suppressions={suppressions}"
        return env

    @staticmethod
    def give_up(process, mark):
        """A test that hangs may still end what it started; then nobody is asked."""
        process.terminate()
        try:
            process.wait(TERM_GRACE)
        except subprocess.TimeoutExpired:
            pass
        end_marked(mark)
        process.wait()

    def run(self, program):
        outcome = Outcome(program)
        out_path = self.output / f"{program.name}.out"
        err_path = self.output / f"{program.name}.err"
        limit = program.timeout * TIMEOUT_FACTOR[self.sanitize]
        mark = f"KVMSTATD_TEST_RUN={os.getpid()}.{time.monotonic_ns()}.{program.name}"
        begin = time.monotonic()
        status = None
        # Files, not pipes: a daemon that a test left behind must not keep us waiting.
        with open(out_path, "wb") as out, open(err_path, "wb") as err:
            try:
                process = subprocess.Popen(
                    self.prefix + program.command,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    cwd=program.directory,
                    env=self.environment(program, mark),
                    start_new_session=True,
                )
            except OSError as error:
                outcome.trouble(f"cannot be started: {error}")
                return outcome
            try:
                status = process.wait(limit)
                leftovers = end_marked(mark, LEFTOVER_GRACE)
            except subprocess.TimeoutExpired:
                self.give_up(process, mark)
                leftovers = 0
                outcome.trouble(f"still running after {limit:.0f} s: ended")
            except BaseException:
                self.give_up(process, mark)
                raise
        outcome.seconds = time.monotonic() - begin
        outcome.output = out_path.read_text(errors="replace")
        outcome.errors = err_path.read_text(errors="replace")
        judge(outcome.output, status, outcome)
        if leftovers:
            outcome.trouble(f"left {leftovers} process(es) behind")
        reports = sorted(self.output.glob(f"{program.name}.sanitizer.*"))
        if reports:
            outcome.trouble(f"{len(reports)} process(es) had sanitizer reports")
            outcome.reports = "".join(path.read_text(errors="replace") for path in reports)
        return outcome

    def tell(self, outcome):
        words = [f"{outcome.passed} passed"]
        if outcome.failed:
            words.append(f"{outcome.failed} FAILED")
        if outcome.skips:
            words.append(f"{len(outcome.skips)} skipped")
        mark = "FAIL" if outcome.failed else "ok"
        with self.lock:
            name, seconds = outcome.program.name, outcome.seconds
            print(f"{mark:4} {name:32} {seconds:6.1f} s  {', '.join(words)}")
            for trouble in outcome.troubles:
                print(f"       {trouble}")
            if outcome.failed or self.verbose:
                self.show("standard output", outcome.output)
                self.show("standard error", outcome.errors)
                self.show("sanitizer reports", outcome.reports)
            sys.stdout.flush()

    @staticmethod
    def show(title, text):
        lines = text.splitlines()
        if not lines:
            return
        if len(lines) > SHOWN_LINES_MAX:
            # What failed, and how it ended: the rest is in the file.
            telling = [line for line in lines if line.startswith(("not ok", "#"))]
            lines = telling[:SHOWN_LINES_MAX] + ["…"] + lines[-SHOWN_LINES_MAX // 2 :]
        print(f"       --- {title}")
        for line in lines:
            print(f"       {line}")

    def run_all(self, programs):
        outcomes = []

        def one(program):
            outcome = self.run(program)
            self.tell(outcome)
            outcomes.append(outcome)

        parallel = [program for program in programs if program.kind in PARALLEL_KINDS]
        serial = [program for program in programs if program.kind not in PARALLEL_KINDS]
        jobs = min(JOBS_MAX, os.cpu_count() or 1)
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            for done in concurrent.futures.as_completed([pool.submit(one, p) for p in parallel]):
                done.result()
        for program in serial:
            one(program)
        return outcomes


def listed_programs(build):
    listing = subprocess.run(
        ["ctest", "--test-dir", str(build), "--show-only=json-v1"],
        check=True,
        capture_output=True,
        text=True,
    )
    programs = []
    for test in json.loads(listing.stdout)["tests"]:
        properties = {entry["name"]: entry["value"] for entry in test.get("properties", [])}
        programs.append(
            Program(
                name=test["name"],
                command=test.get("command", [test["name"] + " (not built)"]),
                labels=properties.get("LABELS", []),
                timeout=float(properties.get("TIMEOUT", TIMEOUT_DEFAULT)),
                environment=dict(e.split("=", 1) for e in properties.get("ENVIRONMENT", [])),
                directory=properties.get("WORKING_DIRECTORY", str(build)),
            )
        )
    return sorted(programs, key=lambda p: (KINDS.index(p.kind), p.name))


def build_tree(build, sanitize, definitions):
    """Configures and builds. Returns "" or what went wrong."""
    configure = ["cmake", "-S", str(ROOT), "-B", str(build), "-DKVMSTATD_TESTS=ON"]
    if not (build / "CMakeCache.txt").exists() and shutil.which("ninja"):
        configure += ["-G", "Ninja"]
    configure += [f"-DKVMSTATD_SANITIZE={sanitize}", "-DCMAKE_BUILD_TYPE=RelWithDebInfo"]
    # CMake's own flags for this type turn assert() off.
    configure += [f"-DCMAKE_{language}_FLAGS_RELWITHDEBINFO=-O2 -g" for language in ("C", "CXX")]
    configure += [f"-D{definition}" for definition in definitions]
    compile_ = ["cmake", "--build", str(build), "--parallel", str(os.cpu_count() or 1)]
    for command in (configure, compile_):
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            said = [line for line in done.stdout.splitlines() if not PROGRESS.match(line)]
            return "\n".join([*said[-200:], f"{' '.join(command)}: exit status {done.returncode}"])
    return ""


def parse_arguments():
    parser = argparse.ArgumentParser(
        prog="tests/run",
        description="Installs what is missing, builds, and runs all tests of this machine's kind.",
        epilog="Environment: KVMSTATD_REQUIRE_KVM=1 makes a missing /dev/kvm a failure; "
        "KVMSTATD_TEST_SEED=N repeats a randomised test.",
    )
    add = parser.add_argument
    add("-l", "--label", action="append", choices=KINDS, help="only this kind (may be repeated)")
    add("-k", "--match", metavar="REGEX", help="only programs whose name matches")
    add("--sanitize", default="", choices=list(BUILD_FOLDERS)[1:], help="build and run so")
    add("--seccomp", action="store_true", help="the system tests, the daemon under its unit's filter")
    add("--build-dir", type=Path, help="default: " + ", ".join(BUILD_FOLDERS.values()))
    add("-D", dest="definitions", action="append", default=[], metavar="NAME=VALUE", help="CMake")
    add("--no-install", action="store_true", help="install no packages")
    add("--list", action="store_true", help="build, name the test programs, run none")
    add("-v", "--verbose", action="store_true", help="show what passing programs print, too")
    arguments = parser.parse_args()
    if arguments.seccomp:
        arguments.label = arguments.label or ["system"]
    if arguments.build_dir is None:
        arguments.build_dir = ROOT / BUILD_FOLDERS[arguments.sanitize]
    arguments.build_dir = arguments.build_dir.resolve()
    return arguments


def summary(outcomes):
    skips = [(outcome.program.name, reason) for outcome in outcomes for reason in outcome.skips]
    if skips:
        print("\nSkipped:")
        for name, reason in skips:
            print(f"  {name}: {reason}")
    bad = [outcome.program.name for outcome in outcomes if outcome.failed]
    if bad:
        print("\nFailed: " + " ".join(bad))
    passed = sum(outcome.passed for outcome in outcomes)
    failed = sum(outcome.failed for outcome in outcomes)
    return passed, failed, len(skips)


def finish(passed, failed, skipped):
    print(f"\n{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if failed else 0


def main():
    arguments = parse_arguments()
    print(f"building in {arguments.build_dir}", flush=True)
    if problem := build_tree(arguments.build_dir, arguments.sanitize, arguments.definitions):
        print(problem)
        return finish(0, 1, 0)
    programs = [
        program
        for program in listed_programs(arguments.build_dir)
        if (not arguments.label or program.kind in arguments.label)
        and (not arguments.match or re.search(arguments.match, program.name))
    ]
    if arguments.list:
        for program in programs:
            print(f"{program.kind:12} {program.name}")
        return 0
    if not programs:
        print("no test program matches")
        return finish(0, 1, 0)

    lacking = 0
    required = os.environ.get("KVMSTATD_REQUIRE_KVM") == "1"
    if required and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        print("FAIL /dev/kvm cannot be opened, and KVMSTATD_REQUIRE_KVM=1")
        lacking = 1
    runner = Runner(
        arguments.build_dir, arguments.sanitize, arguments.seccomp, arguments.verbose
    )
    try:
        outcomes = runner.run_all(programs)
    except KeyboardInterrupt:
        print("\ninterrupted")
        return 130
    passed, failed, skipped = summary(outcomes)
    return finish(passed, failed + lacking, skipped)


if __name__ == "__main__":
    sys.exit(main())
