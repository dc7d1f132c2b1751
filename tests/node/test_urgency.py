"""STAT first: what a sender calls urgent is judged and delivered before what waits longer (PS3.7 9.3.1.1)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from cxr_node.config.network import Address
from cxr_node.dicom.read import header
from cxr_node.domain import Priority
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.tables import instances
from cxr_node.node.receive.recovery import rebuild
from cxr_node.node.spool.spool import Spool
from cxr_node.tools import send
from tests import builders
from tests.node.ledgers import ALL, Clock, digest, finding, opened, origin, reference, results, wishes
from tests.node.receivers import receiving

HIGH, MEDIUM, LOW = Priority.HIGH, Priority.MEDIUM, Priority.LOW


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    with opened("sqlite", tmp_path, clock) as ledger:
        yield ledger


def arrive(ledger: Ledger, clock: Clock, *priorities: Priority) -> None:
    for number, priority in enumerate(priorities, 1):
        ledger.add(reference(number), origin(clock), digest(number), 4711, priority)


def judged(ledger: Ledger) -> list[str]:
    """The order in which instances are claimed; each is reported, and its results are due."""
    order = []
    while job := ledger.claim_instance("worker", 60.0):
        number = job.ref.sop_instance_uid.split(".")[2]
        order.append(number)
        assert ledger.settle_reported(job, finding(), results(int(number)), wishes(pacs=ALL))
    return order


def test_the_urgent_come_first_and_equals_by_age(ledger: Ledger, clock: Clock) -> None:
    arrive(ledger, clock, LOW, MEDIUM, HIGH, MEDIUM, HIGH)
    assert judged(ledger) == ["3", "5", "2", "4", "1"]


def test_the_results_of_the_urgent_leave_first(ledger: Ledger, clock: Clock) -> None:
    arrive(ledger, clock, LOW, MEDIUM)
    judged(ledger)
    ledger.add(reference(3), origin(clock), digest(3), 4711, HIGH)
    judged(ledger)
    sent = []
    while job := ledger.claim_delivery("pacs", "sender", 60.0):
        sent.append(job.artifact.sop_instance_uid.split(".")[2])
    assert sent == ["3"] * 3 + ["2"] * 3 + ["1"] * 3


def test_sent_once_more_as_urgent_it_goes_ahead(ledger: Ledger, clock: Clock) -> None:
    arrive(ledger, clock, MEDIUM, MEDIUM)
    assert not ledger.add(reference(2), origin(clock), digest(2), 4711, HIGH)
    assert not ledger.add(reference(2), origin(clock), digest(2), 4711, LOW)  # it is not called back
    assert judged(ledger) == ["2", "1"]


def test_the_urgent_that_failed_goes_before_the_others_and_behind_its_equals(ledger: Ledger, clock: Clock) -> None:
    arrive(ledger, clock, HIGH, MEDIUM, HIGH)
    failed = ledger.claim_instance("worker", 60.0)
    assert failed is not None
    ledger.release(failed, delay_s=0.0, detail="a bug")
    assert judged(ledger) == ["3", "1", "2"]


def test_the_sender_says_it_on_the_wire_and_a_rebuilt_ledger_has_forgotten_it(tmp_path: Path) -> None:
    files = []
    for number in range(1, 4):
        files.append(tmp_path / f"{number}.dcm")
        files[-1].write_bytes(builders.part10(builders.radiograph(number)))
    with receiving(tmp_path / "spool") as node:
        address = Address(ae_title="CXR_NODE", host="127.0.0.1", port=node.port)
        for file, priority in zip(files, (LOW, MEDIUM, HIGH), strict=True):
            send.store([file], lambda sent: None, address, "MODALITY", priority=priority)
        jobs = [node.ledger.claim_instance("me", 60.0) for _ in files]
        assert [job.priority for job in jobs if job] == [HIGH, MEDIUM, LOW]
    with opened("sqlite", tmp_path / "anew", Clock()) as anew:
        rebuild(anew, Spool(tmp_path / "spool"), header.identify)
        with anew.database.reading() as connection:
            assert list(connection.scalars(sa.select(instances.c.priority))) == [MEDIUM] * 3
