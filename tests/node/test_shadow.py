"""Shadow: everything is made, kept and counted, and nothing leaves until a person says so; then each object once."""

from __future__ import annotations

import multiprocessing
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cxr_node.config.schema import Config
from cxr_node.domain import Reason
from cxr_node.node.deliver import courier, retention
from cxr_node.node.ledger import (
    browse,
    expiry,
    holds,
    listing,
    operator_moves,
    queries,
    set_aside,
    shadow,
    status,
    studies,
)
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.ripening import Judged, Ripening
from cxr_node.node.ledger.shadow import Which
from cxr_node.node.ledger.stages import Stage
from cxr_node.node.ledger.states import InstanceState, OwnReason, SetAsideReason
from cxr_node.node.ledger.tables import artifacts, deliveries, instances
from cxr_node.node.spool.spool import Spool
from cxr_node.outcome import Rejected
from cxr_node.result_kinds import ReportPer, ResultKind, Wish
from tests.node import crash_child, ledgers, peers, workplace
from tests.node.ledgers import ALL, Clock, retried
from tests.node.test_courier import delivering, judged
from tests.node.test_ledger import PACS, add, claimed, clock, due, ledger, reported, state

__all__ = ["clock", "ledger"]  # fixtures

FORKS = multiprocessing.get_context("forkserver")
DARK = {"pacs": Wish(per=ReportPer.IMAGE, kinds=tuple(ALL), live_share=0.0)}
EVERYTHING = Which()
DAY = 86400.0


def kept(ledger: Ledger) -> dict[str, int]:
    return {name: each.objects for name, each in shadow.look(ledger).items()}


def events(ledger: Ledger, number: int = 1) -> list[tuple[str, str]]:
    (story,) = queries.trace(ledger, f"#{number}")
    return [(event.what, event.detail) for event in story.events]


# --- what is chosen --------------------------------------------------------------------------------------------------


def test_a_share_of_studies_is_live_and_a_greater_share_has_them_too() -> None:
    uids = [f"2.25.{number}" for number in range(4000)]

    def live(share: float) -> set[str]:
        wish = Wish(per=ReportPer.STUDY, kinds=(), live_share=share)
        return {uid for uid in uids if not wish.is_shadow(uid)}

    fifth, half = live(0.2), live(0.5)
    assert 700 < len(fifth) < 900  # 800; 4 standard deviations are 100
    assert fifth < half < live(1.0) == set(uids)
    assert live(0.0) == set()
    assert live(0.2) == fifth, "asked again it is the same"


@pytest.mark.parametrize(
    ("results", "own", "share"),
    [
        ({}, {}, 1.0),
        ({"release": "shadow"}, {}, 0.0),
        ({"release_share": 0.2}, {}, 0.2),
        ({"release_share": 0.2}, {"release": "live"}, 1.0),
        ({"release_share": 0.2}, {"release": "shadow"}, 0.0),
        ({"release_share": 0.2}, {"release_share": 0.6}, 0.6),
        ({"release": "shadow"}, {"release": "live"}, 1.0),
        ({"release": "shadow"}, {"release": "live", "release_share": 0.1}, 0.1),
    ],
)
def test_a_destination_may_say_otherwise(
    tmp_path: Path, results: dict[str, Any], own: dict[str, Any], share: float
) -> None:
    told = [{"name": "pacs", "address": "PACS@10.0.0.5:104", **own}]
    config = workplace.config(tmp_path, results=results, destinations=told)
    assert config.live_share(config.destinations[0]) == config.wishes["pacs"].live_share == share
    assert config.answer_sha256 == workplace.config(tmp_path).answer_sha256, "the same result under the same UIDs"


# --- states ----------------------------------------------------------------------------------------------------------


