# SPDX-License-Identifier: Apache-2.0
"""The systemd units as they would be installed: in a root folder of the test's own, for systemd's
offline tools, with the examples of systemd/tighter/ as drop-ins."""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile

import lab
import tap

FOLDER = os.path.join(lab.SOURCE, "systemd")


@contextlib.contextmanager
def installed(dropin=None):
    """A root with the units in it; `dropin` names an example."""
    with tempfile.TemporaryDirectory(prefix="kvmstatd-units-") as root:
        units = os.path.join(root, "etc/systemd/system")
        os.makedirs(os.path.join(units, "kvmstatd.service.d"))
        with open(f"{FOLDER}/kvmstatd.service.in", encoding="utf-8") as f:
            text = f.read().replace("@CMAKE_INSTALL_FULL_SBINDIR@", "/usr/sbin")
        tap.check("@" not in text.replace("@default", ""), "a placeholder was left")
        with open(f"{units}/kvmstatd.service", "w", encoding="utf-8") as f:
            f.write(text)
        for socket in ("kvmstatd.socket", "kvmstatd-handoff.socket"):
            shutil.copy(f"{FOLDER}/{socket}", units)
        if dropin:
            shutil.copy(f"{FOLDER}/tighter/{dropin}.conf", f"{units}/kvmstatd.service.d/")
        for program in ("usr/sbin/kvmstatd", "bin/sh"):  # systemd looks whether they are there
            os.makedirs(os.path.dirname(f"{root}/{program}"), exist_ok=True)
            shutil.copy("/bin/true", f"{root}/{program}")
        yield root


def exposure(dropin=None):
    """What `systemd-analyze security` makes of it, 0 to 10."""
    tool = tap.require_tool("systemd-analyze")
    with installed(dropin) as root:
        done = subprocess.run([tool, "security", f"--root={root}", "--offline=true", "--no-pager",
                               "kvmstatd.service"], capture_output=True, text=True, check=False)
    found = re.search(r"Overall exposure level for kvmstatd.service: ([0-9.]+)", done.stdout)
    tap.check(found, done.stdout + done.stderr)
    return float(found[1])


def settings(dropin=None):
    """{key: [values]} of the [Service] section, as systemd merges it: an empty value clears."""
    merged = {}
    with installed(dropin) as root:
        folder = f"{root}/etc/systemd/system"
        paths = [f"{folder}/kvmstatd.service"]
        if dropin:
            paths.append(f"{folder}/kvmstatd.service.d/{dropin}.conf")
        for path in paths:
            with open(path, encoding="utf-8") as f:
                for key, value in re.findall(r"^(\w+)=(.*)$", f.read(), re.M):
                    if value:
                        merged.setdefault(key, []).append(value)
                    else:
                        merged[key] = []
    return merged


def _group(name):
    """The system calls of @name, as this systemd has it."""
    tool = tap.require_tool("systemd-analyze")
    text = subprocess.run([tool, "syscall-filter", "--no-pager", name], capture_output=True, text=True,
                          check=True).stdout
    calls = set()
    for line in text.splitlines()[1:]:
        word = line.strip()
        if word.startswith("@"):
            calls |= _group(word)
        elif word and not word.startswith("#"):
            calls.add(word)
    return calls


def allowed_calls(dropin=None):
    """The system calls that the unit may make."""
    calls = _group("@default")
    for value in settings(dropin)["SystemCallFilter"]:
        names = set()
        for word in value.lstrip("~").split():
            names |= _group(word) if word.startswith("@") else {word}
        calls = calls - names if value.startswith("~") else calls | names
    return calls


def capabilities(dropin=None):
    """Their names in lower case, without "cap_"."""
    return [word[4:].lower() for value in settings(dropin).get("AmbientCapabilities", [])
            for word in value.split()]
