# SPDX-License-Identifier: Apache-2.0
"""The systemd units by themselves, as systemd's offline tools see them."""

import os
import re
import subprocess

import lab
import tap
import units

t = tap.Tests()
TIGHTER = {None: 2.0, "borrow-only": 1.4, "handoff-only": 0.8}


@t.test("systemd-analyze security: the shipped unit, and with each of the tighter ways of running")
def _():
    for dropin, bar in TIGHTER.items():
        tap.between(0, units.exposure(dropin), bar, dropin or "kvmstatd.service")


@t.test("every setting and system call that the units name is one that systemd knows")
def _():
    tool = tap.require_tool("systemd-analyze")
    for dropin in TIGHTER:
        with units.installed(dropin) as root:
            for unit in ("kvmstatd.service", "kvmstatd.socket", "kvmstatd-handoff.socket"):
                done = subprocess.run([tool, "verify", "--man=no", f"--root={root}", unit],
                                      capture_output=True, text=True, check=False)
                # There is nothing else in that root: no targets.
                said = [line for line in done.stderr.splitlines()
                        if not re.search(r"Unit \S+\.target not found", line)]
                tap.equal(said, [], f"{unit} with {dropin}")


@t.test("the tighter ways have fewer capabilities, and not the system calls that go with them")
def _():
    tap.equal(units.capabilities(), ["sys_ptrace", "bpf", "perfmon"])
    tap.equal(units.capabilities("borrow-only"), ["sys_ptrace"])
    tap.equal(units.capabilities("handoff-only"), [])
    for dropin in TIGHTER:
        merged = units.settings(dropin)
        tap.equal(merged.get("AmbientCapabilities", []), merged.get("CapabilityBoundingSet", []))
        tap.check("bpf" not in units.allowed_calls(dropin) or dropin is None, f"{dropin} may call bpf()")
    tap.check("pidfd_getfd" not in units.allowed_calls("handoff-only"))


@t.test("the configurations that go with the tighter ways are valid")
def _():
    for dropin in filter(None, TIGHTER):
        path = os.path.join(units.FOLDER, "tighter", f"{dropin}.yaml")
        done = subprocess.run([lab.program("kvmstatd"), "--config", path, "--check-config"],
                              capture_output=True, text=True, check=False)
        tap.equal(done.returncode, 0, done.stderr)


@t.test("sysusers.d and tmpfiles.d make the user, its groups and the folder")
def _():
    sysusers, tmpfiles = tap.require_tool("systemd-sysusers"), tap.require_tool("systemd-tmpfiles")
    tap.require_root()
    with units.installed() as root:
        with open(f"{units.FOLDER}/kvmstatd.sysusers", "rb") as f:
            subprocess.run([sysusers, f"--root={root}", "-"], stdin=f, check=True, capture_output=True)
        with open(f"{root}/etc/passwd", encoding="utf-8") as f:
            passwd = re.search(r"^kvmstatd:[^:]*:(\d+):(\d+):[^:]*:/nonexistent:/usr/sbin/nologin$",
                               f.read(), re.M)
        tap.check(passwd, "no user, or one that can log in")
        with open(f"{root}/etc/group", encoding="utf-8") as f:
            tap.check(re.search(r"^kvm:[^:]*:\d+:kvmstatd$", f.read(), re.M), "not in group kvm")
        with open(f"{units.FOLDER}/kvmstatd.tmpfiles", "rb") as f:
            subprocess.run([tmpfiles, "--create", f"--root={root}", "-"], stdin=f, check=True,
                           capture_output=True)
        made = os.stat(f"{root}/run/kvmstatd")
        tap.equal((made.st_uid, made.st_gid, made.st_mode & 0o7777),
                  (int(passwd[1]), int(passwd[2]), 0o755))


t.main()
