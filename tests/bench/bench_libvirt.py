# SPDX-License-Identifier: Apache-2.0
"""Statistics of the same guests through libvirt and through the daemon.

Stock QEMU guests are started by a libvirtd in a namespace of its own. The daemon reads these very
guests by BPF where it can, and, since QEMU before 8.1 keeps no stats fds open, as many demo VMs by
their stats fds.
"""

import os
import shutil
import statistics
import subprocess
import time

import figures
import lab
import libvirt
from figures import info

VCPUS = 4
COMMAND = "tests/bench/run --with-libvirt libvirt"
PACKAGES = ["libvirt-daemon", "libvirt-daemon-driver-qemu", "libvirt-clients", "qemu-system-x86"]
DOMSTATS = "domstats --vcpu --vm"


def _install(options):
    needed = ["libvirtd", "virsh", "qemu-system-x86_64"]
    if all(shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") for name in needed):
        return
    if not options.with_libvirt:
        raise RuntimeError("libvirt or QEMU is not installed; --with-libvirt installs them")
    figures.say("installing " + " ".join(PACKAGES))
    subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                   env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


def _cpu_seconds(pids):
    return sum(figures.process_cpu(pid)[0] for pid in pids)


def _domstats(server, pids, rounds):
    """(seconds of one `virsh`, seconds of one more query on its connection, bytes, CPU s a query)."""
    def timed(n):
        begin = time.monotonic()
        done = server.virsh("-q", "; ".join([DOMSTATS] * n))
        return time.monotonic() - begin, len(done.stdout.encode()) // n

    single = [timed(1) for _ in range(rounds)]
    before = _cpu_seconds(pids)
    begin = time.monotonic()
    many, _ = timed(rounds)
    took = time.monotonic() - begin
    busy = _cpu_seconds(pids) - before
    # What the guests use by themselves in as long a time is not the query's.
    before = _cpu_seconds(pids)
    time.sleep(took)
    idle = _cpu_seconds(pids) - before
    one = statistics.median(t for t, _ in single)
    return one, max(0, many - one) / (rounds - 1), single[0][1], max(0, busy - idle) / rounds


def _daemon(prefix, config, n, rounds):
    """(median seconds of a scrape, bytes, mean seconds of a tick), or None where it cannot read."""
    family = "kvmstatd_sweep_duration_seconds"
    with lab.Daemon(figures.only_ours(prefix, config)) as daemon:
        deadline = time.monotonic() + 20
        while figures.value(daemon.metrics(), "kvmstatd_vms") < n:
            if time.monotonic() > deadline:
                return None
            time.sleep(0.2)
        before = daemon.metrics()
        time.sleep(3)
        got = [figures.scrape(daemon) for _ in range(rounds)]
        after = daemon.metrics()
    ticks = figures.value(after, family + "_count") - figures.value(before, family + "_count")
    spent = figures.value(after, family + "_sum") - figures.value(before, family + "_sum")
    return figures.percentile([t for t, _ in got], 50), got[0][1], spent / ticks


def _rows(title, result):
    if result is None:
        return [info(f"… {title}", "cannot be used here", COMMAND)]
    scrape, size, tick = result
    return [info(f"… {title}: a scrape; a tick", f"{figures.ms(scrape)}, {size:,} bytes with all "
                 f"histograms; {figures.ms(tick)}", COMMAND)]


def run(options):
    """libvirt first, then the daemon over the same guests, then over as many demo VMs."""
    _install(options)
    n, rounds = (8, 3) if options.quick else (40, 10)
    prefix = f"bench-{os.getpid()}-"
    all_ = "metrics:\n  histograms: vcpu\ndiscovery:\n  sources: "
    with libvirt.Libvirt() as server:
        qemus = [server.create(f"{prefix}q{i}", vcpus=VCPUS) for i in range(n)]
        figures.say(f"{n} QEMU guests run")
        time.sleep(5)  # their firmware finds nothing to boot
        one, more, size, cpu = _domstats(server, [server.pid, *qemus], rounds)
        by_bpf = _daemon(prefix, all_ + "[bpf]\n", n, rounds)
    with lab.DemoVms(n, VCPUS, name=prefix + "d", load="idle", fds=100):
        by_fd = _daemon(prefix, all_ + "[statsfd]\n", n, rounds)
    version = subprocess.run(["libvirtd", "--version"], stdout=subprocess.PIPE, check=False)
    return [
        info(f"`virsh {DOMSTATS}`, {n} QEMU guests × {VCPUS} vCPUs "
             f"({version.stdout.decode().strip()})",
             f"{figures.ms(one)}, {size:,} bytes without histograms", COMMAND),
        info("… one more query on the same connection; CPU of libvirtd and the QEMUs for it",
             f"{figures.ms(more)}; {figures.ms(cpu)}", COMMAND),
        *_rows("kvmstatd by BPF over the same guests", by_bpf),
        *_rows(f"kvmstatd by stats fds over {n} demo VMs", by_fd),
    ]
