# SPDX-License-Identifier: Apache-2.0
"""The architectures that the decoder and the renderer are tested on by cross-compiling them, and what
that takes: a compiler, an emulator of user programs, and the two libraries that the tests need.

The libraries are built from Debian's source packages, alike for all: Debian has no binaries of them
for mips64 and loongarch64.
"""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass

import archive

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIBRARY_SUITE = "bookworm"


@dataclass
class Target:
    name: str  # as in cmake/toolchains
    triplet: str
    emulator: str
    what: str
    packages: tuple  # of Debian 12; none: the compiler is unpacked from another release


TARGETS = [
    Target("s390x", "s390x-linux-gnu", "qemu-s390x", "64 bits, big-endian",
           ("gcc-s390x-linux-gnu", "libc6-dev-s390x-cross")),
    Target("mips64", "mips64-linux-gnuabi64", "qemu-mips64", "64 bits, big-endian",
           ("gcc-mips64-linux-gnuabi64", "libc6-dev-mips64-cross")),
    Target("loongarch64", "loongarch64-linux-gnu", "qemu-loongarch64", "64 bits, little-endian", ()),
    Target("armhf", "arm-linux-gnueabihf", "qemu-arm", "32 bits, little-endian",
           ("gcc-arm-linux-gnueabihf", "libc6-dev-armhf-cross")),
    Target("i386", "i686-linux-gnu", "qemu-i386", "32 bits, little-endian",
           ("gcc-i686-linux-gnu", "libc6-dev-i386-cross")),
]


class Failed(Exception):
    """Something was there and did not work."""


def _cmake(*arguments):
    done = subprocess.run(["cmake", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise Failed(f"cmake {' '.join(arguments)}: exit status {done.returncode}\n{done.stdout}")


def _wrapper(path, root, program, *arguments):
    """A script that runs a program of another release with the C library of that release."""
    start = [f"{root}/usr/lib64/ld-linux-x86-64.so.2", "--library-path",
             f"{root}/usr/lib/x86_64-linux-gnu", "--argv0", program, os.path.realpath(program)]
    words = " ".join(f"'{word}'" for word in [*start, *arguments])
    with open(path, "w", encoding="utf-8") as f:
        f.write(f"#!/bin/sh\nexec {words} \"$@\"\n")
    os.chmod(path, 0o755)


def _loongarch_toolchain():
    """Debian 12 has no compiler for it, Debian 13 does: it is unpacked, not installed, and each
    program of it is started by its own release's dynamic linker. Returns its root."""
    if os.uname().machine != "x86_64":
        raise archive.Unavailable("its compiler is taken from Debian 13's packages for amd64")
    root = archive.Archive("amd64", "trixie").unpacked(
        ["gcc-14-loongarch64-linux-gnu", "libc6-dev-loong64-cross"], closure=True)
    bin_folder = os.path.join(root, "wrapped")
    if os.path.isdir(bin_folder):
        return root
    work = tempfile.mkdtemp(dir=root)
    os.chmod(work, 0o755)
    parts = os.path.join(work, "parts")
    os.mkdir(parts)
    compiler = f"{root}/usr/libexec/gcc-cross/loongarch64-linux-gnu/14"
    binutils = f"{root}/usr/loongarch64-linux-gnu/bin"
    for name in ("cc1", "collect2"):
        _wrapper(os.path.join(parts, name), root, os.path.join(compiler, name))
    for name in ("as", "ld"):
        _wrapper(os.path.join(parts, name), root, os.path.join(binutils, name))
    _wrapper(os.path.join(work, "loongarch64-linux-gnu-gcc"), root,
             f"{root}/usr/bin/loongarch64-linux-gnu-gcc-14", f"--sysroot={root}",
             f"-B{bin_folder}/parts/")
    os.rename(work, bin_folder)
    return root


def _loongarch_options(target):
    """Debian 13's C library has vector instructions, which the emulator of Debian 12 does not know."""
    root = _loongarch_toolchain()
    emulator = archive.Archive("amd64", "trixie").unpacked(["qemu-user"])
    return [f"-DKVMSTATD_TOOLCHAIN={root}/wrapped", f"-DKVMSTATD_LIBC={root}/usr/{target.triplet}",
            f"-DKVMSTATD_EMULATOR={emulator}/usr/bin/{target.emulator}"]


def toolchain_options(target):
    """CMake's options that choose compiler and emulator; Unavailable says what is missing."""
    options = [f"-DCMAKE_TOOLCHAIN_FILE={ROOT}/cmake/toolchains/{target.name}.cmake"]
    if not target.packages:
        return options + _loongarch_options(target)
    missing = []
    if not shutil.which(f"{target.triplet}-gcc"):
        missing.extend(target.packages)
    emulator = shutil.which(target.emulator) or shutil.which(f"{target.emulator}-static")
    if not emulator:
        missing.append("qemu-user-static")
    if missing:
        raise archive.Unavailable(f"not installed: {' '.join(missing)}")
    return options + [f"-DKVMSTATD_EMULATOR={emulator}"]


def _build_library(package, sysroot, options, work):
    source = archive.Archive("amd64", LIBRARY_SUITE, "deb-src").sources(package)
    build = os.path.join(work, package)
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    _cmake(*generator, "-S", source, "-B", build, *options, f"-DKVMSTATD_SYSROOT={sysroot}",
           f"-DCMAKE_INSTALL_PREFIX={sysroot}", "-DCMAKE_INSTALL_LIBDIR=lib",
           "-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_POSITION_INDEPENDENT_CODE=ON",
           "-DCMAKE_C_FLAGS=-w", "-DBUILD_SHARED_LIBS=OFF", "-DBUILD_TESTING=OFF",
           "-DCHECK_ENABLE_TESTS=OFF", "-DHAVE_SUBUNIT=0", "--no-warn-unused-cli")
    _cmake("--build", build, "--target", "install")


def _complete_pkgconfig(folder):
    """The tests are linked with static libraries; and libyaml says nothing for pkg-config at all."""
    libraries = os.path.join(folder, "lib")
    for name in os.listdir(libraries):
        if name.startswith("libcheck.so"):
            os.unlink(os.path.join(libraries, name))
    with open(f"{libraries}/pkgconfig/yaml-0.1.pc", "w", encoding="utf-8") as f:
        f.write(f"Name: LibYAML\nDescription: YAML\nVersion: 0.2.5\n"
                f"Libs: -L{libraries} -lyaml\nCflags: -I{folder}/include\n")


def sysroot(name, options, packages=("check", "libyaml")):
    """The folder with the libraries of the tests for an architecture: built once."""
    final = os.path.join(archive.cache(), "cross", name)
    done = os.path.join(final, "complete")
    if os.path.exists(done):
        return final
    shutil.rmtree(final, ignore_errors=True)
    os.makedirs(os.path.dirname(final), exist_ok=True)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(final), prefix=f".{name}-") as work:
        for package in packages:
            _build_library(package, final, options, work)
    _complete_pkgconfig(final)
    with open(done, "w", encoding="utf-8"):
        pass
    return final
