# SPDX-License-Identifier: Apache-2.0
"""Our programs for another architecture, and the shared libraries that they need there.

They are linked against the libraries of a Debian release of that architecture, unpacked into the
cache: so are the programs that Debian's users of that architecture would build. The release's own
libc and loader go into the machine with them.
"""

import os
import re
import shutil
import subprocess

import archive

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TARGETS = ["kvmstatd", "kvmstatd-demo-vm", "kvmstatd-preload"]


def sysroot(architecture):
    """The folder with the libraries that our programs are built with, as installing them has it."""
    listed = subprocess.run([os.path.join(SOURCE, "packaging/install-deps"), "--print"],
                            stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    packages = [p for p in listed if re.fullmatch("lib.*-dev", p)]
    return archive.Archive(architecture.debian, architecture.libraries).unpacked(
        sorted({"libc6-dev", "libelf-dev", *packages}), closure=True)


def missing_tools(architecture):
    """Programs that building for and booting this architecture takes and that are not installed."""
    tools = [architecture.emulator, f"{architecture.triplet}-gcc", "cmake", "ninja", "readelf", "clang",
             "pkg-config"]
    bpftool = shutil.which("bpftool") or shutil.which("bpftool", path="/usr/sbin:/sbin")
    return [t for t in tools if not shutil.which(t)] + ([] if bpftool else ["bpftool"])


def _run(argv, log):
    process = subprocess.run(["nice", "-n", "10", *argv], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    with open(log, "a", encoding="utf-8") as f:
        f.write(process.stdout)
    if process.returncode:
        raise RuntimeError(f"{' '.join(argv[:3])} … failed:\n{process.stdout[-4000:]}")


def build(architecture, jobs):
    """The build folder, with the programs built. Incremental."""
    folder = os.path.join(SOURCE, "build-lab", architecture.name)
    root = sysroot(architecture)
    stamp = os.path.join(folder, "sysroot")  # a link to what the tree was configured with
    if not os.path.islink(stamp) or os.readlink(stamp) != root:
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
    log = os.path.join(folder, "log")
    if not os.path.islink(stamp):
        toolchain = os.path.join(SOURCE, "tests/lab/toolchain.cmake")
        _run(["cmake", "-G", "Ninja", "-S", SOURCE, "-B", folder,
              f"-DCMAKE_TOOLCHAIN_FILE={toolchain}", f"-DKVMSTATD_TRIPLET={architecture.triplet}",
              f"-DKVMSTATD_PROCESSOR={architecture.processor}",
              f"-DCMAKE_SYSROOT={root}", "-DKVMSTATD_TESTS=OFF",
              "-DKVMSTATD_BPF=ON", "-DKVMSTATD_WERROR=ON"], log)
        os.symlink(root, stamp)
    _run(["ninja", "-C", folder, "-j", str(jobs), *TARGETS], log)
    _run([f"{architecture.triplet}-gcc", f"--sysroot={root}", "-static", "-Os",
          "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-o", os.path.join(folder, "peek"),
          os.path.join(SOURCE, "tests/lab/peek.c")], log)
    return folder


def _dynamic(path):
    """What an ELF file needs: (its loader or None, the names of its libraries)."""
    text = subprocess.run(["readelf", "-W", "-l", "-d", path], stdout=subprocess.PIPE, text=True,
                          check=True, env={**os.environ, "LC_ALL": "C"}).stdout
    loader = re.search(r"Requesting program interpreter: (\S+)\]", text)
    return loader and loader[1], re.findall(r"\(NEEDED\)\s+Shared library: \[([^\]]+)\]", text)


def _inside(root, path):
    """Where a path leads to inside a root folder, whose absolute links mean the root folder too."""
    for _ in range(16):
        whole = os.path.join(os.path.realpath(root + os.path.dirname(path)), os.path.basename(path))
        if not os.path.islink(whole):
            return whole
        target = os.readlink(whole)
        path = target if target.startswith("/") else \
            "/" + os.path.relpath(os.path.join(os.path.dirname(whole), target), root)
    raise RuntimeError(f"{root}{path} leads nowhere")


def add_program(image, path, source, root, triplet):
    """Put a program or library into the image, with all the libraries that it leads to."""
    image.file(path, source, 0o755)
    folders = [os.path.join(root, "usr/lib", triplet), os.path.join(root, "usr/lib")]
    loader, wanted = _dynamic(source)
    if loader and loader.lstrip("/") not in image.entries:
        image.file(loader.lstrip("/"), _inside(root, loader), 0o755)
    while wanted:
        name = wanted.pop()
        if f"lib/{triplet}/{name}" in image.entries:
            continue
        library = next((p for p in (os.path.join(f, name) for f in folders) if os.path.exists(p)),
                       None)
        if library is None:
            raise RuntimeError(f"{source} needs {name}, which {root} has not")
        image.file(f"lib/{triplet}/{name}", os.path.realpath(library), 0o755)
        wanted += _dynamic(os.path.realpath(library))[1]
