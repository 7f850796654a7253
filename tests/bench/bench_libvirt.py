# SPDX-License-Identifier: Apache-2.0
"""Statistics of the same guests through libvirt and through the daemon.

Stock QEMU guests are started by a libvirtd in a namespace of its own. The daemon reads these very
guests by BPF where it can, and, since QEMU before 8.1 keeps no stats fds open, as many demo VMs by
their stats fds.
"""

import glob
import os
import shutil
import signal
import statistics
import subprocess
import time

import figures
import lab
import tap
from figures import info

VCPUS = 4
COMMAND = "tests/bench/run --with-libvirt libvirt"
PACKAGES = ["libvirt-daemon", "libvirt-daemon-driver-qemu", "libvirt-clients", "qemu-system-x86"]
DOMSTATS = "domstats --vcpu --vm"
DOMAIN = """<domain type='kvm'>
  <name>{name}</name>
  <memory unit='MiB'>32</memory>
  <vcpu>{vcpus}</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
</domain>
"""


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


class Libvirt(lab.Process):
    """A libvirtd with nothing of the machine's own."""

    def __init__(self):
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "libvirt_root")
        super().__init__(["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
                          script])
        self.init = None
        try:
            self.init = int(tap.wait_for(self._children, lab.TIMEOUT_S, 0.05, "libvirt's root"))
            tap.wait_for(lambda: self.virsh("version").returncode == 0, lab.TIMEOUT_S, 0.2,
                         "libvirtd")
        except BaseException:
            self.end()
            raise

    def _children(self):
        with open(f"/proc/{self.pid}/task/{self.pid}/children", encoding="ascii") as f:
            return f.read().strip()

    def virsh(self, *words):
        return subprocess.run(["nsenter", "-t", str(self.init), "-m", "-p", "virsh", "-q", "-c",
                               "qemu:///system", *words], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)

    def create(self, name):
        path = f"/proc/{self.init}/root/run/libvirt/{name}.xml"
        with open(path, "w", encoding="utf-8") as f:
            f.write(DOMAIN.format(name=name, vcpus=VCPUS))
        done = self.virsh("create", f"/run/libvirt/{name}.xml")
        if done.returncode != 0:
            raise RuntimeError(f"virsh create: {done.stderr.decode(errors='replace')}")

    def cpu_seconds(self):
        """Of libvirtd and all QEMUs: whatever lives in the namespace."""
        ours, total = os.readlink(f"/proc/{self.init}/ns/pid"), 0
        for path in glob.glob("/proc/[0-9]*"):
            try:
                if os.readlink(f"{path}/ns/pid") == ours:
                    total += figures.process_cpu(os.path.basename(path))[0]
            except (OSError, ValueError):
                continue
        return total

    def end(self):
        if self.init and self.running():
            os.kill(self.init, signal.SIGKILL)  # the namespace goes with it
            self.init = None
        super().end()


def _domstats(libvirt, rounds):
    """(seconds of one `virsh`, seconds of one more query on its connection, bytes, CPU s a query)."""
    def timed(n):
        begin = time.monotonic()
        done = libvirt.virsh("; ".join([DOMSTATS] * n))
        if done.returncode != 0:
            raise RuntimeError(f"virsh: {done.stderr.decode(errors='replace')}")
        return time.monotonic() - begin, len(done.stdout) // n

    single = [timed(1) for _ in range(rounds)]
    before = libvirt.cpu_seconds()
    begin = time.monotonic()
    many, _ = timed(rounds)
    took = time.monotonic() - begin
    busy = libvirt.cpu_seconds() - before
    # What the guests use by themselves in as long a time is not the query's.
    before = libvirt.cpu_seconds()
    time.sleep(took)
    idle = libvirt.cpu_seconds() - before
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
    with Libvirt() as libvirt:
        for i in range(n):
            libvirt.create(f"{prefix}q{i}")
        figures.say(f"{n} QEMU guests run")
        time.sleep(5)  # their firmware finds nothing to boot
        one, more, size, cpu = _domstats(libvirt, rounds)
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
