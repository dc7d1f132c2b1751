"""A spool with received instances, and a judge that needs no network: same bytes in, same results out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cxr_node.config import loader
from cxr_node.config.destinations import STANDARD_KINDS
from cxr_node.config.network import Address
from cxr_node.config.schema import Config
from cxr_node.domain import Origin, Precedent, Reason, View
from cxr_node.node.ledger.ledger import FILE_NAME, Ledger
from cxr_node.node.spool.opening import open_spool
from cxr_node.node.work.worker import Analyser, Worker
from cxr_node.outcome import Artifact, Judgement, NotAnalysed, Outcome, Rejected, Reported
from cxr_node.result_kinds import ReportPer, ResultKind
from tests import postgres
from tests.node import ledgers, peers
from tests.patience import eventually as eventually


def config(path: Path, *addresses: Address, **sections: Any) -> Config:
    """A configuration with destinations pacs0, pacs1, ... that are tried again at once."""
    destinations = [
        {"name": f"pacs{number}", "address": str(address), "timeout_s": 2.0, "report_per": "image"}
        for number, address in enumerate(addresses)
    ]
    content = {
        "spool": {"path": str(path), "min_free_mib": 0},
        "delivery": {"first_delay_s": 0.05, "max_delay_s": 0.2},
        "destinations": destinations,
    }
    return loader.parse(content | sections)


def judgement(number: int) -> Judgement:
    """What is kept of an image for the report of its study; its rows tell which one it is."""
    return Judgement(
        finding=ledgers.finding(),
        rows=number,
        columns=1,
        pixel_aspect=1.0,
        view=View.PA,
        remarks=(),
        cautions=(),
        pixel_digest="",
        header_sha256="",
    )


def lateral(number: int) -> NotAnalysed:
    """How the report of its study lists such an image."""
    return NotAnalysed(
        sop_class_uid="1.2",
        sop_instance_uid=f"1.2.1.1.{number}",
        series_instance_uid="1.2.1.1",
        series_number=1,
        instance_number=number,
        reason=Reason.NOT_FRONTAL,
        sentence="It is lateral.",
    )


def receive(config_: Config, *numbers: int, content: bytes | None = None) -> None:
    """Put instances into spool and ledger as the receiver does; the same number is the same instance."""
    spool, ledger = open_spool(config_.spool), Ledger.of_node(config_)
    try:
        for number in numbers:
            received_at = datetime.now(UTC)
            part = spool.begin()
            part.write(content or f"radiograph {number}".encode())
            stored = spool.store_object(part, received_at)
            origin = Origin(calling_ae_title="MODALITY", peer_host="10.0.0.7", received_at=received_at)
            ledger.add(ledgers.reference(number), origin, stored.sha256, stored.size_bytes)
    finally:
        ledger.close()


def judge(content: bytes, origin: Origin, config_: Config, precedent: Precedent) -> Outcome:
    """`radiograph N` gets three results made of its bytes and its receipt; anything else is rejected, with a note."""
    if not content.startswith(b"radiograph "):
        noted = ResultKind.NOT_ANALYSED in config_.kinds(ReportPer.IMAGE)
        notes = (artifact(ResultKind.NOT_ANALYSED, origin.received_at.microsecond),) if noted else ()
        return Rejected(reason=Reason.NOT_CHEST, sentence="This is no chest.", artifacts=notes)
    number = int(content.removeprefix(b"radiograph ")) * 1_000_000 + origin.received_at.microsecond
    return Reported(finding=ledgers.finding(), artifacts=tuple(artifact(kind, number) for kind in STANDARD_KINDS))


def analyser(process: Callable[..., Outcome] | None = None) -> Analyser:
    """What a worker does with each instance: `judge`, or what a test wants."""
    return Analyser(process=process or judge, report=lambda case, config: None)


def worker(config_: Config, ledger: Ledger, process: Callable[..., Outcome] | None = None, owner: str = "me") -> Worker:
    """A worker on that ledger."""
    return Worker(config_, ledger, open_spool(config_.spool), owner, analyser(process))


def artifact(kind: ResultKind, number: int) -> Artifact:
    """One result object of that number; measurements in all their SOP Classes."""
    sop_classes = peers.MEASUREMENT_CLASSES if kind is ResultKind.MEASUREMENTS else (peers.SOP_CLASS[kind],)
    first, *below = (
        Artifact(
            kind=kind,
            sop_class_uid=sop_class_uid,
            sop_instance_uid=peers.uid(kind, number, choice),
            series_instance_uid=peers.uid(kind, number, 9),
            content=peers.result_object(kind, number, choice=choice),
        )
        for choice, sop_class_uid in enumerate(sop_classes)
    )
    return replace(first, alternatives=tuple(below))


def states(config_: Config) -> list[tuple[str, str | None]]:
    """State and reason of each instance, oldest first."""
    from cxr_node.node.ledger import queries

    ledger = Ledger.of_node(config_)
    try:
        return [(row.state.value, row.reason) for row in reversed(queries.recent(ledger, 10_000))]
    finally:
        ledger.close()


def lose(config_: Config) -> None:
    """Take the ledger away, on whichever engine it is."""
    if config_.ledger.url is None:
        for path in config_.spool.path.glob(f"{FILE_NAME}*"):
            path.unlink()
        return
    with postgres.past_the_node(config_.ledger.url) as connection:
        for table in sa.inspect(connection).get_table_names():
            connection.execute(sa.text(f"DROP TABLE {table} CASCADE"))


def digest(content: bytes) -> str:
    """sha256, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
