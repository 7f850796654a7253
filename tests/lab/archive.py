# SPDX-License-Identifier: Apache-2.0
"""Debian packages of any architecture and release, unpacked into folders of the cache, by a private
apt state: the machine's own packages, lists and configuration are only read.

The mirror is the one that this machine's apt uses for Debian itself, whatever it is; only the release
is replaced. What was fetched is used until somebody removes it (or says --fresh).
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Libraries come with all that their packages depend on; of that, these are dead weight.
UNWANTED = ("gcc-12-base", "gcc-14-base", "rpcsvc-proto", "libc-dev-bin")


# Of a kernel's package, what has nothing to do with KVM: nine tenths of it.
NOT_OF_KVM = ("*/kernel/drivers", "*/kernel/fs", "*/kernel/net", "*/kernel/sound", "./usr/share",
              "./boot/System.map*", "./usr/lib/linux-image*")


def cache():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "kvmstatd-lab")


class Unavailable(Exception):
    """Something that has to be fetched cannot be had here; the text says what and why."""


def _run(*argv, folder=None):
    process = subprocess.run(argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True, check=False,
                             env={**os.environ, "LC_ALL": "C.UTF-8"})
    if process.returncode:
        raise Unavailable(f"{argv[0]}: {process.stderr.strip() or process.stdout.strip()}")
    return process.stdout


def source_line(suite, kind="deb"):
    """A line of sources.list for a release of Debian's."""
    signed = f" [signed-by={KEYRING}]" if os.path.exists(KEYRING) else ""
    return f"{kind}{signed} {_mirror()} {suite} main"


def _mirror():
    """Where this machine's apt has Debian itself from."""
    try:
        text = _run("apt-get", "indextargets", "Created-By: Packages", "Component: main",
                    "--format", "$(REPO_URI) $(RELEASE) $(LABEL)")
    except FileNotFoundError as e:
        raise Unavailable("this machine has no apt-get") from e
    rows = [line.split() for line in text.splitlines()]
    with open("/etc/os-release", encoding="utf-8") as f:
        codename = next((line.strip().split("=")[1].strip('"') for line in f
                         if line.startswith("VERSION_CODENAME=")), None)
    for uri, release, *label in rows:
        # The label is known only once lists were fetched.
        if release == codename and (label == ["Debian"] or label[:1] == ["$(LABEL)"]):
            return uri
    raise Unavailable("no apt source of this machine is Debian's own archive")


