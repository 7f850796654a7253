# SPDX-License-Identifier: Apache-2.0
"""Boots a Debian 12 system, installs the packages in it, and holds them to what is promised of them.

systemd is the first process, the kernel is Debian's own, and its KVM runs on virtualisation that QEMU
emulates. The tests run inside (tests/lab/inside/) and print their verdicts to a serial line. The last
line is `N passed, N failed, N skipped`.
"""

import argparse
import glob
import os
import shlex
import subprocess
import sys
import tempfile
import time

import archive
import boot
import build
import initramfs
import machines
import run_tests
import system_image

HERE = os.path.dirname(os.path.abspath(__file__))
KERNEL, SUITE = "amd64-6.1", "bookworm"
# It takes two minutes where nothing else runs.
LIMIT_S = 900
CONSOLE_LINES = 80
EPILOG = """
The system is made once, through this machine's own apt configuration, and kept in
$XDG_CACHE_HOME/kvmstatd-lab (~/.cache/kvmstatd-lab). What a run leaves stands in
build-lab/runs/system/. What cannot run here is skipped and says why; with KVMSTATD_REQUIRE_LAB=1 it is a
failure. `packaging/install-deps --lab --packaging` installs what is needed.
"""
# For the disk, which the initial file system makes available.
MODULES = ("virtio_pci", "virtio_blk")
# Not a part of what is tested, and slow under emulation.
MASKED = ("systemd-networkd.service", "systemd-timesyncd.service", "e2scrub_reap.service",
          "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
          "fstrim.timer", "getty@tty1.service", "serial-getty@ttyS0.service",
          "systemd-update-utmp.service", "systemd-journal-flush.service")
UNITS = "payload/etc/systemd/system"


