# SPDX-License-Identifier: Apache-2.0
"""Whatever ends the daemon, it comes back, and reads on what VMMs had given it once."""

import contextlib
import glob
import os
import signal

import kvmfd
import tap
from exposed import row
from handing import whole
from machine import (Journal, PACKAGES, Qemu, Service, comes_by, demo, drop_in, exits, given_once,
                     grows, kill, run, systemctl, t)

service = Service()
FILES = 4 + 3  # in the store: of each VM two and of each vCPU one, with two vCPUs and one


@contextlib.contextmanager
def two_given():
    """A demo VM and a stock QEMU that have handed over and cannot again."""
    with given_once(service, lambda: demo("once")) as vmm, \
            given_once(service, lambda: Qemu("once qemu")) as qemu:
        tap.wait_for(lambda: service.stored == FILES, what="all in the store")
        yield {"once": vmm, "once qemu": qemu}


def goes_on_after(end, result=None):
    """What was handed over is read on, from the same statistics, after this end of the daemon."""
    with two_given() as vmms:
        before = {vm: tap.wait_for(lambda vm=vm: exits(service, vm), what=f"exits of {vm}")
                  for vm in vmms}
        old = service.pid
        restarts = int(service.show("NRestarts"))
        end(old)
        service.comes_back(old)
        if result:
            tap.equal(int(service.show("NRestarts")), restarts + 1, "restarts by systemd")
        for vm, vmm in vmms.items():
            whole(service, vm, vmm.pid, vmm.n_vcpus)
            comes_by(service, vm, "handoff")
            tap.check(exits(service, vm) >= before[vm], f"exits of {vm} are counted anew")
        grows(service, *vmms)
        tap.equal(service.stored, FILES, "files in the store")
    tap.wait_for(lambda: service.stored == 0, what="the store to be empty")


@t.test("systemctl restart: all that was handed over is sampled on")
def _():
    journal = Journal()
    goes_on_after(lambda _: systemctl("restart", "kvmstatd"))
    journal.check_quiet()


@t.test("kill -9: it comes back, and all that was handed over is sampled on")
def _():
    goes_on_after(lambda pid: os.kill(pid, signal.SIGKILL), "signal")


@t.test("an abort: it comes back, and all that was handed over is sampled on")
def _():
    goes_on_after(lambda pid: os.kill(pid, signal.SIGABRT), "core-dump")


@t.test("hung, systemd's watchdog ends it: it comes back, and all is sampled on")
def _():
    # As shipped it takes its time, which is not waited for; but there it is.
    tap.check(service.show("WatchdogUSec") not in ("", "0", "infinity"), "the unit has no watchdog")
    with drop_in("watchdog.conf", "[Service]\nWatchdogSec=10\n"):
        journal = Journal()
        systemctl("restart", "kvmstatd")
        goes_on_after(lambda pid: os.kill(pid, signal.SIGSTOP), "watchdog")
        journal.wait_for("Watchdog timeout")
    systemctl("restart", "kvmstatd")


@t.test("installed over itself: what was handed over before is sampled on")
def _():
    goes_on_after(lambda _: run("dpkg", "--install", *glob.glob(f"{PACKAGES}/kvmstatd_*.deb")))
    tap.equal(service.show("ActiveState", "kvmstatd-handoff.socket"), "active", "the socket of handoffs")


@t.test("a VMM that dies while there is no daemon is held by the store alone, and let go of at the start")
def _():
    with drop_in("slow.conf", "[Service]\nRestartSec=8\n"):
        journal = Journal()
        systemctl("restart", "kvmstatd")
        with two_given() as vmms, kvmfd.Uevents() as events:
            gone, other, old = vmms["once"], vmms["once qemu"], service.pid
            os.kill(old, signal.SIGKILL)
            tap.wait_for(lambda: service.show("SubState") == "auto-restart", what="the time between")
            kill(gone)
            tap.equal(service.stored, FILES, "files in the store")
            service.comes_back(old)
            events.wait("destroy", [gone.pid])
            whole(service, "once qemu", other.pid, 1)
            tap.equal(row(service, gone.pid)["rows"], 0, "rows of a VM that is gone")
            tap.wait_for(lambda: service.stored == FILES - 4, what="only the other one's in the store")
            journal.wait_for("let go of 4 stored files")
    systemctl("restart", "kvmstatd")


@t.test("a stop lets go of everything: a VMM that ends afterwards takes its VM with it")
def _():
    with two_given() as vmms, kvmfd.Uevents() as events:
        systemctl("stop", "kvmstatd")
        tap.equal((service.show("ActiveState"), service.stored), ("inactive", 0))
        for vmm in vmms.values():
            kill(vmm)
            events.wait("destroy", [vmm.pid])
    tap.equal(service.show("Result"), "success")
    systemctl("start", "kvmstatd")
