# SPDX-License-Identifier: Apache-2.0
"""What system and end-to-end tests start: demo VMs, the daemon, QEMU guests, a real Prometheus.

Everything is a context manager, and everything that was started ends with the test whatever becomes
of the test: at the end of the `with`, by atexit, and by the kernel (PR_SET_PDEATHSIG) where the test
itself is killed. Processes are ended by their own pid (never by name). Start them from the main
thread: the kernel's death signal follows the *thread* that forked.

KVMSTATD_BUILD names the build folder (default: build/ in the source tree).
"""

import atexit
import contextlib
import ctypes
import gzip
import http.client
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
import urllib.parse

import tap

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(os.environ.get("KVMSTATD_BUILD", os.path.join(SOURCE, "build")))
TIMEOUT_S = tap.TIMEOUT_S


def sanitized():
    """Whether what is tested was built with sanitizers, whose memory and time are not the program's."""
    with open(os.path.join(BUILD, "CMakeCache.txt"), encoding="utf-8") as f:
        return any(line.startswith("KVMSTATD_SANITIZE:") and line.strip().split("=", 1)[1]
                   for line in f)


_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_PR_SET_SECCOMP = 22
_running = []


def program(name):
    """The path of one of our executables; its absence is a failure, for it is what we test.

    KVMSTATD_CONFINED names a program that becomes the daemon, under a restriction (tests/run --seccomp).
    """
    path = os.path.join(BUILD, "bin", name)
    if name == "kvmstatd":
        path = os.environ.get("KVMSTATD_CONFINED", path)
    if not os.access(path, os.X_OK):
        raise AssertionError(f"{path} was not built")
    return path


def _end_all():
    for process in list(_running):
        process.end()


atexit.register(_end_all)


def _turn_signal_into_exit(number, _frame):
    """SIGTERM (a test runner's timeout) unwinds the test, so that every context manager ends."""
    raise SystemExit(128 + number)


signal.signal(signal.SIGTERM, _turn_signal_into_exit)


def keep_capabilities(*numbers):
    """For preexec: a root process with these capabilities alone (capability.h has the numbers)."""
    def drop():
        with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as f:
            last = int(f.read())
        for cap in range(last + 1):
            if cap not in numbers and _libc.prctl(_PR_CAPBSET_DROP, cap, 0, 0, 0) != 0:
                os._exit(1)
    return drop  # what exec() gives to root is what the bounding set still has


