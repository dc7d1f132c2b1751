"""One text in every byte form that a DICOM Specific Character Set allows, and a text of any as a plain name.

By the first, what is known by its bytes alone is found again by what a person types.
PS3.3 C.12.1.1.2 (defined terms), PS3.5 6.1.2.5 (code extension, ISO 2022), annexes H, I, J, K.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from functools import lru_cache

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


_ESC = b"\x1b"
_ASCII = _ESC + b"(B"
_SINGLE = {
    "latin_1": b"-A",  # ISO_IR 100
    "iso8859_2": b"-B",  # ISO_IR 101
    "iso8859_3": b"-C",  # ISO_IR 109
    "iso8859_4": b"-D",  # ISO_IR 110
    "iso8859_5": b"-L",  # ISO_IR 144
    "iso8859_6": b"-G",  # ISO_IR 127
    "iso8859_7": b"-F",  # ISO_IR 126
    "iso8859_8": b"-H",  # ISO_IR 138
    "iso8859_9": b"-M",  # ISO_IR 148
    "iso8859_15": b"-b",  # ISO_IR 203
    "tis_620": b"-T",  # ISO_IR 166
    "euc_kr": b"$)C",  # ISO 2022 IR 149, bytes of G1 too
    "gb2312": b"$)A",  # ISO 2022 IR 58
}
"""Sets designated as G1, by Python's name: what follows the escape character. ASCII stays where it is, in G0."""
_STAND_ALONE = ("utf_8", "gb18030", "gbk", "shift_jis")
"""ISO_IR 192, GB18030, GBK, ISO_IR 13: without code extension."""
_KATAKANA, _ROMAJI = b")I", b"(J"  # ISO 2022 IR 13: G1 and G0
_KANA_RUN = re.compile(rb"[\xa1-\xdf]+")
_JAPANESE = ("iso2022_jp", "iso2022_jp_1", "iso2022_jp_2")
"""ISO 2022 IR 87 and IR 159, designated as G0: Python's codecs write the escape sequences, and the one back."""
_MAX_CHARS = 64  # SH has 16; longer text is no such value, and costs time


@lru_cache(maxsize=8)  # an erasure asks for every study of the ledger
def byte_forms(text: str) -> frozenset[bytes]:
    """All forms of a text.

    Of code extension those are here that encoders write: the set of the first value without an escape sequence,
    another one designated once at the beginning, once where it is needed first, or for each run of its own, with and
    without a return to ASCII; two sets in one text too.
    """
    found = {text.encode("utf-8", "surrogateescape")}
    if len(text) > _MAX_CHARS or text.isascii():
        return frozenset(found)
    for form in {text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)}:
        for encoding in (*_STAND_ALONE, *_SINGLE):
            found.update(_encoded(form, encoding))
        found.update(_extended(form))
        found.update(_japanese(form))
    return frozenset(found)


def ascii_folded(raw: str, character_set: str, max_chars: int) -> str:
    """First value of a text as a plain name: without accents, other scripts as "?", no control characters.

    `raw` : the bytes of the value, ASCII, others as surrogates (`part10.as_text`)
    `character_set` : Specific Character Set (0008,0005) as it stands there, values divided by a backslash
    """
    content = raw.split("\\")[0].encode("utf-8", "surrogateescape")
    if not content.isascii() or _ESC in content:
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


def _encoded(text: str, encoding: str) -> list[bytes]:
    try:
        return [text.encode(encoding)]
    except UnicodeError:
        return []


def _extended(text: str) -> Iterator[bytes]:
    """Code extension by G1 sets: alone, and two of them beside each other; Japanese in G0 beside them."""
    for first, second in itertools.product(_SINGLE, repeat=2):
        runs = _runs(text, (first, second))
        if runs is None:
            continue
        for initial, returns, early in itertools.product((None, first), (False, True), (False, True)):
            yield _designated(runs, initial, returns=returns, early=early)
        yield b"".join((_ESC + _SINGLE[name] if name else _ASCII) + content for name, content in runs)  # each run's set


Run = tuple[str, bytes]
"""Python's name of a G1 set ("" for ASCII) and encoded characters."""


def _runs(text: str, encodings: tuple[str, ...]) -> list[Run] | None:
    """Cut a text where the set changes; None where a character is in none of them."""
    runs: list[Run] = []
    for character in text:
        if character.isascii():
            name, content = "", character.encode()
        else:
            name, content = next(
                ((name, found[0]) for name in encodings if (found := _character(character, name))), ("", b"")
            )
            if not content:
                content = next(iter(_character(character, "iso2022_jp_2")), b"")
                if not content:
                    return None
        if runs and runs[-1][0] == name:
            before = runs[-1][1]
            same = content[:3] == b"\x1b$B" and before.endswith(_ASCII) and before.count(b"\x1b$B")
            runs[-1] = (name, before.removesuffix(_ASCII) + content[3:] if same else before + content)
        else:
            runs.append((name, content))
    return runs


@lru_cache(maxsize=4096)
def _character(character: str, encoding: str) -> list[bytes]:
    return _encoded(character, encoding)


def _designated(runs: list[Run], initial: str | None, *, returns: bool, early: bool) -> bytes:
    """Designate a set where it is needed first, or at the beginning of the text (`early`).

    It holds until another one is designated, or until the return to ASCII.
    """
    written, current = b"", initial
    needed = next((name for name, _ in runs if name), "")
    if early and needed and needed != initial:
        written, current = _ESC + _SINGLE[needed], needed
    for name, content in runs:
        if not name and returns and current != initial and written:
            written, current = written + _ASCII, initial
        if name and name != current:
            written, current = written + _ESC + _SINGLE[name], name
        written += content
    return written + (_ASCII if returns and current != initial else b"")


def _japanese(text: str) -> Iterator[bytes]:
    """G0 sets of Japanese; encoders return from them to ASCII, to JIS X 0201, or (pydicom) to the first value's set."""
    for encoding in _JAPANESE:
        for written in _encoded(text, encoding):
            yield from _returning(written)
    for written in _encoded(text, "shift_jis"):
        if all(byte < 0x80 or 0xA1 <= byte <= 0xDF for byte in written):  # half-width katakana, PS3.5 H.1.1
            for before in (_KATAKANA, _ROMAJI + _ESC + _KATAKANA):
                yield _ESC + before + written
            yield from _returning(_KANA_RUN.sub(_ESC + _KATAKANA + rb"\g<0>" + _ASCII, written))


def _returning(written: bytes) -> Iterator[bytes]:
    """Take a form that returns to ASCII, and tell what others make of it; the last return may be missing."""
    for home in (_ASCII, _ESC + _ROMAJI, *(_ESC + designation for designation in _SINGLE.values())):
        form = written.replace(_ASCII, home)
        yield from (form, home + form, form.removesuffix(home), home + form.removesuffix(home))
