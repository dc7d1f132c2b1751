"""How an evaluation is shown: as tables in a terminal, and as one HTML page that needs nothing but itself.

Both put the goals first: can this profile be trusted? The pictures in the page are of the evaluated images.
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
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cxr_node import __version__, heatmap, resources
from cxr_node.dicom.render import overlay
from cxr_node.dicom.words import rounding
from cxr_node.domain import Radiograph, Verdict, View
from cxr_node.errors import DataError
from cxr_node.model.predictor import ProfilePredictor
from cxr_node.model.torch_runtime import TorchRuntime
from cxr_node.training.data import images
from cxr_node.training.measure import padding, paired
from cxr_node.training.measure.acceptance import GOALS, MARKS
from cxr_node.training.measure.evaluate import Scorer, Study
from cxr_node.training.measure.metrics import RATE_NAMES, SUBGROUP_NAMES, interval
from cxr_node.training.report import plots
from cxr_node.training.saliency import boxes, heatmap_tests

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


def write_page(path: Path, scorer: Scorer, studies: Mapping[str, Study], measured: Mapping[str, Any]) -> None:
    """Write the page.

    `studies` : name -> one or two data sets, the first one in detail
    `measured` : as `evaluation.run` returns it
    Raises DataError: the file cannot be written.
    """
    outcomes = {name: study.outcomes for name, study in studies.items()}
    lettered = dict(zip(("A", "B"), outcomes.values(), strict=False))
    sets = [measured, *([measured["external"]] if "external" in measured else [])]
    styles = {scorer.profile.target.word(each): each.name for each in Verdict if each is not Verdict.REJECTED}
    deleted = measured.get("heatmaps", {}).get("curves")
    content = resources.html_page(
        "evaluation.html",
        profile=scorer.profile,
        product=f"cxr_node {__version__}",
        measured=measured,
        sets=sets,
        figures=[name for name in RATE_NAMES if any(name in one["rates"] for one in sets)],
        subgroup_names=SUBGROUP_NAMES,
        rate_names=RATE_NAMES,
        verdicts=list(styles),
        styles=styles,
        certainty=lambda probability: rounding.percent_text(probability, scorer.profile.operating_point),
        marks=MARKS,
        interval=interval,
        curves={
            "ROC": plots.roc(lettered),
            "Precision and recall": plots.precision_recall(lettered),
            "Reliability": plots.reliability(lettered),
            "Risk and coverage": plots.risk_coverage(lettered),
        },
        histograms={name: plots.certainty(one, scorer.profile.operating_point) for name, one in outcomes.items()},
        moves=plots.moves(measured["reencoding"], _bar("reencoding")) if "reencoding" in measured else None,
        heatmap_names=heatmap_tests.NAMES,
        right_names=paired.RIGHT_NAMES,
        deletion=plots.deletion(deleted) if deleted else None,
        box_names=boxes.NAMES,
        mistakes={name: list(_mistakes(scorer, study)) for name, study in studies.items()},
    )
    try:
        path.write_text(content, "utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from error


def _bar(section: str) -> float:
    return next(goal.bar for goal in GOALS if goal.place[0] == section)


def _mistakes(scorer: Scorer, study: Study) -> Iterator[Mistake]:
    """Images whose answer is wrong, then those on the wrong side of 0.5; in each, the furthest off first."""
    outcomes = study.outcomes
    off = np.abs(outcomes.probability - outcomes.positive)
    answered_wrongly = outcomes.answered & ~outcomes.right
    order = np.lexsort((-off, ~answered_wrongly))
    worst = [place for place in order if answered_wrongly[place] or off[place] > 0.5][:MOST_ERRORS]
    predictor = ProfilePredictor(scorer.profile, TorchRuntime(scorer.network, scorer.profile.judged), scorer.stats)
    for place in worst:
        item = study.items[place]
        pixels = images.load(item)
        seen = Radiograph(pixels=pixels, pixel_aspect=1.0, view=View.UNKNOWN, pixel_digest=item.digest)
        found = predictor.examine(seen).heatmap
        scale = PICTURE_PX / max(pixels.shape)
        shown = overlay.gray(pixels, (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale)))
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


def tables(measured: Mapping[str, Any]) -> Group:
    """Goals, figures, verdicts, subgroups, re-encoding, outsiders."""
    external = measured.get("external")
    parts: list[Any] = [_head(measured), _goals(measured), _compared(measured) if external else _rates(measured)]
    parts += [_verdicts(one) for one in (measured, external) if one]
    parts += [table for one in (measured, external) if one for table in _subgroups(one)]
    if "reencoding" in measured:
        parts.append(_reencoding(measured["reencoding"]))
    if "padding" in measured:
        parts.append(_padding(measured["padding"]))
    parts += [_boxes(one) for one in (measured, external) if one and "boxes" in one]
    parts += [table for one in (measured, external) if one and "paired" in one for table in _paired(one)]
    if "outsiders" in measured:
        parts.append(_outsiders(measured["outsiders"]))
    if "heatmaps" in measured:
        parts.append(_heatmaps(measured["heatmaps"]))
    parts.append(Text("Research use only. Intervals: 95 %, bootstrapped over patients."))
    return Group(*parts)


def _head(measured: Mapping[str, Any]) -> Text:
    return Text(
        f"{measured['name']}: {measured['images']} images of {measured['patients']} patients, "
        f"{measured['positives']} positive",
        "bold",
    )


def _goals(measured: Mapping[str, Any]) -> Table:
    table = Table("question", "figure", "goal", "reached", title="can it be trusted?", title_justify="left")
    for goal in measured["goals"]:
        bar = f"{'at least' if goal['at_least'] else 'at most'} {goal['bar']:g}"
        table.add_row(goal["question"], f"{goal['goal']}\n{interval(goal)}", bar, Text(*MARKS[goal["met"]]))
    return table


def _rates(measured: Mapping[str, Any]) -> Table:
    table = Table("figure", "value (95 % interval)", title="figures", title_justify="left")
    for name, rate in measured["rates"].items():
        table.add_row(RATE_NAMES.get(name, name), interval(rate))
    return table


def _compared(measured: Mapping[str, Any]) -> Table:
    external = measured["external"]
    table = Table("figure", title="side by side", title_justify="left")
    for heading in (measured["name"], external["name"], "difference"):
        table.add_column(heading)
    for name, rate in measured["rates"].items():
        if name in external["rates"]:
            cells = (interval(rate), interval(external["rates"][name]))
            table.add_row(RATE_NAMES.get(name, name), *cells, interval(measured["compared"][name], signed=True))
    return table


def _verdicts(measured: Mapping[str, Any]) -> Table:
    table = Table("truth", title=f"verdicts: {measured['name']}", title_justify="left")
    common = (Verdict.NEGATIVE.value, Verdict.INDETERMINATE.value)
    said = {word for counts in measured["verdicts"].values() for word in counts}
    words = (*sorted(said - set(common)), *common)
    for verdict in words:
        table.add_column(verdict, justify="right")
    for truth, counts in measured["verdicts"].items():
        table.add_row(truth, *(str(counts.get(verdict, 0)) for verdict in words))
    return table


def _subgroups(measured: Mapping[str, Any]) -> Iterator[Table]:
    for column, values in measured["subgroups"].items():
        table = Table(column, "images (positive)", title=f"by {column}: {measured['name']}", title_justify="left")
        for heading in SUBGROUP_NAMES.values():
            table.add_column(heading)
        for value, one in values.items():
            cells = (interval(one["rates"][name]) if name in one["rates"] else "-" for name in SUBGROUP_NAMES)
            table.add_row(Text(value), f"{one['images']} ({one['positives']})", *cells)
        yield table


def _reencoding(measured: Mapping[str, Any]) -> Table:
    title = f"the same {measured['images']} images re-encoded: change of the probability"
    table = Table("stored as", title=title, title_justify="left")
    for heading in ("95th percentile", "largest", "other verdict", "opposite verdict"):
        table.add_column(heading, justify="right")
    for name, one in {**measured["variants"], "all": measured}.items():
        counts = (f"{one[count]} of {one['answers']}" for count in ("changes", "flips"))
        table.add_row(name, interval(one["move"]), f"{one['largest']:.3f}", *counts)
    return table


def _padding(measured: Mapping[str, Any]) -> Table:
    title = f"the same {measured['images']} films with their edges elsewhere: mean move of the logit"
    table = Table("film", title=title, title_justify="left")
    for heading in ("all", "positives", "negatives", "other verdict", "opposite verdict"):
        table.add_column(heading, justify="right")
    for name, one in measured["variants"].items():
        means = (interval(one[part], signed=True) if part in one else "-" for part in padding.PARTS)
        table.add_row(name, *means, *(f"{one[count]} of {one['answers']}" for count in ("changes", "flips")))
    return table


def _boxes(measured: Mapping[str, Any]) -> Table:
    found = measured["boxes"]
    title = f"radiologists' boxes: {found['images']} films of {measured['name']}, {found['called']} called positive"
    table = Table("heat map", "value (95 % interval)", title=title, title_justify="left")
    for name, rate in found["rates"].items():
        table.add_row(boxes.NAMES[name], interval(rate))
    return table


def _paired(measured: Mapping[str, Any]) -> Iterator[Table]:
    found = measured["paired"]
    title = f"against {found['profile']}, {found['images']} images of {found['patients']} patients: {measured['name']}"
    table = Table("figure", "this profile", found["profile"], "difference", title=title, title_justify="left")
    for name, one in found["rates"].items():
        cells = (interval(one["first"]), interval(one["second"]), interval(one["difference"], signed=True))
        table.add_row(RATE_NAMES[name], *cells)
    yield table
    table = Table("right", "this one alone", f"{found['profile']} alone", "p, patients", title_justify="left")
    for name, said in paired.RIGHT_NAMES.items():
        one = found["right"][name]
        table.add_row(said, str(one["only_first"]), str(one["only_second"]), f"{one['p']:.3g}")
    yield table


def _outsiders(measured: Mapping[str, Any]) -> Table:
    table = Table("what", "images", "refused or UNCERTAIN", title="images it was not made for", title_justify="left")
    for name, one in {**measured["kinds"], "all": measured["all"]}.items():
        table.add_row(name, str(one["images"]), interval(one["refused"]))
    return table


def _heatmaps(measured: Mapping[str, Any]) -> Table:
    """Figures by their keys: the page says each in a sentence."""
    table = Table("heat maps", "value (95 % interval)", title="do the heat maps mean anything?", title_justify="left")
    for name, rate in measured["rates"].items():
        table.add_row(name.replace("_", " "), interval(rate))
    return table