def test_it_is_kept_and_no_courier_claims_it(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock, 1, DARK)
    assert state(ledger) is InstanceState.SHADOW
    assert kept(ledger) == {"pacs": 3}
    assert ledger.claim_delivery("pacs", "courier", 60.0) is None
    assert queries.next_delivery_s(ledger, "pacs") is None
    assert listing.oldest_deliveries(ledger) == {}, "nothing waits, and no alert says so"
    wanted = listing.Wanted(stage=Stage.SHADOW)
    assert browse.count(ledger, wanted).number == 1
    assert [row.id for row in browse.page(ledger, wanted).rows] == [1]
    there = listing.Wanted(stage=Stage.SHADOW, destination="pacs")
    assert [row.id for row in listing.find(ledger, there, 9)] == [1]
    assert listing.find(ledger, listing.Wanted(stage=Stage.SHADOW, destination="ward"), 9) == []


def test_sent_it_is_due_once_whoever_asks_again(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock, 1, DARK)
    clock.forward(40 * DAY)
    done = shadow.send(ledger, EVERYTHING, by="anna")
    assert (done.objects, done.replaced) == (Counter(pacs=3), Counter())
    assert not shadow.send(ledger, EVERYTHING, by="bert").objects
    assert state(ledger) is InstanceState.REPORTED
    for _ in range(3):
        job = due(ledger)
        assert job.is_released
        assert job.first_due_at == job.late_from == clock(), "the time in shadow counts against nothing"
        assert ledger.settle_delivered(job, 0x0000)
    assert ledger.claim_delivery("pacs", "courier", 60.0) is None
    assert state(ledger) is InstanceState.DELIVERED
    assert events(ledger).count(("shadow", "sent, by anna")) == 1


def test_expired_it_is_set_aside_and_can_be_taken_back(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock, 1, DARK)
    assert shadow.expire(ledger, EVERYTHING, by="anna").objects == Counter(pacs=3)
    row = queries.trace(ledger, "#1")[0].instance
    assert (row.state, row.reason) == ("SET_ASIDE", OwnReason.SHADOW_EXPIRED)
    assert not shadow.send(ledger, EVERYTHING, by="bert").objects
    assert retried(ledger, "1.2.1", "pacs") == 1
    assert due(ledger).artifact.kind == ResultKind.REPORT


def test_what_one_destination_has_another_may_still_get(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock, 1, PACS | {"ward": DARK["pacs"]})
    assert state(ledger) is InstanceState.REPORTED
    for _ in range(3):
        assert ledger.settle_delivered(due(ledger), 0x0000)
    assert state(ledger) is InstanceState.SHADOW
    assert shadow.send(ledger, Which(destination="pacs"), by="anna").objects == Counter()
    assert shadow.send(ledger, Which(destination="ward"), by="anna").objects == Counter(ward=3)


def test_the_note_about_a_rejected_image_stays_too_and_so_do_its_bytes(ledger: Ledger, clock: Clock) -> None:
    add(ledger, clock)
    wish = {"pacs": Wish(per=ReportPer.IMAGE, kinds=(ResultKind.NOT_ANALYSED,), live_share=0.0)}
    note = [replace(ledgers.results()[0], kind=ResultKind.NOT_ANALYSED)]
    refused = Rejected(reason=Reason.NOT_CHEST, sentence="This is no chest.")
    assert ledger.settle_rejected(claimed(ledger), refused, note, wish)
    assert (state(ledger), kept(ledger)) == (InstanceState.REJECTED, {"pacs": 1})
    clock.forward(10 * DAY)
    assert expiry.expired(ledger, clock()) == []
    assert shadow.send(ledger, EVERYTHING, by="anna").objects == Counter(pacs=1)
    assert state(ledger) is InstanceState.REJECTED


def test_whole_studies_are_sent(ledger: Ledger, clock: Clock) -> None:
    for number in (1, 2):
        reported(ledger, clock, number, DARK)
    assert add(ledger, clock, 3, study_instance_uid="1.2.1")
    assert ledger.settle_reported(claimed(ledger), ledgers.finding(), ledgers.results(3), DARK)
    of_one = Which(images=[instances.c.id == 1])
    assert {name: each.objects for name, each in shadow.look(ledger, of_one).items()} == {"pacs": 6}
    assert shadow.send(ledger, of_one, by="anna").objects == Counter(pacs=6)
    assert kept(ledger) == {"pacs": 3}


