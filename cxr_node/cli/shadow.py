"""What is in shadow: shown, sent or expired; registered by `cli`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from cxr_node import times
from cxr_node.cli import tables
from cxr_node.cli.app import DEFAULT_CONFIG, AsJson, ConfigFile, command, err, load_config, out, say_json
from cxr_node.cli.ledger import Anything, Destination, Since, Until, known_destination, opened, parsed
from cxr_node.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cxr_node.config.schema import Config
    from cxr_node.node.ledger.ledger import Ledger
    from cxr_node.node.ledger.shadow import Kept, Which


class Verb(StrEnum):
    """What is done with it."""

    SHOW = "show"
    SEND = "send"
    EXPIRE = "expire"


@command()
def shadow(
    verb: Annotated[Verb, typer.Argument(help="show, send or expire.")] = Verb.SHOW,
    key: Anything = None,
    config: ConfigFile = DEFAULT_CONFIG,
    destination: Destination = None,
    since: Since = None,
    until: Until = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what is in shadow (kept, not sent), send it, or let it expire; always whole studies."""
    from cxr_node.node.audit import recorder
    from cxr_node.node.ledger import shadow
    from cxr_node.node.ledger.wake import wake
    from cxr_node.node.process.notify import Role

    settings = load_config(config)
    with opened(settings) as ledger:
        which = _which(ledger, settings, key, destination, (since, until))
        kept = shadow.look(ledger, which)
        if verb is Verb.SHOW:
            _show(settings, kept, ledger.now(), as_json)
            return
        if not kept:
            raise DataError("nothing of it is in shadow")
        words = ", ".join(f"{each.objects} objects for {name}" for name, each in kept.items())
        if not yes:
            question = f"Send {words}?" if verb is Verb.SEND else f"Let {words} expire: they are never sent?"
            typer.confirm(question, abort=True, err=True)
        with recorder.by_operator(settings, "shadow", by := recorder.account()) as record:
            more = _limits(key, (since, until))
            record(f"results in shadow are {'sent' if verb is Verb.SEND else 'expired'}: {words}{more}")
            done = shadow.send(ledger, which, by=by) if verb is Verb.SEND else shadow.expire(ledger, which, by=by)
        wake(ledger, settings.spool.path, Role.DELIVER)
    if as_json:
        say_json({"verb": verb.value, "objects": dict(done.objects), "replaced": dict(done.replaced)})
        return
    for name, number in done.objects.items():
        ending = f"are due at {name} now" if verb is Verb.SEND else f"for {name} are expired"
        out.print(f"{number} objects {ending}", markup=False)
    for name, number in done.replaced.items():
        err.print(f"{number} objects for {name} are not sent: a later report or version replaced them", markup=False)


def _which(
    ledger: Ledger, settings: Config, key: str | None, destination: str | None, window: tuple[str | None, str | None]
) -> Which:
    from cxr_node.dicom.read import keys
    from cxr_node.node.ledger import listing
    from cxr_node.node.ledger.shadow import Which

    at = ledger.now()
    begin = parsed(lambda text: times.moment(text, at), window[0], "--since")
    end = parsed(lambda text: times.moment(text, at, whole_day=True), window[1], "--until")
    wanted = listing.Wanted(
        key=None if key is None else key.strip(),
        accession_keys=() if key is None else keys.accession_keys(key),
        since=begin,
        until=end,
    )
    images = () if wanted == listing.Wanted() else (listing.condition(wanted, at),)
    return Which(destination=known_destination(ledger, settings, destination), images=images)


def _limits(key: str | None, window: tuple[str | None, str | None]) -> str:
    """Limits as they were typed; a KEY names a patient's study, and is left out."""
    said = ["of one key"] if key is not None else []
    said += [f"{word} {text}" for word, text in zip(("since", "until"), window, strict=True) if text is not None]
    return f", {', '.join(said)}" if said else ""


def _show(settings: Config, kept: Mapping[str, Kept], now: datetime, as_json: bool) -> None:
    shares = {to.name: settings.live_share(to) for to in settings.destinations}
    if as_json:
        say_json({"live_share": shares, "kept": tables.plain(kept), "keep_days": settings.results.shadow_keep_days})
        return
    for name in dict.fromkeys((*shares, *kept)):
        share, one = shares.get(name), kept.get(name)
        mode = "not configured" if share is None else "SHADOW" if share == 0.0 else "live"
        mode += f", {100 * share:g} % of studies" if share is not None and 0.0 < share < 1.0 else ""
        there = f"{one.objects} objects kept, the oldest for {times.age(now - one.since)}" if one else "nothing kept"
        out.print(f"{name}: {mode}; {there}", markup=False)
    if kept:
        days = settings.results.shadow_keep_days
        out.print(f"`cxr-node shadow send` sends them; after {days:g} days (results.shadow_keep_days) they expire")


__all__ = ["shadow"]
