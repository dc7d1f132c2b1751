"""Earlier radiographs: one order for each study, leased as any work is, and settled once with what came of it.

The order is made in the transaction that makes its study wait (`ripening`); the study waits for it, but no longer than
for its images. What was fetched is judged once, with the first report; what is settled stays, so that a later report
of the study has the same radiographs and says the same of them. Nothing here names a patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from cxr_node.config.schema import MAX_STUDY_WAIT_S
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.prepared import prepared
from cxr_node.node.ledger.states import FREE, Claim, OrderState, Prior, claim, due_at, held, note, passed, pick
from cxr_node.node.ledger.tables import instances, judgements, prior_orders, priors, studies

NOTE = "earlier radiographs of its study"
"""What a report of its study mentions is noted beside each image: a rebuilt ledger makes the same of the same."""
NONE = "none"
"""Such a note where it mentions none; else it has the digests of their files."""
_DUE = prior_orders.c.state == OrderState.DUE
_TIMEOUT, _TOO_LONG = "timeout", "it was not fetched while the study waited"


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorOrder:
    """The order of one study, to be fetched."""

    claim: Claim
    study_instance_uid: str
    until: datetime
    """The study waits no longer."""
    instance_id: int
    """Ledger number of an image of the study; 0 where none is there any more."""
    content_sha256: str | None
    """Of that image, whose header says whose radiographs are asked for."""

    @property
    def attempts(self) -> int:
        """How often this was tried, this time included."""
        return self.claim.attempts


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorOutcome:
    """One earlier radiograph, or why there is none."""

    content_sha256: str | None = None
    """None: it was not fetched."""
    reason: str | None = None
    """Why it was not, or why no report mentions it."""
    sentence: str | None = None
    judgement: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorsOfStudy:
    """What became of the order of a study."""

    state: OrderState
    until: datetime
    attempts: int
    lease_owner: str | None
    outcomes: tuple[PriorOutcome, ...]
    """The newest study first; empty while the order is DUE."""


def prior_of(ledger: Ledger, study_instance_uid: str) -> PriorsOfStudy | None:
    """What became of the earlier radiographs of a study; None where none were ordered."""
    with ledger.database.reading() as connection:
        mine = prior_orders.c.study_instance_uid == study_instance_uid
        row = connection.execute(sa.select(prior_orders).where(mine)).mappings().first()
        if row is None:
            return None
        found = sa.select(priors).where(priors.c.order_id == row["id"]).order_by(priors.c.id)
        outcomes = tuple(PriorOutcome(**pick(PriorOutcome, one)) for one in connection.execute(found).mappings())
    told = dict(row) | {"state": OrderState(row["state"]), "outcomes": outcomes}
    return PriorsOfStudy(**pick(PriorsOfStudy, told))


def claim_order(ledger: Ledger, owner: str, lease_s: float) -> PriorOrder | None:
    """Lease the order that is to be fetched next: the most urgent, then the oldest."""
    with ledger.database.leasing() as connection:
        claimed = claim(connection, prior_orders, _DUE, owner, lease_s, ledger.now())
        if claimed is None:
            return None
        row, lease = claimed
        images = (
            sa.select(instances.c.id, instances.c.content_sha256)
            .join(judgements, judgements.c.instance_id == instances.c.id)
            .where(instances.c.study_instance_uid == row["study_instance_uid"], instances.c.purged_at.is_(None))
            .order_by(judgements.c.listed, instances.c.id)
        )
        image = connection.execute(images.limit(1)).first()
    return PriorOrder(
        claim=lease,
        study_instance_uid=row["study_instance_uid"],
        until=row["until"],
        instance_id=0 if image is None else image.id,
        content_sha256=None if image is None else image.content_sha256,
    )


def next_order_s(ledger: Ledger) -> float | None:
    """Seconds until an order may be claimed (0.0: now); None where none is due."""
    found = sa.select(sa.func.min(due_at(prior_orders), type_=prior_orders.c.not_before.type)).where(_DUE)
    with ledger.database.reading() as connection:
        at = connection.scalar(found)
    return None if at is None else max(0.0, (at - ledger.now()).total_seconds())


def free(ledger: Ledger, owner: str) -> int:
    """Drop the leases of a dead owner of this name; how many."""
    dead = sa.update(prior_orders).where(prior_orders.c.lease_owner == owner).values(FREE)
    with ledger.database.writing() as connection:
        return connection.execute(dead).rowcount


def release_order(ledger: Ledger, order: PriorOrder, *, delay_s: float) -> bool:
    """Return an order to the queue; the attempt does not count."""
    values = FREE | {"attempts": order.attempts - 1, "not_before": ledger.now() + timedelta(seconds=delay_s)}
    with ledger.database.writing() as connection:
        return (
            connection.execute(sa.update(prior_orders).where(held(prior_orders, order.claim)).values(values)).rowcount
            == 1
        )


def settle_order(ledger: Ledger, order: PriorOrder, outcomes: Sequence[PriorOutcome], words: str) -> bool:
    """DUE -> SETTLED; False where the lease was lost, or the study waits no longer: then nothing is mentioned.

    Parameters
    ----------
    words : for the story of the image that was read; no patient data
    """
    now = ledger.now()
    with ledger.database.writing() as connection:
        mine = sa.and_(held(prior_orders, order.claim), _DUE)
        if not _settle(connection, mine, outcomes, now):
            return False
        note(connection, [order.instance_id] if order.instance_id else [], now, "priors", words)
    return True


def longest(now: datetime) -> datetime:
    """Until when an order may wait at most."""
    return now + timedelta(seconds=MAX_STUDY_WAIT_S)


def awaited(now: datetime, longest: datetime) -> sa.ColumnElement[bool]:
    """True for a study that waits for its order."""
    until_then = ~passed(prior_orders.c.until, now, longest)
    mine = prior_orders.c.study_instance_uid == studies.c.study_instance_uid
    return sa.select(sa.literal(1)).where(mine, _DUE, until_then).correlate(studies).exists()


def awaited_until() -> sa.ColumnElement[datetime]:
    """Until when a study waits for its order; null where it does not."""
    mine = prior_orders.c.study_instance_uid == studies.c.study_instance_uid
    return sa.select(prior_orders.c.until).where(mine, _DUE).correlate(studies).scalar_subquery()


def closed(connection: sa.Connection, study_instance_uid: str, now: datetime) -> tuple[Prior, ...] | None:
    """As `fetched`. DUE -> SETTLED: the report of the study is made, and what comes now is not waited for any more."""
    if connection.scalar(*_of_study(study_instance_uid)) is None:
        return None
    mine = sa.and_(prior_orders.c.study_instance_uid == study_instance_uid, _DUE)
    _settle(connection, mine, [PriorOutcome(reason=_TIMEOUT, sentence=_TOO_LONG)], now)
    return fetched(connection, study_instance_uid)


@prepared
def _of_study(study_instance_uid: str) -> sa.Select[Any]:
    return sa.select(prior_orders.c.id).where(prior_orders.c.study_instance_uid == study_instance_uid)


def _settle(
    connection: sa.Connection, which: sa.ColumnElement[bool], outcomes: Sequence[PriorOutcome], now: datetime
) -> bool:
    values = FREE | {"state": OrderState.SETTLED, "updated_at": now}
    settled = sa.update(prior_orders).where(which).values(values).returning(prior_orders.c.id)
    order_id = connection.scalar(settled)
    if order_id is None:
        return False
    rows = [
        {"content_sha256": each.content_sha256, "reason": each.reason, "sentence": each.sentence}
        | {"order_id": order_id, "settled_at": now, "judgement": each.judgement}
        for each in outcomes
    ]
    if rows:
        connection.execute(sa.insert(priors), rows)
    return True


def fetched(connection: sa.Connection, study_instance_uid: str) -> tuple[Prior, ...] | None:
    """Earlier radiographs of a study, but those that no report is to mention; None where none were ordered."""
    if connection.scalar(*_of_study(study_instance_uid)) is None:
        return None
    mine = prior_orders.c.study_instance_uid == study_instance_uid
    found = (
        sa.select(priors)
        .join(prior_orders, prior_orders.c.id == priors.c.order_id)
        .where(mine, priors.c.content_sha256.is_not(None), priors.c.reason.is_(None))
        .order_by(priors.c.id)
    )
    return tuple(
        Prior(
            prior_id=row["id"],
            content_sha256=row["content_sha256"],
            fetched_at=row["settled_at"],
            judgement=row["judgement"],
        )
        for row in connection.execute(found).mappings()
    )


def answer(connection: sa.Connection, prior_id: int, outcome: PriorOutcome) -> None:
    """Remember what was said of an earlier radiograph, or why none mentions it."""
    values = {"judgement": outcome.judgement, "reason": outcome.reason, "sentence": outcome.sentence}
    connection.execute(sa.update(priors).where(priors.c.id == prior_id).values(values))


def forget(connection: sa.Connection, study_instance_uids: Sequence[str]) -> list[str]:
    """Take away the orders of these studies that have no image any more; digests of files that no other order has."""
    gone = prior_orders.c.study_instance_uid.in_(study_instance_uids)
    order_ids = list(connection.scalars(sa.select(prior_orders.c.id).where(gone, ~_has_image()).with_for_update()))
    mine = priors.c.order_id.in_(order_ids)
    digests = set(
        connection.scalars(sa.select(priors.c.content_sha256).where(mine, priors.c.content_sha256.is_not(None)))
    )
    connection.execute(sa.delete(priors).where(mine))
    connection.execute(sa.delete(prior_orders).where(prior_orders.c.id.in_(order_ids)))
    shared = set(connection.scalars(sa.select(priors.c.content_sha256).where(priors.c.content_sha256.in_(digests))))
    return sorted(digests - shared)


def without_images(ledger: Ledger, limit: int) -> list[str]:
    """Studies that have an order, and no image any more whose bytes are kept."""
    found = sa.select(prior_orders.c.study_instance_uid).where(~_has_image()).order_by(prior_orders.c.id).limit(limit)
    with ledger.database.reading() as connection:
        return list(connection.scalars(found))


def files(ledger: Ledger) -> set[str]:
    """Digests of all files that an order has."""
    with ledger.database.reading() as connection:
        return set(connection.scalars(sa.select(priors.c.content_sha256).where(priors.c.content_sha256.is_not(None))))


def _has_image() -> sa.ColumnElement[bool]:
    mine = instances.c.study_instance_uid == prior_orders.c.study_instance_uid
    return sa.select(sa.literal(1)).where(mine, instances.c.purged_at.is_(None)).correlate(prior_orders).exists()
