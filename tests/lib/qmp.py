# SPDX-License-Identifier: Apache-2.0
"""QEMU's own account of its guest's statistics: QMP's query-stats, in the shape that exposed.py reads."""

import json
import os
import re
import socket

import lab
from exposed import NOT_THE_KERNELS

KINDS = {"log2-histogram": "log_hist", "linear-histogram": "linear_hist"}
SOCKET = "qmp.sock"
ARGS = ("-qmp", f"unix:{SOCKET},server=on,wait=off")  # in the process's own folder


class Answer:
    """One object's statistics: `stats` and read() as kvmfd.StatsFile has them."""

    def __init__(self, schema, values, backwards):
        self.values = {s["name"]: self._list(s["value"]) for s in values}
        for value in self.values.values():
            if backwards:
                value.reverse()
        self.stats = {}
        for name, words in schema.items():
            if name in self.values:
                kind = words["type"]
                self.stats[name] = (KINDS.get(kind, kind), words.get("unit", "none"),
                                    words.get("exponent", 0), len(self.values[name]), None)

    @staticmethod
    def _list(value):
        return [int(v) for v in value] if isinstance(value, list) else [int(value)]

    def read(self):
        return self.values


class Qmp:
    """A connection to a lab.Qemu that was started with ARGS."""

    def __init__(self, qemu):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(lab.TIMEOUT_S)
        self.socket.connect(os.path.join(qemu.folder, SOCKET))
        self.lines = self.socket.makefile("r", encoding="utf-8")
        self.lines.readline()  # the greeting
        self.do("qmp_capabilities")
        # QEMU 7.2 puts a histogram's buckets in front of one another: halts of 200 ms stand where those
        # of 4 ns belong. Its own sums (halt_wait_ns) tell which is right.
        version = self.do("query-version")["qemu"]
        self.backwards = (version["major"], version["minor"]) == (7, 2)
        self.schemas = {s["target"]: {stat["name"]: stat for stat in s["stats"]}
                        for s in self.do("query-stats-schemas", provider="kvm")}
        cpus = self.do("query-cpus-fast")
        self.vcpus = {cpu["qom-path"]: cpu["cpu-index"] for cpu in cpus}

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.lines.close()
        self.socket.close()

    def do(self, command, **arguments):
        request = {"execute": command, "arguments": arguments}
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            answer = json.loads(self.lines.readline())
            if "error" in answer:
                raise AssertionError(f"{command}: {answer['error']}")
            if "return" in answer:  # else an event
                return answer["return"]

    def stats(self):
        """{-1: the VM's Answer, vcpu: that vCPU's}."""
        found = {}
        for target in ("vm", "vcpu"):
            answers = self.do("query-stats", target=target, providers=[{"provider": "kvm"}])
            for answer in answers:
                vcpu = self.vcpus[answer["qom-path"]] if target == "vcpu" else -1
                found[vcpu] = Answer(self.schemas[target], answer["stats"], self.backwards)
        return found


def own_series(shown, vm):
    """Those of the exposed series that are the VM's statistics."""
    own = re.compile(r'kvm_(vm|vcpu)_[a-z0-9_]+\{vm="' + re.escape(vm) + r'"[,}]')
    return {k: v for k, v in shown.items() if own.match(k) and not NOT_THE_KERNELS.match(k)}
