# SPDX-License-Identifier: Apache-2.0
"""kvmstatctl and answers that no kvmstatd gives, or that nobody can write down."""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time

import ctl
import lab
import tap

t = tap.Tests()

COMMANDS = (["list"], ["list", "--json"], ["top"], ["csv"], ["dump", "web1"])


@t.test("an answer that is none of kvmstatd's is refused in a line, whatever it is")
def _():
    noise = t.random.randbytes(5000)

    def raw(data):
        return lambda send, path: send(data)
    for answer in (raw(noise), raw(b""), raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort"),
                   raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200000), ctl.fixed(noise),
                   ctl.fixed(""), ctl.fixed("[]"), ctl.fixed("[" * 100000), ctl.fixed("{\"vms\":"),
                   ctl.fixed("{\"vms\":{}}"), ctl.fixed("{\"vms\":[1]}"),
                   ctl.fixed("{\"vms\":[{\"vm\":7}]}"), ctl.fixed("null"), ctl.fixed("\0\0\0"),
                   ctl.fixed("no", "404 Not Found"), ctl.fixed("{\"error\":7}", "400 Bad"),
                   ctl.fixed("", "503 Busy"), ctl.fixed("x", "302 Found")):
        with ctl.Server(answer) as server:
            for args in COMMANDS:
                said = ctl.complaint(1, *args, "--address", server.address)
                tap.check("\033" not in said and len(said) < 1200, said)


@t.test("an answer without an end is not waited for, nor kept")
def _():
    def endless(send, _path):
        send(b"HTTP/1.1 200 OK\r\n\r\n{\"vms\":[")
        while True:
            send(b"                                " * 32768)
    with ctl.Server(endless) as server:
        tap.check("MiB" in ctl.complaint(1, "list", "--address", server.address))


@t.test("what cannot be written is said, and no success")
def _():
    def answer(send, path):
        known = {"/api/v1/vms": json.dumps(ctl.vm_list()), "/metrics":
                 "# TYPE kvm_vm_vcpus gauge\nkvm_vm_vcpus{vm=\"web1\"} 1\n"}
        stat = {"stat": "exits", "type": "cumulative", "unit": "none", "base": "pow10", "exponent": 0}
        history = {"vm": "web1", "targets": [{"scope": "vcpu", "vcpu": 0, "times": [1.5],
                                              "stats": [{**stat, "values": [1]}]}]}
        row = "vm,time,vcpu,stat,value,rate\nweb1,1.000000000,0,exits,1,\n"
        body = known.get(path) or (json.dumps(history) if "json" in path else row)
        ctl.fixed(body)(send, path)
    with ctl.Server(answer) as server:
        for args in COMMANDS:
            with open("/dev/full", "wb") as full:
                done = subprocess.run([lab.program("kvmstatctl"), *args, "--address", server.address],
                                      stdout=full, stderr=subprocess.PIPE, text=True, check=False,
                                      stdin=subprocess.DEVNULL, timeout=lab.TIMEOUT_S)
            tap.equal((done.returncode, done.stderr),
                      (1, f"kvmstatctl {args[0]}: standard output: No space left on device\n"), args)


@t.test("top: names are those of the VMs, and a terminal of another size is drawn anew at once")
def _():
    def metrics(send, _path):
        ctl.fixed("# TYPE kvm_vm_vcpus gauge\n"
                  'kvm_vm_vcpus{vm="a\\"b\\\\n"} 1\nkvm_vm_vcpus{vm="web1"} 2\n')(send, _path)
    with ctl.Server(metrics) as server:
        for glob in ('a"b*', "*n"):
            shown = ctl.good("top", glob, "--address", server.address).splitlines()
            tap.equal([line.split()[0] for line in shown], ["NAME", 'a"b\\n'], glob)
        pid, fd = pty.fork()
        if pid == 0:
            os.execl(lab.program("kvmstatctl"), "kvmstatctl", "top", "--interval", "1h", "--address",
                     server.address)
        try:
            shown = b""
            for columns, text in ((80, b"q ends)"), (20, b"kvmstatctl top, by e\033[K")):
                fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 10, columns, 0, 0))
                end = time.monotonic() + lab.TIMEOUT_S
                while text not in shown and time.monotonic() < end and select.select(
                        [fd], [], [], lab.TIMEOUT_S)[0]:
                    shown += os.read(fd, 65536)
                tap.check(text in shown, shown[-500:])
        finally:
            os.close(fd)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@t.test("a history that contradicts itself harms nobody")
