"""The figures of `cxr-node bench` as one small SVG: turnaround, shares of the stages, batch sizes. Measures nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxr_node.bench_figures import Bench, Pipeline, WholeNode

_FIRST, _SECOND = "#1b6ca8", "#c8553d"
_RC: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "cxr_node", "font.family": "sans-serif", "font.size": 9.0,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10.0, "legend.frameon": False,
    "figure.constrained_layout.use": True,
}  # fmt: skip


def write(path: Path, found: Bench) -> None:
    """Draw three panels side by side."""
    with mpl.rc_context(_RC):
        figure = Figure(figsize=(11.0, 3.4))
        turnaround, shares, sizes = figure.subplots(1, 3)
        _turnaround(turnaround, found.node)
        _shares(shares, found.pipeline)
        _batches(sizes, found.pipeline)
        size = f"{found.size_mb:.1f} MB, {found.machine.cores:g} cores, {found.profile}, {found.runtime}"
        figure.suptitle(f"cxr-node bench: {size}; {found.at:%Y-%m-%d}", fontsize=9.0)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _turnaround(axes: Axes, found: WholeNode) -> None:
    """Share of the radiographs that are answered after so long."""
    for spread, name, color, line in (
        (found.one_at_a_time, "one at a time", _FIRST, "-"),
        (found.all_at_once, "all at once", _SECOND, "--"),
    ):
        axes.ecdf(np.array(spread.each_ms), color=color, linestyle=line, label=f"{name}: p50 {spread.p50_ms:.0f} ms")
    axes.set(title="turnaround", xlabel="ms from receipt to last result", ylabel="share answered", xlim=(0, None))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18))


def _shares(axes: Axes, found: Pipeline) -> None:
    names = [stage.name for stage in found.stages]
    drawn = axes.barh(names, [stage.ms for stage in found.stages], color=_FIRST)
    axes.bar_label(drawn, [f"{100.0 * stage.share:.0f} %" for stage in found.stages], padding=2)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set(title=f"one process: {found.ms_per_image:.0f} ms an image", xlabel="median ms")


def _batches(axes: Axes, found: Pipeline) -> None:
    sizes = [str(each.size) for each in found.batches]
    drawn = axes.bar(sizes, [each.images_per_s for each in found.batches], color=_FIRST)
    axes.bar_label(drawn, fmt="%.1f")
    axes.margins(y=0.1)
    axes.set(title="stage examine, by batch size", xlabel="images at once", ylabel="images/s")
