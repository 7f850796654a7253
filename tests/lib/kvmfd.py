# SPDX-License-Identifier: Apache-2.0
"""KVM by hand, with nothing of ours in between: a tiny VMM to be told what to do, a second decoder of
stats files to hold the daemon's answers against, and the kernel's own uevents.
"""

import ctypes
import fcntl
import os
import platform
import re
import socket
import struct
import sys
import threading
import time

import lab

KVM_CREATE_VM = 0xAE01
KVM_CREATE_VCPU = 0xAE41
KVM_RUN = 0xAE80
KVM_GET_STATS_FD = 0xAECE
_SYS_EXIT = {"x86_64": 60, "ppc64le": 1}.get(platform.machine(), 93)  # of the calling thread
_SYS_PIDFD_OPEN = 434
_SYS_PIDFD_GETFD = 438

TYPES = {0: "cumulative", 1: "instant", 2: "peak", 3: "linear_hist", 4: "log_hist"}
UNITS = {0: "none", 1: "bytes", 2: "seconds", 3: "cycles", 4: "boolean"}


def _syscall(number, *args):
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(number, *args)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


class StatsFile:
    """A stats fd of another process, borrowed; decoded from the format's description alone."""

    def __init__(self, pid, fd):
        pidfd = _syscall(_SYS_PIDFD_OPEN, pid, 0)
        try:
            self.fd = _syscall(_SYS_PIDFD_GETFD, pidfd, fd, 0)
        finally:
            os.close(pidfd)
        self._decode()

    def _decode(self):
        _, name_size, n, _, desc_offset, self.data_offset = struct.unpack(
            "=6I", os.pread(self.fd, 24, 0))
        stride = 16 + name_size
        block = os.pread(self.fd, stride * n, desc_offset)
        self.stats = {}
        for i in range(n):
            flags, exponent, size, offset, bucket = struct.unpack_from("=IhHII", block, i * stride)
            name = block[i * stride + 16:(i + 1) * stride].split(b"\0")[0].decode()
            self.stats[name] = (TYPES[flags & 15], UNITS[flags >> 4 & 15], exponent, size, offset)
        self.bytes = max((s[4] + 8 * s[3] for s in self.stats.values()), default=0)

    def read(self):
        """{name: [value, …]}, raw."""
        data = os.pread(self.fd, self.bytes, self.data_offset)
        return {name: struct.unpack_from(f"={size}Q", data, offset)
                for name, (_, _, _, size, offset) in self.stats.items()}

    def close(self):
        os.close(self.fd)

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.close()


class SavedStatsFile(StatsFile):
    """The bytes of a stats fd as somebody has saved them in a file."""

    def __init__(self, path):  # pylint: disable=super-init-not-called
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._decode()


def stats_fds(pid):
    """{-1: fd of the VM's stats, vcpu: fd of that vCPU's} as /proc shows them."""
    found = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            link = os.readlink(f"/proc/{pid}/fd/{fd}")
        except FileNotFoundError:
            continue
        if link == "anon_inode:kvm-vm-stats":
            found[-1] = int(fd)
        elif match := re.fullmatch(r"anon_inode:kvm-vcpu-stats:(\d+)", link):
            found[int(match[1])] = int(fd)
    return found


class Uevents:
    """The kernel's events about VMs, from its construction on."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 15)
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
        self.socket.bind((0, 1))

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.socket.close()

    def wait(self, event, pids, timeout_s=None):
        """The times at which `event` ("create", "destroy") came for the VMs that these pids made."""
        missing, times = set(pids), {}
        deadline = time.monotonic() + (lab.TIMEOUT_S if timeout_s is None else timeout_s)
        while missing:
            self.socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                message = self.socket.recv(8192)
            except TimeoutError as e:
                raise AssertionError(f"no {event} event for the VMs of {missing}") from e
            fields = dict(f.split(b"=", 1) for f in message.split(b"\0") if b"=" in f)
            if fields.get(b"EVENT") == event.encode():
                pid = int(fields.get(b"PID", b"0"))
                if pid in missing:
                    missing.discard(pid)
                    times[pid] = time.monotonic()
        return times


class TinyVmm(lab.Process):
    """A VMM that does what it is told; its guests get nowhere. See _obey() for the commands."""

    def __init__(self, *commands):
        super().__init__([sys.executable, os.path.abspath(__file__)])
        try:
            for command in commands:
                self.tell(command)
        except BaseException:
            self.end()
            raise

    def _stdin(self):
        return os.path.join(self.folder, "commands")

    def tell(self, command):
        with open(self._stdin(), "a", encoding="utf-8") as f:
            f.write(command + "\n")
        answer = self.read_line()
        if answer is None or not answer.startswith("ok"):
            raise AssertionError(f"{command}: {answer} {self.errors()}")
        return answer[3:]


class _Runner(threading.Thread):
    """A thread that runs a vCPU again and again: the guest has no memory, so it gets nowhere."""

    def __init__(self, fd):
        super().__init__(daemon=True)
        self.fd, self.over = fd, False
        self.start()

    def run(self):
        while not self.over:
            try:
                fcntl.ioctl(self.fd, KVM_RUN, 0)
            except OSError:  # ENOSPC: no page of it can be mapped
                time.sleep(0.001)

    def end(self):
        self.over = True
        self.join()


def _obey(words, kvm, files):
    """vm NAME | vcpu VM ID | stats NAME [VM ID] | close NAME | dup NAME NEW | fork | exec-name X
    | run VM/ID | rest VM/ID | leave.

    Files are kept under names: a VM's own, "VM/ID" for its vCPUs, "NAME:stats" for stats fds,
    "VM/ID:runner" for what runs a vCPU, whose tid is the answer. After "leave" the process goes on
    without its first thread, so that nothing can be told to it any more.
    """
    if words[0] == "vm":
        files[words[1]] = fcntl.ioctl(kvm, KVM_CREATE_VM, 0)
    elif words[0] == "vcpu":
        files[f"{words[1]}/{words[2]}"] = fcntl.ioctl(files[words[1]], KVM_CREATE_VCPU, int(words[2]))
    elif words[0] == "stats":
        files[words[1] + ":stats"] = fcntl.ioctl(files[words[1]], KVM_GET_STATS_FD, 0)
    elif words[0] == "close":
        os.close(files.pop(words[1]))
    elif words[0] == "dup":
        files[words[2]] = os.dup(files[words[1]])
    elif words[0] == "run":
        runner = files[words[1] + ":runner"] = _Runner(files[words[1]])
        return str(runner.native_id)
    elif words[0] == "rest":
        files.pop(words[1] + ":runner").end()
    elif words[0] == "leave":
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    elif words[0] == "fork":
        pid = os.fork()
        if pid == 0:
            lab._libc.prctl(1, 9, 0, 0, 0)
            while True:
                time.sleep(1000)
        return str(pid)
    else:
        raise ValueError(words[0])
    return ""


def _serve():
    kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    files, done = {}, 0
    while True:
        try:
            with open("commands", encoding="utf-8") as f:
                lines = f.read().split("\n")[:-1]
        except FileNotFoundError:
            lines = []
        for line in lines[done:]:
            print("ok", _obey(line.split(), kvm, files), flush=True)
            if line == "leave":
                _syscall(_SYS_EXIT, 0)
        done = len(lines)
        time.sleep(0.002)


if __name__ == "__main__":
    _serve()
