"""Command sets, held against pynetdicom's."""

from __future__ import annotations

import struct
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.dsutils import decode

from cxr_node.node.network import dimse
from tests.node import wire

CLASS, INSTANCE = "1.2.840.10008.5.1.4.1.1.7", "2.25.17"


def test_a_response_reads_as_pynetdicoms_would() -> None:
    read = decode(BytesIO(dimse.store_response(CLASS, INSTANCE, 65535, 0xB000)), True, True)
    said = {element.keyword: element.value for element in read}
    length = said.pop("CommandGroupLength")
    assert length == len(dimse.store_response(CLASS, INSTANCE, 65535, 0xB000)) - 12
    assert said == {
        "AffectedSOPClassUID": CLASS,
        "CommandField": 0x8001,
        "MessageIDBeingRespondedTo": 65535,
        "CommandDataSetType": 0x0101,
        "Status": 0xB000,
        "AffectedSOPInstanceUID": INSTANCE,
    }
    nameless = decode(BytesIO(dimse.store_response("", "", 1, 0x0117)), True, True)
    assert "AffectedSOPInstanceUID" not in nameless


def test_what_is_written_is_read() -> None:
    read = dimse.read(dimse.store_request(CLASS, INSTANCE, 3))
    assert read == {
        "AffectedSOPClassUID": CLASS,
        "CommandField": 1,
        "MessageID": 3,
        "Priority": 0,
        "CommandDataSetType": 1,
        "AffectedSOPInstanceUID": INSTANCE,
    }


@pytest.mark.parametrize("cut", [1, 7, 9, 20])
def test_half_a_command_is_none(cut: int) -> None:
    with pytest.raises(ValueError, match=r"element|command set"):
        dimse.read(dimse.store_request(CLASS, INSTANCE, 3)[:-cut])


def test_elements_of_other_groups_and_odd_lengths_are_not_believed() -> None:
    with pytest.raises(ValueError, match="no command set"):
        dimse.read(struct.pack("<HHI", 8, 0x0018, 2) + b"1.")
    assert dimse.read(struct.pack("<HHI", 0, 0x0110, 4) + b"\1\0\0\0") == {}


@given(st.binary(max_size=200))
def test_nothing_else_is_ever_raised(tail: bytes) -> None:
    try:
        dimse.read(wire.command(0x0001, sop_class=b"1.2") + tail)
    except ValueError as error:
        assert str(error) in ("half an element", "no command set")
