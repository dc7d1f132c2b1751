"""Results at DICOMweb servers, from the ledger on: the pause they ask for, what they lose, and kill -9 in between."""

from __future__ import annotations

import io
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from cxr_node.cli import ledger_tables
from cxr_node.config.schema import Config
from cxr_node.node.audit import recorder
from cxr_node.node.deliver import courier, seen_again
from cxr_node.node.ledger import commitments, queries
from cxr_node.node.ledger.ledger import FILE_NAME, Ledger
from cxr_node.node.ledger.queries import DeliveryRow
from cxr_node.node.ledger.states import PromiseState
from tests.node import origin_servers, peers, workplace
from tests.node.origin_servers import Asked, Origin, Reply, module, reference, says
from tests.node.test_courier import delivering, judged, settled
from tests.patience import FOR_EVER_S
from tests.processes import cxr_node

UID = "1.2.1.1.1"


@pytest.fixture(autouse=True)
def short_gathering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commitments, "GATHER_S", 0.1)
    monkeypatch.setattr(seen_again, "FIRST_S", 0.05)
    monkeypatch.setattr(seen_again, "LONGEST_S", 0.1)


def config(folder: Path, url: str, **more: Any) -> Config:
    wants = {"kind": "dicomweb", "name": "cloud", "url": url, "report_per": "image", "timeout_s": 5.0} | more
    return workplace.config(folder / "spool", destinations=[wants])


@contextmanager
def reading(settings: Config) -> Iterator[Ledger]:
    ledger = Ledger.open(settings.spool.path)
    try:
        yield ledger
    finally:
        ledger.close()


def story(settings: Config, uid: str = UID) -> queries.Story:
    with reading(settings) as ledger:
        return queries.trace(ledger, uid, {to.name: to.ae_title for to in settings.destinations})[0]


def rows(settings: Config, uid: str = UID) -> tuple[DeliveryRow, ...]:
    return story(settings, uid).deliveries


def stand(settings: Config, state: PromiseState, count: int = 3) -> bool:
    return workplace.eventually(lambda: [row.commitment for row in rows(settings)] == [state] * count)


def test_all_results_arrive_once_and_the_ledger_knows(tmp_path: Path) -> None:
    origin = Origin()
    with origin_servers.serving(origin) as url:
        settings = config(tmp_path, url)
        judged(settings, *range(5))
        with delivering(settings):
            assert settled(settings, "DELIVERED", 5)
    assert len(origin.stored) == 15
    assert all(len(many) == 1 for many in origin.stored.values())
    assert origin.connections == 1
    assert {row.commitment for row in rows(settings)} == {None}


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_is_left_alone_for_as_long_as_it_asks(tmp_path: Path, status: int) -> None:
    """The whole destination, not only the object that was refused; longer than the back-off, which is 0.2 s here."""
    tried: list[float] = []

    def busy(asked: Asked, number: int) -> Reply:
        tried.append(time.monotonic())
        if number == 1:
            return Reply(status=status, headers={"Retry-After": "2"})
        return Reply(body=module([reference(asked.uid)]), keeps=True)

    origin = Origin(answer=busy)
    with origin_servers.serving(origin) as url:
        settings = workplace.config(
            tmp_path / "spool",
            destinations=[{"kind": "dicomweb", "name": "cloud", "url": url, "report_per": "image"}],
            delivery={"first_delay_s": 0.05, "max_delay_s": 3},
        )
        judged(settings, 1, 2)
        with delivering(settings):
            assert settled(settings, "DELIVERED", 2)
    assert tried[1] - tried[0] >= 2.0
    assert len(tried) == 7


def test_a_server_that_asks_for_years_is_tried_after_the_longest_delay(tmp_path: Path) -> None:
    origin = Origin(answer=says(503, Retry_After="999999999"))
    with origin_servers.serving(origin) as url:
        settings = config(tmp_path, url)
        judged(settings, 1)
        with delivering(settings):
            assert workplace.eventually(lambda: len(origin.asked) >= 3)
            origin.answer = origin_servers.accepts
            assert settled(settings, "DELIVERED")


def test_what_it_refuses_for_good_is_dead_and_the_rest_goes_on(tmp_path: Path) -> None:
    def answer(asked: Asked, number: int) -> Reply:
        refuses = b"88.11" in asked.file
        return (origin_servers.fails(409, 0xA900) if refuses else origin_servers.accepts)(asked, number)

    origin = Origin(answer=answer)
    with origin_servers.serving(origin) as url:
        settings = config(tmp_path, url)
        judged(settings, 1)
        with delivering(settings):
            assert settled(settings, "DEAD")
    dead = [row for row in rows(settings) if row.last_error]
    assert [(row.kind, row.last_status, row.attempts) for row in dead] == [("report", 0xA900, 1)]
    assert len(origin.stored) == 2


