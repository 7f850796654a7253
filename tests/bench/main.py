# SPDX-License-Identifier: Apache-2.0
"""tests/bench/run: a Release build, the benchmarks, one table.

Nothing here passes or fails: figures are compared with their bars and said. The exit status tells
only whether everything that was asked for could be measured.
"""

import argparse
import os
import shutil
import subprocess
import sys
import traceback

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(SOURCE, "build-bench")
os.environ["KVMSTATD_BUILD"] = BUILD  # lab takes its programs from there, and its patience
os.environ.setdefault("KVMSTATD_TEST_TIMEOUT", "300")

import bench_bpf
import bench_daemon
import bench_latency
import bench_libvirt
import bench_programs
import bench_recorder
import figures

# In the order in which they run; libvirt only when it is named, for it installs packages.
BENCHES = {
    "sweep": bench_programs.sweep,
    "render": bench_programs.render,
    "daemon": bench_daemon.run,
    "latency": bench_latency.run,
    "bpf": bench_bpf.run,
    "recorder": bench_recorder.run,
    "libvirt": bench_libvirt.run,
}
PROGRAMS = ["kvmstatd", "kvmstatd-demo-vm", "bench-sweep", "bench-render", "bench-bpf",
            "bench-recorder"]


def parse_arguments():
    parser = argparse.ArgumentParser(prog="tests/bench/run", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME",
                        help="which ones: " + ", ".join(BENCHES) + " (default: all but libvirt)")
    parser.add_argument("--quick", action="store_true",
                        help="fewer rounds and shorter windows: a look, not a measurement")
    parser.add_argument("--with-libvirt", action="store_true",
                        help="install libvirt and QEMU where they are missing, and compare with them")
    parser.add_argument("--vms", type=int, default=1000, help="VMs of 4 vCPUs (default 1000)")
    parser.add_argument("--no-build", action="store_true", help="take build-bench/ as it is")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHES]
    if unknown:
        parser.error(f"no benchmark is called {unknown[0]}; there are " + ", ".join(BENCHES))
    if not options.names:
        options.names = [name for name in BENCHES if name != "libvirt" or options.with_libvirt]
    return options


def build():
    """A Release build of its own: the other build folders are for tests."""
    configure = ["cmake", "-S", SOURCE, "-B", BUILD, "-DCMAKE_BUILD_TYPE=Release"]
    if shutil.which("ninja") and not os.path.exists(os.path.join(BUILD, "Makefile")):
        configure += ["-G", "Ninja"]
    compile_ = ["cmake", "--build", BUILD, "--parallel", str(os.cpu_count()), "--target", *PROGRAMS]
    for command in (configure, compile_):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0:
            sys.stdout.write(done.stdout.decode(errors="replace"))
            sys.exit(f"tests/bench/run: {' '.join(command)} failed")


def check_machine():
    if os.geteuid() != 0:
        sys.exit("tests/bench/run: run it as root: VMs are made on /dev/kvm and their fds borrowed")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        sys.exit("tests/bench/run: /dev/kvm cannot be used here")


def main():
    options = parse_arguments()
    check_machine()
    if not options.no_build:
        figures.say("building build-bench/ (Release)")
        build()
    collected, failed = [], []
    figures.say(figures.machine())
    for name in options.names:
        before = figures.machine_cpu()
        if figures.other_daemons():
            figures.say("another kvmstatd runs here: it holds VMs too, latency will not be ours alone")
        figures.say(f"{name} …")
        try:
            collected += BENCHES[name](options)
        except Exception:
            failed.append(name)
            traceback.print_exc()
        figures.say(f"{name}: done; the machine was {figures.busy_since(before):.0f} % busy")
    figures.print_table(collected, options.quick)
    if failed:
        sys.exit("tests/bench/run: not measured: " + ", ".join(failed))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
