"""What the header says of body part and projection: codes first, then words in the languages archives speak.

Knows no rule: it answers yes, no or nothing known, and what said so (`admission` decides). PS3.3 C.8.1.1, C.8.11.5
(View Position, View Code Sequence), C.7.6.1.1.1 (Patient Orientation), PS3.16 CID 4010 (views), CID 4031 (regions).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydicom import Dataset

from cxr_node.dicom import vocabulary
from cxr_node.dicom.readings import is_plain, raw, words
from cxr_node.domain import View

_SERIES_TEXTS = ("SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription")
_STUDY_TEXTS = ("StudyDescription", "RequestedProcedureDescription", "PerformedProcedureStepDescription")

_PA_CODES, _AP_CODES = frozenset({"272479007", "R-10214"}), frozenset({"399348003", "R-10206"})
_OTHER_VIEW_CODES = frozenset(
    {
        "399067008", "R-10228", "399173006", "R-10236", "399198007", "R-10232", "399260004", "399352003", "30730003",
        "R-10220", "260427002", "399182000", "399135007", "399006002", "399184004", "399356000", "399038007",
        "399236003", "399312000", "399059000", "399160007",
    }
)  # fmt: skip
"""Lateral, sagittal and oblique views."""

_CHEST_CODES = frozenset(
    {
        "816094009", "51185008", "T-D3000", "43799004", "39607008", "T-28000", "86598002", "416775004", "416550000",
        "417437006", "416319003", "416152001", "80891009", "72410000",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """What the header says of the body part.

    Attributes
    ----------
    is_chest : None where it says nothing that is understood
    seen : for people, the attribute and the word in it that decided; "" where there is none, or none to repeat
    """

    is_chest: bool | None
    seen: str = ""


def frontal_view(dataset: Dataset) -> View:
    """PA or AP as View Position, View Code Sequence or the words of the series tell it."""
    terms = words(dataset, "ViewPosition").split()
    codes = {code for code, _ in _codes(dataset, "ViewCodeSequence")}
    of_series = _words(dataset, _SERIES_TEXTS).split()
    for says_pa, says_ap in (
        ("pa" in terms, "ap" in terms),
        (bool(codes & _PA_CODES), bool(codes & _AP_CODES)),
        ("pa" in of_series, "ap" in of_series),
    ):
        if says_pa != says_ap:
            return View.PA if says_pa else View.AP
    return View.UNKNOWN


def other_view(dataset: Dataset) -> str | None:
    """Tell what in the header says that this is a lateral or oblique view; None where nothing does.

    A coded word for it is believed even where another tag says PA: a lateral view read as frontal gets a wrong
    verdict, a refused one is read by a person. Words count only where no tag tells the view, and the study's
    words only where they name nothing but a lateral view: one study has both.

    Returns
    -------
    Where it stands, and of coded attributes the term. Free text is not repeated: nobody knows whom else it names.
    """
    if term := vocabulary.VIEW_POSITIONS.search(raw(dataset, "ViewPosition").upper().replace("_", " ")):
        return f"View Position {term[0]}"
    if word := _sideways(words(dataset, "ViewPosition")):
        return f"View Position {word}"
    for code, meaning in _codes(dataset, "ViewCodeSequence"):
        if code in _OTHER_VIEW_CODES or (code not in _PA_CODES | _AP_CODES and _sideways(meaning)):
            return f"View Code Sequence {code}" if code in _OTHER_VIEW_CODES else "View Code Sequence"
    if (direction := _sagittal(dataset)) is not None:
        return f"Patient Orientation {direction}"
    if frontal_view(dataset) is not View.UNKNOWN:
        return None
    for place, keywords in (("the words of the series", _SERIES_TEXTS), ("the words of the study", _STUDY_TEXTS)):
        said = _words(dataset, keywords)
        if vocabulary.FRONTAL.search(said):
            return None
        if _sideways(said):
            return place
    return None


def body_part(dataset: Dataset) -> Part:
    """Tell whether the header says that this is a chest.

    Body Part Examined decides where it is understood, then Anatomic Region Sequence, then words of series and study.
    """
    stated, part = raw(dataset, "BodyPartExamined"), words(dataset, "BodyPartExamined")
    if part not in vocabulary.UNSPECIFIC_PARTS and any(char.isalpha() for char in part):
        if _names_chest(part):
            return Part(True)
        if (word := _other_part(part)) or is_plain(stated):  # other letters than ASCII may say anything
            named = word or (part if part in vocabulary.DEFINED_PARTS else None)
            return Part(False, f"Body Part Examined {named.upper()}" if named else "Body Part Examined")
    for code, meaning in _codes(dataset, "AnatomicRegionSequence"):
        if code in _CHEST_CODES:
            return Part(True)
        if (told := _told("Anatomic Region Sequence", meaning)) is not None:
            return told
    for place, keywords in (("the words of the series", _SERIES_TEXTS), ("the words of the study", _STUDY_TEXTS)):
        if (told := _told(place, _words(dataset, keywords))) is not None:
            return told
    return Part(None)


def has_unknown_part(dataset: Dataset) -> bool:
    """Tell whether Body Part Examined holds something in letters or words that are not understood."""
    part = words(dataset, "BodyPartExamined")
    return body_part(dataset).is_chest is None and part not in vocabulary.UNSPECIFIC_PARTS


def _told(place: str, said: str) -> Part | None:
    if _names_chest(said):
        return Part(True)
    return Part(False, place) if _other_part(said) else None


def _names_chest(said: str) -> bool:
    without_spine = not vocabulary.SPINE.search(said) or "chest" in said
    return bool(vocabulary.CHEST.search(vocabulary.NOT_THE_CHEST.sub(" ", said))) and without_spine


def _other_part(said: str) -> str | None:
    found = (
        vocabulary.OTHER_PARTS.search(said) or vocabulary.SPINE.search(said) or vocabulary.NOT_THE_CHEST.search(said)
    )
    return found[0] if found else None


def _sideways(said: str) -> str | None:
    """Find a word for a lateral or oblique view where there is none for a frontal one beside it."""
    found = vocabulary.LATERAL.search(said) or vocabulary.OBLIQUE.search(said)
    return found[0] if found and not vocabulary.FRONTAL.search(said) else None


def _sagittal(dataset: Dataset) -> str | None:
    """Tell which rows or columns run from front to back: then the beam ran from side to side (PS3.3 C.7.6.1.1.1)."""
    orientation = raw(dataset, "PatientOrientation").upper().split("\\")
    return next((part.strip()[:1] for part in orientation[:2] if part.strip()[:1] in ("A", "P")), None)


def _codes(dataset: Dataset, keyword: str) -> Iterable[tuple[str, str]]:
    for item in dataset.get(keyword) or ():
        yield raw(item, "CodeValue").strip(), words(item, "CodeMeaning", dataset)


def _words(dataset: Dataset, keywords: Iterable[str]) -> str:
    return " ".join(words(dataset, keyword) for keyword in keywords)
