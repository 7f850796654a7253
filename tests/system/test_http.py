# SPDX-License-Identifier: Apache-2.0
"""HTTP of the built daemon: routes, listeners, formats, compression, and clients that misbehave."""

import concurrent.futures
import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import zlib

import lab
import tap

t = tap.Tests()

# Other VMs of this machine are none of our business: each test reads its own alone.
RULES = """sampling:
  rules:
    - match: {vm: "NAME*"}
      interval: 100ms
    - match: {vm: "*"}
      enabled: false
"""

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
ROUTES = {
    "/metrics": 200,
    "/metrics?a=b": 200,
    "/": 200,
    "/-/healthy": 200,
    "/-/ready": 200,
    "/api/v1/vms": 200,
    "/nothing": 404,
    "/metrics/": 404,
    "/api/v1/": 404,
}


@contextlib.contextmanager
def large_exposition(config="", **kwargs):
    """A daemon whose exposition is larger than the buffers of a Unix socket, and such a socket.

    Yields (daemon, path of the socket).
    """
    tap.require_kvm()
    name = f"big{os.getpid()}"
    config += "metrics:\n  histograms: vcpu\n" + RULES.replace("NAME", name)
    with tempfile.TemporaryDirectory(prefix="kvmstatd-http-") as folder:
        path = os.path.join(folder, "http.sock")
        args = ["--web.listen-address", f"unix:{path}"]
        with lab.DemoVms(vms=10, vcpus=4, load="idle", name=name):
            with lab.Daemon(config, args=args, **kwargs) as daemon:
                def all_there():
                    text = daemon.metrics()
                    # Peaks take two readings.
                    return (text.count('\nkvm_vcpu_exits_total{vm="') == 10 * 4
                            and text.count('\nkvm_vcpu_exits_peak_rate{vm="') == 10
                            and text.count('\nkvm_vcpu_runqueue_wait_peak_ratio{vm="') == 10
                            and len(text) > 400_000)
                tap.wait_for(all_there, lab.TIMEOUT_S, what="all VMs in /metrics")
                yield daemon, path


def connect(path):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(lab.TIMEOUT_S)
    s.connect(path)
    return s


def start_slow_reader(path):
    """A connection whose answer has begun and is not read.

    The place of a request before may be given back a moment after its answer has come: then again.
    """
    def start():
        s = connect(path)
        s.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        beginning = s.recv(12, socket.MSG_WAITALL)
        if beginning == b"HTTP/1.1 200":
            return s
        s.close()
        tap.equal(beginning, b"HTTP/1.1 503", "the beginning of the answer")
        return None
    return tap.wait_for(start, lab.TIMEOUT_S, what="a free place")


def raw(daemon, request):
    """What comes back for these bytes, until the server closes."""
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=lab.TIMEOUT_S) as s:
        s.sendall(request)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := s.recv(65536):
                answer += chunk
        return answer


def raw_status(daemon, request):
    line = raw(daemon, request).split(b"\r\n")[0].split()
    return int(line[1]) if len(line) > 1 else None


def refused(config="", args=()):
    """Standard error of a daemon that does not start."""
    with lab.Daemon(config, args=args, wait=False) as daemon:
        tap.check(daemon.wait() != 0, "it started")
        return daemon.errors()


@t.test("every route answers GET and HEAD, and nothing else")
def _():
    with lab.Daemon() as daemon:
        for path, status in ROUTES.items():
            get = daemon.get(path)
            tap.equal(get.status, status, f"GET {path}")
            tap.check(get.body, f"GET {path} has no body")
            head = daemon.get(path, method="HEAD")
            tap.equal(head.status, status, f"HEAD {path}")
            tap.equal(head.body, b"", f"body of HEAD {path}")
            # Values change from scrape to scrape, and so do lengths.
            names = {name.lower() for name in get.headers} - {"date"}
            tap.equal({name.lower() for name in head.headers} - {"date"}, names, "headers of HEAD")
            tap.equal(head.headers["Content-Type"], get.headers["Content-Type"], path)
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
            for body in (None, b"x" * 100):
                answer = daemon.get("/metrics", method=method, body=body)
                tap.equal(answer.status, 405, method)
                tap.equal(answer.headers["Allow"], "GET, HEAD", method)
        history = daemon.get("/api/v1/history?vm=a&stat=exits")
        tap.equal(history.status, 404, "/api/v1/history")


