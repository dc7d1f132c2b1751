"""Explicit VR to Implicit VR: against pydicom where it changes no text, and against the bytes where it would."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.filereader import read_dataset
from pynetdicom import dsutils

from cxr_node import pipeline
from cxr_node.node.deliver.implicit import to_implicit
from cxr_node.node.network import file_meta
from cxr_node.result_kinds import ResultKind
from tests.dicom.contexts import MADE, context

ITEM, ITEM_END, SEQUENCE_END = (struct.pack("<HH", 0xFFFE, tag) for tag in (0xE000, 0xE00D, 0xE0DD))
OPEN = b"\xff" * 4


def explicit(group: int, element: int, vr: bytes, value: bytes) -> bytes:
    is_short = vr in (b"LO", b"PN", b"CS", b"UI", b"US", b"UL")
    return struct.pack("<HH2sH" if is_short else "<HH2sxxI", group, element, vr, len(value)) + value


def implicit(group: int, element: int, value: bytes) -> bytes:
    return struct.pack("<HHI", group, element, len(value)) + value


def converted(data_set: bytes) -> bytes:
    return bytes(to_implicit(memoryview(data_set)))


@pytest.mark.parametrize(("kind", "case"), MADE)
def test_our_results_are_encoded_as_pydicom_would(kind: ResultKind, case: str) -> None:
    made = pipeline.BUILDERS[kind](context(case))
    assert made is not None
    for artifact in made.sop_class_choices:
        _, data_set = file_meta.split(artifact.content)
        oracle = dsutils.encode(dsutils.decode(io.BytesIO(data_set), False, True), True, True)
        assert converted(bytes(data_set)) == oracle


@given(
    st.lists(st.tuples(st.sampled_from([0x0010, 0x0020, 0x1030]), st.binary(max_size=40)), max_size=8),
    st.integers(0, 3),
)
@settings(max_examples=200, deadline=None)
def test_no_byte_of_any_value_changes(values: list[tuple[int, bytes]], depth: int) -> None:
    """Whatever character set: escape sequences, 0x5C and 0x3D as second bytes, and what is in no set at all."""
    padded = [(element, value + b" " * (len(value) % 2)) for element, value in values]
    before = b"".join(explicit(0x0010, element, b"LO", value) for element, value in padded)
    after = b"".join(implicit(0x0010, element, value) for element, value in padded)
    for level in range(depth):
        if level % 2:
            before = explicit(0x0040, 0x0275, b"SQ", ITEM + struct.pack("<I", len(before)) + before)
            after = implicit(0x0040, 0x0275, ITEM + struct.pack("<I", len(after)) + after)
        else:
            ends = ITEM_END + bytes(4) + SEQUENCE_END + bytes(4)
            before = struct.pack("<HH2sxx", 0x0040, 0x0275, b"SQ") + OPEN + ITEM + OPEN + before + ends
            after = struct.pack("<HH", 0x0040, 0x0275) + OPEN + ITEM + OPEN + after + ends
    assert converted(before) == after


def test_unknown_vrs_have_a_long_head_and_un_without_length_is_implicit_already() -> None:
    inside = ITEM + OPEN + implicit(0x0010, 0x0010, b"A^B ") + ITEM_END + bytes(4) + SEQUENCE_END + bytes(4)
    un = struct.pack("<HH2sxx", 0x0040, 0x0275, b"UN") + OPEN + inside
    other = explicit(0x0009, 0x1001, b"ZZ", b"1234") + explicit(0x0009, 0x1002, b"UN", b"\\\x1b$)C")
    assert converted(un + other) == (
        struct.pack("<HH", 0x0040, 0x0275) + OPEN + inside
        + implicit(0x0009, 0x1001, b"1234") + implicit(0x0009, 0x1002, b"\\\x1b$)C")
    )  # fmt: skip


def test_a_group_length_that_would_be_untrue_goes() -> None:
    assert converted(explicit(0x0010, 0, b"UL", bytes(4)) + explicit(0x0010, 0x20, b"LO", b"AB")) == implicit(
        0x0010, 0x20, b"AB"
    )


WHOLE = explicit(0x0010, 0x0020, b"LO", b"ABCD")
NESTED = explicit(0x0040, 0x0275, b"SQ", ITEM + struct.pack("<I", len(WHOLE)) + WHOLE)


@pytest.mark.parametrize(
    "damaged",
    [
        *(WHOLE[:end] for end in range(1, len(WHOLE))),
        *(NESTED[:end] for end in range(1, len(NESTED))),
        struct.pack("<HH2sxx", 0x7FE0, 0x0010, b"OB") + OPEN + ITEM + bytes(4) + SEQUENCE_END + bytes(4),
        struct.pack("<HH2sxx", 0x0040, 0x0275, b"SQ") + OPEN + ITEM + OPEN + WHOLE,
        struct.pack("<HH2sxx", 0x0040, 0x0275, b"SQ") + OPEN + ITEM + struct.pack("<I", len(WHOLE)) + WHOLE,
        struct.pack("<HH2sxx", 0x0040, 0x0275, b"UN") + OPEN + ITEM + OPEN + implicit(0x0010, 0x0010, b"AB"),
        explicit(0x0040, 0x0275, b"SQ", WHOLE),
        WHOLE + ITEM_END + bytes(4) + WHOLE,
        (struct.pack("<HH2sxx", 0x0040, 0x0275, b"SQ") + OPEN + ITEM + OPEN) * 2000,
        struct.pack("<HH2sxx", 0x0040, 0x0275, b"UN") + OPEN + (ITEM + OPEN) * 2000,
    ],
)  # fmt: skip
def test_what_is_damaged_is_refused_in_a_sentence(damaged: bytes) -> None:
    with pytest.raises(ValueError, match=r"cut short|nested too deep|not a sequence|else than items|none began"):
        converted(damaged)


@pytest.mark.filterwarnings("ignore:Failed to decode:UserWarning")
def test_the_oracle_itself_loses_text() -> None:
    """Why this is not left to pydicom: declared UTF-8, sent in Latin-1."""
    encoded = explicit(8, 5, b"CS", b"ISO_IR 192") + explicit(0x0010, 0x0020, b"LO", b"M\xfcr ")
    assert b"M\xfcr " not in (dsutils.encode(dsutils.decode(io.BytesIO(encoded), False, True), True, True) or b"")
    again = read_dataset(io.BytesIO(converted(encoded)), True, True)
    assert again.get_item("PatientID").value == b"M\xfcr "
