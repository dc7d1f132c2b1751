"""Archives that answer oddly but legally, and archives that answer wrongly: what our SCU makes of them."""

from __future__ import annotations

import socket
import struct
import time
from collections import Counter
from collections.abc import Callable

import pytest

from cxr_node.config.network import Address
from cxr_node.errors import DeliveryError
from cxr_node.node.commitment.scu import CommitmentScu
from cxr_node.node.deliver.link import ResultFile
from cxr_node.node.ledger.commitments import Transaction
from cxr_node.node.network import verification
from cxr_node.node.network.rejections import Cause, Refusal, Refusals
from cxr_node.result_kinds import ResultKind
from tests.node import peers, wire
from tests.pacs import odd_associations

STORE, ECHO, ACTION = 0x8001, 0x8030, 0x8130
SLOWLY_S = 20.0
"""Longer than any of it takes on a busy machine, and no 72 hours."""


@pytest.fixture
def file() -> ResultFile:
    content = peers.result_object(ResultKind.REPORT)
    return ResultFile(sop_class_uid=peers.SOP_CLASS[ResultKind.REPORT], size_bytes=len(content), content=content)


Behave = Callable[[socket.socket], None]


def accept(connection: socket.socket, change: Callable[[odd_associations.Acceptance], None] = lambda _: None) -> None:
    """Answer the request, as a test wants it."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    answer = odd_associations.acceptance(peers.read_pdu(connection))
    change(answer)
    content = answer.encoded()
    step = answer.piece_bytes or len(content)
    for start in range(0, len(content), step):
        connection.sendall(content[start : start + step])


def hear(connection: socket.socket) -> tuple[int, dict[int, bytes]]:
    """Read one message with its data set: its context and its command's elements."""
    command, has_data = b"", True
    elements: dict[int, bytes] = {}
    while True:
        pdu = peers.read_pdu(connection)
        if pdu[0] != wire.P_DATA:
            raise ConnectionError(f"PDU {pdu[0]}")
        place = 6
        while place < len(pdu):
            length = int.from_bytes(pdu[place : place + 4])
            context, control, piece = pdu[place + 4], pdu[place + 5], pdu[place + 6 : place + 4 + length]
            place += 4 + length
            if control & 1:
                command += piece
                if control & 2:
                    elements = parse(command)
                    has_data = elements[0x0800] != b"\x01\x01"
                    if not has_data:
                        return context, elements
            elif control & 2:
                return context, elements


def parse(command: bytes) -> dict[int, bytes]:
    found, place = {}, 0
    while place < len(command):
        _, element, length = struct.unpack_from("<HHI", command, place)
        found[element] = command[place + 8 : place + 8 + length]
        place += 8 + length
    return found


def element(tag: int, value: bytes | int) -> bytes:
    content = struct.pack("<H", value) if isinstance(value, int) else value + b"\0" * (len(value) % 2)
    return struct.pack("<HHI", 0, tag, len(content)) + content


def response(request: dict[int, bytes], field: int, *, has_length: bool = True, **changed: int | None) -> bytes:
    """A response of success; `message_id`, `status` and `command` may be another, or None: left out."""
    values: dict[str, int | None] = {
        "command": field,
        "message_id": int.from_bytes(request[0x0110], "little"),
        "status": 0x0000,
        **changed,
    }
    tags = {"command": 0x0100, "message_id": 0x0120, "status": 0x0900}
    parts = [(0x0002, request.get(0x0002) or request.get(0x0003, b"")), (0x0800, 0x0101)]
    parts += [(tags[name], value) for name, value in values.items() if value is not None]  # type: ignore[misc]
    body = b"".join(element(tag, value) for tag, value in sorted(parts))
    return (struct.pack("<HHII", 0, 0, 4, len(body)) if has_length else b"") + body


def say(connection: socket.socket, context: int, command: bytes) -> None:
    connection.sendall(wire.pdu(wire.P_DATA, wire.pdv(command, context_id=context, is_command=True)))


