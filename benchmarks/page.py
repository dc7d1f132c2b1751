"""docs/performance.md and its charts, from results/*.json and nothing else: no figure on the page is typed by hand."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import explanation, growth
from benchmarks.peers import ONE_VIEW, ORTHANC, OURS, PLAIN, STORESCP
from benchmarks.record import RESULTS
from benchmarks.traced import REST

DOCS = Path(__file__).parent.parent / "docs"
PICTURES = DOCS / "pictures"
NAMES = ("explanation", "node", "ingest", "growth", "least", "milliseconds")
STUDIES, CLUSTER, CLASSIFY, START = "studies", "cluster", "classify", "start"
"""Runs that have no chart, and no part of the page until they were made."""
Runs = Mapping[str, Mapping[str, Any]]

_COLORS = {OURS: "#1f6f8b", PLAIN: "#c06c3e", ONE_VIEW: "#dba879", ORTHANC: "#8a8a8a", STORESCP: "#c9c9c9"}
_SHADES = ("#1f6f8b", "#c06c3e", "#8a8a8a")
_PARTS = ("#8fbccb", "#b7d3dc", "#e2b48f", "#efd3bd")
"""Of a bar, one after the other."""
_RC: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "cxr_node", "font.family": "sans-serif", "font.size": 9.0,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    "figure.constrained_layout.use": True, "figure.facecolor": "white",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What must be seen, and whether it was."""

    what: str
    wanted: str
    seen: str
    met: bool


def read() -> dict[str, Any]:
    """Every run's JSON, by its name."""
    later = [name for name in (STUDIES, CLUSTER, CLASSIFY, START) if (RESULTS / f"{name}.json").exists()]
    return {name: json.loads((RESULTS / f"{name}.json").read_text("utf-8")) for name in (*NAMES, *later)}


def write(runs: Runs) -> str:
    """Fill the page."""
    loader = FileSystemLoader(Path(__file__).parent)
    templates = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701 - Markdown of our own figures
    templates.filters |= {"n": number, "p": spread_of}
    templates.globals |= {"total": total, "server_cores": server_cores}
    words: dict[str, Any] = {"goals": goals(runs), "runs": runs, "plain": PLAIN, "one_view": ONE_VIEW, "ours": OURS}
    words |= {"each_ms": sum(sum(parts.values()) for parts in runs["milliseconds"]["figures"]["ms"].values())}
    words |= {"orthanc": ORTHANC, "storescp": STORESCP, "ways": explanation, "alike": len({*_circumstances(runs)}) == 1}
    return templates.get_template("performance.md").render(words)