def test_a_version_that_was_corrected_meanwhile_is_not_sent(ledger: Ledger, clock: Clock) -> None:
    """A patient's wrong name must not be sent along with the right one."""
    reported(ledger, clock, 1, DARK)
    assert add(ledger, clock, content=99)
    assert ledger.settle_reported(claimed(ledger), ledgers.finding(), ledgers.results(9), DARK)
    done = shadow.send(ledger, EVERYTHING, by="anna")
    assert (done.objects, done.replaced) == (Counter(pacs=3), Counter(pacs=3))
    uids = {due(ledger).artifact.sop_instance_uid for _ in range(3)}
    assert uids == {each.sop_instance_uid for each in ledgers.results(9)}
    assert ledger.claim_delivery("pacs", "courier", 60.0) is None


def test_judged_again_with_another_answer_the_earlier_one_is_withdrawn(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock, 1, DARK)
    operator_moves.rejudge(ledger, [1], by="anna")
    assert ledger.settle_reported(claimed(ledger), ledgers.finding(), ledgers.results(5), DARK)
    assert kept(ledger) == {"pacs": 3}
    assert state(ledger) is InstanceState.SHADOW


def test_resend_and_retry_send_nothing_out_of_shadow(ledger: Ledger, clock: Clock, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "bytes")
    spool.store.prepare()
    reported(ledger, clock, 1, DARK)
    with ledger.database.writing() as connection:  # bytes that are there
        for each in ledgers.results():
            digest = spool.store_result(each.sop_instance_uid.encode()).sha256
            named = artifacts.c.sop_instance_uid == each.sop_instance_uid
            connection.execute(sa.update(artifacts).where(named).values(content_sha256=digest))
    done = operator_moves.resend(ledger, spool, [1], DARK, named=True, by="anna")
    assert (done.due, done.shadow, done.waiting) == (Counter(), 3, 0)
    both = DARK | {"ward": DARK["pacs"]}
    assert operator_moves.resend(ledger, spool, [1], both, named=True, by="anna").shadow == 6
    assert kept(ledger) == {"pacs": 3, "ward": 3}, "a destination that is new is in shadow too"
    assert retried(ledger, "1.2.1", "pacs") == 0
    assert state(ledger) is InstanceState.SHADOW


def test_a_person_may_set_it_aside_and_a_hold_holds_what_was_let_out(ledger: Ledger, clock: Clock) -> None:
    for number in (1, 2):
        reported(ledger, clock, number, DARK)
    done = set_aside.set_aside(ledger, [1], SetAsideReason.TEST_IMAGE, by="anna")
    assert (done.ids, done.deliveries) == ((1,), 3)
    assert state(ledger) is InstanceState.SET_ASIDE
    holds.hold(ledger, "pacs", "anna")
    assert shadow.send(ledger, EVERYTHING, by="anna").objects == Counter(pacs=3)
    assert ledger.claim_delivery("pacs", "courier", 60.0) is None
    assert holds.release(ledger, "pacs", by="anna") == 3


def test_it_expires_after_its_days_and_its_bytes_go_with_others_of_their_age(tmp_path: Path, clock: Clock) -> None:
    config = workplace.config(tmp_path, peers.nobody(), results={"release": "shadow"})
    judged(config, 1)
    ledger = Ledger.of_node(config)
    at = ledger.now()
    spool = Spool(config.spool.path)
    ledger.now = lambda: clock()
    try:
        clock.time = at
        clock.forward(20 * DAY)
        assert shadow.expire_old(ledger, 30.0) == 0
        assert retention.sweep(ledger, spool, 10.0) == 0, "bytes that may still be sent stay"
        clock.forward(11 * DAY)
        assert shadow.expire_old(ledger, 30.0) == 3
        row = queries.trace(ledger, "#1")[0].instance
        assert (row.state, row.reason, row.sentence) == ("SET_ASIDE", "shadow-expired", "after 30 days")
        assert retention.sweep(ledger, spool, 10.0) == 1, "no longer than they had to"
    finally:
        ledger.close()


