# SPDX-License-Identifier: Apache-2.0
"""What systemd is to a service, as far as sd_notify(3), sd_listen_fds(3) and the fd store go."""

import array
import os
import socket
import sys
import tempfile
import threading

import lab
import tap

# Becomes the program, with the fds at 3 and following and the pid that sd_listen_fds() asks for.
_BECOME = """
import os, sys
fds = [int(fd) for fd in sys.argv[1].split(",") if fd]
high = [os.dup2(fd, 500 + i) for i, fd in enumerate(fds)]
for i, fd in enumerate(high):
    os.dup2(fd, 3 + i)
    os.close(fd)
if fds:
    os.environ["LISTEN_PID"] = str(os.getpid())
os.closerange(3 + len(fds), 500)
os.execv(sys.argv[2], sys.argv[2:])
"""


class Supervisor:
    """Starts daemons one after another. What they store is passed to the next one, `sockets` (a list
    of (name, socket)) to each. `words` is what they have said: a list of {key: value}."""

    def __init__(self, sockets=(), watchdog_s=None):
        self.sockets = list(sockets)
        self.watchdog_s = watchdog_s
        self.folder = tempfile.TemporaryDirectory(prefix="kvmstatd-notify-")
        self.path = os.path.join(self.folder.name, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self.socket.bind(self.path)
        os.chmod(self.path, 0o777)  # as systemd's is: services have users of their own
        os.chmod(self.folder.name, 0o755)
        self.lock = threading.Lock()
        self.words = []
        self._stored = []  # (name, fd), the oldest first
        self.trouble = []
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.stop_listening()
        self.drop_store()
        self.folder.cleanup()
        tap.check(not self.trouble, f"the supervisor: {self.trouble}")

    def stop_listening(self):
        """Nothing is read any more; who tells something is refused."""
        # Wakes the thread. A message to ourselves would wait for ever where the queue is full.
        self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.socket.close()

    def _listen(self):
        while True:
            data, ancillary, _flags, _from = self.socket.recvmsg(4096, socket.CMSG_SPACE(253 * 4))
            if not data:
                return
            fds = array.array("i")
            for level, kind, payload in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    fds.frombytes(payload[:len(payload) // 4 * 4])
            # Whatever happens, messages are read on: those who send them wait for that.
            try:
                words = dict(line.split("=", 1) for line in data.decode().splitlines() if "=" in line)
                with self.lock:
                    self._take(words, list(fds))
            except Exception as e:
                self.trouble.append(repr(e))

    def _take(self, words, fds):
        name = words.get("FDNAME", "stored")
        self.words.append(words)
        if "FDSTORE" in words:
            self._stored += [(name, fd) for fd in fds]
            fds = []
        if "FDSTOREREMOVE" in words:
            for gone in [entry for entry in self._stored if entry[0] == name]:
                self._stored.remove(gone)
                os.close(gone[1])
        for fd in fds:
            os.close(fd)

    def stored(self):
        with self.lock:
            return list(self._stored)

    def links(self, prefix=""):
        """What the files in the store are, of those whose names begin so."""
        with self.lock:
            return sorted(os.readlink(f"/proc/self/fd/{fd}") for name, fd in self._stored
                          if name.startswith(prefix))

    def drop_store(self):
        """What a stop does."""
        with self.lock:
            for _name, fd in self._stored:
                os.close(fd)
            self._stored = []

    def said(self, key):
        """All values of a key, in the order in which they came."""
        with self.lock:
            return [words[key] for words in self.words if key in words]

    def put(self, name, fd):
        """Into the store, without a daemon."""
        with self.lock:
            self._stored.append((name, os.dup(fd)))

    def start(self, config="", shuffle=None, ready=True, **kwargs):
        """A lab.Daemon under this supervisor; `prefix` is a command that becomes it."""
        stored = self.stored()
        if shuffle:
            shuffle(stored)  # systemd promises no order
        passed = [(name, s.fileno()) for name, s in self.sockets] + stored
        env = {"NOTIFY_SOCKET": self.path, **kwargs.pop("env", {})}
        if self.watchdog_s:
            env["WATCHDOG_USEC"] = str(int(self.watchdog_s * 1e6))
        if passed:
            env["LISTEN_FDS"] = str(len(passed))
            env["LISTEN_FDNAMES"] = ":".join(name for name, _ in passed)
        fds = [fd for _, fd in passed]
        prefix = [sys.executable, "-I", "-c", _BECOME, ",".join(map(str, fds)),
                  *kwargs.pop("prefix", [])]
        before = len(self.said("READY"))
        daemon = lab.Daemon(config, env=env, prefix=prefix, pass_fds=fds, **kwargs)
        if ready:
            tap.wait_for(lambda: len(self.said("READY")) > before, what="READY=1")
        return daemon


def tcp_socket():
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", 0))
    s.listen(128)
    return s


def unix_socket(path, kind=socket.SOCK_STREAM):
    s = socket.socket(socket.AF_UNIX, kind)
    s.bind(path)
    s.listen(128)
    return s
