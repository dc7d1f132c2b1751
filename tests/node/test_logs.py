"""The log tells operators what happened, and nobody who it happened to."""

from __future__ import annotations

import io
import json
import logging
import re
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from pydicom.uid import ImplicitVRLittleEndian

from cxr_node.config.monitoring import LogFormat
from cxr_node.config.network import Address
from cxr_node.errors import DeliveryError, InstanceError
from cxr_node.node.deliver import courier
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.process import logs
from tests.node import peers, workplace
from tests.processes import free_port

CANARY = "DOE^CANARY"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    ours = logging.getLogger("cxr_node")
    pynetdicom = logging.getLogger("pynetdicom")  # receiver and courier silence it for their whole process
    before = (root.handlers[:], root.level, ours.level, sys.excepthook, threading.excepthook)
    silenced, written = pynetdicom.level, io.StringIO()
    pynetdicom.setLevel(logging.NOTSET)
    logs.configure(stream=written)
    yield written
    logging.captureWarnings(False)
    pynetdicom.setLevel(silenced)
    root.handlers[:], root.level, ours.level, sys.excepthook, threading.excepthook = before


def test_our_events_are_one_line_each(stream: io.StringIO) -> None:
    logging.getLogger("cxr_node.node.work.worker").info("reported instance=%d\nverdict=%s", 7, "NORMAL")
    line, end = stream.getvalue().split("\n")
    assert line.endswith("Z INFO work reported instance=7 verdict=NORMAL")
    assert end == ""


