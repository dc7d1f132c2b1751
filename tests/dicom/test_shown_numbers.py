"""One finding, every view: all of them show the same number, or none, and on its own side of both thresholds."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fpdf import FPDF
from pydicom import Dataset, dcmread

from cxr_node.cli import tables
from cxr_node.dicom.render import picture
from cxr_node.dicom.results import basic_text_sr, encapsulated_pdf, key_object, measurement_sr, secondary_capture
from cxr_node.dicom.results.context import Context
from cxr_node.dicom.words import rounding
from cxr_node.domain import Verdict
from cxr_node.model.decision import decide
from cxr_node.tools.classify import Answer
from tests.dicom import contexts

VALUES = (0.0, 0.004, 0.14996, 0.15, 0.5, 0.84996, 0.8499999, 0.85, 0.934, 0.9951, 1.0)
_NUMBER = re.compile(r"(?:below |above )?\d+(?:\.\d+)? %")
_THRESHOLDS = re.compile(r"\(15 % and 85 %\)|ruled out below 15 %|reported from 85 %")


def judged(probability: float, **figures: float) -> Context:
    of = contexts.context()
    prediction = replace(of.finding.prediction, probability={"pneumonia": probability}, **figures)
    decision = decide(prediction, of.finding.identity.operating_point)
    return replace(of, finding=replace(of.finding, prediction=prediction, decision=decision))


def numbers(texts: list[str]) -> set[str]:
    """Percentages that a person reads, but for the thresholds themselves."""
    return {found for text in texts for found in _NUMBER.findall(_THRESHOLDS.sub("", text.replace("\u00a0", " ")))}


def items(of: Dataset) -> Iterator[Dataset]:
    for item in of.get("ContentSequence", ()):
        yield item
        yield from items(item)


def texts_of(content: bytes) -> list[str]:
    dataset = dcmread(io.BytesIO(content))
    return [str(item.TextValue) for item in items(dataset) if item.ValueType == "TEXT"]


def keep_drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keep every text that is put on a picture or a page from now on: their bytes hold no letters."""
    said: list[str] = []

    def keeping(draw: Any, at: int) -> Any:
        def kept(*arguments: Any, **options: Any) -> Any:
            said.append(str(arguments[at]))
            return draw(*arguments, **options)

        return kept

    monkeypatch.setattr(picture, "write", keeping(picture.write, 2))
    for name in ("cell", "multi_cell"):
        monkeypatch.setattr(FPDF, name, keeping(getattr(FPDF, name), 3))
    return said


def drawn(of: Context, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Texts of the picture and of the page."""
    with monkeypatch.context() as patched:
        said = keep_drawn(patched)
        secondary_capture.build(of)
        encapsulated_pdf.build(of)
    return said


@pytest.mark.parametrize("probability", VALUES)
def test_every_view_shows_the_same_number(probability: float, monkeypatch: pytest.MonkeyPatch) -> None:
    of = judged(probability)
    finding, point = of.finding, of.finding.identity.operating_point
    shown = rounding.stated_text(finding)
    answer = Answer(path=Path("a.dcm"), outcome=finding)
    assert shown is not None and answer.stated == shown
    report, measured = basic_text_sr.build(of).content, measurement_sr.build(of).content
    for texts in (texts_of(report), texts_of(measured), drawn(of, monkeypatch)):
        assert numbers(texts) == {shown}
    word = finding.target.word(finding.decision.verdict)
    beside = tables.stated(finding.probability, finding.decision.abstain_reason, word)
    title = dcmread(io.BytesIO(report)).SeriesDescription
    if finding.decision.verdict is Verdict.POSITIVE:
        marked = key_object.build(of)
        assert marked is not None and numbers(texts_of(marked.content)) == {shown} == {beside}
        assert shown.replace("above ", ">").replace(" %", "%") in title
    else:
        assert beside == "-" and "%" not in title
    told = answer.as_json("test")["probability"]
    coded = next(item for item in items(dcmread(io.BytesIO(measured))) if item.ValueType == "NUM" and _is_percent(item))
    for exact in (told, float(coded.MeasuredValueSequence[0].NumericValue) / 100):
        assert isinstance(exact, float)
        for limit in (point.rule_out_below, point.report_at):
            assert (round(exact, 9) >= limit) == (probability >= limit)


@pytest.mark.parametrize("figures", [{"spread": 0.41}, {"distance": 1.43}])
@pytest.mark.parametrize("probability", [0.03, 0.97])
def test_where_no_certainty_is_stated_no_view_has_one(
    probability: float, figures: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    of = judged(probability, **figures)
    answer = Answer(path=Path("a.dcm"), outcome=of.finding)
    assert rounding.stated_text(of.finding) is None is answer.stated
    assert tables.stated(of.finding.probability, of.finding.decision.abstain_reason, "UNCERTAIN") == "-"
    report, measured = basic_text_sr.build(of).content, measurement_sr.build(of).content
    for texts in (texts_of(report), texts_of(measured), drawn(of, monkeypatch)):
        assert numbers(texts) == set()
    assert not [item for item in items(dcmread(io.BytesIO(measured))) if item.ValueType == "NUM" and _is_percent(item)]


def _is_percent(item: Dataset) -> bool:
    return bool(item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue == "%")
