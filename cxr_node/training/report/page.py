"""The evaluation as one HTML page that needs nothing but itself: can this profile be trusted?

Knows no file but the one it writes; the pictures in it are of the evaluated images and stay where the user puts them.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cxr_node import __version__, heatmap, html_page
from cxr_node.dicom.render import overlay
from cxr_node.dicom.render import overlay as resize
from cxr_node.dicom.words import rounding
from cxr_node.domain import Radiograph, Verdict, View
from cxr_node.errors import DataError
from cxr_node.model.predictor import ProfilePredictor
from cxr_node.model.torch_runtime import TorchRuntime
from cxr_node.training.data import images
from cxr_node.training.measure import words
from cxr_node.training.measure.acceptance import GOALS
from cxr_node.training.measure.evaluate import Judge, Study
from cxr_node.training.measure.words import RATE_NAMES, SUBGROUP_NAMES
from cxr_node.training.report import plots
from cxr_node.training.saliency import run

MOST_ERRORS = 8
"""Of one data set; the worst come first."""
PICTURE_PX = 320
"""Long side of a picture of the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One image on the wrong side of 0.5, or with a wrong verdict: what is shown of it."""

    name: str
    truth: str
    verdict: Verdict
    probability: float
    plain: str
    mapped: str


def write(path: Path, judge: Judge, studies: Mapping[str, Study], measured: Mapping[str, Any]) -> None:
    """Write the page.

    Parameters
    ----------
    studies : name -> one or two data sets, the first one in detail
    measured : as `report.run` returns it

    Raises
    ------
    DataError : the file cannot be written
    """
    outcomes = {name: study.outcomes for name, study in studies.items()}
    lettered = dict(zip(("A", "B"), outcomes.values(), strict=False))
    sets = [measured, *([measured["external"]] if "external" in measured else [])]
    styles = {judge.profile.target.word(each): each.name for each in Verdict if each is not Verdict.REJECTED}
    content = html_page.render(
        "evaluation.html",
        profile=judge.profile,
        product=f"cxr_node {__version__}",
        measured=measured,
        sets=sets,
        figures=[name for name in RATE_NAMES if any(name in one["rates"] for one in sets)],
        subgroup_names=SUBGROUP_NAMES,
        rate_names=RATE_NAMES,
        verdicts=list(styles),
        styles=styles,
        certainty=lambda probability: rounding.percent_text(probability, judge.profile.operating_point),
        marks=words.MARKS,
        interval=words.interval,
        curves={
            "ROC": plots.roc(lettered),
            "Precision and recall": plots.precision_recall(lettered),
            "Reliability": plots.reliability(lettered),
            "Risk and coverage": plots.risk_coverage(lettered),
        },
        histograms={name: plots.certainty(one, judge.profile.operating_point) for name, one in outcomes.items()},
        moves=plots.moves(measured["reencoding"], _bar("reencoding")) if "reencoding" in measured else None,
        heatmap_names=run.NAMES,
        deletion=_deletion(measured),
        mistakes={name: list(_mistakes(judge, study)) for name, study in studies.items()},
    )
    try:
        path.write_text(content, "utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from error


def _bar(section: str) -> float:
    return next(goal.bar for goal in GOALS if goal.place[0] == section)


def _deletion(measured: Mapping[str, Any]) -> str | None:
    curves = measured.get("heatmaps", {}).get("curves")
    return plots.deletion(curves) if curves else None


def _mistakes(judge: Judge, study: Study) -> Iterator[Mistake]:
    """Images whose answer is wrong, then those on the wrong side of 0.5; in each, the furthest off first."""
    outcomes = study.outcomes
    off = np.abs(outcomes.probability - outcomes.positive)
    answered_wrongly = outcomes.answered & ~outcomes.right
    order = np.lexsort((-off, ~answered_wrongly))
    worst = [place for place in order if answered_wrongly[place] or off[place] > 0.5][:MOST_ERRORS]
    predictor = ProfilePredictor(judge.profile, TorchRuntime(judge.network, judge.profile.judged), judge.stats)
    for place in worst:
        item = study.items[place]
        pixels = images.load(item)
        seen = Radiograph(pixels=pixels, pixel_aspect=1.0, view=View.UNKNOWN, pixel_sha256=item.digest)
        found = predictor.examine(seen).heatmap
        scale = PICTURE_PX / max(pixels.shape)
        shown = resize.gray(pixels, (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale)))
        yield Mistake(
            name=item.path.name,
            truth=item.kind,
            verdict=study.decisions[place].verdict,
            probability=float(outcomes.probability[place]),
            plain=_embedded(shown),
            mapped=_embedded(overlay.overlaid(shown, heatmap.on_grid(found, (shown.height, shown.width)))),
        )


def _embedded(image: Image.Image) -> str:
    coded = io.BytesIO()
    image.save(coded, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(coded.getvalue()).decode()}"
