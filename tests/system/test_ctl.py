# SPDX-License-Identifier: Apache-2.0
"""kvmstatctl against the real daemon and real VMs."""

import collections
import contextlib
import csv
import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import ctl
import kvmfd
import lab
import pki
import tap
import web
from exposed import first_sample

t = tap.Tests()


def only(prefix, more=""):
    """A configuration that reads the VMs whose names begin so, and none of others' on this host."""
    return f"""
sampling:
  interval: 20ms
  rules:
    - match: {{vm: "{prefix}-off*"}}
      enabled: false
    - match: {{vm: "{prefix}*"}}
      enabled: true
    - match: {{vm: "*"}}
      enabled: false
{more}"""


@contextlib.contextmanager
def place(letter, vms=1, more="", **kwargs):
    """Demo VMs with a name of this test alone, and a daemon that reads them: (vms, daemon)."""
    tap.require_kvm()
    tap.require_root()
    name = f"ctl{os.getpid()}{letter}"
    with lab.DemoVms(vms=vms, name=name, **kwargs) as demo, lab.Daemon(only(name, more)) as daemon:
        for vm, _ in demo.vms:
            first_sample(daemon, vm)
        yield demo, daemon


def address(daemon):
    return {"KVMSTATD_ADDRESS": f"127.0.0.1:{daemon.port}"}


@t.test("list shows who is read and how, and who is not and why")
def _():
    with place("a", vms=2, vcpus=2) as (demo, daemon), lab.DemoVms(
            name=f"ctl{os.getpid()}a-off") as other:
        [(off, off_pid)] = other.vms
        env = address(daemon)
        tap.wait_for(lambda: ctl.run("list", off, env=env).returncode == 0, what="the VM not read")
        lines = ctl.good("list", f"ctl{os.getpid()}a*", env=env).splitlines()
        tap.equal(lines[0].split()[:4], ["NAME", "SOURCE", "EVERY", "AGE"])
        rows = {line.split()[0]: line for line in lines[1:]}
        tap.equal(set(rows), {off, *(name for name, _ in demo.vms)})
        for name, pid in demo.vms:
            for word in ("20 ms", "2/2", "kvmstatd-demo-vm", str(pid)):
                tap.check(word in rows[name], rows[name])
        tap.check("disabled: switched off by a rule" in rows[off], rows[off])
        # Columns stand below each other.
        at = lines[0].index("SOURCE")
        tap.check(all(line[at - 1] == " " and line[at] != " " for line in lines), lines)
        [vm] = json.loads(ctl.good("list", "--json", off, env=env))
        tap.equal((vm["vm"], vm["pid"], vm["source"], vm["reason"]), (off, off_pid, None, "disabled"))
        names = ctl.good("list", "--names", f"ctl{os.getpid()}a*", env=env).split()
        tap.equal(sorted(names), sorted(name for name, _ in demo.vms), "only those read")
        tap.check("no VM fits nobody-*" in ctl.complaint(1, "list", "nobody-*", env=env))


@t.test("dump of a VM says what its statistics files say, exactly in JSON")
def _():
    with place("b", vcpus=2, args=("--rounds", "50")) as (demo, daemon):
        [(vm, pid)] = demo.vms
        env = address(daemon)
        files = {n: kvmfd.StatsFile(pid, fd) for n, fd in kvmfd.stats_fds(pid).items()}
        def still():
            before = {n: f.read() for n, f in files.items()}
            time.sleep(0.3)
            return before == {n: f.read() for n, f in files.items()}
        tap.wait_for(still, what="the guest's end")

        def exact():
            found = json.loads(ctl.good("dump", "--json", vm, env=env))
            tap.equal(found["pid"], pid)
            return all(
                stat["value"] == (values if isinstance(stat["value"], list) else values[0])
                for target in found["targets"] for stat in target["stats"]
                for values in [list(files[-1 if target["vcpu"] is None else target["vcpu"]].read()[
                    stat["stat"]])]) and len(found["targets"]) == 3
        tap.wait_for(exact, what="the newest values")
        exits = sum(files[n].read()["exits"][0] for n in (0, 1))

        def at_rest():  # the rates are those of the last second
            text = ctl.good("dump", vm, env=env)
            lines = {line.split()[0]: line.split(None, 1)[1] for line in text.splitlines() if line}
            tap.equal(lines["exits"].split()[0], str(exits), text)
            return lines if lines["exits"].split()[1] == "0/s" else None
        lines = tap.wait_for(at_rest, what="rates of 0")
        tap.check(lines["halt_wait_ns"].split()[1] in ("us", "ms", "s"), lines["halt_wait_ns"])
        tap.check(lines["halt_wait_ns"].endswith("%"), lines["halt_wait_ns"])
        tap.check("99% within" in lines["halt_wait_hist"], lines["halt_wait_hist"])
        tap.equal([k for k in lines if k.startswith("halt_wa")],
                  ["halt_wakeup", "halt_wait_ns", "halt_wait_hist"])
        one = json.loads(ctl.good("dump", "--json", "--vcpu", "1", "--stat", "exits,io_*", vm, env=env))
        tap.equal([(g["vcpu"], [s["stat"] for s in g["stats"]]) for g in one["targets"]],
                  [(1, ["exits", "io_exits"])])


