"""The measurements for machines: rows, values, units and references, and what no field may be taken for."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage

from cxr_node import pipeline
from cxr_node.dicom.results import measurement_sr
from cxr_node.dicom.results.context import Context
from cxr_node.dicom.words import wording
from cxr_node.result_kinds import DICOM_KINDS, ResultKind
from tests import builders
from tests.dicom.contexts import CASES, UNCERTAIN, context, in_both_lungs, with_regions

PRESENT, ABSENT, UNDETERMINED = "52101004", "272519000", "373068000"
PNEUMONIA = "233604007"


def made(of: Context) -> Dataset:
    return dcmread(io.BytesIO(measurement_sr.build(of).content))


def code(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue) if "ConceptNameCodeSequence" in item else ""


def walk(node: Dataset) -> Iterator[Dataset]:
    for child in node.get("ContentSequence", ()):
        yield child
        yield from walk(child)


def only(node: Dataset, value: str) -> Dataset:
    """The one child with this concept."""
    (found,) = (item for item in node.ContentSequence if code(item) == value)
    return found


def group(document: Dataset) -> Dataset:
    return only(only(document, "126010"), "125007")


def evaluations(document: Dataset) -> dict[str, str]:
    container = only(document, "C0034375")
    return {
        code(item): item.ConceptCodeSequence[0].CodeValue if item.ValueType == "CODE" else item.TextValue
        for item in container.ContentSequence
    }


@pytest.mark.parametrize("case", CASES)
def test_the_tree_is_tid_1500_with_one_group(case: str) -> None:
    document, is_region = made(context(case)), case == "pneumonia"
    assert document.SOPClassUID == Comprehensive3DSRStorage
    assert code(document) == ("126000" if is_region else "C0034375")
    assert document.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    library = ["111028"] if is_region else []
    assert [code(item) for item in document.ContentSequence] == [
        "121049", "121005", "121012", "121013", "121014", "121015", "121016", "121058", *library, "126010", "C0034375",
    ]  # fmt: skip
    assert group(document).ContentTemplateSequence[0].TemplateIdentifier == ("1410" if is_region else "1501")
    containers = [document, *(item for item in walk(document) if item.ValueType == "CONTAINER")]
    assert {item.ContinuityOfContent for item in containers} == {"SEPARATE"}


@pytest.mark.parametrize("case", CASES)
def test_every_choice_says_the_same_under_a_uid_of_its_own(case: str) -> None:
    of = context(case)
    choices = measurement_sr.build(of).sop_class_choices
    assert [one.sop_class_uid for one in choices] == [
        Comprehensive3DSRStorage,
        ComprehensiveSRStorage,
        EnhancedSRStorage,
    ]
    assert {one.kind for one in choices} == {ResultKind.MEASUREMENTS}
    documents = [dcmread(io.BytesIO(one.content)) for one in choices]
    for one, document in zip(choices, documents, strict=True):
        assert document.SOPClassUID == document.file_meta.MediaStorageSOPClassUID == one.sop_class_uid
        assert document.SOPInstanceUID == document.file_meta.MediaStorageSOPInstanceUID == one.sop_instance_uid
        assert one.sop_instance_uid == of.instance_uid(ResultKind.MEASUREMENTS, one.sop_class_uid)
        del document.SOPClassUID, document.SOPInstanceUID
    assert documents[0] == documents[1] == documents[2]
    assert len({one.sop_instance_uid for one in choices} | {of.instance_uid(ResultKind.MEASUREMENTS)}) == 3
    assert measurement_sr.build(context(case)).sop_class_choices == choices


@pytest.mark.parametrize("kind", sorted(pipeline.BUILDERS.keys() - {ResultKind.MEASUREMENTS}))
def test_no_sibling_refers_to_measurements_that_may_go_as_another_sop_class(kind: ResultKind) -> None:
    of = replace(context(), kinds=frozenset(DICOM_KINDS))
    sibling = pipeline.BUILDERS[kind](of)
    assert sibling is not None
    for one in measurement_sr.build(of).sop_class_choices:
        assert one.sop_instance_uid.encode() not in sibling.content
    assert of.series_uid(ResultKind.MEASUREMENTS).encode() not in sibling.content


@pytest.mark.parametrize(
    ("case", "presence", "summary"),
    [
        ("pneumonia", PRESENT, "111242"),
        ("normal", ABSENT, "111241"),
        *((case, UNDETERMINED, None) for case in UNCERTAIN),
    ],
)
def test_every_coded_field_alone_tells_the_verdict(case: str, presence: str, summary: str | None) -> None:
    of = context(case)
    document = made(of)
    assert only(group(document), PNEUMONIA).ConceptCodeSequence[0].CodeValue == presence
    findings = [item for item in group(document).ContentSequence if code(item) == "121071"]
    assert [item.ConceptCodeSequence[0].CodeValue for item in findings] == [PNEUMONIA] * (presence == PRESENT)
    told = evaluations(document)
    assert told[PNEUMONIA] == presence
    assert told.get("111017") == summary
    assert told["121111"] == wording.summary(of.finding)


@pytest.mark.parametrize(("case", "percent"), [("pneumonia", "93.4"), ("normal", "3.1"), ("between", "52")])
def test_certainty_is_percent_of_pneumonia(case: str, percent: str) -> None:
    number = only(group(made(context(case))), "111012")
    assert number.MeasuredValueSequence[0].NumericValue == percent
    unit = number.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0]
    assert (unit.CodeValue, unit.CodingSchemeDesignator) == ("%", "UCUM")
    (modifier,) = number.ContentSequence
    assert (modifier.RelationshipType, code(modifier)) == ("HAS CONCEPT MOD", "121071")
    assert modifier.ConceptCodeSequence[0].CodeValue == PNEUMONIA


@pytest.mark.parametrize("case", ["views", "unlike"])
def test_no_number_stands_where_none_may_be_stated(case: str) -> None:
    rows = list(walk(made(context(case))))
    assert "111012" not in {code(item) for item in rows}
    assert "NUM" not in {item.ValueType for item in rows}


def points(document: Dataset) -> list[tuple[float, float]]:
    region = only(group(document), "111030")
    assert (region.ValueType, region.GraphicType) == ("SCOORD", "POLYLINE")
    (image,) = region.ContentSequence
    assert (image.RelationshipType, image.ValueType) == ("SELECTED FROM", "IMAGE")
    data = list(region.GraphicData)
    return list(zip(data[::2], data[1::2], strict=True))


def test_the_region_of_pneumonia_is_the_outline() -> None:
    of = context()
    (region,) = of.finding.heatmap.regions
    assert points(made(of)) == [pytest.approx(point, abs=1e-3) for point in region.outline]


def test_every_region_has_a_group_with_its_place_and_a_tracking_uid_of_its_own() -> None:
    of = in_both_lungs(context())
    groups = [item for item in only(made(of), "126010").ContentSequence if code(item) == "125007"]
    assert len(groups) == len(of.regions) == 3
    for number, (group_, region) in enumerate(zip(groups, of.regions, strict=True), 1):
        data = list(only(group_, "111030").GraphicData)
        assert np.reshape(data, (-1, 2)) == pytest.approx(np.asarray(region.outline), abs=1e-3)
        assert only(group_, "112039").TextValue == f"cxr_node pneumonia {number}"
        assert of.tracking_uid(number) == only(group_, "112040").UID
        assert only(group_, "121071").ConceptCodeSequence[0].CodeValue == PNEUMONIA
        assert ("111012" in [code(item) for item in group_.ContentSequence]) is (number == 1)  # of the radiograph
    assert len({of.tracking_uid(number) for number in (1, 2, 3)}) == 3
    assert [only(group_, "121106").TextValue for group_ in groups] == [
        "Where the network looked: right lower zone.",
        "Where the network looked: left upper and middle zones.",
        "Where the network looked: outside the lungs.",
    ]


def test_no_place_is_named_where_the_lungs_were_not_found() -> None:
    of = context()
    (region,) = of.regions
    of = with_regions(of, replace(region, place=None, zones=()))
    assert "121106" not in {code(item) for item in walk(made(of))}


def unoutlined() -> Context:
    """A PNEUMONIA where nothing stands out."""
    of = context()
    return with_regions(of)


@pytest.mark.parametrize("case", ["normal", *UNCERTAIN, "unoutlined"])
def test_where_no_region_is_claimed_there_is_nothing_to_draw(case: str) -> None:
    """OHIF shows the text of a document that is no Imaging Measurement Report, and prints names of items: all have one.

    An Imaging Measurement Report without a region it shows as a black viewport.
    """
    of = unoutlined() if case == "unoutlined" else context(case)
    document = made(of)
    assert "SCOORD" not in {item.ValueType for item in walk(document)}
    assert code(document) == "C0034375"
    assert all(code(item) for item in walk(document))
    (image, *_) = only(group(document), PNEUMONIA).ContentSequence
    assert (image.RelationshipType, image.ValueType) == ("INFERRED FROM", "IMAGE")
    assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == of.source.ref.sop_instance_uid


def test_the_picture_illustrates_the_region() -> None:
    of = context()
    for purpose in ("121200", "130401"):
        reference = only(group(made(of)), purpose).ReferencedSOPSequence[0]
        assert reference.ReferencedSOPInstanceUID == of.instance_uid(ResultKind.HEATMAP)


@pytest.mark.parametrize(("case", "settings"), [("normal", {"normal_heatmap": "map"}), ("between", {})])
def test_a_map_without_a_region_explains_the_answer(case: str, settings: dict[str, str]) -> None:
    of = context(case, **settings)
    (_, picture) = only(group(made(of)), PNEUMONIA).ContentSequence
    assert (picture.RelationshipType, code(picture)) == ("HAS PROPERTIES", "130401")
    assert picture.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == of.instance_uid(ResultKind.HEATMAP)


@pytest.mark.parametrize("case", ["normal", "views", "unlike"])
def test_a_picture_without_a_map_explains_nothing(case: str) -> None:
    assert not {"121200", "130401"} & {code(item) for item in walk(made(context(case)))}


def test_the_algorithm_states_its_thresholds_and_hashes() -> None:
    of = context()
    parameters = [item.TextValue for item in walk(made(of)) if code(item) == "111002"]
    assert parameters == [
        "threshold.rule_out=0.15",
        "threshold.report=0.85",
        f"calibration={of.finding.identity.calibration}",
        "spread=0.01",
        "spread.limit=0.2",
        "distance=0.3",
        "distance.limit=1",
        f"weights.sha256={of.finding.identity.weights_sha256}",
        f"config.sha256={of.finding.identity.config_sha256}",
    ]
    tracking = only(group(made(of)), "112040")
    assert of.tracking_uid() == tracking.UID


def test_the_procedure_is_the_source_s_if_it_is_coded() -> None:
    procedure = Dataset()
    procedure.CodeValue, procedure.CodingSchemeDesignator, procedure.CodeMeaning = (
        "RPCHEST",
        "99LOCAL",
        "Thorax Röntgen",
    )
    coded = made(context(dataset=builders.radiograph(ProcedureCodeSequence=[procedure])))
    assert only(coded, "121058").ConceptCodeSequence[0].CodeMeaning == "Thorax Röntgen"
    assert only(made(context()), "121058").ConceptCodeSequence[0].CodeValue == "363679005"


@pytest.mark.parametrize(("modality", "coded"), [("CR", "CR"), ("DX", "DX"), ("RG", "DX")])
def test_the_image_library_knows_the_image(modality: str, coded: str) -> None:
    document = made(context(dataset=builders.radiograph(Modality=modality)))
    (image,) = only(only(document, "111028"), "126200").ContentSequence
    assert only(image, "121139").ConceptCodeSequence[0].CodeValue == coded
    rows, columns = builders.chest().shape
    assert only(image, "110910").MeasuredValueSequence[0].NumericValue == rows
    assert only(image, "110911").MeasuredValueSequence[0].NumericValue == columns


@pytest.mark.parametrize("case", CASES)
def test_everything_referred_to_is_in_the_evidence(case: str) -> None:
    document = made(context(case))
    evidence = {
        member.ReferencedSOPInstanceUID
        for study in document.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for member in series.ReferencedSOPSequence
    }
    referred = {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in walk(document) if item.ValueType == "IMAGE"
    }
    assert referred <= evidence
