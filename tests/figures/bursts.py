#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""docs/bursts.svg: what a guest does, what a mean over two scrapes says of it, what a peak says.

    tests/figures/bursts.py measure DATA.json    three minutes: daemon, guest, a real Prometheus
    tests/figures/bursts.py draw DATA.json OUT.svg [light|dark]
    tests/figures/bursts.py scrapers             scrapers at 1, 5, 13 and 15 s, checked: two minutes

As root, with /dev/kvm, PYTHONPATH=tests/lib and KVMSTATD_BUILD.
"""

import json
import random
import sys
import time
from xml.sax.saxutils import escape

SCRAPE_S = 15
EVERY_S = 23
MINUTES = 3
NAME = "web1"
PEAK = f'kvm_vcpu_exits_peak_rate{{vm="{NAME}",window="15s"}}'
MEAN = f'rate(kvm_vcpu_exits_total{{vm="{NAME}"}}[30s])'


# --- measuring ---


def measure(path):
    import bursting
    import lab
    from exposed import first_sample
    args = ["--burst-every", f"{EVERY_S}s", "--burst-exits", "1000", "--burst-ms", "100"]
    with lab.Daemon("sampling:\n  interval: 50ms\n") as daemon, \
            lab.Prometheus([daemon.url.removeprefix("http://")], f"{SCRAPE_S}s") as prometheus, \
            lab.DemoVms(name=NAME, load="burst", args=args) as demo:
        first_sample(daemon, NAME)
        while not prometheus.query(MEAN):
            time.sleep(1)
        begin = time.time()
        offset = time.time() - time.monotonic()
        bursts = []
        while time.time() < begin + MINUTES * 60:
            [burst] = bursting.read_bursts(demo, 1)
            bursts.append({"begin": burst.begin_s + offset, "seconds": burst.length_s,
                           "exits": burst.exits})
        end = time.time()
        [peak] = prometheus.api("query", query=f"{PEAK}[{MINUTES + 2}m]", time=end)["result"]
        [(_, mean)] = prometheus.query_range(MEAN, begin, end, "1s")
    with open(path, "w", encoding="utf-8") as f:
        json.dump({"begin": begin, "end": end, "bursts": bursts, "mean": mean,
                   "peak": [(t, float(v)) for t, v in peak["values"]]}, f)


def scrapers():
    import bursting
    plan = bursting.Plan(window_s=15, every_s=33, intervals_s=(1, 5, 13, 15), n_bursts=3,
                         tick_s=0.1, exits=1000)
    seed = random.SystemRandom().getrandbits(32)
    print(f"# seed: {seed}", flush=True)
    for v in bursting.check(plan, random.Random(seed)):
        print(f"every {v.interval_s} s: {len(v.seen)} of {plan.n_bursts} bursts judged and seen, "
              f"peak/truth {[round(x, 3) for x in v.seen]}, "
              f"counter/truth {[round(x, 4) for x in v.gained]}")


# --- drawing ---

WIDTH, HEIGHT = 880, 420
LEFT, RIGHT, TOP, BOTTOM = 66, 20, 124, 40

# No CSS variables: not every renderer has them.
COLOURS = {
    "light": {"paper": "#ffffff", "ink": "#1f2328", "faint": "#59636e", "grid": "#d8dee4",
              "truth": "#bc4c00", "peak": "#0969da", "mean": "#8250df"},
    "dark": {"paper": "#0d1117", "ink": "#e6edf3", "faint": "#9198a1", "grid": "#2a313c",
             "truth": "#f0883e", "peak": "#58a6ff", "mean": "#bc8cff"},
}
SHAPES = """
text { font: 13px -apple-system, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif; }
.title { font-size: 16px; font-weight: 600; }
.code { font: 12px ui-monospace, SFMono-Regular, Menlo, "DejaVu Sans Mono", monospace; }
.grid { stroke-width: 1; }
.truth { stroke-width: 2; fill: none; }
.peak, .mean { stroke-width: 2.5; fill: none; stroke-linejoin: round; }
"""


def colour_rules(c):
    return (f".paper {{ fill: {c['paper']}; }} text {{ fill: {c['ink']}; }} "
            f".faint {{ fill: {c['faint']}; }} .grid {{ stroke: {c['grid']}; }} "
            f".dot {{ fill: {c['peak']}; }} " +
            " ".join(f".{k} {{ stroke: {c[k]}; }} .name-{k} {{ fill: {c[k]}; }}"
                     for k in ("truth", "peak", "mean")))


def style(only):
    if only:
        return SHAPES + colour_rules(COLOURS[only]) + "\n"
    return (SHAPES + colour_rules(COLOURS["light"]) + "\n@media (prefers-color-scheme: dark) { " +
            colour_rules(COLOURS["dark"]) + " }\n")


class Picture:
    def __init__(self, data):
        begin, end = data["begin"], data["end"]
        data = {**data, "bursts": [b for b in data["bursts"] if begin <= b["begin"] <= end]}
        self.data, self.parts = data, []
        self.truth = [b["exits"] / b["seconds"] for b in data["bursts"]]
        self.top = 2000 * (int(max([*self.truth, *(v for _, v in data["peak"])]) / 2000) + 1)

    def x(self, t):
        part = (t - self.data["begin"]) / (self.data["end"] - self.data["begin"])
        return LEFT + part * (WIDTH - LEFT - RIGHT)

    def y(self, value):
        return HEIGHT - BOTTOM - value / self.top * (HEIGHT - TOP - BOTTOM)

    def add(self, tag, text=None, **attributes):
        names = " ".join(f'{k.rstrip("_").replace("_", "-")}="{v:.1f}"' if isinstance(v, float)
                         else f'{k.rstrip("_").replace("_", "-")}="{v}"'
                         for k, v in attributes.items())
        self.parts.append(f"<{tag} {names}/>" if text is None
                          else f"<{tag} {names}>{escape(text)}</{tag}>")

    def axes(self):
        for value in range(0, self.top + 1, 2000):
            y = self.y(value)
            self.add("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y)
            self.add("text", f"{value:,}", class_="faint", x=LEFT - 8, y=y + 4.0, text_anchor="end")
        seconds = int(self.data["end"] - self.data["begin"])
        for s in range(0, seconds + 1, 30):
            x = self.x(self.data["begin"] + s)
            self.add("line", class_="grid", x1=x, x2=x, y1=self.y(0), y2=self.y(0) + 5)
            self.add("text", f"{s} s", class_="faint", x=x, y=self.y(0) + 20, text_anchor="middle")

    def curves(self):
        for burst, rate in zip(self.data["bursts"], self.truth):
            x = self.x(burst["begin"])
            self.add("line", class_="truth", x1=x, x2=x, y1=self.y(0), y2=self.y(rate))
        # What a graph shows between two scrapes is the last one's value.
        begin, end = self.data["begin"], self.data["end"]
        before = [v for t, v in self.data["peak"] if t < begin][-1:]
        peak = [(begin, v) for v in before] + [p for p in self.data["peak"] if p[0] >= begin]
        path = ""
        for (t, v), (until, _) in zip(peak, [*peak[1:], (end, 0)]):
            path += f"{'L' if path else 'M'}{self.x(t):.1f} {self.y(v):.1f}H{self.x(until):.1f}"
        self.add("path", class_="peak", d=path)
        for t, v in peak[len(before):]:
            self.add("circle", class_="dot", cx=self.x(t), cy=self.y(v), r=3.5)
        mean = " ".join(f"{self.x(t):.1f},{self.y(v):.1f}" for t, v in self.data["mean"])
        self.add("polyline", class_="mean", points=mean)

    def legend(self):
        truth, mean = max(self.truth), max(v for _, v in self.data["mean"])
        self.add("text", "Bursts of 100 ms: what is there, what a mean shows, what a peak shows",
                 class_="title", x=LEFT - 46, y=30)
        self.add("text", "Exits per second of one VM, sampled every 50 ms; Prometheus scrapes every "
                 "15 s (dots).", class_="faint", x=LEFT - 46, y=50)
        columns = [("truth", "the guest", f"1,000 exits in 100 ms: {truth:,.0f}/s"),
                   ("peak", "kvm_vcpu_exits_peak_rate", "the worst tick of the last 15 s"),
                   ("mean", "rate(kvm_vcpu_exits_total[30s])",
                    f"at most {mean:,.0f}/s: {truth / mean:,.0f} times too low")]
        for (kind, name, says), x in zip(columns, (LEFT - 46, 280, 560)):
            self.add("line", class_=kind, x1=x, x2=x + 22, y1=75, y2=75)
            self.add("text", name, class_=f"code name-{kind}", x=x + 30, y=79)
            self.add("text", says, class_="faint", x=x + 30, y=97)

    def svg(self, only):
        self.axes()
        self.curves()
        self.legend()
        words = ("A guest makes bursts of exits of 100 ms. The peak rate that kvmstatd exposes shows "
                 "each at its height, the rate over two scrapes shows next to nothing.")
        return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
                f'width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{escape(words)}">\n'
                f"<style>{style(only)}</style>\n"
                f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" class="paper"/>\n'
                + "\n".join(self.parts) + "\n</svg>\n")


def draw(source, target, only=None):
    with open(source, encoding="utf-8") as f:
        picture = Picture(json.load(f))
    with open(target, "w", encoding="utf-8") as f:
        f.write(picture.svg(only))


COMMANDS = {("measure", 1): measure, ("draw", 2): draw, ("draw", 3): draw,
            ("scrapers", 0): scrapers}

if __name__ == "__main__":
    command = COMMANDS.get((sys.argv[1] if len(sys.argv) > 1 else "", len(sys.argv) - 2))
    if not command:
        sys.exit(__doc__)
    command(*sys.argv[2:])