@t.test("rates of a busy guest are between those that its own counters give")
def _():
    with place("c", load="mix") as (demo, daemon):
        [(vm, pid)] = demo.vms
        files = kvmfd.StatsFile(pid, kvmfd.stats_fds(pid)[0])
        time.sleep(1.2)

        def read():
            found = json.loads(ctl.good("dump", "--json", "--stat", "exits", "--vcpu", "0", vm,
                                    env=address(daemon)))
            [target] = found["targets"]
            [stat] = target["stats"]
            return target, stat

        def between_own():
            """Of a whole second, which it is but where the daemon was held up."""
            before = files.read()["exits"][0]
            target, stat = read()
            return (target["rates_over_s"] or 0) >= 0.9 and (
                before, target, stat, files.read()["exits"][0])
        before, target, stat, after = tap.wait_for(between_own, what="rates over a second")
        tap.between(before - 2 * stat["rate"], stat["value"], after, "exits")
        rise = stat["rate"] * target["rates_over_s"]
        tap.between(1, rise, stat["value"], "exits of the last second")


@t.test("a word is a file or a VM as the manual says")
def _():
    with place("d") as (demo, daemon):
        [(vm, _)] = demo.vms
        env = address(daemon)
        with open(os.path.join(daemon.home, vm), "w", encoding="ascii") as f:
            f.write("this is no recording")
        tap.check("VM " + vm in ctl.good("dump", vm, env=env))
        tap.check(vm in ctl.complaint(1, "dump", vm, env=env, folder=daemon.home))
        tap.equal(ctl.good("--address", f"127.0.0.1:{daemon.port}", "--names", "list"),
                  ctl.good("list", "--names", env=env), "options before the command")
        tap.check("VM " + vm in ctl.good("dump", "--address", f"127.0.0.1:{daemon.port}", vm,
                                     folder=daemon.home))
        tap.check("No such file" in ctl.complaint(1, "dump", "./" + vm, env=env))
        tap.check("kvmstatctl list" in ctl.complaint(1, "dump", "nobody", env=env))
        ctl.complaint(2, "dump", "--last", "5s", vm, env=env)


def samples(lines):
    """{(vm, vcpu, stat): [(time, value)]} in the order of the lines."""
    out = collections.defaultdict(list)
    for vm, when, vcpu, stat, value, _rate in csv.reader(lines):
        out[vm, vcpu, stat].append((when, value))
    return out


@t.test("csv: every sample once, in order, none missing, until it is told to end")
def _():
    with place("e", vms=2, vcpus=2) as (demo, daemon):
        process = lab.Process([lab.program("kvmstatctl"), "csv", "--vm", f"ctl{os.getpid()}e*",
                               "--stat", "exits,halt_wait_ns", "--interval", "150ms"],
                              env=address(daemon))
        with process:
            tap.equal(process.read_line(), "vm,time,vcpu,stat,value,rate")
            lines = [process.read_line() for _ in range(1000)]
            process.kill(signal.SIGINT)
            while (line := process.read_line()) is not None:
                lines.append(line)
            tap.equal((process.wait(), process.errors()), (0, ""))
        found = samples(lines)
        tap.equal(len(found), 8, "two statistics of two vCPUs of two VMs")
        for vm, _ in demo.vms:
            answer = daemon.get(f"/api/v1/history?vm={vm}&stat=exits,halt_wait_ns&format=csv&last=1h")
            for key, all_there_is in samples(answer.text.splitlines()[1:]).items():
                got = found[key]
                tap.equal(len(got), len(set(got)), f"{key}: some came twice")
                tap.check(len(got) > 40, f"{key}: {len(got)} samples")
                begin = all_there_is.index(got[0])
                tap.equal(got, all_there_is[begin:begin + len(got)], f"samples of {key}")


