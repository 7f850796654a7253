# SPDX-License-Identifier: Apache-2.0
"""What VMMs have handed over comes back from systemd's store after a restart, a crash and a watchdog's
kill; what is over meanwhile is let go first."""

import contextlib
import json
import os
import signal
import struct
import sys
import tempfile
import time

import kvmfd
import lab
import tap
from confined import Unit
from exposed import info, row, series
from handing import CLIENT, FAST, HANDOFF, KvmHere, demo_under_shim, place, preloaded, \
    socket_config, whole
from supervisor import Supervisor

t = tap.Tests()

# A VMM that hands over once, and never again: no library, no second connection.
ONCE = """
import json, sys, time
sys.path[:0] = json.loads(sys.argv[1])
from handing import CLIENT, KvmHere
folder, name, vcpus = sys.argv[2], sys.argv[3].encode(), int(sys.argv[4])
kvm = KvmHere()
vm = kvm.vm()
client = kvm.client(folder)
assert client.vm(1, vm, name) == CLIENT["ACCEPTED"]
kept = []
for n in range(vcpus):
    kept.append(kvm.vcpu(vm, n))
    assert client.vcpu(1, n, kept[-1]) == CLIENT["ACCEPTED"]
client.socket.close()
print("ready", flush=True)
time.sleep(1000)
"""


def vmm_that_gives_once(folder, name, vcpus=2):
    process = lab.Process([sys.executable, "-c", ONCE, json.dumps(sys.path), folder, name, str(vcpus)])
    tap.equal(process.read_line(), "ready", "the VMM")
    return process


def stored_of(systemd, pid):
    """The links of what is in the store of a process."""
    return systemd.links(f"kvm-{pid}-")


CONFIG = HANDOFF + FAST
ENDS = (signal.SIGTERM, signal.SIGKILL, signal.SIGABRT)  # a restart, a crash, a watchdog's kill


@t.test("after a restart, a crash and a watchdog's kill all targets are sampled on, by their names")
def _():
    with place() as folder, Supervisor() as systemd, contextlib.ExitStack() as stack:
        config, vmms, last = CONFIG + socket_config(folder), {}, {}
        for end in (*ENDS, signal.SIGTERM):
            with systemd.start(config, shuffle=t.random.shuffle) as daemon:
                if not vmms:
                    vmms = {f"one {i}": stack.enter_context(vmm_that_gives_once(folder, f"one {i}"))
                            for i in range(3)}
                for name, vmm in vmms.items():
                    whole(daemon, name, vmm.pid, 2)
                    tap.equal(info(daemon, name)["source"], "handoff")
                    key = f'kvm_vcpu_exits_total{{vm="{name}",vcpu="1"}}'
                    now = series(daemon)[key]
                    tap.check(now >= last.get(key, 0), f"{key} fell")
                    last[key] = now
                    tap.wait_for(lambda vmm=vmm: len(stored_of(systemd, vmm.pid)) == 5,
                                 what="two files of the VM, two of its vCPUs, its name")
                daemon.stop(end)


@t.test("a VMM whose library gives everything again: each VM once, the store does not grow")
def _():
    with place() as folder, Supervisor() as systemd, \
            demo_under_shim(folder, vms=5, vcpus=2, name="again") as demo:
        config = CONFIG + socket_config(folder)
        for end in ENDS * 2:
            with systemd.start(config, shuffle=t.random.shuffle) as daemon:
                for vm, pid in demo.vms:
                    whole(daemon, vm, pid, 2)
                time.sleep(0.3)  # for the library's own connection
                for vm, pid in demo.vms:
                    tap.equal(row(daemon, pid)["vcpus_read"], 2, vm)
                    tap.equal(row(daemon, pid).get("rows", 1), 1, f"rows of {vm}")
                    tap.wait_for(lambda pid=pid: [s for s in stored_of(systemd, pid)
                                                  if "memfd" not in s] ==
                                 ["anon_inode:kvm-vcpu-stats:0", "anon_inode:kvm-vcpu-stats:1",
                                  "anon_inode:kvm-vm", "anon_inode:kvm-vm-stats"],
                                 what=f"the store of {vm}: {stored_of(systemd, pid)}")
                tap.equal(sum(v["source"] == "handoff" for v in
                              daemon.get("/api/v1/vms").json()["vms"]), 5)
                daemon.stop(end)


