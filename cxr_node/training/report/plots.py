"""Plots for the evaluation page: outcomes in, inline SVG out.

Each curve has the band that re-draws of the patients leave. Colours are words of the page's style sheet, so that the
plots follow it into the dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxr_node.domain import OperatingPoint
from cxr_node.training.measure import bootstrap
from cxr_node.training.measure.bootstrap import BINS, TAIL, Bools, Floats
from cxr_node.training.measure.metrics import Outcomes

INK, FIRST, SECOND, FAINT = "#010101", "#010102", "#010103", "#010104"
STYLES = {INK: "currentColor", FIRST: "var(--first)", SECOND: "var(--second)", FAINT: "var(--faint)"}
"""Stand-ins for colours while matplotlib draws -> what the page's style sheet calls them."""
RC: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "cxr_node", "font.family": "sans-serif", "font.size": 10.0,
    "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": FAINT,
    "grid.linewidth": 0.6, "legend.frameon": False, "figure.figsize": (4.6, 3.7), "figure.constrained_layout.use": True,
}  # fmt: skip
LINES = ((FIRST, "-"), (SECOND, "--"))
Named = Mapping[str, Outcomes]


def roc(named: Named) -> str:
    """Draw sensitivity against false alarms, with the point of the verdicts at 0.5."""
    with _drawn("ROC curve") as (axes, drawn):
        for (name, one), line in _lined(named):
            _curve(axes, roc_curve(one), _many(named, name), line)
            false_alarms, sensitivity = one.called[~one.positive].mean(), one.called[one.positive].mean()
            axes.plot([false_alarms], [sensitivity], "o", color=line[0], label=_one(named, "at 0.5"))
        axes.plot([0, 1], [0, 1], ":", color=INK, linewidth=0.8)
        _named(axes, "false alarms among negatives (1 - specificity)", "found among positives (sensitivity)")
        _legend(axes, "lower right")
    return drawn[0]


def precision_recall(named: Named) -> str:
    """Draw positive predictive value against sensitivity; what guessing would reach is dotted."""
    with _drawn("precision-recall curve") as (axes, drawn):
        for (name, one), line in _lined(named):
            _curve(axes, precision_recall_curve(one), _many(named, name), line)
            axes.axhline(float(one.positive.mean()), color=line[0], linestyle=":", linewidth=0.8)
        _named(axes, "found among positives (recall, sensitivity)", "positive among found (precision, PPV)")
        _legend(axes, "lower left")
    return drawn[0]


def reliability(named: Named) -> str:
    """Draw how often what was said came true; on the diagonal, a probability means what it says."""
    with _drawn("reliability diagram") as (axes, drawn):
        axes.plot([0, 1], [0, 1], ":", color=INK, linewidth=0.8)
        for (name, one), (color, _) in _lined(named):
            curve, counts = reliability_curve(one)
            reach = np.abs(np.stack([curve.y - curve.low, curve.high - curve.y]))
            axes.errorbar(curve.x, curve.y, yerr=reach, fmt="none", ecolor=color, elinewidth=1.0)
            axes.scatter(curve.x, curve.y, s=8.0 + 120.0 * counts / counts.sum(), color=color, label=_many(named, name))
        _named(axes, "stated probability of pneumonia", "share with pneumonia (95 % interval)")
        _legend(axes, "upper left")
    return drawn[0]


def risk_coverage(named: Named) -> str:
    """Draw errors against how much is answered, with the place of the stored operating point."""
    with _drawn("risk-coverage curve") as (axes, drawn):
        for (name, one), line in _lined(named):
            curve = risk_coverage_curve(one)
            _curve(axes, curve, _many(named, name), line)
            if one.answered.any():
                point = (one.answered.mean(), 1.0 - one.right[one.answered].mean())
                axes.plot(*point, "o", color=line[0], label=_one(named, "as it answers"))
        _named(axes, "share of images answered, most certain first", "wrong among the answers")
        axes.set_ylim(bottom=0.0, top=None)
        _legend(axes, "upper left")
    return drawn[0]


