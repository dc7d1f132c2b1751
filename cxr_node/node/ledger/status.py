"""What `cxr-node status` shows: roles, queue, destinations, what has waited longest, last instances. Reads only."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from cxr_node import times
from cxr_node.config.schema import Config
from cxr_node.node.ledger import (
    destination_health,
    holds,
    listing,
    machines,
    queries,
    results,
    shadow,
    study_stories,
    worklist_status,
)
from cxr_node.node.ledger.destination_health import Health
from cxr_node.node.ledger.holds import Hold
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.listing import By, Oldest
from cxr_node.node.ledger.machines import MachineState
from cxr_node.node.ledger.queries import DeliveryRow, InstanceRow, Story
from cxr_node.node.ledger.shadow import Kept
from cxr_node.node.ledger.states import OPEN, UNSENT, DeliveryState, InstanceState, PromiseState, StudyState
from cxr_node.node.ledger.study_stories import DocumentRow, StudyCounts, StudyRow
from cxr_node.node.ledger.tables import IS_OPEN, deliveries, instances
from cxr_node.node.ledger.worklist_status import WorklistStatus
from cxr_node.node.process import supervisor
from cxr_node.node.process.supervisor import RoleState


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What decides whether anything moves."""

    roles: Mapping[str, RoleState]
    destinations: Collection[str]
    """Names in the configuration."""
    health: Mapping[str, Health]
    holds: Mapping[str, Hold]
    now: datetime


def surroundings(ledger: Ledger, spool_path: Path, destinations: Collection[str]) -> Surroundings:
    """Look round once, for many sentences."""
    found = machines.look(ledger, spool_path, supervisor.ROLES)
    roles = machines.together(found, supervisor.ROLES)
    seen, held = destination_health.look(ledger), holds.look(ledger)
    return Surroundings(roles=roles, destinations=destinations, health=seen, holds=held, now=ledger.now())


def explained(ledger: Ledger, story: Story, around: Surroundings, study: StudyRow | None = None) -> Story:
    """Say of one instance what it waits for, and of each of its deliveries; `study` : its own, explained."""
    with ledger.database.reading() as connection:
        sent = tuple(replace(row, why=_of_delivery(connection, row, around)) for row in story.deliveries)
        row = replace(story.instance, why=_of_instance(connection, story.instance, around, study))
    return replace(story, instance=row, deliveries=sent)


def told(
    ledger: Ledger, stories: Sequence[Story], spool_path: Path, titles: Mapping[str, str]
) -> list[tuple[StudyRow | None, list[Story]]]:
    """Each study, where a report of it was ever wanted, with its stories, all explained; `titles` as in `trace`."""
    around = surroundings(ledger, spool_path, titles)
    images: dict[str, list[Story]] = {}
    for story in stories:
        images.setdefault(story.instance.study_instance_uid, []).append(story)
    found: list[tuple[StudyRow | None, list[Story]]] = []
    for uid, of_study in images.items():
        study = study_stories.look(ledger, uid, titles)
        study = None if study is None else _study_explained(ledger, study, around)
        found.append((study, [explained(ledger, story, around, study) for story in of_study]))
    return found


def _study_explained(ledger: Ledger, study: StudyRow, around: Surroundings) -> StudyRow:
    """Say of a study what it waits for, or what is to be done, and of each delivery of its reports."""
    with ledger.database.reading() as connection:
        reports = tuple(
            replace(report, documents=tuple(_of_document(connection, each, around) for each in report.documents))
            for report in study.reports
        )
    return replace(study, reports=reports, why=_of_study(study, around))


def _of_document(connection: sa.Connection, row: DocumentRow, around: Surroundings) -> DocumentRow:
    sent = tuple(replace(each, why=_of_delivery(connection, each, around)) for each in row.deliveries)
    return replace(row, deliveries=sent)


def _of_study(study: StudyRow, around: Surroundings) -> str | None:
    if study.state is StudyState.FAILED:
        act = "retry" if study.can_be_retried else "rejudge"
        return f"no report of it could be made; `cxr-node {act} {study.study_instance_uid}` tries again"
    if study.ripe_at is None:
        return None
    stopped = _stopped("work", around)
    if stopped is None and _is_held(study.lease_until, around.now):
        return "its report is being made now"
    at, is_ripe = clock(study.ripe_at, around.now), study.ripe_at <= around.now
    said = [stopped] if stopped is not None else []
    if study.attempts:
        said.append(f"tried {study.attempts} times, " + ("the next try is due" if is_ripe else f"trying again at {at}"))
    else:
        said.append(f"ripe {'since' if is_ripe else 'at'} {at}")
    if study.to_be_judged:
        said.append(f"images of it that are not judged yet: {study.to_be_judged}")
    return "; ".join(said)


