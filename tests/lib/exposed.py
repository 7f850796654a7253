# SPDX-License-Identifier: Apache-2.0
"""What the daemon exposes, held against own reads of the same stats fds: names and values by the
contract alone, with nothing of the daemon's code in between."""

import re
import time
from fractions import Fraction

import kvmfd
import lab
import tap

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
# Of a VM or a vCPU, but none of the kernel's statistics.
NOT_THE_KERNELS = re.compile(
    "kvm_vm_(info|vcpus|start_time_seconds|last_sample_timestamp_seconds)[{]"
    "|kvm_vcpu_(cpu_seconds|runqueue_wait)_"
    "|kvm_(vm|vcpu)_[a-z0-9_]+_(peak_rate|peak_ratio|peak|low|tick_rate(_bucket|_sum|_count)?)[{]")


def samples(text):
    """{series as printed: exact value}; NaN and infinities do not occur."""
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            tap.check(series not in found, f"{series} stands twice")
            found[series] = Fraction(value)
    return found


def series(daemon, **kwargs):
    return samples(daemon.metrics(**kwargs))


def row(daemon, pid):
    """What the daemon says of the VM of a process: other VMs of this host are none of our business."""
    rows = [v for v in daemon.get("/api/v1/vms").json()["vms"] if v["pid"] == pid]
    return rows[0] if len(rows) == 1 else {"reason": None, "vcpus_read": None, "rows": len(rows)}


def shown(daemon, prefix):
    """How many VMs are shown whose label begins so."""
    return len(re.findall(f'^kvm_vm_info{{vm="{prefix}', daemon.metrics(), re.M))


def info(daemon, vm):
    """The labels of the VM's kvm_vm_info; {} where it has none."""
    match = re.search(f'^kvm_vm_info{{(vm="{re.escape(vm)}",[^}}]*)}}', daemon.metrics(), re.M)
    return dict(re.findall(r'(\w+)="([^"]*)"', match[1])) if match else {}


def first_sample(daemon, vm, deadline_s=None):
    needle = f'kvm_vm_info{{vm="{vm}",'
    tap.wait_for(lambda: needle in daemon.metrics(), deadline_s or lab.TIMEOUT_S, 0.01,
                 f"first sample of {vm}")


def decimal(raw, exponent):
    return Fraction(raw) * Fraction(10) ** exponent


def bound(k, exponent):
    """`le` of log bucket k, as the exposition writes it."""
    value = decimal(2 ** k - 1, exponent)
    whole, digits = divmod(value, 1)
    if not digits:
        return f"{whole}.0"
    text = str(int(digits * 10 ** 12)).rjust(12, "0").rstrip("0")
    return f"{whole}.{text}"


def expected(stats_file, raw, scope, labels):
    """What a stats file's values are called and worth in the exposition, by the contract alone."""
    out = {}
    for name, (kind, unit, exponent, size, _) in stats_file.stats.items():
        base = f"kvm_{scope}_{name}"
        if unit == "seconds":
            base = re.sub("_(ns|us|ms|s)$", "", base) + "_seconds"
        values = raw[name]
        if kind == "log_hist":
            running = 0
            for k, n in enumerate(values):
                running += n
                le = "+Inf" if k == size - 1 else bound(k, exponent)
                out[f'{base}_bucket{{{labels},le="{le}"}}'] = Fraction(running)
            sibling = raw[name.replace("_hist", "_ns")][0]
            out[f"{base}_count{{{labels}}}"] = Fraction(running)
            out[f"{base}_sum{{{labels}}}"] = decimal(sibling, -9)
        else:
            suffix = "_total" if kind == "cumulative" else ""
            out[f"{base}{suffix}{{{labels}}}"] = decimal(values[0], exponent)
    return out


def expected_of(vm, pid, files):
    out = {}
    for vcpu, stats_file in files.items():
        labels = f'vm="{vm}"' + (f',vcpu="{vcpu}"' if vcpu >= 0 else "")
        scope = "vcpu" if vcpu >= 0 else "vm"
        for key, value in expected(stats_file, stats_file.read(), scope, labels).items():
            out[key] = (value, not re.search("_(total|bucket|count|sum)[{]", key))
    return out


def compare(vm, before, shown, after):
    """Every series of a VM lies between two own reads (expected_of()); none is missing, none is
    invented. Returns how many of them have moved."""
    own = re.compile(r'kvm_(vm|vcpu)_[a-zA-Z0-9_]+\{vm="' + re.escape(vm) + r'"[,}]')
    ours = {k: v for k, v in shown.items() if own.match(k) and not NOT_THE_KERNELS.match(k)}
    tap.equal(set(ours) ^ set(before), set(), "series missing or too many")
    moved = 0
    for key, value in ours.items():
        low, is_gauge = before[key]
        if not is_gauge:
            tap.between(low, value, after[key][0], key)
            moved += after[key][0] > low
    return moved


def held_between(daemon, vm, pid, accept):
    """Every series of a VM lies between two own reads; none is missing, none is invented."""
    files = {n: kvmfd.StatsFile(pid, fd) for n, fd in kvmfd.stats_fds(pid).items()}
    try:
        before = expected_of(vm, pid, files)
        # A sample taken after `before`: the sample's own time says so.
        started = time.time()
        tap.wait_for(lambda: series(daemon)[f'kvm_vm_last_sample_timestamp_seconds{{vm="{vm}"}}'] >
                     Fraction(started), lab.TIMEOUT_S, 0.01, "a fresh sample")
        shown = series(daemon, accept=accept)
        after = expected_of(vm, pid, files)
    finally:
        for stats_file in files.values():
            stats_file.close()
    return compare(vm, before, shown, after)


def _status_kib(pid, key):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(re.search(key + r":\s+(\d+)", f.read())[1])


def resident_kib(pid):
    return _status_kib(pid, "VmRSS")


def reset_peak(pid):
    with open(f"/proc/{pid}/clear_refs", "w", encoding="ascii") as f:
        f.write("5")


def peak_kib(pid):
    """The most that was resident since reset_peak()."""
    return _status_kib(pid, "VmHWM")
