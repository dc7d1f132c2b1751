"""Storage Commitment with destinations of every temper: at once, later, twice, elsewhere, never, and no."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE, build_role
from rich.console import Console

from cxr_node.cli import ledger_tables
from cxr_node.config.destinations import STANDARD_KINDS
from cxr_node.config.network import Address
from cxr_node.config.schema import Config
from cxr_node.domain import Origin
from cxr_node.errors import ResourceError
from cxr_node.node.deliver import retention
from cxr_node.node.deliver.commitment_loop import CommitmentLoop
from cxr_node.node.deliver.loop import DeliveryContext
from cxr_node.node.ledger import commitments, queries, status
from cxr_node.node.ledger.lease_keeper import LeaseKeeper
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.lookup import matching
from cxr_node.node.ledger.queries import DeliveryRow
from cxr_node.node.ledger.states import DeliveryState, PromiseState
from cxr_node.node.process.notify import Role, notify
from cxr_node.node.spool.spool import Area, Spool
from tests.node import committers, peers, wire, workplace
from tests.node.committers import Asked, Committer, call, committing, information, later, report_on, report_to
from tests.node.ledgers import Clock, reference
from tests.node.receivers import Receiving, receiving
from tests.node.test_courier import delivering, judged, settled

UID = "1.2.1.1.1"


@pytest.fixture(autouse=True)
def short_gathering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commitments, "GATHER_S", 0.1)


ALL = [kind.value for kind in STANDARD_KINDS]


def config(folder: Path, address: Address, **more: Any) -> Config:
    """One destination that is to commit itself to one object an image, unless `send` says more."""
    wants = {
        "name": "pacs",
        "address": str(address),
        "report_per": "image",
        "timeout_s": 5.0,
        "commitment_wait_h": 24.0,
        "send": ["heatmap"],
    }
    wants |= more
    return workplace.config(folder / "spool", destinations=[wants])


@contextmanager
def reading(settings: Config) -> Iterator[Ledger]:
    ledger = Ledger.open(settings.spool.path)
    try:
        yield ledger
    finally:
        ledger.close()


def rows(settings: Config, uid: str = UID) -> list[DeliveryRow]:
    with reading(settings) as ledger:
        return [row for story in queries.trace(ledger, uid, {"pacs": "PACS"}) for row in story.deliveries]


def stand(settings: Config, state: PromiseState, count: int = 1) -> bool:
    """Wait until all promises are in that state."""
    return workplace.eventually(lambda: [row.commitment for row in rows(settings)] == [state] * count, 30.0)


def test_a_report_on_the_same_association_commits_all_at_once(tmp_path: Path) -> None:
    committer = Committer()
    with committing(committer) as address:
        settings = config(tmp_path, address)
        judged(settings, 1)
        with delivering(settings):
            assert committer.wait(1)
            (asked,) = committer.asked
            assert report_on(asked.association, information(asked.transaction_uid, asked.uids)) == 0x0000
            assert stand(settings, PromiseState.COMMITTED)
    assert sorted(asked.uids) == sorted(committer.archive.datasets)
    assert {row.transaction_uid for row in rows(settings)} == {asked.transaction_uid}
    assert all(row.committed_at and row.delivered_at and row.asks == 1 for row in rows(settings))
    assert workplace.states(settings) == [("DELIVERED", None)]
    with reading(settings) as ledger:
        assert queries.uncommitted(ledger) == {}
        (story,) = queries.trace(ledger, UID)
    assert [event.what for event in story.events].count("committed") == 1
    console = Console(file=io.StringIO(), width=250)
    console.print(ledger_tables.story(story, {}))
    assert asked.transaction_uid in console.file.getvalue()


def test_an_archive_may_report_before_it_answers_the_request(tmp_path: Path) -> None:
    told: list[int | None] = []

    def before(asked: Asked) -> None:
        told.append(report_on(asked.association, information(asked.transaction_uid, asked.uids)))

    committer = Committer(before=before)
    with committing(committer) as address:
        settings = config(tmp_path, address)
        judged(settings, 1)
        with delivering(settings):
            assert stand(settings, PromiseState.COMMITTED)
            assert committer.wait(1)
    assert (told, len(committer.asked)) == ([0x0000], 1)


def test_hours_later_on_another_association_after_a_restart_and_twice(tmp_path: Path) -> None:
    """Receiver and delivery are new processes by then: the ledger remembers the transaction."""
    committer = Committer()
    with committing(committer) as address:
        settings = config(tmp_path, address)
        judged(settings, 1)
        with delivering(settings):
            assert committer.wait(1)
            assert stand(settings, PromiseState.ASKED)
    (asked,) = committer.asked
    told = information(asked.transaction_uid, asked.uids)
    destinations = [to.model_dump(mode="json") for to in settings.destinations]
    for _ in range(2):
        with receiving(settings.spool.path, destinations=destinations) as node:
            assert [report_to(node.port, told) for _ in range(2)] == [0x0000, 0x0000]
    assert stand(settings, PromiseState.COMMITTED)
    with reading(settings) as ledger:
        (story,) = queries.trace(ledger, UID)
    assert [event.what for event in story.events].count("committed") == 1


def test_only_the_destination_itself_is_believed_and_only_about_its_own(tmp_path: Path) -> None:
    committer = Committer()
    with committing(committer) as address:
        settings = config(tmp_path, address)
        judged(settings, 1)
        with delivering(settings):
            assert stand(settings, PromiseState.ASKED)
    (asked,) = committer.asked
    told = information(asked.transaction_uid, asked.uids)
    nameless = information(asked.transaction_uid, asked.uids)
    del nameless.TransactionUID
    destinations = [to.model_dump(mode="json") for to in settings.destinations]
    with receiving(settings.spool.path, destinations=destinations) as node:
        assert report_to(node.port, told, ae_title="STRANGER") == 0x0115
        assert report_to(node.port, information("1.2.3", asked.uids)) == 0x0115
        assert report_to(node.port, nameless) == 0x0115
        assert report_to(node.port, told, event_type=3) == 0x0113
        assert stand(settings, PromiseState.ASKED)
        assert report_to(node.port, information(asked.transaction_uid, ["1.2.3.4", asked.uids[0]])) == 0x0000
    assert stand(settings, PromiseState.COMMITTED)


def test_what_the_archive_lost_is_sent_again_with_its_reason(tmp_path: Path) -> None:
    """Once: the second report is good. The bytes are the same."""
    committer = Committer()

    def before(asked: Asked) -> None:
        lost = {asked.uids[0]: committers.NO_SUCH_OBJECT} if not committer.asked else {}
        told = information(asked.transaction_uid, [uid for uid in asked.uids if uid not in lost], lost)
        later(asked, told)

    committer.before = before
    with committing(committer) as address:
        settings = config(tmp_path, address, send=ALL)
        judged(settings, 1)
        with delivering(settings):
            assert stand(settings, PromiseState.COMMITTED, 3)
            assert settled(settings, "DELIVERED")
    assert sorted(len(many) for many in committer.archive.datasets.values()) == [1, 1, 2]
    assert all(len(contents) == 1 for contents in committer.archive.digests().values())
    lost = committer.asked[0].uids[0]
    transactions = [asked.transaction_uid for asked in committer.asked if lost in asked.uids]
    assert len(set(transactions)) == 2
    with reading(settings) as ledger:
        (story,) = queries.trace(ledger, UID)
    assert [event.detail for event in story.events if "0x0112; sent again" in event.detail]


def test_an_archive_that_loses_it_every_time_is_given_up_and_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    committer = Committer()
    committer.before = lambda asked: later(
        asked, information(asked.transaction_uid, [], dict.fromkeys(asked.uids, committers.NO_SUCH_OBJECT))
    )
    with committing(committer) as address:
        settings = config(tmp_path, address)
        judged(settings, 1)
        with delivering(settings):
            assert stand(settings, PromiseState.UNCOMMITTED)
    assert len(committer.asked) == commitments.MAX_ASKS
    assert [len(many) for many in committer.archive.datasets.values()] == [commitments.MAX_ASKS]
    assert workplace.states(settings) == [("DELIVERED", None)]
    (row,) = rows(settings)
    assert (row.commitment_detail, row.state) == ("commitment failed: 0x0112", DeliveryState.DELIVERED)
    assert [record for record in caplog.records if record.levelno == logging.ERROR]
    with reading(settings) as ledger:
        seen = status.look(ledger, settings)
    assert seen.uncommitted == {"pacs": {PromiseState.UNCOMMITTED: 1}}
    console = Console(file=io.StringIO(), width=250)
    console.print(ledger_tables.status(seen, {}))
    assert "1 UNCOMMITTED" in console.file.getvalue()


def test_a_reason_that_no_repeat_mends_is_given_up_at_once(tmp_path: Path) -> None:
    committer = Committer()
    committer.before = lambda asked: later(
        asked, information(asked.transaction_uid, [], dict.fromkeys(asked.uids, 0x0122))
    )
    with committing(committer) as address:
        settings = config(tmp_path, address)
        judged(settings, 1)
        with delivering(settings):
            assert stand(settings, PromiseState.UNCOMMITTED)
    assert len(committer.asked) == 1
    assert all(len(many) == 1 for many in committer.archive.datasets.values())


@pytest.mark.parametrize("status_", [None, 0x0118, 0x0211], ids=["no context", "no such SOP class", "unrecognized"])
def test_a_destination_without_the_sop_class_is_said_once_to_be_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, status_: int | None
) -> None:
    monkeypatch.setattr("cxr_node.node.deliver.commitment_loop.MAX_PAUSE_S", 0.05)
    committer = Committer(status=status_ or 0)
    with committing(committer, commits=status_ is not None) as address:
        settings = config(tmp_path, address)
        judged(settings, 1)
        with delivering(settings):
            assert stand(settings, PromiseState.UNCOMMITTED)
            judged(settings, 2)
            assert workplace.eventually(lambda: {row.commitment for row in rows(settings, "1.2.2")} == {"UNCOMMITTED"})
    assert workplace.states(settings) == [("DELIVERED", None)] * 2
    said = [record for record in caplog.records if "accepted, not committed" in record.getMessage()]
    assert [record.levelno for record in said if record.levelno == logging.ERROR] == [logging.ERROR]


@pytest.fixture
def asker(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Builds a commitment loop whose clock stands still."""
    made: list[CommitmentLoop] = []

    def build(settings: Config, clock: Clock) -> CommitmentLoop:
        ledger = Ledger.open(settings.spool.path, now=clock)
        request.addfinalizer(ledger.close)
        keeper = LeaseKeeper(ledger, 60.0)
        request.addfinalizer(keeper.close)
        context = DeliveryContext(
            config=settings, ledger=ledger, spool=Spool(settings.spool.path), owner="me", keeper=keeper
        )
        (destination,) = settings.destinations
        made.append(CommitmentLoop(context, destination, destination.commitment_wait_s or 0.0))
        return made[-1]

    yield build
    for one in made:
        one.close()


