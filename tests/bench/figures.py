# SPDX-License-Identifier: Apache-2.0
"""Figures, the table they stand in, and what several benchmarks measure with."""

import http.client
import math
import os
import platform
import re
import sys
import time
from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass
class Figure:
    """A row of the table. `met` None: there is no bar, the figure is for information."""

    name: str
    bar: str
    measured: str
    met: bool | None
    command: str


def info(name, measured, command):
    return Figure(name, "", measured, None, command)


def say(line):
    """Progress, on standard error: the table has standard output for itself."""
    print(f"# {line}", file=sys.stderr, flush=True)


def print_table(collected, quick):
    print(machine())
    if quick:
        print("Quick run: few rounds and short windows; not for quoting.")
    print()
    print("| figure | bar | measured | | command |")
    print("| --- | --- | --- | --- | --- |")
    for f in collected:
        verdict = {True: "met", False: "**missed**", None: ""}[f.met]
        print(f"| {f.name} | {f.bar} | {f.measured} | {verdict} | `{f.command}` |")


# --- the machine ---


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        model = re.search(r"^model name\s*:\s*(.*)$", f.read(), re.M)
    kind = "VM" if os.path.exists("/sys/hypervisor") or "hypervisor" in _cpu_flags() else "machine"
    return (f"{os.cpu_count()} cores of a {kind} ({model.group(1) if model else platform.machine()}), "
            f"Linux {platform.release().split('-')[0]}, load {os.getloadavg()[0]:.1f}")


def _cpu_flags():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        flags = re.search(r"^flags\s*:\s*(.*)$", f.read(), re.M)
    return flags.group(1).split() if flags else []


def machine_cpu():
    """(busy, all) of the machine's CPU time, in ticks."""
    with open("/proc/stat", encoding="ascii") as f:
        ticks = [int(word) for word in f.readline().split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def other_daemons():
    """Processes that hold VMs besides us: a VM goes when the last of them has let go."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/comm", encoding="utf-8") as f:
                if f.read().strip() == "kvmstatd":
                    found.append(int(pid))
        except OSError:
            continue
    return found


def busy_since(before):
    """How many percent of all cores were in use since machine_cpu() gave `before`."""
    now = machine_cpu()
    return 100 * (now[0] - before[0]) / max(1, now[1] - before[1])


# --- numbers ---


def percentile(values, p):
    """By nearest rank: the p99 of 100 values is the 99th."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(p / 100 * len(ordered)) - 1)]


def ms(seconds):
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.2f} s"


def mib(n_bytes):
    return f"{n_bytes / MIB:.1f} MiB"


# --- a process ---


def process_cpu(pid):
    """(CPU seconds by /proc/PID/stat, {thread name: CPU seconds by schedstat})."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
        fields = f.read().rpartition(") ")[2].split()
    total = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    threads = {}
    for tid in os.listdir(f"/proc/{pid}/task"):
        folder = f"/proc/{pid}/task/{tid}"
        try:
            with open(f"{folder}/comm", encoding="utf-8") as f:
                name = f.read().strip()
            with open(f"{folder}/schedstat", encoding="ascii") as f:
                spent = int(f.read().split()[0]) / 1e9
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread that has just ended
        threads[name] = threads.get(name, 0) + spent
    return total, threads


def cpu_wait(pid, thread):
    """Seconds that a thread was ready to run and had no CPU."""
    for tid in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{tid}/comm", encoding="utf-8") as f:
            if f.read().strip() != thread:
                continue
        with open(f"/proc/{pid}/task/{tid}/schedstat", encoding="ascii") as f:
            return int(f.read().split()[1]) / 1e9
    raise RuntimeError(f"no thread {thread}")


def process_memory(pid):
    """(resident now, the highest so far), in bytes."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        text = f.read()
    return tuple(int(re.search(rf"^{key}:\s*(\d+) kB", text, re.M).group(1)) * 1024
                 for key in ("VmRSS", "VmHWM"))


# --- the daemon's own exposition ---


def scrape(daemon, headers=None):
    """(seconds to the last byte, bytes of the body); the body is thrown away as it comes."""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=120)
    room, size = bytearray(1 << 20), 0
    begin = time.monotonic()
    connection.request("GET", "/metrics", headers={"Accept-Encoding": "identity", **(headers or {})})
    answer = connection.getresponse()
    while n := answer.readinto(room):
        size += n
    took = time.monotonic() - begin
    connection.close()
    if answer.status != 200:
        raise RuntimeError(f"/metrics answered {answer.status}")
    return took, size


def value(text, series):
    """The value of a series as it is printed, labels and all."""
    found = re.search(rf"^{re.escape(series)} (\S+)", text, re.M)
    if not found:
        raise RuntimeError(f"no {series} in /metrics")
    return float(found.group(1))


def histogram(text, family):
    """[(upper bound, cumulative count)] of a histogram without labels."""
    pairs = re.findall(rf'^{family}_bucket{{le="([^"]+)"}} (\S+)', text, re.M)
    return [(float(bound), float(count)) for bound, count in pairs]


def histogram_percentile(before, after, p):
    """The upper bound of the bucket in which the percentile lies, of what came between the two."""
    counts = [(b[0], b[1] - a[1]) for a, b in zip(before, after)]
    wanted = p / 100 * counts[-1][1]
    return next(bound for bound, count in counts if count >= wanted)


def only_ours(prefix, text=""):
    """Configuration that looks at our own VMs only: others of this machine are not to be measured."""
    return (f'sampling:\n  rules:\n    - match: {{vm: "{prefix}*"}}\n      interval: 100ms\n'
            f'    - match: {{vm: "*"}}\n      enabled: false\n{text}')
