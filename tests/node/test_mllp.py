"""HL7 over MLLP to receivers of every temper: what counts as delivered, what is tried again, and what never is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cxr_node.config import loader
from cxr_node.config.destinations import Hl7Destination
from cxr_node.errors import ConfigError, DeliveryError, UnreachableError
from cxr_node.node.deliver import mllp
from cxr_node.node.deliver.link import ResultFile, StaleConnectionError, link_to
from cxr_node.node.deliver.mllp import MllpLink
from tests.node import peers
from tests.node.certificates import Authority
from tests.node.mllp_peer import START, Receiver, accepting, acknowledgment, receiving

MESSAGE = (
    "MSH|^~\\&|||||20260101120000+0000||ORU^R01^ORU_R01|CONTROL1|P|2.5.1||||||UNICODE UTF-8\r"
    "PID|1||4711^^^HOSP^PI||Ωμέγα^Zoë^^^^^L^A||20200101|F\rOBR|1||ACC1|18748-4^Report^LN\r"
)
SECOND = MESSAGE.replace("CONTROL1", "CONTROL2")


_OPENED: list[MllpLink] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while _OPENED:
        _OPENED.pop().close()


def file(text: str = MESSAGE) -> ResultFile:
    return ResultFile(sop_class_uid="", size_bytes=len(text), content=text.encode())


def to(port: int, **more: Any) -> Hl7Destination:
    told = {"name": "ris", "kind": "hl7", "address": f"127.0.0.1:{port}", "timeout_s": 0.4}
    return Hl7Destination.model_validate(told | more)


def connect(port: int, **more: Any) -> MllpLink:
    link = link_to(to(port, **more), "CXR_NODE")
    assert isinstance(link, MllpLink)
    _OPENED.append(link)
    return link


def send(link: MllpLink, text: str = MESSAGE) -> str:
    return link.store(link.open([file(text)])[0]).words


def test_messages_go_over_one_connection_addressed_and_framed() -> None:
    receiver = Receiver()
    with receiving(receiver) as port:
        link = connect(port, receiving_application="RIS", receiving_facility="HOSP^1.2.3^ISO", processing_id="T")
        assert send(link) == send(link, SECOND) == "acknowledged=AA"
        link.close()
    header = receiver.messages[0].split(b"\r")[0].split(b"|")
    assert (header[2:6], header[10]) == ([b"CXR_NODE", b"", b"RIS", b"HOSP^1.2.3^ISO"], b"T")
    assert receiver.messages[0].split(b"\r")[1:] == MESSAGE.encode().split(b"\r")[1:]
    assert (len(receiver.messages), receiver.connections) == (2, 1)


@pytest.mark.parametrize(
    ("code", "error", "permanent"),
    [
        ("AE", "", False), ("AE", "207", False), ("AE", "206", False), ("AE", "101", True), ("AE", "204", True),
        ("AR", "", True), ("AR", "200", True), ("AR", "203", True), ("AR", "207", False), ("CE", "", False),
        ("CR", "", True), ("AE", "Z99", False), ("??", "", False),
    ],
)  # fmt: skip
def test_a_refusal_is_permanent_or_not_by_its_codes(code: str, error: str, permanent: bool) -> None:
    receiver = Receiver(lambda message: [acknowledgment(message, code, error)])
    with receiving(receiver) as port, pytest.raises(DeliveryError) as raised:
        send(connect(port))
    assert (raised.value.permanent, raised.value.answered) == (permanent, True)
    assert "CANARY" not in str(raised.value) and "refused" not in str(raised.value)


def test_a_commit_accept_is_delivered() -> None:
    receiver = Receiver(lambda message: [acknowledgment(message, "CA")])
    with receiving(receiver) as port:
        assert send(connect(port)) == "acknowledged=CA"


PASSED_OVER: dict[str, Callable[[bytes], list[bytes | None]]] = {
    "another control id": lambda message: [acknowledgment(message, control_id="OTHER")],
    "no control id": lambda message: [acknowledgment(message, control_id="")],
    "a longer control id": lambda message: [acknowledgment(message, control_id="CONTROL12")],
    "no MSA": lambda message: [START + b"MSH|^~\\&|RIS\r\x1c\r"],
    "no HL7": lambda message: [START + b"hello\r\x1c\r"],
    "empty": lambda message: [START + b"\x1c\r"],
    "never framed": lambda message: [b"MSA|AA|CONTROL1\r"],
    "nothing": lambda message: [],
}


@pytest.mark.parametrize("temper", PASSED_OVER)
def test_what_is_no_answer_to_it_never_counts(temper: str) -> None:
    receiver = Receiver(PASSED_OVER[temper])
    with receiving(receiver) as port, pytest.raises(DeliveryError, match="no answer") as raised:
        send(connect(port))
    assert (raised.value.permanent, raised.value.answered) == (False, False)


def test_an_answer_to_another_message_does_not_hide_the_right_one() -> None:
    receiver = Receiver(lambda message: [acknowledgment(message, "AR", control_id="OTHER"), acknowledgment(message)])
    with receiving(receiver) as port:
        assert send(connect(port)) == "acknowledged=AA"


def test_an_answer_in_pieces_and_with_noise_before_it_is_read() -> None:
    def slowly(message: bytes) -> list[bytes | None]:
        whole = b"\r\n" + acknowledgment(message)
        return [whole[place : place + 7] for place in range(0, len(whole), 7)]

    with receiving(Receiver(slowly)) as port:
        assert send(connect(port)) == "acknowledged=AA"


def test_two_answers_do_not_reach_the_next_message() -> None:
    """The second one says AR to the first; the next message gets its own AA, over a new connection."""
    receiver = Receiver(lambda message: [acknowledgment(message), acknowledgment(message, "AR")])
    with receiving(receiver) as port:
        link = connect(port)
        assert send(link) == send(link, SECOND) == "acknowledged=AA"
        link.close()
    assert len(receiver.messages) == 2


def test_a_late_answer_is_never_read() -> None:
    """The first message gets none in time; its answer, had the connection been kept, would be the second one's."""
    receiver = Receiver(lambda message: [] if b"CONTROL1" in message else accepting(message))
    with receiving(receiver) as port:
        link = connect(port)
        with pytest.raises(DeliveryError, match=r"no answer to it within 0\.4 s"):
            send(link)
        assert send(link, SECOND) == "acknowledged=AA"
        link.close()
    assert receiver.connections == 2