def delivered(settings: Config, clock: Clock) -> None:
    """Instance 1 with its results accepted, on that clock."""
    judged(settings, 1)
    ledger = Ledger.open(settings.spool.path, now=clock)
    with ledger.database.writing() as connection:
        connection.exec_driver_sql("UPDATE deliveries SET not_before = 0")
    while job := ledger.claim_delivery("pacs", "me", 60.0):
        assert ledger.settle_delivered(job, 0x0000, promised=True)
    ledger.close()


def test_an_archive_that_never_answers_is_asked_three_times_and_then_shown(
    tmp_path: Path, asker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """About all three results in one N-ACTION each time."""
    committer, clock = Committer(), Clock()
    with committing(committer) as address:
        settings = config(tmp_path, address, commitment_wait_h=2.0, send=ALL)
        delivered(settings, clock)
        one = asker(settings, clock)
        clock.forward(1.0)
        for number in range(1, commitments.MAX_ASKS + 1):
            for _ in range(2):  # the second round comes too early
                one.do_one()
                assert len(committer.asked) == number
                clock.forward(3601.0)
    assert len(committer.asked) == commitments.MAX_ASKS
    assert len({asked.transaction_uid for asked in committer.asked}) == commitments.MAX_ASKS
    assert [len(asked.references) for asked in committer.asked] == [3] * commitments.MAX_ASKS
    assert {row.commitment for row in rows(settings)} == {PromiseState.ASKED}
    one.do_one()
    assert {row.commitment for row in rows(settings)} == {PromiseState.UNCOMMITTED}
    assert {row.commitment_detail for row in rows(settings)} == {"no answer to 3 requests"}
    assert [record for record in caplog.records if record.levelno == logging.ERROR]
    ledger = one._context.ledger
    first = commitments.find(ledger, committer.asked[0].transaction_uid)
    assert first is not None
    late = commitments.Report(transaction_uid=first.uid, committed=tuple(committer.asked[0].uids))
    assert commitments.answer(ledger, first, late, float)["committed"] == 3  # better late than never


def test_a_destination_that_is_away_is_asked_when_it_is_back(tmp_path: Path, asker: Any) -> None:
    clock, address = Clock(), peers.nobody()
    settings = config(tmp_path, address)
    delivered(settings, clock)
    one = asker(settings, clock)
    for _ in range(2 * commitments.MAX_ASKS):
        clock.forward(60.0)
        assert one.do_one().is_fixed
    assert [(row.commitment, row.asks) for row in rows(settings)] == [(PromiseState.DUE, 0)]
    with committing(committer := Committer(), ae_title=address.ae_title, port=address.port):
        clock.forward(60.0)
        assert not one.do_one().is_fixed
    assert len(committer.asked) == 1
    assert {row.commitment for row in rows(settings)} == {PromiseState.ASKED}


def test_a_destination_that_stays_away_is_given_up(tmp_path: Path, asker: Any) -> None:
    clock = Clock()
    settings = config(tmp_path, peers.nobody())
    delivered(settings, clock)
    one = asker(settings, clock)
    clock.forward(60.0)
    assert one.do_one().is_fixed
    clock.forward(72 * 3600.0)
    one.do_one()
    assert {row.commitment_detail for row in rows(settings)} == {"could not be asked within 72 h"}


def test_a_process_that_died_while_it_asked_costs_two_minutes(tmp_path: Path, asker: Any) -> None:
    committer, clock = Committer(), Clock()
    with committing(committer) as address:
        settings = config(tmp_path, address)
        delivered(settings, clock)
        one = asker(settings, clock)
        clock.forward(1.0)
        assert commitments.begin(one._context.ledger, "pacs") is not None  # and no N-ACTION
        assert 0 < one.do_one().seconds <= commitments.UNANSWERED_S
        clock.forward(commitments.UNANSWERED_S)
        one.do_one()
        assert len(committer.asked) == 1


def test_retention_keeps_what_waits_for_a_promise(tmp_path: Path) -> None:
    clock = Clock()
    settings = config(tmp_path, peers.nobody())
    delivered(settings, clock)
    ledger, spool = Ledger.open(settings.spool.path, now=clock), Spool(settings.spool.path)
    clock.forward(400 * 86400.0)
    assert retention.sweep(ledger, spool, 30.0) == 0
    assert len(list(spool.digests(Area.RESULTS))) == 5
    assert commitments.abandon(ledger, ["other"]) == 1
    assert retention.sweep(ledger, spool, 30.0) == 1
    assert list(spool.digests(Area.OBJECTS)) == list(spool.digests(Area.RESULTS)) == []
    ledger.close()


def test_an_old_failure_does_not_send_again_what_was_sent_again(tmp_path: Path) -> None:
    clock = Clock()
    settings = config(tmp_path, peers.nobody())
    delivered(settings, clock)
    ledger = Ledger.open(settings.spool.path, now=clock)
    first = commitments.begin(ledger, "pacs")
    assert first is not None
    ((_, uid),) = first.references
    failed = commitments.Report(transaction_uid=first.uid, committed=(), failed={uid: 0x0112})
    assert commitments.answer(ledger, first, failed, float) == {"committed": 0, "sent again": 1}
    assert commitments.answer(ledger, first, failed, float) == {"committed": 0}
    assert workplace.states(settings) == [("REPORTED", None)]
    assert commitments.begin(ledger, "pacs") is None  # first it must be delivered
    clock.forward(5.0)
    job = ledger.claim_delivery("pacs", "me", 60.0)
    assert job is not None
    assert ledger.settle_delivered(job, 0x0000, promised=True)
    assert workplace.states(settings) == [("DELIVERED", None)]
    assert commitments.answer(ledger, first, failed, float) == {"committed": 0}
    ledger.close()


def test_an_operator_may_ask_again(tmp_path: Path) -> None:
    committer = Committer()
    committer.before = lambda asked: later(asked, information(asked.transaction_uid, asked.uids))
    with committing(committer) as address:
        settings = config(tmp_path, address)
        judged(settings, 1)
        with delivering(settings):
            assert stand(settings, PromiseState.COMMITTED)
            with reading(settings) as ledger:
                assert commitments.renew(ledger, matching(UID), ["elsewhere"], by="anna") == 0
                assert commitments.renew(ledger, matching(UID), ["pacs"], by="anna") == 1
            notify(settings.spool.path, Role.DELIVER)  # as `cxr-node retry` does
            assert committer.wait(2)
            assert stand(settings, PromiseState.COMMITTED)
    assert len(committer.asked) == 2


def test_what_comes_back_from_the_archive_is_seen_again(tmp_path: Path) -> None:
    committer = Committer()
    with committing(committer) as address:
        settings = config(tmp_path, address)
        judged(settings, 1)
        with delivering(settings):
            assert stand(settings, PromiseState.ASKED)
    assert [row.seen_again_at for row in rows(settings)] == [None]
    (uid,) = committer.archive.datasets
    with reading(settings) as ledger:
        for ae_title in ("STRANGER", "PACS", "PACS"):
            ref = reference(7, sop_instance_uid=uid, sop_class_uid=peers.SOP_CLASS[peers.ResultKind.HEATMAP])
            origin = Origin(calling_ae_title=ae_title, peer_host="10.0.0.8", received_at=ledger.now())
            ledger.add(ref, origin, workplace.digest(ae_title.encode()), 100)
            seen = [row.seen_again_at for row in rows(settings)]
            assert (seen != [None]) == (ae_title == "PACS")
        (back,) = [story for story in queries.trace(ledger, uid) if story.instance.calling_ae_title == "PACS"]
    assert (back.instance.repeats, back.instance.repeated_at) == (1, seen[0])


def node_of(folder: Path, commitment_wait_h: float | None = 24.0) -> AbstractContextManager[Receiving]:
    """A receiver with one destination."""
    wants = {
        "name": "pacs",
        "address": "PACS@127.0.0.1:104",
        "report_per": "image",
        "commitment_wait_h": commitment_wait_h,
    }
    return receiving(folder / "spool", destinations=[wants])


def test_a_node_that_requests_no_commitment_accepts_no_report(tmp_path: Path) -> None:
    with node_of(tmp_path, None) as node:
        association = call(node.port)
        assert association.accepted_contexts == []
        association.abort()


@pytest.mark.parametrize("role", [True, False])
def test_the_caller_is_the_scp_of_this_sop_class_alone(tmp_path: Path, role: bool) -> None:
    """A caller that says nothing of its role may report too; the answer names no role then."""
    with node_of(tmp_path) as node:
        entity = AE("PACS")
        entity.add_requested_context(committers.PUSH_MODEL)
        entity.add_requested_context(wire.DX)
        asked = [build_role(uid, scp_role=True) for uid in (committers.PUSH_MODEL, wire.DX)] if role else []
        association = entity.associate("127.0.0.1", node.port, ae_title="CXR_NODE", ext_neg=asked)
        answered = {
            str(uid): (item.scu_role, item.scp_role) for uid, item in association.acceptor.role_selection.items()
        }
        assert answered == ({committers.PUSH_MODEL: (False, True)} if role else {})
        assert report_on(association, information("1.2.3", [])) == 0x0115
        association.release()


def pdus(field: int, *, sop_class: str = committers.PUSH_MODEL, context_id: int = 1) -> bytes:
    """A command that announces a data set."""
    command = wire.command(field, sop_class=sop_class.encode(), sop_instance=committers.INSTANCE.encode())
    return wire.pdu(wire.P_DATA, wire.pdv(command, context_id=context_id, is_command=True))


@pytest.mark.parametrize(
    "content",
    [
        pdus(0x0130),
        pdus(0x0100, context_id=3),
        pdus(0x0100) + pdus(0x0100),
        pdus(0x0100) + wire.pdu(wire.P_DATA, wire.pdv(bytes(65536), is_last=False)) * 17,
    ],
    ids=["N-ACTION", "another context", "a command inside", "endless"],
)
def test_a_peer_that_breaks_the_protocol_is_aborted_and_no_other(tmp_path: Path, content: bytes) -> None:
    with node_of(tmp_path) as node:
        with wire.Wire(node.port) as peer:
            assert peer.associate(sop_class=committers.PUSH_MODEL, syntax=wire.IMPLICIT)[0] == wire.ASSOCIATE_AC
            peer.send(content)
            assert peer.receive()[0] == wire.ABORT
        assert report_to(node.port, information("1.2.3", [])) == 0x0115


def test_storage_commitment_stores_nothing(tmp_path: Path) -> None:
    with node_of(tmp_path) as node, wire.Wire(node.port) as peer:
        peer.associate(sop_class=committers.PUSH_MODEL, syntax=wire.IMPLICIT)
        assert peer.store("1.2.3", b"12345678", sop_class=committers.PUSH_MODEL) == 0xA900
        assert queries.recent(node.ledger, 10) == []


def test_a_ledger_that_cannot_be_written_asks_to_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ResourceError("ledger: disk full")

    with node_of(tmp_path) as node:
        monkeypatch.setattr(commitments, "find", broken)
        assert report_to(node.port, information("1.2.3", [])) == 0x0213


def test_every_state_of_a_promise_is_in_the_table_of_moves() -> None:
    assert set(commitments.PROMISE_MOVES) == set(PromiseState)
    assert set(commitments.OPEN) == {one for one, to in commitments.PROMISE_MOVES.items() if PromiseState.ASKED in to}