def test_what_is_seen_is_proven_and_trace_says_when(tmp_path: Path) -> None:
    """A server indexes later than it answers."""
    origin, indexed = Origin(), threading.Event()
    shown = origin._find
    origin.find = lambda asked: shown(asked) if indexed.is_set() else Reply(body=[])
    with origin_servers.serving(origin) as url:
        settings = config(tmp_path, url, verify_h=1)
        judged(settings, 1)
        with delivering(settings):
            assert workplace.eventually(lambda: sum(asked.method == "GET" for asked in origin.asked) > 6)
            assert {row.commitment for row in rows(settings)} <= {PromiseState.DUE, PromiseState.ASKED}
            indexed.set()
            assert stand(settings, PromiseState.COMMITTED)
    assert all(len(many) == 1 for many in origin.stored.values()), "not sent again: it is only late"
    told = story(settings)
    assert all(row.seen_again_at == row.committed_at is not None for row in told.deliveries)
    assert {row.asks for row in told.deliveries} == {0}, "what is only late does not count"
    assert sum(event.detail.endswith("at cloud: seen by QIDO-RS") for event in told.events) == 3
    console = Console(file=io.StringIO(), width=200)
    console.print(ledger_tables.story(told, {}))
    assert "seen again (UTC)" in console.file.getvalue()
    with reading(settings) as ledger:
        assert queries.uncommitted(ledger) == {}


def test_what_was_accepted_and_lost_is_sent_again(tmp_path: Path) -> None:
    """Kept by the first answer to a second try only: the same bytes under the same UID."""
    seen: dict[str, int] = {}

    def forgetful(asked: Asked, number: int) -> Reply:
        seen[asked.uid] = seen.get(asked.uid, 0) + 1
        return Reply(body=module([reference(asked.uid)]), keeps=seen[asked.uid] > 1)

    origin = Origin(answer=forgetful)
    with origin_servers.serving(origin) as url:
        settings = config(tmp_path, url, verify_h=0.3 / 3600)
        judged(settings, 1)
        with delivering(settings):
            assert stand(settings, PromiseState.COMMITTED)
    assert set(seen.values()) == {2}
    assert all(len(contents) == 1 for contents in origin.digests().values())
    assert sum("not seen by QIDO-RS; sent again" in event.detail for event in story(settings).events) == 3


def test_what_is_lost_again_and_again_is_told_to_a_person(tmp_path: Path) -> None:
    origin = Origin(answer=lambda asked, number: Reply(body=module([reference(asked.uid)])))
    with origin_servers.serving(origin) as url:
        settings = config(tmp_path, url, verify_h=0.1 / 3600, send=["heatmap"])
        judged(settings, 1)
        with delivering(settings):
            assert stand(settings, PromiseState.UNCOMMITTED, 1)
    assert sum(asked.method == "POST" for asked in origin.asked) == commitments.MAX_ASKS
    assert [row.commitment_detail for row in rows(settings)] == ["not seen by QIDO-RS"]


def test_a_look_that_a_kill_ended_does_not_count(tmp_path: Path) -> None:
    """Found by fifty kills: after three of them an object that was there was given up."""
    origin, gone = Origin(), threading.Event()
    shown = origin._find
    origin.find = lambda asked: shown(asked) if gone.is_set() else Reply(status=503)
    with origin_servers.serving(origin) as url:
        settings = config(tmp_path, url, verify_h=1)
        judged(settings, 1)
        with delivering(settings):
            assert settled(settings, "DELIVERED")
        gone.set()
        with reading(settings) as ledger:
            now = ledger.now
            for minutes in (60, 70, 80, 90):
                ledger.now = lambda later=timedelta(minutes=minutes): now() + later
                begun = commitments.begin(ledger, "cloud", by_query=True)
                assert begun is not None
                assert len(begun.references) == 3
                assert commitments.give_up(ledger, "cloud", 72) == 0
            commitments.postpone(ledger, begun, -24 * 3600, "broke off")
        with delivering(settings):
            assert stand(settings, PromiseState.COMMITTED)
    assert all(len(many) == 1 for many in origin.stored.values())


