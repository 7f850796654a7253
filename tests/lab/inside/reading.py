# SPDX-License-Identifier: Apache-2.0
"""VMs are read, as the package is installed: by BPF, by their files, as they are handed over."""

import os
import subprocess

import kvmfd
import tap
from exposed import info, row, series
from handing import whole
from machine import (HTTP_SOCKET, Journal, Qemu, Service, USER, comes_by, configuration, demo, grows,
                     kill, run, systemctl, t, under_the_shim)

service = Service()


@t.test("a stock QEMU guest is read by BPF, and its values grow")
def _():
    journal = Journal()
    with Qemu("stock", 2) as qemu, kvmfd.Uevents() as events:
        whole(service, "stock", qemu.pid, 2)
        labels = info(service, "stock")
        tap.equal((labels["source"], labels["vmm"], labels["pid"]), ("bpf", "qemu", str(qemu.pid)))
        grows(service, "stock")
        tap.wait_for(lambda: 'kvm_vcpu_cpu_seconds_total{vm="stock",vcpu="1"}' in service.metrics(),
                     what="the CPU time of the vCPUs' threads")
        kill(qemu)
        events.wait("destroy", [qemu.pid])
        tap.wait_for(lambda: not info(service, "stock"), what="the VM to be gone")
    journal.check_quiet()


@t.test("one whose VMM keeps its statistics files open is read by them")
def _():
    with demo("keeps", stats_fds="keep") as vmm, kvmfd.Uevents() as events:
        whole(service, "keeps", vmm.pid, 2)
        comes_by(service, "keeps", "statsfd")
        grows(service, "keeps")
        kill(vmm)
        events.wait("destroy", [vmm.pid])


@t.test("a demo VM and a stock QEMU under the package's shim are handed over, and in systemd's store")
def _():
    with under_the_shim(), demo("handed") as vmm, Qemu("handed qemu") as qemu:
        whole(service, "handed", vmm.pid, 2)
        whole(service, "handed qemu", qemu.pid, 1)
        for vm in ("handed", "handed qemu"):
            comes_by(service, vm, "handoff")
        grows(service, "handed", "handed qemu")
        # Two files of each VM, and one of each vCPU.
        tap.wait_for(lambda: service.stored == 4 + 3, what="7 files in the store")
        tap.wait_for(lambda: "2 VMs" in service.show("StatusText"), what="the status")
    tap.wait_for(lambda: service.stored == 0, what="the store to be empty")


@t.test("kvmstatctl lists them over the Unix socket: for group kvmstatd, not for others")
def _():
    run("useradd", "--system", USER)
    try:
        with configuration(f'web: {{listen: ["127.0.0.1:10177", "unix:{HTTP_SOCKET}"]}}\n'), \
                demo("listed") as vmm:
            systemctl("restart", "kvmstatd")
            whole(service, "listed", vmm.pid, 2)
            argv = ["kvmstatctl", "list", "--address", f"unix:{HTTP_SOCKET}"]
            tap.check("listed" in run(*argv), "as root")
            tap.check("listed" in run("setpriv", "--reuid", USER, "--regid", "kvmstatd",
                                      "--clear-groups", "--", *argv), "as one of the group")
            refused = subprocess.run(["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups",
                                      "--", *argv], stdin=subprocess.DEVNULL, text=True,
                                     capture_output=True, check=False)
            tap.check(refused.returncode != 0 and "listed" not in refused.stdout, "anybody may")
            tap.check("group kvmstatd" in refused.stderr, f"who may is not said: {refused.stderr}")
    finally:
        run("userdel", USER)
    systemctl("restart", "kvmstatd")
    tap.check(not os.path.exists(HTTP_SOCKET), "the socket stays")


@t.test("a reload puts a configuration in force; a wrong one leaves the old one, and is told")
def _():
    journal, pid = Journal(), service.pid
    successful = "kvmstatd_config_last_reload_successful"
    with demo("reloaded") as vmm:
        whole(service, "reloaded", vmm.pid, 2)
        with configuration("metrics: {vcpu: false}\nsampling: {interval: 50ms}\n"):
            systemctl("reload", "kvmstatd")
            tap.wait_for(lambda: 'kvm_vcpu_exits_total{vm="reloaded"}' in service.metrics(),
                         what="sums of a VM's vCPUs")
            tap.equal(series(service)[successful], 1)
            with configuration("metrics: {vcpu: false}\nsampling:\n  interval: fast\n"):
                systemctl("reload", "kvmstatd", status=None)
                tap.wait_for(lambda: series(service)[successful] == 0, what="the failure to show")
                journal.wait_for("kvmstatd.yaml:3:13: ")
                tap.check('kvm_vcpu_exits_total{vm="reloaded"}' in service.metrics(), "old one")
                tap.equal((service.active(), service.pid), (True, pid), "active, its process")
                tap.equal(row(service, vmm.pid)["vcpus_read"], 2)
    systemctl("reload", "kvmstatd")
    tap.wait_for(lambda: series(service)[successful] == 1, what="the shipped configuration")
    tap.wait_for(lambda: service.show("ActiveState") == "active", what="the reload to be over")