def certainty(outcomes: Outcomes, point: OperatingPoint) -> str:
    """Draw how often which probability is given to either class, with the thresholds of the verdicts."""
    with _drawn("histogram of the probability") as (axes, drawn):
        bins = np.linspace(0.0, 1.0, 26)
        for rows, name, color, hatch in (
            (outcomes.positive, "truth: positive", FIRST, ""),
            (~outcomes.positive, "truth: negative", SECOND, "///"),
        ):
            filled: dict[str, Any] = {
                "facecolor": "none" if hatch else color,
                "edgecolor": color,
                "hatch": hatch,
                "alpha": 0.75,
            }
            counts, edges = np.histogram(outcomes.probability[rows], bins=bins)
            axes.stairs(counts, edges, fill=True, label=name, **filled)
        for threshold in (point.rule_out_below, point.report_at):
            axes.axvline(threshold, color=INK, linestyle="--", linewidth=1.0)
        axes.set_yscale("symlog", linthresh=10)
        most = max(10.0, axes.get_ylim()[1])
        ticks = [tick for tick in (0, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000) if tick <= most]
        axes.set_yticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        _named(axes, "probability of pneumonia (dashed: thresholds)", "images (logarithmic above 10)")
        axes.set_ylim(0.0, 1.3 * most)
        _legend(axes, "upper center")
    return drawn[0]


def moves(reencoding: Mapping[str, Any], bar: float) -> str:
    """Draw how far the probability moves by what was done to the image."""
    variants = reencoding["variants"]
    with _drawn("change of the probability by encoding", size=(4.6, 0.7 + 0.21 * len(variants))) as (axes, drawn):
        for place, one in enumerate(variants.values()):
            move = one["move"]
            axes.plot([move["low"], move["high"]], [place, place], color=FIRST, linewidth=2.0)
            axes.plot([move["value"]], [place], "o", color=FIRST, markersize=5.0)
            axes.plot([one["largest"]], [place], "|", color=SECOND, markersize=8.0)
        axes.axvline(bar, color=INK, linestyle="--", linewidth=1.0)
        axes.set_yticks(range(len(variants)), list(variants))
        axes.invert_yaxis()
        axes.set_xlim(left=0.0)
        axes.set_xlabel("change of the probability (dashed: goal)")
    return drawn[0]


def deletion(found: Mapping[str, Any]) -> str:
    """Draw the probability while pixels are taken away, or put back, the hottest first; by chance is dotted."""
    with _drawn("deletion and insertion curves") as (axes, drawn):
        for (kind, name), line in zip((("deletion", "taken away"), ("insertion", "put back")), LINES, strict=True):
            bands = {part: np.asarray(found[kind][part]) for part in ("value", "low", "high")}
            curve = Curve(x=np.asarray(found["shares"]), y=bands["value"], low=bands["low"], high=bands["high"])
            _curve(axes, curve, f"{name}, hottest first", line)
            axes.plot(found["shares"], found[f"{kind}_random"]["value"], ":", color=line[0], label="in random order")
        _named(axes, "share of the pixels", "mean probability of pneumonia")
        axes.set_ylim(-0.02, 1.02)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return drawn[0]


@contextmanager
def _drawn(title: str, size: tuple[float, float] | None = None) -> Iterator[tuple[Axes, list[str]]]:
    """Axes to draw on; after the block, the list holds the SVG."""
    result: list[str] = []
    with mpl.rc_context(RC):
        figure = Figure(figsize=size)
        yield figure.add_subplot(), result
        written = io.StringIO()
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    result.append(_inline(written.getvalue(), title))


def _inline(svg: str, title: str) -> str:
    """An SVG document as an element of a page: as wide as its place, in the page's colours, without ids of its own."""
    element = svg[svg.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.S)
    element = re.sub(r' id="[a-zA-Z0-9.]+_\d+"', "", element)
    element = re.sub(
        r'<svg [^>]*?viewBox="([^"]+)"[^>]*>', rf'<svg viewBox="\1" role="img" aria-label="{title}">', element
    )
    for stand_in, color in STYLES.items():
        element = element.replace(stand_in, color)
    return element


def _lined(named: Named) -> Iterator[tuple[tuple[str, Outcomes], tuple[str, str]]]:
    return zip(named.items(), LINES, strict=False)


def _one(named: Named, label: str) -> str | None:
    return label if len(named) == 1 else None


def _many(named: Named, name: str) -> str | None:
    return name if len(named) > 1 else None


def _legend(axes: Axes, place: Any) -> None:
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc=place)


