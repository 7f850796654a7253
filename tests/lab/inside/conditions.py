# SPDX-License-Identifier: Apache-2.0
"""What happens to a real host: it sleeps, its clock is set, its /proc is hidden, Yama forbids."""

import time

import tap
from exposed import info, row, series
from handing import whole
from machine import (Journal, Qemu, Service, comes_by, configuration, demo, grows, run, systemctl,
                     t, under_the_shim)

service = Service()
AT = 'kvm_vm_last_sample_timestamp_seconds{vm="%s"}'


def write(path, text):
    with open(path, "w", encoding="ascii") as f:
        f.write(text)


def sleep_s(seconds):
    """Suspend this machine to RAM; its clock wakes it. Returns how long the kernel says it slept."""
    write("/sys/class/rtc/rtc0/wakealarm", "0")
    write("/sys/class/rtc/rtc0/wakealarm", f"+{seconds}")
    before = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    write("/sys/power/state", "mem")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic() - before


@t.test("suspended to RAM and resumed: VMs are read on, and nothing was restarted")
def _():
    with open("/sys/power/mem_sleep", encoding="ascii") as f:
        if "deep" not in f.read():
            tap.skip("this machine cannot suspend to RAM")
    journal, pid = Journal(), service.pid
    with under_the_shim():
        handed = demo("asleep given")
    with handed, Qemu("asleep") as qemu:
        whole(service, "asleep", qemu.pid, 1)
        whole(service, "asleep given", handed.pid, 2)
        before = series(service)
        slept = sleep_s(4)
        tap.check(slept > 1, f"it slept for {slept} s")
        tap.wait_for(lambda: series(service)[AT % "asleep"] > before[AT % "asleep"] + 2,
                     what="a sample of after that")
        tap.wait_for(lambda: abs(series(service)[AT % "asleep"] - int(time.time())) <= 2,
                     what="samples by the clock, which went on meanwhile")
        grows(service, "asleep", "asleep given")
        tap.equal(service.pid, pid, "the process")
        tap.equal(int(service.show("NRestarts")), 0)
    journal.check_quiet()


@t.test("the clock is set, forth and back: samples have its time, and no tick is lost")
def _():
    with demo("clock", stats_fds="keep") as vmm:
        whole(service, "clock", vmm.pid, 2)
        pid = service.pid
        for ahead_s in (3600, -86400, 86400 - 3600):
            before = series(service)
            run("date", "-s", f"@{int(time.time()) + ahead_s}")
            tap.wait_for(lambda: abs(series(service)[AT % "clock"] - int(time.time())) <= 2,
                         what="samples by the new clock")
            grows(service, "clock")
            after = series(service)
            tap.check(after["kvmstatd_ticks_total"] > before["kvmstatd_ticks_total"], "no tick")
            # By the old clock there would be an hour's, or a day's.
            tap.check(after["kvmstatd_ticks_missed_total"] - before["kvmstatd_ticks_missed_total"]
                      < 600, "ticks missed")
        tap.equal(service.pid, pid, "the process")


@t.test("with hidepid on the host's /proc all ways of reading work, and names are known")
def _():
    run("mount", "-o", "remount,hidepid=invisible", "/proc")
    try:
        systemctl("restart", "kvmstatd")
        with under_the_shim():
            handed = demo("hidden given")
        with handed, demo("hidden kept", stats_fds="keep") as kept, Qemu("hidden") as qemu:
            for vm, vmm, vcpus, source in (("hidden given", handed, 2, "handoff"),
                                           ("hidden kept", kept, 2, "statsfd"),
                                           ("hidden", qemu, 1, "bpf")):
                whole(service, vm, vmm.pid, vcpus)
                comes_by(service, vm, source)
    finally:
        run("mount", "-o", "remount,hidepid=off", "/proc")


@t.test("Yama's mode 3: what is left reads on (BPF, handoffs); where only files may be used, it says why")
def _():
    with demo("before yama", stats_fds="keep") as before:
        whole(service, "before yama", before.pid, 2)
        # There is no way back from this mode but a reboot: so it comes last.
        write("/proc/sys/kernel/yama/ptrace_scope", "3")
        with under_the_shim():
            handed = demo("yama given")
        with handed, demo("yama kept", stats_fds="keep") as kept, Qemu("yama") as qemu:
            whole(service, "yama given", handed.pid, 2)
            comes_by(service, "yama given", "handoff")
            for vm, vmm, vcpus in (("yama kept", kept, 2), ("yama", qemu, 1)):
                whole(service, vm, vmm.pid, vcpus)
                comes_by(service, vm, "bpf")
            grows(service, "before yama", "yama given", "yama kept", "yama")
        try:
            with configuration("discovery: {sources: [statsfd]}\n"):
                systemctl("restart", "kvmstatd")
                # Those from before its start it cannot even find.
                with demo("yama later", stats_fds="keep") as later:
                    tap.wait_for(lambda: row(service, later.pid)["reason"] == "permission",
                                 what="the reason")
                    tap.check("ptrace_scope" in row(service, later.pid)["detail"],
                              f"no hint: {row(service, later.pid)}")
                    tap.check(not info(service, "yama later"), "it is shown")
                    tap.check(series(service)['kvmstatd_vms_unreadable{reason="permission"}'] >= 1)
        finally:
            systemctl("restart", "kvmstatd")
