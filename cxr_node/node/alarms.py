"""What makes `cxr-node status` fail, for those that watch the node: one small grammar. Reads nothing.

alarms  = alarm ("," alarm)*
alarm   = "dead" | "stopped" | "uncommitted" | ("down" | "waiting") [">" duration]
duration as `spans.duration` reads it: 30s, 15m, 2h, 7d
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from cxr_node import durations
from cxr_node.node.jobs import InstanceState
from cxr_node.node.status import Status

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
        raise ValueError(f"{text!r} is no alarm{meant}; there are: {GRAMMAR}")
    if sign and word in _PLAIN:
        raise ValueError(f"{text!r}: {word} takes no duration; there are: {GRAMMAR}")
    return Alarm(word, durations.duration(span)) if sign else Alarm(word)


def raised(alarms: Sequence[Alarm], seen: Status) -> list[str]:
    """Say what is wrong, one sentence each; nothing where all is well."""
    return [f"{alarm.word}: {sentence}" for alarm in alarms for sentence in _sentences(alarm, seen)]


def _sentences(alarm: Alarm, seen: Status) -> Iterator[str]:
    match alarm.word:
        case "dead":
            if number := seen.instances[InstanceState.DEAD]:
                yield f"{number} images are DEAD (cxr-node list --state DEAD)"
        case "stopped":
            if stopped := [role for role, state in seen.roles.items() if not state.running]:
                verb = "does" if len(stopped) == 1 else "do"
                yield f"{', '.join(stopped)} {verb} not run"
        case "uncommitted":
            for name, states in seen.uncommitted.items():
                if number := sum(states.values()):
                    yield f"{name} has not committed itself to {number} objects"
        case "down":
            yield from _down(alarm, seen)
        case "waiting":
            yield from _waiting(alarm, seen)


def _down(alarm: Alarm, seen: Status) -> Iterator[str]:
    for name, place in seen.health.items():
        if place.address is not None and place.down_since is not None:
            span = seen.at - place.down_since
            if span >= alarm.longer_than:
                yield f"{name} has not answered for {durations.age(span)} ({place.last_error})"


def _waiting(alarm: Alarm, seen: Status) -> Iterator[str]:
    queues = [("images to be judged", "instance", seen.oldest)]
    queues += [(f"results for {name}", "delivery", place.oldest) for name, place in seen.health.items()]
    for what, noun, oldest in queues:
        if oldest is not None and (span := seen.at - oldest.since) >= alarm.longer_than:
            yield f"{oldest.waiting} {what}, the oldest ({noun}={oldest.number}) for {durations.age(span)}"
