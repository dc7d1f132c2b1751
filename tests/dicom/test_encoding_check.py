"""Objects that do not hold together are noticed before they are acknowledged; all that do are let through."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRBigEndian

from cxr_node.dicom.read import header
from cxr_node.errors import InstanceError
from cxr_node.node.network.file_meta import file_meta
from tests import builders
from tests.chaos import judge, mutations
from tests.chaos.corpus import ITEM, SEQUENCE_END, SYNTAXES, UNDEFINED, Element, tag, valid, write
from tests.node import wire

UID = "1.2.826.0.1.3680043.8.498.77.4.1"


def inspect(folder: Path, data_set: bytes, syntax: str = SYNTAXES[0]) -> None:
    file = folder / "object.dcm"
    file.write_bytes(file_meta(wire.DX, UID, syntax) + data_set)
    header.inspect(file)


@pytest.mark.parametrize("syntax", [each for each in SYNTAXES if each != wire.IMPLICIT])
def test_a_valid_object_passes(tmp_path: Path, syntax: str) -> None:
    inspect(tmp_path, valid(syntax), syntax)


def test_other_byte_orders_and_vrs_pass(tmp_path: Path) -> None:
    for syntax in (wire.IMPLICIT, ExplicitVRBigEndian):
        inspect(tmp_path, wire.data_set_of(builders.part10(builders.radiograph(), syntax)), syntax)


@pytest.mark.parametrize("outer", [None, UNDEFINED])
@pytest.mark.parametrize("inner", [None, UNDEFINED])
def test_sequences_of_defined_and_undefined_length_pass(tmp_path: Path, outer: int | None, inner: int | None) -> None:
    deepest = Element(0x00082228, b"SQ", [[Element(0x00080100, b"SH", b"X ")]], inner)
    inspect(tmp_path, _with(Element(0x00082218, b"SQ", [[deepest], []], outer)))


def _with(*elements: Element) -> bytes:
    return write(sorted([*_plain(), *elements], key=lambda each: each.tag), True)


def _plain() -> list[Element]:
    from tests.chaos.corpus import read

    return [element for element in read(valid(SYNTAXES[0])) if element.tag != 0x00082218]


def _nested(depth: int) -> Element:
    value = b""
    for _ in range(depth):
        value = write([Element(0x00082218, b"SQ", tag(ITEM, len(value)) + value)], True)
    return Element(0x00082218, b"SQ", tag(ITEM, len(value)) + value)


def test_as_deep_as_any_radiograph_passes(tmp_path: Path) -> None:
    inspect(tmp_path, _with(_nested(15)))


@pytest.mark.parametrize(
    ("data_set", "sentence"),
    [
        (_with(_nested(5000)), "nested deeper"),
        (_with(Element(0x00082218, b"SQ", write([Element(0x00080100, b"SH", b"X ")], True))), "else than items"),
        (_with(Element(0x00082218, b"SQ", tag(ITEM, 100) + bytes(20))), "what holds it"),
        (_with(Element(0x00082218, b"SQ", tag(SEQUENCE_END, 0))), "none can be"),
        (_with(Element(0x00082218, b"SQ", tag(ITEM, 0), UNDEFINED)), "else than items"),
        (_with(Element(0x00081030, b"LO", b"x", UNDEFINED)), "middle of an attribute"),
        (_with(Element(0x00291010, b"OB", b"x", UNDEFINED)), "no sequence"),
        (_with(Element(0x00291010, b"UN", b"x", 0xFFFFFFF0)), "middle of an attribute"),
        (_with() + bytes(100), "no VR"),
        (_with(Element(0x00081030, b"ZZ", b"AB")), "no VR"),
        (_with() + b"\x08", "middle of an attribute"),
        (_with(Element(0x00080005, b"SL", b"ISO_IR 100")), "Character Set is no code string"),
        (_with(Element(0x00080005, b"CS", b"ISO\0IR 100 ")), "Character Set is no code string"),
        (_with(Element(0x00080005, b"CS", b"ISO_IR 100\\" * 100)), "Character Set is no code string"),
        (_with(Element(0x00082218, b"SQ", [[Element(0x00080005, b"OD", b"ISO_IR 100")]])), "Character Set is no code"),
        (write([Element(0x00020010, b"UI", b"1.2.840.10008.1.2\0")], True) + _with(), "belong elsewhere"),
        (wire.data_set_of(builders.part10(builders.radiograph(), wire.IMPLICIT)), "no VR"),
        (_with()[:-9], "middle of the pixel data"),
    ],
)  # fmt: skip
def test_what_does_not_hold_together_is_refused(tmp_path: Path, data_set: bytes, sentence: str) -> None:
    with pytest.raises(InstanceError, match=sentence):
        inspect(tmp_path, data_set)


def test_native_pixels_in_an_encapsulated_syntax_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InstanceError, match="pixel data is not encoded"):
        inspect(tmp_path, valid(SYNTAXES[0]), SYNTAXES[2])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(dice=st.randoms(use_true_random=False), syntax=st.sampled_from((SYNTAXES[0], *SYNTAXES[2:])))
def test_what_is_let_through_can_be_parsed_by_another(tmp_path: Path, dice: random.Random, syntax: str) -> None:
    made = mutations.mutate(dice, syntax, dice.sample(mutations.MUTATIONS, 2))
    file = tmp_path / "object.dcm"
    file.write_bytes(file_meta(wire.DX, UID, made.syntax) + made.encoded())
    try:
        header.inspect(file)
    except InstanceError:
        return
    assert judge.pydicom_says(file) == ""