class Archive:
    """One release for one architecture; `kind` as in sources.list: deb, or deb-src for sources."""

    def __init__(self, debian_arch, suite, kind="deb"):
        self.kind = kind
        self.name = f"{debian_arch}-{suite}" + ("" if kind == "deb" else f"-{kind}")
        self.suite = suite
        self.state = os.path.join(cache(), "apt", self.name)
        self.options = [
            f"-oAPT::Architecture={debian_arch}", f"-oAPT::Architectures={debian_arch}",
            f"-oDir::State={self.state}", f"-oDir::State::Lists={self.state}/lists",
            f"-oDir::Cache={self.state}", "-oDir::State::status=/dev/null",
            f"-oDir::Etc::sourcelist={self.state}/sources.list", "-oDir::Etc::sourceparts=-",
            "-oAPT::Sandbox::User=root", "-oAcquire::Languages=none",
            "-oAcquire::Retries=3", "-oDebug::NoLocking=1",
        ]

    def _update(self):
        done = os.path.join(self.state, "updated")
        if os.path.exists(done):
            return
        os.makedirs(os.path.join(self.state, "lists/partial"), exist_ok=True)
        os.makedirs(os.path.join(self.state, "archives/partial"), exist_ok=True)
        with open(os.path.join(self.state, "sources.list"), "w", encoding="utf-8") as f:
            f.write(f"{source_line(self.suite, self.kind)}\n")
        _run("apt-get", *self.options, "update", "-qq", "-oAPT::Update::Error-Mode=any")
        with open(done, "w", encoding="utf-8"):
            pass

    def with_fresh_lists(self, function):
        """What the function gives; it is tried again with fresh lists, since lists that were fetched
        some time ago may name versions that the archive no longer has."""
        just_updated = not os.path.exists(os.path.join(self.state, "updated"))
        self._update()
        try:
            return function()
        except Unavailable:
            if just_updated:
                raise
        os.unlink(os.path.join(self.state, "updated"))
        self._update()
        return function()

    def closure(self, packages):
        """These packages and all that they depend on."""
        self._update()
        text = _run("apt-get", *self.options, "-s", "--no-install-recommends", "install", *packages)
        return [line.split()[1] for line in text.splitlines() if line.startswith("Inst ")]

    def unpacked(self, packages, closure=False, exclude=()):
        """The folder into which these packages are unpacked, but for the paths that match `exclude`;
        from the cache where it has them."""
        key = hashlib.sha256(" ".join((*packages, *exclude)).encode()).hexdigest()[:12]
        folder = os.path.join(cache(), "unpacked", f"{self.name}-{key}")
        if os.path.isdir(folder):
            return folder
        os.makedirs(os.path.dirname(folder), exist_ok=True)

        def fill():
            names = [p for p in self.closure(packages) if p not in UNWANTED] if closure else packages
            work = tempfile.mkdtemp(prefix=f".{self.name}-", dir=os.path.dirname(folder))
            try:
                self._unpack(names, work, exclude)
                os.rename(work, folder)
            except BaseException as e:
                shutil.rmtree(work, ignore_errors=True)
                if not (isinstance(e, OSError) and os.path.isdir(folder)):  # another was faster
                    raise
        self.with_fresh_lists(fill)
        return folder

    def sources(self, package):
        """The folder with a source package as its authors released it, without Debian's patches."""
        folder = os.path.join(cache(), "sources", f"{self.suite}-{package}")
        if os.path.isdir(folder):
            return folder
        self._update()
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{package}-", dir=os.path.dirname(folder)) as work:
            _run("apt-get", *self.options, "-qq", "--download-only", "source", package, folder=work)
            tarballs = [name for name in os.listdir(work) if ".orig.tar" in name
                        and not name.endswith(".asc")]
            if len(tarballs) != 1:
                raise Unavailable(f"source package {package} has {tarballs or 'no tarball'}")
            tree = os.path.join(work, "tree")
            os.mkdir(tree)
            _run("tar", "-x", "--strip-components=1", "--no-same-owner", "-C", tree,
                 "-f", os.path.join(work, tarballs[0]))
            os.rename(tree, folder)
        return folder

    def _unpack(self, names, work, exclude):
        debs = os.path.join(work, ".debs")
        os.mkdir(debs)
        _run("apt-get", *self.options, "-qq", "download", *names, folder=debs)
        # One /lib and one /usr/lib, as on an installed system: older packages name the former.
        for link in ("lib", "lib64", "bin", "sbin"):
            os.makedirs(os.path.join(work, "usr", link))
            os.symlink(f"usr/{link}", os.path.join(work, link))
        for deb in sorted(os.listdir(debs)):
            unpack = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", os.path.join(debs, deb)],
                                      stdout=subprocess.PIPE)
            _run_with_input(unpack.stdout, "tar", "-x", "--keep-directory-symlink",
                            "--no-same-owner", "-C", work, *(f"--exclude={e}" for e in exclude))
            unpack.stdout.close()
            if unpack.wait():
                raise Unavailable(f"{deb} cannot be unpacked")
        shutil.rmtree(debs)


def _run_with_input(stream, *argv):
    process = subprocess.run(argv, stdin=stream, stderr=subprocess.PIPE, text=True, check=False)
    if process.returncode:
        raise Unavailable(f"{argv[0]}: {process.stderr.strip()}")


def _former_images(archive, kernel, image):
    """Other images of a kernel's flavour that the archive lists, the newest first."""
    flavour = kernel.metapackage.removeprefix("linux-image-")
    names = _run("apt-cache", *archive.options, "pkgnames", "linux-image-").split()
    same = [n for n in names if n != image
            and re.fullmatch(rf"linux-image-\d[^-]*(-\d+)?-{re.escape(flavour)}", n)]
    return sorted(same, key=lambda n: [int(x) for x in re.findall(r"\d+", n)], reverse=True)


def _newest_unpacked(archive, images, exclude):
    """The first that can be had: while a mirror is being brought up to date it lists some that it has
    not yet."""
    refusal = None
    for image in images:
        try:
            folder = archive.unpacked([image], exclude=exclude)
        except Unavailable as e:
            refusal = refusal or e
            continue
        if refusal:
            print(f"# {image} instead of {images[0]}: {refusal}", flush=True)
        return folder
    raise refusal


def kernel_tree(kernel, purpose="", exclude=NOT_OF_KVM):
    """The unpacked image of a kernel. Who wants other parts of it than the lab's machines names a
    purpose."""
    archive = Archive(kernel.architecture.debian, kernel.suite)
    link = os.path.join(cache(), "kernels", f"{kernel.name}-{purpose}".rstrip("-"))

    def fill():
        images = [p for p in archive.closure([kernel.metapackage])
                  if p.startswith("linux-image-") and p != kernel.metapackage]
        if len(images) != 1:
            raise Unavailable(f"{kernel.metapackage} depends on {images or 'no image'}")
        os.makedirs(os.path.dirname(link), exist_ok=True)
        folder = _newest_unpacked(archive, images + _former_images(archive, kernel, images[0]), exclude)
        temporary = f"{link}.{os.getpid()}"
        os.symlink(os.path.relpath(folder, os.path.dirname(link)), temporary)
        os.replace(temporary, link)

    if not os.path.isdir(link):  # the metapackage is asked once: what is cached needs no network
        archive.with_fresh_lists(fill)
    return os.path.realpath(link)