def _curve(axes: Axes, curve: Curve, name: str | None, line: tuple[str, str]) -> None:
    axes.fill_between(curve.x, curve.low, curve.high, color=line[0], alpha=0.2, linewidth=0.0)
    axes.plot(curve.x, curve.y, line[1], color=line[0], label=name)


def _named(axes: Axes, x: str, y: str) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


DRAWS = 300
"""Enough for a band that is looked at."""
GRID = np.linspace(0.0, 1.0, 101)
SLACK = 1e-9
"""Against rounding, and against dividing by nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Points of a curve; `low` and `high` are the 95 % band at each `x`."""

    x: Floats
    y: Floats
    low: Floats
    high: Floats


def roc_curve(outcomes: Outcomes) -> Curve:
    """Share of negatives called positive -> share of positives called positive."""

    def at(hits: Floats, alarms: Floats) -> Floats:
        return np.interp(GRID, _shares(alarms), _shares(hits))

    return _banded(outcomes.positive, outcomes.probability, outcomes, at)


def precision_recall_curve(outcomes: Outcomes) -> Curve:
    """Sensitivity -> positive predictive value at it."""

    def at(hits: Floats, alarms: Floats) -> Floats:
        called = np.cumsum(hits + alarms)
        precision = np.cumsum(hits) / np.maximum(called, SLACK)
        reached = np.searchsorted(_shares(hits)[1:], np.maximum(GRID - SLACK, SLACK))
        return np.asarray(precision[np.minimum(reached, len(hits) - 1)])

    return _banded(outcomes.positive, outcomes.probability, outcomes, at)


def risk_coverage_curve(outcomes: Outcomes) -> Curve:
    """Share of the images answered, the most certain first -> share of wrong answers among them."""

    def at(errors: Floats, fine: Floats) -> Floats:
        answered = np.cumsum(errors + fine)
        place = np.minimum(np.searchsorted(answered / answered[-1], np.maximum(GRID - SLACK, SLACK)), len(answered) - 1)
        return np.asarray(np.cumsum(errors)[place] / np.maximum(answered[place], SLACK))

    certainty = np.maximum(outcomes.probability, 1.0 - outcomes.probability)
    return _banded(outcomes.called != outcomes.positive, certainty, outcomes, at)


def reliability_curve(outcomes: Outcomes) -> tuple[Curve, Floats]:
    """Mean probability of each bin that holds images -> share of positives among them; and how many they are."""
    weight = bootstrap.weights(outcomes.groups, draws=DRAWS)
    member = np.eye(BINS)[bootstrap.binned(outcomes.probability)]  # (images, bins)
    counts = member.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        rows = (weight @ (member * outcomes.positive[:, None])) / (weight @ member)  # (1 + draws, bins)
        middle = (member * outcomes.probability[:, None]).sum(axis=0) / counts
    full = counts > 0
    low, high = np.nanquantile(rows[:, full], [TAIL, 1.0 - TAIL], axis=0)
    witnesses = np.array([len(np.unique(outcomes.groups[column > 0.0])) for column in member.T[full]])
    possible = TAIL ** (1.0 / witnesses)  # Clopper and Pearson, where all or none are positive
    low = np.where(rows[0, full] == 1.0, np.minimum(low, possible), low)
    high = np.where(rows[0, full] == 0.0, np.maximum(high, 1.0 - possible), high)
    return Curve(x=middle[full], y=rows[0, full], low=low, high=high), counts[full]


def _banded(hit: Bools, score: Floats, outcomes: Outcomes, at: Callable[[Floats, Floats], Floats]) -> Curve:
    hits, misses = bootstrap.stepped(hit, -score, bootstrap.weights(outcomes.groups, draws=DRAWS))
    known = hits.any(axis=1) & misses.any(axis=1) if hit.any() and not hit.all() else np.ones(len(hits), dtype=bool)
    rows = np.array([at(one, other) for one, other in zip(hits[known], misses[known], strict=True)])
    low, high = np.quantile(rows, [TAIL, 1.0 - TAIL], axis=0)
    return Curve(x=GRID, y=rows[0], low=low, high=high)


def _shares(weights: Floats) -> Floats:
    return np.concatenate(([0.0], np.cumsum(weights) / max(float(weights.sum()), SLACK)))