@pytest.mark.parametrize("kept", [0, 20])
def test_a_cut_answer_is_tried_again(kept: int) -> None:
    receiver = Receiver(lambda message: [acknowledgment(message)[:kept], None])
    with receiving(receiver) as port, pytest.raises(DeliveryError) as raised:
        send(connect(port))
    assert not raised.value.permanent and not isinstance(raised.value, StaleConnectionError)
    assert ("its answer was cut" in str(raised.value)) == bool(kept)


def test_a_connection_that_was_lost_while_idle_is_opened_again() -> None:
    """Closed by the receiver after each answer: noticed before the next message, or as a stale connection."""
    receiver = Receiver(lambda message: [acknowledgment(message), None])
    with receiving(receiver) as port:
        link = connect(port)
        assert send(link) == "acknowledged=AA"
        try:
            assert send(link, SECOND) == "acknowledged=AA"
        except StaleConnectionError:
            assert send(link, SECOND) == "acknowledged=AA"
        link.close()


def test_an_endless_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mllp, "MAX_ANSWER_BYTES", 1000)
    receiver = Receiver(lambda message: [START + b"MSH|^~\\&|" + b"x" * 5000])
    with receiving(receiver) as port, pytest.raises(DeliveryError, match="without an end"):
        send(connect(port))


def test_a_repeat_is_the_same_bytes() -> None:
    receiver = Receiver()
    with receiving(receiver) as port:
        for _ in range(2):
            link = connect(port)
            send(link)
            link.close()
    assert receiver.messages[0] == receiver.messages[1]


def test_nobody_there_is_unreachable() -> None:
    link = connect(peers.nobody().port)
    with pytest.raises(UnreachableError, match="connection refused"):
        link.open([file()])
    with pytest.raises(UnreachableError):
        link.probe()


def test_a_probe_sends_no_message() -> None:
    receiver = Receiver()
    with receiving(receiver) as port:
        assert connect(port).probe() == f"mllp://127.0.0.1:{port} takes the connection"
    assert receiver.messages == []


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        ("UNICODE UTF-8", "Ωμέγα^Zoë".encode()),
        ("8859/1", b"?????^Zo\xeb"),
        ("8859/7", b"\xd9\xec\xdd\xe3\xe1^Zo?"),
        ("ASCII", b"?????^Zo?"),
    ],
)
def test_the_character_set_is_the_destination_s(character_set: str, name: bytes) -> None:
    message = mllp.addressed(MESSAGE.encode(), to(1, character_set=character_set))
    header, patient, *_ = message.split(b"\r")
    assert header.split(b"|")[17] == character_set.encode()
    assert patient.split(b"|")[5] == name + b"^^^^^L^A"


def test_no_letter_of_an_identifier_is_replaced() -> None:
    message = MESSAGE.replace("4711^", "Ж4711^").encode()
    assert mllp.addressed(message, to(1))
    with pytest.raises(DeliveryError, match=r"PID-3 cannot be written in 8859/1") as raised:
        mllp.addressed(message, to(1, character_set="8859/1"))
    assert raised.value.permanent and "4711" not in str(raised.value)


def test_over_tls_both_sides_are_known(tmp_path: Path) -> None:
    ca, stranger = Authority(tmp_path), Authority(tmp_path, "other")
    server = ca.issue("ris").server()
    ours = {**ca.issue("node").tls(), "server_name": "localhost"}
    receiver = Receiver()
    with receiving(receiver, server) as port:
        assert send(connect(port, tls=ours, timeout_s=5.0)) == "acknowledged=AA"
        assert connect(port, tls=ours, timeout_s=5.0).probe().endswith(" takes the connection over TLS")
        with pytest.raises(UnreachableError, match="TLS: certificate not accepted"):
            connect(port, tls={**ours, "ca": str(stranger.pem)}, timeout_s=5.0).open([file()])
        with pytest.raises(DeliveryError):
            send(connect(port), SECOND)  # in plain text
    assert len(receiver.messages) == 1


@pytest.mark.parametrize("more", [{}, {"allow_plaintext": True}])
def test_plain_text_to_another_machine_is_refused_unless_allowed(more: dict[str, bool]) -> None:
    there = {"name": "ris", "kind": "hl7", "address": "10.0.0.9:2575", **more}
    config = {"spool": {"path": "/var/lib/cxr-node"}, "destinations": [there]}
    if more:
        assert loader.parse(config).destinations[0].where == "mllp://10.0.0.9:2575"
    else:
        with pytest.raises(ConfigError, match=r"destinations\.ris\.tls: is null and 10\.0\.0\.9 is another machine"):
            loader.parse(config)


@pytest.mark.parametrize("key", [{"send": ["report"]}, {"report_per": "image"}, {"sending_facility": "A|B"}])
def test_a_message_is_of_a_study_and_has_no_kinds(key: dict[str, Any]) -> None:
    there = {"name": "ris", "kind": "hl7", "address": "127.0.0.1:2575", **key}
    with pytest.raises(ConfigError):
        loader.parse({"spool": {"path": "/var/lib/cxr-node"}, "destinations": [there]})