def _():
    def stat(**more):
        return {"stat": "exits", "type": "cumulative", "unit": "cycles", "base": "pow10", "exponent": 0,
                "values": [1], **more}

    def history(target):
        return {"vm": "web1", "targets": [{"scope": "vcpu", "vcpu": 0, "times": [1.5],
                                           "stats": [stat()], **target}]}
    bad = [{"targets": 1}, {"targets": [1]}, history({"times": 5}), history({"times": [1.5, 2.5]}),
           history({"stats": None}), history({"stats": [7]}), history({"stats": [stat(values=7)]}),
           history({"stats": [stat(stat="")]}), history({"times": [], "stats": [stat(values=[])]})]
    odd = [history({"stats": [stat(exponent=e, base=b, values=[v], unit=u, type=k)]})
           for e in (0, 400, -400, 10 ** 17) for b in ("pow2", "pow10", "odd")
           for v in (2 ** 64 - 1, -1, "text", [1, 2], [], list(range(4096)), None)
           for u, k in (("cycles", "cumulative"), ("seconds", "log_hist"), ("boolean", "peak"))]
    current = None

    def answer(send, path):
        ctl.fixed(json.dumps(ctl.vm_list() if path == "/api/v1/vms" else current))(send, path)
    with ctl.Server(answer) as server:
        for current in bad:
            for more in ([], ["--json"]):
                ctl.complaint(1, "dump", "web1", *more, "--address", server.address)
        def no_number(text):
            raise AssertionError(f"{text} is not JSON: {current}")
        endless = history({"times": [1.5, 2.5], "stats": [stat(exponent=400, values=[1, 2])]})
        for current in (*t.random.sample(odd, 40), endless):
            for more in ([], ["--json"]):
                done = ctl.run("dump", "web1", *more, "--address", server.address)
                tap.check(done.returncode in (0, 1), f"{current}: {done.returncode}, {done.stderr}")
                if more and done.returncode == 0:
                    json.loads(done.stdout, parse_constant=no_number)
    for line in ("web1", "web1,x,,exits,1,", "web1,1.5,,exits,1,", "\"web1,1.000000000,,exits,1,",
                 "web1,99999999999999.000000000,,exits,1,", "web1,1.000000000,99999999999,exits,1,"):
        def lines(send, path, line=line):
            ctl.fixed(json.dumps(ctl.vm_list()) if path == "/api/v1/vms"
                      else f"vm,time,vcpu,stat,value,rate\n{line}\n")(send, path)
        with ctl.Server(lines) as server:
            done = ctl.run("csv", "--address", server.address)
            tap.equal((done.returncode, done.stdout.splitlines()[1:]), (1, []), line)
            tap.check("not what kvmstatd gives" in done.stderr, done.stderr)


@t.test("a name is shown, not obeyed by the terminal")
def _():
    evil = "a\033[2Jb\nc\u009bd\x7f"
    with ctl.Server(ctl.fixed(json.dumps(ctl.vm_list(vm=evil, detail="\033]0;x\a")))) as server:
        for args in ([], ["--names"]):
            shown = ctl.good("list", *args, "--address", server.address)
            tap.check("a?[2Jb?c?d?" in shown, shown)
            tap.check("\033" not in shown and "\u009b" not in shown, shown)
        [vm] = json.loads(ctl.good("list", "--json", "--address", server.address))
        tap.equal(vm["vm"], evil)


t.main()