def number(value: float) -> str:
    """Three significant digits, and no power of ten."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:.3g}"


def spread_of(values: Mapping[str, float]) -> str:
    """Median, and between which values half of them lie."""
    return f"{number(values['p50'])} ({number(values['p25'])} to {number(values['p75'])})"


def goals(runs: Runs) -> list[Goal]:
    """Everything that was to be seen, in the order in which it was asked for."""
    seen, whole, taken, grown, *_ = (runs[name]["figures"] for name in NAMES)
    same = seen["ratio"][explanation.SAME]
    bare, map_ = seen["over_bare_forward_pass"], seen["maps"]["correlation"]["min"]
    p50 = whole["turnaround"]["ratio"]["p50"][PLAIN]
    rate, share = whole["throughput"]["ratio"][PLAIN], whole["share_of_slowest_stage"]
    cpu_ms = 1000.0 * whole["throughput"]["cpu_s_per_image"][OURS]["p50"]
    slowest = min(row["ratio"][ORTHANC] for row in taken["rows"])
    echo = max(row["first_echo_s"] for row in grown["by_rows"])
    answer = max(row["first_answer_s"] for row in grown["by_rows"])
    receiver, worker = (_memory(runs, role) for role in ("receive", "work"))
    return [
        _at_least("prediction and explanation against torch fp32 with grad-cam, batch 1", 8.0, same, " x"),
        _at_least("a batch of one view, the network alone: the same ratio", 8.0, seen["one_view_by_one_view"], " x"),
        _at_most("whole answer over the runtime's bare forward pass", 1.5, bare, " x"),
        _at_least(
            "smallest correlation of both heat maps, {} images".format(seen["maps"]["correlation"]["n"]),
            0.999,
            map_,
            "",
            6,
        ),
        _at_least("turnaround p50, plain node over ours, 10 MB", 4.0, p50, " x"),
        _at_least("sustained throughput, ours over the plain node's", 5.0, rate, " x"),
        _at_most("CPU of an image, all processes", 75.0, cpu_ms, " ms"),
        _at_least("sustained throughput as a share of the slowest stage alone", 60.0, 100.0 * share, " %"),
        _at_least("ingest with fsync, time of Orthanc over ours, worst of four rows", 1.0, slowest, " x"),
        _at_most("CPU of an image, 100,000 rows over 100", 1.1, grown["growth"]["rows"], " x"),
        _at_most("CPU of an image, 64 associations over 1", 1.1, grown["growth"]["associations"], " x"),
        _at_most("`serve` until the first C-ECHO", 2.0, echo, " s"),
        _at_most("`serve` until the first answer", 3.0, answer, " s"),
        _at_most("resident memory of the receiver", 120.0, receiver, " MB"),
        _at_most("resident memory of the worker", 1200.0, worker, " MB"),
        *_goals_of_studies(runs),
        *_goals_of_a_cluster(runs),
        *_goals_of_classify(runs),
        *_goals_of_start(runs),
    ]


def _goals_of_studies(runs: Runs) -> Iterator[Goal]:
    if STUDIES in runs:
        seen = runs[STUDIES]["figures"]
        yield _at_most("turnaround p95 of a study beyond `study.quiet_s`", 2.0, seen["beyond_quiet_s"]["p95"], " s")
        rate = seen["throughput"]["ratio"]["p50"]
        yield _at_least("sustained throughput, `report_per: study` over `report_per: image`", 1.0, rate, " x")


def _goals_of_a_cluster(runs: Runs) -> Iterator[Goal]:
    if CLUSTER in runs:
        most = max(row["images_per_s"] for row in runs[CLUSTER]["figures"]["waiting"]["rows"])
        yield _at_least("workers that wait, servers and all on these cores, images a second", 200.0, most, "")


def _goals_of_classify(runs: Runs) -> Iterator[Goal]:
    for size, seen in runs[CLASSIFY]["figures"].items() if CLASSIFY in runs else ():
        yield _at_least(f"`classify` of a folder of files of {size} against a plain loop", 5.0, seen["ratio"], " x")
        busy = 100.0 * seen[OURS]["cores_busy"]["p50"] / runs[CLASSIFY]["machine"]["cores"]
        yield _at_least(f"the same: cores busy, {seen['images']} files", 90.0, busy, " %")


def _goals_of_start(runs: Runs) -> Iterator[Goal]:
    if START in runs:
        seen = runs[START]["figures"]
        yield _at_most("`--help`, from the shell", 0.3, seen["help"]["wall_s"]["p50"], " s")
        yield _at_most("`cxr-node classify` of one file of 10 MB: CPU", 1.5, seen["classify"]["cpu_s"]["p50"], " s")
        yield _at_most("`cxr-node demo`", 6.0, seen["demo"]["wall_s"]["p50"], " s")
        yield _at_most("installed for serving", 500.0, seen["installed_mb"]["all"], " MB")


def server_cores(run: Mapping[str, Any], images_per_s: float) -> float:
    """Cores that PostgreSQL needs for so many images a second."""
    return images_per_s * float(total(run, "PostgreSQL", "server_ms")) / 1000.0


def total(run: Mapping[str, Any], engine: str, what: str) -> float:
    """Sum over all moves of an image."""
    return sum(float(cost[what]) for cost in run["figures"]["moves"]["by_engine"][engine].values())


def _memory(runs: Runs, role: str) -> float:
    """The highest that any run saw."""
    told = [runs["node"]["figures"]["memory"], *(row["memory"] for row in runs["growth"]["figures"]["by_rows"])]
    return max(float(one[role]["rss_mb"]) for one in told)


def _at_least(what: str, wanted: float, seen: float, unit: str, digits: int = 3) -> Goal:
    return Goal(what=what, wanted=f"at least {wanted:g}{unit}", seen=f"{seen:.{digits}g}{unit}", met=seen >= wanted)


def _at_most(what: str, wanted: float, seen: float, unit: str) -> Goal:
    return Goal(what=what, wanted=f"at most {wanted:g}{unit}", seen=f"{number(seen)}{unit}", met=seen <= wanted)


def _circumstances(runs: Runs) -> Iterator[tuple[str, ...]]:
    for run in runs.values():
        yield (str(run["commit"]), str(run["machine"]["processor"]), str(run["machine"]["cores"]))


def draw(runs: Runs, folder: Path) -> None:
    """Write the charts; each says in its metadata which figures it shows."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, chart in zip(NAMES, (_explanation, _node, _ingest, _growth, _least, _milliseconds), strict=True):
        with mpl.rc_context(_RC):
            figure = chart(runs[name]["figures"])
            told = {"Date": None, "Description": digest(runs[name])}
            figure.savefig(picture(folder, name), format="svg", metadata=told)


def picture(folder: Path, name: str) -> Path:
    """Where a chart lies."""
    return folder / f"performance-{name}.svg"


def digest(run: Mapping[str, Any]) -> str:
    """What tells the figures of one run from another's."""
    return hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()


def drawn_from(svg: str) -> str | None:
    """Digest that a chart carries."""
    found = re.search(r"<dc:description>([0-9a-f]{64})</dc:description>", svg)
    return found[1] if found else None


def _explanation(figures: Mapping[str, Any]) -> Figure:
    names = (explanation.PASS, explanation.OURS, explanation.ONE, explanation.SAME)
    colors = (_COLORS[OURS], _COLORS[OURS], _COLORS[ONE_VIEW], _COLORS[PLAIN])
    figure = Figure(figsize=(6.4, 1.7))
    _bars(figure.subplots(), names, [figures["ms"][name] for name in names], colors, "ms an image")
    return figure


