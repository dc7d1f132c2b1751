"""How the ledger looks in a terminal and in a pipe: status, list, trace, counts. Decides nothing.

A UID is to be copied: it is never cut, and stands on one line where stdout is not a terminal. All times are UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from cxr_node import times
from cxr_node.cli import tables, worklist_tables
from cxr_node.dicom.words import names
from cxr_node.domain import Target
from cxr_node.node.ledger.listing import By, Count
from cxr_node.node.ledger.machines import MachineState
from cxr_node.node.ledger.queries import DeliveryRow, InstanceRow, Story
from cxr_node.node.ledger.results import Version
from cxr_node.node.ledger.states import OPEN, DeliveryState, InstanceState, aside_words
from cxr_node.node.ledger.status import DestinationStatus, NodeStatus, clock, held, shadow_words
from cxr_node.node.ledger.study_stories import StudyCounts, StudyRow
from cxr_node.node.process.supervisor import RoleState
from cxr_node.result_kinds import called

WIDE = 180
"""Columns from which an instance is one line; below, its UID has a line of its own."""
Targets = Mapping[str, Target]
"""What each configured profile judges, by the profile's name."""


def status(seen: NodeStatus, targets: Targets) -> Group:
    """Roles, queue, destinations, senders, last instances."""
    roles = _table("process", "", title="node")
    for role, state in seen.roles.items():
        roles.add_row(role, _role(state, seen.at))
    queue = _table(*seen.instances, title="instances")
    queue.add_row(*(str(number) for number in seen.instances.values()))
    parts: list[RenderableType] = [roles, queue]
    if len(seen.machines) > 1:
        parts.insert(1, _machines(seen))
    if seen.oldest is not None:
        age = times.age(seen.at - seen.oldest.since)
        parts.append(Text(f"oldest image that waits to be judged: #{seen.oldest.number}, for {age}"))
    if (said := _studies(seen.studies, seen.at)) is not None:
        parts.append(said)
    parts.append(_destinations(seen))
    parts += worklist_tables.lines(seen.worklists, seen.at)
    if seen.uncommitted:
        promised = _table("destination", "objects", title="accepted, not committed")
        for name, waiting in seen.uncommitted.items():
            promised.add_row(name, ", ".join(f"{number} {state}" for state, number in sorted(waiting.items())))
        parts.append(promised)
    if any(seen.last_received.values()):
        parts.append(_last_received(seen.last_received, seen.at))
    if seen.recent:
        parts += [Text("last instances", "italic"), Listing(seen.recent, targets)]
    return Group(*parts)


def _studies(seen: StudyCounts, now: datetime) -> Text | None:
    """None where no destination ever wanted a report of a study."""
    if not (seen.waiting or seen.failed or seen.reported_today):
        return None
    said = Text(f"studies: {seen.waiting} waiting")
    if seen.oldest is not None:
        said.append(f", the oldest (#{seen.oldest.number}) for {times.age(now - seen.oldest.since)}")
    said.append(f"; {seen.reported_today} reports made today")
    if seen.failed:
        said.append(f"; {seen.failed} FAILED (cxr-node list --study FAILED)", "bold red")
    return said


@dataclass(frozen=True, slots=True)
class Listing:
    """Instances, one line each where there is room, else two."""

    rows: Sequence[InstanceRow]
    targets: Targets

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """As rich asks for it."""
        if options.max_width < WIDE:
            yield from (_two_lines(row, self.targets) for row in self.rows)
            return
        table = _table("no.", "received (UTC)", "from", "station", "state", "verdict", "reason", "SOP Instance UID")
        for row in self.rows:
            facts = (*_facts(row, self.targets), row.sop_instance_uid)
            table.add_row(*(Text(part) if isinstance(part, str) else part for part in facts))
        yield table


