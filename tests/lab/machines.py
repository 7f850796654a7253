# SPDX-License-Identifier: Apache-2.0
"""The kernels of the lab, and the emulated machine that each of them boots on.

Only architectures whose virtualisation extension QEMU can emulate (TCG) are here: on the others KVM
does not start without hardware.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    name: str  # as `uname -m` names it, but for amd64 and arm64, which everybody calls so
    debian: str  # as Debian's archive names it
    triplet: str  # of the compiler and of the library folders
    processor: str  # CMAKE_SYSTEM_PROCESSOR
    libraries: str  # the Debian release that its libraries are taken from
    emulator: str  # the QEMU program
    qemu: tuple  # its machine; the virtualisation extension is on
    console: str
    modules: tuple  # what has to be loaded for /dev/kvm to be there; built-in ones are passed over
    packages: tuple  # Debian packages that this architecture needs on the build machine

    @property
    def native(self):
        return self.name == "amd64"


ARCHITECTURES = {
    a.name: a
    for a in (
        Architecture(
            "amd64", "amd64", "x86_64-linux-gnu", "x86_64", "bookworm", "qemu-system-x86_64",
            # QEMU 7.2 now and then loses the flags of a CMPXCHG16B that an interrupt follows, and
            # the kernel dies of it; without the feature Linux does not use the instruction.
            ("-machine", "pc", "-cpu", "EPYC,+svm,-cx16", "-m", "512"),
            "ttyS0", ("kvm-amd",), ("qemu-system-x86",)),
        Architecture(
            "arm64", "arm64", "aarch64-linux-gnu", "aarch64", "bookworm", "qemu-system-aarch64",
            # Emulated pointer authentication makes the kernel's code 20 times slower.
            ("-machine", "virt,virtualization=on,gic-version=3", "-cpu", "max,pauth=off",
             "-m", "512"),
            "ttyAMA0", ("kvm",),
            ("qemu-system-arm", "gcc-aarch64-linux-gnu")),
        # Debian releases riscv64 since trixie only, so its libraries come from there.
        Architecture(
            "riscv64", "riscv64", "riscv64-linux-gnu", "riscv64", "trixie", "qemu-system-riscv64",
            ("-machine", "virt", "-cpu", "rv64,h=true", "-m", "512"),
            "ttyS0", ("kvm",),
            ("qemu-system-misc", "opensbi", "gcc-riscv64-linux-gnu")),
        Architecture(
            "ppc64le", "ppc64el", "powerpc64le-linux-gnu", "ppc64le", "bookworm",
            "qemu-system-ppc64",
            ("-machine", "powernv9", "-cpu", "POWER9", "-m", "2048"),
            "hvc0", ("kvm-hv",),
            ("qemu-system-ppc", "gcc-powerpc64le-linux-gnu")),
    )
}


# From QEMU's start to its end. It takes half a minute where nothing else runs; a hang ends here.
LIMIT_S = 300


@dataclass(frozen=True)
class Kernel:
    """A stock kernel of a Debian release: what its metapackage depends on at the time of fetching."""

    architecture: Architecture
    version: str
    suite: str
    metapackage: str

    @property
    def name(self):
        return f"{self.architecture.name}-{self.version}"


KERNELS = tuple(
    Kernel(ARCHITECTURES[arch], version, suite, metapackage)
    for arch, version, suite, metapackage in (
        ("amd64", "6.1", "bookworm", "linux-image-cloud-amd64"),
        ("amd64", "6.12", "trixie", "linux-image-cloud-amd64"),
        ("arm64", "6.1", "bookworm", "linux-image-cloud-arm64"),
        ("arm64", "6.12", "trixie", "linux-image-cloud-arm64"),
        ("riscv64", "6.12", "trixie", "linux-image-riscv64"),
        ("ppc64le", "6.12", "trixie", "linux-image-powerpc64le"),
        ("ppc64le", "6.12-64k", "trixie", "linux-image-powerpc64le-64k"),
    )
)


def choose(words):
    """The kernels that the words name, each an architecture or a kernel; all where there are none."""
    for word in words:
        if not any(word in (k.name, k.architecture.name) for k in KERNELS):
            raise ValueError(f"{word}: neither an architecture nor a kernel of the lab; there are "
                             + ", ".join(k.name for k in KERNELS))
    return [k for k in KERNELS if not words or k.name in words or k.architecture.name in words]
