"""What the header says of body part and projection: codes first, then words in the languages archives speak.

Knows no rule: it answers yes, no or nothing known (`admission` decides). PS3.3 C.8.1.1, C.8.11.5 (View Position,
View Code Sequence), C.7.6.1.1.1 (Patient Orientation), PS3.16 CID 4010 (views), CID 4031 (regions).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from pydicom import Dataset

from cxr_node.dicom.part10 import quiet
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

# Terms of View Position that are no frontal chest view: CR's defined terms (lateral, lateral decubitus, oblique)
# and what else is met in the field. Decubitus is shot antero-posterior, but nobody trained on it.
_OTHER_VIEW_TERMS = re.compile(
    r"\b(LL|RL|L ?LAT|R ?LAT|LAT|LATERAL|LATERALE|SEITLICH|PROFIL|PERFIL|LLD|RLD|LLO|RLO|LAO|RAO|LPO|RPO|OBL\w*)\b"
)
_LATERAL_WORDS = re.compile(
    r"\b(lat|lateral|laterale|laterales|lateralis|lateralt|lateraal|latero|ll|seitlich\w*|seitl|profil\w*|perfil"
    r"|boczn\w*|bocn\w*|sidebilde|sidoprojektion|dwars\w*|zijdelings\w*|sivukuva|yan|боков\w*|側面|侧位)\b|側面|侧位"
)
_FRONTAL_WORDS = re.compile(
    r"\b(pa|ap|p a|a p|dv|vd|frontal\w*|face|posteroanterior\w*|anteroposterior\w*|postero|antero|frente|sagittal"
    r"|прям\w*|decubitus|dekubitus|\d ?(views?|v|vw|vues?|ebenen|planes|proj\w*|incidenc\w*|richtungen)"
    r"|two|zwei|deux|dos|due|both|beide\w*)\b|正面|正位"
)  # "decubitus" and "two views" say nothing sure, so they too keep a word from deciding

_CHEST_WORDS = re.compile(
    r"chest|thora[xck]|thorac|t[oó]ra[xcks]|\bcxr\b|\blungs?\b|pulm[oó]|poumon|polmon|brustkorb|borstkas|lunge"
    r"|klatk\w* piers|klp\b|hrudn|mellkas|keuhko|brostkorg|akciger|gogus|mediastin|rippenthorax"
    r"|груд|легк|胸|肺|흉부"
)
_SPINE_WORDS = re.compile(r"spine|wirbel|\bbws\b|rachis|columna|colonna|coluna|vertebr|rygg|pozvon|позвон")
_OTHER_PARTS = re.compile(
    r"\b(hand|wrist|finger|elbow|shoulder|clavicle|humerus|forearm|knee|ankle|(?<!\d )foot|toe|heel|leg|hips?|pelvis"
    r"|femur|tibia|abdomen|abd|kub|skull|sinus\w*|orbits?|jaw|mandible|neck|teeth|dental|breast|mammo\w*|spine"
    r"|\w+ spine|sacrum|coccyx|ribs?|sternum|scapula|extremity|skeleton|hands|knie|fuss|schulter|becken|hufte"
    r"|schadel|ellenbogen|sprunggelenk|oberarm|unterarm|handgelenk|wirbelsaule|\w+wirbels\w*|hws|lws|bws"
    r"|poignet|coude|epaule|genou|cheville|pied|bassin|crane|rachis|mano|muneca|codo|hombro|rodilla|tobillo"
    r"|pie|cadera|craneo|ginocchio|piede|spalla|bacino|cranio|joelho|quadril)\b"
)
_UNSPECIFIC_PARTS = frozenset({"", "UNKNOWN", "OTHER", "UNDEFINED", "DEFAULT", "GENERAL", "BODY", "WHOLEBODY", "TRUNK"})
_CHEST_CODES = frozenset(
    {
        "816094009", "51185008", "T-D3000", "43799004", "39607008", "T-28000", "86598002", "416775004", "416550000",
        "417437006", "416319003", "416152001", "80891009", "72410000",
    }
)  # fmt: skip


def frontal_view(dataset: Dataset) -> View:
    """PA or AP as View Position, View Code Sequence or the words of the series tell it."""
    terms = _plain(_value(dataset, "ViewPosition")).split()
    codes = {code for code, _ in _codes(dataset, "ViewCodeSequence")}
    words = " ".join(_plain(_value(dataset, keyword)) for keyword in _SERIES_TEXTS).split()
    for says_pa, says_ap in (
        ("pa" in terms, "ap" in terms),
        (bool(codes & _PA_CODES), bool(codes & _AP_CODES)),
        ("pa" in words, "ap" in words),
    ):
        if says_pa != says_ap:
            return View.PA if says_pa else View.AP
    return View.UNKNOWN


def is_other_view(dataset: Dataset) -> bool:
    """Tell whether the header says that this is a lateral or oblique view.

    A coded word for it is believed even where another tag says PA: a lateral view read as frontal gets a wrong
    verdict, a refused one is read by a person. Words count only where no tag tells the view, and the study's
    words only where they name nothing but a lateral view: one study has both.
    """
    if _OTHER_VIEW_TERMS.search(_value(dataset, "ViewPosition").upper().replace("_", " ")):
        return True
    if {code for code, _ in _codes(dataset, "ViewCodeSequence")} & _OTHER_VIEW_CODES:
        return True
    if _is_sagittal(dataset):
        return True
    if frontal_view(dataset) is not View.UNKNOWN:
        return False
    for keywords in (_SERIES_TEXTS, _STUDY_TEXTS):
        words = " ".join(_plain(_value(dataset, keyword)) for keyword in keywords)
        if _FRONTAL_WORDS.search(words):
            return False
        if _LATERAL_WORDS.search(words):
            return True
    return False


def is_chest(dataset: Dataset) -> bool | None:
    """Tell whether the header says that this is a chest; None where it says nothing of the body part.

    Body Part Examined decides, then Anatomic Region Sequence, then the words of series and study.
    """
    part = _value(dataset, "BodyPartExamined").strip().upper()
    if part not in _UNSPECIFIC_PARTS:
        return _names_chest(_plain(part))
    for code, meaning in _codes(dataset, "AnatomicRegionSequence"):
        if code in _CHEST_CODES:
            return True
        if (told := _told(_plain(meaning))) is not None:
            return told
    for keywords in (_SERIES_TEXTS, _STUDY_TEXTS):
        told = _told(" ".join(_plain(_value(dataset, keyword)) for keyword in keywords))
        if told is not None:
            return told
    return None


def _told(words: str) -> bool | None:
    if _names_chest(words):
        return True
    return False if _OTHER_PARTS.search(words) or _SPINE_WORDS.search(words) else None


def _names_chest(words: str) -> bool:
    without_spine = not _SPINE_WORDS.search(words) or "chest" in words
    return bool(_CHEST_WORDS.search(words)) and without_spine


def _is_sagittal(dataset: Dataset) -> bool:
    """Tell whether rows run from front to back: then the beam ran from side to side (PS3.3 C.7.6.1.1.1)."""
    orientation = _value(dataset, "PatientOrientation").upper().split("\\")
    return any(direction.strip()[:1] in ("A", "P") for direction in orientation[:2])


def _codes(dataset: Dataset, keyword: str) -> Iterable[tuple[str, str]]:
    for item in dataset.get(keyword) or ():
        yield _value(item, "CodeValue").strip(), _value(item, "CodeMeaning")


def _value(dataset: Dataset, keyword: str) -> str:
    with quiet():
        value = dataset.get(keyword)
    if value is None:
        return ""
    return str(value) if isinstance(value, str) else "\\".join(str(part) for part in _listed(value))


def _listed(value: object) -> Iterable[object]:
    return value if isinstance(value, Iterable) else (value,)


def _plain(text: str) -> str:
    """Lower case, without accents, punctuation as spaces: "Thorax p.a." is "thorax p a"."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    letters = "".join(char for char in decomposed if not unicodedata.combining(char))
    return " ".join(re.sub(r"[\W_]+", " ", letters).split())
