# SPDX-License-Identifier: Apache-2.0
"""What the tests inside the booted system share: systemd, its journal, and the service as whoever
scrapes it sees it."""

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile

import handing
import lab
import tap
from exposed import info, series

_wait_for = tap.wait_for


def _wait_patiently(condition, timeout_s=tap.TIMEOUT_S, every_s=0.0, what="what the test waits for"):
    """Under emulation, looking often takes the time from what is looked for."""
    return _wait_for(condition, timeout_s, max(every_s, 0.3), what)


tap.wait_for = _wait_patiently
t = tap.Tests()  # of all files here, in the order in which main.py imports them
DROP_INS = "/etc/systemd/system/kvmstatd.service.d"
CONFIGURATION = "/etc/kvmstatd/kvmstatd.yaml"
PACKAGES = "/opt/packages"
HANDOFF_SOCKET = "/run/kvmstatd/handoff.sock"
HTTP_SOCKET = "/run/kvmstatd/metrics.sock"
USER = "someone"  # neither root nor the service
# Of what systemd-analyze would have a unit forbid: what none of our ways of running can do without.
LACKING = {"RootDirectoryOrRootImage", "PrivateUsers", "DeviceAllow", "SystemCallFilter_resources",
           "RestrictAddressFamilies_AF_NETLINK", "RestrictAddressFamilies_AF_UNIX"}
OF_PTRACE = ("CapabilityBoundingSet_CAP_SYS_PTRACE", "AmbientCapabilities", "SystemCallFilter_debug",
             "SystemCallFilter_privileged")
BITS = {"sys_ptrace": 19, "perfmon": 38, "bpf": 39}