def forbid_call(number):
    """For preexec: a system call that seccomp answers with EPERM (x86_64 or generic numbers)."""
    class Filter(ctypes.Structure):
        _fields_ = [("len", ctypes.c_ushort), ("code", ctypes.c_void_p)]

    def instruction(code, yes, no, k):
        return struct.pack("=HBBI", code, yes, no, k)
    code = (instruction(0x20, 0, 0, 0)              # load the call's number
            + instruction(0x15, 0, 1, number)       # is it this one?
            + instruction(0x06, 0, 0, 0x00050001)   # SECCOMP_RET_ERRNO, EPERM
            + instruction(0x06, 0, 0, 0x7fff0000))  # SECCOMP_RET_ALLOW
    memory = ctypes.create_string_buffer(code, len(code))

    def forbid():
        program_of = Filter(len(code) // 8, ctypes.addressof(memory))
        if _libc.prctl(_PR_SET_SECCOMP, 2, ctypes.byref(program_of), 0, 0) != 0:
            os._exit(1)
    return forbid


class Process:
    """A child process with its output at hand. `errors()` is what it wrote to standard error."""

    def __init__(self, argv, env=None, preexec=None, folder=None, pass_fds=()):
        self.argv = argv
        self.folder = folder or tempfile.mkdtemp(prefix="kvmstatd-test-")
        self._pending = b""
        parent = os.getpid()

        def before_exec():
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:  # the parent went before the line above
                os._exit(1)
            if preexec:
                preexec()

        self._errors_path = os.path.join(self.folder, "stderr")
        with open(self._errors_path, "wb") as errors:
            self.child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **(env or {})},
                cwd=self.folder,
                preexec_fn=before_exec,
                pass_fds=pass_fds,
                start_new_session=True,
                bufsize=0,
            )
        self.pid = self.child.pid
        _running.append(self)

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.end()

    def errors(self):
        try:
            with open(self._errors_path, encoding="utf-8", errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def read_line(self, timeout_s=None):
        """The next line of standard output without its newline; None at its end."""
        deadline = time.monotonic() + (TIMEOUT_S if timeout_s is None else timeout_s)
        while b"\n" not in self._pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.child.stdout], [], [], left)[0]:
                raise AssertionError(f"{self.argv[0]} printed nothing more; errors: {self.errors()}")
            chunk = os.read(self.child.stdout.fileno(), 65536)
            if not chunk:
                line, self._pending = self._pending, b""
                return line.decode(errors="replace") if line else None
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode(errors="replace")

    def read_all(self):
        """Everything that standard output still brings, until its end."""
        lines = []
        while (line := self.read_line()) is not None:
            lines.append(line)
        return "\n".join(lines)

    def running(self):
        return self.child.poll() is None

    def kill(self, number=signal.SIGKILL):
        self.child.send_signal(number)

    def freeze(self):
        """SIGSTOP, and not back before each of its threads stands; SIGCONT lets it go on."""
        self.kill(signal.SIGSTOP)
        tap.wait_for(lambda: {stat.rpartition(")")[2].split()[0]
                              for stat in of_threads(self.pid, "stat").values()} == {"T"},
                     every_s=0.001, what="all threads to stand")

    def wait(self, timeout_s=None):
        """Wait for its exit; returns the exit status (negative: killed by that signal)."""
        try:
            return self.child.wait(TIMEOUT_S if timeout_s is None else timeout_s)
        except subprocess.TimeoutExpired as e:
            raise AssertionError(f"{self.argv[0]} does not exit; errors: {self.errors()}") from e

    def stop(self, number=signal.SIGTERM):
        """Ask it to stop, wait, and return its exit status."""
        if self.running():
            self.kill(number)
        return self.wait()

    def end(self):
        """End it for certain: a term, then a kill. Safe to call again."""
        if self in _running:
            _running.remove(self)
        if self.running():
            self.child.terminate()
            try:
                self.child.wait(10)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        self.child.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class DemoVms(Process):
    """kvmstatd-demo-vm; ready once constructed. `vms` is a list of (name, pid).

    name=None leaves a single VM unnamed (its name in `vms` is then "-").
    """

    def __init__(self, vms=1, vcpus=1, name="demo", load="mix", stats_fds="keep", fds=0, rate=None,
                 args=()):
        argv = [program("kvmstatd-demo-vm"), "--vms", str(vms), "--vcpus", str(vcpus),
                "--load", load, "--stats-fds", stats_fds, "--fds", str(fds)]
        if name is not None:
            argv += ["--name", name]
        if rate is not None:
            argv += ["--rate", str(rate)]
        super().__init__(argv + list(args))
        self.vms = []
        self.n_vcpus = vcpus
        try:
            self._wait_ready(vms)
        except BaseException:
            self.end()
            raise

    def _wait_ready(self, vms):
        while (line := self.read_line()) is not None:
            word, _, rest = line.partition(" ")
            if word == "vm":
                name, _, pid = rest.rpartition(" ")
                self.vms.append((name, int(pid)))
            elif word == "ready":
                tap.equal(int(rest), vms, "number of VMs ready")
                return
        raise AssertionError(f"demo VMs did not start: {self.errors()}")

    def counts(self):
        """What each vCPU's VMM thread has counted: {(name, vcpu): {"io": n, "mmio": n, "halt": n}}.

        Exact at the moment of the answer; read KVM's own statistics before and after to compare.
        """
        for _, pid in self.vms:
            os.kill(pid, signal.SIGUSR1)
        counts = {}
        while len(counts) < len(self.vms) * self.n_vcpus:
            line = self.read_line()
            if line is None:
                raise AssertionError(f"a demo VM ended: {self.errors()}")
            if not line.startswith("count "):
                continue
            head, _, tail = line[len("count "):].rpartition(" vcpu ")
            words = tail.split()
            counts[(head, int(words[0]))] = {k: int(v) for k, v in zip(words[1::2], words[2::2])}
        return counts


