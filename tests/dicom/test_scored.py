"""Results of a classifier that scores 18 findings and judges one: nothing asserted, nothing in percent, all checked."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes

from cxr_node.dicom.results.context import Context
from cxr_node.dicom.verify import check
from cxr_node.dicom.verify.rules import Rule
from cxr_node.dicom.words import coded_findings, wording
from cxr_node.domain import AbstainReason, Scale, Verdict
from cxr_node.model.decision import decide
from cxr_node.model.torchxrayvision import LABELS
from cxr_node.result_kinds import ResultKind
from tests import builders
from tests.dicom import oracle
from tests.dicom.contexts import context
from tests.dicom.mutations import broken, made
from tests.dicom.oracle.rules import OracleRule

REPORT, MEASUREMENTS, HEATMAP = ResultKind.REPORT, ResultKind.MEASUREMENTS, ResultKind.HEATMAP
SOURCE = ("source", builders.part10(builders.radiograph()))
VALUES = dict(
    zip(LABELS, [0.31, 0.22, 0.4996, 0.04, 0.58, 0.5, 0.12, 0.713, 0.62, 0.1, 0.66, *[0.05] * 7], strict=True)
)
CASES: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "pneumonia": ({}, {}),
    "normal": ({"Pneumonia": 0.4997}, {}),
    "between": ({"Pneumonia": 0.45}, {"rule_out_below": 0.4, "report_at": 0.6}),
    "views": ({"Pneumonia": 0.3}, {"max_spread": 0.2}),
    "two findings": ({"only": 2}, {}),
}


def scored(case: str, scale: Scale = Scale.SCORE) -> Context:
    """Judge the synthetic radiograph with a torchxrayvision profile; `case` of `CASES`."""
    changes, limits = CASES[case]
    values = VALUES | {label: value for label, value in changes.items() if label in VALUES}
    if "only" in changes:
        values = {label: values[label] for label in ("Pneumonia", "Lung Opacity")}
    of = context(max_heatmap_px=1024)
    point = replace(
        of.finding.identity.operating_point,
        **{"label": "Pneumonia", "report_at": 0.5, "rule_out_below": 0.5, "max_spread": 1.0, "scale": scale} | limits,
        max_distance=None,
    )
    prediction = replace(of.finding.prediction, probability=values, spread=0.31, distance=None)
    identity = replace(
        of.finding.identity,
        profile="torchxrayvision-densenet121-res224-all",
        operating_point=point,
        calibration="op-norm (scores, not probabilities), fitted on what its authors chose",
    )
    finding = replace(of.finding, prediction=prediction, identity=identity, decision=decide(prediction, point))
    return replace(of, finding=replace(finding, heatmap=replace(finding.heatmap, label="Pneumonia")))


def texts(artifact: Any) -> list[str]:
    def walk(dataset: Dataset) -> list[str]:
        own = [str(dataset.TextValue)] if "TextValue" in dataset else []
        return own + [line for child in dataset.get("ContentSequence", ()) for line in walk(child)]

    return walk(dcmread(io.BytesIO(artifact.content)))


def listed(dataset: Dataset) -> list[tuple[str, str, float, str]]:
    """Code, scheme, number and unit of each scored finding."""
    evaluations = next(
        item
        for item in dataset.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeMeaning == "Qualitative Evaluations"
    )
    found = []
    for item in evaluations.ContentSequence:
        if item.ConceptNameCodeSequence[0].CodeValue != "scored-finding":
            continue
        (number,) = item.ContentSequence
        assert (item.ValueType, number.ValueType, number.RelationshipType) == ("CODE", "NUM", "HAS PROPERTIES")
        code, measured = item.ConceptCodeSequence[0], number.MeasuredValueSequence[0]
        unit = measured.MeasurementUnitsCodeSequence[0].CodeValue
        found.append((code.CodeValue, code.CodingSchemeDesignator, float(measured.NumericValue), unit))
    return found


def heading(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning)


def test_the_sentences() -> None:
    assert {case: wording.summary(scored(case).finding) for case in CASES if case != "two findings"} == {
        "pneumonia": "AI: PNEUMONIA SUSPECTED. Score of pneumonia: 0.62 (a score is not a probability). Not verified "
        "by a physician. The verdict concerns pneumonia only. Research use only.",
        "normal": "AI: no pneumonia detected. Score of pneumonia: 0.4997 (a score is not a probability). Not verified "
        "by a physician. The verdict concerns pneumonia only. This does not mean that the radiograph is normal. "
        "Research use only.",
        "between": "AI: UNCERTAIN. The AI gives no answer: score of pneumonia 0.45, between the two thresholds (0.4 "
        "and 0.6). Human reading required. Research use only.",
        "views": "AI: UNCERTAIN. The AI gives no answer: predictions for this image disagree. Human reading "
        "required. Research use only.",
    }


def test_the_five_highest_stand_in_the_report() -> None:
    report = dcmread(io.BytesIO(made(scored("pneumonia"))[REPORT].content))
    lines = texts(made(scored("pneumonia"))[REPORT])
    start = lines.index("Highest of 18 findings (0.5 is the model's operating point for each):")
    assert lines[start + 1 : start + 7] == [
        "1. pleural effusion 0.71",
        "2. cardiomegaly 0.66",
        "3. pneumonia 0.62",
        "4. pulmonary edema 0.58",
        "5. emphysema 0.5",
        "Projection: PA.",
    ]
    assert "Pneumonia suspected (score of pneumonia 0.62)." in lines
    assert "Thresholds: ruled out below 0.5, reported from 0.5. Scores are not probabilities." in lines
    assert wording.UNMEASURED in lines
    assert all(len(line) <= 80 for line in lines[2 : start + 6])  # after observer and impression
    findings_section = next(item for item in report.ContentSequence if heading(item) == "Findings")
    assert len(findings_section.ContentSequence) == 1  # what is scored and not asserted is no finding


@pytest.mark.parametrize("case", CASES)
def test_no_score_is_shown_in_percent(case: str) -> None:
    of = scored(case)
    for artifact in made(of).values():
        dataset = dcmread(io.BytesIO(artifact.content))
        assert "%" not in dataset.SeriesDescription
        assert not any("%" in line or "ertainty" in line for line in texts(artifact))
    assert wording.certainty(of.finding) is None


def test_all_findings_are_coded_in_the_order_of_their_scores() -> None:
    dataset = dcmread(io.BytesIO(made(scored("pneumonia"))[MEASUREMENTS].content))
    rows = listed(dataset)
    assert len(rows) == 18
    assert rows[:3] == [
        ("60046008", "SCT", 0.71, "1"),
        ("8186001", "SCT", 0.66, "1"),
        ("233604007", "SCT", 0.62, "1"),
    ]
    assert ("112121", "DCM", 0.4996, "1") in rows  # two digits would lift it onto its operating point
    assert [row[2] for row in rows] == sorted((row[2] for row in rows), reverse=True)


def test_where_looks_disagree_no_finding_has_a_number() -> None:
    of = scored("views")
    assert of.finding.decision.abstain_reason is AbstainReason.VIEWS_DISAGREE
    assert listed(dcmread(io.BytesIO(made(of)[MEASUREMENTS].content))) == []
    lines = texts(made(of)[REPORT])
    assert "The other 17 findings: not stated." in lines
    assert not any("core of pneumonia" in line for line in lines)


def test_classes_behind_one_calibrated_label_are_no_findings() -> None:
    """Bacterial and viral are parts of the answer, not calibrated alone: results are those of one label."""
    of = scored("pneumonia", Scale.PROBABILITY)
    assert coded_findings.listed(of.finding) == ()
    assert "Assessed for pneumonia only" in wording.summary(of.finding)
    assert listed(dcmread(io.BytesIO(made(of)[MEASUREMENTS].content))) == []
    assert check.check_made(list(made(of).values()), of) == []
    assert check.check_files([(str(kind), each.content) for kind, each in made(of).items()]).flaws == ()


@pytest.mark.parametrize("case", CASES)
def test_sound_sets_pass_before_and_after_they_are_sent(case: str) -> None:
    of = scored(case)
    assert of.finding.decision.verdict is not Verdict.REJECTED
    artifacts = made(of)
    assert [str(flaw) for flaw in check.check_made(list(artifacts.values()), of)] == []
    files = [(str(kind), artifact.content) for kind, artifact in artifacts.items()]
    for these in ([*files, SOURCE], files, files[:1], files[1:2], files[2:], files[::2]):
        assert [str(flaw) for flaw in check.check_files(these).flaws] == []


def scored_item(dataset: Dataset, place: int) -> Dataset:
    evaluations = dataset.ContentSequence[-1]
    items = [item for item in evaluations.ContentSequence if "scored" in item.ConceptNameCodeSequence[0].CodeValue]
    return items[place]


def higher(dataset: Dataset) -> None:
    scored_item(dataset, 3).ContentSequence[0].MeasuredValueSequence[0].NumericValue = "0.99"


def in_percent(dataset: Dataset) -> None:
    unit = scored_item(dataset, 0).ContentSequence[0].MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0]
    unit.CodeValue, unit.CodeMeaning = "%", "Percent"


def left_out(dataset: Dataset) -> None:
    dataset.ContentSequence[-1].ContentSequence.pop(6)


def asserted(dataset: Dataset) -> None:
    name = scored_item(dataset, 0).ConceptNameCodeSequence[0]
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = "121071", "DCM", "Finding"


def scheme_unsaid(dataset: Dataset) -> None:
    del dataset.CodingSchemeIdentificationSequence


def other_finding(dataset: Dataset) -> None:
    scored_item(dataset, 0).ConceptCodeSequence[0].CodeValue = "36118008"


def of_the_judged(dataset: Dataset) -> None:
    group = dataset.ContentSequence[-2].ContentSequence[0]
    number = next(item for item in group.ContentSequence if item.ValueType == "NUM")
    number.MeasuredValueSequence[0].NumericValue = "0.93"


def line(before: str, after: str) -> Callable[[Dataset], None]:
    def act(dataset: Dataset) -> None:
        for section in dataset.ContentSequence:
            for item in section.get("ContentSequence", ()):
                if item.get("TextValue") == before:
                    item.TextValue = after

    return act


BROKEN: list[tuple[ResultKind, Callable[[Dataset], None], Rule | OracleRule]] = [
    (MEASUREMENTS, higher, Rule.SCORES),
    (MEASUREMENTS, in_percent, Rule.SCORES),
    (MEASUREMENTS, left_out, Rule.SCORES),
    (MEASUREMENTS, asserted, OracleRule.ROW_UNEXPECTED),
    (MEASUREMENTS, other_finding, Rule.SCORES),
    (MEASUREMENTS, scheme_unsaid, Rule.SCORES),
    (MEASUREMENTS, of_the_judged, Rule.CERTAINTY),
    (REPORT, line("1. pleural effusion 0.71", "1. pleural effusion 0.91"), OracleRule.REPORT_LINE),
    (REPORT, line("1. pleural effusion 0.71", "1. pneumothorax 0.71"), OracleRule.REPORT_LINE),
    (REPORT, line(wording.UNMEASURED, "Every image was like the training data."), OracleRule.REPORT_LINE),
    (
        REPORT,
        line("Pneumonia suspected (score of pneumonia 0.62).", "Pneumonia suspected (certainty of pneumonia 62 %)."),
        OracleRule.REPORT_LINE,
    ),
]


@pytest.mark.parametrize(("kind", "act", "rule"), BROKEN)
def test_broken_ones_are_told(kind: ResultKind, act: Callable[[Dataset], None], rule: Rule | OracleRule) -> None:
    of = scored("pneumonia")
    artifacts = made(of)
    artifacts[kind] = broken(artifacts[kind], act)
    named = {str(flaw.rule) for flaw in check.check_made(list(artifacts.values()), of)}
    assert rule in named | {str(found) for found, _ in oracle.flaws(list(artifacts.values()), of)}


def test_every_published_finding_has_words_and_a_code_of_its_own() -> None:
    known = {label: coded_findings.named(label) for label in LABELS}
    assert len({(each.code.value, each.code.scheme_designator) for each in known.values()}) == 18
    assert {each.code.scheme_designator for each in known.values()} == {"SCT", "DCM", coded_findings.OWN_SCHEME}
    assert all(len(str(each.code.value)) <= 16 and len(each.code.meaning) <= 64 for each in known.values())  # SH, LO
    own = {label for label, each in known.items() if each.code.scheme_designator == coded_findings.OWN_SCHEME}
    assert own == {"Pleural_Thickening", "Enlarged Cardiomediastinum"}


def test_codes_of_the_standard_are_the_standard_s() -> None:
    """Against the dictionary of PS3.16 that pydicom carries."""
    sct, dcm = codes.SCT, codes.DCM
    for label, code in {
        "Infiltration": dcm.Infiltrate, "Pneumothorax": sct.Pneumothorax, "Edema": sct.PulmonaryEdema,
        "Effusion": sct.PleuralEffusion, "Nodule": sct.Nodule, "Lung Lesion": sct.Lesion, "Lung Opacity": dcm.Opacity,
    }.items():  # fmt: skip
        named = coded_findings.named(label).code
        assert (named.value, named.scheme_designator, named.meaning) == (
            code.value,
            code.scheme_designator,
            code.meaning,
        )
    assert coded_findings.named("Mass").code.value == "4147007"


def test_a_label_that_nobody_knows_keeps_its_words_and_gets_a_code() -> None:
    odd = coded_findings.named("Tubé \\ misplaced")
    assert odd.words == "Tub? ? misplaced"
    assert odd.code.scheme_designator == coded_findings.OWN_SCHEME
    assert len(str(odd.code.value)) <= 16
    assert coded_findings.named("other").code.value != odd.code.value