def _facts(row: InstanceRow, targets: Targets) -> tuple[str | Text, ...]:
    return (
        f"#{row.id}",
        when(row.received_at),
        row.calling_ae_title or "-",
        row.station_name or "-",
        row.state.value,
        _verdict(row, targets),
        aside_words(row.reason, row.sentence).removeprefix("set aside: ")
        if row.state is InstanceState.SET_ASIDE
        else row.reason or row.abstain_reason or "",
    )


def _two_lines(row: InstanceRow, targets: Targets) -> Text:
    number, received, sender, station, state, verdict, reason = _facts(row, targets)
    line = Text(f"{number}  {received}  {sender} {'' if station == '-' else station}  {state}  ")
    return line.append_text(Text.assemble(verdict)).append(f"  {reason}\n    {row.sop_instance_uid}")


def _verdict(row: InstanceRow, targets: Targets) -> Text:
    """Name of the verdict, and its certainty where one may be stated."""
    profile = (row.profile or "").rpartition(" ")[0]  # name and version
    said = tables.verdict(row.verdict, targets.get(profile))
    certainty = tables.stated(row.probability, row.abstain_reason, row.verdict)
    return said if certainty == "-" else said.append(f" {certainty}")


def story(told: Story, targets: Targets, study: StudyRow | None = None) -> Group:
    """One instance from receipt to archive; what belongs to the reports of its `study` stands there."""
    row = told.instance
    head = Table(show_header=False, box=None)
    for name, value in (_head(row, targets) | _versions(told)).items():
        head.add_row(name, Text(value, overflow="fold"))
    of_study = frozenset[int]() if study is None else study.delivery_ids
    ways = deliveries((kind(one), one) for one in told.deliveries if one.id not in of_study)
    where = any(event.machine for event in told.events)
    events = _table("when (UTC)", "what", "detail", *(["machine"] if where else []), box=False)
    for event in told.events:
        events.add_row(when(event.at), event.what, Text(event.detail), *([event.machine or ""] if where else []))
    return Group(head, *ways, events)


def deliveries(named: Iterable[tuple[str, DeliveryRow]]) -> list[Table]:
    """Where objects, each by its name, are to go, and where they went."""
    way = _table("object", "to", "state", "tries", "last answer, and why it waits", box=False)
    held = _table("accepted object", "by", "at (UTC)", "committed (UTC)", "seen again (UTC)", box=False)
    for name, one in named:
        back = "-" if one.seen_again_at is None else when(one.seen_again_at)
        if one.delivered_at is None:
            way.add_row(name, one.destination, _sent(one), str(one.attempts), _last(one))
        else:
            held.add_row(name, one.destination, when(one.delivered_at), _promise(one), back)
    return [table for table in (way, held) if table.row_count]


def _head(row: InstanceRow, targets: Targets) -> dict[str, str]:
    facts = {
        "number": f"#{row.id}",
        "SOP Instance UID": row.sop_instance_uid,
        "Study Instance UID": row.study_instance_uid,
        "received": f"{when(row.received_at)} UTC from {row.calling_ae_title or '-'} at {row.peer_host or '-'}",
        "station": row.station_name or "-",
        "size": f"{row.size_bytes} bytes",
        "received again": f"{row.repeats} times, last {when(row.repeated_at)} UTC" if row.repeated_at else "-",
        "state": row.state.value,
        "waits": row.why,
        "verdict": f"{_verdict(row, targets)} {row.profile or ''}",
        "reason": " - ".join(word for word in (row.reason, names.reason(row.abstain_reason), row.sentence) if word)
        or "-",
    }
    if row.state is InstanceState.SET_ASIDE:
        facts |= {"state": aside_words(row.reason, row.sentence), "reason": None}
    return {name: value for name, value in facts.items() if value is not None}


