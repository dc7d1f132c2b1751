"""Which radiographs may be judged: each rule a reason and a sentence for people, decided from what the header has.

A missing tag refuses nothing but a missing patient: archives are full of missing tags. The first broken rule is named,
so the order is from what the image is to whom it shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, uid

from cxr_node.config.schema import Admission, AgePolicy
from cxr_node.dicom.part10 import IMPLEMENTATION_CLASS_UID, PROCESSING_EQUIPMENT, PRODUCT
from cxr_node.dicom.read import age, projection
from cxr_node.dicom.read.age import Evidence, evidence
from cxr_node.dicom.read.header import Source
from cxr_node.domain import Precedent, Radiograph, Reason, View
from cxr_node.outcome import Rejected

SOP_CLASSES = (
    str(uid.ComputedRadiographyImageStorage), str(uid.DigitalXRayImageStorageForPresentation),
    str(uid.SecondaryCaptureImageStorage), str(uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage),
    str(uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage),
)  # fmt: skip
"""DX For Processing is not among them: its values are not meant for the eye, nor was the classifier trained on them."""
MODALITIES = ("CR", "DX", "RG")
"""RG: radiographic imaging (conventional film), as digitisers name it."""

# Image Type (PS3.3 C.7.6.1.1.2). Neither DERIVED nor SECONDARY alone is a fault in a department's eyes: a DX For
# Presentation image is DERIVED\PRIMARY by C.8.11.1.1.1 whenever the console processed it, an image that an archive
# compressed is DERIVED, and a radiograph kept as Secondary Capture is often DERIVED\SECONDARY. What they would not
# have read is a second picture made from the first: subtractions, bone suppression, reformatted slices, marked
# copies. Those say so in value 3 and later, in the derivation codes, or in words.
_REPROCESSED_TYPES = frozenset(
    {
        "AVERAGE", "BONE_SUPPRESSED", "BONE", "CAD", "DES", "DUAL_ENERGY", "LOCALIZER", "MAX_IP", "MIN_IP", "MPR",
        "OVERLAY", "REFORMATTED", "SCREEN SAVE", "SCREENSHOT", "SOFT_TISSUE", "STITCHED", "SUBTRACT", "SUBTRACTED",
        "SUBTRACTION", "TOMOSYNTHESIS", "VOLUME",
    }
)  # fmt: skip
_REPROCESSING_CODES = frozenset(
    {
        "113042", "113046", "113047", "113048", "113049", "113051", "113053", "113062",  # pixel by pixel operations
        "113072", "113073", "113074", "113075", "113076", "113077", "113078", "113079", "113090", "113097", "130403",
    }
)  # fmt: skip
"""Of PS3.16 CID 7203: reformatting, projections, subtraction, stitching, energy weighting, and Grad-CAM."""
_REPROCESSED_WORDS = (
    "bone suppress", "rib suppress", "dual energy", "subtraction", "tomosynthesis", "heatmap", "heat map",
)  # fmt: skip

MIN_SPREAD = 0.05
"""Of the full range, between the 1st and 99th percentile of an image that shows anything."""
MAX_SATURATED = 0.85
"""Share of pixels at the ends of the range; collimated plates with black borders reach 0.7."""
MIN_GRAY_LEVELS = 16
"""A radiograph has hundreds; drawings and test patterns have few."""
_SAMPLED_SIDE_PX = 256
_COLORS = frozenset(
    {"RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT", "HSV", "ARGB", "CMYK"}
)
_SENTENCES = {
    Reason.OWN_RESULT: "This is a result of this node, not a radiograph.",
    Reason.SOP_CLASS: "Only CR, DX For Presentation and Secondary Capture images are analysed.",
    Reason.MODALITY: "The modality is not radiography (CR, DX or RG).",
    Reason.DERIVED: "The image was computed from another one (subtraction, suppression, reformatting).",
    Reason.NO_PIXELS: "The object has no pixel data.",
    Reason.MULTI_FRAME: "The object is multi-frame; only single-frame radiographs are analysed.",
    Reason.COLOR: "The image is in color; only grayscale images are analysed.",
    Reason.IDENTITY_EMPTY: "The Patient ID is empty; the node never guesses whose image it is.",
    Reason.NOT_CHEST: "The body part is not the chest.",
    Reason.NOT_FRONTAL: "The view is not frontal (PA or AP).",
    Reason.TOO_SMALL: "The image has too few rows or columns.",
    Reason.TOO_LARGE: "The image has too many rows and columns.",
    Reason.IMPLAUSIBLE_PIXELS: "The image is empty, saturated or without contrast.",
}


def check_header(
    source: Source, population_age_years: tuple[float, float], rules: Admission, precedent: Precedent
) -> Rejected | None:
    """Refuse by the header alone.

    `population_age_years` : youngest and oldest age that the classifier may judge, completed years, both inclusive
    `precedent` : what is known of the study and series from earlier instances
    Returns the first broken rule, or None where the pixels may be looked at.
    """
    for reason, broken, seen in _header_rules(source, rules, precedent):
        if broken:
            conflict = reason is Reason.IDENTITY_CONFLICT
            sentence = _conflict(source, precedent) if conflict else _naming(_SENTENCES[reason], seen)
            return Rejected(reason=reason, sentence=sentence)
    ages = evidence(source.text)
    if rules.age_policy is AgePolicy.ENFORCE and any(_is_outside(found, population_age_years) for found in ages):
        sentence = f"The patient's age is outside the classifier's population ({_range(population_age_years)})."
        return Rejected(reason=Reason.AGE_OUTSIDE_POPULATION, sentence=f"{sentence[:-1]}: {_both(ages)}.")
    return None


def is_identity_clear(source: Source, precedent: Precedent) -> bool:
    """Whether there is no doubt whose image it is: some rules are broken before that is asked."""
    return bool(source.ref.patient_key) and not _contradicts(source, precedent) and not _is_own_result(source)


def is_earlier(source: Source, current: Source) -> bool:
    """Whether an image is of the same patient as another one, and of an earlier study.

    Issuer and birth date may be missing in one of them; where both have them they agree. Of the same day only the
    times can tell.
    """
    patient_id = source.text("PatientID")
    if not patient_id or patient_id != current.text("PatientID"):
        return False
    for keyword in ("IssuerOfPatientID", "PatientBirthDate"):
        one, other = source.text(keyword), current.text(keyword)
        if one and other and one != other:
            return False
    if source.ref.study_instance_uid == current.ref.study_instance_uid:
        return False
    then, now = source.text("StudyDate"), current.text("StudyDate")
    if then == now:
        return "" < source.text("StudyTime") < current.text("StudyTime")
    return "" < then < now


def check_pixels(radiograph: Radiograph) -> Rejected | None:
    """Refuse what shows nothing: constant, saturated, without contrast, or drawn with a handful of gray levels."""
    steps = tuple(max(1, side // _SAMPLED_SIDE_PX) for side in radiograph.pixels.shape)
    sample = np.sort(radiograph.pixels[:: steps[0], :: steps[1]], axis=None)  # about 256 x 256, ascending
    low, high = (_at(sample, share) for share in (0.01, 0.99))
    saturated = np.count_nonzero((sample <= 0.0) | (sample >= 1.0)) / sample.size
    levels = 1 + np.count_nonzero(np.diff(sample))
    if high - low >= MIN_SPREAD and saturated <= MAX_SATURATED and levels >= MIN_GRAY_LEVELS:
        return None
    seen = f"{saturated:.0%} black or white, {levels} gray levels, contrast {high - low:.0%}"
    return Rejected(reason=Reason.IMPLAUSIBLE_PIXELS, sentence=_naming(_SENTENCES[Reason.IMPLAUSIBLE_PIXELS], seen))


def _at(ascending: NDArray[np.float32], share: float) -> float:
    """Quantile of a sorted sample, as `np.quantile` interpolates it."""
    place, part = divmod(share * (len(ascending) - 1), 1.0)
    below, above = (float(ascending[min(int(place) + step, len(ascending) - 1)]) for step in (0, 1))
    return below + (above - below) * part


def remarks(source: Source, population_age_years: tuple[float, float], rules: Admission) -> tuple[str, ...]:
    """List what a reader of the result must know of what the header does not tell."""
    said = [remark for remark, _ in _age_remarks(source, population_age_years, rules)]
    if source.view is View.UNKNOWN:
        said.append("The header does not state the projection; a frontal view was assumed.")
    if projection.has_unknown_part(source.dataset):
        said.append("The header names a body part that the node does not recognize; a chest was assumed.")
    elif projection.body_part(source.dataset).is_chest is None:
        said.append("The header does not state the body part; a chest was assumed.")
    return tuple(said)


def cautions(source: Source, population_age_years: tuple[float, float], rules: Admission) -> tuple[str, ...]:
    """List the remarks that must stand in the picture itself, each in at most 60 characters."""
    return tuple(caution for _, caution in _age_remarks(source, population_age_years, rules))


def _age_remarks(
    source: Source, population_age_years: tuple[float, float], rules: Admission
) -> Iterator[tuple[str, str]]:
    """Remarks on the age, and what of them stands in the picture."""
    ages, made_for = evidence(source.text), _range(population_age_years)
    contradiction = age.contradiction(source.text)
    if not ages:
        yield (
            f"The patient's age is not known; the classifier was made for ages {made_for}.",
            f"Age not known: made for {made_for}.",
        )
    elif rules.age_policy is AgePolicy.WARN and any(_is_outside(found, population_age_years) for found in ages):
        outside = next(found for found in ages if _is_outside(found, population_age_years))
        yield (
            f"The patient's age is outside the population that the classifier was made for ({made_for}): "
            f"{_both(ages)}.",
            f"Age {outside.words}: made for {made_for}.",
        )
    if contradiction is not None:
        one, other = contradiction
        yield (
            f"The header contradicts itself about the patient's age: {_both(contradiction)}.",
            f"Age contradictory: {one.words} or {other.words}.",
        )


def _naming(sentence: str, seen: str) -> str:
    return f"{sentence[:-1]}: {seen}." if seen else sentence


def _range(population_age_years: tuple[float, float]) -> str:
    youngest, oldest = population_age_years
    return f"{youngest:g} to {oldest:g} years"


def _both(ages: tuple[Evidence, ...]) -> str:
    if len({found.words for found in ages}) == 1:
        return f"{ages[0].words}, from {' and '.join(found.place for found in ages)}"
    return ", but ".join(f"{found.words} from {found.place}" for found in ages)


def _header_rules(source: Source, rules: Admission, precedent: Precedent) -> Iterator[tuple[Reason, bool, str]]:
    """Each rule, whether it is broken, and the value that breaks it where that is no patient data."""
    rows, columns = source.integer("Rows"), source.integer("Columns")
    size = f"{rows} x {columns}"
    part, view = projection.body_part(source.dataset), projection.other_view(source.dataset)
    reprocessed = _reprocessed(source)
    yield Reason.OWN_RESULT, _is_own_result(source), ""
    yield Reason.SOP_CLASS, source.ref.sop_class_uid not in SOP_CLASSES, uid.UID(source.ref.sop_class_uid).name
    by_class = not source.modality and source.ref.sop_class_uid in SOP_CLASSES[:2]  # CR and DX say it themselves
    coded = f"Modality {source.modality}" if source.modality in projection.DEFINED_MODALITIES else ""
    named = coded if source.modality else "Modality is empty"
    yield Reason.MODALITY, source.modality not in MODALITIES and not by_class, named
    yield Reason.DERIVED, reprocessed is not None, reprocessed or ""
    yield Reason.NO_PIXELS, "PixelData" not in source.dataset, ""
    frames = source.integer("NumberOfFrames", 1)
    yield Reason.MULTI_FRAME, frames > 1, f"{frames} frames"
    shades = source.text("PhotometricInterpretation")
    in_color = source.integer("SamplesPerPixel", 1) > 1 or shades not in ("MONOCHROME1", "MONOCHROME2", "")
    seen = f"Photometric Interpretation {shades.upper()}" if shades.upper() in _COLORS else ""
    yield Reason.COLOR, in_color, seen
    yield Reason.IDENTITY_EMPTY, not source.ref.patient_key, ""
    yield Reason.IDENTITY_CONFLICT, _contradicts(source, precedent), ""
    yield Reason.NOT_CHEST, part.is_chest is False, part.seen
    yield Reason.NOT_FRONTAL, view is not None, view or ""
    yield Reason.TOO_SMALL, min(rows, columns) < rules.min_size_px, f"{size}, at least {rules.min_size_px} are needed"
    yield Reason.TOO_LARGE, rows * columns > rules.max_pixels, size


def _is_own_result(source: Source) -> bool:
    """The loop guard (reliability.md T35): archives keep Instance Creator and Contributing Equipment, not file meta."""
    return is_own(source.dataset)


def is_own(dataset: Dataset) -> bool:
    """Whether this node made an object."""
    meta = dataset.file_meta
    if IMPLEMENTATION_CLASS_UID in (meta.get("ImplementationClassUID"), dataset.get("InstanceCreatorUID")):
        return True
    for item in dataset.get("ContributingEquipmentSequence") or ():
        purposes = [str(code.get("CodeValue", "")) for code in item.get("PurposeOfReferenceCodeSequence") or ()]
        ours = str(item.get("ManufacturerModelName", "")).startswith(PRODUCT)
        if ours and purposes[:1] == [PROCESSING_EQUIPMENT]:
            return True
    return False


def _reprocessed(source: Source) -> str | None:
    """Tell what says that the image was made from another one; None where nothing does."""
    kinds = {part.strip() for part in source.text("ImageType").upper().split("\\")[2:]}
    if found := kinds & _REPROCESSED_TYPES:
        return f"Image Type {min(found)}"
    codes = {str(item.get("CodeValue")) for item in source.dataset.get("DerivationCodeSequence") or ()}
    if found := codes & _REPROCESSING_CODES:
        return f"Derivation Code Sequence {min(found)}"
    for name in ("Series Description", "Derivation Description"):
        words = source.text(name.replace(" ", "")).lower().replace("-", " ")
        if word := next((word for word in _REPROCESSED_WORDS if word in words), None):
            return f"{name} with {word!r}"
    return None


def _contradicts(source: Source, precedent: Precedent) -> bool:
    """Tell whether study or series were seen with another patient or study; an empty key was nobody's."""
    study = precedent.study_instance_uid_of_series
    return _is_of_another_patient(source, precedent) or bool(study and study != source.ref.study_instance_uid)


def _is_of_another_patient(source: Source, precedent: Precedent) -> bool:
    patient = precedent.patient_key_of_study
    return bool(patient and patient != source.ref.patient_key)


def _conflict(source: Source, precedent: Precedent) -> str:
    """Say what contradicts, the operator's way out, and what that leaves behind."""
    if _is_of_another_patient(source, precedent):
        what, whose = "The Patient ID differs from that of earlier images of the same study", "Patient ID"
    else:
        what, whose = "The study differs from that of earlier images of the same series", "study"
    return (
        f"{what}. If it was corrected, `cxr-node admit KEY` accepts it from now on, and the image is judged; "
        f"results of the earlier {whose} remain in the archive and must be removed there."
    )


def _is_outside(age: Evidence, population_age_years: tuple[float, float]) -> bool:
    youngest, oldest = population_age_years
    return not youngest <= math.floor(age.years) <= oldest
