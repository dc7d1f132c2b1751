"""Our own check: a broken result is named with its code, by the check or the oracle."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.filereader import read_dataset
from pydicom.sr.codedict import codes

from cxr_node import pipeline
from cxr_node.dicom.results import encoder, sr_items
from cxr_node.dicom.results.sr_items import Relation
from cxr_node.dicom.verify import check
from cxr_node.dicom.verify.rules import Rule
from cxr_node.result_kinds import ResultKind
from tests.builders import item
from tests.dicom import oracle
from tests.dicom.contexts import context
from tests.dicom.mutations import BUILD, SOURCE, broken, every_kind, of_both_lungs, results
from tests.dicom.oracle.rules import OracleRule

REPORT, MEASUREMENTS, HEATMAP = ResultKind.REPORT, ResultKind.MEASUREMENTS, ResultKind.HEATMAP
SMALL = {"max_heatmap_px": 1024}


def spoilt(kind: ResultKind, act: Callable[[Dataset], None]) -> set[Rule]:
    """What is found in every kind of two lungs, where this one was changed."""
    artifacts, of = of_both_lungs()
    changed = [replace(broken(each, act), alternatives=()) if each.kind is kind else each for each in artifacts]
    return {flaw.rule for flaw in check.check_made(changed, of)}


def last_lost(dataset: Dataset) -> None:
    del found(dataset, "Imaging Measurements").ContentSequence[-1]


def last_moved(dataset: Dataset) -> None:
    region = found(found(dataset, "Imaging Measurements").ContentSequence[-1], "Image Region")
    region.GraphicData = [value + 1.0 for value in region.GraphicData]


def other_side(dataset: Dataset) -> None:
    group = found(dataset, "Imaging Measurements").ContentSequence[1]
    found(group, "Comment").TextValue = "Where the network looked: right upper zone."


def same_track(dataset: Dataset) -> None:
    groups = found(dataset, "Imaging Measurements").ContentSequence
    found(groups[1], "Tracking Unique Identifier").UID = found(groups[0], "Tracking Unique Identifier").UID


def line_lost(dataset: Dataset) -> None:
    del dataset.GraphicAnnotationSequence[0].GraphicObjectSequence[-1]


def line_moved(dataset: Dataset) -> None:
    graphic = dataset.GraphicAnnotationSequence[0].GraphicObjectSequence[1]
    graphic.GraphicData = [value + 1.0 for value in graphic.GraphicData]


def segment_lost(dataset: Dataset) -> None:
    del dataset.SegmentSequence[-1]


def frame_lost(dataset: Dataset) -> None:
    del dataset.PerFrameFunctionalGroupsSequence[-1]


def segment_of_another(dataset: Dataset) -> None:
    dataset.SegmentSequence[1].TrackingUID = dataset.SegmentSequence[0].TrackingUID


@pytest.mark.parametrize(
    ("kind", "change", "rule"),
    [
        (MEASUREMENTS, last_lost, Rule.REGION),
        (MEASUREMENTS, last_moved, Rule.REGION),
        (MEASUREMENTS, other_side, Rule.REGION),
        (MEASUREMENTS, same_track, Rule.TRACKING),
        (ResultKind.PRESENTATION_STATE, line_lost, Rule.REGION),
        (ResultKind.PRESENTATION_STATE, line_moved, Rule.REGION),
        (ResultKind.SEGMENTATION, segment_lost, Rule.REGION),
        (ResultKind.SEGMENTATION, frame_lost, Rule.REGION),
        (ResultKind.SEGMENTATION, segment_of_another, Rule.TRACKING),
    ],
)
def test_every_region_is_checked_before_anything_is_sent(
    kind: ResultKind, change: Callable[[Dataset], None], rule: Rule
) -> None:
    assert rule in spoilt(kind, change)


def named(dataset: Dataset, *meanings: str) -> tuple[Dataset, int]:
    """Parent and index of the content item with this path of concept names."""
    parent, index = dataset, -1
    for meaning in meanings:
        parent = parent if index < 0 else parent.ContentSequence[index]
        index = next(
            number
            for number, child in enumerate(parent.ContentSequence)
            if "ConceptNameCodeSequence" in child and child.ConceptNameCodeSequence[0].CodeMeaning == meaning
        )
    return parent, index


def found(dataset: Dataset, *meanings: str) -> Dataset:
    parent, index = named(dataset, *meanings)
    return parent.ContentSequence[index]


def removed(*meanings: str) -> Callable[[Dataset], None]:
    def act(dataset: Dataset) -> None:
        parent, index = named(dataset, *meanings)
        del parent.ContentSequence[index]

    return act


def changed(target: Dataset, keyword: str, value: Any) -> None:
    if value is None:
        delattr(target, keyword)
    else:
        setattr(target, keyword, value)


def put(keyword: str, value: Any, *meanings: str) -> Callable[[Dataset], None]:
    """Set an attribute of the header, or of a content item; None deletes it."""
    return lambda dataset: changed(found(dataset, *meanings) if meanings else dataset, keyword, value)


def certainty(keyword: str, value: Any) -> Callable[[Dataset], None]:
    """As `put`, of the measured value of the certainty."""
    return lambda dataset: changed(
        found(dataset, *GROUP, "Certainty of Finding").MeasuredValueSequence[0], keyword, value
    )


def equipment(keyword: str, value: Any) -> Callable[[Dataset], None]:
    """As `put`, of ours."""
    return lambda dataset: changed(dataset.ContributingEquipmentSequence[-1], keyword, value)


def coded(value: str, scheme: str, meaning: str) -> list[Dataset]:
    return [item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)]


def with_finding(dataset: Dataset) -> None:
    parent = found(dataset, *GROUP)
    finding_item = item(RelationshipType="CONTAINS", ValueType="CODE")
    finding_item.ConceptNameCodeSequence = coded("121071", "DCM", "Finding")
    finding_item.ConceptCodeSequence = coded("233604007", "SCT", "Pneumonia")
    parent.ContentSequence.insert(2, finding_item)


def with_processing(dataset: Dataset) -> None:
    parent = found(dataset, "Qualitative Evaluations")
    told = item(RelationshipType="CONTAINS", ValueType="CODE")
    told.ConceptNameCodeSequence = coded("111017", "DCM", "CAD Processing and Findings Summary")
    told.ConceptCodeSequence = coded("111241", "DCM", "All algorithms succeeded; without findings")
    parent.ContentSequence.insert(0, told)


def image_level(dataset: Dataset) -> None:
    """A TID 1501 group as it was seen to break viewers: an image where the region should be."""
    parent, index = named(dataset, *GROUP, "Image Region")
    image = parent.ContentSequence[index].ContentSequence[0]
    image.RelationshipType = "CONTAINS"
    parent.ContentSequence[index] = image


def framed(dataset: Dataset) -> None:
    """A region where none is claimed: viewers draw it."""
    parent, index = named(dataset, *GROUP, "Pneumonia")
    image = parent.ContentSequence[index].ContentSequence[0]
    points = [(0.5, 0.5), (10.5, 0.5), (10.5, 10.5), (0.5, 0.5)]
    source = encoder.item(encoder.to_bytes(image))
    region = sr_items.polyline(Relation.CONTAINS, codes.DCM.ImageRegion, points, source)
    parent.ContentSequence.append(read_dataset(io.BytesIO(region[8:]), False, True))


def retitled(dataset: Dataset) -> None:
    """OHIF shows a black viewport of this."""
    dataset.ConceptNameCodeSequence = [sr_items.coded(codes.DCM.ImagingMeasurementReport)]


def evidence_without(number: int) -> Callable[[Dataset], None]:
    def act(dataset: Dataset) -> None:
        del dataset.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[number]

    return act


def opened(dataset: Dataset) -> None:
    region = found(dataset, *GROUP, "Image Region")
    region.GraphicData = list(region.GraphicData)[:-2]


def outside(dataset: Dataset) -> None:
    region = found(dataset, *GROUP, "Image Region")
    data = list(region.GraphicData)
    region.GraphicData = [5000.0, *data[1:-2], 5000.0, data[-1]]


def third_equipment(dataset: Dataset) -> None:
    """What highdicom adds of itself, and an AIR checker counts as a second algorithm."""
    library = item(
        Manufacturer="highdicom", PurposeOfReferenceCodeSequence=coded("109102", "DCM", "Processing Equipment")
    )
    dataset.ContributingEquipmentSequence.append(library)


def sections_turned(dataset: Dataset) -> None:
    children = list(dataset.ContentSequence)
    dataset.ContentSequence = [*children[:-3], children[-2], children[-3], children[-1]]


GROUP = ("Imaging Measurements", "Measurement Group")
ALGORITHM, UNIT = "Algorithm Parameters", "MeasurementUnitsCodeSequence"
Broken = tuple[str, str, ResultKind, Callable[[Dataset], None], Rule | OracleRule]
KNOWN: list[Broken] = [
    # Five that no public validator saw (VIEWERS.md), ...
    ("tracking UID removed", "pneumonia", MEASUREMENTS, removed(*GROUP, "Tracking Unique Identifier"), Rule.TRACKING),
    (
        "probability in mm",
        "pneumonia",
        MEASUREMENTS,
        certainty(UNIT, coded("mm", "UCUM", "millimeter")),
        Rule.CERTAINTY,
    ),
    ("template not named", "pneumonia", MEASUREMENTS, put("ContentTemplateSequence", None), OracleRule.TEMPLATE),
    ("impressions removed", "pneumonia", REPORT, removed("Impressions"), OracleRule.SECTION),
    ("observer type removed", "pneumonia", REPORT, removed("Observer Type"), OracleRule.OBSERVER),
    # ... and six of the kinds that one of them or another does see: attributes, template rows, relations, references.
    ("completion flag removed", "pneumonia", MEASUREMENTS, put("CompletionFlag", None), Rule.STATUS),
    ("title removed", "pneumonia", MEASUREMENTS, put("ConceptNameCodeSequence", None), OracleRule.TITLE),
    ("number without unit", "pneumonia", MEASUREMENTS, certainty(UNIT, None), Rule.CERTAINTY),
    ("image library removed", "pneumonia", MEASUREMENTS, removed("Image Library"), OracleRule.SECTION),
    (
        "relation not allowed",
        "pneumonia",
        REPORT,
        put("RelationshipType", "HAS PROPERTIES", "Findings"),
        OracleRule.SECTION,
    ),
    ("evidence without the source", "pneumonia", MEASUREMENTS, evidence_without(0), Rule.EVIDENCE),
]
OWN: list[Broken] = [
    ("no region", "pneumonia", MEASUREMENTS, removed(*GROUP, "Image Region"), Rule.REGION),
    ("image-level group", "pneumonia", MEASUREMENTS, image_level, Rule.REGION),
    ("open region", "pneumonia", MEASUREMENTS, opened, Rule.REGION),
    ("frame round a negative", "normal", MEASUREMENTS, framed, OracleRule.ROW_UNEXPECTED),
    ("measurement report without a region", "unlike", MEASUREMENTS, retitled, OracleRule.TITLE),
    ("region outside the image", "pneumonia", MEASUREMENTS, outside, Rule.REGION),
    ("continuous root", "normal", REPORT, put("ContinuityOfContent", "CONTINUOUS"), OracleRule.CONTINUITY),
    (
        "continuous section",
        "between",
        REPORT,
        put("ContinuityOfContent", "CONTINUOUS", "Findings"),
        OracleRule.CONTINUITY,
    ),
    ("finding on a negative", "normal", MEASUREMENTS, with_finding, Rule.READS_POSITIVE),
    ("finding on an abstention", "views", MEASUREMENTS, with_finding, Rule.READS_POSITIVE),
    ("finding missing", "pneumonia", MEASUREMENTS, removed(*GROUP, "Finding"), OracleRule.FINDING),
    ("abstention without findings", "unlike", MEASUREMENTS, with_processing, Rule.READS_NEGATIVE),
    ("certainty as a fraction", "pneumonia", MEASUREMENTS, certainty("NumericValue", "0.934"), Rule.CERTAINTY),
    ("other certainty", "pneumonia", MEASUREMENTS, certainty("NumericValue", "12.5"), Rule.CERTAINTY),
    (
        "absent in an abstention",
        "between",
        MEASUREMENTS,
        put("ConceptCodeSequence", coded("272519000", "SCT", "Absent"), *GROUP, "Pneumonia"),
        Rule.READS_NEGATIVE,
    ),
    (
        "present in a negative",
        "normal",
        MEASUREMENTS,
        put("ConceptCodeSequence", coded("52101004", "SCT", "Present"), "Qualitative Evaluations", "Pneumonia"),
        Rule.READS_POSITIVE,
    ),
    (
        "threshold moved",
        "pneumonia",
        MEASUREMENTS,
        put("TextValue", "threshold.rule_out=0.25", *GROUP, ALGORITHM),
        Rule.THRESHOLD,
    ),
    (
        "description negative",
        "between",
        REPORT,
        put("SeriesDescription", "AI: no pneumonia 52% (research)"),
        Rule.READS_NEGATIVE,
    ),
    (
        "description without verdict",
        "pneumonia",
        HEATMAP,
        put("SeriesDescription", "Grad-CAM (research)"),
        Rule.DESCRIPTION,
    ),
    (
        "other percent in a description",
        "pneumonia",
        HEATMAP,
        put("SeriesDescription", "AI: PNEUMONIA 39% Grad-CAM (research)"),
        Rule.DESCRIPTION,
    ),
    (
        "impression of another",
        "views",
        REPORT,
        put("TextValue", "AI: no pneumonia detected.", "Impressions", "Impression"),
        Rule.READS_NEGATIVE,
    ),
    (
        "summary without disclaimer",
        "normal",
        MEASUREMENTS,
        put("TextValue", "AI: no pneumonia detected", "Qualitative Evaluations", "Summary"),
        Rule.SUMMARY,
    ),
    (
        "thresholds line",
        "normal",
        REPORT,
        put("TextValue", "Rule-out below 25 %, report from 85 %.", "Findings", "Finding"),
        OracleRule.REPORT_LINE,
    ),
    ("findings before impressions", "pneumonia", REPORT, sections_turned, OracleRule.ROW_ORDER),
    ("verified", "normal", REPORT, put("VerificationFlag", "VERIFIED"), Rule.STATUS),
    ("final", "normal", MEASUREMENTS, put("PreliminaryFlag", "FINAL"), Rule.STATUS),
    ("product, not research", "normal", HEATMAP, put("ContentQualification", "PRODUCT"), Rule.STATUS),
    ("device UID removed", "pneumonia", REPORT, equipment("DeviceUID", None), Rule.EQUIPMENT),
    ("device UID of another", "pneumonia", MEASUREMENTS, equipment("DeviceUID", "2.25.1"), Rule.EQUIPMENT),
    (
        "other model name",
        "pneumonia",
        MEASUREMENTS,
        put("TextValue", "cxr_node other", *GROUP, "Algorithm Name"),
        Rule.ALGORITHM,
    ),
    ("library as a second algorithm", "pneumonia", MEASUREMENTS, third_equipment, Rule.EQUIPMENT),
    ("other patient", "pneumonia", MEASUREMENTS, put("PatientID", "SOMEONE-ELSE"), Rule.PATIENT_AND_STUDY),
    ("other accession", "pneumonia", REPORT, put("AccessionNumber", "OTHER"), Rule.PATIENT_AND_STUDY),
    ("other character set", "pneumonia", HEATMAP, put("SpecificCharacterSet", "ISO_IR 192"), Rule.PATIENT_AND_STUDY),
    ("zone added", "pneumonia", REPORT, put("TimezoneOffsetFromUTC", "+0900"), Rule.CONTENT_TIME),
    ("zone taken away", "normal", MEASUREMENTS, put("TimezoneOffsetFromUTC", None), Rule.CONTENT_TIME),
    ("other series time", "normal", REPORT, put("SeriesTime", "010203.000000"), Rule.CONTENT_TIME),
    ("other content time", "pneumonia", HEATMAP, put("ContentTime", "010203.000000"), Rule.CONTENT_TIME),
    ("evidence without the picture", "pneumonia", REPORT, evidence_without(1), Rule.EVIDENCE),
    ("Pixel Spacing on a picture", "pneumonia", HEATMAP, put("PixelSpacing", ["0.1", "0.1"]), Rule.ATTRIBUTE),
    ("picture cut short", "pneumonia", HEATMAP, put("Rows", 100), Rule.PIXELS),
    ("picture of no source", "pneumonia", HEATMAP, put("SourceImageSequence", None), Rule.SOURCE),
    ("UID of somebody else", "pneumonia", REPORT, put("SeriesInstanceUID", "1.2.3.4"), Rule.UID),
    (
        "class of another kind",
        "normal",
        MEASUREMENTS,
        put("SOPClassUID", "1.2.840.10008.5.1.4.1.1.88.67"),
        Rule.SOP_CLASS,
    ),
]


ORACLE_ALONE = {
    "template not named", "observer type removed", "title removed", "image library removed", "relation not allowed",
    "measurement report without a region", "continuous root", "continuous section", "finding missing",
    "thresholds line", "findings before impressions",
}  # fmt: skip
"""How a template is filled in is the same in every result: the oracle sees it in CI, not the check at run time."""
NOT_OF_FILES = ORACLE_ALONE | {
    "no region", "image-level group", "frame round a negative", "region outside the image",
}  # fmt: skip
"""Of files alone nobody knows where a region must be."""


@pytest.mark.parametrize(("name", "case", "kind", "act", "rule"), KNOWN + OWN, ids=[row[0] for row in KNOWN + OWN])
def test_a_broken_result_is_named(
    name: str, case: str, kind: ResultKind, act: Callable[[Dataset], None], rule: Rule | OracleRule
) -> None:
    artifacts, of = results(case)
    artifacts = artifacts | {kind: broken(artifacts[kind], act)}
    flaws = check.check_made(list(artifacts.values()), of)
    by_oracle = oracle.flaws(list(artifacts.values()), of)
    assert rule in {str(flaw.rule) for flaw in flaws} | {str(found) for found, _ in by_oracle}
    assert bool(flaws) is (name not in ORACLE_ALONE)
    contents = [(str(each.kind), each.content) for each in artifacts.values()]
    named = check.check_files([*contents, SOURCE]).flaws
    assert bool(named) is (name not in NOT_OF_FILES)  # it may be the other place that is blamed
    assert all(str(flaw).startswith(f"{flaw.document}: {flaw.rule}: {flaw.rule.sentence}") for flaw in named)


def refers_elsewhere(dataset: Dataset) -> None:
    """Whatever it refers to, wherever: the first reference names another image."""
    for element in dataset:
        if element.VR == "SQ" and element.keyword != "PredecessorDocumentsSequence":
            for one in element.value:
                if "ReferencedSOPInstanceUID" in one:
                    one.ReferencedSOPInstanceUID = "1.2.3.4"
                refers_elsewhere(one)


EVERYWHERE: list[tuple[Callable[[Dataset], None], Rule]] = [
    (put("PatientID", "SOMEONE-ELSE"), Rule.PATIENT_AND_STUDY),
    (put("StudyInstanceUID", "1.2.3.4"), Rule.PATIENT_AND_STUDY),
    (put("SpecificCharacterSet", "ISO_IR 192"), Rule.PATIENT_AND_STUDY),
    (put("SeriesInstanceUID", "2.25.4"), Rule.UID),
    (put("VerificationFlag", "VERIFIED"), Rule.STATUS),
    (put("ContentQualification", "PRODUCT"), Rule.STATUS),
    (put("SeriesDescription", "AI: no pneumonia detected (research)"), Rule.READS_NEGATIVE),
    (put("ImageComments", "Without findings."), Rule.READS_NEGATIVE),
    (equipment("DeviceUID", "2.25.1"), Rule.EQUIPMENT),
    (equipment("ContributionDateTime", "20200101000000.000000+0000"), Rule.CONTENT_TIME),
    (refers_elsewhere, Rule.SOURCE),
]


@pytest.mark.parametrize("kind", pipeline.BUILDERS)
def test_what_holds_of_every_kind_is_checked_of_every_kind(kind: ResultKind) -> None:
    for act, rule in EVERYWHERE:
        assert rule in spoilt(kind, act), rule


@pytest.mark.parametrize(
    ("kind", "act", "rule"),
    [
        (ResultKind.FRAMES, put("NumberOfFrames", 3), Rule.PIXELS),
        (ResultKind.SEGMENTATION, put("Rows", 100), Rule.PIXELS),
        (ResultKind.FRAMES, put("PixelSpacing", ["0.1", "0.1"]), Rule.ATTRIBUTE),
        (ResultKind.PDF, put("EncapsulatedDocument", b"<html></html>"), Rule.ATTRIBUTE),
        (ResultKind.KEY_OBJECT, put("TextValue", "AI: UNCERTAIN.", "Key Object Description"), Rule.SUMMARY),
    ],
)
def test_what_holds_of_one_kind(kind: ResultKind, act: Callable[[Dataset], None], rule: Rule) -> None:
    assert rule in spoilt(kind, act)


@pytest.mark.parametrize("kind", [ResultKind.PRESENTATION_STATE, ResultKind.SEGMENTATION, ResultKind.KEY_OBJECT])
def test_an_object_that_says_look_here_needs_a_positive(kind: ResultKind) -> None:
    positive, negative = context(max_heatmap_px=1024), context("normal", max_heatmap_px=1024)
    (stranger,) = [each for each in every_kind(positive) if each.kind is kind]
    assert Rule.READS_POSITIVE in {flaw.rule for flaw in check.check_made([stranger], negative)}


@pytest.mark.parametrize(
    "act", [put("PatientName", "Secret^Name"), put("PatientID", "SECRET"), put("StudyID", "SECRET")]
)
def test_flaws_name_no_patient(act: Callable[[Dataset], None]) -> None:
    artifacts, of = results("pneumonia")
    artifacts = artifacts | {REPORT: broken(artifacts[REPORT], act)}
    with pytest.raises(check.UnsoundResultError, match="patient-and-study") as raised:
        check.require_sound(list(artifacts.values()), of)
    assert "secret" not in str(raised.value).lower()


def test_alternatives_differ_in_class_and_uid_only() -> None:
    of = context(**SMALL)
    whole = [build(of) for build in BUILD.values()]
    assert len(whole[1].alternatives) == 2
    assert check.check_made(whole, of) == []
    below = broken(whole[1].alternatives[0], removed(*GROUP, "Tracking Unique Identifier"))
    whole[1] = replace(whole[1], alternatives=(below, whole[1].alternatives[1]))
    assert [flaw.rule for flaw in check.check_made(whole, of)] == [Rule.ALTERNATIVE]