def _of_instance(
    connection: sa.Connection, row: InstanceRow, around: Surroundings, study: StudyRow | None
) -> str | None:
    if row.state is InstanceState.REPORTED and study is not None and study.state is StudyState.WAITING:
        return f"waits for its study: {study.why}"
    if row.state is not InstanceState.RECEIVED:
        return None
    lease = connection.execute(sa.select(instances.c.lease_until).where(instances.c.id == row.id)).scalar_one()
    stopped = _stopped("work", around)
    if stopped is None and _is_held(lease, around.now):
        return f"it is being judged now{_by(connection, row.lease_owner)}"
    order = [instances.c[name] for name in instances.info["order"]]
    mine = sa.select(*order).where(instances.c.id == row.id)
    sooner = sa.or_(sa.tuple_(*order) < mine.scalar_subquery(), instances.c.lease_until > around.now)
    first = sa.and_(instances.c.state == InstanceState.RECEIVED, instances.c.id != row.id, sooner)
    before = int(connection.scalar(sa.select(sa.func.count()).select_from(instances).where(first)) or 0)
    earlier = results.awaited(connection, row.id)
    turn = _queue(before) if earlier is None else f"image #{earlier}, an earlier version of it, is to be judged first"
    if stopped is not None:
        return f"{stopped}; {turn}"
    if earlier is not None:
        return turn
    if row.not_before > around.now:
        return f"trying again at {clock(row.not_before, around.now)}"
    return turn


def _of_delivery(connection: sa.Connection, row: DeliveryRow, around: Surroundings) -> str | None:
    if row.state is DeliveryState.SHADOW:
        return (
            f"in SHADOW since {clock(row.first_due_at, around.now)}: kept, not sent; `cxr-node shadow` says what to do"
        )
    if row.state not in OPEN:
        return None
    if row.destination not in around.destinations:
        return f"{row.destination} is not configured; `cxr-node forget --destination {row.destination}` settles it"
    found = connection.execute(sa.select(deliveries).where(deliveries.c.id == row.id)).mappings().one()
    here = sa.and_(deliveries.c.destination == row.destination, IS_OPEN, deliveries.c.id != row.id)
    at_hand = sa.and_(here, deliveries.c.lease_until > around.now)
    others = [here, sa.tuple_(deliveries.c.priority, deliveries.c.id) < sa.tuple_(found["priority"], row.id)]
    before = int(connection.scalar(sa.select(sa.func.count()).select_from(deliveries).where(*others)) or 0)
    tried = bool(connection.scalar(sa.select(sa.func.count()).select_from(deliveries).where(at_hand)))
    stopped, down = _stopped("deliver", around), _down_sentence(row.destination, around)
    if stopped is not None and row.destination not in around.holds:
        return "; ".join(word for word in (stopped, down, _queue(before)) if word)
    if _is_held(found["lease_until"], around.now):
        return "; ".join(
            word for word in (down, f"it is being sent now{_by(connection, found['lease_owner'])}") if word
        )
    if (hold := around.holds.get(row.destination)) is not None:
        return f"{row.destination} is {held(hold, around.now)}; `cxr-node release {row.destination}` sends it"
    said = [down] if down else []
    if row.not_before > around.now:
        said.append(f"trying again at {clock(row.not_before, around.now)}")
    if tried:
        said.append("another image of this destination is being tried")
    return "; ".join([*said, _queue(before)])


def _by(connection: sa.Connection, owner: str | None) -> str:
    """Where, as the end of a sentence; nothing where there is one machine."""
    return "" if owner is None or connection.dialect.name == "sqlite" else f" by {owner}"


def _stopped(role: str, around: Surroundings) -> str | None:
    state = around.roles[role]
    if state.running:
        return None
    return f"{role} does not run" + (f" since {clock(state.since, around.now)}" if state.since else "")


def held(hold: Hold, now: datetime) -> str:
    """Since when, by whom and why."""
    return f"held since {clock(hold.since, now)} by {hold.by}" + (f" ({hold.reason})" if hold.reason else "")


def _down_sentence(destination: str, around: Surroundings) -> str | None:
    seen = around.health.get(destination)
    if seen is None or seen.down_since is None:
        return None
    since = clock(seen.down_since, around.now)
    return f"{destination} has been down since {since}{_next_try(seen, around.now)} ({seen.last_error})"


def _next_try(seen: Health, now: datetime) -> str:
    """When a destination that is down is tried next, as the end of a sentence."""
    if seen.next_try_at is None:
        return ""
    return f", next try at {clock(seen.next_try_at, now)}" if seen.next_try_at > now else ", being tried now"


def _queue(before: int) -> str:
    return f"before it: {before} waiting" if before else "it is the next"


def _is_held(until: datetime | None, now: datetime) -> bool:
    return until is not None and until > now


