"""Every rule of admission: one radiograph that is let in and one that is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForProcessing,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from cxr_node.config.schema import Admission, AgePolicy
from cxr_node.dicom import part10
from cxr_node.dicom.pixels import pixels
from cxr_node.dicom.read import admission, header
from cxr_node.domain import Precedent, Radiograph, Reason, View
from cxr_node.outcome import Rejected
from tests import builders
from tests.builders import chest, radiograph
from tests.shared import shared

POPULATION = (1.0, 5.0)
NOWHERE = dict.fromkeys(("ViewPosition", "ViewCodeSequence", "PatientOrientation", "SeriesDescription"))
NO_PART = dict.fromkeys(("BodyPartExamined", "AnatomicRegionSequence", "SeriesDescription", "StudyDescription"))
NO_AGE = dict.fromkeys(("PatientAge", "PatientBirthDate"))
pytestmark = pytest.mark.filterwarnings("ignore:Invalid value:UserWarning")


def source(**overrides: Any) -> header.Source:
    found = header.read(builders.part10(radiograph(**overrides)))
    assert isinstance(found, header.Source)
    return found


def reason(precedent: Precedent | None = None, rules: Admission | None = None, **overrides: Any) -> Reason | None:
    found = admission.check_header(source(**overrides), POPULATION, rules or Admission(), precedent or Precedent())
    assert found is None or (found.sentence.endswith(".") and "TEST-0001" not in found.sentence)
    return found.reason if found else None


def equipment(model_name: str) -> Dataset:
    item = Dataset()
    item.ManufacturerModelName = model_name
    item.PurposeOfReferenceCodeSequence = [code(part10.PROCESSING_EQUIPMENT, "DCM")]
    return item


def code(value: str, scheme: str = "SCT", meaning: str = "x") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"SOPClassUID": ComputedRadiographyImageStorage, "Modality": "CR"},
        {"SOPClassUID": ComputedRadiographyImageStorage, "Modality": None},
        {"SOPClassUID": SecondaryCaptureImageStorage, "Modality": "RG"},
        {"SOPClassUID": MultiFrameGrayscaleWordSecondaryCaptureImageStorage, "NumberOfFrames": "1"},
        {"ImageType": None},
        {"ImageType": ["DERIVED", "PRIMARY"]},
        {"ImageType": ["DERIVED", "SECONDARY", "POST_PROCESSED"]},
        {"DerivationCodeSequence": [code("113040", "DCM", "Lossy Compression")]},
        {**NOWHERE, **NO_PART, **NO_AGE},
    ],
)
def test_radiographs_of_a_child_are_admitted(overrides: dict[str, Any]) -> None:
    assert reason(**overrides) is None


@pytest.mark.parametrize(
    ("expected", "overrides"),
    [
        (Reason.SOP_CLASS, {"SOPClassUID": CTImageStorage, "Modality": "CT"}),
        (Reason.SOP_CLASS, {"SOPClassUID": DigitalXRayImageStorageForProcessing}),
        (Reason.MODALITY, {"SOPClassUID": SecondaryCaptureImageStorage, "Modality": "OT"}),
        (Reason.MODALITY, {"SOPClassUID": SecondaryCaptureImageStorage, "Modality": None}),
        (Reason.MODALITY, {"Modality": "MG"}),
        (Reason.DERIVED, {"ImageType": ["DERIVED", "PRIMARY", "BONE_SUPPRESSED"]}),
        (Reason.DERIVED, {"DerivationCodeSequence": [code("113062", "DCM", "Pixel by pixel subtraction")]}),
        (Reason.DERIVED, {"SeriesDescription": "Chest PA Bone-Suppressed"}),
        (Reason.NO_PIXELS, {"PixelData": None}),
        (Reason.MULTI_FRAME, {"NumberOfFrames": "2"}),
        (Reason.COLOR, {"SamplesPerPixel": 3}),
        (Reason.COLOR, {"PhotometricInterpretation": "PALETTE COLOR"}),
        (Reason.IDENTITY_EMPTY, {"PatientID": ""}),
        (Reason.IDENTITY_EMPTY, {"PatientID": None}),
        (Reason.TOO_SMALL, {"Rows": 100}),
        (Reason.TOO_LARGE, {"Rows": 20_000, "Columns": 20_000}),
    ],
)
def test_what_is_no_single_gray_radiograph_is_refused(expected: Reason, overrides: dict[str, Any]) -> None:
    assert reason(**overrides) is expected


@pytest.mark.parametrize(
    ("overrides", "seen"),
    [
        ({"SOPClassUID": CTImageStorage, "Modality": "CT"}, "CT Image Storage"),
        ({"Modality": "MG"}, "Modality MG"),
        ({"ImageType": ["DERIVED", "PRIMARY", "BONE_SUPPRESSED"]}, "Image Type BONE_SUPPRESSED"),
        ({"NumberOfFrames": "2"}, "2 frames"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
        ({"BodyPartExamined": "HAND"}, "Body Part Examined HAND"),
        ({"BodyPartExamined": "HEAD"}, "Body Part Examined HEAD"),
        ({"ViewPosition": "LL"}, "View Position LL"),
        ({"PatientOrientation": ["A", "F"]}, "Patient Orientation A"),
        ({"Rows": 100}, "100 x 288"),
        ({"Rows": 20_000, "Columns": 20_000}, "20000 x 20000"),
        ({"PatientAge": "003D", "PatientBirthDate": None}, "3 days, from Patient's Age"),
    ],
)
def test_a_refusal_names_the_value_that_was_seen(overrides: dict[str, Any], seen: str) -> None:
    found = admission.check_header(source(**overrides), POPULATION, Admission(), Precedent())
    assert found is not None
    assert seen in found.sentence


@pytest.mark.parametrize(
    "overrides",
    [
        {"BodyPartExamined": "MEIER^HANS"},
        {"Modality": "MEIER 4711"},
        {"Modality": "MEIER"},
        {**NO_PART, "StudyDescription": "Knee of Meier 4711"},
        {**NOWHERE, "SeriesDescription": "lateral Meier 4711"},
        {"ViewPosition": "LL MEIER 4711"},
        {"PhotometricInterpretation": "MEIER"},
    ],
)
def test_a_refusal_repeats_nothing_that_may_name_a_person(overrides: dict[str, Any]) -> None:
    found = admission.check_header(source(**overrides), POPULATION, Admission(), Precedent())
    assert found is not None
    assert "meier" not in found.sentence.lower()
    assert "4711" not in found.sentence


def test_own_results_are_never_processed() -> None:
    ours, others = equipment(f"{part10.PRODUCT} pneumonia-pediatric"), equipment("Other AI")
    assert reason(ContributingEquipmentSequence=[others, ours]) is Reason.OWN_RESULT
    assert reason(ContributingEquipmentSequence=[others]) is None
    assert reason(InstanceCreatorUID=part10.IMPLEMENTATION_CLASS_UID) is Reason.OWN_RESULT
    written_by_us = source()
    written_by_us.dataset.file_meta.ImplementationClassUID = part10.IMPLEMENTATION_CLASS_UID
    refused = admission.check_header(written_by_us, POPULATION, Admission(), Precedent())
    assert refused is not None
    assert refused.reason is Reason.OWN_RESULT


def test_identity_must_stay_the_same_within_study_and_series() -> None:
    first = source().ref
    same = Precedent(patient_key_of_study=first.patient_key, study_instance_uid_of_series=first.study_instance_uid)
    assert reason(same) is None
    assert reason(same, PatientID="OTHER") is Reason.IDENTITY_CONFLICT
    assert reason(same, IssuerOfPatientID="OTHER") is None  # added by one archive and not by another
    assert reason(Precedent(study_instance_uid_of_series="1.2.3")) is Reason.IDENTITY_CONFLICT
    assert reason(Precedent(patient_key_of_study="")) is None


@pytest.mark.parametrize(
    ("expected", "overrides"),
    [
        (None, {"BodyPartExamined": "THORAX"}),
        (None, {"BodyPartExamined": "LUNG"}),
        (None, {"BodyPartExamined": "CHESTABDOMEN"}),
        (None, {"BodyPartExamined": "TÓRAX", "SpecificCharacterSet": "ISO_IR 100"}),
        (None, {**NO_PART}),
        (None, {**NO_PART, "BodyPartExamined": "UNKNOWN"}),
        (None, {**NO_PART, "AnatomicRegionSequence": [code("51185008", meaning="Thoracic structure")]}),
        (None, {**NO_PART, "StudyDescription": "Torax AP"}),
        (None, {**NO_PART, "StudyDescription": "Rx. Tórax frente"}),
        (None, {**NO_PART, "StudyDescription": "Thorax p.a. im Stehen"}),
        (None, {**NO_PART, "StudyDescription": "Ribs and chest"}),
        (None, {**NO_PART, "StudyDescription": "No Finding"}),
        (None, {**NO_PART, "StudyDescription": "Wall column 6 foot"}),
        (Reason.NOT_CHEST, {"BodyPartExamined": "HAND"}),
        (Reason.NOT_CHEST, {"BodyPartExamined": "MANO"}),
        (Reason.NOT_CHEST, {"BodyPartExamined": "TSPINE"}),
        (Reason.NOT_CHEST, {"BodyPartExamined": "THORACIC SPINE"}),
        (Reason.NOT_CHEST, {**NO_PART, "AnatomicRegionSequence": [code("72696002", meaning="Knee")]}),
        (Reason.NOT_CHEST, {**NO_PART, "StudyDescription": "XR Knee 2 views"}),
        (Reason.NOT_CHEST, {**NO_PART, "StudyDescription": "BWS seitlich"}),
        (Reason.NOT_CHEST, {**NO_PART, "SeriesDescription": "Abdomen supine"}),
        (Reason.NOT_CHEST, {**NO_PART, "ProtocolName": "Lendenwirbelsäule ap"}),
    ],
)
def test_body_part(expected: Reason | None, overrides: dict[str, Any]) -> None:
    assert reason(**overrides) is expected


@pytest.mark.parametrize(
    ("expected", "overrides"),
    [
        (None, {"StudyDescription": "Chest PA and lateral"}),
        (None, {**NOWHERE, "StudyDescription": "Chest PA and lateral"}),
        (None, {**NOWHERE, "StudyDescription": "Thorax in 2 Ebenen, seitlich und pa"}),
        (None, {**NOWHERE, "SeriesDescription": "Chest left lateral decubitus"}),
        (None, {**NOWHERE, "SeriesDescription": "Bilateral infiltrates?"}),
        (None, {**NOWHERE, "SeriesDescription": "Chest AP portable"}),
        (None, {**NOWHERE, "PatientOrientation": ["L", "F"]}),
        (None, {**NOWHERE, "ViewCodeSequence": [code("399348003", meaning="antero-posterior")]}),
        (None, {"ViewPosition": "AP SUPINE"}),
        (Reason.NOT_FRONTAL, {"ViewPosition": "LL"}),
        (Reason.NOT_FRONTAL, {"ViewPosition": "RL"}),
        (Reason.NOT_FRONTAL, {"ViewPosition": "LLD"}),
        (Reason.NOT_FRONTAL, {"ViewPosition": "LATERAL"}),
        (Reason.NOT_FRONTAL, {"ViewPosition": "LEFT_LATERAL"}),
        (Reason.NOT_FRONTAL, {"ViewPosition": "RAO"}),
        (Reason.NOT_FRONTAL, {"PatientOrientation": ["A", "F"]}),
        (Reason.NOT_FRONTAL, {"PatientOrientation": ["P", "F"]}),
        (Reason.NOT_FRONTAL, {"PatientOrientation": ["PL", "F"], "ViewPosition": None}),
        (Reason.NOT_FRONTAL, {**NOWHERE, "ViewCodeSequence": [code("399173006", meaning="left lateral")]}),
        (Reason.NOT_FRONTAL, {**NOWHERE, "ViewCodeSequence": [code("R-10236", "SRT", "left lateral")]}),
        (Reason.NOT_FRONTAL, {**NOWHERE, "SeriesDescription": "Chest LAT"}),
        (Reason.NOT_FRONTAL, {**NOWHERE, "SeriesDescription": "Thorax seitlich"}),
        (Reason.NOT_FRONTAL, {**NOWHERE, "ProtocolName": "Thorax profil gauche"}),
        (Reason.NOT_FRONTAL, {**NOWHERE, "SeriesDescription": "Tórax perfil"}),
        (Reason.NOT_FRONTAL, {**NOWHERE, "ProtocolName": "Torace LL"}),
        (Reason.NOT_FRONTAL, {**NOWHERE, "StudyDescription": "Chest lateral only"}),
    ],
)
def test_projection(expected: Reason | None, overrides: dict[str, Any]) -> None:
    assert reason(**overrides) is expected


def test_words_in_other_scripts() -> None:
    lateral = {**NOWHERE, "SpecificCharacterSet": "ISO_IR 192", "SeriesDescription": "胸部 側面"}
    assert reason(**lateral) is Reason.NOT_FRONTAL
    assert reason(**{**lateral, "SeriesDescription": "боковая проекция"}) is Reason.NOT_FRONTAL
    part = {**NO_PART, "SpecificCharacterSet": "ISO_IR 192", "BodyPartExamined": None}
    assert reason(**part, ProtocolName="органы грудной клетки") is None


@pytest.mark.parametrize(
    ("overrides", "view"),
    [
        ({}, View.PA),
        ({"ViewPosition": "AP"}, View.AP),
        ({**NOWHERE, "ViewCodeSequence": [code("272479007")]}, View.PA),
        ({**NOWHERE, "ViewCodeSequence": [code("R-10206", "SRT")]}, View.AP),
        ({**NOWHERE, "SeriesDescription": "view: PA"}, View.PA),
        ({**NOWHERE, "SeriesDescription": "PA or AP"}, View.UNKNOWN),
        ({**NOWHERE}, View.UNKNOWN),
    ],
)
def test_frontal_view_as_told(overrides: dict[str, Any], view: View) -> None:
    assert source(**overrides).view is view


@pytest.mark.parametrize(
    ("age", "policy", "refused", "remarked"),
    [
        ("001Y", AgePolicy.ENFORCE, False, False),
        ("005Y", AgePolicy.ENFORCE, False, False),
        ("071M", AgePolicy.ENFORCE, False, False),
        ("072M", AgePolicy.ENFORCE, True, False),
        ("011M", AgePolicy.ENFORCE, True, False),
        ("064Y", AgePolicy.ENFORCE, True, False),
        ("064Y", AgePolicy.WARN, False, True),
        ("064Y", AgePolicy.IGNORE, False, False),
        ("64", AgePolicy.ENFORCE, False, True),
        (None, AgePolicy.ENFORCE, False, True),
        (None, AgePolicy.IGNORE, False, True),
    ],
)
def test_age_policy(age: str | None, policy: AgePolicy, refused: bool, remarked: bool) -> None:
    rules = Admission(age_policy=policy)
    overrides = {"PatientBirthDate": None, "PatientAge": age}
    assert (reason(rules=rules, **overrides) is Reason.AGE_OUTSIDE_POPULATION) is refused
    assert bool(admission.remarks(source(**overrides), POPULATION, rules)) is remarked


def test_age_at_the_birthday_comes_from_dates() -> None:
    overrides = {"PatientAge": None, "PatientBirthDate": "20180602"}
    assert reason(**overrides, StudyDate="20240601") is None
    assert reason(**overrides, StudyDate="20240602") is Reason.AGE_OUTSIDE_POPULATION


def test_what_the_header_does_not_tell_is_remarked() -> None:
    assert admission.remarks(source(), POPULATION, Admission()) == ()
    said = admission.remarks(source(**(NOWHERE | NO_AGE | NO_PART)), POPULATION, Admission())
    assert [word for word in ("age", "projection", "body part") if any(word in line for line in said)] == [
        "age", "projection", "body part",
    ]  # fmt: skip


def picture(values: np.ndarray[Any, Any]) -> Radiograph:
    return Radiograph(pixels=values.astype(np.float32), pixel_aspect=1.0, view=View.PA, pixel_digest="")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("black", np.zeros((300, 300))),
        ("white", np.ones((300, 300))),
        ("gray", np.full((300, 300), 0.5)),
        ("faint", 0.5 + 0.01 * np.sin(np.arange(90_000) / 50).reshape(300, 300)),
        ("saturated", np.where(np.arange(90_000).reshape(300, 300) % 300 < 280, 1.0, 0.3)),
        ("drawing", (np.arange(90_000).reshape(300, 300) // 60 % 5 + 1) / 7),
    ],
)
def test_pictures_that_show_nothing_are_refused(name: str, values: np.ndarray[Any, Any]) -> None:
    refused = admission.check_pixels(picture(values))
    assert refused is not None
    assert refused.reason is Reason.IMPLAUSIBLE_PIXELS


def test_plausible_pictures_are_admitted() -> None:
    assert admission.check_pixels(picture(chest() / 4095)) is None
    collimated = np.zeros((600, 600))
    collimated[100:420, 100:388] = chest() / 4095
    assert admission.check_pixels(picture(collimated)) is None


@pytest.mark.parametrize("size", [1, 2, 7, 100, 4096])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99, 1.0])
def test_the_quantile_of_a_sorted_sample_is_numpys(size: int, share: float) -> None:
    ascending = np.sort(np.random.default_rng(size).random(size, dtype=np.float32))
    assert admission._at(ascending, share) == pytest.approx(float(np.quantile(ascending, share)), abs=1e-7)


@pytest.mark.shared
def test_real_radiographs_get_a_coded_answer() -> None:
    answers: dict[str, Reason | None] = {}
    for path in shared("dicom").glob("*.dcm"):
        found = header.read(path.read_bytes())
        assert not isinstance(found, Rejected)
        refused = admission.check_header(found, POPULATION, Admission(), Precedent())
        answers[path.stem] = refused.reason if refused else None
        assert admission.check_pixels(pixels.decode(found, Admission())) is None
    assert answers == {
        "cr_8bit_jpeg_invalid_age": None,
        "cr_philips_mono1_15bit_j2k": Reason.AGE_OUTSIDE_POPULATION,
        "dx_in_sc_class_no_view": None,
    }
