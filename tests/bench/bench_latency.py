# SPDX-License-Identifier: Apache-2.0
"""How soon a new VM is seen in /metrics, and how soon a killed one is let go.

A VM counts as created when its VMM says that its stats fds are open, and as let go when the kernel
announces that its last reference is gone (EVENT=destroy, a uevent). The same VMs are started and
killed without the daemon too: the difference is what the daemon adds.
"""

import http.client
import os
import random
import signal
import socket
import statistics
import time

import figures
import lab
from figures import Figure, info

CREATED_BAR_S = 1.0
DESTROYED_BAR_S = 0.1
OTHERS = 50
VCPUS = 4
POLL_S = 0.002
TIMEOUT_S = 30
COMMAND = "tests/bench/run latency"
# A scrape is some 40 kB with these: polling is to tell when the VM appears, not to load the machine.
SMALL_SCRAPES = 'metrics:\n  include: ["guest_mode"]\n  vcpu: false\n  histograms: "off"\n'


class Uevents:
    """The kernel's uevents, from now on."""

    def __init__(self):
        netlink_kobject_uevent = 15
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC,
                                    netlink_kobject_uevent)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.bind((0, 1))
        self.socket.settimeout(TIMEOUT_S)

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.socket.close()

    def drain(self):
        self.socket.setblocking(False)
        try:
            while True:
                self.socket.recv(8192)
        except BlockingIOError:
            self.socket.settimeout(TIMEOUT_S)

    def wait_destroyed(self, pid):
        """When the kernel said that the VM made by this thread is gone."""
        wanted = {b"EVENT=destroy", f"PID={pid}".encode()}
        while True:
            words = self.socket.recv(8192).split(b"\0")
            now = time.monotonic()
            if wanted <= set(words):
                return now


class Poller:
    """/metrics over one connection, again and again."""

    def __init__(self, daemon):
        self.connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=TIMEOUT_S)

    def text(self):
        self.connection.request("GET", "/metrics")
        return self.connection.getresponse().read()

    def wait_seen(self, vm):
        """When a scrape first showed a sample of the VM."""
        needle = f'kvm_vm_last_sample_timestamp_seconds{{vm="{vm}"}}'.encode()
        deadline = time.monotonic() + TIMEOUT_S
        while needle not in self.text():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{vm} does not appear in /metrics")
            time.sleep(POLL_S)
        return time.monotonic()


def _start_vm(name, stats_fds):
    """(the VM, when it said that it runs and its stats fds, if it keeps any, are open)."""
    vm = lab.Process([lab.program("kvmstatd-demo-vm"), "--name", name, "--vcpus", str(VCPUS),
                      "--fds", "100", "--load", "idle", "--stats-fds", stats_fds])
    line = vm.read_line()
    created = time.monotonic()
    if not line or not line.startswith("vm "):
        vm.end()
        raise RuntimeError(f"demo VM: {line} {vm.errors()}")
    return vm, created


def _kill(vm, uevents):
    """Seconds from SIGKILL to the kernel's word that the VM is gone."""
    uevents.drain()
    begin = time.monotonic()
    os.kill(vm.pid, signal.SIGKILL)
    return uevents.wait_destroyed(vm.pid) - begin


def _series(n, prefix, uevents, stats_fds, poller=None):
    """([created → seen], [killed → destroyed]); without a poller VMs are killed unseen."""
    seen, destroyed = [], []
    for i in range(n):
        time.sleep(random.uniform(0, 0.1))  # at no particular phase of a tick
        vm, created = _start_vm(f"{prefix}{i}", stats_fds)
        with vm:
            if poller:
                seen.append(max(0.0, poller.wait_seen(f"{prefix}{i}") - created))
            time.sleep(random.uniform(0.05, 0.15))
            destroyed.append(_kill(vm, uevents))
    return seen, destroyed


def _spread(values):
    return (f"median {figures.ms(statistics.median(values))}, "
            f"highest {figures.ms(max(values))}")


def run(options, sources="statsfd", command=COMMAND):
    """Beside other VMs, first without the daemon, then with it. For BPF no VM keeps stats fds."""
    stats_fds = "none" if sources == "bpf" else "keep"
    config = SMALL_SCRAPES + f"discovery: {{sources: [{sources}]}}\n"
    way = f", by {sources}" if sources != "statsfd" else ""
    n = 20 if options.quick else 100
    prefix = f"bench-{os.getpid()}-"
    with Uevents() as uevents, \
            lab.DemoVms(OTHERS, VCPUS, name=prefix + "other", load="mix", rate=5,
                        fds=100, stats_fds=stats_fds):
        _, alone = _series(n, prefix + "alone-", uevents, stats_fds)
        figures.say("without the daemon: done")
        with lab.Daemon(figures.only_ours(prefix, config)) as daemon:
            poller = Poller(daemon)
            poller.wait_seen(f"{prefix}other-{OTHERS - 1}")
            seen, destroyed = _series(n, prefix + "new-", uevents, stats_fds, poller)
            last = poller.text().decode()
    created_p99, destroyed_p99 = (figures.percentile(v, 99) for v in (seen, destroyed))
    family = "kvmstatd_release_seconds"
    counts = figures.histogram(last, family)
    own = figures.histogram_percentile([(b, 0) for b, _ in counts], counts, 99)
    return [
        Figure(f"VM created → first sample in /metrics{way}, p99 of {n}",
               f"≤ {figures.ms(CREATED_BAR_S)}", figures.ms(created_p99),
               created_p99 <= CREATED_BAR_S, command),
        info("…", _spread(seen), command),
        Figure(f"VMM killed → the kernel's EVENT=destroy{way}, p99 of {n}",
               f"≤ {figures.ms(DESTROYED_BAR_S)}", figures.ms(destroyed_p99),
               destroyed_p99 <= DESTROYED_BAR_S, command),
        info("…", _spread(destroyed), command),
        info("… without the daemon", f"p99 {figures.ms(figures.percentile(alone, 99))}, "
             + _spread(alone), command),
        info("… by the daemon's own kvmstatd_release_seconds, p99", f"≤ {figures.ms(own)}",
             command),
    ]
