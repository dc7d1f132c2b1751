"""What an operator does on a page: first it is in the audit trail, then the ledger moves, then its processes wake.

Each answers in a sentence. The moves are the ledger's own, the same that commands make; each names the person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from fastapi import Depends, Request
from pydantic import Field

from cxr_node.errors import DataError
from cxr_node.node.ledger import commitments, holds, listing, operator_moves, set_aside, shadow
from cxr_node.node.ledger.holds import HoldReason
from cxr_node.node.ledger.listing import Wanted
from cxr_node.node.ledger.operator_moves import Again, Rejudged, Resent, Retried
from cxr_node.node.ledger.shadow import Which
from cxr_node.node.ledger.states import SetAsideReason
from cxr_node.node.ledger.tables import instances
from cxr_node.node.ledger.wake import wake
from cxr_node.node.process.notify import Role
from cxr_node.node.spool.opening import open_spool
from cxr_node.web import access
from cxr_node.web.identity import person
from cxr_node.web.services import Services, services

_NAMED = 20
"""So many ledger numbers stand in one entry of the trail."""
Number = Annotated[int, Field(ge=1, lt=2**63)]
"""An image's, in the ledger."""


class Act(StrEnum):
    """What a button sends."""

    RETRY = "retry"
    RETRY_ALL = "retry-all"
    SET_ASIDE = "set-aside"
    RESEND = "resend"
    REJUDGE = "rejudge"
    HOLD = "hold"
    RELEASE = "release"
    SHADOW_SEND = "shadow-send"
    SHADOW_EXPIRE = "shadow-expire"


@dataclass(frozen=True, slots=True)
class Operator:
    """A person at a page who may change things."""

    found: Services
    person: person.Person
    host: str

    def retry(self, ids: Sequence[int]) -> str:
        """Give another try to what is DEAD or set aside of these images."""
        self._audit(f"another try for {_named(ids)}")
        which, ledger, by = instances.c.id.in_(ids), self.found.ledger(), self.person.name
        came = operator_moves.retry(ledger, which, Again(destinations=self._configured(), by=by, set_aside=True))
        asking = [to.name for to in self.found.config.destinations if to.is_asked_to_commit]
        renewed = commitments.renew(ledger, which, asking, by=by)
        self._wake()
        more = [f"commitment of {renewed} delivered objects is asked for again"] if renewed else []
        return _sentence([*_retried(came, "nothing of it is DEAD or set aside"), *more])

    def retry_all(self, wanted: Wanted) -> str:
        """Give another try to all that is DEAD and is as wanted."""
        said = [word for word in (wanted.reason, wanted.sender, wanted.destination) if word]
        self._audit("another try for all that is DEAD" + (f" ({', '.join(said)})" if said else ""))
        ledger, named = self.found.ledger(), wanted.destination
        to = self._configured() if named is None else [self._known(named)]
        again = Again(destinations=to, by=self.person.name, unjudged=named is None)
        came = operator_moves.retry(ledger, listing.condition(wanted, ledger.now()), again)
        self._wake()
        return _sentence(_retried(came, "nothing of that is DEAD"))

    def set_aside(self, ids: Sequence[int], reason: SetAsideReason) -> str:
        """End what is DEAD or waits of these images."""
        self._audit(f"sets {_named(ids)} aside: {reason}")
        done = set_aside.set_aside(self.found.ledger(), ids, reason, by=self.person.name)
        said = [f"{_images(len(done.ids))} set aside: {reason}"] if done.ids else ["nothing of it is DEAD or waits"]
        if done.in_hand:
            said.append(f"{done.in_hand} are being judged or sent right now; try again in a minute")
        return _sentence(said)

    def resend(self, ids: Sequence[int]) -> str:
        """Send the results of these images again."""
        self._audit(f"sends the results of {_named(ids)} again")
        spool = open_spool(self.found.config.spool)
        done = operator_moves.resend(
            self.found.ledger(), spool, ids, self.found.config.wishes, named=True, by=self.person.name
        )
        self._wake()
        return _sentence(_resent(done))

    def rejudge(self, ids: Sequence[int]) -> str:
        """Judge these images again."""
        self._audit(f"judges {_named(ids)} again")
        done = operator_moves.rejudge(self.found.ledger(), ids, by=self.person.name)
        self._wake()
        return _sentence(_rejudged(done))

    def hold(self, destination: str, reason: HoldReason | None) -> str:
        """Let what is for a destination wait."""
        name = self._known(destination)
        self._audit(f"holds {name}" + (f": {reason}" if reason else ""))
        held = holds.hold(self.found.ledger(), name, self.person.name, reason)
        return _sentence([f"held by {held.by}: what is for {name} waits until it is released"])

    def release(self, destination: str) -> str:
        """Send again what is for a destination."""
        name = self._known(destination, *holds.look(self.found.ledger()))
        self._audit(f"releases {name}")
        due = holds.release(self.found.ledger(), name, by=self.person.name)
        self._wake()
        return _sentence([f"nothing holds {name}" if due is None else f"released: {due} objects are due at {name} now"])

    def shadow(self, ids: Sequence[int], *, send: bool) -> str:
        """Send what is in shadow of the studies of these images, or let it expire."""
        self._audit(f"{'sends' if send else 'lets expire'} what is in shadow of the studies of {_named(ids)}")
        which, move = Which(images=[instances.c.id.in_(ids)]), shadow.send if send else shadow.expire
        done = move(self.found.ledger(), which, by=self.person.name)
        self._wake()
        words = "objects are due at {} now" if send else "objects for {} are expired"
        said = [f"{number} {words.format(name)}" for name, number in sorted(done.objects.items())]
        said += [f"{number} for {name}: replaced, not sent" for name, number in sorted(done.replaced.items())]
        return _sentence(said or ["nothing of it is in shadow"])

    def _audit(self, words: str) -> None:
        self.found.people.changed(self.person.name, words, self.host)

    def _wake(self) -> None:
        for role in Role:
            wake(self.found.ledger(), self.found.config.spool.path, role)

    def _configured(self) -> list[str]:
        return [to.name for to in self.found.config.destinations]

    def _known(self, destination: str, *others: str) -> str:
        if destination not in (*self._configured(), *others):
            raise DataError("no destination of this name is configured")
        return destination