def _versions(told: Story) -> dict[str, str]:
    """Other versions of the same instance, and what becomes of their results."""

    def words(version: Version) -> str:
        where = "" if version.same_study else " of another study"
        whose = " under another Patient ID" if version.same_patient is False else ""
        rest = "; its results stay in the archive until they are removed there" if where or whose else ""
        return f"image #{version.instance_id}{where}{whose}, {len(version.sop_instance_uids)} result objects{rest}"

    row = told.instance
    named = {"replaces": told.replaces, "replaced by": told.replaced_by}
    said = {name: "\n".join(map(words, versions)) for name, versions in named.items() if versions}
    if told.replaced_by and row.repeated_at is not None:
        said["replaced by"] += f"\nthis version came again: `cxr-node resend {row.id}` sends its own results again"
    return said


def kind(one: DeliveryRow) -> str:
    """What a result is to people; the SOP Class only where a destination did not take the first."""
    return called(one.kind, one.sop_class_uid if one.sop_class_choice else None)


def _sent(one: DeliveryRow) -> str:
    return "waiting" if one.state in OPEN else one.state.value


def _last(one: DeliveryRow) -> Text:
    """Last answer, and what it waits for."""
    answer = "" if one.last_status is None else f"0x{one.last_status:04X}"
    said = " ".join(word for word in (answer, one.last_error) if word)
    if one.state is DeliveryState.SET_ASIDE:
        return Text(aside_words(one.reason, one.last_error))
    if one.why is None:
        return Text(said or "-")
    return Text(f"{one.why}" + (f"\nlast: {said}" if said and said not in one.why else ""))


def _promise(row: DeliveryRow) -> Text:
    """When; else where it stands, and why. Its transaction is among the events."""
    if row.commitment is None:
        return Text("-")
    if row.committed_at is not None:
        return Text(when(row.committed_at))
    return Text(f"{row.commitment.value}, asked {row.asks} times\n{row.commitment_detail or ''}".rstrip())


def counts(found: Sequence[Count], by: Sequence[By]) -> Table:
    """One row for each group: images, verdicts, what waits or died, the last one."""
    table = _table(*("day (UTC)" if each is By.DAY else each.value for each in by))
    for heading in ("images", *(found[0].verdicts if found else ()), "waiting", "DEAD", "last received (UTC)"):
        table.add_column(heading, justify="right")
    for one in found:
        numbers = (one.images, *one.verdicts.values(), one.waiting, one.dead)
        last = "-" if one.last_received_at is None else when(one.last_received_at)
        table.add_row(*(Text(word or "-") for word in one.group), *(str(number) for number in numbers), last)
    return table


def count_as_json(one: Count, by: Sequence[By]) -> dict[str, object]:
    """One group as one object: its words by name, then its numbers."""
    words: dict[str, object] = {each.value: word for each, word in zip(by, one.group, strict=True)}
    last = one.last_received_at and one.last_received_at.isoformat()
    numbers = {"images": one.images, "verdicts": dict(one.verdicts), "waiting": one.waiting, "dead": one.dead}
    return words | numbers | {"last_received_at": last}


def _machines(seen: NodeStatus) -> Table:
    """Which machines there are, and what runs where."""
    found = _table("machine", "version", *seen.roles, "", title="machines")
    for each in seen.machines:
        numbers = (str(state.processes) if state.running else "-" for state in each.roles.values())
        found.add_row(each.name, each.version, *numbers, _heard(each, seen.at))
    return found


def _heard(machine: MachineState, now: datetime) -> Text:
    at = clock(machine.seen_at, now)
    if machine.has_left:
        return Text(f"was stopped at {at}")
    return Text(f"has not been heard of since {at}" if machine.is_silent else "", "bold red")


def _role(state: RoleState, now: datetime) -> Text:
    if state.since is None:
        return Text("is not running, and never was with this spool" if not state.running else "runs", "yellow")
    at = clock(state.since, now)
    if not state.running:
        ended = f"has not been running since {at}"
        return Text(ended if state.in_order else f"is not running; it was killed, last sign of life {at}", "bold red")
    more = f", {state.processes} processes" if state.processes > 1 else ""
    silent = state.seen_at is not None and (now - state.seen_at).total_seconds() > 120
    quiet = f"; its last sign of life was at {clock(state.seen_at, now)}" if silent and state.seen_at else ""
    return Text(f"runs since {at}{more}{quiet}")


