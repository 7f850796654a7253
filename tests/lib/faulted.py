# SPDX-License-Identifier: Apache-2.0
"""tests/lib/faults/faults.c under a daemon: what is to fail there, and how much memory it has."""

import mmap
import os
import struct
import tempfile

import lab
import tap


class Faults:
    def __init__(self):
        library = os.path.join(lab.BUILD, "lib", "libfaults.so")
        if lab.sanitized():
            tap.skip("a sanitizer's allocator can't be replaced")
        self.file = tempfile.NamedTemporaryFile(prefix="kvmstatd-faults-")
        self.file.truncate(mmap.PAGESIZE)
        self.map = mmap.mmap(self.file.fileno(), mmap.PAGESIZE)
        os.chmod(self.file.name, 0o666)  # for daemons of any user
        self.env = {"LD_PRELOAD": library, "KVMSTATD_TEST_FAULTS": self.file.name}

    def fail_allocations(self, of_65536):
        self.map[0:4] = struct.pack("=I", of_65536)

    def step_clock(self, ahead_s):
        self.map[8:16] = struct.pack("=q", int(ahead_s * 1e9))

    def hang_lookups(self, hang):
        """Of users and hosts."""
        self.map[40:44] = struct.pack("=I", hang)

    def lookups(self):
        """(how many, the effective capabilities of those who made them)."""
        return struct.unpack("=IQ", self.map[44:56])

    def failed(self):
        return struct.unpack("=Q", self.map[16:24])[0]

    def live(self):
        """(allocations, their bytes) that the program has at the moment."""
        return struct.unpack("=qq", self.map[24:40])