@t.test("as the unit has it: other users' VMs come back, though /proc hides them from most threads")
def _():
    os.environ.pop("KVMSTATD_CONFINED", None)  # from here on it is confined more exactly
    with place() as folder, Unit() as unit, Supervisor() as systemd:
        os.chmod(folder, 0o777)
        config = "discovery: {sources: [handoff, statsfd]}\n" + FAST + socket_config(folder)
        with systemd.start(config, prefix=unit.prefix()) as daemon, \
                vmm_that_gives_once(folder, "another's") as vmm:
            whole(daemon, "another's", vmm.pid, 2)
            tap.wait_for(lambda: len(stored_of(systemd, vmm.pid)) == 5, what="all in the store")
            daemon.stop(signal.SIGKILL)
            with systemd.start(config, prefix=unit.prefix()) as daemon:
                tap.wait_for(lambda: "came back from systemd" in daemon.errors() or
                             not systemd.stored(), what="what was stored to be taken or dropped")
                tap.equal(len(stored_of(systemd, vmm.pid)), 5, daemon.errors())
                tap.check("came back from systemd" in daemon.errors(), daemon.errors())
                whole(daemon, "another's", vmm.pid, 2)


@t.test("a VMM that ends: its VM goes at once, with the daemon there and after it was killed")
def _():
    with place() as folder, Supervisor() as systemd, kvmfd.Uevents() as events:
        config = CONFIG + socket_config(folder)
        with systemd.start(config) as daemon:
            with vmm_that_gives_once(folder, "first") as vmm:
                tap.wait_for(lambda: row(daemon, vmm.pid)["vcpus_read"] == 2, what="first")
                tap.wait_for(lambda: stored_of(systemd, vmm.pid), what="its files in the store")
                vmm.kill()
                vmm.wait()
                events.wait("destroy", [vmm.pid])
            tap.wait_for(lambda: not systemd.stored(), what="the store to be empty")
            second = vmm_that_gives_once(folder, "second")
            other = vmm_that_gives_once(folder, "other")
            tap.wait_for(lambda: row(daemon, second.pid)["vcpus_read"] == 2, what="second")
            tap.wait_for(lambda: len(stored_of(systemd, other.pid)) == 5 and
                         len(stored_of(systemd, second.pid)) == 5, what="all in the store")
            daemon.stop(signal.SIGKILL)
        second.kill()
        second.wait()
        tap.check(len(stored_of(systemd, second.pid)) == 5, "the store alone keeps it")
        with second, other, systemd.start(config) as daemon:
            events.wait("destroy", [second.pid])
            tap.equal(stored_of(systemd, second.pid), [])
            tap.wait_for(lambda: row(daemon, other.pid)["vcpus_read"] == 2, what="the other one")
            tap.equal(len(stored_of(systemd, other.pid)), 5)
            tap.check("let go of 5 stored files" in daemon.errors(), daemon.errors())


@t.test("let go first: before the configuration is read, and though it is wrong")
def _():
    with place() as folder, Supervisor() as systemd, kvmfd.Uevents() as events:
        with systemd.start(CONFIG + socket_config(folder)) as daemon, \
                vmm_that_gives_once(folder, "gone") as vmm:
            tap.wait_for(lambda: len(stored_of(systemd, vmm.pid)) == 5, what="all in the store")
            daemon.stop(signal.SIGKILL)
            vmm.kill()
            vmm.wait()
            pid = vmm.pid
        with systemd.start("nonsense: 1\n", wait=False, ready=False) as daemon:
            tap.equal(daemon.wait(), 2, "exit status")
        events.wait("destroy", [pid])
        tap.equal(systemd.stored(), [])


@t.test("what a configuration does not allow any more does not come back, and leaves the store")
def _():
    with place() as folder, Supervisor() as systemd:
        for change in ("discovery: {sources: [statsfd]}\n" + socket_config(folder),
                       CONFIG + socket_config(folder, "[65533]")):
            with systemd.start(CONFIG + socket_config(folder)) as daemon, \
                    vmm_that_gives_once(folder, "was allowed") as vmm:
                tap.wait_for(lambda: len(stored_of(systemd, vmm.pid)) == 5, what="all in the store")
                daemon.stop()
                with systemd.start(change) as daemon:
                    tap.wait_for(lambda: not systemd.stored(), what="the store to be empty")
                    tap.check(not info(daemon, "was allowed"), "it is read")


