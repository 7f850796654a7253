# SPDX-License-Identifier: Apache-2.0
"""Boots a kernel under QEMU's emulation, and reads its console until the machine goes down or its
time is up. QEMU ends with this process, whatever ends it."""

import ctypes
import glob
import os
import select
import shutil
import signal
import subprocess
import threading
import time

PANIC = b"Kernel panic - not syncing"
END = b"lab: end"  # the last line of init.sh
_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


_machines = set()
_machines_lock = threading.Lock()


class Console:
    """What a machine printed, and how it ended."""

    def __init__(self):
        self.text = ""
        self.complete = False  # its init came to its end
        self.seconds = 0.0

    def tail(self, lines=60):
        return "\n".join(self.text.splitlines()[-lines:])


def image(tree):
    found = sorted(glob.glob(os.path.join(tree, "boot/vmlinu[xz]-*")))
    if len(found) != 1:
        raise FileNotFoundError(f"{tree}/boot has {found or 'no kernel'}")
    return found[0]


def release(tree):
    return os.path.basename(image(tree)).partition("-")[2]


def command(kernel, tree, initrd, append="", devices=("-smp", "1", "-serial", "stdio")):
    """The machine's command line; the result of its first process is awaited at standard output."""
    a = kernel.architecture
    # Slow is not hung: a busy host must not make the emulated kernel complain of it.
    options = (f"console={a.console} panic=-1 loglevel=4 nowatchdog rcupdate.rcu_cpu_stall_suppress=1"
               f" {append}").strip()
    return [shutil.which(a.emulator), "-accel", "tcg", *a.qemu, "-nodefaults",
            "-no-user-config", "-display", "none", *devices, "-no-reboot",
            "-kernel", image(tree), "-initrd", initrd, "-append", options]


def _before_exec(parent):
    def prepare():
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        os.nice(10)
    return prepare


def run(argv, limit_s, log_path, echo=None):
    """Run a machine to its end. `echo`: called with each line as it comes."""
    console = Console()
    begin = time.monotonic()
    with open(log_path, "wb") as log:
        qemu = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, preexec_fn=_before_exec(os.getpid()))
        with _machines_lock:
            _machines.add(qemu)
        try:
            _read(qemu.stdout.fileno(), console, begin + limit_s, log, echo)
        finally:
            qemu.kill()  # it has nothing to lose: there is no disk
            qemu.wait()
            with _machines_lock:
                _machines.discard(qemu)
            qemu.stdout.close()
    console.seconds = time.monotonic() - begin
    return console


def end_all():
    """End the machines that run in other threads, which then return what came so far."""
    with _machines_lock:
        for qemu in _machines:
            qemu.kill()


def _read(fd, console, deadline, log, echo):
    pending = b""
    lines = []
    while not console.complete:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([fd], [], [], left)[0]:
            lines.append("lab: out of time")
            break
        chunk = os.read(fd, 65536)
        if not chunk:
            break
        log.write(chunk)
        *whole, pending = (pending + chunk).split(b"\n")
        for line in whole:
            line = line.strip(b"\r")
            lines.append(line.decode("utf-8", "replace"))
            if echo:
                echo(lines[-1])
            console.complete = console.complete or line.startswith(END)
            if PANIC in line:  # what it has to say it has said, and it may not come to its end
                deadline = min(deadline, time.monotonic() + 2)
    console.text = "\n".join(lines + ([pending.decode("utf-8", "replace")] if pending else []))
