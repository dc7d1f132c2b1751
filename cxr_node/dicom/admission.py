"""Which radiographs may be judged: each rule a reason and a sentence for people, decided from what the header has.

Knows no ledger and no network. A missing tag refuses nothing but a missing patient: archives are full of missing
tags. The first rule that is broken is the one that is told, so the order is from what it is to whom it shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from cxr_node.config import Admission, AgePolicy
from cxr_node.dicom import projection
from cxr_node.dicom.header import Source
from cxr_node.dicom.origin import IMPLEMENTATION_CLASS_UID, PROCESSING_EQUIPMENT, PRODUCT
from cxr_node.domain import Precedent, Radiograph, Reason, Rejected, View

SOP_CLASSES = (
    str(ComputedRadiographyImageStorage),
    str(DigitalXRayImageStorageForPresentation),
    str(SecondaryCaptureImageStorage),
    str(MultiFrameGrayscaleByteSecondaryCaptureImageStorage),
    str(MultiFrameGrayscaleWordSecondaryCaptureImageStorage),
)
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
    "bone suppress",
    "rib suppress",
    "dual energy",
    "subtraction",
    "tomosynthesis",
    "heatmap",
    "heat map",
)

MIN_SPREAD = 0.05
"""Of the full range, between the 1st and 99th percentile of an image that shows anything."""
MAX_SATURATED = 0.85
"""Share of pixels at the ends of the range; collimated plates with black borders reach 0.7."""
MIN_GRAY_LEVELS = 16
"""A radiograph has hundreds; drawings and test patterns have few."""
_SAMPLED_SIDE_PX = 256

_SENTENCES = {
    Reason.OWN_RESULT: "This is a result of this node, not a radiograph.",
    Reason.SOP_CLASS: "Only CR, DX For Presentation and Secondary Capture images are analysed.",
    Reason.MODALITY: "The modality is not radiography (CR, DX or RG).",
    Reason.DERIVED: "The image was computed from another one (subtraction, suppression, reformatting).",
    Reason.NO_PIXELS: "The object has no pixel data.",
    Reason.MULTI_FRAME: "The object has several frames; only single radiographs are analysed.",
    Reason.COLOR: "The image is in color; only gray images are analysed.",
    Reason.IDENTITY_EMPTY: "The Patient ID is empty; the node never guesses whose image it is.",
    Reason.IDENTITY_CONFLICT: "Patient or study differ from those of earlier images of the same study or series.",
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

    Parameters
    ----------
    population_age_years : youngest and oldest age that the classifier may judge, completed years, both inclusive
    precedent : what is known of the study and series from earlier instances

    Returns
    -------
    The first broken rule, or None where the pixels may be looked at.
    """
    reason = next((reason for reason, broken in _header_rules(source, rules, precedent) if broken), None)
    if reason is not None:
        return Rejected(reason=reason, sentence=_SENTENCES[reason])
    if rules.age_policy is AgePolicy.ENFORCE and _is_outside(source.age_years, population_age_years):
        youngest, oldest = population_age_years
        sentence = f"The patient's age is outside the classifier's population ({youngest:g} to {oldest:g} years)."
        return Rejected(reason=Reason.AGE_OUTSIDE_POPULATION, sentence=sentence)
    return None


def is_identity_clear(source: Source, precedent: Precedent) -> bool:
    """Whether there is no doubt whose image it is: some rules are broken before that is asked."""
    return bool(source.ref.patient_key) and not _contradicts(source, precedent) and not _is_own_result(source)