def _destinations(seen: NodeStatus) -> Group:
    """One line of health for each; then the numbers."""
    lines = [_fares(name, place, seen.at) for name, place in seen.health.items()]
    table = _table("deliveries to")
    headings = ["waiting", "oldest", DeliveryState.DELIVERED.value, DeliveryState.DEAD.value]
    headings += ["late"] if seen.late_deliveries else []
    for heading in headings:
        table.add_column(heading, justify="right")
    for name, place in seen.health.items():
        waiting = sum(place.deliveries[state] for state in OPEN)
        oldest = "-" if place.oldest is None else times.age(seen.at - place.oldest.since)
        told = [str(place.deliveries[state]) for state in (DeliveryState.DELIVERED, DeliveryState.DEAD)]
        told += [str(seen.late_deliveries.get(name, 0))] if seen.late_deliveries else []
        table.add_row(name, str(waiting), oldest, *told)
    return Group(*lines, *([table] if seen.health else []))


def _fares(name: str, place: DestinationStatus, now: datetime) -> Text:
    if place.address is None:
        kept = shadow_words(place, now)
        more = "" if kept is None else f"; {kept}"
        return Text(f"{name} is not configured (cxr-node forget --destination {name} settles what is left){more}")
    last = "" if place.last_success_at is None else f"; last success {clock(place.last_success_at, now)}"
    line = Text(f"{name} ({place.address}) ")
    if (words := shadow_words(place, now)) is not None:
        line.append(f"is in {words} (cxr-node shadow); ", "yellow")
    if place.held is not None:
        line.append(f"is {held(place.held, now)} (cxr-node release {name}); ", "yellow")
    if place.down_since is None:
        return line.append("is up" if place.last_success_at is not None else "was not tried yet").append(last)
    tried = ""
    if place.next_try_at is not None and any(place.deliveries[state] for state in OPEN):
        tried = f", next try {clock(place.next_try_at, now)}" if place.next_try_at > now else ", being tried now"
    told = f"has been down since {clock(place.down_since, now)}{tried}: {place.last_error or ''}".rstrip(": ")
    return line.append(told, "bold red").append(last)


def _last_received(last: Mapping[By, Mapping[str, datetime]], now: datetime) -> Table:
    table = _table("", "name", "at (UTC)", "ago", title="last received")
    for by, seen in last.items():
        for name, at in seen.items():
            table.add_row(by.value, Text(name), when(at), times.age(now - at))
    return table


def left_over(rows: Iterable[InstanceRow]) -> list[str]:
    """Say in what state instances are of which nothing is DEAD."""
    words = {
        InstanceState.RECEIVED: "waits to be judged",
        InstanceState.REPORTED: "is on its way to its destinations",
        InstanceState.DELIVERED: "is DELIVERED since",
        InstanceState.REJECTED: "is REJECTED",
        InstanceState.DEAD: "is DEAD",
        InstanceState.SET_ASIDE: "is set aside",
        InstanceState.SHADOW: "is in SHADOW: kept, not sent (cxr-node shadow)",
    }
    said = []
    for row in rows:
        more = ""
        if row.state is InstanceState.DELIVERED:
            more = f" {when(row.updated_at)} UTC (cxr-node resend sends results again)"
        elif row.state is InstanceState.REJECTED:
            more = f", {row.reason} (cxr-node rejudge judges it again)"
        said.append(f"#{row.id} {row.sop_instance_uid} {words[row.state]}{more}")
    return said


def when(at: datetime) -> str:
    """To the second."""
    return at.strftime("%Y-%m-%d %H:%M:%S")


def _table(*headings: str, title: str | None = None, box: bool = True) -> Table:
    """A column whose cells are folded, never cut."""
    table = Table(title=title, title_justify="left") if box else Table(box=None)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
