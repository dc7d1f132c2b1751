"""A text of any Specific Character Set, declared or not, as words to compare and as a plain name.

PS3.3 C.12.1.1.2 (defined terms), PS3.5 6.1.2.5 (code extension, ISO 2022), annexes H, I, J, K.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator

from pydicom import Dataset, charset
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement

from cxr_node.dicom.part10 import PARSER_FAULTS, quiet

_DELIMITERS = set(map(ord, "\r\n\t\f\\"))  # PS3.5 6.1.2.5.3: behind these a text is in its first set again
_UNDECLARED = (
    "shift_jis", "euc_jp", "gb18030", "big5", "euc_kr", "cp1251", "koi8_r", "iso8859_5", "cp1253", "cp1250", "cp1254",
    "cp1256", "cp1255", "tis_620",
)  # fmt: skip
"""What is tried where no set is named and the bytes are no UTF-8."""
_ESCAPED = ("iso2022_jp", "iso2022_kr")
_AS_PYDICOM_SAYS = "iso8859"  # pydicom's name of what holds where nothing is declared
_ESCAPES, _NOT_DECODED = "\x1b", "\ufffd"
_LETTERS = str.maketrans({"ı": "i", "ł": "l", "ø": "o", "đ": "d", "æ": "ae", "œ": "oe", "ð": "d", "þ": "th"})
"""Latin letters that do not come apart into a plain one and an accent."""
_ACCENTS = re.compile(r"[\u0300-\u036f\u0483-\u0487\u0591-\u05c7\u064b-\u0652\u0670]")
"""Of Latin, Greek and Cyrillic, and the points of Hebrew and Arabic; other scripts' marks are letters of theirs."""
_MAX_CHARACTERS = 256
"""Four times the longest Long String (PS3.5 6.2); no more is read."""


def raw(dataset: Dataset, keyword: str) -> str:
    """One attribute as pydicom has it, "" where it is absent; bytes that it could not read as Latin-1."""
    element = dataset.get_item(tag_for_keyword(keyword) or 0)
    if isinstance(element, RawDataElement) and isinstance(element.value, bytes):
        return element.value.decode("latin-1").strip(" \0")
    with quiet():
        value = dataset.get(keyword)
    if value is None:
        return ""
    return str(value) if isinstance(value, str) else "\\".join(str(part) for part in _listed(value))


def is_plain(text: str) -> bool:
    """Tell whether a text is the same in every character set: ASCII without escape sequences."""
    return text.isascii() and _ESCAPES not in text


def words(dataset: Dataset, keyword: str, declaring: Dataset | None = None) -> str:
    """All readings of one attribute, each folded, with spaces between them.

    `declaring` : the data set whose Specific Character Set holds, where an item's own is meant by it
    """
    text = raw(dataset, keyword)[:_MAX_CHARACTERS]
    if is_plain(text):
        return fold(text)
    return " ".join(dict.fromkeys(fold(reading) for reading in _readings(text, declaring or dataset)))


def fold(text: str) -> str:
    """Lower case, without accents, punctuation as spaces: "Thorax p.a." is "thorax p a". Hangul stays in syllables."""
    decomposed = _ACCENTS.sub("", unicodedata.normalize("NFKD", text.casefold().translate(_LETTERS)))
    composed = unicodedata.normalize("NFC", decomposed)
    kept = (char if char.isalnum() or unicodedata.category(char)[0] == "M" else " " for char in composed)
    return " ".join("".join(kept).split())


def _readings(text: str, declaring: Dataset) -> Iterator[str]:
    """What pydicom read, then what its bytes say in the declared set, in UTF-8, or in any that was not declared."""
    yield text
    try:
        content = text.encode("latin-1")
    except UnicodeEncodeError:  # it was decoded, into letters beyond Latin-1
        return
    declared = _declared(declaring)
    if declared and (found := _decoded_text(content, declared)) is not None:
        yield found
    try:
        yield content.decode("utf-8")
        if _ESCAPES not in text:
            return
    except UnicodeDecodeError:
        if declared and declared[0] != _AS_PYDICOM_SAYS:  # else it may have left out the escapes of ISO 2022
            return
    for encoding in _ESCAPED if _ESCAPES in text else _UNDECLARED:
        try:
            yield content.decode(encoding)
        except UnicodeError:
            continue


def _declared(dataset: Dataset) -> list[str]:
    """Python's names of the declared sets; none where ASCII alone is declared, or what nobody knows."""
    value = dataset.get("SpecificCharacterSet")
    if not value or value == "ISO_IR 6":
        return []
    try:
        with quiet():
            return convert_encodings(value if isinstance(value, str) else list(value))
    except PARSER_FAULTS:
        return []


def _decoded_text(content: bytes, encodings: list[str]) -> str | None:
    try:
        with quiet():
            found = decode_bytes(content, encodings, _DELIMITERS)
    except PARSER_FAULTS:
        return None
    return None if _NOT_DECODED in found else found


def _listed(value: object) -> Iterable[object]:
    return value if isinstance(value, Iterable) else (value,)


def ascii_folded(raw: str, character_set: str, max_chars: int) -> str:
    """First value of a text as a plain name: without accents, other scripts as "?", no control characters.

    `raw` : the bytes of the value, ASCII, others as surrogates (`part10.as_text`)
    `character_set` : Specific Character Set (0008,0005) as it stands there, values divided by a backslash
    """
    content = raw.split("\\")[0].encode("utf-8", "surrogateescape")
    if not content.isascii() or _ESCAPES.encode() in content:
        raw = _decoded(content, character_set)
    letters = unicodedata.normalize("NFKD", raw.split("\\")[0])
    kept = (letter for letter in letters if not unicodedata.combining(letter) and letter.isprintable())
    return "".join(letter if letter.isascii() else "?" for letter in kept).strip()[:max_chars].strip()


def _decoded(content: bytes, character_set: str) -> str:
    """Read by the declared sets; what they do not explain is read as ASCII with replacements."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            encodings = charset.convert_encodings([term.strip() for term in character_set.split("\\")])
            return charset.decode_bytes(content, encodings, set())
    except (UserWarning, LookupError, ValueError):
        return content.decode("ascii", "replace")


def certain(dataset: Dataset, keyword: str) -> str | None:
    """One attribute as text, "" where it is absent; None where nobody can say for certain which letters its bytes are.

    Not guessed are undeclared bytes beyond ASCII, sets that nobody knows, and bytes that the declared one lacks.
    """
    with quiet():
        text = str(dataset.get(keyword) or "").strip(" \0")
    if is_plain(text):
        return text
    return None if _NOT_DECODED in text or _ESCAPES in text or not _is_declared(dataset) else text


def _is_declared(dataset: Dataset) -> bool:
    """Whether the data set names character sets, and known ones alone."""
    value = dataset.get("SpecificCharacterSet")
    terms = [value] if isinstance(value, str) else list(value or ())
    return any(terms) and all(str(term) in charset.python_encoding for term in terms)
