# SPDX-License-Identifier: Apache-2.0
"""The man pages: free of markup errors, and complete: options, configuration keys, functions."""

import os
import re
import subprocess
from pathlib import Path

import tap

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "man"
BUILD = Path(os.environ["KVMSTATD_BUILD"])

t = tap.Tests()


def plain(page):
    """A page as a reader sees it, in one line; what groff complains of is in the second value."""
    done = subprocess.run(["groff", "-mandoc", "-Tutf8", "-ww", "-P-cbou", "-rLL=200n", str(page)],
                          capture_output=True, text=True, timeout=60, check=True)
    return " ".join(done.stdout.split()), done.stderr


@t.test("groff finds nothing to warn of")
def _():
    pages = sorted(PAGES.glob("*.[0-9]"))
    tap.check(len(pages) >= 4)
    for page in pages:
        tap.equal((page.name, plain(page)[1]), (page.name, ""))


@t.test("every option of kvmstatd is in kvmstatd(8), and no other")
def _():
    program = subprocess.run([BUILD / "bin" / "kvmstatd", "--help"], capture_output=True, text=True,
                             timeout=60, check=True)
    said = set(re.findall(r"--[a-z][a-z.-]+", program.stdout))
    text, _ = plain(PAGES / "kvmstatd.8")
    tap.equal(set(re.findall(r"--[a-z][a-z.-]+", text)), said)


@t.test("every command and option of kvmstatctl is in kvmstatctl(1), and no other")
def _():
    def said_by(*args):
        return subprocess.run([BUILD / "bin" / "kvmstatctl", *args, "--help"], capture_output=True,
                              text=True, timeout=60, check=True).stdout
    commands = re.findall(r"^  ([a-z]+) ", said_by(), re.M)
    tap.check({"list", "top", "csv", "dump"} <= set(commands), commands)
    text, _ = plain(PAGES / "kvmstatctl.1")
    synopsis = text[text.index("SYNOPSIS"):text.index("DESCRIPTION")]
    tap.equal(set(re.findall(r"kvmstatctl ([a-z]+)", synopsis)), set(commands))
    options = re.compile(r"--[a-z][a-z.-]+")
    every = set(options.findall(said_by()))
    for command in commands:
        own = set(options.findall(said_by(command)))
        every |= own
        # Those of the daemon's address are told once, for all commands.
        parts = re.findall(rf"kvmstatctl {command}\b(.*?)(?=kvmstatctl)", synopsis)
        shown = set(options.findall(" ".join(parts)))
        tap.equal(own - {"--address", "--cacert", "--user", "--help"}, shown, command)
    tap.equal(set(options.findall(text)), every)
    completion = (ROOT / "completions" / "kvmstatctl.bash").read_text()
    tap.equal(set(options.findall(completion)), every, "what bash completes")


@t.test("every key of the configuration is in kvmstatd.yaml(5), with its default")
def _():
    text, _ = plain(PAGES / "kvmstatd.yaml.5")
    sections = {}
    section = None
    for line in (ROOT / "conf" / "kvmstatd.yaml").read_text().splitlines():
        if top := re.fullmatch(r"([a-z]+):", line):
            section = sections.setdefault(top[1], {})
        elif key := re.fullmatch(r"  #?([a-z_]+):(?: (.*))?", line):
            section[key[1]] = key[2]
    tap.equal(len(sections), 10)
    for name, keys in sections.items():
        part = text[text.index(f" {name} {next(iter(keys))} "):]
        for key, default in keys.items():
            found = re.search(rf"(?:^| ){key} (?:\(([^)]*)\))?", part)
            tap.check(found, f"{name}.{key}")
            shown = found[1]
            if shown and shown not in ("none", "inherited"):
                tap.equal((name, key, shown), (name, key, default))


@t.test("every function of the libraries is in its page")
def _():
    for library, page in (("kvmstats/libkvmstats.map", "kvmstats.3"),
                          ("handoff/libkvmstatd-handoff.map", "libkvmstatd-handoff.3")):
        names = re.findall(r"^\s+([a-z_]+);$", (ROOT / "src" / library).read_text(), re.M)
        tap.check(names)
        text, _ = plain(PAGES / page)
        for name in names:
            tap.check(re.search(rf"\b{name}\(", text), name)


t.main()
