"""A fragmented message is the message, and no PDU is longer than the peer accepts."""

from __future__ import annotations

import os
import socket
import struct
import threading
from io import BytesIO

import pytest
from pydicom import dcmread
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dsutils import decode
from pynetdicom.pdu import P_DATA_TF

from cxr_node.node.network import dimse, file_meta
from cxr_node.node.network.dimse import Message
from cxr_node.result_kinds import ResultKind
from tests.node import peers

UID = "1.2.840.10008.5.1.4.1.1.7"


def message(data_set: bytes, longest: int) -> Message:
    command = dimse.store_request(UID, "2.25.17", 65535)
    return Message(context_id=5, command=command, data_set=memoryview(data_set), longest=longest)


def read_back(stream: bytes, longest: int) -> list[tuple[int, int, bytes]]:
    """Context, control header and content of each PDV, as pynetdicom decodes them."""
    found = []
    while stream:
        (length,) = struct.unpack_from(">I", stream, 2)
        assert not longest or length <= longest
        pdu = P_DATA_TF()
        pdu.decode(stream[: length + 6])
        (item,) = pdu.presentation_data_value_items
        found.append((item.presentation_context_id, item.presentation_data_value[0], item.presentation_data_value[1:]))
        stream = stream[length + 6 :]
    return found


@pytest.mark.parametrize("longest", [0, 64, 16384, 131072, 2**31])
@pytest.mark.parametrize("size", [2, 116, 16378, 300_001])
def test_what_is_cut_is_whole_again(longest: int, size: int) -> None:
    data_set = os.urandom(size)
    items = read_back(b"".join(bytes(piece) for piece in message(data_set, longest).pieces()), longest)
    assert {context for context, _, _ in items} == {5}
    commands, data = ([item for item in items if item[1] & 1 == kind] for kind in (1, 0))
    assert items == commands + data
    for some in (commands, data):
        assert [control & 2 for _, control, _ in some] == [0] * (len(some) - 1) + [2]
    assert b"".join(content for _, _, content in data) == data_set
    assert b"".join(content for _, _, content in commands) == message(b"", 0).command


def test_the_command_set_says_what_pynetdicom_would_say() -> None:
    read = decode(BytesIO(message(b"", 0).command), True, True)
    expected = C_STORE_RQ().command_set
    values = (len(message(b"", 0).command) - 12, UID, 1, 65535, 0, 1, "2.25.17")
    assert [element.value for element in read] == list(values)
    assert {element.keyword for element in read} <= {element.keyword for element in expected}


def test_a_peer_that_reads_late_gets_every_byte() -> None:
    """The system accepts only a part of a write; the rest follows."""
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    near.settimeout(10)
    sent = message(os.urandom(2_000_000), 16384)
    writing = threading.Thread(target=lambda: (dimse.transmit(near, sent), near.close()))
    writing.start()
    got = b"".join(iter(lambda: far.recv(100_000), b""))
    writing.join(10)
    far.close()
    assert got == b"".join(bytes(piece) for piece in sent.pieces())


def test_a_file_is_split_where_its_data_set_begins() -> None:
    content = peers.result_object(ResultKind.REPORT, 7)
    uid, data_set = file_meta.split(content)
    dataset = dcmread(BytesIO(content))
    assert uid == dataset.SOPInstanceUID
    assert decode(BytesIO(data_set), False, True) == dcmread(BytesIO(content))
    ours = file_meta.file_meta(UID, "2.25.1", "1.2.840.10008.1.2.1") + b"data"
    assert file_meta.split(ours) == ("2.25.1", b"data")
    with pytest.raises(ValueError, match="Part 10"):
        file_meta.split(b"no" * 200)
