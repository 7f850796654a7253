# SPDX-License-Identifier: Apache-2.0
"""Reloads of the running daemon: every key takes effect, what is wrong changes nothing, those that
are not meant do not notice, and a thousand of them leave nothing behind; nor do a thousand VMs."""

import contextlib
import glob
import os
import re
import signal
import socket
import tempfile
import time

import lab
import tap
from exposed import first_sample, row, series

t = tap.Tests()
NAME = f"reload-{os.getpid()}"
PAGE = os.sysconf("SC_PAGE_SIZE")
DONE, REFUSED = b"configuration reloaded", b"configuration in force stays"


def rules(*more, prefix=NAME):
    """Rules for the VMs of this test; all others on this host are not read."""
    lines = [*more, f'{{match: {{vm: "{prefix}*"}}, enabled: true}}',
             '{match: {vm: "*"}, enabled: false}']
    return "  rules:\n" + "".join(f"    - {line}\n" for line in lines)


class Reloaded:
    """Reloads of a daemon, each waited for: a signal that comes while one is pending is lost."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.log = open(os.path.join(daemon.folder, "stderr"), "rb")
        self.said = b""

    def __call__(self, text=None, good=True, complete=True):
        """Returns what was logged meanwhile."""
        self.log.seek(0, os.SEEK_END)
        self.said = b""
        if text is not None:
            self.daemon.write_config(text, complete=complete)
        self.daemon.kill(signal.SIGHUP)

        def is_over():
            self.said += self.log.read()
            return DONE in self.said or REFUSED in self.said
        tap.wait_for(is_over, lab.TIMEOUT_S, 0.0005, "the reload")
        said = self.said.decode(errors="replace")
        tap.equal(DONE in self.said, good, f"a reload that was {'good' if good else 'bad'}: {said}")
        return said


def rows(daemon):
    """The VMs of this test: others of this host are none of our business."""
    return [v for v in daemon.get("/api/v1/vms").json()["vms"] if v["vm"].startswith(NAME)]


def value(daemon, name):
    return float(series(daemon)[name])


def succeeded(daemon):
    return value(daemon, "kvmstatd_config_last_reload_successful")


def interval(daemon, vm):
    return next(r["interval_ms"] for r in rows(daemon) if r["vm"] == vm)


# --- (1) every key ---


def has(needle):
    return lambda d, vm: needle.replace("@VM@", vm) in d.metrics()


def lacks(needle):
    return lambda d, vm: needle.replace("@VM@", vm) not in d.metrics()


def threads_cpus(daemon, name):
    for tid, comm in lab.of_threads(daemon.pid, "comm").items():
        if comm.strip() == name:
            return os.sched_getaffinity(tid)
    return None


CPU = max(os.sched_getaffinity(0))
CASES = (  # key, what is added to the configuration, whether it is in force
    ("sampling.interval", "sampling: {interval: 30ms}\n", lambda d, vm: interval(d, vm) == 30),
    ("sampling.rules.interval", "sampling:\n" + rules('{match: {vm: "@VM@"}, interval: 40ms}'),
     lambda d, vm: interval(d, vm) == 40),
    ("sampling.rules.enabled", "sampling:\n" + rules('{match: {vm: "@VM@"}, enabled: false}'),
     lacks('kvm_vm_info{vm="@VM@"')),
    ("sampling.cpu_affinity", f"sampling: {{cpu_affinity: [{CPU}]}}\n",
     lambda d, _: threads_cpus(d, "kvmstatd-sample") == {CPU}),
    ("discovery.sources", "discovery: {sources: [handoff]}\n", lacks('kvm_vm_info{vm="@VM@"')),
    ("metrics.include", "metrics: {include: [halt_wait_ns]}\n",
     lacks('kvm_vcpu_exits_total{vm="@VM@"')),
    ("metrics.exclude", "metrics: {exclude: [exits]}\n", lacks('kvm_vcpu_exits_total{vm="@VM@"')),
    ("metrics.vcpu", "metrics: {vcpu: false}\n", has('kvm_vcpu_exits_total{vm="@VM@"}')),
    ("metrics.histograms", "metrics: {histograms: 'off'}\n",
     lacks("kvm_vcpu_halt_wait_hist_seconds_bucket")),
    ("bursts.windows", "bursts: {windows: [7s]}\n",
     has('kvm_vcpu_exits_peak_rate{vm="@VM@",window="7s"}')),
    ("bursts.stats", "bursts: {stats: [hypercalls]}\n",
     has('kvm_vcpu_hypercalls_peak_rate{vm="@VM@",window="15s"}')),
    ("bursts.distribution", "bursts: {distribution: []}\n",
     lacks("kvm_vcpu_exits_tick_rate_count")),
    ("bursts.scope", "bursts: {scope: vcpu}\n",
     has('kvm_vcpu_exits_peak_rate{vm="@VM@",vcpu="1",window="15s"}')),
    ("scheduler.interval", "scheduler: {interval: 'off'}\n", lacks("kvm_vcpu_cpu_seconds_total{")),
    ("recorder.memory", "recorder: {memory: 0, directory: @DIR@/recorder}\n",
     lambda d, vm: d.get(f"/api/v1/history?vm={vm}").status == 404),
    ("limits.max_vms", "limits: {max_vms: 1}\n",
     lambda d, _: "limits.max_vms is lower than the 2 VMs that are read" in d.errors()),
    ("limits.max_vcpus_per_vm", "limits: {max_vcpus_per_vm: 1}\n",
     lambda d, _: "limits.max_vcpus_per_vm is lower than what 2 VMs have" in d.errors()),
    ("handoff.socket", "handoff: {socket: @DIR@/other.sock}\n",
     lambda d, _: connects(d, "other.sock") and not os.path.exists(f"{d.home}/handoff.sock")),
    ("handoff.allow_users", "handoff: {socket: @DIR@/handoff.sock, allow_users: []}\n",
     lambda d, _: not os.path.exists(f"{d.home}/handoff.sock")),
)
QUIET = "sampling:\n" + rules()
# Those that further tests of this file and of test_web_config.py change.
ELSEWHERE = {"sampling.rules", "discovery.rescan", "discovery.unsafe_kernel", "recorder.directory",
             "recorder.dump_on", "log.level", "web.listen", "web.config_file", "web.max_requests",
             "web.timeout"}


def connects(daemon, name):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s, contextlib.suppress(OSError):
        s.connect(f"{daemon.home}/{name}")
        return True
    return False


def complete(text):
    """The rules that keep other VMs of this host out, where the text has none of its own."""
    if "rules:" in text:
        return text
    if not text.startswith("sampling:"):
        return QUIET + text
    key = text[text.index("{") + 1:text.index("}")]
    return f"sampling:\n  {key}\n{rules()}"


@t.test("no key is without a test of its reload")
def _():
    with open(os.path.join(lab.SOURCE, "conf/kvmstatd.yaml"), encoding="utf-8") as f:
        found = re.findall(r"^(\w+):|^  #?(\w+):", f.read(), re.M)
    section, keys = None, set()
    for top, key in found:
        section = top or section
        if key:
            keys.add(f"{section}.{key}")
    tap.equal(keys - ELSEWHERE - {key for key, _, _ in CASES}, set(), "keys without a test")
    tap.equal(ELSEWHERE - keys, set(), "keys that are no more")


@t.test("each key that a reload changes takes effect, and goes back with the next")
def _():
    tap.require_kvm()
    with lab.DemoVms(vms=2, vcpus=2, name=NAME) as demo, lab.Daemon(QUIET) as daemon:
        vm = demo.vms[0][0]
        reloaded, inherited = Reloaded(daemon), threads_cpus(daemon, "kvmstatd-sample")
        first_sample(daemon, vm)
        first_sample(daemon, demo.vms[1][0])
        for key, text, is_in_force in CASES:
            tap.check(not is_in_force(daemon, vm), f"{key} before")
            reloaded(complete(text).replace("@VM@", vm))
            tap.wait_for(lambda: is_in_force(daemon, vm), what=f"{key} to be in force")
            reloaded(QUIET)
            if not key.startswith("limits"):  # which are log lines
                tap.wait_for(lambda: not is_in_force(daemon, vm), what=f"{key} to go back")
            first_sample(daemon, vm)
        tap.equal(threads_cpus(daemon, "kvmstatd-sample"), inherited, "CPUs as inherited")
        tap.equal(succeeded(daemon), 1)


@t.test("limits that are raised let in who was kept out")
def _():
    tap.require_kvm()
    config = QUIET + "discovery: {rescan: 200ms}\n"
    with lab.DemoVms(vms=3, vcpus=2, name=NAME) as demo, \
            lab.Daemon(config + "limits: {max_vms: 1}\n") as daemon:
        reloaded = Reloaded(daemon)

        def n_read():
            return sum(r["reason"] is None for r in rows(daemon) if r["pid"] in dict(
                (pid, 0) for _, pid in demo.vms))
        tap.wait_for(lambda: len([r for r in rows(daemon) if r["reason"] == "limit"]) == 2,
                     what="the limit")
        tap.equal(n_read(), 1)
        reloaded(config + "limits: {max_vms: 3, max_vcpus_per_vm: 2}\n")
        tap.wait_for(lambda: n_read() == 3, what="all VMs")


@t.test("how long a VM took to be found is told once, not when a rule lets it in again")
def _():
    tap.require_kvm()
    count, a, b = "kvmstatd_discovery_seconds_count", f"{NAME}-0", f"{NAME}-1"

    def only(vm):
        return "sampling:\n  interval: 10ms\n  rules:\n" \
            f'    - {{match: {{vm: "{vm}"}}, enabled: true}}\n' \
            '    - {match: {vm: "*"}, enabled: false}\n'
    with lab.Daemon(only(a)) as daemon, lab.DemoVms(vms=2, vcpus=1, name=NAME) as demo:
        tap.equal(sorted(vm for vm, _ in demo.vms), [a, b])
        reloaded = Reloaded(daemon)
        first_sample(daemon, a)
        tap.wait_for(lambda: value(daemon, count) == 1, what="the first to be counted")
        tap.wait_for(lambda: [r for r in rows(daemon) if r["reason"] == "disabled"],
                     what="the second to be found")
        for vm, other in ((b, a), (a, b)):
            reloaded(only(vm))
            first_sample(daemon, vm)
            tap.wait_for(lambda: f'kvm_vm_info{{vm="{other}"' not in daemon.metrics(),
                         what="the other to go")
            # It is counted before its second tick.
            ticks_then = value(daemon, "kvmstatd_ticks_total")
            tap.wait_for(lambda: value(daemon, "kvmstatd_ticks_total") >= ticks_then + 2)
            tap.equal(value(daemon, count), 1, f"counts after {vm} was let in")


@t.test("rescan, log level, dumps and their directory")
def _():
    tap.require_kvm()
    with lab.DemoVms(vcpus=1, name=NAME) as demo, lab.Daemon(QUIET) as daemon:
        reloaded = Reloaded(daemon)
        first_sample(daemon, demo.vms[0][0])
        tap.wait_for(lambda: daemon.get(f"/api/v1/history?vm={demo.vms[0][0]}").status == 200)
        config = QUIET + "recorder:\n  directory: @DIR@/elsewhere\n"
        reloaded(config)
        daemon.kill(signal.SIGUSR1)
        tap.wait_for(lambda: glob.glob(f"{daemon.home}/elsewhere/*"),
                     what="a dump where it is to be now")
        reloaded(config + "  dump_on: []\n")
        daemon.kill(signal.SIGUSR1)
        tap.wait_for(lambda: "recorder.dump_on does not name signal" in daemon.errors(),
                     what="no dump")
        # Nothing is said any more of what goes well.
        n = daemon.errors().count("configuration reloaded")
        daemon.reload(QUIET + "log: {level: error}\n")
        daemon.reload()
        tap.wait_for(lambda: succeeded(daemon) == 1)
        # That level is in force is seen by what is not said of a VM that comes.
        with lab.DemoVms(vcpus=1, name=f"{NAME}-late") as late:
            tap.wait_for(lambda: row(daemon, late.vms[0][1])["vcpus_read"] == 1, what="the new VM")
            tap.check(f"{NAME}-late" not in daemon.errors(), "log.level")
        tap.between(n, daemon.errors().count("configuration reloaded"), n)


# --- (2) what fails ---


@t.test("a reload that fails leaves everything as it was, says where it is wrong, and is counted")
def _():
    tap.require_kvm()
    base = "sampling:\n  interval: 30ms\n" + rules()
    other = "sampling:\n  interval: 50ms\n" + rules() + \
        "metrics: {exclude: [exits]}\nbursts: {windows: [3s]}\n"
    with lab.DemoVms(vcpus=2, name=NAME) as demo, tempfile.TemporaryDirectory() as folder, \
            socket.socket() as taken, lab.Daemon(listening(base, lab.free_port()), listen=False,
                                                 wait=False) as daemon:
        daemon.port = int(re.search(r"127.0.0.1:(\d+)", config_of(daemon))[1])
        daemon.url = f"http://127.0.0.1:{daemon.port}"
        daemon.wait_ready()
        vm, free = demo.vms[0][0], lab.free_port()
        reloaded = Reloaded(daemon)
        first_sample(daemon, vm)
        tap.wait_for(lambda: connects(daemon, "handoff.sock"), what="the handoff's socket")
        tap.wait_for(lambda: 'window="15s"' in daemon.metrics(), what="a peak")
        cpus = threads_cpus(daemon, "kvmstatd-sample")
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bad_web = os.path.join(folder, "web.yaml")
        with open(bad_web, "w", encoding="utf-8") as f:
            f.write("tls_server_config:\n  cert_fil: x\n")
        path = daemon.config_path
        web = f"web:\n  listen: ['127.0.0.1:{free}'"
        faults = (
            ("a syntax error", "sampling: {interval\n", rf"{path}:\d+:\d+: "),
            ("an unknown key", other + "sampler: {}\n", rf"{path}:\d+:1: .*sampler"),
            ("a value of another type", other.replace("50ms", "soon"), rf"{path}:2:13: "),
            ("out of range", other.replace("50ms", "2h"), rf"{path}:2:13: "),
            ("bytes that are no UTF-8", other + "log: {level: \udcff}\n", rf"{path}:"),
            ("a port in use", other + web + f", '127.0.0.1:{taken.getsockname()[1]}']\n",
             f"127.0.0.1:{taken.getsockname()[1]}: "),
            ("an address that is not there", other + web + ", '192.0.2.1:10177']\n",
             "192.0.2.1:10177: .*no such address"),
            ("a Unix socket in no folder", other + web + f", 'unix:{folder}/none/s']\n",
             "none/s: "),
            ("a web configuration that is wrong", other + web + f"]\n  config_file: {bad_web}\n",
             rf"{bad_web}:2:3: "),
            ("a web configuration that is a folder", other + web + f"]\n  config_file: {folder}\n",
             folder),
            ("a handoff socket where a file is", other + web +
             f"]\nhandoff: {{socket: {bad_web}}}\n",
             f"handoff.socket: {bad_web}: there is a file that is not a socket"),
            ("a handoff socket in no folder", other + web +
             f"]\nhandoff: {{socket: {folder}/a/b/s}}\n", f"handoff.socket: {folder}/a/b/s: "),
            ("CPUs that are not there", other.replace("  rules", "  cpu_affinity: [1023]\n  rules"),
             "sampling.cpu_affinity: none of these CPUs"),
            ("a handoff socket that could be had, CPUs that could, and a port that cannot",
             other.replace("  rules", f"  cpu_affinity: [{CPU}]\n  rules") +
             f"handoff: {{socket: {folder}/had.sock}}\n" +
             web + f", '127.0.0.1:{taken.getsockname()[1]}']\n", "127.0.0.1:"),
        )
        fds = daemon.n_fds()
        for name, text, said in faults:
            log = reloaded(text, good=False)
            tap.check(re.search(said, log), f"{name}: {log}")
            tap.equal(succeeded(daemon), 0, f"{name}: the metric")
            tap.check(closed(free), f"{name}: no new listener")
            tap.equal(interval(daemon, vm), 30, f"{name}: the rate")
            text = daemon.metrics()
            tap.check(f'kvm_vcpu_exits_total{{vm="{vm}"' in text and 'window="15s"' in text and
                      'window="3s"' not in text, f"{name}: metrics and bursts")
            tap.check(connects(daemon, "handoff.sock"), f"{name}: the handoff's socket")
            tap.check(not os.path.exists(f"{folder}/had.sock"), f"{name}: the prepared socket")
            tap.equal(threads_cpus(daemon, "kvmstatd-sample"), cpus, f"{name}: CPUs")
        os.rename(path, path + ".away")
        daemon.kill(signal.SIGHUP)
        tap.wait_for(lambda: f"{path}: " in daemon.errors().splitlines()[-1], what="no file")
        tap.equal(interval(daemon, vm), 30)
        tap.wait_for(lambda: daemon.n_fds() <= fds, what="fds as before")
        reloaded(listening(other, daemon.port))
        tap.equal(succeeded(daemon), 1)
        tap.wait_for(lambda: interval(daemon, vm) == 50, what="the good one")


# In a mount name space of its own the test's folder is /etc/kvmstatd, nothing in it, and the daemon is
# started without --config.
AT_THE_DEFAULT_PATH = """
set -e
mkdir etc
mount --bind /etc etc
mount -t tmpfs none /etc
ln -s "$PWD"/etc/* /etc/
rm -f /etc/kvmstatd kvmstatd.yaml
ln -s "$PWD" /etc/kvmstatd
mount -t tmpfs none /run
program=$1
shift 3
exec "$program" "$@"
"""


@t.test("the default file that has gone since it was read does not mean the defaults")
def _():
    tap.require_root()
    with lab.Daemon(prefix=[tap.require_tool("unshare"), "-m", "sh", "-c", AT_THE_DEFAULT_PATH,
                            "sh"]) as daemon:
        reloaded, path = Reloaded(daemon), daemon.config_path

        def has_header():
            return "X-Frame-Options" in daemon.get("/-/healthy").headers
        reloaded()
        tap.check(not has_header(), "there was no file, and is none")
        with open(f"{daemon.home}/web.yaml", "w", encoding="ascii") as f:
            f.write("http_server_config: {headers: {X-Frame-Options: deny}}\n")
        reloaded("web: {config_file: @DIR@/web.yaml}\n")
        tap.check(has_header(), "the file that has come is not in force")
        os.rename(path, path + ".away")
        for missing in ("no file", "a link to nowhere"):
            log = reloaded(good=False)
            tap.check("/etc/kvmstatd/kvmstatd.yaml: cannot be opened: No such file" in log, log)
            tap.check(has_header(), f"{missing}: what was in force is no more")
            tap.equal(succeeded(daemon), 0, missing)
            if missing == "no file":
                os.symlink("nowhere", path)
        os.rename(path + ".away", path)
        reloaded()
        tap.check(has_header())
        tap.equal(succeeded(daemon), 1)
        reloaded("", complete=False)
        tap.check(not has_header(), "an empty file is the defaults")


@t.test("a configuration that has become a pipe is refused, and not waited for")
def _():
    with lab.Daemon("sampling: {interval: 30ms}\n") as daemon:
        reloaded = Reloaded(daemon)
        os.unlink(daemon.config_path)
        os.mkfifo(daemon.config_path)
        log = reloaded(good=False)
        tap.check(f"{daemon.config_path}: not a regular file" in log, log)
        tap.equal(succeeded(daemon), 0)
        os.unlink(daemon.config_path)
        reloaded("sampling: {interval: 30ms}\n")
        tap.equal(succeeded(daemon), 1)


@t.test("a recorder's memory that is far too large costs nothing until there is something to record")
def _():
    with lab.Daemon("recorder: {memory: 1MiB}\n") as daemon:
        before = kib_dirty(daemon)
        Reloaded(daemon)("recorder: {memory: 16GiB}\n")
        grown = kib_dirty(daemon) - before
        tap.check(grown < 8 << 10, f"{grown} KiB more")


@t.test("the handoff's socket goes to and fro faster than anybody looks, and is there in the end")
def _():
    with lab.Daemon("discovery: {sources: [handoff]}\n") as daemon:
        reloaded = Reloaded(daemon)
        tap.wait_for(lambda: connects(daemon, "handoff.sock"), what="the socket")
        fds = daemon.n_fds()
        for i in range(121):
            reloaded("discovery: {sources: [handoff]}\nhandoff: {socket: @DIR@/" +
                     ("other", "handoff", "third")[i % 3] + ".sock}\n")

        def sockets():
            return sorted(f for f in os.listdir(daemon.home) if f.endswith(".sock"))
        tap.wait_for(lambda: connects(daemon, "other.sock") and daemon.n_fds() <= fds and
                     sockets() == ["other.sock"], what="the last one, and no fd or file of the others")
        tap.check("cannot listen" not in daemon.errors(), daemon.errors())


def listening(text, port):
    return text + f"web:\n  listen: ['127.0.0.1:{port}']\n"


def config_of(daemon):
    with open(daemon.config_path, encoding="utf-8") as f:
        return f.read()


def closed(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) != 0


# --- (3) a thousand reloads, (4) a thousand VMs ---


def kib_dirty(daemon):
    """Memory that is the daemon's alone, whatever libraries share."""
    with open(f"/proc/{daemon.pid}/smaps_rollup", encoding="ascii") as f:
        return int(re.search(r"Private_Dirty:\s+(\d+)", f.read())[1])


def held(daemon):
    """What may not grow: fds and threads, once nothing is in progress."""
    return daemon.n_fds(), daemon.n_threads()


def settled(daemon, before):
    """Waits until fds and threads are what they were; then says how much memory came on top."""
    tap.wait_for(lambda: held(daemon) == before[0],
                 what=f"fds and threads to be {before[0]} again")
    return kib_dirty(daemon) - before[1]


GROWTH_MAX_KIB = 1024
TICK_MS = 20


def alternating(i, steady, ports, web_file):
    """Configurations that all leave one VM alone. What is recorded would be memory that grows until
    it is full, so nothing is."""
    others = rules(f'{{match: {{vm: "{steady}"}}, interval: {TICK_MS}ms}}',
                   f'{{match: {{vm: "{NAME}-moving-1"}}, interval: {(10, 35)[i % 2]}ms}}',
                   f'{{match: {{vm: "{NAME}-moving-2"}}, enabled: {("true", "false")[i % 2]}}}')
    return f"""sampling:
  interval: {(100, 50, 40)[i % 3]}ms
{others}metrics:
  include: {('["*"]', "[exits, halt_*]")[i % 2]}
  histograms: {("vm", "vcpu", "'off'")[i % 3]}
bursts:
  scope: {("vm", "vcpu")[i // 2 % 2]}
  stats: {("[exits]", "[exits, halt_wait_ns]")[i // 4 % 2]}
scheduler:
  interval: {("1s", "100ms", "'off'")[i % 3]}
discovery:
  rescan: {(1, 2)[i % 2]}s
handoff:
  socket: @DIR@/{("handoff", "other")[i // 8 % 2]}.sock
  allow_users: {("[0]", "[0, 65533]")[i % 2]}
recorder:
  memory: {("0", "2MiB")[i % 16 == 7]}
  directory: @DIR@/{("a", "b")[i % 2]}
limits:
  max_vms: {(100, 200)[i % 2]}
web:
  listen: ["127.0.0.1:{ports[0]}", "127.0.0.1:{ports[1 + i % 2]}"]
  config_file: {("''", web_file)[i // 4 % 2]}
  max_requests: {(10, 40)[i % 2]}
  timeout: {(5, 30)[i % 2]}s
"""


@t.test("a thousand reloads, every tenth of them bad, leave no fd, thread or memory behind")
def _():
    tap.require_kvm()
    n, warm = (96, 48) if lab.sanitized() else (1104, 96)
    ports = lab.free_ports(3)
    steady = f"{NAME}-steady"
    with lab.DemoVms(vcpus=2, name=steady) as _demo, \
            lab.DemoVms(vms=3, vcpus=2, name=f"{NAME}-moving") as _moving, \
            tempfile.NamedTemporaryFile("w", suffix=".yaml") as web_file:
        web_file.write("http_server_config:\n  headers:\n    X-Frame-Options: deny\n")
        web_file.flush()
        with lab.Daemon(alternating(0, steady, ports, web_file.name), listen=False,
                        wait=False) as daemon:
            daemon.url = f"http://127.0.0.1:{ports[0]}"
            daemon.wait_ready()
            first_sample(daemon, steady)
            reloaded = Reloaded(daemon)

            def rest():
                """The same state each time: the first configuration, read by one scrape."""
                reloaded(alternating(0, steady, ports, web_file.name))
                tap.wait_for(lambda: len([r for r in rows(daemon) if r["reason"] is None]) == 4,
                             what="all VMs")
                tap.wait_for(lambda: connects(daemon, "handoff.sock"), what="the handoff's socket")
                daemon.metrics()
            exits = f'kvm_vcpu_exits_total{{vm="{steady}",vcpu="0"}}'
            before, last = None, 0
            for i in range(1, n + 1):
                if i % 10 == 0:
                    bad = alternating(i, steady, ports, web_file.name) + "  listen: ['nowhere:1']\n"
                    reloaded(bad if i % 20 else "sampling: [\n", good=False)
                reloaded(alternating(i, steady, ports, web_file.name))
                if i % 16 == 0:
                    now = value(daemon, exits)
                    tap.check(now >= last, f"{exits} fell from {last} to {now}")
                    last = now
                if i == warm:
                    rest()
                    time.sleep(1)
                    before = held(daemon), kib_dirty(daemon)
            rest()
            time.sleep(1)
            growth = settled(daemon, before)
            missed = value(daemon, "kvmstatd_ticks_missed_total")
            tap.equal(daemon.stop(), 0, f"the end: {daemon.errors()[-2000:]}")
            print(f"# {n - warm} reloads: {growth} KiB more than {before[1]} KiB, "
                  f"{missed:.0f} ticks missed")
            if not lab.sanitized():
                tap.check(growth <= GROWTH_MAX_KIB, f"{growth} KiB more after {n - warm} reloads")


def ticks(daemon, vm):
    """When the VM was read, of what the recorder has of it, in seconds."""
    answer = daemon.get(f"/api/v1/history?vm={vm}&vcpu=0&stat=exits").json()
    return [float(x) for target in answer["targets"] for x in target["times"]]


@t.test("reloads that change others miss no tick of a VM, and lose nothing that is kept of it")
def _():
    tap.require_kvm()
    steady, missed = f"{NAME}-steady", "kvmstatd_ticks_missed_total"
    count = f'kvm_vcpu_exits_tick_rate_count{{vm="{steady}"}}'
    extra = "discovery: {rescan: 1s}\nscheduler: {interval: 1s}\n"

    def config(i):
        return ("sampling:\n  interval: 100ms\n" +
                rules(f'{{match: {{vm: "{steady}"}}, interval: {TICK_MS}ms}}',
                      f'{{match: {{vm: "{NAME}-moving*"}}, interval: {(30, 70)[i % 2]}ms}}') +
                extra +
                f"metrics: {{exclude: [{('hypercalls', 'invlpg')[i % 2]}]}}\n"
                f"web: {{max_requests: {(10, 40)[i % 2]}}}\n")
    with lab.DemoVms(vcpus=1, name=steady) as _demo, \
            lab.DemoVms(vms=4, vcpus=2, name=f"{NAME}-moving") as _moving, \
            lab.Daemon(config(0)) as daemon:
        reloaded = Reloaded(daemon)
        first_sample(daemon, steady)
        tap.wait_for(lambda: ticks(daemon, steady), what="a recording")
        first, began = ticks(daemon, steady)[0], series(daemon)
        for i in range(1, 101):
            reloaded(config(i))
        tap.wait_for(lambda: value(daemon, count) > float(began[count]) + 50, what="ticks")
        ended, times = series(daemon), ticks(daemon, steady)
        tap.equal(times[0], first, "the recording's first tick: nothing of it was dropped")
        # Every slot of the grid was read or counted as missed: a tick that is in neither was lost.
        slots = round((times[-1] - times[0]) * 1000 / TICK_MS) + 1
        lost = slots - len(times)
        n_missed = int(ended[missed])
        print(f"# {len(times)} of {slots} ticks during 100 reloads; {n_missed} known as missed")
        tap.check(lost <= n_missed, f"{lost} ticks lost, {n_missed} of them known")
        tap.check(len(set(times)) == len(times) and times == sorted(times), "each tick once")
        # Of the same ticks its distribution has one observation each: it was never begun anew.
        tap.check(value(daemon, count) >= len(times) - 2 - n_missed, "the distribution")


@t.test("a thousand VMs that come and go leave no fd, thread or memory behind")
def _():
    tap.require_kvm()
    batch, rounds, warm = (8, 4, 2) if lab.sanitized() else (25, 44, 4)
    config = "sampling:\n  interval: 20ms\n" + rules() + \
        "discovery: {rescan: 500ms}\n" \
        "recorder: {memory: 1MiB, directory: @DIR@/dumps, dump_on: []}\n"
    with lab.DemoVms(vcpus=1, name=f"{NAME}-stays") as _demo, lab.Daemon(config) as daemon:
        first_sample(daemon, f"{NAME}-stays")
        # The recorder's memory is filled before anything is measured, since it is to be.
        before = None
        for i in range(rounds):
            with lab.DemoVms(vms=batch, vcpus=1, name=f"{NAME}-{i}") as demo:
                tap.wait_for(lambda: len([r for r in rows(daemon) if r["reason"] is None]) ==
                             batch + 1, what="all VMs")
                tap.check(value(daemon, "kvmstatd_config_last_reload_successful") == 1)
                for _, pid in demo.vms:
                    os.kill(pid, signal.SIGKILL)
                tap.wait_for(lambda: len(rows(daemon)) == 1, what="their end")
            if i + 1 == warm:
                time.sleep(1)
                before = held(daemon), kib_dirty(daemon)
        time.sleep(1)
        growth = settled(daemon, before)
        print(f"# {(rounds - warm) * batch} VMs: {growth} KiB more than {before[1]} KiB")
        tap.equal(len(re.findall("^kvm_vm_info{", daemon.metrics(), re.M)), 1, "VMs shown")
        tap.equal(daemon.stop(), 0, f"the end: {daemon.errors()[-2000:]}")
        if not lab.sanitized():
            tap.check(growth <= GROWTH_MAX_KIB, f"{growth} KiB more")


t.main()