def clock(at: datetime, now: datetime) -> str:
    """UTC, to the second; without the day where that is today."""
    there = at.astimezone(UTC)
    return f"{there:%H:%M:%S} UTC" if there.date() == now.astimezone(UTC).date() else f"{there:%Y-%m-%d %H:%M:%S} UTC"


_PLAIN = ("dead", "stopped", "uncommitted")
_LASTING = ("down", "waiting")
GRAMMAR = "dead, stopped, down, down>5m, waiting, waiting>15m, uncommitted; several with commas"


@dataclass(frozen=True, slots=True)
class Alarm:
    """One of them; `longer_than` is for what lasts."""

    word: str
    longer_than: timedelta = timedelta()


def parse(text: str) -> list[Alarm]:
    """Read `dead,stopped,waiting>15m`.

    Raises
    ------
    ValueError : a word is none; the sentence says which there are.
    """
    return [_alarm(part.strip()) for part in text.split(",")]


def _alarm(text: str) -> Alarm:
    word, sign, span = (part.strip() for part in text.partition(">"))
    if word not in (*_PLAIN, *_LASTING):
        near = difflib.get_close_matches(word, (*_PLAIN, *_LASTING), n=1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{text!r} is not an alarm{meant}; there are: {GRAMMAR}")
    if sign and word in _PLAIN:
        raise ValueError(f"{text!r}: {word} takes no duration; there are: {GRAMMAR}")
    return Alarm(word, times.duration(span)) if sign else Alarm(word)


def raised(alarms: Sequence[Alarm], seen: NodeStatus) -> list[str]:
    """Say what is wrong, one sentence each; nothing where all is well."""
    return [f"{alarm.word}: {sentence}" for alarm in alarms for sentence in _sentences(alarm, seen)]


def _sentences(alarm: Alarm, seen: NodeStatus) -> Iterator[str]:
    match alarm.word:
        case "dead":
            yield from _dead(seen)
        case "stopped":
            yield from _not_running(seen)
        case "uncommitted":
            for name, states in seen.uncommitted.items():
                if number := sum(states.values()):
                    yield f"{name} has not committed itself to {number} objects"
        case "down":
            yield from _down(alarm, seen)
        case "waiting":
            yield from _waiting(alarm, seen)


def _not_running(seen: NodeStatus) -> Iterator[str]:
    if stopped := [role for role, state in seen.roles.items() if not state.running]:
        yield f"{', '.join(stopped)} {'does' if len(stopped) == 1 else 'do'} not run"
    for each in seen.machines:
        if each.is_missing:
            yield f"{each.name} has not been heard of for {times.age(seen.at - each.seen_at)}"


def _dead(seen: NodeStatus) -> Iterator[str]:
    if number := seen.instances[InstanceState.DEAD]:
        yield f"{number} images are DEAD (cxr-node list --state DEAD)"
    for name, objects in seen.dead_deliveries.items():
        yield f"{name} has not taken {objects} objects (cxr-node list --destination {name} --state DEAD)"
    if number := seen.studies.failed:
        yield f"{number} studies are FAILED (cxr-node list --study FAILED)"


def _down(alarm: Alarm, seen: NodeStatus) -> Iterator[str]:
    places: list[tuple[str, DestinationStatus | WorklistStatus]] = [*seen.health.items(), *seen.worklists.items()]
    for name, place in places:
        if place.address is not None and place.down_since is not None:
            span = seen.at - place.down_since
            if span >= alarm.longer_than:
                yield f"{name} has not answered for {times.age(span)} ({place.last_error})"


def _waiting(alarm: Alarm, seen: NodeStatus) -> Iterator[str]:
    queues = [("images to be judged", "instance", seen.oldest)]
    free = [(name, place) for name, place in seen.health.items() if place.held is None]  # an operator knows of others
    queues += [(f"results for {name}", "delivery", place.oldest) for name, place in free]
    for what, noun, oldest in queues:
        if oldest is not None and (span := seen.at - oldest.since) >= alarm.longer_than:
            yield f"{oldest.waiting} {what}, the oldest ({noun}={oldest.number}) for {times.age(span)}"
    study = seen.studies.oldest
    if study is not None and seen.at - study.due_at >= alarm.longer_than:
        yield f"a study ought to be reported for {times.age(seen.at - study.due_at)} (instance={study.number})"


LAST = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationStatus:
    """One destination, and what is due at it."""

    address: str | None
    """None: the configuration does not name it (any more)."""
    deliveries: Mapping[DeliveryState, int]
    oldest: Oldest | None
    down_since: datetime | None
    next_try_at: datetime | None
    last_error: str | None
    last_success_at: datetime | None
    held: Hold | None
    """An operator lets what is for it wait."""
    live_share: float | None
    """Of studies, those whose results it is sent; the others stay in shadow. None: it is not configured."""
    shadow: Kept | None
    """What is kept for it and not sent; None: nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """One look at the ledger."""

    at: datetime
    roles: Mapping[str, RoleState]
    """Over all machines."""
    machines: Sequence[MachineState]
    """Those that share the ledger; this one alone where it is a file."""
    instances: Mapping[InstanceState, int]
    """By state."""
    oldest: Oldest | None
    """Of the instances that wait to be judged."""
    studies: StudyCounts
    """Those of which a destination wants one report."""
    destinations: Mapping[str, Mapping[DeliveryState, int]]
    """By name, then by state; those of the configuration, and those that unsettled deliveries still name."""
    health: Mapping[str, DestinationStatus]
    dead_deliveries: Mapping[str, int]
    """Present results, and notes of a rejection, that are DEAD at a destination, by its name."""
    late_deliveries: Mapping[str, int]
    """Those that were too late for a destination (`delivery.not_after_min`): kept, not sent."""
    uncommitted: Mapping[str, Mapping[PromiseState, int]]
    """Results that a destination accepted and has not committed itself to, by name, then by state."""
    worklists: Mapping[str, WorklistStatus]
    """By name; those of the configuration, and those whose items are still open."""
    addresses: Mapping[str, str]
    last_received: Mapping[By, Mapping[str, datetime]]
    """By sender and by station."""
    recent: Sequence[InstanceRow]


def look(ledger: Ledger, config: Config) -> NodeStatus:
    """Read the ledger at one moment."""
    with ledger.database.one_view():
        return _look(ledger, config)


def _look(ledger: Ledger, config: Config) -> NodeStatus:
    queues, oldest = queries.queues(ledger), listing.oldest_deliveries(ledger)
    addresses = {to.name: to.where for to in config.destinations}
    strays = [name for name, states in queues.items() if name not in addresses and _unsettled(states)]
    none = dict.fromkeys(DeliveryState, 0)
    around = surroundings(ledger, config.spool.path, addresses)
    roles = supervisor.ROLES if config.web is None else (*supervisor.ROLES, "web")
    found = machines.look(ledger, config.spool.path, roles)
    places = {name: queues.get(name, none) for name in (*addresses, *strays)}
    live, kept = {to.name: config.live_share(to) for to in config.destinations}, shadow.look(ledger)
    return NodeStatus(
        at=around.now,
        roles=machines.together(found, roles),
        machines=found,
        instances=queries.counts(ledger),
        oldest=listing.oldest_instance(ledger),
        studies=study_stories.counts(ledger, config.study.max_wait_s),
        destinations=places,
        health={
            name: _place(name, around, addresses, states, oldest, (live.get(name), kept.get(name)))
            for name, states in places.items()
        },
        dead_deliveries=queries.dead_deliveries(ledger),
        late_deliveries=queries.late_deliveries(ledger),
        uncommitted=queries.uncommitted(ledger),
        worklists=worklist_status.look(ledger, config.worklists, around.health),
        addresses=addresses,
        last_received={by: listing.last_received(ledger, by) for by in (By.SENDER, By.STATION)},
        recent=queries.recent(ledger, LAST),
    )


def _unsettled(states: Mapping[DeliveryState, int]) -> bool:
    return any(states[state] for state in (*UNSENT, DeliveryState.DEAD))


def _place(
    name: str,
    around: Surroundings,
    addresses: Mapping[str, str],
    states: Mapping[DeliveryState, int],
    oldest: Mapping[str, Oldest],
    in_shadow: tuple[float | None, Kept | None],
) -> DestinationStatus:
    seen = around.health.get(name)
    return DestinationStatus(
        address=addresses.get(name),
        deliveries=states,
        oldest=oldest.get(name),
        down_since=seen.down_since if seen else None,
        next_try_at=seen.next_try_at if seen else None,
        last_error=seen.last_error if seen else None,
        last_success_at=seen.last_success_at if seen else None,
        held=around.holds.get(name),
        live_share=in_shadow[0],
        shadow=in_shadow[1],
    )


def shadow_words(place: DestinationStatus, now: datetime) -> str | None:
    """Say of a destination how much of what is for it is not sent; None: all of it goes out, and nothing is kept."""
    said = []
    if place.live_share == 0.0:
        said.append("its results are kept and not sent")
    elif place.live_share is not None and place.live_share < 1.0:
        said.append(f"results of {100 * place.live_share:g} % of studies are sent, those of the others are kept")
    if place.shadow is not None:
        said.append(f"{place.shadow.objects} objects kept, the oldest for {times.age(now - place.shadow.since)}")
    return f"SHADOW: {'; '.join(said)}" if said else None