def test_the_report_of_a_study_and_its_messages_stay_too(ledger: Ledger, clock: Clock) -> None:
    """For a DICOM archive, for HL7 and for FHIR; the notes of a study without a report as well."""
    kinds = {"pacs": (ResultKind.REPORT,), "ris": (ResultKind.HL7,), "ehr": (ResultKind.FHIR,)}
    told = {name: Wish(per=ReportPer.STUDY, kinds=each, live_share=0.0) for name, each in kinds.items()}
    add(ledger, clock)
    judged = Judged(text="{}", is_listed=False, ripening=Ripening(quiet_s=0.0, max_wait_s=0.0))
    assert ledger.settle_reported(claimed(ledger), ledgers.finding(), [], told, judged)
    assert state(ledger) is InstanceState.REPORTED, "it waits for its study"
    job = studies.claim_study(ledger, "worker", 60.0)
    assert job is not None
    documents = [
        replace(one, per=ReportPer.STUDY, kind=kind)
        for one, kind in zip(ledgers.results(), (ResultKind.REPORT, ResultKind.HL7, ResultKind.FHIR), strict=True)
    ]
    assert studies.settle_study(ledger, job, "PNEUMONIA", documents, told)
    assert state(ledger) is InstanceState.SHADOW
    assert kept(ledger) == {"ehr": 1, "pacs": 1, "ris": 1}
    assert all(ledger.claim_delivery(name, "courier", 60.0) is None for name in told)
    assert shadow.send(ledger, Which(destination="ris"), by="anna").objects == Counter(ris=1)
    assert due(ledger, "ris").artifact.kind is ResultKind.HL7
    assert kept(ledger) == {"ehr": 1, "pacs": 1}


# --- the wire --------------------------------------------------------------------------------------------------------


@contextmanager
def recording() -> Iterator[tuple[int, list[float]]]:
    """A port that notes whoever connects, with whatever protocol."""
    calls: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                calls.append(1.0)
                connection.close()

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield server.getsockname()[1], calls
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def of_every_kind(port: int) -> list[dict[str, Any]]:
    return [
        {"name": "pacs", "address": f"PACS@127.0.0.1:{port}", "report_per": "image", "commitment_wait_h": 24},
        {"kind": "dicomweb", "name": "cloud", "url": f"http://127.0.0.1:{port}/dicom-web", "report_per": "image"},
        {"kind": "hl7", "name": "ris", "address": f"127.0.0.1:{port}"},
        {"kind": "fhir", "name": "ehr", "url": f"http://127.0.0.1:{port}/r4"},
    ]


def test_nothing_leaves_by_any_protocol_not_even_a_connection(tmp_path: Path) -> None:
    with recording() as (port, calls):
        config = workplace.config(tmp_path, destinations=of_every_kind(port), results={"release": "shadow"})
        judged(config, *range(1, 6))
        with delivering(config):
            judged(config, *range(6, 9))
            threading.Event().wait(1.0)
        assert calls == []
        ledger = Ledger.of_node(config)
        try:
            assert kept(ledger) == {"pacs": 24, "cloud": 24}
            assert queries.uncommitted(ledger) == {}, "and nobody is asked to commit"
            seen = status.look(ledger, config)
            assert status.raised(status.parse("dead,down,waiting,uncommitted"), seen) == []
        finally:
            ledger.close()


