# SPDX-License-Identifier: Apache-2.0
"""What `cmake --install` installs, and whether the RPM spec has all of it. (Of the Debian packages,
debhelper itself sees to that; packaging/check-deb installs and removes them.)"""

import fnmatch
import os
import re
import subprocess
import tempfile

import lab
import tap

t = tap.Tests()
SPEC = os.path.join(lab.SOURCE, "packaging/kvmstatd.spec")


def installed():
    """The files of an installation under /usr, as absolute paths."""
    with tempfile.TemporaryDirectory(prefix="kvmstatd-install-") as root:
        subprocess.run(["cmake", "--install", lab.BUILD, "--prefix", "/usr"], check=True,
                       capture_output=True, env={**os.environ, "DESTDIR": root})
        found = [os.path.join(folder, name)[len(root):]
                 for folder, _, names in os.walk(root) for name in names]
    return sorted(found)


def files_of_the_spec():
    """{package: [patterns]} with the macros as installed() has their folders."""
    with open(os.path.join(lab.BUILD, "CMakeCache.txt"), encoding="utf-8") as f:
        libdir = re.search(r"^CMAKE_INSTALL_LIBDIR:\w+=(.*)$", f.read(), re.M)[1]
    macros = {"_sysconfdir": "/usr/etc", "_sbindir": "/usr/sbin", "_bindir": "/usr/bin",
              "_libdir": f"/usr/{libdir}", "_includedir": "/usr/include", "_datadir": "/usr/share",
              "_mandir": "/usr/share/man", "_unitdir": "/usr/lib/systemd/system",
              "_sysusersdir": "/usr/lib/sysusers.d", "_tmpfilesdir": "/usr/lib/tmpfiles.d"}
    found, package = {}, None
    with open(SPEC, encoding="utf-8") as f:
        for line in f.read().splitlines():
            if match := re.match(r"%files(?: -n (\S+))?$", line):
                package = match[1] or "kvmstatd"
            elif re.match(r"%[a-z]+$", line) or not line:
                package = None
            elif package and "%{" in line and not line.startswith("%dir"):
                path = re.sub(r"%\{(\w+)\}", lambda m: macros[m[1]], line.split()[-1])
                found.setdefault(package, []).append(path)
    return found


@t.test("every file that is installed is in exactly one package of the RPM spec, and none is missing")
def _():
    patterns = [(package, pattern) for package, of_it in files_of_the_spec().items()
                for pattern in of_it]
    used = set()
    for path in installed():
        owners = {(package, pattern) for package, pattern in patterns
                  if fnmatch.fnmatch(path, pattern) or path.startswith(pattern + "/")}
        tap.equal(len({package for package, _ in owners}), 1, f"packages of {path}: {owners}")
        used |= owners
    tap.equal(set(patterns) - used, set(), "patterns that match nothing")


@t.test("the RPM spec can be read")
def _():
    tool = tap.require_tool("rpmspec")
    done = subprocess.run([tool, "--parse", SPEC], capture_output=True, text=True, check=False)
    tap.equal((done.returncode, done.stderr), (0, ""))


@t.test("programs, libraries, units, man pages and the configuration are where a package needs them")
def _():
    paths = installed()
    for wanted in ("/usr/sbin/kvmstatd", "/usr/bin/kvmstatd-demo-vm", "/usr/etc/kvmstatd/kvmstatd.yaml",
                   "/usr/lib/systemd/system/kvmstatd.service", "/usr/lib/sysusers.d/kvmstatd.conf",
                   "/usr/lib/tmpfiles.d/kvmstatd.conf", "/usr/share/man/man8/kvmstatd.8",
                   "/usr/share/kvmstatd/tighter/handoff-only.conf"):
        tap.check(wanted in paths, f"{wanted} is missing")


t.main()
