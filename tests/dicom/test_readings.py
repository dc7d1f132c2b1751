"""Body part and projection in the letters and languages of archives, in the set that the object names or in another."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom import Dataset
from pydicom.charset import encode_string
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from cxr_node.config.schema import Admission
from cxr_node.dicom.read import admission, character_sets, header
from cxr_node.domain import Precedent, Reason
from tests.builders import part10, radiograph

POPULATION = (1.0, 5.0)
SILENT = dict.fromkeys(
    ("ViewPosition", "ViewCodeSequence", "PatientOrientation", "SeriesDescription", "StudyDescription",
     "BodyPartExamined", "AnatomicRegionSequence")
)  # fmt: skip
BODY_PART, VIEW_POSITION = (0x00180015, "CS"), (0x00185101, "CS")
SERIES, STUDY, PROTOCOL = (0x0008103E, "LO"), (0x00081030, "LO"), (0x00181030, "LO")
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{said}:UserWarning") for said in ("Invalid value", "Unknown encoding")
]


def judged(texts: dict[tuple[int, str], bytes], charset: str | None, **overrides: Any) -> tuple[Reason | None, str]:
    """Reason and sentence, or "" and all remarks, of a radiograph that says nothing but these texts."""
    dataset: Dataset = radiograph(**{**SILENT, "SpecificCharacterSet": charset, **overrides})
    for (tag, vr), text in texts.items():
        value = text + b" " * (len(text) % 2)
        dataset[tag] = RawDataElement(Tag(tag), vr, len(value), value, 0, False, True, True)
    source = header.read(part10(dataset))
    assert isinstance(source, header.Source)
    refused = admission.check_header(source, POPULATION, Admission(), Precedent())
    if refused is not None:
        return refused.reason, refused.sentence
    return None, " ".join(admission.remarks(source, POPULATION, Admission()))


CHESTS = [
    "CHEST", "TÓRAX", "THORAX", "PŁUCA", "HRUDNÍK", "GÖĞÜS", "AKCİĞER", "NGỰC", "BRÖSTKORG", "PULMÃO",
    "KLATKA PIERSIOWA", "Грудная клетка", "ОГК", "Лёгкие", "Θώρακας", "胸部", "胸", "肺", "흉부", "가슴", "ｷｮｳﾌﾞ",
    "صدر", "חזה", "ทรวงอก",
]  # fmt: skip
LATERALS = [
    "胸部側面", "胸部侧位", "胸部側位", "胸部左侧位片", "흉부 측면", "Θώρακος πλάγια", "ОГК боковая",
    "грудна клітка, бічна", "Tórax perfil", "Thorax profil", "Klatka boczna", "Hrudník bočná", "Göğüs yan",
    "ngực nghiêng", "صدر جانبي", "חזה צד", "ทรวงอก ด้านข้าง", "ｿｸﾒﾝ", "Thorax dwars", "Lungor sidobild",
    "Chest LLAT", "Chest_RLAT", "ThoraxLAT", "XTLAT", "Lat.", "LATERAL", "cross table lateral",
    "mellkas oldalirányú", "Torace LL", "Thorax schräg", "胸部斜位",
]  # fmt: skip
FRONTALS = [
    "胸部正面", "胸部正位", "胸部 正側面", "正侧位片", "흉부 정면", "흉부 정면 및 측면",
    "Грудная клетка, прямая и боковая", "Θώρακος προσθιοπίσθια και πλάγια", "bilateral infiltrates", "両側肺",
    "两侧肺野", "양측 폐", "flat panel", "胸部側臥位", "2方向", "chest 2 views lateral", "лицева и профилна",
]  # fmt: skip
OTHERS = [
    "HAND", "Knie", "手", "左手", "頭部", "腹部", "胸椎", "胸骨", "손", "복부", "흉추", "Кисть", "колено",
    "грудина", "χέρι", "يد", "ברך", "ข้อมือ", "Ręka", "el bileği", "Wirbelsäule",
]  # fmt: skip


@pytest.mark.parametrize("part", CHESTS)
@pytest.mark.parametrize("place", [BODY_PART, SERIES, STUDY, PROTOCOL], ids=["part", "series", "study", "protocol"])
def test_a_chest_is_one_in_every_language(part: str, place: tuple[int, str]) -> None:
    reason, said = judged({place: part.encode()}, "ISO_IR 192")
    assert reason is None
    assert "body part" not in said


@pytest.mark.parametrize("words", LATERALS)
def test_a_lateral_view_is_one_in_every_language(words: str) -> None:
    for place in (SERIES, STUDY, PROTOCOL, VIEW_POSITION):
        reason, _ = judged({BODY_PART: b"CHEST", place: words.encode()}, "ISO_IR 192")
        assert reason is Reason.NOT_FRONTAL, place


@pytest.mark.parametrize("words", FRONTALS)
def test_what_names_a_frontal_view_too_is_not_refused(words: str) -> None:
    reason, _ = judged({BODY_PART: b"CHEST", SERIES: words.encode()}, "ISO_IR 192")
    assert reason is None


@pytest.mark.parametrize("part", OTHERS)
def test_another_part_is_refused_in_every_language(part: str) -> None:
    reason, _ = judged({BODY_PART: part.encode()}, "ISO_IR 192")
    assert reason is Reason.NOT_CHEST
    reason, _ = judged({SERIES: part.encode()}, "ISO_IR 192")
    assert reason is Reason.NOT_CHEST


@pytest.mark.parametrize(
    ("charset", "python", "part", "lateral", "other"),
    [
        ("ISO_IR 100", "latin-1", "TÓRAX", "Tórax perfil", "schädel"),
        ("ISO_IR 101", "iso8859_2", "PŁUCA", "klatka boczna", "łokieć"),
        ("ISO_IR 144", "iso8859_5", "грудь", "боковая", "кисть"),
        ("ISO_IR 126", "iso8859_7", "θώρακας", "πλάγια", "χέρι"),
        ("ISO_IR 148", "iso8859_9", "GÖĞÜS", "göğüs yan", "el bileği"),
        ("ISO_IR 127", "iso8859_6", "صدر", "جانبي", "يد"),
        ("ISO_IR 138", "iso8859_8", "חזה", "חזה צד", "ברך"),
        ("ISO_IR 166", "tis_620", "ทรวงอก", "ด้านข้าง", "ข้อมือ"),
        ("ISO_IR 13", "shift_jis", "ｷｮｳﾌﾞ", "ｿｸﾒﾝ", None),
        ("GB18030", "gb18030", "胸部", "胸部侧位", "左手"),
        ("GBK", "gbk", "胸部", "胸部侧位", "左手"),
        ("ISO_IR 192", "utf-8", "흉부", "흉부 측면", "손"),
        ("\\ISO 2022 IR 87", None, "胸部", "胸部側面", "左手"),
        ("\\ISO 2022 IR 149", None, "흉부", "흉부 측면", "복부"),
        ("\\ISO 2022 IR 58", None, "胸部", "胸部侧位", "左手"),
    ],
)
def test_every_character_set_is_read_in_code_strings_too(
    charset: str, python: str | None, part: str, lateral: str, other: str | None
) -> None:
    encodings = {"87": "iso2022_jp", "149": "euc_kr"}

    def encoded(text: str) -> bytes:
        if python is not None:
            return text.encode(python)
        if charset.endswith("58"):
            return b"\x1b$)A" + text.encode("gb2312")
        return encode_string(text, ["iso8859", encodings[charset.rsplit(" ", 1)[1]]])

    for declared in (charset, None) if python not in ("iso8859_9", "gbk") else (charset,):
        assert judged({BODY_PART: encoded(part)}, declared)[0] is None, declared
        if other is not None and declared:
            assert judged({BODY_PART: encoded(other)}, declared)[0] is Reason.NOT_CHEST, declared
    assert "body part" not in judged({BODY_PART: encoded(part)}, charset)[1]
    assert judged({BODY_PART: b"CHEST", SERIES: encoded(lateral)}, charset)[0] is Reason.NOT_FRONTAL
    assert judged({BODY_PART: b"CHEST", VIEW_POSITION: encoded(lateral)}, charset)[0] is Reason.NOT_FRONTAL


@pytest.mark.parametrize("declared", ["ISO_IR 100", None, "ISO_IR 999"])
def test_utf_8_is_read_whatever_is_declared(declared: str | None) -> None:
    assert judged({BODY_PART: "흉부".encode()}, declared) == judged({BODY_PART: b"CHEST"}, declared)
    assert judged({BODY_PART: b"CHEST", SERIES: "胸部側面".encode()}, declared)[0] is Reason.NOT_FRONTAL


@pytest.mark.parametrize("charset", ["shift_jis", "gb18030", "euc_kr", "big5"])
def test_a_local_set_that_is_not_declared_is_tried(charset: str) -> None:
    words = "흉부 측면" if charset == "euc_kr" else "胸部側面"
    assert judged({BODY_PART: words[:2].encode(charset)}, None)[0] is None
    assert judged({BODY_PART: b"CHEST", SERIES: words.encode(charset)}, None)[0] is Reason.NOT_FRONTAL


@pytest.mark.parametrize("part", ["ⲙⲉⲥⲧⲉⲛϩⲏⲧ".encode(), "ᐅᓪᓗᖅ".encode(), b"\xff\xfe\xfd", b"\x1b$)Z\xb1\xb2"])
def test_words_that_nobody_knows_are_no_refusal_but_a_remark(part: bytes) -> None:
    reason, said = judged({BODY_PART: part}, "ISO_IR 192")
    assert reason is None
    assert "a body part that the node does not recognize" in said
    assert judged({BODY_PART: part, SERIES: b"Knee ap"}, "ISO_IR 192")[0] is Reason.NOT_CHEST
    assert "body part" not in judged({BODY_PART: part, SERIES: b"Chest ap"}, "ISO_IR 192")[1]


@pytest.mark.parametrize("part", ["", "UNKNOWN", "N/A", "none", "-", "1", "NOT SPECIFIED", "---"])
def test_what_is_no_part_says_nothing(part: str) -> None:
    reason, said = judged({BODY_PART: part.encode()}, None)
    assert reason is None
    assert "body part" in said


@pytest.mark.parametrize(
    "term",
    [
        "LL", "RL", "LEFTLATERAL", "RIGHTLATERAL", "LEFT_LATERAL", "LLAT", "RLAT", "LATL", "LAT", "LAT L", "L LAT",
        "XTLAT", "XTABLE LAT", "X-TABLE LAT", "CROSSTABLELAT", "LATERALVIEW", "lateral", "PROFILE", "PERFIL",
        "OBLIQUE", "LAO", "ML",
    ],
)  # fmt: skip
def test_terms_of_view_position(term: str) -> None:
    reason, sentence = judged({BODY_PART: b"CHEST", VIEW_POSITION: term.encode()}, None)
    assert reason is Reason.NOT_FRONTAL
    assert sentence.startswith("The view is not frontal (PA or AP): View Position ")


@pytest.mark.parametrize(
    "term", ["PA", "AP", "AP SUPINE", "PA ERECT", "", "PORTABLE", "AP_BEDSIDE", "POSTERO_ANTERIOR"]
)
def test_terms_of_frontal_views_stay(term: str) -> None:
    assert judged({BODY_PART: b"CHEST", VIEW_POSITION: term.encode()}, None)[0] is None


def test_names_of_hospitals_and_persons_are_no_body_parts() -> None:
    for text in (b"Manchester Royal", b"Rochester", b"Main Campus", b"C-arm room 3", b"PE?", b"metastases"):
        assert judged({STUDY: text}, None)[0] is None, text
    assert "body part" in judged({STUDY: b"Manchester Royal"}, None)[1]


def test_folding_leaves_syllables_and_letters_whole() -> None:
    assert character_sets.fold("흉부 측면") == "흉부 측면"
    assert character_sets.fold("Tórax_P.A.") == "torax p a"
    assert character_sets.fold("GÖĞÜS İÇİ, ŁÓDŹ") == "gogus ici lodz"
    assert character_sets.fold("ｷｮｳﾌﾞ") == "キョウブ"
    assert character_sets.fold("ทรวงอก ด้านข้าง") == "ทรวงอก ด้านข้าง"
