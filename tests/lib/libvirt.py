# SPDX-License-Identifier: Apache-2.0
"""A libvirtd of Debian's packages for a test, which the machine's own knows nothing of.

It runs in a mount namespace in which its configuration, state and sockets are a folder of ours, and in
which the user exists that Debian makes with libvirt-daemon-system, a package that brings services along.
Its sockets are reached through that folder. QEMU runs as root where /dev/kvm is root's alone, under
libvirt's usual seccomp sandbox.
"""

import os
import signal
import subprocess
import tempfile
import uuid as uuids

import lab
import tap

_QEMU_CONF = """user = "root"
group = "root"
seccomp_sandbox = 1
stdio_handler = "file"
security_driver = "none"
"""
_LIBVIRTD_CONF = """auth_unix_rw = "none"
unix_sock_group = "root"
log_level = 3
"""
# A mount point under /run, /var/lib, … is made where libvirt was never run, and taken away at the end.
_MOUNTED = {"etc": "/etc/libvirt", "run": "/run/libvirt", "lib": "/var/lib/libvirt",
            "log": "/var/log/libvirt", "cache": "/var/cache/libvirt"}
_START = """set -e
for name in passwd group; do mount --bind "$PWD/etc/$name" "/etc/$name"; done
while [ $# -gt 1 ]; do mount --bind "$PWD/$1" "$2"; shift 2; done
exec "$1" --pid-file "$PWD/libvirtd.pid"
"""


def _groups():
    """The control groups that libvirt makes for its machines where there is no systemd."""
    roots = ["/sys/fs/cgroup"]
    with os.scandir(roots[0]) as entries:
        roots += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    return [os.path.join(root, "machine") for root in roots
            if os.path.exists(os.path.join(root, "cgroup.procs"))]


class Libvirt(lab.Process):
    """libvirtd; ready once constructed. Its guests end with it."""

    def __init__(self):
        tap.require_kvm()
        tap.require_root()
        libvirtd = tap.require_tool("libvirtd")
        for tool in ("virsh", "unshare", "qemu-system-x86_64"):
            tap.require_tool(tool)
        self._made = [p for p in [*_MOUNTED.values(), *_groups()] if not os.path.exists(p)]
        for path in _MOUNTED.values():
            os.makedirs(path, exist_ok=True)
        self.domains = []
        mounts = [word for pair in _MOUNTED.items() for word in pair]
        folder = self._make_folder()
        super().__init__(["unshare", "--mount", "--propagation", "private", "sh", "-c", _START, "sh",
                          *mounts, libvirtd], folder=folder)
        self.uri = f"qemu:///system?socket={folder}/run/libvirt-sock"
        try:
            tap.wait_for(self._is_ready, lab.TIMEOUT_S, 0.1, "libvirtd")
        except BaseException:
            self.end()
            raise

    @staticmethod
    def _make_folder():
        folder = tempfile.mkdtemp(prefix="kvmstatd-libvirt-")
        for name in _MOUNTED:
            os.mkdir(os.path.join(folder, name))
        texts = {"qemu.conf": _QEMU_CONF, "libvirtd.conf": _LIBVIRTD_CONF}
        for name, line in (("passwd", "libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin\n"),
                           ("group", "libvirt-qemu:x:64055:\n")):
            with open(f"/etc/{name}", encoding="utf-8") as f:
                text = f.read()
            texts[name] = text if "libvirt-qemu:" in text else text + line
        for name, text in texts.items():
            with open(os.path.join(folder, "etc", name), "w", encoding="utf-8") as f:
                f.write(text)
        return folder

    def _is_ready(self):
        if not self.running():
            raise AssertionError(f"libvirtd exited: {self.errors()}")
        return self.virsh("list", check=False).returncode == 0

    def virsh(self, *words, check=True):
        done = subprocess.run(["virsh", "-c", self.uri, *words], capture_output=True, text=True, check=False,
                              timeout=lab.TIMEOUT_S)
        if check and done.returncode != 0:
            raise AssertionError(f"virsh {words}: {done.stderr}")
        return done

    def create(self, name, uuid=None, vcpus=4):
        """Start a guest without a disk. Returns its QEMU's pid."""
        path = os.path.join(self.folder, "domain.xml")
        with open(path, "w", encoding="utf-8") as f:
            f.write(f"<domain type='kvm'><name>{name}</name><uuid>{uuid or uuids.uuid4()}</uuid>"
                    f"<memory unit='MiB'>32</memory><vcpu>{vcpus}</vcpu>"
                    "<os><type arch='x86_64' machine='pc'>hvm</type></os></domain>")
        self.domains.append(name)  # before: it may exist even where we are ended meanwhile
        self.virsh("create", path)
        with open(os.path.join(self.folder, "run", "qemu", name + ".pid"), encoding="ascii") as f:
            return int(f.read())

    def destroy(self, name):
        self.virsh("destroy", name)
        self.domains.remove(name)

    def end(self):
        if self.running():
            for name in self.domains:
                self.virsh("destroy", name, check=False)
            self.kill(signal.SIGTERM)
        super().end()
        for path in self._made:
            try:
                os.rmdir(path)
            except OSError:
                pass  # another took it into use
