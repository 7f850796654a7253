# SPDX-License-Identifier: Apache-2.0
"""The daemon as a systemd service: what it tells, the watchdog, sockets that systemd has opened."""

import os
import signal
import socket
import tempfile
import time

import lab
import tap
from faulted import Faults
from handing import FAST, HANDOFF, demo_under_shim, place, whole
from supervisor import Supervisor, tcp_socket, unix_socket

t = tap.Tests()


@t.test("readiness, reload and stop are told; the status has the numbers of VMs and follows them")
def _():
    tap.require_kvm()
    with Supervisor() as systemd, systemd.start(FAST) as daemon:
        tap.wait_for(lambda: systemd.said("STATUS"), what="a status")
        before = [words for words in systemd.said("STATUS") if words.startswith("reading ")]
        with lab.DemoVms(vms=2, vcpus=3, name=f"status{os.getpid()}"):
            tap.wait_for(lambda: len([s for s in systemd.said("STATUS") if s.startswith("reading ")])
                         > len(before), what="a new status")
        daemon.reload()
        tap.wait_for(lambda: len(systemd.said("READY")) == 2, what="the end of the reload")
        tap.equal(len(systemd.said("RELOADING")), 1)
        tap.equal(daemon.stop(), 0)
        tap.wait_for(lambda: systemd.said("STOPPING") == ["1"], what="its word that it stops")