@t.test("csv: a VM that shares its name for a while goes on where it was, under its label of the moment")
def _():
    with place("s", vcpus=2) as (demo, daemon):
        [(vm, pid)] = demo.vms
        process = lab.Process([lab.program("kvmstatctl"), "csv", "--vm", vm + "*", "--stat", "exits",
                               "--interval", "50ms"], env=address(daemon))
        lines = []

        def seen(label):
            while not (line := process.read_line() or "").startswith(label + ","):
                tap.check(line, process.errors())
                lines.append(line)
            lines.append(line)
        with process:
            process.read_line()
            seen(vm)
            with lab.DemoVms(name=vm) as other:
                seen(f"{vm}@{pid}")
                seen(f"{vm}@{other.vms[0][1]}")
            seen(vm)
            process.kill(signal.SIGINT)
            while (line := process.read_line()) is not None:
                lines.append(line)
            tap.equal((process.wait(), process.errors()), (0, ""))
        answer = daemon.get(f"/api/v1/history?vm={vm}&stat=exits&format=csv&last=1h")
        its = {vm, f"{vm}@{pid}"}
        found = samples(",".join([vm, *line.split(",")[1:]]) for line in lines
                        if line.split(",")[0] in its)
        for key, all_there_is in samples(answer.text.splitlines()[1:]).items():
            begin = all_there_is.index(found[key][0])
            tap.equal(found[key], all_there_is[begin:begin + len(found[key])], f"samples of {key}")


@t.test("csv takes up a VM that comes later, and goes on when one ends")
def _():
    with place("f") as (demo, daemon):
        process = lab.Process([lab.program("kvmstatctl"), "csv", "--vm", f"ctl{os.getpid()}f*",
                               "--stat", "exits", "--interval", "50ms"], env=address(daemon))

        def seen(name, but=None):
            """Reads on until there is a line of this VM."""
            while not (line := process.read_line() or "").startswith(name + ","):
                tap.check(line and line != but, process.errors())
        with process:
            with lab.DemoVms(name=f"ctl{os.getpid()}f-later") as later:
                seen(later.vms[0][0])
            tap.wait_for(lambda: len(daemon.get("/api/v1/vms").json()["vms"]) > 0)
            seen(demo.vms[0][0])
            tap.check(process.running())


@t.test("csv goes on when the daemon has been restarted, and says so once")
def _():
    with place("r") as (demo, daemon), tempfile.TemporaryDirectory(prefix="kvmstatd-ctl-") as folder:
        [(vm, _)] = demo.vms
        path = os.path.join(folder, "s")
        listen = ["--web.listen-address", f"unix:{path}"]
        config = only(vm)
        with lab.Process([lab.program("kvmstatctl"), "csv", "--address", f"unix:{path}", "--vm", vm,
                          "--stat", "exits", "--interval", "50ms"]) as early:
            tap.equal(early.wait(), 1, "one that never had an answer waits for none")
        with lab.Daemon(config, listen) as daemon:
            first_sample(daemon, vm)
            process = lab.Process([lab.program("kvmstatctl"), "csv", "--address", f"unix:{path}",
                                   "--stat", "exits", "--interval", "50ms"])
            for _ in range(20):
                process.read_line()
            daemon.stop()
        with process:
            tap.wait_for(lambda: "asking again" in process.errors(), what="its word on it")
            before = time.time()
            with lab.Daemon(config, listen):
                while float((process.read_line() or "").split(",")[1]) < before:
                    tap.check(process.running(), process.errors())
            process.kill(signal.SIGTERM)
            tap.equal(process.wait(), 0, "exit status")
            tap.check(process.errors().count("asking again") in (1, 2), process.errors())