def linger(connection: socket.socket) -> None:
    """Read on, and answer a release."""
    while True:
        pdu = peers.read_pdu(connection)
        if pdu[0] == 0x05:
            connection.sendall(wire.pdu(wire.RELEASE_RP, bytes(4)))


def archive(change: Callable[[odd_associations.Acceptance], None], field: int = STORE) -> Behave:
    """Accept as a test wants it, and answer every message with success."""

    def behave(connection: socket.socket) -> None:
        accept(connection, change)
        context, request = hear(connection)
        say(connection, context, response(request, field))
        linger(connection)

    return behave


def answering(field: int = STORE, **changed: int | None) -> Behave:
    """Accept, and answer with a response that is changed."""

    def behave(connection: socket.socket) -> None:
        accept(connection)
        context, request = hear(connection)
        say(connection, context, response(request, field, **changed))
        linger(connection)

    return behave


def deliver(address: Address, file: ResultFile, told: list[Refusal], timeout_s: float = 2.0) -> int:
    pacs = peers.Sender(peers.destination(address, timeout_s=timeout_s), Refusals(told.append))
    try:
        return pacs.send(file).status
    finally:
        pacs.close()


def test_odd_acceptances_are_accepted(file: ResultFile) -> None:
    account: Counter[str] = Counter()
    refused: dict[str, str] = {}
    for name, change in odd_associations.ANSWERS.items():
        with peers.raw_peer(archive(change)) as address:
            try:
                assert deliver(address, file, [], timeout_s=10.0) == 0x0000
                account["taken"] += 1
            except DeliveryError as error:
                refused[name] = str(error)
    print(f"{len(odd_associations.ANSWERS)} A-ASSOCIATE-AC: taken: {account['taken']}, refused: {len(refused)}")
    assert refused == {}


def _bytewise(connection: socket.socket, context: int, command: bytes) -> None:
    for place in range(len(command)):
        last = place == len(command) - 1
        piece = wire.pdv(command[place : place + 1], context_id=context, is_command=True, is_last=last)
        connection.sendall(wire.pdu(wire.P_DATA, piece))


def _one_pdu(connection: socket.socket, context: int, command: bytes) -> None:
    half = len(command) // 2
    first = wire.pdv(command[:half], context_id=context, is_command=True, is_last=False)
    connection.sendall(wire.pdu(wire.P_DATA, first + wire.pdv(command[half:], context_id=context, is_command=True)))


def _reserved(connection: socket.socket, context: int, command: bytes) -> None:
    piece = struct.pack(">IBB", len(command) + 2, context, 0xFF) + command  # only the low bits are significant
    connection.sendall(struct.pack(">BBI", wire.P_DATA, 0xFF, len(piece)) + piece)


def _dribbled(connection: socket.socket, context: int, command: bytes) -> None:
    for byte in wire.pdu(wire.P_DATA, wire.pdv(command, context_id=context, is_command=True)):
        connection.sendall(bytes([byte]))


def _more_elements(connection: socket.socket, context: int, command: bytes) -> None:
    more = command[12:] + element(0x0901, b"") + element(0x0902, b"stored") + element(0x5010, b"\0\0")
    say(connection, context, struct.pack("<HHII", 0, 0, 4, len(more)) + more)


def _no_length(connection: socket.socket, context: int, command: bytes) -> None:
    say(connection, context, command[12:])


@pytest.mark.parametrize("form", [_bytewise, _one_pdu, _reserved, _dribbled, _more_elements, _no_length])
def test_odd_responses_are_accepted(file: ResultFile, form: Callable[[socket.socket, int, bytes], None]) -> None:
    def behave(connection: socket.socket) -> None:
        accept(connection)
        context, request = hear(connection)
        form(connection, context, response(request, STORE))
        linger(connection)

    told: list[Refusal] = []
    with peers.raw_peer(behave) as address:
        assert deliver(address, file, told, timeout_s=10.0) == 0x0000
    assert told == []


def _garbage(connection: socket.socket) -> None:
    accept(connection)
    context, _ = hear(connection)
    say(connection, context, b"\xff" * 40)
    linger(connection)


