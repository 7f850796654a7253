# SPDX-License-Identifier: Apache-2.0
"""The daemon as a program: arguments, exit statuses, signals, reload, where its threads run."""

import contextlib
import os
import re
import signal
import subprocess
import tempfile

import lab
import tap
from exposed import first_sample, samples, series

t = tap.Tests()


def run(*args):
    """Exit status, standard output, standard error of a run that ends by itself."""
    done = subprocess.run([lab.program("kvmstatd"), *args], capture_output=True, timeout=lab.TIMEOUT_S,
                          check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@t.test("--version and --help go to standard output and succeed")
def _():
    status, out, err = run("--version")
    tap.equal((status, err), (0, ""))
    tap.check(re.fullmatch(r"kvmstatd \d+\.\d+\.\d+ \(revision \S+\)\n", out), out)
    status, out, err = run("--help")
    tap.equal((status, err), (0, ""))
    for option in ("--config", "--check-config", "--once", "--web.listen-address",
                   "--web.config.file", "--log.level", "--version"):
        tap.check(option in out, f"{option} is not in the help")


@t.test("wrong arguments are exit status 2 and say what would be right")
def _():
    for args, word in ((("--nonsense",), "--help"), (("stray",), "stray"),
                       (("--log.level", "loud"), "debug"),
                       (("--web.listen-address", "nowhere"), "HOST:PORT")):
        status, out, err = run(*args)
        tap.equal((status, out), (2, ""), f"{args}")
        tap.check(word in err, f"{args}: {err}")


@t.test("--check-config: 0 and 'valid', or 2 and one line with file, line and column")
def _():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "k.yaml")
        with open(path, "w", encoding="ascii") as f:
            f.write("sampling:\n  interval: 250ms\n")
        tap.equal(run("--config", path, "--check-config")[0], 0)
        with open(path, "w", encoding="ascii") as f:
            f.write("sampling:\n  interval: 100\n")
        status, out, err = run("--config", path, "--check-config")
        tap.equal((status, out), (2, ""))
        tap.check(err.startswith(f"{path}:2:13: ") and err.count("\n") == 1, err)
        tap.check("100ms" in err, f"what would be right is not said: {err}")
        status, _, err = run("--config", path + ".missing", "--check-config")
        tap.equal(status, 2)
        tap.check(path + ".missing" in err, err)
        tap.equal(run("--config", os.path.join(lab.SOURCE, "conf/kvmstatd.yaml"),
                      "--check-config")[0], 0, "the shipped configuration")
        if not os.path.lexists("/etc/kvmstatd/kvmstatd.yaml"):
            status, out, _ = run("--check-config")
            tap.equal(status, 0)
            tap.check("there is no /etc/kvmstatd/kvmstatd.yaml" in out.lower(), out)


@t.test("--once prints an exposition of every VM; without a VM it is exit status 1")
def _():
    tap.require_kvm()
    tap.require_root()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "k.yaml")
        name = f"once{os.getpid()}"
        with open(path, "w", encoding="ascii") as f:
            f.write(f'sampling: {{rules: [{{match: {{vm: "{name}*"}}, enabled: true}}, '
                    '{match: {vm: "*"}, enabled: false}]}\n')
        status, out, err = run("--config", path, "--once")
        tap.equal(status, 1)
        tap.check("no VM" in err and "--log.level" in err, f"nor is it said how to know why: {err}")
        with lab.DemoVms(name=name, vcpus=2):
            status, out, err = run("--config", path, "--once")
            tap.equal((status, err), (0, ""))
            tap.check(f'kvm_vcpu_exits_total{{vm="{name}",vcpu="1"}}' in samples(out))


@t.test("SIGTERM and SIGINT end it well, whatever it reads")
def _():
    tap.require_kvm()
    for number in (signal.SIGTERM, signal.SIGINT):
        with lab.DemoVms(name="bye", vcpus=2), lab.Daemon() as daemon:
            tap.equal(daemon.stop(number), 0, "exit status")


@t.test("SIGHUP takes a new configuration; a wrong one changes nothing and is said")
def _():
    tap.require_kvm()
    tap.require_root()
    name = f"hup{os.getpid()}"
    good = 'kvmstatd_config_last_reload_successful'
    with lab.DemoVms(name=name), lab.Daemon("sampling: {interval: 50ms}\n") as daemon:
        first_sample(daemon, name)
        tap.equal(series(daemon)[good], 1)

        def interval():
            rows = daemon.get("/api/v1/vms").json()["vms"]
            return [v["interval_ms"] for v in rows if v["name"] == name]
        daemon.reload("sampling: {interval: 20ms}\n")
        tap.wait_for(lambda: interval() == [20], what="the new interval")
        daemon.reload("sampling: {interval: 20}\n")
        tap.wait_for(lambda: series(daemon)[good] == 0, what="the refusal")
        tap.equal(interval(), [20])
        tap.check(re.search(r"kvmstatd\.yaml:1:\d+: ", daemon.errors()), daemon.errors())
        daemon.reload("sampling: {interval: 30ms}\n")
        tap.wait_for(lambda: interval() == [30] and series(daemon)[good] == 1, what="the next one")


@t.test("the sampling thread runs where the configuration says, the others where they did")
def _():
    if len(os.sched_getaffinity(0)) < 2:
        tap.skip("this machine has one CPU")
    cpu = max(os.sched_getaffinity(0))
    with lab.Daemon(f"sampling: {{cpu_affinity: [{cpu}]}}\n") as daemon:
        def where():
            found = {}
            for tid, name in lab.of_threads(daemon.pid, "comm").items():
                with contextlib.suppress(ProcessLookupError):
                    found.setdefault(name.strip(), set()).update(os.sched_getaffinity(tid))
            return found
        tap.equal(where()["kvmstatd-sample"], {cpu})
        tap.check(len(where()["kvmstatd-reaper"]) > 1, "the reaper is bound too")
        daemon.reload("sampling: {interval: 100ms}\n")
        tap.wait_for(lambda: len(where()["kvmstatd-sample"]) > 1, what="the end of the binding")


if __name__ == "__main__":
    t.main()
