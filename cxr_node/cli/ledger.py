"""Commands that show the ledger, and retry what is DEAD or waiting; registered by `cli`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cxr_node import times, wiring
from cxr_node.cli import tables
from cxr_node.cli.app import DEFAULT_CONFIG, AsJson, ConfigFile, command, err, load_config, out, say_json
from cxr_node.errors import DataError, ResourceError

if TYPE_CHECKING:
    from cxr_node.config.schema import Config
    from cxr_node.node.ledger.ledger import Ledger
    from cxr_node.node.ledger.listing import By, Wanted
    from cxr_node.node.ledger.operator_moves import Retried

Value = TypeVar("Value")
Key = Annotated[
    str,
    typer.Argument(
        help="Study, Series or SOP Instance UID, also of a result or a work item; Accession Number; a number or digest "
        "of a log line.",
        show_default=False,
    ),
]
Anything = Annotated[str | None, typer.Argument(help="As for `trace`; without one, all.", show_default=False)]
Destination = Annotated[str | None, typer.Option("--destination", help="Name of a destination.")]
Reason = Annotated[
    str | None, typer.Option("--reason", help="Coded reason of a rejection, of a death, or of an UNCERTAIN.")
]
Since = Annotated[
    str | None, typer.Option("--since", help="Received since: 15m, 2h or 7d ago, or 2026-07-01T16:00 (UTC).")
]
Until = Annotated[
    str | None, typer.Option("--until", help="Received before then, written as --since; a bare date includes that day.")
]


@contextmanager
def opened(config: Config) -> Iterator[Ledger]:
    """Open the ledger of a node that has run.

    Raises
    ------
    ConfigError : it has not run.
    """
    ledger = wiring.ledger(config)
    try:
        yield ledger
    finally:
        ledger.close()


@command()
def status(
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: AsJson = False,
    fail_on: Annotated[
        str | None,
        typer.Option(
            "--fail-on",
            help="Exit 1 if: dead, stopped, down, down>5m, waiting, waiting>15m, uncommitted; several with commas.",
        ),
    ] = None,
) -> None:
    """Show processes, queue, destinations, senders and the last results."""
    from cxr_node.cli import ledger_tables
    from cxr_node.node.ledger import status

    asked = parsed(status.parse, fail_on, "--fail-on") or []
    settings = load_config(config)
    with opened(settings) as ledger:
        seen = status.look(ledger, settings)
        promoted = None if settings.model.candidate is None else wiring.promotion(settings, ledger)
    failed = status.raised(asked, seen)
    if as_json:
        more = {} if promoted is None else {"promotion": tables.plain(promoted)}
        say_json(tables.plain(seen) | more | ({"failed": failed} if fail_on is not None else {}))
    else:
        for sentence in failed:  # first: those that watch show the first line
            out.print(f"FAIL {sentence}", markup=False)
        out.print(ledger_tables.status(seen, wiring.targets(settings)))
        if promoted is not None:
            names = promoted.rivals
            out.print(f"{names.candidate} is live in place of {names.profile}, promoted by {promoted.by}", markup=False)
    raise typer.Exit(1 if failed else 0)


@command()
def trace(key: Key, config: ConfigFile = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Show the history of a study and its images: reports, reasons, deliveries, commitment, repeated receipts."""
    from cxr_node.cli import ledger_tables, study_tables, worklist_tables
    from cxr_node.dicom.read import keys
    from cxr_node.node.ledger import queries, status, work_items

    settings = load_config(config)
    titles = {to.name: to.ae_title for to in settings.destinations}
    with opened(settings) as ledger:
        found = queries.trace(ledger, key.strip(), titles, accession_keys=keys.accession_keys(key))
        uids = {each.instance.sop_instance_uid for each in found}
        pulled = work_items.about(ledger, key, uids)
        if not found and not pulled:
            raise unknown(key)
        told = status.told(ledger, found, settings.spool.path, titles)
    if as_json and not told:
        say_json({"work_items": tables.plain(pulled)})
    if pulled and not as_json:
        out.print(worklist_tables.items(pulled))
    for study, stories in told:
        if study is not None and not as_json:
            out.print(study_tables.study(study, stories, wiring.targets(settings)))
        for story in stories:
            if as_json:
                say_json(tables.plain(story) | {"study": tables.plain(study), "work_items": tables.plain(pulled)})
            else:
                out.print(ledger_tables.story(story, wiring.targets(settings), study))


