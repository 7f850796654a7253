# SPDX-License-Identifier: Apache-2.0
"""Sockets that systemd holds, and the tighter ways of running that the package brings."""

import contextlib
import glob
import os
import stat

import tap
from exposed import row
from handing import whole
from machine import (CONFIGURATION, DROP_INS, HTTP_SOCKET, OF_PTRACE, PACKAGES, Qemu, Service,
                     bits, check_exposure, check_threads, comes_by, configuration, demo, grows, run,
                     systemctl, t, under_the_shim)

TIGHTER = "/usr/share/kvmstatd/tighter"
service = Service()
by_socket = Service(f"unix:{HTTP_SOCKET}:")


@contextlib.contextmanager
def sockets():
    """kvmstatd.socket, as an administrator enables it."""
    systemctl("stop", "kvmstatd.service")
    systemctl("enable", "--now", "kvmstatd.socket")
    try:
        yield
    finally:
        systemctl("disable", "--now", "kvmstatd.socket")


@contextlib.contextmanager
def tighter(name):
    """As the README says to do it."""
    with open(f"{TIGHTER}/{name}.yaml", encoding="utf-8") as f, configuration(f.read()):
        os.makedirs(DROP_INS)
        os.symlink(f"{TIGHTER}/{name}.conf", f"{DROP_INS}/{name}.conf")
        systemctl("daemon-reload")
        systemctl("restart", "kvmstatd")
        try:
            yield
        finally:
            os.unlink(f"{DROP_INS}/{name}.conf")
            os.rmdir(DROP_INS)
            systemctl("daemon-reload")
    systemctl("restart", "kvmstatd")


def interfaces():
    """Of the service's own network."""
    with open(f"/proc/{service.pid}/net/dev", encoding="utf-8") as f:
        return [line.split(":")[0].strip() for line in f if ":" in line]


def network():
    return os.readlink(f"/proc/{service.pid}/ns/net")


@t.test("kvmstatd.socket: a connection starts the service, by TCP and by the Unix socket")
def _():
    with sockets():
        for access in (service, by_socket):
            tap.equal(service.show("ActiveState"), "inactive")
            tap.check("kvmstatd_build_info" in access.metrics(), "/metrics")
            tap.check(service.active(), "not active")
            for other in (service, by_socket):
                other.wait_ready()
            systemctl("stop", "kvmstatd.service")
        status = os.stat(HTTP_SOCKET)
        tap.equal((stat.S_IMODE(status.st_mode), status.st_uid, run("stat", "-c", "%G", HTTP_SOCKET)),
                  (0o660, 0, "kvmstatd\n"), "mode, owner, group")
    systemctl("start", "kvmstatd.service")


@t.test("borrow-only: reads what VMMs keep open, with CAP_SYS_PTRACE and no network, at most 1.4")
def _():
    with tighter("borrow-only"), demo("borrowed", stats_fds="keep") as vmm, demo("not kept") as bare:
        whole(by_socket, "borrowed", vmm.pid, 2)
        comes_by(by_socket, "borrowed", "statsfd")
        grows(by_socket, "borrowed")
        tap.equal(row(by_socket, bare.pid)["reason"], "no_stats_fd")
        check_threads(service, bits(["sys_ptrace"]))
        tap.check(network() != os.readlink("/proc/self/ns/net"), "it has the host's network")
        tap.equal(interfaces(), ["lo"])
        check_exposure(1.4, *OF_PTRACE)


@t.test("handoff-only: reads what is handed over, without capability, device or network, at most 0.8")
def _():
    with tighter("handoff-only"), under_the_shim(), demo("given") as vmm, Qemu("given qemu") as qemu:
        whole(by_socket, "given", vmm.pid, 2)
        whole(by_socket, "given qemu", qemu.pid, 1)
        for vm in ("given", "given qemu"):
            comes_by(by_socket, vm, "handoff")
        grows(by_socket, "given", "given qemu")
        check_threads(service, 0)
        tap.check("kvm" not in service.devices(), "it has /dev/kvm")
        tap.equal(interfaces(), ["lo"])
        # Whose command lines it may read is told by /proc's own rules.
        check_exposure(0.8, "ProtectProc")


@t.test("handoff-only with kvmstatd.socket: by TCP all the same, and over a restart as well")
def _():
    with sockets(), tighter("handoff-only"), under_the_shim(), demo("by tcp") as vmm:
        whole(service, "by tcp", vmm.pid, 2)
        systemctl("restart", "kvmstatd")
        whole(service, "by tcp", vmm.pid, 2)
        tap.check("by tcp" in by_socket.metrics(), "the Unix socket")
    tap.check(os.path.exists(CONFIGURATION))
    systemctl("restart", "kvmstatd")
    service.wait_ready()


@t.test("installed over itself with kvmstatd.socket active: it stays so, and TCP answers")
def _():
    # Of its own the service has no network here: without the socket there is no TCP.
    with sockets(), tighter("handoff-only"):
        service.wait_ready()
        old = service.pid
        run("dpkg", "--install", *glob.glob(f"{PACKAGES}/kvmstatd_*.deb"))
        tap.equal(service.show("ActiveState", "kvmstatd.socket"), "active")
        service.wait_ready()
        tap.check("kvmstatd_build_info" in service.metrics(), "/metrics")
        tap.check(service.pid != old, "it was not restarted")
    systemctl("restart", "kvmstatd")
    service.wait_ready()
