"""What comes of an association, rewritten byte by byte: what is skipped, what is kept, what is refused."""

from __future__ import annotations

import random
import struct

import pytest
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ

from cxr_node.node.network import associate_pdu
from tests.node import wire
from tests.pacs import odd_associations
from tests.pacs.odd_associations import Request, item

PLAIN = Request().encoded()


def read(request: bytes) -> A_ASSOCIATE_RQ:
    """As pynetdicom reads it, down to the primitive."""
    pdu = A_ASSOCIATE_RQ()
    pdu.decode(associate_pdu.tidy(request))
    pdu.to_primitive()
    return pdu


def test_a_plain_request_says_what_it_said() -> None:
    pdu = read(PLAIN)
    assert (pdu.protocol_version, pdu.called_ae_title, pdu.calling_ae_title) == (1, "CXR_NODE", "ODD")
    assert [(one.context_id, one.abstract_syntax, one.transfer_syntax) for one in pdu.presentation_context] == [
        (1, wire.VERIFICATION, [wire.IMPLICIT]),
        (3, wire.DX, [wire.EXPLICIT]),
    ]
    user = pdu.user_information
    assert user is not None
    assert (user.maximum_length, user.implementation_class_uid) == (16384, "1.2.3.4.5")
    assert user.implementation_version_name == "ODD_1"


@pytest.mark.parametrize("name", odd_associations.ODDITIES)
def test_what_is_tidy_stays_so_and_pynetdicom_reads_it(name: str) -> None:
    content = odd_associations.mixed(name).encoded()
    read(content)
    once = associate_pdu.tidy(content)
    assert associate_pdu.tidy(once) == once


@pytest.mark.parametrize("name", odd_associations.ANSWERS)
def test_an_odd_acceptance_is_read_too(name: str) -> None:
    answer = odd_associations.acceptance(PLAIN)
    odd_associations.ANSWERS[name](answer)
    pdu = A_ASSOCIATE_AC()
    pdu.decode(associate_pdu.tidy(answer.encoded()))
    primitive = pdu.to_primitive()
    accepted = [one for one in primitive.presentation_context_definition_results_list if one.result == 0]
    assert all(one.transfer_syntax for one in accepted)


@pytest.mark.parametrize(
    ("raw", "title"),
    [
        (b"CT1".ljust(16), "CT1"),
        (b"CT1".rjust(16), "CT1"),
        (b"CT1".ljust(16, b"\0"), "CT1"),
        (b"CT1\0stale bytes!!", "CT1"),
        (b"R\xf6ntgen 1".ljust(16), "R\\xF6ntgen 1"),
        ("Röntgen".encode().ljust(16), "R\\xC3\\xB6ntgen"),
        (b"A\\B\x07".ljust(16), "A\\x5CB\\x07"),
        (b"\xff" * 16, "\\xFF" * 16),
    ],
)
def test_a_title_is_stripped_and_escaped(raw: bytes, title: str) -> None:
    request = Request(calling=raw[:16]).encoded()
    assert associate_pdu.titles(request) == ("CXR_NODE", title)
    assert read(request).calling_ae_title.isascii()


def test_two_titles_that_are_not_ascii_stay_two() -> None:
    first, second = (
        associate_pdu.titles(Request(calling=raw.ljust(16)).encoded()) for raw in (b"\xc0\xc1", b"\xc2\xc3")
    )
    assert first != second


def test_the_answer_repeats_the_bytes_of_the_request() -> None:
    """PS3.8 Table 9-17: titles and reserved bytes are returned as they came."""
    request = Request(calling=b"R\xf6ntgen".ljust(16, b"\0"), third_reserved=b"vendor".ljust(32, b"\xff")).encoded()
    answer = associate_pdu.with_echo(odd_associations.acceptance(PLAIN).encoded(), request)
    assert answer[10:74] == request[10:74]
    assert len(answer) == len(odd_associations.acceptance(PLAIN).encoded())