@command(name="list")
def list_instances(
    key: Anything = None,
    config: ConfigFile = DEFAULT_CONFIG,
    state: Annotated[
        str | None, typer.Option(help="RECEIVED, REPORTED, DELIVERED, SHADOW, REJECTED, DEAD or SET_ASIDE.")
    ] = None,
    verdict: Annotated[
        str | None, typer.Option(help="NORMAL, UNCERTAIN, REJECTED, or what a positive is called: PNEUMONIA.")
    ] = None,
    study: Annotated[str | None, typer.Option(help="WAITING, REPORTED or FAILED: the state of its study.")] = None,
    reason: Reason = None,
    sender: Annotated[str | None, typer.Option(help="Calling AE title.")] = None,
    station: Annotated[str | None, typer.Option(help="Station Name (0008,1010) of the image.")] = None,
    destination: Destination = None,
    since: Since = None,
    until: Until = None,
    set_aside: Annotated[bool, typer.Option("--set-aside", help="What was set aside, or was too late.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List images, the newest first: by state, verdict, reason, sender, station, destination and time."""
    from cxr_node.cli import ledger_tables
    from cxr_node.node.ledger import listing
    from cxr_node.node.ledger.stages import Stage
    from cxr_node.node.ledger.states import StudyState

    settings = load_config(config)
    of_study = parsed(lambda text: member(StudyState, text.upper()), study, "--study")
    words = {"state": state, "reason": reason, "since": since, "until": until}
    with opened(settings) as ledger:
        said = None if verdict is None else _verdict(ledger, settings, verdict)
        known = known_destination(ledger, settings, destination)
        wanted = _wanted(key, words, {"verdict": said, "sender": sender, "station": station}, known)
        wanted = dataclasses.replace(wanted, stage=Stage.SET_ASIDE if set_aside else None, study=of_study)
        rows = listing.find(ledger, wanted, limit + 1)
    for row in rows[:limit] if as_json else ():
        say_json(tables.plain(row))
    if not as_json:
        out.print(ledger_tables.Listing(rows[:limit], wiring.targets(settings)) if rows else "none")
        if len(rows) > limit:
            err.print(f"and more; --limit {limit} shows the newest")


@command()
def counts(
    config: ConfigFile = DEFAULT_CONFIG,
    by: Annotated[str, typer.Option(help="day, sender, station, reason, verdict; several with commas.")] = "day",
    since: Annotated[str, typer.Option(help="30d ago, or a date (UTC).")] = "30d",
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """Count images by day, sender, station, reason or verdict, and show when the last one came."""
    from cxr_node.cli import ledger_tables
    from cxr_node.node.ledger import listing

    words = parsed(_groups, by, "--by") or []
    settings = load_config(config)
    now = datetime.now(UTC)
    begin = moment_since(since, now)
    end = None if until is None else parsed(lambda text: times.moment(text, now, whole_day=True), until, "--until")
    with opened(settings) as ledger:
        found = listing.counts(ledger, words, begin, end, _configured_words(settings))
    if as_json:
        for one in found:
            say_json(ledger_tables.count_as_json(one, words))
    else:
        out.print(ledger_tables.counts(found, words))


@command()
def retry(
    key: Anything = None,
    config: ConfigFile = DEFAULT_CONFIG,
    all_dead: Annotated[bool, typer.Option("--dead", help="All that is DEAD, limited by the other options.")] = False,
    destination: Destination = None,
    reason: Reason = None,
    since: Since = None,
) -> None:
    """Give another try to what is DEAD, with a KEY also to what was set aside; request missing commitments again."""
    from cxr_node.node.audit.recorder import account
    from cxr_node.node.ledger import commitments, listing, operator_moves
    from cxr_node.node.ledger.wake import wake
    from cxr_node.node.process.notify import Role

    settings = load_config(config)
    configured = [to.name for to in settings.destinations]
    if (key is None) is not all_dead:
        raise DataError(
            "retry what? Give a KEY, or --dead for all that is DEAD (with --destination, --reason, --since)"
        )
    destination = None if destination is None else as_logged(destination)
    if destination is not None and destination not in configured:
        raise unconfigured(destination, configured)
    with opened(settings) as ledger:
        wanted = _wanted(key, {"reason": reason, "since": since}, {}, None)
        to = configured if destination is None else [destination]
        unjudged = destination is None
        which, by = listing.condition(wanted), account()
        again = operator_moves.Again(destinations=to, by=by, unjudged=unjudged, set_aside=key is not None)
        came = operator_moves.retry(ledger, which, again)
        asking = [to.name for to in settings.destinations if to.is_asked_to_commit]
        renewed = commitments.renew(ledger, which, asking, by=by) if key is not None and unjudged else 0
        if key is not None and not came.instances and not renewed:
            raise DataError(_nothing_dead(ledger, wanted, came))
        for role in Role:
            wake(ledger, settings.spool.path, role)
    _say_retried(came, renewed)


@command()
def forget(
    destination: Annotated[str, typer.Option("--destination", help="Name of a destination that was removed.")],
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Drop the deliveries that wait for, or died at, a destination that is no longer configured."""
    from cxr_node.node.audit.recorder import account
    from cxr_node.node.deliver import removed_destinations
    from cxr_node.node.ledger import queries

    settings = load_config(config)
    destination = as_logged(destination)
    if destination in (to.name for to in settings.destinations):
        raise DataError(f"{destination}: is configured; remove it from the configuration first, and restart the node")
    with opened(settings) as ledger:
        queues = queries.queues(ledger)
        if destination not in queues:
            known = ", ".join(sorted(queues)) or "none"
            raise DataError(f"{destination}: nothing was ever due at a destination of this name; there were: {known}")
        done = removed_destinations.forget(ledger, destination, by=account())
    out.print(f"{done.deliveries} deliveries to {destination} forgotten, {done.delivered} images are DELIVERED now")
    if done.held:
        raise ResourceError(f"{done.held} deliveries are in hand: stop deliver, or wait, and repeat the command")


@command()
def now(
    destination: Annotated[str, typer.Argument(help="Name of a destination.")], config: ConfigFile = DEFAULT_CONFIG
) -> None:
    """Try a destination at once, not only when its next try is due."""
    from cxr_node.node.audit.recorder import account
    from cxr_node.node.ledger import destination_health, holds, machines
    from cxr_node.node.ledger.wake import wake
    from cxr_node.node.process import supervisor
    from cxr_node.node.process.notify import Role

    settings = load_config(config)
    destination = as_logged(destination)
    configured = [to.name for to in settings.destinations]
    if destination not in configured:
        raise unconfigured(destination, configured)
    with opened(settings) as ledger:
        if destination in holds.look(ledger):
            raise DataError(f"{destination}: is held; `cxr-node release {destination}` sends what waits")
        waiting = destination_health.try_now(ledger, destination, by=account())
        wake(ledger, settings.spool.path, Role.DELIVER)
        roles = machines.together(machines.look(ledger, settings.spool.path, supervisor.ROLES), supervisor.ROLES)
    if not waiting:
        out.print(f"nothing waits for {destination}; `cxr-node check` shows whether it answers")
        return
    out.print(f"{destination}: {waiting} objects are due now")
    if not roles["deliver"].running:
        raise ResourceError("deliver does not run; the destination is tried as soon as it starts")


def _wanted(
    key: str | None, words: dict[str, str | None], names: dict[str, str | None], destination: str | None
) -> Wanted:
    """What is looked for, of options that were typed."""
    from cxr_node.dicom.read import keys
    from cxr_node.node.ledger.listing import Wanted
    from cxr_node.node.ledger.states import InstanceState

    at = datetime.now(UTC)
    return Wanted(
        key=None if key is None else key.strip(),
        accession_keys=() if key is None else keys.accession_keys(key),
        state=parsed(lambda text: member(InstanceState, text.upper()), words.get("state"), "--state"),
        verdict=names.get("verdict"),
        reason=reason_of(words.get("reason"), "--reason"),
        sender=names.get("sender"),
        station=names.get("station"),
        destination=destination,
        since=parsed(lambda text: times.moment(text, at), words.get("since"), "--since"),
        until=parsed(lambda text: times.moment(text, at, whole_day=True), words.get("until"), "--until"),
    )


def _configured_words(settings: Config) -> list[str]:
    """Words of a positive verdict of the configured profiles."""
    from cxr_node.domain import Verdict

    return [target.word(Verdict.POSITIVE) for target in wiring.targets(settings).values()]


def _verdict(ledger: Ledger, settings: Config, text: str) -> str | None:
    """Read --verdict: a word of every target, or the positive word of one, configured or in the ledger."""
    from cxr_node.domain import Verdict
    from cxr_node.node.ledger import listing

    common = [verdict.value for verdict in Verdict if verdict is not Verdict.POSITIVE]
    known = [*dict.fromkeys((*_configured_words(settings), *listing.positives(ledger))), *common]
    return parsed(lambda word: _among(known, word), text.upper(), "--verdict")


def moment_since(text: str, at: datetime) -> datetime:
    """Read --since where it has a default."""
    found = parsed(lambda written: times.moment(written, at), text, "--since")
    return at if found is None else found


def parsed(parse: Callable[[str], Value], text: str | None, option: str) -> Value | None:
    """Read an option; an unknown word is an error with exit 2."""
    if text is None:
        return None
    try:
        return parse(text)
    except ValueError as error:
        raise DataError(f"{option}: {error}") from error


Word = TypeVar("Word", bound=StrEnum)


def member(words: type[Word], text: str) -> Word:
    return words(_among([word.value for word in words], text))


def reason_of(text: str | None, option: str, *, rejected: bool = False) -> str | None:
    """Read a coded reason: of a rejection, and unless `rejected`, also of an UNCERTAIN or of a death."""
    from cxr_node.domain import AbstainReason, Reason
    from cxr_node.node.ledger.states import DeadReason, OwnReason, SetAsideReason

    kinds = (Reason,) if rejected else (Reason, AbstainReason, DeadReason, SetAsideReason, OwnReason)
    return parsed(lambda word: _among([one.value for kind in kinds for one in kind], word.lower()), text, option)


def _among(known: list[str], text: str) -> str:
    """A word of a list.

    Raises
    ------
    ValueError : it is none of them.
    """
    import difflib

    if text in known:
        return text
    near = difflib.get_close_matches(text, known, n=1)
    raise ValueError(
        f"there is no {text!r}; " + (f"did you mean {near[0]!r}?" if near else f"write {', '.join(known)}")
    )


def _groups(text: str) -> list[By]:
    from cxr_node.node.ledger.listing import By

    return list(dict.fromkeys(member(By, part.strip().lower()) for part in text.split(",")))


def known_destination(ledger: Ledger, settings: Config, destination: str | None) -> str | None:
    """A destination of the configuration or of the ledger's past."""
    from cxr_node.node.ledger import queries

    known = {to.name for to in settings.destinations}
    destination = None if destination is None else as_logged(destination)
    if destination is not None and destination not in known and destination not in queries.queues(ledger):
        raise unconfigured(destination, sorted(known))
    return destination


def as_logged(destination: str) -> str:
    """Take a destination's name as a log line has it, too: `destination=pacs`."""
    return destination.strip().removeprefix("destination=")


def unconfigured(name: str, configured: list[str]) -> DataError:
    """Error that names the destinations there are."""
    return DataError(f"{name}: no destination of this name is configured; there are: {', '.join(configured) or 'none'}")


def unknown(key: str) -> DataError:
    """Error for a key without a match."""
    return DataError(f"{key}: the ledger knows no such UID, Accession Number, number or digest")


def _nothing_dead(ledger: Ledger, wanted: Wanted, came: Retried) -> str:
    """Why nothing was retried: unknown, not DEAD, or DEAD for good."""
    from cxr_node.cli import ledger_tables
    from cxr_node.node.ledger import listing

    only = listing.Wanted(key=wanted.key, accession_keys=wanted.accession_keys)
    rows = listing.find(ledger, only, 20)
    if not rows:
        return str(unknown(wanted.key or ""))
    if came.left:
        return "\n".join(f"{wanted.key}: {number} stay DEAD: {why}" for why, number in came.left.items())
    lines = [f"{wanted.key}: nothing of it is DEAD"]
    if wanted != only:
        lines = [f"{wanted.key}: nothing of it is DEAD by these options"]
    return "\n".join([*lines, *ledger_tables.left_over(rows)])


def _say_retried(came: Retried, renewed: int) -> None:
    out.print(f"{came.instances} back in the queue" if came.instances or not renewed else "nothing of it was DEAD")
    for why, number in came.left.items():
        out.print(f"{number} stay DEAD: {why}")
    if renewed:
        out.print(f"commitment of {renewed} delivered objects is asked for again")


__all__: list[Any] = ["counts", "forget", "list_instances", "now", "opened", "retry", "status", "trace"]
