# SPDX-License-Identifier: Apache-2.0
"""Removed and purged: nothing is left, running, on disk or in the kernel."""

import contextlib
import os
import re
import socket

import kvmfd
import tap
from handing import whole
from machine import (CONFIGURATION, Service, comes_by, demo, given_once, kill, run, systemctl, t,
                     under_the_shim)

service = Service()
UNITS = ("kvmstatd.service", "kvmstatd-handoff.socket", "kvmstatd.socket")
OURS = ["kvmstatd", "kvmstatctl", "libkvmstatd-preload"]


def processes():
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if "kvmstat" in os.path.basename(os.readlink(f"/proc/{pid}/exe")):
                found.append(pid)
        except OSError:
            continue
    return found


def files():
    """Whatever is called or speaks of us; not what this test has brought along, nor dpkg's own books
    and the log, which remember."""
    found = run("find", "/", "-xdev", "(", "-path", "/opt", "-o", "-path", "/var/log", "-o", "-path",
                "/var/lib/dpkg", ")", "-prune", "-o", "-name", "*kvmstat*", "-print")
    found += run("find", "/run", "/sys/fs/cgroup", "-name", "*kvmstat*")
    found += run("grep", "-rl", "kvmstat", "/etc", "/var/lib/systemd", status=None)
    # The former versions that useradd and its like keep are not ours, nor is this test's own unit.
    return [f for f in found.splitlines() if not re.fullmatch("/etc/[a-z]+-", f)
            and os.path.basename(f) != "lab-tests.service"]


@contextlib.contextmanager
def connects_again():
    """A VMM that hands over its VM, and does it again whenever it can."""
    with under_the_shim():
        vmm = demo("connects again")
    with vmm:
        whole(service, "connects again", vmm.pid, 2)
        comes_by(service, "connects again", "handoff")
        yield vmm


def check_nobody_listens():
    with open("/proc/net/unix", encoding="utf-8") as f:
        tap.check("kvmstatd/" not in f.read(), "somebody listens at a Unix socket")
    with socket.socket() as s:
        tap.check(s.connect_ex(("127.0.0.1", 10177)) != 0, "somebody listens by TCP")


@t.test("removed while VMs are handed over: no process, no unit runs, nothing is pinned; its files stay")
def _():
    systemctl("stop", "kvmstatd-handoff.socket", "kvmstatd.service")
    systemctl("enable", "--now", "kvmstatd.socket")
    systemctl("start", "kvmstatd-handoff.socket")
    with given_once(service, lambda: demo("outlives it")) as once, connects_again() as again, \
            kvmfd.Uevents() as events:
        run("apt-get", "remove", "--yes", *OURS)
        tap.equal([p for p in processes() if int(p) not in (once.pid, again.pid)], [], "processes")
        tap.equal([service.show("ActiveState", unit) for unit in UNITS], ["inactive"] * 3, "units")
        tap.check(os.path.exists(CONFIGURATION), "the configuration went with it")
        check_nobody_listens()
        for vmm in (once, again):
            kill(vmm)
            events.wait("destroy", [vmm.pid])


@t.test("purged: nothing is left")
def _():
    run("apt-get", "purge", "--yes", OURS[0])  # the others have no configuration that had stayed
    tap.equal(files(), [], "files")
    for database in ("passwd", "group"):
        tap.equal(run("getent", database, "kvmstatd", status=2), "")
    for listing in ("list-unit-files", "list-units"):
        # That there are none it says by its exit status, too.
        tap.equal(systemctl(listing, "--all", "--plain", "--legend=no", "kvmstatd*", status=None), "",
                  listing)
    tap.equal(processes(), [])