@pytest.fixture
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody wakes the courier here, as the command line does."""
    monkeypatch.setattr(courier, "LOOK_AFTER_S", 0.5)


@pytest.mark.usefixtures("looks_often")
def test_live_again_it_stays_and_then_everything_goes_once(tmp_path: Path) -> None:
    archive = peers.Archive()
    with peers.listening(archive) as address:
        config = workplace.config(tmp_path, address, results={"release": "shadow"})
        judged(config, *range(1, 5))
        live = workplace.config(tmp_path, address)
        with delivering(live):
            judged(live, 5)
            assert archive.wait(3)
            assert workplace.eventually(lambda: workplace.states(live)[-1][0] == "DELIVERED")
            assert len(archive.datasets) == 3, "what was in shadow before stays there"
            ledger = Ledger.of_node(live)
            assert shadow.send(ledger, EVERYTHING, by="anna").objects == Counter(pacs0=12)
            ledger.close()
            assert workplace.eventually(lambda: {state for state, _ in workplace.states(live)} == {"DELIVERED"})
    assert len(archive.datasets) == 15
    assert all(len(many) == 1 for many in archive.datasets.values())


@pytest.mark.usefixtures("looks_often")
def test_what_was_due_before_the_shadow_does_not_leave_but_what_was_let_out_does(tmp_path: Path) -> None:
    archive = peers.Archive()
    with peers.listening(archive) as address:
        judged(workplace.config(tmp_path, address), 1)
        dark = workplace.config(tmp_path, address, results={"release": "shadow"})
        with delivering(dark):
            assert workplace.eventually(lambda: workplace.states(dark) == [("SHADOW", None)])
            assert archive.datasets == {}
            ledger = Ledger.of_node(dark)
            shadow.send(ledger, EVERYTHING, by="anna")
            ledger.close()
            assert workplace.eventually(lambda: workplace.states(dark) == [("DELIVERED", None)])
    assert len(archive.datasets) == 3


def test_all_objects_of_a_study_agree(tmp_path: Path) -> None:
    archive = peers.Archive()
    with peers.listening(archive) as address:
        config = workplace.config(tmp_path, address, results={"release_share": 0.5})
        judged(config, *range(20))
        wish = config.wishes["pacs0"]
        live = {f"1.2.{number}" for number in range(20) if not wish.is_shadow(f"1.2.{number}")}
        assert 0 < len(live) < 20
        with delivering(config):
            assert archive.wait(3 * len(live))
            assert workplace.eventually(lambda: "REPORTED" not in {state for state, _ in workplace.states(config)})
    assert len(archive.datasets) == 3 * len(live)
    assert Counter(state for state, _ in workplace.states(config)) == {"DELIVERED": len(live), "SHADOW": 20 - len(live)}


# --- killed in the middle --------------------------------------------------------------------------------------------


def _send_and_die(config: Config, place: str, when: str, nth: int) -> None:
    shadow._BATCH = 4  # so that there are several
    crash_child.kill_at(place, when, nth)
    ledger = Ledger.of_node(config)
    shadow.send(ledger, EVERYTHING, by="anna")


@pytest.mark.usefixtures("looks_often")
@pytest.mark.parametrize(
    ("place", "when", "nth"),
    [
        ("cxr_node.node.ledger.shadow:_reopen", "before", 2),
        ("cxr_node.node.ledger.shadow:_is_present", "before", 6),
        ("cxr_node.node.ledger.shadow:conclude", "after", 2),
    ],
)
def test_killed_in_the_middle_of_a_release_everything_goes_once(
    tmp_path: Path, engine: dict[str, Any], place: str, when: str, nth: int
) -> None:
    archive = peers.Archive()
    with peers.listening(archive) as address:
        config = workplace.config(tmp_path, address, results={"release": "shadow"}, **engine)
        workplace.receive(config, 1, 2, 3, 4)
        ledger = Ledger.of_node(config)
        worker = workplace.worker(config, ledger)
        while worker.do_one():
            pass
        process = FORKS.Process(target=_send_and_die, args=(config, place, when, nth))
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        left = kept(ledger)["pacs0"]
        assert 0 < left < 12
        with delivering(config):
            assert archive.wait(12 - left)
            assert shadow.send(ledger, EVERYTHING, by="anna").objects == Counter(pacs0=left)
            assert workplace.eventually(lambda: {state for state, _ in workplace.states(config)} == {"DELIVERED"})
        with ledger.database.reading() as connection:
            assert set(connection.scalars(sa.select(deliveries.c.attempts))) == {1}
        ledger.close()
    assert len(archive.datasets) == 12
    assert all(len(many) == 1 for many in archive.datasets.values())
