"""The rows that report and measurements must have, written down a second time and on purpose.

A checker that used the builders' tables would find a builder's mistake right; so codes and order stand here again,
as data, from PS3.16. Only the sentences come from `wording`, rebuilt from the coded answer.

Clauses: PS3.16 TID 2000, 1002, 1204 (report); TID 1500, 1004, 1600, 1601, 1602, 1410, 4019 (measurements), CID 240,
CID 6047; IHE RAD AIR table 6.5.3.1-1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from cxr_node.dicom.results.sr_items import Relation
from cxr_node.dicom.words import coded_findings, wording, zones
from cxr_node.domain import Verdict
from cxr_node.result_kinds import ResultKind
from tests.dicom.oracle.facts import Facts
from tests.dicom.oracle.rules import OracleRule
from tests.dicom.oracle.tree import ExpectedItem, triple

_POINT_TOLERANCE_PX = 0.01  # coordinates are stored as float32


def accepts(facts: Facts, number: int) -> Callable[[Any], bool]:
    """Accept the region of this number, as one closed polyline."""
    outline = facts.context.regions[number - 1].outline

    def is_right(value: Any) -> bool:
        graphic_type, told = value
        numbers = [number for point in outline for number in point]
        pairs = zip(told, numbers, strict=False)
        near = all(abs(float(one) - other) <= _POINT_TOLERANCE_PX for one, other in pairs)
        return graphic_type == "POLYLINE" and len(told) == len(numbers) and told[:2] == told[-2:] and near

    return is_right


IMAGING_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")
PERCENT = Code("%", "UCUM", "Percent")
PIXELS = Code("{pixels}", "UCUM", "Pixels")
NO_UNITS = Code("1", "UCUM", "no units")
SCORE = Code("score", "99CXRNODE", "Score, not a probability")
SCORED = Code("scored-finding", "99CXRNODE", "Finding scored, not asserted")
TECHNIQUE = Code("272394005", "SCT", "Technique")
LIMITATIONS = Code("limitations", "99CXRNODE", "Limitations")
LIMITATION = Code("limitation", "99CXRNODE", "Limitation")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
REPORT_TITLE = Code("18748-4", "LN", "Diagnostic Imaging Report")
MEASUREMENTS_TITLE = Code("126000", "DCM", "Imaging Measurement Report")
LANGUAGES = {
    ResultKind.REPORT: Code("en", "RFC5646", "English"),
    ResultKind.MEASUREMENTS: Code("en-US", "RFC5646", "English (United States)"),
}
PRESENCE = {
    Verdict.POSITIVE: Code("52101004", "SCT", "Present"),
    Verdict.NEGATIVE: Code("272519000", "SCT", "Absent"),
    Verdict.INDETERMINATE: Code("373068000", "SCT", "Undetermined"),
}
PROCESSING = {
    Verdict.POSITIVE: Code("111242", "DCM", "All algorithms succeeded; with findings"),
    Verdict.NEGATIVE: Code("111241", "DCM", "All algorithms succeeded; without findings"),
}
_SHA256 = re.compile(r"[0-9a-f]{64}")


def report(facts: Facts) -> ExpectedItem:
    """TID 2000 as the node writes it."""
    finding, radiograph, shows_map = facts.context.finding, facts.context.radiograph, facts.context.refers_to_map
    technique = wording.report_technique(finding, radiograph, facts.series_numbers, facts.product, shows_map=shows_map)
    limitations = wording.report_limitations(finding, radiograph, shows_map=shows_map)
    scores = wording.report_scores(finding)
    technique += zones.lines(facts.context.looked, finding.decision)
    name = f"{facts.product}, {facts.context.model_name}"
    image = ExpectedItem(
        rule=OracleRule.SOURCE, relation=Relation.INFERRED_FROM, value_type="IMAGE", name=codes.DCM.SourceOfMeasurement,
        value=facts.source,
    )  # fmt: skip
    impression = _text(OracleRule.SUMMARY, Relation.CONTAINS, codes.DCM.Impression, wording.summary(finding), image)
    return ExpectedItem(
        rule=OracleRule.TITLE, relation=None, value_type="CONTAINER", name=REPORT_TITLE, value="DCMR 2000",
        rows=(
            *_language_and_observer(facts, ResultKind.REPORT),
            _text(OracleRule.OBSERVER, Relation.HAS_OBS_CONTEXT, codes.DCM.DeviceObserverName, name),
            _section(codes.DCM.Impressions, impression),
            _section(codes.DCM.Findings, *_lines(codes.DCM.Finding, [wording.report_finding(finding)])),
            *([_section(SCORED, *_lines(SCORE, scores))] if scores else ()),
            _section(TECHNIQUE, *_lines(TECHNIQUE, technique)),
            _section(LIMITATIONS, *_lines(LIMITATION, limitations)),
        ),
    )  # fmt: skip


def measurements(facts: Facts) -> ExpectedItem:
    """TID 1500 as the node writes it."""
    procedure = facts.procedure or triple(IMAGING_PROCEDURE)
    observer = {
        codes.DCM.DeviceObserverName: facts.context.serial_number,
        codes.DCM.DeviceObserverManufacturer: facts.context.manufacturer,
        codes.DCM.DeviceObserverModelName: facts.context.model_name,
        codes.DCM.DeviceObserverSerialNumber: facts.context.serial_number,
    }
    return ExpectedItem(
        rule=OracleRule.TITLE, relation=None, value_type="CONTAINER", value="DCMR 1500",
        name=MEASUREMENTS_TITLE if facts.context.regions else EVALUATIONS,
        rows=(
            *_language_and_observer(facts, ResultKind.MEASUREMENTS),
            *(_text(OracleRule.OBSERVER, Relation.HAS_OBS_CONTEXT, name, value) for name, value in observer.items()),
            _code(
                OracleRule.PROCEDURE, Relation.HAS_CONCEPT_MOD, codes.DCM.ProcedureReported,
                procedure,
            ),
            *(_library(facts) if facts.context.regions else ()),
            _section(codes.DCM.ImagingMeasurements, *_groups(facts)),
            _section(EVALUATIONS, *_evaluations(facts)),
        ),
    )  # fmt: skip


def _language_and_observer(facts: Facts, kind: ResultKind) -> tuple[ExpectedItem, ...]:
    language = codes.DCM.LanguageOfContentItemAndDescendants
    return (
        _code(OracleRule.LANGUAGE, Relation.HAS_CONCEPT_MOD, language, triple(LANGUAGES[kind])),
        _code(
            OracleRule.OBSERVER,
            Relation.HAS_OBS_CONTEXT,
            codes.DCM.ObserverType,
            triple(Code("121007", "DCM", "Device")),
        ),
        _uid(OracleRule.OBSERVER, codes.DCM.DeviceObserverUID, facts.context.device_uid),
    )


def _library(facts: Facts) -> tuple[ExpectedItem, ...]:
    return (_section(codes.DCM.ImageLibrary, _section(codes.DCM.ImageLibraryGroup, _library_entry(facts))),)


def _library_entry(facts: Facts) -> ExpectedItem:
    """TID 1601 and 1602, of the one image."""
    rows, columns = facts.context.radiograph.pixels.shape
    context = Relation.HAS_ACQ_CONTEXT
    return ExpectedItem(
        rule=OracleRule.SOURCE, relation=Relation.CONTAINS, value_type="IMAGE", name=None, value=facts.source,
        rows=(
            _code(OracleRule.LIBRARY, context, codes.DCM.Modality, facts.modality),
            _number(OracleRule.LIBRARY, context, codes.DCM.PixelDataRows, rows, PIXELS),
            _number(OracleRule.LIBRARY, context, codes.DCM.PixelDataColumns, columns, PIXELS),
        ),
    )  # fmt: skip


def _target(facts: Facts) -> Code:
    return Code(*facts.context.finding.target.code)


def _groups(facts: Facts) -> list[ExpectedItem]:
    if not facts.context.regions:
        return [_group_of_codes(facts)]
    return [_group(facts, number) for number in range(1, len(facts.context.regions) + 1)]


def _group(facts: Facts, number: int) -> ExpectedItem:
    """TID 1410 with one region."""
    source = ExpectedItem(
        rule=OracleRule.SOURCE, relation=Relation.SELECTED_FROM, value_type="IMAGE", name=None, value=facts.source
    )
    illustrations = [
        ExpectedItem(
            rule=OracleRule.ILLUSTRATION, relation=Relation.CONTAINS, value_type="IMAGE", name=name, value=facts.picture
        )
        for name in (codes.DCM.IllustrationOfROI, codes.DCM.VisualExplanation)
    ]
    return ExpectedItem(
        rule=OracleRule.SECTION, relation=Relation.CONTAINS, value_type="CONTAINER", name=codes.DCM.MeasurementGroup,
        value="DCMR 1410",
        rows=(
            *_finding(facts, number),
            _code(OracleRule.PRESENCE, Relation.CONTAINS, _target(facts), _presence(facts)),
            ExpectedItem(
                rule=OracleRule.REGION, relation=Relation.CONTAINS, value_type="SCOORD", name=codes.DCM.ImageRegion,
                value=accepts(facts, number), rows=(source,),
            ),
            *_place(facts, number),
            *(illustrations if facts.context.refers_to_map else ()),
        ),
    )  # fmt: skip


def _place(facts: Facts, number: int) -> list[ExpectedItem]:
    """Where the region lies, in words, where that is known."""
    places = facts.context.places
    if len(places) < number or not places[number - 1]:
        return []
    return [_text(OracleRule.REGION, Relation.CONTAINS, codes.DCM.Comment, zones.of_region(places[number - 1]))]


def _group_of_codes(facts: Facts) -> ExpectedItem:
    """TID 1501, with nothing to draw: of everything that claims no region."""
    source = ExpectedItem(
        rule=OracleRule.SOURCE, relation=Relation.INFERRED_FROM, value_type="IMAGE", name=codes.DCM.SourceOfMeasurement,
        value=facts.source,
    )  # fmt: skip
    picture = ExpectedItem(
        rule=OracleRule.ILLUSTRATION, relation=Relation.HAS_PROPERTIES, value_type="IMAGE",
        name=codes.DCM.VisualExplanation, value=facts.picture,
    )  # fmt: skip
    images = (source, picture) if facts.context.refers_to_map else (source,)
    return ExpectedItem(
        rule=OracleRule.SECTION, relation=Relation.CONTAINS, value_type="CONTAINER", name=codes.DCM.MeasurementGroup,
        value="DCMR 1501",
        rows=(
            *_finding(facts, 1),
            ExpectedItem(
                rule=OracleRule.PRESENCE, relation=Relation.CONTAINS, value_type="CODE", name=_target(facts),
                value=_presence(facts), rows=images,
            ),
        ),
    )  # fmt: skip


def _finding(facts: Facts, number: int) -> tuple[ExpectedItem, ...]:
    """What both groups begin with."""
    finding_of = facts.context.finding
    identifier = finding_of.target.tracking_identifier(number)
    is_positive = finding_of.decision.verdict is Verdict.POSITIVE
    finding = [_code(OracleRule.FINDING, Relation.CONTAINS, codes.DCM.Finding, finding_of.target.code)]
    tracking = facts.context.tracking_uid(number)
    return (
        _text(OracleRule.TRACKING, Relation.HAS_OBS_CONTEXT, codes.DCM.TrackingIdentifier, identifier),
        _uid(OracleRule.TRACKING, codes.DCM.TrackingUniqueIdentifier, tracking),
        *(finding if is_positive else ()),
        *_algorithm(facts),
        *(_certainty(facts) if number == 1 else ()),
    )


def _algorithm(facts: Facts) -> list[ExpectedItem]:
    """TID 4019; name, version and manufacturer as in Contributing Equipment."""
    identity, point = facts.context.finding.identity, facts.context.finding.identity.operating_point
    words = [
        (codes.DCM.AlgorithmName, facts.context.model_name),
        (codes.DCM.AlgorithmVersion, facts.context.algorithm_version),
        (codes.DCM.AlgorithmManufacturer, facts.context.manufacturer),
    ]
    parameters = [
        (OracleRule.THRESHOLD, _threshold("threshold.rule_out", point.rule_out_below)),
        (OracleRule.THRESHOLD, _threshold("threshold.report", point.report_at)),
        (OracleRule.ALGORITHM, f"calibration={wording.plain(identity.calibration)}"),
        *((OracleRule.ALGORITHM, f"{name}={value}") for name, value in _abstention_figures(facts).items()),
        (OracleRule.ALGORITHM, _digest("weights.sha256", identity.weights_sha256)),
        (OracleRule.ALGORITHM, _digest("config.sha256", identity.config_sha256)),
    ]
    modifier = Relation.HAS_CONCEPT_MOD
    return [
        *(_text(OracleRule.ALGORITHM, modifier, name, value) for name, value in words),
        *(_text(rule, modifier, codes.DCM.AlgorithmParameters, value) for rule, value in parameters),
        _code(OracleRule.ALGORITHM, modifier, codes.DCM.AlgorithmFamily, triple(ARTIFICIAL_INTELLIGENCE)),
    ]


def _abstention_figures(facts: Facts) -> dict[str, str]:
    """Figures of the two abstain reasons about the image itself, to four digits."""
    prediction, point = facts.context.finding.prediction, facts.context.finding.identity.operating_point
    told = {"spread": prediction.spread, "spread.limit": point.max_spread}
    rules_out = prediction.probability[point.label] < point.rule_out_below
    limit = point.rule_out_max_distance if rules_out and point.rule_out_max_distance is not None else point.max_distance
    if prediction.distance is not None and limit is not None:
        told |= {"distance": prediction.distance, "distance.limit": limit}
    return {name: f"{value:.4g}" for name, value in told.items()}


def _threshold(name: str, probability: float) -> Callable[[str], bool]:
    """Accept "name=0.85", the number to six digits at least."""

    def accepts(value: str) -> bool:
        told, _, number = value.partition("=")
        try:
            return told == name and math.isclose(float(number), probability, rel_tol=1e-5, abs_tol=1e-9)
        except ValueError:
            return False

    return accepts


def _digest(name: str, sha256: str) -> Callable[[str], bool]:
    """Accept "name=<this digest>", where that is one."""
    return lambda value: value == f"{name}={sha256}" and _SHA256.fullmatch(sha256) is not None


def _certainty(facts: Facts) -> list[ExpectedItem]:
    """Percent of the finding where the verdict rests on it; no row where calibration does not hold."""
    certainty, score = wording.certainty(facts.context.finding), wording.score(facts.context.finding)
    of_what = _code(
        OracleRule.CERTAINTY, Relation.HAS_CONCEPT_MOD, codes.DCM.Finding, facts.context.finding.target.code
    )
    if score is not None:
        return [_number(OracleRule.CERTAINTY, Relation.CONTAINS, SCORE, score, NO_UNITS, of_what)]
    if certainty is None:
        return []
    return [_number(OracleRule.CERTAINTY, Relation.CONTAINS, codes.DCM.CertaintyOfFinding, certainty, PERCENT, of_what)]


def _evaluations(facts: Facts) -> list[ExpectedItem]:
    """TID 1500 row 12: what holds of the whole radiograph."""
    verdict = facts.context.finding.decision.verdict
    summary = codes.DCM.CADProcessingAndFindingsSummary
    processing = [
        _code(OracleRule.PROCESSING, Relation.CONTAINS, summary, triple(PROCESSING[v]))
        for v in PROCESSING
        if v is verdict
    ]
    return [
        *processing,
        _code(OracleRule.PRESENCE, Relation.CONTAINS, _target(facts), _presence(facts)),
        _text(OracleRule.SUMMARY, Relation.CONTAINS, codes.DCM.Summary, wording.summary(facts.context.finding)),
        *_scored(facts),
    ]


def _scored(facts: Facts) -> list[ExpectedItem]:
    """Each scored finding with its number, under a concept that asserts nothing."""
    return [
        ExpectedItem(
            rule=OracleRule.SCORES, relation=Relation.CONTAINS, value_type="CODE", name=SCORED,
            value=triple(coded_findings.named(label).code),
            rows=(_number(OracleRule.SCORES, Relation.HAS_PROPERTIES, SCORE, value, NO_UNITS),),
        )
        for label, value in coded_findings.listed(facts.context.finding)
    ]  # fmt: skip


def _section(name: Code, *rows: ExpectedItem) -> ExpectedItem:
    return ExpectedItem(
        rule=OracleRule.SECTION, relation=Relation.CONTAINS, value_type="CONTAINER", name=name, rows=rows
    )


def _lines(name: Code, lines: list[str]) -> list[ExpectedItem]:
    return [_text(OracleRule.REPORT_LINE, Relation.CONTAINS, name, line) for line in lines]


def _text(rule: OracleRule, relation: Relation, name: Code, value: Any, *rows: ExpectedItem) -> ExpectedItem:
    return ExpectedItem(rule=rule, relation=relation, value_type="TEXT", name=name, value=value, rows=rows)


def _code(rule: OracleRule, relation: Relation, name: Code, value: Any) -> ExpectedItem:
    return ExpectedItem(rule=rule, relation=relation, value_type="CODE", name=name, value=value)


def _uid(rule: OracleRule, name: Code, value: str | None) -> ExpectedItem:
    return ExpectedItem(rule=rule, relation=Relation.HAS_OBS_CONTEXT, value_type="UIDREF", name=name, value=value)


def _number(
    rule: OracleRule, relation: Relation, name: Code, value: float | None, unit: Code, *rows: ExpectedItem
) -> ExpectedItem:
    """NUM of this value, or of any where it is None; never without its unit."""

    def accepts(told: Any) -> bool:
        number, unit_told = told
        try:
            expected = float(number) if value is None else float(f"{value:.10g}")
            return unit_told == triple(unit) and float(number) == expected
        except ValueError:
            return False

    return ExpectedItem(rule=rule, relation=relation, value_type="NUM", name=name, value=accepts, rows=rows)


def _presence(facts: Facts) -> Any:
    return triple(PRESENCE[facts.context.finding.decision.verdict])