@t.test("the Accept header chooses the format")
def _():
    prometheus_2_42 = ("application/openmetrics-text;version=1.0.0,"
                       "application/openmetrics-text;version=0.0.1;q=0.75,"
                       "text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
    prometheus_3 = ("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
                    "application/openmetrics-text;version=0.0.1;q=0.5,"
                    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
                    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2")
    cases = [(None, TEXT), ("", TEXT), ("*/*", TEXT), ("text/plain", TEXT), ("garbage", TEXT),
             ("application/openmetrics-text", OPENMETRICS), (prometheus_2_42, OPENMETRICS),
             (prometheus_3, OPENMETRICS),
             ("application/openmetrics-text;q=0.1,text/plain;q=0.9", TEXT)]
    with lab.Daemon() as daemon:
        for accept, content_type in cases:
            headers = {} if accept is None else {"Accept": accept}
            answer = daemon.get("/metrics", headers=headers)
            tap.equal(answer.headers["Content-Type"], content_type, f"Accept: {accept}")
            tap.equal(answer.text.endswith("# EOF\n"), content_type == OPENMETRICS, "the end")
            tap.equal(answer.headers["Vary"], "Accept, Accept-Encoding", "Vary")
            tap.equal(answer.headers["Cache-Control"], "no-store", "Cache-Control")
            tap.equal(answer.headers["X-Content-Type-Options"], "nosniff", "nosniff")


def names_of(text):
    """The VMs' series of an exposition, without values."""
    return [line.rsplit(" ", 1)[0] for line in text.splitlines() if line.startswith("kvm_")]


def same_series(actual, expected, what):
    """Thousands of names: only the first few that differ are told."""
    differing = [pair for pair in zip(actual, expected) if pair[0] != pair[1]]
    tap.check(actual == expected,
              f"{what}: {len(actual)} for {len(expected)} series, {differing[:2]}")


@t.test("gzip is what was compressed, for every client")
def _():
    with large_exposition() as (daemon, _path):
        plain = daemon.get("/metrics")
        tap.equal(plain.headers["Content-Encoding"], None, "not asked for")
        packed = daemon.get("/metrics", headers={"Accept-Encoding": "gzip"})
        tap.equal(packed.headers["Content-Encoding"], "gzip", "Content-Encoding")
        tap.check(len(packed.raw) < len(packed.body) / 4, f"{len(packed.raw)} bytes")
        # One member from several pieces: libcurl refuses more than one.
        unpacker = zlib.decompressobj(wbits=31)
        tap.equal(unpacker.decompress(packed.raw), packed.body, "the first member")
        tap.equal(unpacker.unused_data, b"", "what comes after it")
        same_series(names_of(packed.text), names_of(plain.text), "gzip")
        for accept in ("identity", "br", "gzip;q=0", "*;q=0"):
            answer = daemon.get("/metrics", headers={"Accept-Encoding": accept})
            tap.equal(answer.headers["Content-Encoding"], None, accept)
            tap.equal(len(names_of(answer.text)), len(names_of(plain.text)), accept)

        check = subprocess.run(["gzip", "-t"], input=packed.raw, capture_output=True, check=False)
        tap.equal(check.returncode, 0, f"gzip -t: {check.stderr}")
        curl = subprocess.run([tap.require_tool("curl"), "-sS", "--fail", "--compressed",
                               "--max-time", str(int(lab.TIMEOUT_S)), f"{daemon.url}/metrics"],
                              capture_output=True, check=False)
        tap.equal(curl.returncode, 0, f"curl: {curl.stderr}")
        same_series(names_of(curl.stdout.decode()), names_of(plain.text), "curl")


@t.test("a real Prometheus takes it")
def _():
    tap.require_tool("prometheus")
    with large_exposition() as (daemon, _path):
        series = len(names_of(daemon.metrics()))
        with lab.Prometheus([f"127.0.0.1:{daemon.port}"]) as prometheus:
            def scraped():
                found = prometheus.query("scrape_samples_scraped")
                return found and found[0][1] > 0
            tap.wait_for(scraped, lab.TIMEOUT_S, what="a scrape")
            tap.equal([v for _, v in prometheus.query("up")], [1.0], "up")
            # OpenMetrics has fewer of the VMs' (no _count where there is no _sum), and then ours.
            tap.between(series * 0.9, prometheus.query("scrape_samples_scraped")[0][1],
                        series + 300, "samples")
            tap.equal(len({labels["vm"] for labels, _ in prometheus.query("kvm_vcpu_exits_total")}),
                      10, "VMs")
            tap.equal(prometheus.targets()[0]["lastError"], "", "the last error")


@t.test("VMs as JSON and on the page, read or not")
def _():
    tap.require_kvm()
    odd = f'{os.getpid()}<b>&"\'ü\\\\'
    hidden_name = f"{os.getpid()}<i>"
    with lab.DemoVms(name=odd, vcpus=2) as vms, \
            lab.DemoVms(name=hidden_name, stats_fds="none") as hidden_vms:
        pids = [vms.vms[0][1], hidden_vms.vms[0][1]]

        def ours(daemon):
            by_pid = {vm["pid"]: vm for vm in daemon.get("/api/v1/vms").json()["vms"]}
            return [by_pid.get(pid) for pid in pids]

        config = RULES.replace("NAME", str(os.getpid())) + "discovery: {sources: [statsfd]}\n"
        with lab.Daemon(config) as daemon:
            tap.wait_for(lambda: all(ours(daemon)), lab.TIMEOUT_S, what="both VMs")
            answer = daemon.get("/api/v1/vms")
            tap.equal(answer.headers["Content-Type"], "application/json", "Content-Type")
            found = answer.json()
            tap.equal(found["counts"]["read"], 1, "read")
            tap.equal(found["counts"]["unreadable"], 1, "unreadable")
            tap.equal(found["counts"]["unreadable_by_reason"]["no_stats_fd"], 1, "no_stats_fd")
            read, hidden = ours(daemon)
            tap.equal(read["name"], odd, "name")
            tap.equal(read["vm"], odd, "vm")
            tap.equal(read["vcpus"], 2, "vcpus")
            tap.equal(read["vcpus_read"], 2, "vcpus_read")
            tap.equal(read["vm_scope_read"], True, "vm_scope_read")
            tap.equal(read["interval_ms"], 100, "interval_ms")
            tap.equal(read["source"], "statsfd", "source")
            tap.equal(read["reason"], None, "reason")
            tap.equal(hidden["name"], hidden_name, "name")
            tap.equal(hidden["reason"], "no_stats_fd", "reason")
            tap.equal(hidden["source"], None, "source")
            tap.check(hidden["detail"], "no detail")
            page = daemon.get("/").text
            tap.check("no_stats_fd" in page, "the page gives no reason")
            tap.check("<i>" not in page, "the page is not escaped")
            tap.check("<strong>1</strong> cannot be read" in page, "the page does not count")


@t.test("several listeners at once: IPv4, IPv6, every address, a Unix socket")
def _():
    with tempfile.TemporaryDirectory(prefix="kvmstatd-http-") as folder:
        path = os.path.join(folder, "http.sock")
        v6_port, any_port = lab.free_ports(2)
        v6 = f"[::1]:{v6_port}"
        try:
            with socket.socket(socket.AF_INET6) as s:
                s.bind(("::1", 0))
        except OSError:
            v6 = f"localhost:{v6_port}"
        args = []
        for address in (v6, f":{any_port}", f"unix:{path}"):
            args += ["--web.listen-address", address]
        with lab.Daemon(args=args) as daemon:
            urls = [daemon.url, f"http://{v6}", f"http://127.0.0.1:{any_port}", f"unix:{path}:"]
            if v6.startswith("["):
                urls.append(f"http://[::1]:{any_port}")
            for url in urls:
                tap.equal(lab.fetch(url + "/-/healthy").status, 200, url)
                tap.check("kvmstatd_build_info" in lab.fetch(url + "/metrics").text, url)
            tap.equal(os.stat(path).st_mode & 0o777, 0o660, "mode of the socket")
            tap.equal(daemon.stop(), 0, "exit status")
            tap.check(not os.path.exists(path), "the socket's file stays behind")


@t.test("a killed daemon's socket is replaced, a living one's is not")
def _():
    with tempfile.TemporaryDirectory(prefix="kvmstatd-http-") as folder:
        path = os.path.join(folder, "http.sock")
        args = ["--web.listen-address", f"unix:{path}"]
        with lab.Daemon(args=args) as daemon:
            daemon.kill(signal.SIGKILL)
            daemon.wait()
        tap.check(os.path.exists(path), "the socket's file is gone")
        with lab.Daemon(args=args) as daemon:
            errors = refused(args=args)
            tap.check(path in errors and "in use" in errors, errors)
            tap.equal(lab.fetch(f"unix:{path}:/-/healthy").status, 200, "the first daemon")


@t.test("what cannot be listened on is said with its address")
def _():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        errors = refused(args=["--web.listen-address", address])
        tap.check(address in errors and "in use" in errors, errors)
    errors = refused(args=["--web.listen-address", "unix:/no/such/folder/http.sock"])
    tap.check("/no/such/folder/http.sock" in errors, errors)


@t.test("an address that the machine has not got is warned of, and keeps nothing from being served")
def _():
    nobodys = "192.0.2.1:10177"  # RFC 5737
    with lab.Daemon(args=["--web.listen-address", nobodys]) as daemon:
        tap.equal(daemon.get("/-/healthy").status, 200)
        tap.check(f"web.listen: {nobodys}: this machine has no such address" in daemon.errors(),
                  daemon.errors())


@t.test("malformed requests are refused, and only they")
def _():
    with lab.Daemon() as daemon:
        cases = [
            (b"GET /metrics\r\n\r\n", 400),
            (b"GET /metrics HTTP/1.1\r\n\r\n", 400),
            (b"GET /metrics HTTX/1.1\r\nHost: x\r\n\r\n", 400),
            (b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
            (b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 413),
            (b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 3\r\n\r\nabc",
             413),
            (b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nTransfer-Encoding: chunked"
             b"\r\n\r\n", 413),
            (b"GET /metrics HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 100_000 + b"\r\n\r\n", 431),
            (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
            (b"GET http://x/metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 200),
            (b"GET HTTPS://x:1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 200),
            (b"GET ftp://x/metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
            (b"GET /-/../metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
            (b"GET /metrics HTTP/7.0\r\nHost: x\r\n\r\n", 505),
            (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n", None),
        ]
        for request, status in cases:
            tap.equal(raw_status(daemon, request), status, repr(request[:60]))
        for _ in range(200):
            junk = t.random.randbytes(t.random.randrange(1, 400))
            with socket.create_connection(("127.0.0.1", daemon.port)) as s:
                with contextlib.suppress(OSError):
                    s.sendall(junk + b"\r\n\r\n")
        tap.equal(daemon.get("/-/healthy").status, 200, "afterwards")
        tap.check(" error " not in daemon.errors(), daemon.errors())


@t.test("half requests hold nothing up")
def _():
    with lab.Daemon() as daemon, contextlib.ExitStack() as stack:
        for i in range(40):
            s = stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port)))
            s.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n"[:i])
        for _ in range(5):
            tap.equal(daemon.get("/metrics").status, 200, "/metrics")


@t.test("fifty scrapes at a time")
def _():
    with large_exposition("web:\n  max_requests: 100\n") as (daemon, _path):
        series = names_of(daemon.metrics())
        def scrape(i):
            headers = {"Accept-Encoding": "gzip"} if i % 2 else {}
            answer = daemon.get("/metrics", headers=headers)
            tap.equal(answer.status, 200, "status")
            return names_of(answer.text)
        with concurrent.futures.ThreadPoolExecutor(50) as pool:
            for names in pool.map(scrape, range(100)):
                same_series(names, series, "one of many")


@t.test("slow readers cost nobody else anything")
def _():
    with large_exposition() as (daemon, path), contextlib.ExitStack() as stack:
        def ticks():
            line = next(l for l in daemon.metrics().splitlines()
                        if l.startswith("kvmstatd_ticks_total "))
            return int(line.split()[1])
        before = ticks()
        for _ in range(20):
            stack.enter_context(start_slow_reader(path))
        for _ in range(5):
            tap.equal(daemon.get("/metrics").status, 200, "/metrics")
            tap.equal(lab.fetch(f"unix:{path}:/metrics").status, 200, "/metrics of the socket")
        tap.wait_for(lambda: ticks() > before + 5, lab.TIMEOUT_S, what="sampling to go on")
        tap.equal(daemon.stop(), 0, "exit status with all of them connected")


@t.test("more than web.max_requests are refused, probes are not")
def _():
    with large_exposition("web:\n  max_requests: 2\n") as (daemon, path):
        readers = [start_slow_reader(path) for _ in range(2)]
        answer = daemon.get("/metrics")
        tap.equal(answer.status, 503, "a third request")
        tap.check(int(answer.headers["Retry-After"]) > 0, "Retry-After")
        tap.equal(daemon.get("/-/healthy").status, 200, "/-/healthy")
        tap.equal(daemon.get("/-/ready").status, 200, "/-/ready")
        readers.pop().close()
        tap.wait_for(lambda: daemon.get("/metrics").status == 200, lab.TIMEOUT_S,
                     what="a free place")
        # The other one gets its whole answer, however late.
        rest = b"HTTP/1.1 200"
        while b"\r\n\r\n" not in rest:
            rest += readers[0].recv(1 << 16)
        head, _, body = rest.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split()[0])
        while len(body) < length and (chunk := readers[0].recv(1 << 20)):
            body += chunk
        tap.equal(len(body), length, "bytes of the late answer")
        readers[0].close()


@t.test("clients that go in the middle leave no fd and no thread behind")
def _():
    with large_exposition("web:\n  max_requests: 3\n") as (daemon, path):
        fds, threads = daemon.n_fds(), daemon.n_threads()
        for _ in range(30):
            start_slow_reader(path).close()
            with connect(path) as s:
                s.sendall(b"GET /metrics HTTP/1.1\r\nHo")
        tap.wait_for(lambda: daemon.n_fds() <= fds, lab.TIMEOUT_S, what="the fds to be closed")
        tap.equal(daemon.n_threads(), threads, "threads")
        readers = [start_slow_reader(path) for _ in range(3)]
        tap.equal(daemon.get("/metrics").status, 503, "all places were free again")
        for s in readers:
            s.close()


t.main()