def check_pixels(radiograph: Radiograph) -> Rejected | None:
    """Refuse what shows nothing: constant, saturated, without contrast, or drawn with a handful of gray levels."""
    steps = tuple(max(1, side // _SAMPLED_SIDE_PX) for side in radiograph.pixels.shape)
    sample = np.sort(radiograph.pixels[:: steps[0], :: steps[1]], axis=None)  # about 256 x 256, ascending
    low, high = (_at(sample, share) for share in (0.01, 0.99))
    saturated = np.count_nonzero((sample <= 0.0) | (sample >= 1.0)) / sample.size
    levels = 1 + np.count_nonzero(np.diff(sample))
    if high - low >= MIN_SPREAD and saturated <= MAX_SATURATED and levels >= MIN_GRAY_LEVELS:
        return None
    return Rejected(reason=Reason.IMPLAUSIBLE_PIXELS, sentence=_SENTENCES[Reason.IMPLAUSIBLE_PIXELS])


def _at(ascending: NDArray[np.float32], share: float) -> float:
    """Quantile of a sorted sample, as `np.quantile` interpolates it."""
    place, part = divmod(share * (len(ascending) - 1), 1.0)
    below, above = (float(ascending[min(int(place) + step, len(ascending) - 1)]) for step in (0, 1))
    return below + (above - below) * part


def remarks(source: Source, population_age_years: tuple[float, float], rules: Admission) -> tuple[str, ...]:
    """List what a reader of the result must know of what the header does not tell."""
    youngest, oldest = population_age_years
    said = []
    if source.age_years is None:
        said.append(
            f"The patient's age is not known: the classifier was made for ages {youngest:g} to {oldest:g} years."
        )
    elif rules.age_policy is AgePolicy.WARN and _is_outside(source.age_years, population_age_years):
        said.append(
            f"The patient's age is outside the population that the classifier was made for "
            f"({youngest:g} to {oldest:g} years)."
        )
    if source.view is View.UNKNOWN:
        said.append("The header does not tell the projection: a frontal view was assumed.")
    if projection.is_chest(source.dataset) is None:
        said.append("The header does not tell the body part: a chest was assumed.")
    return tuple(said)


def _header_rules(source: Source, rules: Admission, precedent: Precedent) -> Iterator[tuple[Reason, bool]]:
    rows, columns = source.integer("Rows"), source.integer("Columns")
    yield Reason.OWN_RESULT, _is_own_result(source)
    yield Reason.SOP_CLASS, source.ref.sop_class_uid not in SOP_CLASSES
    yield Reason.MODALITY, not _is_radiography(source)
    yield Reason.DERIVED, _is_reprocessed(source)
    yield Reason.NO_PIXELS, "PixelData" not in source.dataset
    yield Reason.MULTI_FRAME, source.integer("NumberOfFrames", 1) > 1
    yield Reason.COLOR, source.integer("SamplesPerPixel", 1) > 1 or _is_color(source)
    yield Reason.IDENTITY_EMPTY, not source.ref.patient_key
    yield Reason.IDENTITY_CONFLICT, _contradicts(source, precedent)
    yield Reason.NOT_CHEST, projection.is_chest(source.dataset) is False
    yield Reason.NOT_FRONTAL, projection.is_other_view(source.dataset)
    yield Reason.TOO_SMALL, min(rows, columns) < rules.min_size_px
    yield Reason.TOO_LARGE, rows * columns > rules.max_pixels


def _is_own_result(source: Source) -> bool:
    """The loop guard (FAULTS T35); Instance Creator and Contributing Equipment survive archives, file meta does not."""
    meta = source.dataset.file_meta
    if IMPLEMENTATION_CLASS_UID in (meta.get("ImplementationClassUID"), source.dataset.get("InstanceCreatorUID")):
        return True
    return any(
        _purpose(item) == PROCESSING_EQUIPMENT and str(item.get("ManufacturerModelName", "")).startswith(PRODUCT)
        for item in source.dataset.get("ContributingEquipmentSequence") or ()
    )


def _purpose(equipment: Dataset) -> str:
    codes = equipment.get("PurposeOfReferenceCodeSequence") or ()
    return next((str(code.get("CodeValue", "")) for code in codes), "")


def _is_radiography(source: Source) -> bool:
    """A CR or DX class says so itself where Modality is missing; a Secondary Capture may be anything."""
    return source.modality in MODALITIES or (not source.modality and source.ref.sop_class_uid in SOP_CLASSES[:2])


def _is_reprocessed(source: Source) -> bool:
    kinds = {part.strip() for part in source.text("ImageType").upper().split("\\")[2:]}
    codes = {item.get("CodeValue") for item in source.dataset.get("DerivationCodeSequence") or ()}
    words = f"{source.text('SeriesDescription')} {source.text('DerivationDescription')}".lower().replace("-", " ")
    said = any(word in words for word in _REPROCESSED_WORDS)
    return bool(kinds & _REPROCESSED_TYPES or codes & _REPROCESSING_CODES or said)


def _is_color(source: Source) -> bool:
    return source.text("PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2", "")


def _contradicts(source: Source, precedent: Precedent) -> bool:
    """Tell whether study or series were seen with another patient or study; an empty key was nobody's."""
    patient, study = precedent.patient_key_of_study, precedent.study_instance_uid_of_series
    return bool(patient and patient != source.ref.patient_key) or bool(study and study != source.ref.study_instance_uid)


def _is_outside(age_years: float | None, population_age_years: tuple[float, float]) -> bool:
    youngest, oldest = population_age_years
    return age_years is not None and not youngest <= math.floor(age_years) <= oldest
