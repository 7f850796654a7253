# SPDX-License-Identifier: Apache-2.0
"""The command line of the lab: tests/lab/run."""

import argparse
import base64
import concurrent.futures
import fcntl
import io
import os
import shlex
import shutil
import sys
import tarfile
import tempfile
import threading
import time
import traceback

import archive
import boot
import build
import checks
import initramfs
import machines
import report
import tap

HERE = os.path.dirname(os.path.abspath(__file__))
WAYS = ("statsfd", "handoff", "bpf")
EPILOG = """
Kernels and libraries are fetched once, through this machine's own apt configuration, and kept in
$XDG_CACHE_HOME/kvmstatd-lab (~/.cache/kvmstatd-lab); build trees are build-lab/ of the source tree.
What cannot run here (an emulator, a compiler, a kernel is missing) is skipped and says why; with
KVMSTATD_REQUIRE_LAB=1 it is a failure. `packaging/install-deps --lab` installs what is needed.
"""


def base_image(kernel, tree):
    """What every machine of the lab boots into: busybox, the modules of KVM, our init."""
    busybox = archive.Archive(kernel.architecture.debian, kernel.architecture.libraries).unpacked(
        ["busybox-static"])
    image = initramfs.Initramfs()
    image.file("bin/busybox", os.path.join(busybox, "usr/bin/busybox"), 0o755)
    image.file("init", os.path.join(HERE, "init.sh"), 0o755)
    image.text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    order = []
    for path in initramfs.module_files(tree, kernel.architecture.modules):
        name = os.path.basename(path).removesuffix(".xz")
        image.module(f"modules/{name}", path)
        order.append(name)
    image.text("modules/order", "".join(f"{name}\n" for name in order))
    return image


def add_payload(image, program, arguments):
    image.file("payload", program, 0o755)
    image.text("payload.args", shlex.join(arguments))


def scenario_image(kernel, tree, jobs):
    architecture = kernel.architecture
    folder = build.build(architecture, jobs)
    root = build.sysroot(architecture)
    image = base_image(kernel, tree)
    for path in ("bin/kvmstatd", "bin/kvmstatd-demo-vm", "lib/libkvmstatd-preload.so"):
        build.add_program(image, path, os.path.join(folder, path), root, architecture.triplet)
    image.file("bin/peek", os.path.join(folder, "peek"), 0o755)
    add_payload(image, os.path.join(HERE, "scenario.sh"), WAYS)
    return image


def unpack(console, folder):
    """The files that came over the console, between two lines of the scenario's."""
    lines = console.text.splitlines()
    ends = [n for n, line in enumerate(lines) if line.startswith("lab: results end")]
    if "lab: results" not in lines or not ends:
        raise AssertionError("the machine has brought no results")
    packed = base64.b64decode("".join(lines[lines.index("lab: results") + 1:ends[0]]))
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        tar.extractall(folder)


class Run:
    """One kernel: from its files to its verdicts."""

    def __init__(self, kernel, options):
        self.kernel = kernel
        self.options = options
        self.folder = os.path.join(build.SOURCE, "build-lab/runs", kernel.name)
        self.verdicts = []  # (name, "ok" | "skip" | "not ok", detail)
        self.result = None

    def _note(self, name, function):
        try:
            function()
            self.verdicts.append((name, "ok", ""))
        except Exception as e:  # pylint: disable=broad-except
            detail = str(e) if isinstance(e, AssertionError) else traceback.format_exc()
            self.verdicts.append((name, "not ok", detail))
        return self.verdicts[-1][1] == "ok"

    def _unable(self, reason):
        required = os.environ.get("KVMSTATD_REQUIRE_LAB") == "1"
        self.verdicts.append(("runs at all", "not ok" if required else "skip", reason))

    def prepare(self):
        """Fetch, build, make the image; nothing of it takes the machine's emulator."""
        lacking = build.missing_tools(self.kernel.architecture)
        if lacking:
            return self._unable(f"not installed: {', '.join(lacking)}")
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder)
        self.initrd = os.path.join(self.folder, "initrd")
        try:
            self.tree = archive.kernel_tree(self.kernel)
            scenario_image(self.kernel, self.tree, os.cpu_count()).write(self.initrd)
        except archive.Unavailable as e:
            return self._unable(str(e))
        except Exception:  # pylint: disable=broad-except
            self.verdicts.append(("programs are built", "not ok", traceback.format_exc()))
        return None

    def boot(self):
        if self.verdicts:
            return
        console = boot.run(boot.command(self.kernel, self.tree, self.initrd), machines.LIMIT_S,
                           os.path.join(self.folder, "console"))
        self.seconds = console.seconds
        self._judge(console)
        if not self.options.keep:
            os.unlink(self.initrd)

    def _judge(self, console):
        files = os.path.join(self.folder, "results")

        def came_to_its_end():
            tap.check(console.complete, f"it did not within {machines.LIMIT_S} s; its console:\n"
                      + console.tail())
            unpack(console, files)
        if not self._note("the machine comes to its end", came_to_its_end):
            return
        sources = []
        for way in WAYS:
            # All of them, whatever became of the ones before.
            if all([self._note(*check) for check in checks.of_way(files, way)]):
                sources.append(way)
        bad = [v for v in self.verdicts if v[1] == "not ok"]
        if bad:
            self.verdicts[-1] = (*self.verdicts[-1][:2],
                                 self.verdicts[-1][2] + f"\nits console:\n{console.tail(30)}")
        n_vm, n_vcpu = checks.counts(files, WAYS[0])
        with open(os.path.join(files, "page_kib"), encoding="ascii") as f:
            page_kib = int(f.read())
        self.result = {
            "kernel": self.kernel.name, "architecture": self.kernel.architecture.name,
            "release": boot.release(self.tree), "page_kib": page_kib, "sources": sources,
            "vm_stats": n_vm, "vcpu_stats": n_vcpu,
            "passed": len(self.verdicts) - len(bad), "failed": len(bad),
        }

    def record(self):
        """Keep the raw statistics files, one after another, for tests that have no such kernel."""
        files = os.path.join(self.folder, "results", WAYS[0], "after")
        path = os.path.join(build.SOURCE, "tests/fixtures", f"{self.kernel.name}.kvmstats")
        with open(path, "wb") as f:
            for name in ("vm", "vcpu-0", "vcpu-1"):
                with open(os.path.join(files, name), "rb") as recorded:
                    f.write(recorded.read())