@pytest.mark.parametrize(
    "broken",
    [
        PLAIN[:60],
        PLAIN[:-1],
        PLAIN + b"\x70\0\xff\xff",
        PLAIN + b"\x70\0",
        Request(between=item(0x20, bytes([5, 0, 0, 0]) + b"\x30\0\xff\xff1.2")).encoded(),
        Request(after=item(0x50, b"\x51\0\0\x09" + bytes(4))).encoded(),
        Request(calling=b" " * 16).encoded(),
        Request(called=bytes(16)).encoded(),
    ],
    ids=range(8),
)
def test_what_does_not_hold_together_is_said_to_be_so(broken: bytes) -> None:
    with pytest.raises(ValueError, match=r"an item|half an item|fixed fields|nothing but padding"):
        associate_pdu.tidy(broken)


def test_any_bytes_end_in_a_value_error_or_in_what_pynetdicom_reads() -> None:
    chance = random.Random(8)
    for _ in range(3000):
        content = bytearray(odd_associations.mixed(*chance.sample(sorted(odd_associations.ODDITIES), 2)).encoded())
        for _ in range(chance.randint(1, 8)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        content[0] = 0x01
        try:
            tidied = associate_pdu.tidy(bytes(content))
        except ValueError:
            continue
        pdu = A_ASSOCIATE_RQ()
        pdu.decode(tidied)
        pdu.to_primitive()


def test_a_context_that_is_no_use_is_still_answered() -> None:
    """No syntax, no class, no UID: rejected with a result, for the peer waits for one."""
    pdu = read(
        Request(
            contexts=[odd_associations.proposed(5, wire.DX, ()), odd_associations.proposed(7, "vendor!", ("x" * 65,))]
        ).encoded()
    )
    assert [(one.context_id, one.abstract_syntax) for one in pdu.presentation_context] == [(5, wire.DX), (7, "0.0")]
    assert [one.transfer_syntax for one in pdu.presentation_context] == [["0.0"], ["0.0"]]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"\0\1\1\7", "association rejected (permanent): Called AE title not recognized"),
        (b"\0\2\3\2", "association rejected (transient): Local limit exceeded"),
        (b"\0\1\1\12", "association rejected (permanent): reserved reason 1/10"),
        (b"\0\0\0\0", "association rejected (reserved result 0): reserved reason 0/0"),
        (b"\0\x09\x09\x09\0\0", "association rejected (reserved result 9): reserved reason 9/9"),
        (b"", "association rejected (reserved result 0): reserved reason 0/0"),
    ],
)
def test_a_rejection_stays_one_and_is_put_into_words(said: bytes, words: str) -> None:
    content = wire.pdu(wire.ASSOCIATE_RJ, said)
    assert associate_pdu.in_words(content) == words
    pdu = A_ASSOCIATE_RJ()
    pdu.decode(associate_pdu.tidy(content))
    assert pdu.to_primitive().result in (1, 2)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"\0\0\0\0", "association aborted by the peer's application"),
        (b"\0\0\2\6", "association aborted by the peer: Invalid PDU parameter value"),
        (b"\0\0\2\3", "association aborted by the peer: reserved reason 3"),
        (b"\0\0\1\1", "association aborted by the peer's application"),
        (b"\0\0\x63\x63", "association aborted by the peer's application"),
        (b"", "association aborted by the peer's application"),
    ],
)
def test_an_abort_stays_one_and_is_put_into_words(said: bytes, words: str) -> None:
    content = wire.pdu(wire.ABORT, said)
    assert associate_pdu.in_words(content) == words
    pdu = A_ABORT_RQ()
    pdu.decode(associate_pdu.tidy(content))
    pdu.to_primitive()


def test_other_pdus_are_left_alone() -> None:
    for content in (wire.pdu(wire.P_DATA, b"\xff" * 9), wire.pdu(0x05, bytes(4)), b"", b"\x99"):
        assert associate_pdu.tidy(content) == content
        assert associate_pdu.in_words(content) == ""


@pytest.mark.parametrize(
    ("said", "understood"),
    [(0, 0), (1, 8), (8, 8), (4097, 4096), (16384, 16384), (2**32 - 1, 2**32 - 2)],
)
def test_the_longest_pdu_can_be_kept_to(said: int, understood: int) -> None:
    """An odd limit would cut odd fragments (PS3.8 E.2); one below the heads of a PDV cannot be kept by anybody."""
    request = Request()
    request.user[0x51] = item(0x51, struct.pack(">I", said))
    assert read(request.encoded()).user_information.maximum_length == understood  # type: ignore[union-attr]
