# SPDX-License-Identifier: Apache-2.0
"""The test helpers themselves: verdicts are told right, and nothing that was started stays."""

import os
import signal
import subprocess
import sys

import lab
import tap

t = tap.Tests()

VERDICTS = """
import tap
t = tap.Tests()

@t.test("good # one")
def _():
    tap.equal(1, 1)

@t.test("skipped")
def _():
    tap.skip("no\\nreason")

@t.test("bad")
def _():
    tap.equal("got", "wanted", "word")

t.main()
"""

NO_KVM = """
import os, tap
real = os.open
def refuse(path, *args, **kwargs):
    if path == "/dev/kvm":
        raise OSError(2, "No such file or directory")
    return real(path, *args, **kwargs)
os.open = refuse
t = tap.Tests()

@t.test("wants kvm")
def _():
    tap.require_kvm()

t.main()
"""

# Starts two VMs, tells their pids, and then does what the test wants to see the end of.
VMS = """
import os, signal, time, lab, tap
t = tap.Tests()

@t.test("vms")
def _():
    vms = lab.DemoVms(vms=2, load="idle")
    print("# pids", *(pid for _, pid in vms.vms), flush=True)
    {end}

t.main()
"""


def run_python(text, **env):
    """Run a test script; returns (exit status, lines)."""
    process = subprocess.run(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, timeout=lab.TIMEOUT_S,
        env={**os.environ, "PYTHONPATH": os.path.dirname(lab.__file__), **env})
    return process.returncode, process.stdout.splitlines()


@t.test("verdicts are told as TAP, and a failure by the exit status")
def _():
    status, lines = run_python(VERDICTS)
    tap.equal(status, 1, "exit status")
    verdicts = [line for line in lines if not line.startswith("#")]
    tap.equal(verdicts, ["ok 1 - good no. one", "ok 2 - skipped # SKIP no reason", "not ok 3 - bad",
                         "1..3"])
    tap.check(any("word: got 'got', expected 'wanted'" in line for line in lines), lines)


@t.test("a missing /dev/kvm is a skip, and a failure where it is required")
def _():
    status, lines = run_python(NO_KVM, KVMSTATD_REQUIRE_KVM="0")
    tap.equal(status, 0, "exit status")
    tap.check("ok 1 - wants kvm # SKIP /dev/kvm: No such file or directory" in lines, lines)
    status, lines = run_python(NO_KVM, KVMSTATD_REQUIRE_KVM="1")
    tap.equal(status, 1, "exit status")
    tap.check("not ok 1 - wants kvm" in lines, lines)


def check_vms_end(end, expected_status):
    tap.require_kvm()
    status, lines = run_python(VMS.replace("{end}", end))
    tap.equal(status, expected_status, "exit status")
    pids = [line.split()[2:] for line in lines if line.startswith("# pids")][0]
    tap.equal(len(pids), 2, "number of VMs")
    for pid in pids:
        tap.wait_for(lambda pid=pid: not os.path.exists(f"/proc/{pid}"), what=f"end of VM {pid}")


@t.test("VMs end with a test that fails")
def _():
    check_vms_end("raise AssertionError('as wished')", 1)


@t.test("VMs end with a test that is terminated")
def _():
    check_vms_end("os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", 128 + signal.SIGTERM)


@t.test("VMs end with a test that is killed")
def _():
    check_vms_end("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL)


@t.test("demo VMs tell their names, pids and counts")
def _():
    tap.require_kvm()
    with lab.DemoVms(vms=2, vcpus=2, name="a vcpu b", load="io", args=["--rounds", "20"]) as vms:
        tap.equal(sorted(name for name, _ in vms.vms), ["a vcpu b-0", "a vcpu b-1"])
        counts = tap.wait_for(
            lambda: (c := vms.counts()) and all(v["io"] == 21 for v in c.values()) and c)
        tap.equal(sorted(counts), [(f"a vcpu b-{vm}", vcpu) for vm in (0, 1) for vcpu in (0, 1)])
        tap.equal(vms.stop(), 0, "exit status")
    with lab.DemoVms(name=None, load="idle") as vms:
        tap.equal([name for name, _ in vms.vms], ["-"])
        tap.equal(vms.vms[0][1], vms.pid, "pid of a single VM")


@t.test("a QEMU guest has its vCPUs once constructed, and ends")
def _():
    with lab.Qemu("a,b", vcpus=2) as qemu:
        links = lab.fd_links(qemu.pid)
        tap.check("anon_inode:kvm-vcpu:1" in links, links)
    tap.check(not qemu.running(), "QEMU still runs")


t.main()