def packages(folder):
    """The packages that are installed; they are built where no folder is given."""
    if not folder:
        folder = os.path.join(build.SOURCE, "build-lab/packages")
        done = subprocess.run([os.path.join(build.SOURCE, "packaging/build-deb"), folder],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                              stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise RuntimeError(f"packaging/build-deb:\n{done.stdout[-4000:]}")
    names = ("kvmstatd", "kvmstatctl", "libkvmstatd-preload")
    found = [sorted(glob.glob(f"{folder}/{name}_*.deb")) for name in names]
    if any(len(files) != 1 for files in found):
        raise RuntimeError(f"{folder} has not one package each of {', '.join(names)}")
    return [files[0] for files in found]


def initial(tree, debs, words):
    """What boots: busybox, the disk's modules, and what is put onto the disk."""
    busybox = archive.Archive("amd64", SUITE).unpacked(["busybox-static"])
    image = initramfs.Initramfs()
    image.file("bin/busybox", os.path.join(busybox, "usr/bin/busybox"), 0o755)
    image.file("init", os.path.join(HERE, "system_init.sh"), 0o755)
    order = initramfs.module_files(tree, MODULES)
    for path in order:
        image.module(f"modules/{os.path.basename(path)}", path)
    image.text("modules/order", "".join(f"{os.path.basename(path)}\n" for path in order))
    for deb in debs:
        image.file(f"payload/opt/packages/{os.path.basename(deb)}", deb, 0o644)
    for path in (*glob.glob(f"{HERE}/inside/*"), *glob.glob(f"{build.SOURCE}/tests/lib/*.py"),
                 f"{build.SOURCE}/docs/handoff-protocol.md"):
        if os.path.isfile(path):
            image.file(f"payload/opt/kvmstatd/{os.path.relpath(path, build.SOURCE)}", path, 0o644)
    image.file(f"{UNITS}/lab-tests.service", f"{HERE}/inside/lab-tests.service", 0o644)
    image.link(f"{UNITS}/multi-user.target.wants/lab-tests.service", "../lab-tests.service")
    for unit in MASKED:
        image.link(f"{UNITS}/{unit}", "/dev/null")
    image.text("payload/opt/words", shlex.join(words))
    return image


def command(kernel, tree, initrd, disk, console):
    append = "quiet systemd.show_status=1 systemd.journald.forward_to_console=1 " \
        "systemd.journald.max_level_console=info rootfstype=ext4"
    return boot.command(kernel, tree, initrd, append, devices=(
        # Its writes go to a file that QEMU throws away.
        "-drive", f"file={disk},format=raw,if=virtio,snapshot=on,cache=unsafe",
        "-m", "1024", "-smp", str(min(2, os.cpu_count() or 1)),
        "-serial", f"file:{console}", "-serial", "stdio"))


def run(options, folder):
    """The run_tests.Outcome of the booted system."""
    kernel = machines.choose([KERNEL])[0]
    program = run_tests.Program("system", [], ["system"], LIMIT_S, {}, "/")
    outcome = run_tests.Outcome(program)
    debs = packages(options.packages)
    tree = system_image.kernel_tree(kernel)
    disk = system_image.base(tree, SUITE, debs)
    print(f"# packages and system are there after {time.monotonic() - options.begin:.0f} s", flush=True)
    console_path = os.path.join(folder, "console")
    with tempfile.TemporaryDirectory(prefix="kvmstatd-lab-") as work:
        initrd = os.path.join(work, "initrd")
        initial(tree, debs, options.words).write(initrd)
        begin = time.monotonic()
        result = boot.run(command(kernel, tree, initrd, disk, console_path), options.limit,
                          os.path.join(folder, "verdicts"),
                          echo=lambda line: print(f"{line}  [{time.monotonic() - begin:.0f} s]"
                                                  if line.startswith(("ok", "not ok", "lab:"))
                                                  else line, flush=True))
    status = [line.split()[-1] for line in result.text.splitlines() if line.startswith("lab: status ")]
    outcome.seconds, outcome.output = result.seconds, result.text
    run_tests.judge(result.text, int(status[0]) if status else None, outcome)
    if not result.complete:
        outcome.trouble(f"it did not come to its end in {options.limit} s; its console:")
        with open(console_path, encoding="utf-8", errors="replace") as f:
            outcome.troubles += f.read().splitlines()[-CONSOLE_LINES:]
    return outcome


def parse_arguments():
    parser = argparse.ArgumentParser(
        prog="tests/lab/system", description=__doc__.split("\n\n", maxsplit=1)[0], epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="WORD", help="only tests whose names have one of "
                        "these in them; those that install and remove are needed by most others")
    parser.add_argument("--packages", metavar="FOLDER", help="where packaging/build-deb has put the "
                        "packages; default: they are built")
    parser.add_argument("--limit", metavar="SECONDS", type=int, default=LIMIT_S)
    return parser.parse_args()


def main():
    options = parse_arguments()
    options.begin = time.monotonic()
    folder = os.path.join(build.SOURCE, "build-lab/runs/system")
    os.makedirs(folder, exist_ok=True)
    counts = [0, 0, 0]
    try:
        if os.geteuid() != 0:
            raise archive.Unavailable("making a Debian system takes root")
        if missing := system_image.missing_tools():
            raise archive.Unavailable(f"not installed: {' '.join(missing)}")
        outcome = run(options, folder)
        counts = [outcome.passed, outcome.failed, len(outcome.skips)]
        print("\n".join(f"# {line}" for line in outcome.troubles))
        print(f"# booted, tested and ended in {outcome.seconds:.0f} s")
    except archive.Unavailable as e:
        required = os.environ.get("KVMSTATD_REQUIRE_LAB") == "1"
        counts = [0, 1, 0] if required else [0, 0, 1]
        print(f"{'FAILED' if required else 'skipped'}: {e}")
    except RuntimeError as e:
        counts = [0, 1, 0]
        print(f"FAILED: {e}")
    print("{} passed, {} failed, {} skipped".format(*counts), flush=True)
    return 1 if counts[1] else 0


if __name__ == "__main__":
    sys.exit(main())
