# SPDX-License-Identifier: Apache-2.0
"""What tests of the recorder share: VMs of the test's own, and histories and dumps as exact numbers."""

import json
from fractions import Fraction

import kvmfd
import tap


def setup():
    tap.require_kvm()
    tap.require_root()


def only(prefix, recorder="", interval="20ms"):
    """A configuration that reads the VMs whose names begin so, and none of others' on this host."""
    return f"""
sampling:
  interval: {interval}
  rules:
    - match: {{vm: "{prefix}*"}}
      enabled: true
    - match: {{vm: "*"}}
      enabled: false
recorder:
  directory: @DIR@/dumps
{recorder}"""


def history(daemon, vm, more="", **kwargs):
    answer = daemon.get(f"/api/v1/history?vm={vm}{more}", **kwargs)
    tap.equal(answer.status, 200, answer.text[:300])
    return answer


def columns(found):
    """{(vcpu, stat): ([time], [value or bucket list], [rate] or None)} of a VM in JSON; vcpu -1: its
    own."""
    out = {}
    for target in found["targets"]:
        vcpu = -1 if target["vcpu"] is None else target["vcpu"]
        for stat in target["stats"]:
            tap.equal(len(stat["values"]), len(target["times"]), stat["stat"])
            out[vcpu, stat["stat"]] = (target["times"], stat["values"], stat.get("rates"))
    return out


def wait_ticks(daemon, vm, vcpu, n):
    """The times of a vCPU's ticks, when there are at least n."""
    def times():
        found = columns(exact(history(daemon, vm, "&stat=exits"))).get((vcpu, "exits"), ([],))[0]
        return found if len(found) >= n else None
    return tap.wait_for(times, what=f"{n} ticks of vCPU {vcpu}")


def exact(answer):
    """JSON without a double in between."""
    return json.loads(answer.text if hasattr(answer, "text") else answer, parse_float=Fraction)


def stats_files(pid):
    return {n: kvmfd.StatsFile(pid, fd) for n, fd in kvmfd.stats_fds(pid).items()}
