# SPDX-License-Identifier: Apache-2.0
"""Two hosts and a cable between them that can be pulled: network namespaces of the test's own."""

import contextlib
import ctypes
import os
import subprocess

import tap

HERE, AWAY = "10.99.0.1", "10.99.0.2"
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _own():
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _enter(fd):
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _new():
    if _libc.unshare(_CLONE_NEWNET) != 0:
        tap.skip(f"no network namespace can be made: {os.strerror(ctypes.get_errno())}")
    return _own()


def _ip(*words):
    done = subprocess.run([tap.require_tool("ip"), *words], capture_output=True, text=True,
                          check=False)
    return done.stderr.strip()


class Cable:
    """Within it the main thread, and whatever it starts, is on one host, HERE."""

    def __init__(self):
        tap.require_root()
        tap.require_tool("ip")
        with contextlib.ExitStack() as stack:
            former = _own()
            stack.callback(os.close, former)
            stack.callback(_enter, former)
            self.there = _new()
            stack.callback(os.close, self.there)
            self.here = _new()
            stack.callback(os.close, self.here)
            trouble = _ip("link", "add", "here", "type", "veth", "peer", "name", "away", "netns",
                          f"/proc/{os.getpid()}/fd/{self.there}")
            if trouble:
                tap.skip(f"no veth: {trouble}")
            self._set_up("here", HERE)
            with self.away():
                self._set_up("away", AWAY)
            self.stack = stack.pop_all()

    @staticmethod
    def _set_up(device, address):
        for words in (("link", "set", "lo", "up"), ("addr", "add", f"{address}/24", "dev", device),
                      ("link", "set", device, "up")):
            trouble = _ip(*words)
            tap.check(not trouble, trouble)

    @contextlib.contextmanager
    def away(self):
        """On the other host. A socket stays on the host where it was made."""
        _enter(self.there)
        try:
            yield
        finally:
            _enter(self.here)

    def pull(self):
        """From now on nothing passes, and nobody is told."""
        with self.away():
            tap.equal(_ip("link", "set", "away", "down"), "")

    def plug_in(self):
        with self.away():
            tap.equal(_ip("link", "set", "away", "up"), "")

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.stack.close()
