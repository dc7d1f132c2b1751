"""Instances by what they have in common, newest first; how many there are; who sent last. Reads only.

Quick at a million rows: each word is looked up in an index, and the order is that of the ids, in which instances were
received. Keys are AE titles, Station Names and coded reasons, never a patient's name or number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from cxr_node.domain import CONSTANCY_STUDY, AbstainReason, Verdict
from cxr_node.node.ledger import stages
from cxr_node.node.ledger.database import utc_now
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.lookup import matching
from cxr_node.node.ledger.queries import InstanceRow, instance_row
from cxr_node.node.ledger.stages import Stage
from cxr_node.node.ledger.states import OPEN, DeliveryState, InstanceState, StudyState
from cxr_node.node.ledger.study_stories import has_failed
from cxr_node.node.ledger.tables import IS_OPEN, deliveries, instance_artifacts, instances, studies

_DAY_US = 86_400_000_000
_MINUTE_US = 60_000_000
_MAX_NAMES = 1000
"""Most senders or stations listed; a department has fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is looked for; None: whatever it is."""

    key: str | None = None
    """As `lookup.matching` takes it."""
    accession_keys: Collection[str] = ()
    state: InstanceState | None = None
    stage: Stage | None = None
    study: StudyState | None = None
    """Of its study, where a destination wants one report of that; FAILED: and nobody has decided about it yet."""
    verdict: str | None = None
    """The word for programs, which of a positive names its target: PNEUMONIA."""
    reason: str | None = None
    """Of a rejection, of a death, or the abstain reason of an UNCERTAIN."""
    sender: str | None = None
    """Calling AE title."""
    station: str | None = None
    destination: str | None = None
    """Results were due there; with a state, their own is that too (DEAD: it refused them)."""
    since: datetime | None = None
    until: datetime | None = None
    """Received at or after, and before."""


class By(StrEnum):
    """What instances are counted by."""

    DAY = "day"
    SENDER = "sender"
    STATION = "station"
    REASON = "reason"
    VERDICT = "verdict"


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Instances that share what they were counted by."""

    group: tuple[str | None, ...]
    """None where it is not known, or where there is none."""
    images: int
    verdicts: dict[str, int]
    """By the word for programs."""
    waiting: int
    """Received and not judged yet."""
    dead: int
    last_received_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Oldest:
    """What has waited longest, and how many wait with it."""

    number: int
    since: datetime
    waiting: int


def find(ledger: Ledger, wanted: Wanted, limit: int) -> list[InstanceRow]:
    """List instances, the newest first."""
    newest = sa.select(instances).where(condition(wanted, ledger.now())).order_by(instances.c.id.desc()).limit(limit)
    with ledger.database.reading() as connection:
        return [instance_row(row) for row in connection.execute(newest).mappings()]


def condition(wanted: Wanted, now: datetime | None = None) -> sa.ColumnElement[bool]:
    """The same as a condition on instances; `now` tells which leases hold."""
    return sa.and_(sa.true(), *_conditions(wanted, now or utc_now()))


_DUE_THERE = {
    Stage.DEAD: InstanceState.DEAD,
    Stage.SET_ASIDE: InstanceState.SET_ASIDE,
    Stage.TO_DELIVER: InstanceState.REPORTED,
    Stage.SHADOW: InstanceState.SHADOW,
}


def _placed(wanted: Wanted, now: datetime) -> Iterator[sa.ColumnElement[bool]]:
    """Where they are: the stage, the state and the destination."""
    state = wanted.state
    if wanted.stage is not None:
        if wanted.destination is not None and wanted.stage in _DUE_THERE:
            state = _DUE_THERE[wanted.stage]
        elif wanted.reason is not None and wanted.stage in stages.ENDS:  # by the index of the reasons
            yield stages.unindexed(instances.c.state) == stages.ENDS[wanted.stage]
        else:
            yield stages.condition(wanted.stage, now)
    if wanted.destination is not None:
        yield _at(wanted.destination, state)
    elif state is not None:
        yield instances.c.state == state


def _conditions(wanted: Wanted, now: datetime) -> Iterator[sa.ColumnElement[bool]]:
    if wanted.key is not None:
        yield matching(wanted.key, wanted.accession_keys)
    yield from _placed(wanted, now)
    if wanted.study is not None:
        yield _of_study(wanted.study)
    if wanted.verdict is not None:
        yield instances.c.verdict == wanted.verdict
    if wanted.reason is not None:
        column = instances.c.abstain_reason if wanted.reason in set(AbstainReason) else instances.c.reason
        yield column == wanted.reason
    if wanted.sender is not None:
        are_few = wanted.stage is not None and wanted.stage not in stages.MANY and wanted.reason is None
        title = instances.c.calling_ae_title
        yield (stages.unindexed(title) if are_few else title) == wanted.sender
    if wanted.station is not None:
        yield instances.c.station_name == wanted.station
    yield from _received(wanted.since, wanted.until)


