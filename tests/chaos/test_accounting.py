"""The account itself: each kind of harm is seen where it was done, and nowhere else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cxr_node.config.destinations import STANDARD_KINDS
from cxr_node.domain import Reason
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.spool.spool import Spool
from cxr_node.outcome import Rejected
from tests import builders
from tests.chaos.accounting import Accounting, Source, settle
from tests.chaos.archive import Kept
from tests.node import ledgers, peers, workplace
from tests.node.wire import data_set_of

UIDS = [ledgers.reference(number).sop_instance_uid for number in (1, 2)]
CONTENT = builders.part10(builders.radiograph())
SOURCES = {
    uid: Source(
        sop_instance_uid=uid,
        study_instance_uid=f"1.2.{number}",
        sha256=hashlib.sha256(data_set_of(CONTENT)).hexdigest(),
    )
    for number, uid in enumerate(UIDS, 1)
}
RESULTS = {kind: peers.result_object(kind) for kind in STANDARD_KINDS}
KEPT = [
    Kept(
        sop_instance_uid=f"2.25.{place}",
        sop_class_uid=peers.SOP_CLASS[kind],
        study_instance_uid="1.2.1",
        sha256=hashlib.sha256(data_set_of(content)).hexdigest(),
        at=0.0,
    )
    for place, (kind, content) in enumerate(RESULTS.items())
]


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """The first is DELIVERED, the second REJECTED."""
    config = workplace.config(tmp_path)
    workplace.receive(config, 1, 2, content=CONTENT)
    for content in RESULTS.values():
        Spool(tmp_path).store_result(content)
    for ledger in opened(tmp_path):
        first, second = (ledger.claim_instance("me", 60.0) for _ in range(2))
        assert first is not None and second is not None
        ledger.settle_reported(first, ledgers.finding(), [], {})
        ledger.settle_rejected(second, Rejected(reason=Reason.NOT_CHEST, sentence=""))
    return tmp_path


def opened(path: Path) -> Iterator[Ledger]:
    ledger = Ledger.open(path)
    yield ledger
    ledger.close()


def account(spool: Path, kept: list[Kept] = KEPT, acknowledged: list[str] = UIDS) -> Accounting:
    return settle(spool, SOURCES, acknowledged, [kept])


def test_all_is_well(spool: Path) -> None:
    seen = account(spool)
    assert seen.is_clean
    assert str(seen) == "acknowledged=2 delivered=1 rejected=1 dead=0 lost=0 doubled=0 truncated=0"
    assert account(spool, KEPT + KEPT).is_clean, "the same bytes once more are no second object"


def test_lost_is_what_a_destination_lacks(spool: Path) -> None:
    assert account(spool, KEPT[:2]).lost == 1


def test_lost_is_what_the_ledger_does_not_know_or_has_not_settled(spool: Path) -> None:
    workplace.receive(workplace.config(spool), 3, content=CONTENT)
    waiting, unknown = ledgers.reference(3).sop_instance_uid, "1.2.4.1.1"
    sources = SOURCES | {uid: replace(SOURCES[UIDS[0]], sop_instance_uid=uid) for uid in (waiting, unknown)}
    seen = settle(spool, sources, [*UIDS, waiting, unknown], [KEPT])
    assert (seen.acknowledged, seen.lost, seen.is_clean) == (4, 2, False)


@pytest.mark.parametrize("other", [{"sop_instance_uid": "2.25.77"}, {"sha256": "0" * 64}])
def test_doubled_is_a_second_uid_or_a_second_content(spool: Path, other: dict[str, str]) -> None:
    assert account(spool, [*KEPT, replace(KEPT[0], **other)]).doubled == 1


def test_truncated_is_what_is_not_whole(spool: Path) -> None:
    (file,) = (spool / "objects").glob("*/*.dcm")
    file.write_bytes(CONTENT[:-1])
    assert account(spool).truncated == 3, "the file, and two rows that point to it"


def test_truncated_is_an_unfinished_file_and_what_a_destination_got_of_nowhere(spool: Path) -> None:
    Spool(spool).begin().write(b"half")
    assert account(spool).truncated == 1
    assert account(spool, [*KEPT, replace(KEPT[0], sha256="0" * 64)]).truncated == 2