class Printer:
    """TAP, a kernel's lines together; and the sum in the end."""

    def __init__(self):
        self.lock = threading.Lock()
        self.counts = {"ok": 0, "not ok": 0, "skip": 0}
        self.n = 0

    def show(self, run):
        with self.lock:
            for name, verdict, detail in run.verdicts:
                self.n += 1
                self.counts[verdict] += 1
                word = "not ok" if verdict == "not ok" else "ok"
                reason = f" # SKIP {' '.join(detail.split())}" if verdict == "skip" else ""
                print(f"{word} {self.n} - {run.kernel.name}: {name}{reason}")
                if verdict == "not ok":
                    for line in detail.rstrip().split("\n"):
                        print(f"#   {line}")
            if run.result:
                print(f"# {run.kernel.name}: Linux {run.result['release']}, "
                      f"{run.result['page_kib']} KiB pages, {run.seconds:.0f} s")
            sys.stdout.flush()

    def finish(self):
        print(f"1..{self.n}")
        print(f"{self.counts['ok']} passed, {self.counts['not ok']} failed, "
              f"{self.counts['skip']} skipped", flush=True)
        return 1 if self.counts["not ok"] else 0


def run_scenario(kernels, options):
    # Two runs would take each other's build trees and images away.
    os.makedirs(os.path.join(build.SOURCE, "build-lab"), exist_ok=True)
    lock = open(os.path.join(build.SOURCE, "build-lab/lock"), "w", encoding="ascii")
    fcntl.flock(lock, fcntl.LOCK_EX)
    printer = Printer()
    runs = [Run(kernel, options) for kernel in kernels]
    begin = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        # Building uses all processors by itself, so it comes first, one after another.
        for run in runs:
            run.prepare()
        print(f"# fetched and built in {time.monotonic() - begin:.0f} s", flush=True)
        futures = {pool.submit(run.boot): run for run in runs}
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
                printer.show(futures[future])
        except BaseException:  # told to stop: leaving this block waits for the threads
            pool.shutdown(wait=False, cancel_futures=True)
            boot.end_all()
            raise
    results = [run.result for run in runs if run.result]
    report.save(results, options.json or os.path.join(build.SOURCE, "build-lab/results.json"))
    if options.record:
        for run in runs:
            if run.result:
                run.record()
    print(f"# all of it took {time.monotonic() - begin:.0f} s")
    status = printer.finish()
    if options.table:
        lacking = report.missing(results)
        if lacking:
            print(f"tests/lab/run: no table: not proved on {', '.join(lacking)}", file=sys.stderr)
            return 1
        report.write_table(results)
    return status


def run_program(kernel, program, arguments):
    tree = archive.kernel_tree(kernel)
    image = base_image(kernel, tree)
    add_payload(image, program, arguments)
    with tempfile.TemporaryDirectory(prefix="kvmstatd-lab-") as work:
        initrd = os.path.join(work, "initrd")
        image.write(initrd)
        console = boot.run(boot.command(kernel, tree, initrd), machines.LIMIT_S,
                           os.path.join(work, "console"), echo=lambda line: print(line, flush=True))
    print(f"# {kernel.name}: {console.seconds:.1f} s", flush=True)
    return "lab: status 0" in console.text.splitlines()


def parse():
    parser = argparse.ArgumentParser(
        prog="tests/lab/run", epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Runs kvmstatd on stock kernels of all architectures whose virtualisation can be "
        "emulated.")
    parser.add_argument("kernels", nargs="*", metavar="ARCH",
                        help="an architecture or a kernel, as --list names them; default: all")
    parser.add_argument("--list", action="store_true", help="print the kernels and run nothing")
    parser.add_argument("-j", "--jobs", type=int, default=1, choices=(1, 2),
                        help="machines at a time (default 1)")
    parser.add_argument("--keep", action="store_true",
                        help="keep the initial file systems in build-lab/runs/, beside the consoles "
                        "and results that stay there anyway")
    parser.add_argument("--json", metavar="FILE",
                        help="where results go (default build-lab/results.json)")
    parser.add_argument("--record", action="store_true",
                        help="renew tests/fixtures/*.kvmstats, the statistics files of these kernels")
    parser.add_argument("--table", action="store_true",
                        help="renew tests/lab/results.json and the table of README.md")
    parser.add_argument("--program", metavar="FILE",
                        help="instead of all this, boot with this static program and show the console")
    parser.add_argument("--args", default="", metavar="WORDS", help="the arguments of --program")
    options = parser.parse_args()
    try:
        options.chosen = machines.choose(options.kernels)
    except ValueError as e:
        parser.error(str(e))
    return options


def main():
    options = parse()
    if options.list:
        for kernel in options.chosen:
            print(kernel.name)
        return 0
    if options.program:
        good = [run_program(k, options.program, shlex.split(options.args)) for k in options.chosen]
        return 0 if all(good) else 1
    return run_scenario(options.chosen, options)


if __name__ == "__main__":
    sys.exit(main())