def operator(
    request: Request,
    person: Annotated[person.Person, Depends(access.change)],
    found: Annotated[Services, Depends(services)],
) -> Operator:
    """Whoever sent a form that changes something."""
    return Operator(found, person, access.client_of(request))


def _named(ids: Sequence[int]) -> str:
    first = ", ".join(f"#{number}" for number in ids[:_NAMED])
    return f"{_images(len(ids))} ({first}{', ...' if len(ids) > _NAMED else ''})"


def _images(number: int) -> str:
    return f"{number} image" + ("" if number == 1 else "s")


def _retried(came: Retried, nothing: str) -> list[str]:
    said = [f"{came.instances} back in the queue"] if came.instances or came.left else [nothing]
    return [*said, *(f"{number} stay as they are: {why}" for why, number in came.left.items())]


def _resent(done: Resent) -> list[str]:
    said = [f"{number} objects are due again at {name}" for name, number in sorted(done.due.items()) if number]
    parts = {
        "objects were waiting to be sent anyway": done.waiting,
        "objects stay in shadow": done.shadow,
        "images left out: a corrected version has replaced them": done.replaced,
        "images have no results to be sent": done.without,
        "images: retention has deleted their results; judge them again": done.purged,
    }
    said += [f"{number} {words}" for words, number in parts.items() if number]
    return said or ["nothing is sent: no destination wants these results"]


def _rejudged(done: Rejudged) -> list[str]:
    said = [f"{done.queued} back in the queue"]
    said += [f"{done.waiting} were in the queue anyway"] if done.waiting else []
    return said + ([f"{done.purged}: retention has deleted their bytes; send them again"] if done.purged else [])


def _sentence(parts: Sequence[str]) -> str:
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."