@t.test("csv goes on when the daemon was busy, and ends when the answer is none of its")
def _():
    state = {"status": "200 OK", "n": 0}

    def answer(send, path):
        state["n"] += 1
        if state["status"] != "200 OK":
            ctl.fixed('{"error":"too many requests"}', state["status"])(send, path)
        elif path == "/api/v1/vms":
            ctl.fixed(json.dumps(ctl.vm_list()))(send, path)
        else:
            ctl.fixed("vm,time,vcpu,stat,value,rate\n"
                      f"web1,{state['n']}.000000000,,exits,1,\n")(send, path)
    with ctl.Server(answer) as server, lab.Process([
            lab.program("kvmstatctl"), "csv", "--address", server.address, "--interval", "10ms"]) as process:
        tap.check(process.read_line().startswith("vm,"))
        for n in (1, 2):
            process.read_line()
            state["status"] = "503 Service Unavailable"
            tap.wait_for(lambda n=n: process.errors().count("asking again") == n, what="its word")
            asked = state["n"]
            tap.wait_for(lambda asked=asked: state["n"] > asked + 5, what="more attempts")
            state["status"] = "200 OK"
            while int(float(process.read_line().split(",")[1])) <= asked:
                pass
        tap.equal(process.errors().count("too many requests"), 2, process.errors())
        state["status"] = "400 Bad Request"
        tap.equal(process.wait(), 1)
        tap.equal(process.errors().count("too many requests"), 3, process.errors())


@t.test("csv ends quietly when nobody reads any more, while nothing comes as well")
def _():
    with place("g", more="") as (demo, daemon):
        [(vm, _)] = demo.vms
        for interval in ("20ms", "1h"):
            r, w = os.pipe()
            with subprocess.Popen([lab.program("kvmstatctl"), "csv", "--vm", vm, "--interval",
                                   interval], stdout=w, stderr=subprocess.PIPE,
                                  env={**os.environ, **address(daemon)}) as process:
                os.close(w)
                try:
                    tap.check(os.read(r, 100).startswith(b"vm,time,"))
                    os.close(r)
                    tap.equal((process.wait(lab.TIMEOUT_S), process.stderr.read()), (0, b""))
                finally:
                    process.kill()


@t.test("csv says when there is nothing to print")
def _():
    with place("h") as (demo, daemon):
        [(vm, _)] = demo.vms
        env = address(daemon)
        tap.check("no VM that is read fits nobody*" in
                  ctl.complaint(1, "csv", "--vm", "nobody*", env=env))
        tap.check("no such statistic" in
                  ctl.complaint(1, "csv", "--vm", vm, "--stat", "nothing", env=env))
    with place("i", more="recorder:\n  memory: 0\n") as (demo, daemon):
        [(vm, _)] = demo.vms
        for args in (("csv", "--vm", vm), ("dump", vm)):
            tap.check("recorder.memory is 0" in ctl.complaint(1, *args, env=address(daemon)))


@t.test("top: one table where there is no terminal, a screen that keys rule where there is one")
def _():
    with place("j", vms=2) as (demo, daemon):
        env = address(daemon)
        lines = ctl.good("top", env=env).splitlines()
        tap.equal(lines[0].split(), ["NAME", "VCPUS", "EXITS/s", "PEAK/s", "CPU", "WAIT", "HALT"])
        tap.equal(sorted(line.split()[0] for line in lines[1:]), sorted(n for n, _ in demo.vms))
        for line in lines[1:]:
            tap.check(line.split()[1] == "1" and line.split()[2] not in ("0", "-"), line)
        tap.check("no VM" in ctl.complaint(1, "top", "nobody*", env=env))
        pid, fd = pty.fork()
        if pid == 0:
            os.execve(lab.program("kvmstatctl"), ["kvmstatctl", "top", "--interval", "100ms"],
                      {**os.environ, **env})
        try:
            shown = b""

            def until(text):
                nonlocal shown
                end = time.monotonic() + lab.TIMEOUT_S
                while text not in shown and time.monotonic() < end:
                    shown += os.read(fd, 65536)
                tap.check(text in shown, shown[-500:])
            until(b"by exits")
            until(demo.vms[0][0].encode())
            os.write(fd, b"n")
            until(b"by name")
            os.write(fd, b"q")
            until(b"\033[?25h\033[?1049l")  # the terminal as it was
            tap.equal(os.waitpid(pid, 0)[1], 0)
            pid = 0
        finally:
            os.close(fd)
            if pid:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


