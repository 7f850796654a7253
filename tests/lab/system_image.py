# SPDX-License-Identifier: Apache-2.0
"""The file system of a Debian 12 that boots: a minimal installation, by mmdebstrap and this machine's
own apt configuration, in an ext4 image that the cache keeps. Nothing of ours is in it; what a run
brings along comes in the initial file system, which puts it there.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile

import archive
import boot

# What a host of VMs has, besides what Debian calls essential; procps, bash-completion and the like are
# left out on purpose: our packages must say what they need.
PACKAGES = ("systemd-sysv", "udev", "kmod", "python3", "qemu-system-x86")
SIZE = "2G"  # of a sparse file
# What nobody looks at there, and dpkg therefore does not unpack. QEMU's guests get by with SeaBIOS.
UNUSED = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*",
          "/usr/share/iso-codes/*", "/usr/share/xml/*", "/usr/share/icons/*", "/usr/libexec/qemu-system-i386", "/usr/bin/qemu-system-x86_64-microvm",
          "/usr/share/qemu/skiboot.lid", "/usr/share/qemu/openbios-*", "/usr/share/qemu/edk2-*",
          "/usr/share/qemu/hppa-*", "/usr/share/qemu/opensbi-*", "/usr/share/qemu/slof.bin",
          "/usr/lib/ipxe/*", "/usr/lib/udev/hwdb.d/*", "/usr/share/zoneinfo/*")
MERGED = "/usr/share/mmdebstrap/hooks/merged-usr"
# For the kernel of this system: its modules are installed as they are.
NOT_OF_THE_SYSTEM = ("*/kernel/drivers/gpu", "*/kernel/drivers/infiniband", "*/kernel/drivers/net",
                     "*/kernel/drivers/scsi", "*/kernel/sound", "*/kernel/net", "./usr/share",
                     "./boot/System.map*", "./usr/lib/linux-image*")


def missing_tools():
    return [t for t in ("mmdebstrap", "mke2fs", "depmod", "dpkg-buildpackage", "qemu-system-x86_64")
            if not boot.shutil.which(t, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")]


def dependencies(debs):
    """The packages of Debian's that these need, without which they would not be installed."""
    ours, wanted = set(), set()
    for deb in debs:
        text = subprocess.run(["dpkg-deb", "-f", deb, "Package", "Depends", "Pre-Depends"],
                              stdout=subprocess.PIPE, text=True, check=True).stdout
        fields = dict(line.split(": ", 1) for line in text.splitlines())
        ours.add(fields.pop("Package"))
        for field in fields.values():
            # Of alternatives the first.
            wanted |= {re.match(r"[^ (|:]+", item)[0] for item in field.split(", ")}
    return sorted(wanted - ours)


def kernel_tree(kernel):
    """The kernel's package with more of its modules than the lab's other machines have."""
    return archive.kernel_tree(kernel, "system", NOT_OF_THE_SYSTEM)


def _run(argv, log):
    with open(log, "a", encoding="utf-8") as f:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=f, stderr=f, check=False,
                              env={**os.environ, "LC_ALL": "C.UTF-8"})
    if done.returncode:
        with open(log, encoding="utf-8", errors="replace") as f:
            raise archive.Unavailable(f"{argv[0]}: {f.read()[-6000:]}")


def _make(tree, suite, packages, path):
    with tempfile.TemporaryDirectory(prefix=".system-", dir=os.path.dirname(path)) as work:
        root, image, log = (os.path.join(work, name) for name in ("root", "image", "log"))
        # Merged from the start: else a package does it afterwards, which takes Perl and its time.
        _run(["mmdebstrap", "--variant=minbase", f"--hook-dir={MERGED}", f"--include={','.join(packages)}",
              "--aptopt=APT::Install-Recommends \"false\"", "--aptopt=Acquire::Languages \"none\"",
              "--dpkgopt=force-unsafe-io", *(f"--dpkgopt=path-exclude={p}" for p in UNUSED),
              suite, root, archive.source_line(suite)], log)
        shutil.copytree(os.path.join(tree, "usr/lib/modules"), os.path.join(root, "usr/lib/modules"),
                        symlinks=True)
        _run(["depmod", "-b", root, boot.release(tree)], log)
        _run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-E", "root_owner=0:0", "-m", "0",
              "-d", root, image, SIZE], log)
        os.rename(image, path)


def base(tree, suite, debs):
    """The image, from the cache where it has one of the same packages."""
    packages = [*PACKAGES, *dependencies(debs)]
    key = hashlib.sha256(repr((tree, suite, packages, UNUSED, SIZE)).encode()).hexdigest()[:12]
    path = os.path.join(archive.cache(), "systems", f"{suite}-{key}.ext4")
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _make(tree, suite, packages, path)
    return path