def _no_pdv(connection: socket.socket) -> None:
    accept(connection)
    hear(connection)
    connection.sendall(wire.pdu(wire.P_DATA, b"\xff" * 12))
    linger(connection)


def _no_pdu(connection: socket.socket) -> None:
    accept(connection)
    hear(connection)
    connection.sendall(b"HTTP/1.1 500\r\n\r\n")
    linger(connection)


def _huge(connection: socket.socket) -> None:
    accept(connection)
    hear(connection)
    connection.sendall(struct.pack(">BBI", wire.P_DATA, 0, 2**32 - 1))
    linger(connection)


def _aborting(said: bytes, is_early: bool = False) -> Behave:
    def behave(connection: socket.socket) -> None:
        if is_early:
            peers.read_pdu(connection)
        else:
            accept(connection)
            hear(connection)
        connection.sendall(wire.pdu(wire.ABORT, said))
        linger(connection)

    return behave


def _closing(connection: socket.socket) -> None:
    accept(connection)
    hear(connection)
    connection.close()


def _closing_early(connection: socket.socket) -> None:
    peers.read_pdu(connection)
    connection.close()


def _rejecting(said: bytes) -> Behave:
    def behave(connection: socket.socket) -> None:
        peers.read_pdu(connection)
        connection.sendall(wire.pdu(wire.ASSOCIATE_RJ, said))
        linger(connection)

    return behave


def _half_an_acceptance(connection: socket.socket) -> None:
    request = peers.read_pdu(connection)
    answer = odd_associations.acceptance(request)
    answer.after = b"\x70\0\xff\xff"
    connection.sendall(answer.encoded())
    linger(connection)


def _mute(connection: socket.socket) -> None:
    linger(connection)


def _mute_later(connection: socket.socket) -> None:
    accept(connection)
    hear(connection)
    linger(connection)