def of_threads(pid, name):
    """{tid: the text of /proc/PID/task/TID/NAME} of a process's threads, some of which come and go."""
    found = {}
    for tid in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), \
                open(f"/proc/{pid}/task/{tid}/{name}", encoding="utf-8", errors="replace") as f:
            found[int(tid)] = f.read()
    return found


def free_ports(n):
    """So many loopback TCP ports that are free now, each another one."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


def free_port():
    return free_ports(1)[0]


class Response:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers  # http.client.HTTPMessage: case-insensitive .get()
        self.raw = body
        packed = (headers.get("Content-Encoding") or "") == "gzip"
        self.body = gzip.decompress(body) if packed and body else body

    @property
    def text(self):
        return self.body.decode("utf-8")

    def json(self):
        return json.loads(self.body)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def fetch(url, method="GET", headers=None, body=None, timeout_s=None):
    """One HTTP request, any status is a Response. `url`: http://HOST:PORT/PATH?QUERY, or
    unix:SOCKET:/PATH?QUERY. No header is sent that was not asked for, but Host.
    """
    timeout = TIMEOUT_S if timeout_s is None else timeout_s
    if url.startswith("unix:"):
        path, _, target = url[len("unix:"):].partition(":")
        connection = UnixConnection(path, timeout)
    else:
        parts = urllib.parse.urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.putrequest(method, target, skip_accept_encoding=True)
        for key, value in (headers or {}).items():
            connection.putheader(key, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return Response(answer.status, answer.msg, answer.read())
    finally:
        connection.close()


class _Served(Process):
    """A child with an HTTP port: waits until its ready page answers 200."""

    url = ""
    ready_path = "/-/ready"

    def get(self, path, **kwargs):
        return fetch(self.url + path, **kwargs)

    def _is_ready(self):
        if not self.running():
            raise AssertionError(
                f"{self.argv[0]} exited with {self.child.returncode}: {self.errors()}")
        try:
            return self.get(self.ready_path, timeout_s=5).status == 200
        except (OSError, http.client.HTTPException):
            return False

    def wait_ready(self):
        tap.wait_for(self._is_ready, TIMEOUT_S, 0.02, f"readiness of {self.argv[0]}")


class Daemon(_Served):
    """kvmstatd on a free loopback port.

    `config` is YAML text. Where it says nothing about `handoff` or `recorder`, those are pointed into
    this process's own folder, so that tests do not meet on the machine's real paths. "@DIR@" in it
    stands for that folder. write_config() and reload() change it under the running daemon.
    `listen=False` gives no --web.listen-address (the configuration's own then holds). `prefix` is a
    command that becomes the daemon.
    """

    def __init__(self, config="", args=(), wait=True, listen=True, env=None, preexec=None, prefix=(),
                 pass_fds=()):
        self.home = tempfile.mkdtemp(prefix="kvmstatd-home-")
        self.config_path = os.path.join(self.home, "kvmstatd.yaml")
        self.write_config(config)
        argv = [*prefix, program("kvmstatd"), "--config", self.config_path]
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        if listen:
            argv += ["--web.listen-address", f"127.0.0.1:{self.port}"]
        super().__init__(argv + list(args), env=env, preexec=preexec, folder=self.home,
                         pass_fds=pass_fds)
        try:
            if wait:
                self.wait_ready()
        except BaseException:
            self.end()
            raise

    def write_config(self, text, complete=True):
        """Replace the configuration file; complete=False writes the text as it is."""
        if complete:
            keys = [line.split(":")[0] for line in text.splitlines() if line[:1].isalpha()]
            text = text if not text or text.endswith("\n") else text + "\n"
            if "handoff" not in keys:
                text += "handoff:\n  socket: @DIR@/handoff.sock\n"
            if "recorder" not in keys:
                text += "recorder:\n  directory: @DIR@/recorder\n"
        # A reload that comes late must not find it empty.
        new = self.config_path + ".new"
        with open(new, "w", encoding="utf-8", errors="surrogateescape") as f:
            f.write(text.replace("@DIR@", self.home))
        os.replace(new, self.config_path)

    def reload(self, text=None):
        if text is not None:
            self.write_config(text)
        self.kill(signal.SIGHUP)

    def metrics(self, accept=None):
        """The text of /metrics."""
        response = self.get("/metrics", headers={"Accept": accept} if accept else None)
        tap.equal(response.status, 200, "/metrics")
        return response.text

    def n_fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def n_threads(self):
        return len(os.listdir(f"/proc/{self.pid}/task"))


class Qemu(Process):
    """A QEMU guest under KVM that runs SeaBIOS and nothing else; its vCPUs exist once constructed."""

    def __init__(self, name="qemu", vcpus=1, args=(), binary="qemu-system-x86_64", uuid=None):
        tap.require_kvm()
        argv = [tap.require_tool(binary), "-accel", "kvm", "-display", "none", "-machine", "pc",
                "-m", "32", "-smp", str(vcpus), "-nodefaults", "-no-user-config"]
        if name is not None:
            argv += ["-name", "guest=" + name.replace(",", ",,")]
        if uuid is not None:
            argv += ["-uuid", uuid]
        super().__init__(argv + list(args))
        try:
            tap.wait_for(lambda: self._n_vcpus() >= vcpus, TIMEOUT_S, 0.02, "QEMU's vCPUs")
        except BaseException:
            self.end()
            raise

    def _n_vcpus(self):
        if not self.running():
            raise AssertionError(f"QEMU exited: {self.errors()}")
        return sum(link.startswith("anon_inode:kvm-vcpu:") for link in fd_links(self.pid))


def fd_links(pid):
    """The link texts of a process's fds; those that vanish under the look are left out."""
    links = []
    folder = f"/proc/{pid}/fd"
    for fd in os.listdir(folder):
        try:
            links.append(os.readlink(os.path.join(folder, fd)))
        except FileNotFoundError:
            continue
    return links


class Prometheus(_Served):
    """A real Prometheus that scrapes `targets` (host:port, without http://) on loopback.

    `jobs`: for each job's name, what its scrape configuration has beyond the targets.
    """

    def __init__(self, targets, interval="1s", jobs=None, flags=()):
        binary = tap.require_tool("prometheus")
        self.home = tempfile.mkdtemp(prefix="kvmstatd-prometheus-")
        config = os.path.join(self.home, "prometheus.yml")
        configs = [{"job_name": name, "static_configs": [{"targets": list(targets)}], **config}
                   for name, config in (jobs or {"kvmstatd": {}}).items()]
        with open(config, "w", encoding="utf-8") as f:  # JSON is YAML
            json.dump({"global": {"scrape_interval": interval, "scrape_timeout": interval},
                       "scrape_configs": configs}, f)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        super().__init__([binary, f"--config.file={config}", "--log.level=warn",
                          f"--storage.tsdb.path={self.home}/data",
                          f"--web.listen-address=127.0.0.1:{port}", *flags], folder=self.home)
        try:
            self.wait_ready()
        except BaseException:
            self.end()
            raise

    def api(self, path, **params):
        answer = self.get(f"/api/v1/{path}?{urllib.parse.urlencode(params)}").json()
        tap.equal(answer["status"], "success", f"Prometheus {path}: {answer.get('error')}")
        return answer["data"]

    def query(self, promql, at=None):
        """An instant query: a list of ({label: value}, number); a scalar has no labels."""
        data = self.api("query", query=promql, **({"time": at} if at is not None else {}))
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(r["metric"], float(r["value"][1])) for r in data["result"]]

    def query_range(self, promql, start, end, step="1s"):
        """A range query: a list of ({label: value}, [(time, number), …])."""
        data = self.api("query_range", query=promql, start=start, end=end, step=step)
        return [(r["metric"], [(t, float(v)) for t, v in r["values"]]) for r in data["result"]]

    def targets(self):
        return self.api("targets", state="active")["activeTargets"]