def run(*argv, status=0, **kwargs):
    """What a command prints, once it has ended as it should (status None: however it likes)."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False, **kwargs)
    tap.check(status is None or done.returncode == status,
              f"{' '.join(argv)}: exit status {done.returncode}\n{done.stdout}")
    return done.stdout


def systemctl(*argv, **kwargs):
    return run("systemctl", "--no-pager", *argv, **kwargs)


def bits(names):
    return sum(1 << BITS[name] for name in names)


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


class Service:
    """kvmstatd.service, with what tests/lib wants of a daemon."""

    def __init__(self, url="http://127.0.0.1:10177"):
        self.url = url

    def get(self, path, **kwargs):
        return lab.fetch(self.url + path, **kwargs)

    def metrics(self, accept=None):
        response = self.get("/metrics", headers={"Accept": accept} if accept else None)
        tap.equal(response.status, 200, "/metrics")
        return response.text

    @staticmethod
    def errors():
        """Its last words, for who has waited in vain."""
        return run("journalctl", "--no-pager", "-o", "cat", "-n", "10", "-u", "kvmstatd.service")

    def wait_ready(self):
        """It answers at once, and is ready when it has looked for VMs once."""
        tap.wait_for(lambda: self.get("/-/ready").status == 200, what="readiness")

    @staticmethod
    def show(name, unit="kvmstatd.service"):
        return systemctl("show", "-P", name, unit).strip()

    @property
    def pid(self):
        return int(self.show("MainPID"))

    @property
    def stored(self):
        return int(self.show("NFileDescriptorStore"))

    def active(self):
        return self.show("ActiveState") == "active"

    def comes_back(self, old):
        """Wait until another process runs and is ready."""
        tap.wait_for(lambda: self.active() and self.pid not in (0, old), what="a start of the service")

    def threads(self):
        """{thread's name: {field of its status: value}}, the fields of a process' first thread too."""
        found = {}
        for tid in os.listdir(f"/proc/{self.pid}/task"):
            try:
                with open(f"/proc/{self.pid}/task/{tid}/status", encoding="utf-8") as f:
                    status = dict(re.findall(r"^(\w+):\t(.*)$", f.read(), re.M))
            except (FileNotFoundError, ProcessLookupError):
                continue  # some come and go
            found[f"{status['Name']} {tid}"] = status
        return found

    def devices(self):
        return sorted(os.listdir(f"/proc/{self.pid}/root/dev"))


def check_threads(service, of_discovery):
    """Each thread has the capabilities that it is to have, and none can get more: of what the unit's
    bounding set still has, a program that one of them became could have it again."""
    looking = of_discovery & bits(["sys_ptrace"])
    special = {"discovery": of_discovery, "kvmstatd-sched": looking, "kvmstatd-dump": looking}
    uid, gid = (int(run("id", option, "kvmstatd")) for option in ("-u", "-g"))
    threads = service.threads()
    tap.check("discovery" in {name.split()[0] for name in threads}, f"threads: {list(threads)}")
    for name, status in threads.items():
        have = {key: int(status[key], 16) for key in ("CapPrm", "CapEff", "CapInh", "CapAmb", "CapBnd")}
        want = special.get(name.split()[0], 0)
        tap.equal(have, {"CapPrm": want, "CapEff": want, "CapInh": 0, "CapAmb": 0,
                         "CapBnd": of_discovery}, name)
        tap.equal((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"), f"{name}: seccomp")
        tap.equal(status["Uid"].split(), [str(uid)] * 4, f"{name}: user")
        tap.equal(status["Gid"].split(), [str(gid)] * 4, f"{name}: group")


def check_exposure(limit, *lacking):
    """systemd's own measure of the unit as it runs: its sum, in which a single line hardly shows, and
    that nothing is lacking but what has its reason in the unit, besides these."""
    analyse = ["systemd-analyze", "security", "--no-pager", "kvmstatd.service"]
    found = {line["json_field"]: line["description"]
             for line in json.loads(run(*analyse, "--json=short")) if line["set"] is False}
    lost = {field: found[field] for field in sorted(found.keys() - LACKING - set(lacking))}
    tap.equal(lost, {}, "what the unit does not forbid")
    exposure = run(*analyse).split("kvmstatd.service: ")[1].split()[0]
    tap.between(0.1, float(exposure), limit, "exposure")


class Journal:
    """What the units say from here on."""

    def __init__(self):
        # From a line of our own on: --after-cursor leaves out the first line that is asked for where
        # that of the cursor is none of them.
        run("systemd-cat", "--identifier=lab", "echo", "from here on")
        run("journalctl", "--sync")
        text = run("journalctl", "-n", "1", "-t", "lab", "--show-cursor", "--no-pager")
        self.cursor = re.search(r"^-- cursor: (.*)$", text, re.M)[1]

    def text(self, *options):
        run("journalctl", "--sync")
        return run("journalctl", "--no-pager", "-o", "cat", "--cursor", self.cursor,
                   "-u", "kvmstatd*", *options)

    def says(self, words):
        return words in self.text()

    def wait_for(self, words):
        tap.wait_for(lambda: self.says(words), every_s=0.5, what=f"{words!r} in the journal")

    def check_quiet(self):
        """Nobody has anything serious to say."""
        tap.equal(self.text("-p", "err").replace("-- No entries --", "").strip(), "", "errors")


@contextlib.contextmanager
def drop_in(name, text):
    """Part of the unit for a while. Whoever wants it in force restarts the service."""
    path = os.path.join(DROP_INS, name)
    write(path, text)
    systemctl("daemon-reload")
    try:
        yield
    finally:
        os.unlink(path)
        with contextlib.suppress(OSError):
            os.rmdir(DROP_INS)
        systemctl("daemon-reload")


@contextlib.contextmanager
def configuration(text):
    """In the configuration's place for a while; whoever wants it in force reloads or restarts."""
    with open(CONFIGURATION, encoding="utf-8") as f:
        before = f.read()
    write(CONFIGURATION, text)
    try:
        yield
    finally:
        write(CONFIGURATION, before)


@contextlib.contextmanager
def under_the_shim(socket=HANDOFF_SOCKET):
    """Whoever is started here runs under the package's shim, which the loader finds by its name."""
    added = {"LD_PRELOAD": "libkvmstatd-preload.so", "KVMSTATD_HANDOFF_SOCKET": socket}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            del os.environ[key]


@contextlib.contextmanager
def given_once(service, start):
    """A VMM of start() that hands its VM over and cannot do it again: the way to the daemon that it
    knows is gone afterwards. Its VMs are lab.DemoVms or a lab.Qemu."""
    with tempfile.TemporaryDirectory(prefix="once-", dir="/run") as folder:
        os.symlink(HANDOFF_SOCKET, f"{folder}/handoff.sock")
        with under_the_shim(f"{folder}/handoff.sock"):
            vmm = start()
        with vmm:
            for name, pid in getattr(vmm, "vms", None) or [(vmm.name, vmm.pid)]:
                handing.whole(service, name, pid, vmm.n_vcpus)
                comes_by(service, name, "handoff")
            os.unlink(f"{folder}/handoff.sock")
            yield vmm


class Qemu(lab.Qemu):
    """A stock QEMU, as Debian has it."""

    def __init__(self, name, vcpus=1):
        self.name, self.n_vcpus = name, vcpus
        super().__init__(name, vcpus)


def demo(name, **kwargs):
    # The machine is emulated: a guest that does little is enough.
    return lab.DemoVms(name=name, vcpus=2, rate=20, stats_fds=kwargs.pop("stats_fds", "none"), **kwargs)


def exits(service, vm, vcpu=0):
    return series(service).get(f'kvm_vcpu_exits_total{{vm="{vm}",vcpu="{vcpu}"}}', 0)


def grows(service, *vms):
    """Wait until each of these VMs has more exits than some before."""
    for vm in vms:
        before = tap.wait_for(lambda vm=vm: exits(service, vm), what=f"exits of {vm}")
        tap.wait_for(lambda vm=vm, before=before: exits(service, vm) > before,
                     what=f"exits of {vm}, more than {before}")


def comes_by(service, vm, source):
    """Wait until a VM is read in this way: until its files are found BPF may do."""
    try:
        tap.wait_for(lambda: info(service, vm).get("source") == source, what=f"{vm} by {source}")
    except AssertionError as e:
        raise AssertionError(f"{e}; it is {info(service, vm)}; {service.errors()}") from e


def kill(process):
    process.kill(signal.SIGKILL)
    process.wait()
