# SPDX-License-Identifier: Apache-2.0
"""Removed and purged: nothing is left, running, on disk or in the kernel."""

import os
import re

import kvmfd
import tap
from machine import (CONFIGURATION, Service, demo, given_once, kill, run, systemctl, t)

service = Service()
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


@t.test("removed while VMs are handed over: no process, no unit runs, nothing is pinned; its files stay")
def _():
    with given_once(service, lambda: demo("outlives it")) as vmm, kvmfd.Uevents() as events:
        run("apt-get", "remove", "--yes", *OURS)
        tap.equal([p for p in processes() if int(p) != vmm.pid], [], "processes")
        tap.check(os.path.exists(CONFIGURATION), "the configuration went with it")
        kill(vmm)
        events.wait("destroy", [vmm.pid])
    with open("/proc/net/unix", encoding="utf-8") as f:
        tap.check("kvmstatd/" not in f.read(), "somebody listens")


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