def _of_study(state: StudyState) -> sa.ColumnElement[bool]:
    """Few wait or failed: those are found from the side of the studies, the others from that of the instances."""
    if state is StudyState.REPORTED:
        named = studies.c.study_instance_uid == instances.c.study_instance_uid
        return sa.select(studies.c.id).where(named, studies.c.state == state).correlate(instances).exists()
    which = has_failed() if state is StudyState.FAILED else studies.c.state == state
    return instances.c.study_instance_uid.in_(sa.select(studies.c.study_instance_uid).where(which))


def _received(since: datetime | None, until: datetime | None) -> Iterator[sa.ColumnElement[bool]]:
    """By the ids of that time too, which all indexes have: what `rebuild` received again is older than its id."""
    at = instances.c.received_at
    window = [at >= since] if since is not None else []
    window += [at < until] if until is not None else []
    unindexed = sa.type_coerce(
        at.op("+")(sa.literal_column("0")), at.type
    )  # else SQLite takes the index of times, and sorts
    if since is not None:
        yield instances.c.id >= sa.select(sa.func.min(instances.c.id)).where(*window).scalar_subquery()
        yield unindexed >= since
    if until is not None:
        yield instances.c.id <= sa.select(sa.func.max(instances.c.id)).where(*window).scalar_subquery()
        yield unindexed < until


_SENT_AS = {
    InstanceState.DEAD: (DeliveryState.DEAD,),
    InstanceState.REPORTED: OPEN,
    InstanceState.DELIVERED: (DeliveryState.DELIVERED,),
    InstanceState.SET_ASIDE: (DeliveryState.SET_ASIDE,),
    InstanceState.SHADOW: (DeliveryState.SHADOW,),
}


def _at(destination: str, state: InstanceState | None) -> sa.ColumnElement[bool]:
    """Instances with results for a destination; few are open or DEAD, and those are found from its side.

    The others are found from the side of the instances: `coalesce` keeps SQLite from the index of the destination.
    """
    linked = sa.select(instance_artifacts.c.instance_id).join(
        deliveries, deliveries.c.artifact_id == instance_artifacts.c.artifact_id
    )
    states = () if state is None else _SENT_AS.get(state, ())
    if state in (InstanceState.DEAD, InstanceState.REPORTED, InstanceState.SET_ASIDE, InstanceState.SHADOW):
        here = linked.where(deliveries.c.destination == destination, deliveries.c.state.in_(states))
        return instances.c.id.in_(here)
    there = linked.where(
        instance_artifacts.c.instance_id == instances.c.id,
        sa.func.coalesce(deliveries.c.destination, "") == destination,
    )
    return there.exists() if state is None else there.where(deliveries.c.state.in_(states)).exists()


def _grouped(by: By) -> sa.ColumnElement[Any]:
    """What rows are counted by; as expressions, or SQLite would walk through an index of the word, not of the time."""
    match by:
        case By.DAY:
            return sa.type_coerce(instances.c.received_at, sa.BigInteger) // _DAY_US
        case By.SENDER:
            return sa.func.coalesce(instances.c.calling_ae_title, "")
        case By.STATION:
            return sa.func.coalesce(instances.c.station_name, "")
        case By.REASON:
            return sa.func.coalesce(instances.c.reason, instances.c.abstain_reason)
        case By.VERDICT:
            return sa.func.coalesce(instances.c.verdict, "")


def positives(ledger: Ledger) -> list[str]:
    """Words of positive verdicts that the ledger has, of every target that its node ever had."""
    others = [verdict.value for verdict in Verdict]
    with ledger.database.reading() as connection:
        found = sa.select(instances.c.verdict).where(instances.c.verdict.not_in(others)).distinct()
        return sorted(connection.scalars(found).all())


def counts(
    ledger: Ledger, by: Sequence[By], since: datetime, until: datetime | None = None, named: Sequence[str] = ()
) -> list[Count]:
    """Count what was received since then, by one word or several; the order is that of the words, days newest first.

    `named` are the positive words to count even where none was found.
    By sender or by station alone, those that sent nothing since then are there too: their last image is older.
    """
    groups = [_grouped(each).label(f"by_{place}") for place, each in enumerate(by)]
    others = [verdict.value for verdict in Verdict if verdict is not Verdict.POSITIVE]
    said = [*dict.fromkeys((*named, *positives(ledger))), *others]
    verdicts = [sa.func.sum(sa.case((instances.c.verdict == each, 1), else_=0)).label(each) for each in said]
    states = {"waiting": InstanceState.RECEIVED, "dead": InstanceState.DEAD}
    sums = [
        sa.func.sum(sa.case((instances.c.state == state, 1), else_=0)).label(name) for name, state in states.items()
    ]
    last = sa.func.max(instances.c.received_at, type_=instances.c.received_at.type).label("last")
    window = [instances.c.received_at >= since]
    window += [instances.c.received_at < until] if until is not None else []
    query = sa.select(*groups, sa.func.count().label("images"), *verdicts, *sums, last).where(*window)
    with ledger.database.reading() as connection:
        rows = connection.execute(query.group_by(*groups)).mappings().all()
    found = [_count(row, by, said) for row in rows]
    if list(by) in ([By.SENDER], [By.STATION]):
        known = {count.group[0] for count in found}
        older = last_received(ledger, by[0])
        found += [_nothing(name, at, said) for name, at in older.items() if name not in known]
    found.sort(key=lambda count: tuple(word or "" for word in count.group))
    return found[::-1] if by[0] is By.DAY else found


