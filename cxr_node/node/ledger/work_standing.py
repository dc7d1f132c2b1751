"""How far the node is with the radiographs of a work item, read off their rows. Reads only.

An item is finished when one archive has every result of its images that is meant for it, with an SR about each that
was analysed: then what the item says of its output can be retrieved. Other destinations may be down for days.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import sqlalchemy as sa

from cxr_node.node.ledger import results
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.states import OPEN, DeliveryState, InstanceState, StudyState, is_unjudged
from cxr_node.node.ledger.tables import artifacts, deliveries, instance_artifacts, instances, studies
from cxr_node.node.ledger.work_items import CancelReason, InputImage, Output, Stored
from cxr_node.result_kinds import SHAPES, ResultKind

_DOCUMENTS = frozenset({ResultKind.REPORT, ResultKind.MEASUREMENTS})


class Stage(IntEnum):
    """What is awaited; the value is what the manager is told of it, in percent."""

    IMAGES = 10
    JUDGING = 30
    REPORT = 60
    SENDING = 80
    DONE = 100


WORDS = {
    Stage.IMAGES: "images are awaited",
    Stage.JUDGING: "images are being analysed",
    Stage.REPORT: "the report is being made",
    Stage.SENDING: "results are being sent",
}
"""For people who look at the manager's list; none says what was found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a work item stands."""

    stage: Stage
    missing: tuple[InputImage, ...] = ()
    stored: Stored | None = None
    """Where it is DONE."""
    hopeless: CancelReason | None = None
    """Why it will never be DONE, as far as the node can help it."""


def standing(ledger: Ledger, images: Sequence[InputImage], archives: Sequence[str]) -> Standing:
    """Look at the images of an item. `archives` : destinations of DICOM objects, the preferred first."""
    with ledger.database.reading() as connection:
        found = {row["sop_instance_uid"]: row for row in _rows(connection, images)}
        missing = tuple(each for each in images if each.sop_instance_uid not in found)
        if missing:
            return Standing(stage=Stage.IMAGES, missing=missing)
        rows = list(found.values())
        if any(row["state"] == InstanceState.RECEIVED for row in rows):
            return Standing(stage=Stage.JUDGING)
        analysed = {row["id"]: row["study_instance_uid"] for row in rows if _is_analysed(row)}
        if not analysed:
            return Standing(stage=Stage.REPORT, hopeless=_why_none(row["state"] for row in rows))
        waiting = sa.select(studies.c.id).where(
            studies.c.study_instance_uid.in_(set(analysed.values())), studies.c.state == StudyState.WAITING
        )
        if connection.scalar(waiting.limit(1)) is not None:
            return Standing(stage=Stage.REPORT)
        return _sent(connection, analysed, archives)


def _rows(connection: sa.Connection, images: Sequence[InputImage]) -> Sequence[sa.RowMapping]:
    """The last version of each that came."""
    uids = [each.sop_instance_uid for each in images]
    found = sa.select(instances).where(instances.c.sop_instance_uid.in_(uids)).order_by(instances.c.id)
    return connection.execute(found).mappings().all()


def _is_analysed(row: sa.RowMapping) -> bool:
    return row["state"] != InstanceState.REJECTED and not is_unjudged(row)


def _why_none(states: Iterable[str]) -> CancelReason:
    found = set(states)
    if InstanceState.DEAD in found:
        return CancelReason.FAULT
    return CancelReason.SET_ASIDE if InstanceState.SET_ASIDE in found else CancelReason.NOT_ANALYSED


def _sent(connection: sa.Connection, analysed: dict[int, str], archives: Sequence[str]) -> Standing:
    linked = sa.and_(instance_artifacts.c.artifact_id == deliveries.c.artifact_id)
    columns = (instance_artifacts.c.instance_id, deliveries.c.destination, deliveries.c.state)
    due = (
        sa.select(*columns, artifacts.c.kind, artifacts.c.sop_class_uid, artifacts.c.sop_instance_uid)
        .add_columns(artifacts.c.series_instance_uid)
        .join_from(deliveries, artifacts, artifacts.c.id == results.chosen())
        .join(instance_artifacts, linked)
        .where(instance_artifacts.c.instance_id.in_(analysed), instance_artifacts.c.outdated_at.is_(None))
        .order_by(deliveries.c.id)
    )
    rows = [row for row in connection.execute(due).mappings() if SHAPES[ResultKind(row["kind"])].is_dicom]
    for name in archives:
        mine = [row for row in rows if row["destination"] == name]
        has = [row for row in mine if row["state"] == DeliveryState.DELIVERED]
        reported = {row["instance_id"] for row in has if row["kind"] in _DOCUMENTS}
        if reported == set(analysed) and all(row["state"] not in OPEN for row in mine):
            stored = dict.fromkeys(_output(row, analysed[row["instance_id"]]) for row in has)
            return Standing(stage=Stage.DONE, stored=Stored(destination=name, outputs=tuple(stored)))
    if any(row["state"] in OPEN for row in rows):
        return Standing(stage=Stage.SENDING)
    return Standing(stage=Stage.SENDING, hopeless=CancelReason.NOT_STORED if rows else CancelReason.FAULT)


def _output(row: sa.RowMapping, study_instance_uid: str) -> Output:
    return Output(
        study_instance_uid=study_instance_uid,
        series_instance_uid=row["series_instance_uid"] or "",
        sop_class_uid=row["sop_class_uid"],
        sop_instance_uid=row["sop_instance_uid"],
    )
