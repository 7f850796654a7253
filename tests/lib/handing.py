# SPDX-License-Identifier: Apache-2.0
"""What tests of the handoff share: VMMs under the preload shim, VMs of the test's own, and the client
that the protocol's document shows."""

import array
import contextlib
import fcntl
import os
import re
import socket
import struct
import tempfile

import kvmfd
import lab
import tap
from exposed import first_sample, row, series

FAST = "sampling: {interval: 10ms}\n"
HANDOFF = "discovery: {sources: [handoff], rescan: 200ms}\n"


def socket_config(folder, users="[0]"):
    return f"handoff: {{socket: {folder}/handoff.sock, allow_users: {users}}}\n"


@contextlib.contextmanager
def place():
    """A folder for a socket that outlives a daemon; everything needs KVM, and root to make VMs."""
    tap.require_kvm()
    tap.require_root()
    with tempfile.TemporaryDirectory(prefix="kvmstatd-handoff-") as folder:
        yield folder


@contextlib.contextmanager
def preloaded(folder):
    """Whoever is started here runs under the shim."""
    shim = os.path.join(lab.BUILD, "lib", "libkvmstatd-preload.so")
    tap.check(os.path.exists(shim), f"{shim} was not built")
    added = {
        "LD_PRELOAD": shim,
        "KVMSTATD_HANDOFF_SOCKET": f"{folder}/handoff.sock",
        # A program built with a sanitizer wants its runtime to come first.
        "ASAN_OPTIONS": ":".join(filter(None, [os.environ.get("ASAN_OPTIONS"),
                                               "verify_asan_link_order=0"])),
    }
    before = {key: os.environ.get(key) for key in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


def demo_under_shim(folder, **kwargs):
    with preloaded(folder):
        return lab.DemoVms(stats_fds="none", **kwargs)


def qemu_under_shim(folder, **kwargs):
    with preloaded(folder):
        return lab.Qemu(**kwargs)


def info(daemon, vm):
    """The sources of a shown VM."""
    match = re.search(f'^kvm_vm_info{{vm="{vm}",.*source="([^"]*)"}}', daemon.metrics(), re.M)
    return match and match[1]


def whole(daemon, vm, pid, vcpus):
    """Wait until a VM is read with both scopes."""
    try:
        first_sample(daemon, vm)
        tap.wait_for(lambda: (r := row(daemon, pid))["vcpus_read"] == vcpus and r["vm_scope_read"],
                     lab.TIMEOUT_S, 0.01, f"all of {vm}")
    except AssertionError as e:
        rows = [v for v in daemon.get("/api/v1/vms").json()["vms"] if v["pid"] == pid]
        raise AssertionError(f"{e}; {rows}; {daemon.errors()}") from e


def rejected(daemon, reason):
    return int(series(daemon)[f'kvmstatd_handoff_rejected_total{{reason="{reason}"}}'])


def client_of_the_document():
    """The Python client that docs/handoff-protocol.md shows is what we test with."""
    with open(os.path.join(lab.SOURCE, "docs/handoff-protocol.md"), encoding="utf-8") as f:
        code = re.search(r"```python\n(.*?)```", f.read(), re.S)[1]
    namespace = {}
    exec(code, namespace)  # pylint: disable=exec-used
    return namespace


CLIENT = client_of_the_document()


def kvm_files(pid):
    """{link: [fd…]} of a process's KVM files."""
    found = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            link = os.readlink(f"/proc/{pid}/fd/{fd}")
            if link.startswith("anon_inode:kvm-"):
                found.setdefault(link, []).append(int(fd))
    return found


class KvmHere:
    """VMs in this very process, in which others may have files of theirs."""

    def __init__(self):
        self.kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
        self.fds = []

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        for fd in (*self.fds, self.kvm):
            os.close(fd)

    def own(self, fd):
        """Closed at the end; who closes it must not give it."""
        self.fds.append(fd)
        return fd

    def vm(self):
        return self.own(fcntl.ioctl(self.kvm, kvmfd.KVM_CREATE_VM, 0))

    def vcpu(self, vm, number):
        return self.own(fcntl.ioctl(vm, kvmfd.KVM_CREATE_VCPU, number))

    def client(self, folder):
        """Who hands over files of these VMs; the statistics files that it makes are ours, too."""
        kvm = self

        class Client(CLIENT["Handoff"]):
            def ask(self, kind, body=b"", fds=()):
                self.socket.settimeout(tap.TIMEOUT_S)
                kvm.fds += [fd for fd in fds if fd not in kvm.fds]
                return super().ask(kind, body, fds)
        return Client(f"{folder}/handoff.sock")


def send(sock, message, fds=()):
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, BlockingIOError):
        sock.sendmsg([message], rights, socket.MSG_DONTWAIT)


def connected(folder):
    """A connection, if there is one to be had now."""
    try:
        return CLIENT["Handoff"](f"{folder}/handoff.sock")
    except (AssertionError, OSError):
        return None


def header(kind, length):
    return struct.pack(CLIENT["HEADER"], CLIENT["MAGIC"], 1, 0, kind, length, 1)