def _count(row: sa.RowMapping, by: Sequence[By], said: Sequence[str]) -> Count:
    words = [(each, row[f"by_{place}"]) for place, each in enumerate(by)]
    return Count(
        group=tuple(_day(word) if each is By.DAY else word or None for each, word in words),
        images=row["images"],
        verdicts={each: int(row[each]) for each in said},
        waiting=int(row["waiting"]),
        dead=int(row["dead"]),
        last_received_at=row["last"],
    )


def _nothing(name: str, at: datetime, said: Sequence[str]) -> Count:
    return Count(group=(name,), images=0, verdicts=dict.fromkeys(said, 0), waiting=0, dead=0, last_received_at=at)


def _day(number: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=int(number))).isoformat()


def last_received(ledger: Ledger, by: By) -> dict[str, datetime]:
    """When each sender, or each station, sent its last image; the latest first.

    From name to name by the index: the same cost for a hundred images as for a million.
    """
    column = instances.c.calling_ae_title if by is By.SENDER else instances.c.station_name
    newest = sa.select(instances.c.received_at).order_by(instances.c.id.desc()).limit(1)
    with ledger.database.reading() as connection:
        found = {
            name: connection.execute(newest.where(column == name)).scalar_one() for name in names(connection, column)
        }
    return dict(sorted(found.items(), key=lambda item: item[1], reverse=True))


def names(connection: sa.Connection, column: sa.Column[Any]) -> Iterator[str]:
    """Go from name to name of an indexed column."""
    name = ""
    for _ in range(_MAX_NAMES):
        following = connection.scalar(sa.select(sa.func.min(column)).where(column > name))
        if following is None:
            return
        name = following
        yield name


def minutes(ledger: Ledger, since: datetime) -> dict[str, list[int]]:
    """In which minutes since 1970 each sender sent something, in their order: at most 1440 a day, whatever it sends."""
    minute = (sa.type_coerce(instances.c.received_at, sa.BigInteger) // _MINUTE_US).label("minute")
    distinct = sa.select(_grouped(By.SENDER).label("sender"), minute).where(instances.c.received_at >= since).distinct()
    found: dict[str, list[int]] = {}
    with ledger.database.reading() as connection:
        for sender, at in connection.execute(distinct.order_by("sender", "minute")):
            found.setdefault(sender, []).append(int(at))
    return found


def abstentions(ledger: Ledger, since: datetime) -> dict[str, tuple[int, int]]:
    """Of what was received since then: how many a profile left UNCERTAIN, and how many it analysed."""
    unsure = sa.func.sum(sa.case((instances.c.verdict == Verdict.INDETERMINATE, 1), else_=0))
    is_film = instances.c.study_instance_uid != CONSTANCY_STUDY
    analysed = sa.and_(instances.c.received_at >= since, instances.c.profile.is_not(None), is_film)
    query = sa.select(instances.c.profile, unsure, sa.func.count()).where(analysed).group_by(instances.c.profile)
    with ledger.database.reading() as connection:
        return {profile: (int(few), int(all_)) for profile, few, all_ in connection.execute(query)}


def oldest_instance(ledger: Ledger) -> Oldest | None:
    """Find the instance that has waited longest to be judged."""
    waiting = instances.c.state == InstanceState.RECEIVED
    first = sa.select(instances.c.id, instances.c.received_at).where(waiting).order_by(instances.c.id).limit(1)
    with ledger.database.reading() as connection:
        row = connection.execute(first).first()
        if row is None:
            return None
        number = connection.scalar(sa.select(sa.func.count()).select_from(instances).where(waiting))
    return Oldest(number=row.id, since=row.received_at, waiting=int(number or 0))


def oldest_deliveries(ledger: Ledger) -> dict[str, Oldest]:
    """Find the delivery that has waited longest, for each destination that something waits for."""
    at = deliveries.c.first_due_at
    first = sa.func.min(at, type_=at.type)
    query = sa.select(deliveries.c.destination, first, sa.func.min(deliveries.c.id), sa.func.count()).where(IS_OPEN)
    with ledger.database.reading() as connection:
        rows = connection.execute(query.group_by(deliveries.c.destination)).all()
    return {name: Oldest(number=number, since=since, waiting=waiting) for name, since, number, waiting in rows}