def objects(stream: io.StringIO) -> list[dict[str, object]]:
    """Every line of it, each an object by itself."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_has_the_words_of_a_line_as_members(stream: io.StringIO) -> None:
    logs.configure(stream, form=LogFormat.JSON, role="receive")
    words = "stored instance=%s sha256=%s ae=%r new=%s ms=%.1f 100%%"
    logging.getLogger("cxr_node.node.receive.receiver").info(words, 7, "123456789012", "R\xf6 'A' B", True, 0.25)
    logging.getLogger("cxr_node.node.process.supervisor").error("ended role=%s code=%d", "work", -9)
    stored, ended = objects(stream)
    assert datetime.fromisoformat(str(stored.pop("time"))).tzinfo is not None
    assert stored == {
        **{"level": "INFO", "role": "receive", "stage": "receive", "event": "stored"},
        **{"instance": 7, "sha256": "123456789012", "ae": "R\xf6 'A' B", "new": True, "ms": 0.2},
        "message": "stored instance=7 sha256=123456789012 ae=\"R\xf6 'A' B\" new=True ms=0.2 100%",
    }
    assert (ended["role"], ended["stage"], ended["code"]) == ("work", "process", -9), "the role that it is about"


def test_a_field_never_hides_what_every_line_has(stream: io.StringIO) -> None:
    logs.configure(stream, form=LogFormat.JSON, role="work")
    logging.getLogger("cxr_node.node.work.worker").warning("odd level=%s time=%s message=%s", "1", "2", "3\n4")
    (line,) = objects(stream)
    assert (line["level"], line["message"]) == ("WARNING", "odd level=1 time=2 message=3 4")
    assert line["time"] != 2


def test_json_withholds_what_text_withholds(stream: io.StringIO) -> None:
    logs.configure(stream, form=LogFormat.JSON, role="work")
    logging.getLogger("pydicom.charset").error("name=%s", CANARY)
    try:
        raise ValueError(f"key={CANARY}")
    except ValueError:
        logging.getLogger("cxr_node.node.work.worker").exception("failed instance=%d", 7)
    foreign, ours = objects(stream)
    assert CANARY not in stream.getvalue()
    assert "text withheld" in str(foreign["message"])
    assert (ours["event"], ours["instance"]) == ("failed", 7)
    assert "ValueError [" in str(ours["message"])


@pytest.mark.parametrize(
    ("library", "message"),
    [
        ("pynetdicom.transport", f"(0010,0010) PN [{CANARY}]"),
        ("pynetdicom.association", f"Unable to decode the received 'Attribute List' dataset\n{CANARY}"),
        ("pydicom.charset", f"Association Accepted {CANARY}"),
        ("pynetdicom.acse", "Association Accepted"),
    ],
)
def test_of_other_libraries_only_the_place_is_shown(stream: io.StringIO, library: str, message: str) -> None:
    logging.getLogger(library).error(message)
    assert "node/test_logs.py" in stream.getvalue()
    assert "text withheld" in stream.getvalue()
    assert message not in stream.getvalue()


def test_exceptions_show_frames_and_only_our_own_words(stream: io.StringIO) -> None:
    def deep() -> None:
        raise ValueError(f"invalid value {CANARY}")

    for logger in ("cxr_node.node.work.worker", "pynetdicom.dul"):
        try:
            try:
                deep()
            except ValueError as error:
                raise InstanceError("the header cannot be read") from error
        except InstanceError:
            logging.getLogger(logger).exception("failed")
    told = stream.getvalue()
    assert "InstanceError: the header cannot be read [" in told
    assert "deep" in told
    assert CANARY not in told


def test_warnings_tell_their_place_only(stream: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn(f"Invalid value for VR UI: {CANARY}", UserWarning, stacklevel=1)
    assert "UserWarning at node/test_logs.py:" in stream.getvalue()
    assert CANARY not in stream.getvalue()


def test_an_exception_that_nobody_caught_is_told_the_same_way(stream: io.StringIO) -> None:
    def fall() -> None:
        raise KeyError(CANARY)

    thread = threading.Thread(target=fall)
    thread.start()
    thread.join()
    assert "CRITICAL" in stream.getvalue()
    assert "uncaught KeyError [" in stream.getvalue()
    assert CANARY not in stream.getvalue()


def lines(stream: io.StringIO, *words: str) -> list[str]:
    """The lines of the log in which those words come in this order, without their time."""
    pattern = re.compile(".*".join(map(re.escape, words)))
    return [line.partition(" ")[2] for line in stream.getvalue().splitlines() if pattern.search(line)]


def test_an_outage_is_one_line_a_try_and_one_when_it_is_over(stream: io.StringIO, tmp_path: Path) -> None:
    """With the destination's name, the instance, a try that is counted, and no second line of pynetdicom's."""
    stop = threading.Event()
    with socket.socket() as reserved:  # bound and not listening: connections are refused, and nobody takes the port
        port = free_port()  # and no connection, before the archive does
        reserved.bind(("127.0.0.1", port))
        config = workplace.config(tmp_path / "spool", Address(ae_title="ARCHIVE", host="127.0.0.1", port=port))
        workplace.receive(config, 1, 2)
        ledger = Ledger.open(config.spool.path)
        worker = workplace.worker(config, ledger)
        assert worker.do_one()
        assert worker.do_one()
        ledger.close()
        told_before = len(stream.getvalue())
        thread = threading.Thread(target=courier.run, args=(config, stop))
        thread.start()
        assert workplace.eventually(lambda: len(lines(stream, "postponed")) >= 4, 60)
    archive = peers.Archive(lambda _: 0x0000)
    with peers.listening(archive, port=port):
        settled = workplace.eventually(lambda: {row[0] for row in workplace.states(config)} == {"DELIVERED"}, 60)
        stop.set()
        thread.join(60)
    assert settled
    assert [line for line in lines(stream, "reported") if "verdict=" in line] == lines(stream, "instance=")[:2]
    tries = lines(stream, "postponed")
    for number, line in enumerate(tries, 1):
        assert line.startswith(f"WARNING deliver postponed destination=pacs0 instance=1 delivery=1 attempt={number} ")
        assert line.endswith("no connection: Connection refused")
    back = lines(stream, "back ")
    assert len(back) == 1
    assert back[0].startswith(f"INFO deliver back destination=pacs0 tries={len(tries)} down_s=")
    delivered = lines(stream, "delivered")
    assert sorted(re.findall(r"instance=(\d+)", " ".join(delivered))) == ["1"] * 3 + ["2"] * 3
    told = stream.getvalue()[told_before:].count("\n")
    others = [*lines(stream, "ready owner"), *lines(stream, f"since the start destination-away={len(tries)}")]
    assert len(others) == 2
    assert told == len(tries) + 1 + len(delivered) + len(others), stream.getvalue()[told_before:]


def test_a_whole_delivery_tells_nothing_of_the_patient(stream: io.StringIO, tmp_path: Path) -> None:
    """With aborts, refusals and a re-encoding on the way, and every logger as talkative as it can be."""
    logging.getLogger().setLevel(logging.DEBUG)
    archive = peers.Archive(lambda count: {2: None, 4: 0xA700, 5: 0xC000}.get(count, 0x0000))
    stop = threading.Event()
    with peers.listening(archive, syntaxes=(ImplicitVRLittleEndian,)) as address:
        config = workplace.config(tmp_path / "spool", address)
        workplace.receive(config, 1, 2)
        ledger = Ledger.open(config.spool.path)
        worker = workplace.worker(config, ledger)
        assert worker.do_one()
        assert worker.do_one()
        ledger.close()
        thread = threading.Thread(target=courier.run, args=(config, stop))
        thread.start()
        settled = workplace.eventually(lambda: {row[0] for row in workplace.states(config)} == {"DELIVERED", "DEAD"})
        stop.set()
        thread.join(20)
    assert settled
    assert "dead destination=pacs0" in stream.getvalue()
    assert "pynetdicom" not in stream.getvalue(), "what it has to say is in our line"
    assert "CANARY" not in stream.getvalue()


def test_the_chain_of_causes_is_kept() -> None:
    try:
        try:
            raise OSError(CANARY)
        except OSError as error:
            raise DeliveryError("no connection", permanent=False) from error
    except DeliveryError as error:
        told = logs.describe(error)
    assert told.startswith("DeliveryError: no connection [")
    assert "<- OSError [" in told