@t.test("it speaks over a Unix socket, over TLS, and with a password")
def _():
    tap.require_tool("openssl")
    with web.place() as certificates:
        made = certificates.folder
        user = "basic_auth_users:\n  ann: " + pki.bcrypt("secret") + "\n"
        with web.Web(f"tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n{user}",
                     made, user=web.basic("ann", "secret")) as daemon:
            password = {"KVMSTATD_PASSWORD": "secret"}
            ways = (["--address", f"unix:{daemon.unix}"],
                    ["--address", f"localhost:{daemon.port}", "--cacert", f"{made}/ca.crt"])
            for way in ways:
                done = ctl.run("list", "--json", *way, "--user", "ann", env=password)
                tap.check(isinstance(json.loads(done.stdout), list), done.stderr)
                tap.check("--user" in ctl.complaint(1, "list", *way))
                said = ctl.complaint(1, "list", *way, "--user", "ann",
                                 env={"KVMSTATD_PASSWORD": "wrong"})
                tap.check("does not take ann" in said, said)
            ctl.complaint(1, "list", *ways[1][:2], "--user", "ann", env=password)  # without TLS


@t.test("no daemon, and what is no command, option or address: said in a line, by exit status")
def _():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))  # bound, but nobody listens
        nobody = f"127.0.0.1:{s.getsockname()[1]}"
        for args in (["list"], ["top"], ["csv"], ["dump", "web1"]):
            said = ctl.complaint(1, *args, "--address", nobody)
            tap.check(nobody in said and "Connection refused" in said and "--address" in said, said)
    said = ctl.complaint(1, "list", env={"KVMSTATD_ADDRESS": "unix:/nonexistent/s"})
    tap.check("/nonexistent/s: No such file" in said, said)
    for wrong in ("here", "unix:", "host:port", "http://h:1", "h:1/x", "u@h:1", "unix:" + "x" * 200):
        tap.check("unix:PATH" in ctl.complaint(2, "list", "--address", wrong), wrong)
    for args in ([], ["nothing"], ["list", "a", "b"], ["list", "--nothing"], ["dump"], ["csv", "web1"],
                 ["csv", "--last", "5"], ["top", "--sort", "size"], ["top", "--interval", "1ms"],
                 ["dump", "--vcpu", "x", "y"]):
        ctl.complaint(2, *args)
    for command in ("list", "top", "csv", "dump"):
        tap.check(ctl.good(command, "--help").startswith(f"Usage: kvmstatctl {command} "))


@t.test("who may not use the service's socket is told who may")
def _():
    tap.require_root()
    with tempfile.TemporaryDirectory(prefix="kvmstatd-ctl-") as folder, socket.socket(
            socket.AF_UNIX) as s:
        os.chmod(folder, 0o755)
        path = os.path.join(folder, "s")
        s.bind(path)
        s.listen()
        os.chmod(path, 0o660)
        program = shutil.copy(lab.program("kvmstatctl"), folder)  # the build may be out of reach
        done = subprocess.run([program, "list", "--address", f"unix:{path}"], user=65534, group=65534,
                              extra_groups=[], capture_output=True, text=True, check=False,
                              timeout=lab.TIMEOUT_S, cwd="/")
        tap.equal((done.returncode, done.stdout), (1, ""))
        tap.check("group kvmstatd" in done.stderr, done.stderr)


@t.test("bash completes commands, options and the names of VMs")
def _():
    script = os.path.join(lab.SOURCE, "completions", "kvmstatctl.bash")

    def complete(server, *words):
        done = subprocess.run(
            ["bash", "-c", 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
             '_kvmstatctl; printf "%s\\n" "${COMPREPLY[@]}"', "bash", script,
             lab.program("kvmstatctl"), *words], capture_output=True, text=True, check=True,
            timeout=lab.TIMEOUT_S, env={**os.environ, "KVMSTATD_ADDRESS": server.address})
        return done.stdout.split("\n")[:-1]
    with ctl.Server(ctl.fixed(json.dumps(ctl.vm_list(vm="web $(touch x)")))) as server:
        tap.equal(complete(server, "d"), ["dump"])
        tap.equal(complete(server, "list", "--n"), ["--names"])
        tap.equal(complete(server, "dump", "we"), ["web\\ \\$\\(touch\\ x\\)"])
        tap.equal(complete(server, "csv", "--vm", "x"), [""])
        tap.equal(complete(server, "csv", "--vm", "we"), ["web\\ \\$\\(touch\\ x\\)"])
        tap.equal(complete(server, "csv", ""), [""])
        tap.equal(complete(server, "--u"), ["--user"])
        tap.equal(complete(server, "--address", "list", "d"), ["dump"])
        tap.equal(complete(server, "--user", "ann", "list", "--n"), ["--names"])


t.main()
