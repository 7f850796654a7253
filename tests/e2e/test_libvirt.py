# SPDX-License-Identifier: Apache-2.0
"""Guests of a real libvirtd, with its seccomp sandbox, read by BPF under their own names."""

import os
import re
import time
from fractions import Fraction

import lab
import libvirt
import tap
from exposed import first_sample, info, row, series

t = tap.Tests()

VCPUS = 4
# A dash is what libvirt's own scope names are made with; an umlaut is escaped there.
GUESTS = {
    "web1": "5d1f0a5e-3b7c-4a35-9c8e-0f1f5a6f7b21",
    "db-2.b\u00fccher": "c9a3a1b4-8b0e-4a7e-9d43-6d9f5b0c1e02",
    "ci_3": "0b8f6d52-7f1c-4c55-8a39-2f5d0e6a7c13",
}


def setup():
    tap.require_kvm()
    tap.require_root()
    if not os.path.exists("/sys/kernel/btf/vmlinux"):
        tap.skip("the kernel has no BTF")


def seccomp_mode(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        return int(re.search(r"^Seccomp:\s*(\d+)", f.read(), re.M)[1])


def libvirts_machine(pid, name):
    """What libvirt named the guest's group of processes, where it made one: qemu-ID-NAME."""
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as f:
        match = re.search(r"/(qemu-\d+-[^/\n]*)\.libvirt-qemu", f.read())
    return match[1] if match else None


@t.test("libvirt's guests: name, uuid, machine, both scopes, by BPF; destroyed, they are gone")
def _():
    setup()
    config = "sampling: {interval: 10ms}\ndiscovery: {sources: [bpf], rescan: 200ms}\n"
    with libvirt.Libvirt() as virt, lab.Daemon(config) as daemon:
        pids = {name: virt.create(name, uuid, VCPUS) for name, uuid in GUESTS.items()}
        for name, pid in pids.items():
            first_sample(daemon, name)
            tap.equal(seccomp_mode(pid), 2, "libvirt's seccomp sandbox")
            vm = tap.wait_for(lambda: (r := row(daemon, pid))["vcpus_read"] == VCPUS and r,
                              what=f"the vCPUs of {name}")
            tap.equal((vm["name"], vm["uuid"], vm["vmm"]), (name, GUESTS[name], "qemu"))
            tap.equal((vm["source"], vm["reason"], vm["vm_scope_read"]), ("bpf", None, True))
            labels = info(daemon, name)
            tap.equal((labels["uuid"], labels["pid"], labels["source"]),
                      (GUESTS[name], str(pid), "bpf"))
            machine = libvirts_machine(pid, name)
            if machine:
                tap.equal(labels["machine"], machine, "machine")
            shown = series(daemon)
            tap.check(f'kvm_vm_pages_4k{{vm="{name}"}}' in shown, "the VM's own scope")
            for vcpu in range(VCPUS):
                tap.check(f'kvm_vcpu_exits_total{{vm="{name}",vcpu="{vcpu}"}}' in shown, f"{vcpu}")
        first = next(iter(GUESTS))
        virt.destroy(first)
        tap.wait_for(lambda: not info(daemon, first), what=f"{first} to be gone")
        tap.equal(sum(bool(info(daemon, name)) for name in GUESTS), len(GUESTS) - 1, "the others")


@t.test("what is shown of a guest lies between two of virsh's domstats")
def _():
    setup()
    config = "sampling: {interval: 10ms}\ndiscovery: {sources: [bpf], rescan: 200ms}\n"
    with libvirt.Libvirt() as virt, lab.Daemon(config) as daemon:
        pid = virt.create("web1", GUESTS["web1"], VCPUS)
        first_sample(daemon, "web1")

        def domstats():
            """{(vCPU, the kernel's name): value} of what counts up: libvirt calls it .sum."""
            text = virt.virsh("domstats", "--raw", "--vcpu", "web1").stdout
            return {(int(v), n): int(x) for v, n, x in
                    re.findall(r"^\s*vcpu\.(\d+)\.(\w+)\.sum=(\d+)$", text, re.M)}

        tap.wait_for(lambda: row(daemon, pid)["vcpus_read"] == VCPUS, what="all vCPUs")
        before = domstats()
        stamp = 'kvm_vm_last_sample_timestamp_seconds{vm="web1"}'
        started = Fraction(time.time())
        tap.wait_for(lambda: series(daemon)[stamp] > started, every_s=0.01, what="a later sample")
        shown = series(daemon)
        after = domstats()
        compared = 0
        for (vcpu, name), low in before.items():
            key = f'kvm_vcpu_{name}_total{{vm="web1",vcpu="{vcpu}"}}'
            if key in shown:  # those in seconds are called otherwise, and libvirt drops the unit
                tap.between(low, shown[key], after[vcpu, name], key)
                compared += 1
        tap.check(compared > 20 * VCPUS, f"only {compared} values to compare")


t.main()
