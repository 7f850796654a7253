# SPDX-License-Identifier: Apache-2.0
"""The packages install, and what they have started is in its sandbox."""

import glob
import os
import stat

import tap
from machine import (HANDOFF_SOCKET, Journal, OF_PTRACE, PACKAGES, Service, bits, check_exposure,
                     check_threads, run, systemctl, t)

service = Service()


@t.test("apt installs the packages; the maintainer scripts make user and folders")
def _():
    journal = Journal()
    tap.equal(run("id", "kvmstatd", status=1), "id: ‘kvmstatd’: no such user\n")
    run("apt-get", "install", "--yes", *sorted(glob.glob(f"{PACKAGES}/*.deb")),
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    tap.check("kvm" in run("id", "-Gn", "kvmstatd").split(), "the user is not in group kvm")
    for path, mode in (("/run/kvmstatd", 0o755), ("/var/lib/kvmstatd", 0o750)):
        status = os.stat(path)
        tap.equal((status.st_uid, stat.S_IMODE(status.st_mode)),
                  (int(run("id", "-u", "kvmstatd")), mode), path)
    journal.check_quiet()


@t.test("the service runs and is enabled, as is the socket of handoffs; that of HTTP is left alone")
def _():
    for unit, active, enabled in (("kvmstatd.service", "active", "enabled"),
                                  ("kvmstatd-handoff.socket", "active", "enabled"),
                                  ("kvmstatd.socket", "inactive", "disabled")):
        tap.equal((systemctl("is-active", unit, status=None).strip(),
                   systemctl("is-enabled", unit, status=None).strip()), (active, enabled), unit)
    tap.equal(service.show("Result"), "success")
    tap.check(stat.S_ISSOCK(os.stat(HANDOFF_SOCKET).st_mode))
    tap.wait_for(lambda: service.show("StatusText"), what="the status")
    service.wait_ready()


@t.test("in its sandbox: user, capabilities of each thread, system call filter, /dev, files")
def _():
    check_threads(service, bits(["sys_ptrace", "bpf", "perfmon"]))
    root = f"/proc/{service.pid}/root"
    devices = service.devices()
    tap.check("kvm" in devices, f"/dev has no kvm: {devices}")
    tap.equal([d for d in ("vda", "mem", "kmsg", "rtc0", "ttyS0") if d in devices], [], "other devices")
    with open(f"/proc/{service.pid}/mountinfo", encoding="utf-8") as f:
        mounts = {words[4]: [*words[5].split(","), *words[-1].split(",")] for words in map(str.split, f)}
    for option in ("hidepid=ptraceable", "subset=pid"):
        tap.check(option in mounts["/proc"], f"/proc: {mounts['/proc']}")
    for path in ("/", "/sys", "/sys/fs/cgroup"):
        tap.check("ro" in mounts.get(path, ["nothing mounted"]), f"{path}: {mounts.get(path)}")
    for path in ("/run/kvmstatd", "/var/lib/kvmstatd"):
        tap.check("rw" in mounts.get(path, ["nothing mounted"]), f"{path}: {mounts.get(path)}")
    tap.equal(os.listdir(f"{root}/root"), [], "/root as it is seen there")
    tap.check(not os.path.samefile(f"{root}/tmp", "/tmp"), "its /tmp is everybody's")


@t.test("systemd-analyze security, of the unit as it runs: at most 2.0")
def _():
    check_exposure(2.0, *OF_PTRACE, "CapabilityBoundingSet_CAP_BPF", "PrivateNetwork", "IPAddressDeny",
                   "RestrictAddressFamilies_AF_INET_INET6")
