# SPDX-License-Identifier: Apache-2.0
"""A daemon as a unit would run it, without systemd: its user, its capabilities, its system calls, and
/dev/kvm or not. (What mount name spaces do, systemd's own tools check.)"""

import os
import tempfile

import lab
import tap
import units

USER = 48123  # nobody's

# As root, in a mount name space of its own: /dev/kvm belongs to the user, and so does the working
# folder. Then the rest is given up, and the program takes this process's place.
_BECOME = """
set -e
user=$1 node=$2 caps=$3 proc=$4; shift 4
chown -R "$user" .
mount --bind "$node" /dev/kvm
[ -z "$proc" ] || mount -t proc -o "$proc" proc /proc
exec setpriv --no-new-privs --reuid "$user" --regid "$user" --clear-groups \\
    --bounding-set="-all$caps" --inh-caps="-all$caps" --ambient-caps="-all$caps" -- "$@"
"""


def launcher():
    """The program that puts another under a seccomp filter."""
    path = os.path.join(lab.BUILD, "tests", "confine")
    if not os.access(path, os.X_OK):
        tap.skip("tests/lib/confine.c was not built: libseccomp-dev is missing")
    return path


def write_filter(path, dropin=None):
    with open(path, "w", encoding="ascii") as f:
        f.write("\n".join(sorted(units.allowed_calls(dropin))) + "\n")


class As:
    """A command prefix that becomes a program under these restrictions. A context manager."""

    def __init__(self, capabilities=(), kvm=True, user=USER):
        tap.require_root()
        self.capabilities, self.kvm, self.user = capabilities, kvm, user
        self.folder = tempfile.TemporaryDirectory(prefix="kvmstatd-confined-")

    def __enter__(self):
        os.chmod(self.folder.name, 0o755)
        self.node = os.path.join(self.folder.name, "kvm")
        os.mknod(self.node, 0o600 | 0o020000, os.stat("/dev/kvm").st_rdev)
        if self.kvm:
            os.chown(self.node, self.user, self.user)
        return self

    def __exit__(self, *_exc):
        self.folder.cleanup()

    proc = ""  # mount options of a /proc of its own

    def prefix(self):
        caps = "".join(f",+{name}" for name in self.capabilities)
        return [tap.require_tool("unshare"), "-m", "/bin/sh", "-c", _BECOME, "sh", str(self.user),
                self.node, caps, self.proc]


class Unit(As):
    """As the unit with a drop-in has it."""

    def __init__(self, dropin=None):
        super().__init__(units.capabilities(dropin), kvm=bool(units.settings(dropin)["DeviceAllow"]))
        self.dropin = dropin
        has = units.settings(dropin)
        self.proc = ",".join(["hidepid=ptraceable"] * ("ptraceable" in has["ProtectProc"][-1:]) +
                             ["subset=pid"] * ("pid" in has["ProcSubset"][-1:]))

    def prefix(self):
        if lab.sanitized():  # their runtimes have system calls of their own
            return super().prefix()
        path = os.path.join(self.folder.name, "calls")
        write_filter(path, self.dropin)
        return [*super().prefix(), launcher(), path]

    @staticmethod
    def config(dropin):
        """The configuration that goes with it, for a daemon at a place of the test's own."""
        with open(f"{units.FOLDER}/tighter/{dropin}.yaml", encoding="utf-8") as f:
            return f.read()
