"""The one-way keys by which the ledger knows an Accession Number and a patient, and those of what a person types.

The ledger has the digest of the bytes that came, in whatever Specific Character Set; a terminal and a browser speak
UTF-8. So a typed text is sought in every byte form that a character set allows. Knows no attribute and no library.
PS3.3 C.12.1.1.2 (defined terms), PS3.5 6.1.2.5 (code extension, ISO 2022), annexes H, I, J, K.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256


def accession_key(accession: str) -> str:
    """One-way key of an Accession Number, as `InstanceRef.accession_key` holds it."""
    return sha256(accession.strip(" \0").encode("utf-8", "surrogateescape")).hexdigest()


def accession_keys(accession: str) -> frozenset[str]:
    """Keys of an Accession Number as somebody types it: one for each form in which a sender may have encoded it."""
    return frozenset(sha256(form).hexdigest() for form in byte_forms(accession.strip(" \0")))


def patient_keys(study_instance_uid: str, patient_id: str) -> frozenset[str]:
    """Keys that a Patient ID may have in a study, as `InstanceRef.patient_key` holds one: by character set."""
    study, forms = study_instance_uid.encode("ascii") + b"\0", byte_forms(patient_id.strip(" \0"))
    return frozenset(sha256(study + form).hexdigest() for form in forms)


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