def _node(figures: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(6.4, 3.4))
    top, bottom = figure.subplots(2, 1, height_ratios=(3, 6))
    names = (OURS, ONE_VIEW, PLAIN)
    colors = [_COLORS[name] for name in names]
    took = [figures["turnaround"]["ms"][name] for name in names]
    _bars(top, names, took, colors, "turnaround, ms (bar: median, tick: p95)")
    for place, one in enumerate(took):
        top.plot([one["p95"]] * 2, [place - 0.3, place + 0.3], color="black", linewidth=1.0)
    rates = [figures["throughput"]["images_per_s"][name] for name in names]
    alone = {f"{stage} alone": rate for stage, rate in figures["stages"].items()}
    shades = [*colors, *["#9fc3cf"] * len(alone)]
    _bars(bottom, (*names, *alone), [*rates, *alone.values()], shades, "images a second, sustained")
    return figure


def _ingest(figures: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(6.4, 2.4))
    axes, width = figure.subplots(), 0.27
    for place, name in enumerate((OURS, ORTHANC, STORESCP)):
        at = [row + (place - 1) * width for row in range(len(figures["rows"]))]
        rates = [row["mb_per_s"][name] for row in figures["rows"]]
        axes.bar(at, rates, width, color=_COLORS[name], label=name)
        for x, rate in zip(at, rates, strict=True):
            axes.annotate(number(rate), (x, rate), ha="center", va="bottom", fontsize=7.0)
    axes.set_xticks(range(len(figures["rows"])), [f"{row['size']}, {_associations(row)}" for row in figures["rows"]])
    axes.set_ylabel("MB a second")
    axes.legend()
    return figure


def _growth(figures: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(6.4, 2.4))
    for axes, key, words in zip(
        figure.subplots(1, 2),
        ("cpu_ms_per_image", "ms_per_image"),
        ("CPU, ms an image", "wall, ms an image"),
        strict=True,
    ):
        for place, associations in enumerate(growth.ASSOCIATIONS):
            cells = [
                cell for row in figures["by_rows"] for cell in row["cells"] if cell["associations"] == associations
            ]
            values = [cell[key]["p50"] if key == "ms_per_image" else cell[key] for cell in cells]
            rows = [row["rows"] for row in figures["by_rows"]]
            axes.plot(rows, values, "o-", color=_SHADES[place], label=_associations({"associations": associations}))
        axes.set_xscale("log")
        axes.set_ylim(bottom=0.0)
        axes.set_xlabel("rows in the ledger")
        axes.set_ylabel(words)
        axes.legend(fontsize=7.0)
    return figure


def _least(figures: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(6.4, 2.2))
    steps = figures["cpu_ms"]
    _bars(figure.subplots(), list(steps), list(steps.values()), [_COLORS[OURS]] * len(steps), "CPU, ms an image")
    return figure


def _milliseconds(figures: Mapping[str, Any]) -> Figure:
    """A bar for each process, its parts one after the other and named where there is room."""
    figure = Figure(figsize=(7.2, 2.6))
    axes = figure.subplots()
    longest = max(sum(parts.values()) for parts in figures["ms"].values())
    for place, parts in enumerate(figures["ms"].values()):
        left = 0.0
        for number_of, (part, spent) in enumerate(sorted(parts.items(), key=lambda one: (one[0] == REST, -one[1]))):
            color = "#d9d9d9" if part == REST else _PARTS[number_of % len(_PARTS)]
            axes.barh(place, spent, left=left, color=color, edgecolor="white", linewidth=0.6)
            if spent > 0.045 * longest:
                words = "\n".join([*part.replace(", ", ",\n").replace(" and ", " and\n").split("\n"), number(spent)])
                axes.annotate(words, (left + spent / 2.0, place), ha="center", va="center", fontsize=5.5)
            left += spent
        axes.annotate(f" {number(left)}", (left, place), va="center", fontsize=8.0)
    axes.set_yticks(range(len(figures["ms"])), list(figures["ms"]))
    axes.invert_yaxis()
    axes.margins(x=0.08)
    axes.set_xlabel("CPU, ms an image")
    return figure


def _associations(row: Mapping[str, Any]) -> str:
    return "1 association" if row["associations"] == 1 else f"{row['associations']} associations"


def _bars(
    axes: Axes, names: Sequence[str], values: Sequence[Mapping[str, float]], colors: Sequence[str], unit: str
) -> None:
    """Horizontal, the first on top, each with its median beside it and a line over the middle half."""
    medians = [one["p50"] for one in values]
    around = [[one["p50"] - one["p25"] for one in values], [one["p75"] - one["p50"] for one in values]]
    axes.barh(range(len(names)), medians, color=list(colors), xerr=around, error_kw={"elinewidth": 0.8})
    for place, one in enumerate(values):
        axes.annotate(f" {number(one['p50'])}", (max(one["p75"], one["p50"]), place), va="center", fontsize=8.0)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(unit)


def main() -> None:
    """Write page and charts."""
    runs = read()
    draw(runs, PICTURES)
    (DOCS / "performance.md").write_text(write(runs), "utf-8")
    print(DOCS / "performance.md")


if __name__ == "__main__":
    main()