CONFUSED, ABORTED, REJECTED, MUTE = (
    *(Cause.DESTINATION_CONFUSED, Cause.DESTINATION_ABORTED),
    *(Cause.DESTINATION_REJECTED, Cause.DESTINATION_MUTE),
)
WRONG: dict[str, tuple[Behave, Cause, str]] = {
    "no message": (answering(message_id=None), CONFUSED, r"C-STORE-RSP has no Message ID Being Responded To"),
    "another message": (answering(message_id=999), CONFUSED, r"answered another message: .* 999, not 1"),
    "no status": (answering(status=None), CONFUSED, r"C-STORE-RSP has no Status"),
    "another command": (answering(ECHO), CONFUSED, r"answered a C-STORE-RQ with another command: 0x8030"),
    "no command": (answering(command=None), CONFUSED, "a message that cannot be read"),
    "garbage": (_garbage, CONFUSED, "cannot be read"),
    "no PDV": (_no_pdv, CONFUSED, "a PDU that cannot be read"),
    "no PDU": (_no_pdu, CONFUSED, "a PDU that cannot be read"),
    "a huge PDU": (_huge, CONFUSED, "a PDU of 4294967295 bytes"),
    "abort of the user": (_aborting(bytes(4)), ABORTED, "aborted by the peer's application"),
    "abort of the provider": (_aborting(b"\0\0\2\5"), ABORTED, "Unexpected PDU parameter"),
    "abort that is reserved": (_aborting(b"\0\0\2\x63"), ABORTED, "reserved reason 99"),
    "abort that is empty": (_aborting(b""), ABORTED, "aborted by the peer"),
    "abort of the request": (_aborting(b"\0\0\2\1", True), ABORTED, "Unrecognized PDU"),
    "closing": (_closing, ABORTED, "no answer: the peer closed the connection"),
    "closing early": (_closing_early, ABORTED, "association request: the peer closed the connection"),
    "rejection": (_rejecting(b"\0\1\1\3"), REJECTED, r"rejected \(permanent\): Calling AE title not recognized"),
    "rejection for now": (_rejecting(b"\0\2\3\1"), REJECTED, r"rejected \(transient\): Temporary congestion"),
    "rejection that is reserved": (_rejecting(b"\0\1\1\5"), REJECTED, "reserved reason 1/5"),
    "rejection of nothing": (_rejecting(bytes(4)), REJECTED, "reserved result 0"),
    "half an acceptance": (_half_an_acceptance, CONFUSED, "an item 70H of 65535 bytes"),
    "mute": (_mute, MUTE, "no answer to the association request in 2 s"),
    "mute later": (_mute_later, MUTE, "no answer within 2 s"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_answer_is_named_counted_and_soon_over(file: ResultFile, name: str) -> None:
    behave, cause, words = WRONG[name]
    told: list[Refusal] = []
    started = time.monotonic()
    with peers.raw_peer(behave) as address, pytest.raises(DeliveryError, match=words) as caught:
        deliver(address, file, told)
    assert not caught.value.permanent  # tried again by the schedule
    assert time.monotonic() - started < SLOWLY_S
    assert [(one.cause, one.host, one.ae_title) for one in told] == [(cause, "127.0.0.1", "RAW")]


def test_a_wrong_answer_is_aborted_and_the_next_delivery_goes_through(file: ResultFile) -> None:
    heard: list[int] = []

    def behave(connection: socket.socket) -> None:
        accept(connection)
        context, request = hear(connection)
        changed: dict[str, int | None] = {} if heard else {"message_id": None}
        say(connection, context, response(request, STORE, **changed))
        heard.append(peers.read_pdu(connection)[0])
        connection.sendall(wire.pdu(wire.RELEASE_RP, bytes(4)))

    with peers.raw_peer(behave) as address:
        pacs = peers.Sender(peers.destination(address, timeout_s=10.0))
        with pytest.raises(DeliveryError, match="no Message ID"):
            pacs.send(file)
        assert pacs.send(file).status == 0x0000
        pacs.close()
    assert heard[0] == wire.ABORT


WRONG_ANSWERS: list[tuple[dict[str, int | None], int, str]] = [
    ({"message_id": None}, 0, "{} has no Message ID Being Responded To"),
    ({"message_id": 7}, 0, "{} answered another message: .* 7, not 1"),
    ({"status": None}, 0, "{} has no Status"),
    ({}, STORE, "answered a .*-RQ with another command: 0x8001"),
]


@pytest.mark.parametrize(("changed", "field", "words"), WRONG_ANSWERS)
def test_a_verification_is_believed_only_as_an_answer_to_it(
    changed: dict[str, int | None], field: int, words: str
) -> None:
    with peers.raw_peer(answering(field or ECHO, **changed)) as address:
        started = time.monotonic()
        with pytest.raises(DeliveryError, match=words.format("C-ECHO-RSP")):
            verification.echo(address, "CXR_NODE", timeout_s=2.0)
    assert time.monotonic() - started < SLOWLY_S


@pytest.mark.parametrize(("changed", "field", "words"), WRONG_ANSWERS)
def test_a_request_for_commitment_too(changed: dict[str, int | None], field: int, words: str) -> None:
    told: list[Refusal] = []
    asked = Transaction(id=1, uid="1.2.3", destination="pacs", references=((wire.DX, "1.2.3.4"),))
    with peers.raw_peer(answering(field or ACTION, **changed)) as address:
        scu = CommitmentScu(peers.destination(address), "CXR_NODE", lambda _: 0, Refusals(told.append))
        started = time.monotonic()
        with pytest.raises(DeliveryError, match=words.format("N-ACTION-RSP")) as caught:
            scu.request(asked)
        scu.close()
    assert not caught.value.permanent
    assert time.monotonic() - started < SLOWLY_S
    assert [one.cause for one in told] == [CONFUSED]


ONE_CONTEXT = [
    name for name in odd_associations.ANSWERS if not name.startswith(("rejected", "contexts that are left out"))
]


def test_odd_acceptances_of_a_verification_are_accepted() -> None:
    """Verification is proposed in one context: what rejects or leaves out a part of them is no acceptance."""
    for name in ONE_CONTEXT:
        with peers.raw_peer(archive(odd_associations.ANSWERS[name], ECHO)) as address:
            verification.echo(address, "CXR_NODE", timeout_s=10.0)
