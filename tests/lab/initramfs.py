# SPDX-License-Identifier: Apache-2.0
"""The file system that a lab machine boots into: an uncompressed cpio archive ("newc"), since a guest
under emulation would spend more time on unpacking than the host on reading it.
"""

import lzma
import os
import re
import stat


class Initramfs:
    def __init__(self):
        self.entries = {}  # path without a leading slash: (mode, content, device)
        self._add("dev/console", stat.S_IFCHR | 0o600, b"", (5, 1))

    def _add(self, path, mode, content=b"", device=(0, 0)):
        parent = os.path.dirname(path)
        if parent and parent not in self.entries:
            self._add(parent, stat.S_IFDIR | 0o755)
        self.entries[path] = (mode, content, device)

    def folder(self, path):
        self._add(path, stat.S_IFDIR | 0o755)

    def link(self, path, target):
        self._add(path, stat.S_IFLNK | 0o777, target.encode())

    def text(self, path, text, mode=0o644):
        self._add(path, stat.S_IFREG | mode, text.encode())

    def file(self, path, source, mode=None):
        with open(source, "rb") as f:
            content = f.read()
        self._add(path, stat.S_IFREG | (mode or os.stat(source).st_mode & 0o777), content)

    def module(self, path, source):
        """A kernel module, uncompressed: the guest loads it by the plainest call there is."""
        with open(source, "rb") as f:
            content = f.read()
        if source.endswith(".xz"):
            content = lzma.decompress(content)
        self._add(path, stat.S_IFREG | 0o644, content)

    def write(self, path):
        with open(path, "wb") as f:
            everything = {**dict(sorted(self.entries.items())), "TRAILER!!!": (0, b"", (0, 0))}
            for number, (name, (mode, content, device)) in enumerate(everything.items(), 1):
                encoded = name.encode() + b"\0"
                fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(encoded), 0)
                header = b"070701" + b"".join(b"%08X" % field for field in fields)
                f.write(header + encoded + b"\0" * (-(len(header) + len(encoded)) % 4))
                f.write(content + b"\0" * (-len(content) % 4))


def _name(text):
    return text.replace("-", "_")


def module_files(tree, wanted):
    """The files of these modules and of those they depend on, in the order of loading. What is built
    in has no file. depmod runs when a package is installed, so the modules themselves are asked."""
    files = {}
    for folder, _, names in os.walk(os.path.join(tree, "usr/lib/modules")):
        for name in names:
            if match := re.fullmatch(r"(.+)\.ko(\.xz)?", name):
                files[_name(match[1])] = os.path.join(folder, name)
    order = []

    def add(name):
        path = files.get(_name(name))
        if path is None or path in order:
            return
        with open(path, "rb") as f:
            content = f.read()
        if path.endswith(".xz"):
            content = lzma.decompress(content)
        depends = re.search(rb"\0depends=([^\0]*)\0", content)
        for other in (depends[1].decode().split(",") if depends else ()):
            if other:
                add(other)
        order.append(path)

    for name in wanted:
        add(name)
    return order
