"""An Accession Number is found by what a person types, in whatever Specific Character Set its sender wrote it."""

from __future__ import annotations

import itertools
import unicodedata
import warnings
from hashlib import sha256
from pathlib import Path

import pytest
from pydicom import charset

from cxr_node.dicom.read import header, keys
from tests import builders

TEXTS = (
    "Ä12",
    "A-Ä/Ö 7",
    "Żubr1",
    "Ж12",
    "ΑΒ-12",
    "קבלה1",
    "رقم7",
    "ไทย1",
    "ŞĞ-1",
    "番号12",
    "A番B号",
    "ｱｲ12",
    "접수12",
    "检查12",
)
MULTI_BYTE = ("iso2022_jp", "iso2022_jp_2", "euc_kr", "iso_ir_58")
"""No first value of Specific Character Set (PS3.3 C.12.1.1.2)."""
WRITTEN = {
    "ISO_IR 100": ("Ä12", b"\xc412"),
    "ISO_IR 192": ("Ä12", b"\xc3\x8412"),
    "ISO_IR 192, decomposed": ("Ä12", b"A\xcc\x8812"),
    "ISO_IR 144": ("Ж12", b"\xb612"),
    "ISO_IR 126": ("Ω12", b"\xd912"),
    "ISO_IR 166": ("ก12", b"\xa112"),
    "ISO_IR 203": ("€12", b"\xa412"),
    "GB18030": ("检12", b"\xbc\xec12"),
    "ISO_IR 13": ("ｱ12", b"\xb112"),
    "\\ISO 2022 IR 100": ("A-Ä12", b"A-\x1b-A\xc412"),
    "\\ISO 2022 IR 100, back to ASCII": ("A-Ä12", b"A-\x1b-A\xc4\x1b(B12"),
    "\\ISO 2022 IR 100, at the beginning": ("A-Ä12", b"\x1b-AA-\xc412"),
    "\\ISO 2022 IR 87": ("番号12", b"\x1b$BHV9f\x1b(B12"),
    "ISO 2022 IR 13\\ISO 2022 IR 87": ("番号12", b"\x1b$BHV9f\x1b(J12"),
    "\\ISO 2022 IR 149": ("김12", b"\x1b$)C\xb1\xe812"),
    "\\ISO 2022 IR 149, where it begins": ("A김12", b"A\x1b$)C\xb1\xe812"),
    "\\ISO 2022 IR 58": ("检12", b"\x1b$)A\xbc\xec12"),
    "ISO 2022 IR 100\\ISO 2022 IR 126": ("ÄΩ1", b"\xc4\x1b-F\xd91"),
    "\\ISO 2022 IR 87\\ISO 2022 IR 100": ("番Ä1", b"\x1b$BHV\x1b(B\x1b-A\xc41"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "value"), WRITTEN.values(), ids=WRITTEN.keys())
def test_a_received_number_is_among_the_keys_of_what_is_typed(text: str, value: bytes, tmp_path: Path) -> None:
    content = builders.part10(builders.radiograph(AccessionNumber="@" * (len(value) + len(value) % 2)))
    file = tmp_path / "a.dcm"
    file.write_bytes(content.replace(b"@" * (len(value) + len(value) % 2), value + b" " * (len(value) % 2)))
    received = header.inspect(file).ref.accession_key
    assert received == sha256(value).hexdigest()
    for form in ("NFC", "NFD"):
        assert received in keys.accession_keys(f" {unicodedata.normalize(form, text)} ")
    assert received not in keys.accession_keys(f"{text}x")


@pytest.mark.parametrize("text", TEXTS)
def test_whatever_pydicom_writes_is_found(text: str) -> None:
    """An encoder of somebody else: a set of one byte first, each other one beside it, and every set alone."""
    found = keys.byte_forms(text)
    extended = sorted({name for term, name in charset.python_encoding.items() if term.startswith("ISO 2022 IR")})
    written = 0
    pairs = [pair for pair in itertools.permutations(extended, 2) if pair[0] not in MULTI_BYTE and pair[1] != "iso8859"]
    for encodings in (*pairs, *([name] for name in {*charset.python_encoding.values()})):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                form = charset.encode_string(text, list(encodings))
            except (UserWarning, LookupError):  # it cannot be written so
                continue
        assert form in found, (encodings, form)
        written += 1
    assert written


def test_ascii_has_one_form_and_odd_input_raises_nothing() -> None:
    assert keys.accession_keys("A12") == {keys.accession_key("A12")}
    assert keys.accession_key("\udcc412") in keys.accession_keys("\udcc412"), "bytes of another terminal"
    assert keys.accession_keys("Ä" * 10_000)
    assert keys.accession_keys("")