@t.test("a reload that takes a user's right takes what he gave, though his connection has ended")
def _():
    with place() as folder, Supervisor() as systemd, \
            systemd.start(CONFIG + socket_config(folder)) as daemon, \
            vmm_that_gives_once(folder, "revoked") as vmm:
        tap.wait_for(lambda: row(daemon, vmm.pid)["vcpus_read"] == 2, what="the VM")
        tap.wait_for(lambda: len(stored_of(systemd, vmm.pid)) == 5, what="all in the store")
        daemon.reload(CONFIG + socket_config(folder, "[65533]"))
        tap.wait_for(lambda: not info(daemon, "revoked"), what="the VM to go")
        tap.wait_for(lambda: not systemd.stored(), what="the store to be empty")


@t.test("what a VMM takes back is in the store no more")
def _():
    with place() as folder, Supervisor() as systemd, \
            systemd.start(CONFIG + socket_config(folder)) as daemon, KvmHere() as kvm:
        pid, vm = os.getpid(), kvm.vm()
        client = kvm.client(folder)
        tap.equal(client.vm(1, vm), CLIENT["ACCEPTED"])
        for n in range(3):
            tap.equal(client.vcpu(1, n, kvm.vcpu(vm, n)), CLIENT["ACCEPTED"])
        tap.wait_for(lambda: len(stored_of(systemd, pid)) == 5, what="all in the store")
        tap.equal(client.ask(5, struct.pack("=QII", 1, 1, 0)), CLIENT["ACCEPTED"])
        tap.wait_for(lambda: stored_of(systemd, pid) == [
            "anon_inode:kvm-vcpu-stats:0", "anon_inode:kvm-vcpu-stats:2", "anon_inode:kvm-vm",
            "anon_inode:kvm-vm-stats"], what="the vCPU to leave the store")
        tap.wait_for(lambda: row(daemon, pid)["vcpus_read"] == 2, what="two vCPUs")
        tap.equal(client.ask(4, struct.pack("=Q", 1)), CLIENT["ACCEPTED"])
        tap.wait_for(lambda: not systemd.stored(), what="the store to be empty")


@t.test("what a VMM takes back while the daemon is away is let go by the next one")
def _():
    with place() as folder, Supervisor() as systemd, kvmfd.Uevents() as events:
        config = CONFIG + socket_config(folder)
        with preloaded(folder):
            vmm = kvmfd.TinyVmm("vm a", "vcpu a 0", "vcpu a 1", "vm b", "vcpu b 0")

        def read(daemon):
            return sorted(v["vcpus_read"] for v in daemon.get("/api/v1/vms").json()["vms"]
                          if v["pid"] == vmm.pid and v["vm_scope_read"])
        with vmm:
            with systemd.start(config) as daemon:
                tap.wait_for(lambda: read(daemon) == [1, 2], what="both VMs")
                tap.wait_for(lambda: len(stored_of(systemd, vmm.pid)) == 7, what="all in the store")
                daemon.stop(signal.SIGTERM)
            for name in ("b/0", "b", "a/1"):
                vmm.tell(f"close {name}")
            with systemd.start(config) as daemon:
                tap.wait_for(lambda: read(daemon) == [1], what="what is left")
                events.wait("destroy", [vmm.pid])
                tap.wait_for(lambda: stored_of(systemd, vmm.pid) == [
                    "anon_inode:kvm-vcpu-stats:0", "anon_inode:kvm-vm", "anon_inode:kvm-vm-stats"],
                             what="the store to have what is left")


@t.test("a store with something else in it: nothing of that is read or kept")
def _():
    with place() as folder, Supervisor() as systemd, tempfile.TemporaryFile() as file, \
            kvmfd.TinyVmm("vm a") as vmm:
        with open(f"/proc/{vmm.pid}/stat", encoding="ascii") as f:
            start = int(f.read().rsplit(")", 1)[1].split()[19])
        name = f"kvm-{vmm.pid}-{start}-0-1"
        for stray in (file.fileno(), os.memfd_create("x"), os.pipe()[0], os.eventfd(0)):
            systemd.put(name, stray)
            systemd.put(f"kvm-{vmm.pid}-{start + 1}-0-2", stray)
            systemd.put("kvm-1-2", stray)
        with systemd.start(CONFIG + socket_config(folder)) as daemon:
            tap.wait_for(lambda: not systemd.stored(), what="them to leave the store")
            tap.check("kvm-1-2" in daemon.errors(), daemon.errors())
            tap.equal(daemon.get("/metrics").status, 200)


t.main()