@t.test("a supervisor that reads nothing: all is served, reloaded and stopped as ever")
def _():
    with tempfile.TemporaryDirectory() as folder, \
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(f"{folder}/notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            try:
                while True:
                    other.sendto(b"X=1", f"{folder}/notify")
            except BlockingIOError:
                pass
        env = {"NOTIFY_SOCKET": f"{folder}/notify", "WATCHDOG_USEC": "400000"}
        with lab.Daemon(FAST, env=env) as daemon:
            tap.equal(daemon.get("/metrics").status, 200)
            daemon.reload(FAST)
            tap.wait_for(lambda: "configuration reloaded" in daemon.errors(), what="the reload")
            # Once it reads again, it learns what it had missed.
            deaf.settimeout(tap.TIMEOUT_S)
            while b"READY=1" not in deaf.recv(4096):
                pass
            tap.equal(daemon.stop(), 0)


def threads(pid):
    """{name: tid}."""
    return {name.strip(): tid for tid, name in lab.of_threads(pid, "comm").items()}


@t.test("the watchdog is fed as long as the sampling thread comes round, with and without a VM")
def _():
    tap.require_kvm()
    with Supervisor(watchdog_s=0.4) as systemd, systemd.start("sampling: {interval: 1h}\n") as daemon:
        def fed(more):
            n = len(systemd.said("WATCHDOG"))
            tap.wait_for(lambda: len(systemd.said("WATCHDOG")) >= n + more, what="the watchdog's food")
        fed(5)
        with lab.DemoVms(name=f"dog{os.getpid()}"):
            fed(5)
        daemon.reload()
        fed(5)


@t.test("the watchdog gets nothing while the sampling thread hangs, and is fed again afterwards")
def _():
    tap.require_root()
    tap.require_tool("strace")
    with Supervisor(watchdog_s=0.2) as systemd, systemd.start() as daemon:
        tap.wait_for(lambda: len(systemd.said("WATCHDOG")) > 2, what="the watchdog's food")
        tid = threads(daemon.pid)["kvmstatd-sample"]
        # A tracer that stops one thread alone, when it next returns from waiting.
        with lab.Process(["strace", "-qq", "-o", "/dev/null", "-p", str(tid), "-e",
                          "inject=epoll_wait:delay_exit=3000000"]):
            def hangs():
                n = len(systemd.said("WATCHDOG"))
                time.sleep(1.0)
                return len(systemd.said("WATCHDOG")) == n
            tap.wait_for(hangs, what="a second without food")
            tap.equal(daemon.get("/-/healthy").status, 200, "the process itself")
        n = len(systemd.said("WATCHDOG"))
        tap.wait_for(lambda: len(systemd.said("WATCHDOG")) > n + 2, what="food again")


@t.test("users and hosts whose lookup hangs refuse a reload, and the watchdog is fed again")
def _():
    faults, port = Faults(), lab.free_port()

    def config(user="0", more=""):
        return (f"web: {{listen: ['127.0.0.1:{port}'{more}]}}\n"
                f"handoff: {{socket: @DIR@/handoff.sock, allow_users: [{user}]}}\n")
    with Supervisor(watchdog_s=0.4) as systemd, \
            systemd.start(config(), env=faults.env, listen=False, wait=False) as daemon:
        daemon.url = f"http://127.0.0.1:{port}"
        faults.hang_lookups(True)
        for n, (text, why) in enumerate((
                (config("root"), "handoff.allow_users: root cannot be looked up: timed out"),
                (config("0", ", 'localhost:0'"),
                 "web.listen: localhost:0: the name cannot be resolved: timed out"))):
            daemon.reload(text)
            tap.wait_for(lambda n=n: len(systemd.said("READY")) == n + 2, what="the reload's end")
            tap.check(f"{why}; the configuration in force stays" in daemon.errors(), daemon.errors())
            fed = len(systemd.said("WATCHDOG"))
            tap.wait_for(lambda fed=fed: len(systemd.said("WATCHDOG")) > fed + 2, what="food again")
        tap.check("kvmstatd_config_last_reload_successful 0" in daemon.metrics())
        tap.equal(faults.lookups()[0], 2, "lookups")
        tap.equal(daemon.stop(), 0, "the end, while they still hang")


@t.test("users whose lookup hangs are not waited for at the start; numbers may hand over")
def _():
    faults = Faults()
    faults.hang_lookups(True)
    with lab.Daemon("handoff: {socket: @DIR@/handoff.sock, allow_users: [root, 0]}\n",
                    env=faults.env) as daemon:
        tap.check("root (handoff.allow_users) cannot be looked up: timed out; looking again at the "
                  "next reload" in daemon.errors(), daemon.errors())
        tap.check(os.path.exists(f"{daemon.home}/handoff.sock"), "the socket")
        faults.hang_lookups(False)
        daemon.reload()
        tap.wait_for(lambda: "configuration reloaded" in daemon.errors(), what="the reload")


@t.test("HTTP at sockets that systemd has opened, TCP and Unix, instead of web.listen")
def _():
    with tempfile.TemporaryDirectory() as folder, tcp_socket() as tcp, tcp_socket() as other, \
            unix_socket(f"{folder}/web.sock") as unix:
        own = lab.free_port()
        urls = [f"http://127.0.0.1:{s.getsockname()[1]}/" for s in (tcp, other)]
        urls.append(f"unix:{folder}/web.sock:/")
        config = f'web: {{listen: ["127.0.0.1:{own}"]}}\n'
        with Supervisor([("web", tcp), ("web", other), ("web", unix)]) as systemd:
            for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
                with systemd.start(config, listen=False, wait=False) as daemon:
                    for url in urls:
                        tap.equal(lab.fetch(url).status, 200, url)
                    with socket.socket() as s:
                        tap.check(s.connect_ex(("127.0.0.1", own)) != 0, "web.listen is served too")
                    daemon.reload(config)
                    tap.wait_for(lambda: "RELOADING" in str(systemd.words), what="the reload")
                    for url in urls:
                        tap.equal(lab.fetch(url).status, 200, url)
                    daemon.stop(number)
                # Nobody is refused meanwhile: who comes now is served by the next one.
                with socket.create_connection(tcp.getsockname(), timeout=lab.TIMEOUT_S):
                    pass
        tap.check(os.path.exists(f"{folder}/web.sock"), "systemd's socket file was removed")


@t.test("--web.listen-address is served besides such a socket")
def _():
    with tcp_socket() as tcp, Supervisor([("web", tcp)]) as systemd, systemd.start() as daemon:
        tap.equal(daemon.get("/").status, 200)
        tap.equal(lab.fetch(f"http://127.0.0.1:{tcp.getsockname()[1]}/").status, 200)


@t.test("the handoff at a socket that systemd has opened; it stays when the daemon goes")
def _():
    with place() as folder:
        with unix_socket(f"{folder}/handoff.sock", socket.SOCK_SEQPACKET) as listener, \
                Supervisor([("handoff", listener)]) as systemd, \
                demo_under_shim(folder, vcpus=2, name="passed") as demo:
            [(_, pid)] = demo.vms
            for _ in range(2):
                # The configuration names another place, which is not used.
                config = HANDOFF + FAST + "handoff: {socket: @DIR@/other.sock, allow_users: [0]}\n"
                with systemd.start(config) as daemon:
                    whole(daemon, "passed", pid, 2)
                    tap.check(not os.path.exists(f"{daemon.home}/other.sock"), "both are open")
                    daemon.reload(config.replace("200ms", "300ms").replace("[0]", "[0, 1]"))
                    whole(daemon, "passed", pid, 2)
            tap.check(os.path.exists(f"{folder}/handoff.sock"), "systemd's socket file was removed")


@t.test("a passed socket of the wrong kind, or of a name nobody knows, is said and does no harm")
def _():
    with tempfile.TemporaryDirectory() as folder, tcp_socket() as tcp, \
            unix_socket(f"{folder}/stream.sock") as stream, \
            Supervisor([("handoff", stream), ("surprise", tcp)]) as systemd, systemd.start() as daemon:
        tap.wait_for(lambda: "SOCK_SEQPACKET" in daemon.errors(), what="the log line")
        tap.check("surprise" in daemon.errors(), daemon.errors())
        tap.equal(daemon.get("/").status, 200)


t.main()