def test_a_search_that_fails_in_the_middle_keeps_what_was_seen(tmp_path: Path) -> None:
    origin, answered = Origin(), threading.Event()
    shown = origin._find

    def find(asked: Asked) -> Reply:
        looks = sum(one.method == "GET" for one in origin.asked)
        return shown(asked) if looks == 1 or answered.is_set() else Reply(status=503)

    origin.find = find
    with origin_servers.serving(origin) as url:
        settings = config(tmp_path, url, verify_h=1)
        judged(settings, 1)
        with delivering(settings):
            states = [PromiseState.COMMITTED, PromiseState.DUE]
            assert workplace.eventually(
                lambda: (
                    [states.count(row.commitment) for row in rows(settings) if row.commitment] == [1, 1, 1]
                    and [row.commitment for row in rows(settings)].count(PromiseState.COMMITTED) == 1
                )
            )
            answered.set()
            assert stand(settings, PromiseState.COMMITTED)
    assert all(len(many) == 1 for many in origin.stored.values())


def test_no_patient_in_log_audit_url_or_header(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not even where the server quotes one in its answer."""
    caplog.set_level(logging.DEBUG)
    quoted = b'{"error": "CANARY^TEST has no study"}'

    def moody(asked: Asked, number: int) -> Reply:
        media_type = {"Content-Type": "application/json", "X-Patient": "CANARY"}
        if number == 1:
            return Reply(status=409, body=quoted, headers=media_type)
        if number in (2, 3):
            return Reply(status=503 if number == 2 else 200, body=quoted, headers=media_type)
        return Reply(body=module([reference(asked.uid)]), keeps=True)

    origin, stop = Origin(answer=moody), threading.Event()
    with origin_servers.serving(origin) as url:
        settings = config(tmp_path, url, verify_h=1)
        judged(settings, 1)
        with recorder.recording(settings, "deliver") as audit:
            thread = threading.Thread(target=courier.run, args=(settings, stop, None, audit))
            thread.start()
            came = settled(settings, "DEAD") and workplace.eventually(
                lambda: [row.commitment for row in rows(settings)].count(PromiseState.COMMITTED) == 2
            )
            stop.set()
            thread.join(30)
    assert came
    trail = b"".join(path.read_bytes() for path in sorted((tmp_path / "spool" / "audit").glob("*.log")))
    assert url.split("//")[1].split(":")[0].encode() in trail
    written = trail + caplog.text.encode() + (settings.spool.path / FILE_NAME).read_bytes()
    assert all(b"CANARY" in asked.content for asked in origin.asked if asked.method == "POST"), "the test is blind"
    assert b"CANARY" not in written
    assert all("CANARY" not in f"{asked.target}{asked.headers}" for asked in origin.asked)
    ours = {row.sop_instance_uid for row in rows(settings)}
    assert {uid for asked in origin.asked for uid in asked.query.get("SOPInstanceUID", [])} <= ours


REPEATS = {"before it is read": {0}, "before the answer": {1}, "after the answer": {0, 1}}


@pytest.mark.parametrize("moment", REPEATS)
def test_kill_9_in_the_middle_of_a_store_loses_and_doubles_nothing(tmp_path: Path, moment: str) -> None:
    """A real `cxr-node deliver`: killed while it sends, while it waits, and just after it was answered."""
    reached = threading.Event()

    def stall(connection: socket.socket) -> None:
        reached.set()
        connection.recv(1)

    def answer(asked: Asked, number: int) -> Reply:
        if number > 1:
            return Reply(body=module([reference(asked.uid)]), keeps=True)
        if moment == "before the answer":
            return Reply(raw=stall, keeps=True)
        reached.set()
        return Reply(body=module([reference(asked.uid)]), keeps=True)

    origin = Origin(answer=answer)

    def never_reads(connection: socket.socket) -> None:
        connection.recv(10)
        reached.set()
        time.sleep(FOR_EVER_S)

    with peers.raw_peer(never_reads) as deaf:
        first = f"http://127.0.0.1:{deaf.port}/dicom-web" if moment == "before it is read" else ""
        with origin_servers.serving(origin) as url:
            settings = config(tmp_path, first or url)
            judged(settings, 1, 2)
            child = deliver(tmp_path, settings)
            try:
                assert reached.wait(60), "no store was begun"
            finally:
                child.kill()
                child.wait()
            assert -child.returncode == signal.SIGKILL
            with delivering(config(tmp_path, url)):
                assert settled(settings, "DELIVERED", 2)
    assert len(origin.stored) == 6
    assert all(len(contents) == 1 for contents in origin.digests().values())
    assert sum(len(many) - 1 for many in origin.stored.values()) in REPEATS[moment]


def deliver(folder: Path, settings: Config) -> subprocess.Popen[bytes]:
    file = folder / "node.yaml"
    content = settings.model_dump(mode="json", exclude_defaults=True)
    content["destinations"] = [to.model_dump(mode="json") for to in settings.destinations]
    content["work"] = {"lease_s": 1.0}
    file.write_text(yaml.safe_dump(content))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    return subprocess.Popen(cxr_node("deliver", file), env=environment, stderr=subprocess.DEVNULL)
