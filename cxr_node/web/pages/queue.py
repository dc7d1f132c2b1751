"""Queue: what waits, is held, died or was refused, a page at a time, and the buttons that put it right.

An address holds coded words, AE titles, names of destinations, dates and ledger numbers, and nothing else: what an
operator seeks by an Accession Number or a UID is on the page Study.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Request, Response
from pydantic import BaseModel, Field, ValidationError, field_validator

from cxr_node import wiring
from cxr_node.domain import AbstainReason, Reason
from cxr_node.errors import ConfigError
from cxr_node.node.ledger import browse, holds, listing, study_stories
from cxr_node.node.ledger.browse import PAGE, Group, Place
from cxr_node.node.ledger.holds import HoldReason
from cxr_node.node.ledger.listing import By, Wanted
from cxr_node.node.ledger.stages import Stage
from cxr_node.node.ledger.states import DeadReason, OwnReason, SetAsideReason
from cxr_node.node.ledger.tables import deliveries
from cxr_node.web import access, rendering
from cxr_node.web.identity import person
from cxr_node.web.pages import acts
from cxr_node.web.pages.acts import Act, Number, Operator
from cxr_node.web.problem import Problem
from cxr_node.web.services import Services, services

router = APIRouter(include_in_schema=False)
_ACTS: Mapping[Stage, tuple[Act, ...]] = {
    Stage.WAITING: (Act.SET_ASIDE,),
    Stage.WORKING: (),
    Stage.FOR_STUDY: (Act.SET_ASIDE,),
    Stage.TO_DELIVER: (Act.SET_ASIDE,),
    Stage.HELD: (Act.SET_ASIDE,),
    Stage.SHADOW: (Act.SHADOW_SEND, Act.SHADOW_EXPIRE),
    Stage.DEAD: (Act.RETRY, Act.SET_ASIDE),
    Stage.REJECTED: (Act.REJUDGE,),
    Stage.UNCERTAIN: (Act.REJUDGE,),
    Stage.SET_ASIDE: (Act.RETRY,),
}
"""What may be done with a selection."""
_OLDEST_FIRST = (Stage.WAITING, Stage.WORKING, Stage.FOR_STUDY, Stage.TO_DELIVER, Stage.HELD)
"""Where whoever has waited longest comes first."""
Day = Annotated[date, Field(ge=date(1970, 1, 1), le=date(9998, 12, 31))]


class Asked(BaseModel):
    """What an address asks for."""

    stage: Stage = Stage.DEAD
    reason: Reason | AbstainReason | DeadReason | SetAsideReason | OwnReason | None = None
    sender: str | None = Field(default=None, max_length=16)
    destination: str | None = Field(default=None, max_length=64)
    since: Day | None = None
    until: Day | None = None
    """Days, UTC, the last one included."""
    before: Number | None = None
    after: Number | None = None

    def wanted(self) -> Wanted:
        """Say it as the ledger takes it."""
        return Wanted(
            stage=self.stage,
            reason=None if self.reason is None else self.reason.value,
            sender=self.sender,
            destination=self.destination,
            since=_midnight(self.since),
            until=_midnight(self.until, days=1),
        )

    def place(self) -> Place:
        """Which page of it."""
        return Place(before=self.before, after=self.after, oldest_first=self.stage in _OLDEST_FIRST)

    def address(self, **changes: object) -> str:
        """The same with other words; another filter begins at the first page."""
        kept = self.model_dump(mode="json", exclude={"before", "after"}) | changes
        return f"/queue?{urlencode({name: value for name, value in kept.items() if value is not None})}"


class Wish(BaseModel):
    """What a button sends."""

    what: Act
    number: list[Number] = Field(default=[], max_length=PAGE)
    """Images that were ticked."""
    shown: list[Number] = Field(default=[], max_length=PAGE)
    """All that stand on the page."""
    every: bool = False
    """All of them are meant."""
    of_reason: DeadReason | None = None
    reason: SetAsideReason | None = None
    destination: str = Field(default="", max_length=64)
    hold_reason: HoldReason | None = None

    @field_validator("reason", "hold_reason", "of_reason", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return value or None

    @property
    def meant(self) -> list[int]:
        """Which images."""
        return self.shown if self.every else self.number


def asked(request: Request) -> Asked:
    """Read the address; a field that is left empty asks for nothing."""
    given = {name: value for name, value in request.query_params.items() if value and name in Asked.model_fields}
    try:
        return Asked.model_validate(given)
    except ValidationError as error:
        places = ", ".join(sorted({str(one["loc"][0]) for one in error.errors()}))
        raise Problem(422, "malformed", f"the address asks for what there is not: {places}") from error


Wanting = Annotated[Asked, Depends(asked)]


@router.get("/queue")
def queue(
    request: Request,
    person: Annotated[person.Person, Depends(access.viewer)],
    found: Annotated[Services, Depends(services)],
    what: Wanting,
) -> Response:
    """One page of it."""
    return _page(request, person, found, what)


@router.post("/queue")
def act(
    request: Request,
    operator: Annotated[Operator, Depends(acts.operator)],
    what: Wanting,
    wish: Annotated[Wish, Form()],
) -> Response:
    """Do something with a selection, with a group or with a destination, and show what is there then."""
    return _page(request, operator.person, operator.found, what, said=_done(operator, what, wish))


def _done(operator: Operator, what: Asked, wish: Wish) -> str:
    match wish.what:
        case Act.HOLD:
            return operator.hold(wish.destination, wish.hold_reason)
        case Act.RELEASE:
            return operator.release(wish.destination)
        case Act.RETRY_ALL:
            reason = None if wish.of_reason is None else wish.of_reason.value
            return operator.retry_all(replace(what.wanted(), stage=Stage.DEAD, reason=reason))
    if not wish.meant:
        return "Nothing is ticked: tick the images that you mean, or all on this page."
    match wish.what:
        case Act.RETRY:
            return operator.retry(wish.meant)
        case Act.REJUDGE:
            return operator.rejudge(wish.meant)
        case Act.SHADOW_SEND | Act.SHADOW_EXPIRE:
            return operator.shadow(wish.meant, send=wish.what is Act.SHADOW_SEND)
        case Act.SET_ASIDE if wish.reason is not None:
            return operator.set_aside(wish.meant, wish.reason)
        case Act.SET_ASIDE:
            return "Choose a reason to set these images aside."
    raise Problem(422, "malformed", "there is no such button here")


def _page(request: Request, person: person.Person, found: Services, what: Asked, said: str | None = None) -> Response:
    try:
        ledger = found.ledger()
    except ConfigError:
        return rendering.page(request, "not_yet.html", person=person)
    wanted = what.wanted()
    with ledger.database.one_view():
        page = browse.page(ledger, wanted, what.place())
        values: dict[str, Any] = {
            "tabs": {stage: browse.count(ledger, Wanted(stage=stage)) for stage in Stage},
            "groups": browse.groups(ledger, replace(wanted, reason=None), Group.REASON),
            "senders": listing.last_received(ledger, By.SENDER),
            "held": holds.look(ledger),
            "total": browse.count(ledger, wanted),
            "ripe_at": study_stories.ripe_at(ledger, {row.study_instance_uid for row in page.rows}),
        }
        destinations = [to.name for to in found.config.destinations]
        with ledger.database.reading() as connection:
            known = [name for name in listing.names(connection, deliveries.c.destination) if name not in destinations]
    return rendering.page(
        request,
        "queue.html",
        person=person,
        asked=what,
        here=what.address(before=what.before, after=what.after),
        page=page,
        links=_links(page, what),
        said=said,
        acts=_ACTS[what.stage] if person.may_operate else (),
        destinations=destinations,
        others=known,
        targets=wiring.targets(found.config),
        reasons=tuple(SetAsideReason),
        hold_reasons=tuple(HoldReason),
        **values,
    )


def _links(page: browse.Page, what: Asked) -> Mapping[str, str]:
    """Where the pages before and after this one are."""
    links: dict[str, str] = {}
    ends = (page.rows[0].id, page.rows[-1].id) if page.rows else (0, 0)
    if what.stage in _OLDEST_FIRST:
        before, has_before = {"before": ends[0]}, page.has_older
        after, has_after = {"after": ends[1]}, page.has_newer
    else:
        before, has_before = {"after": ends[0]}, page.has_newer
        after, has_after = {"before": ends[1]}, page.has_older
    if what.before is not None or what.after is not None:
        links["First"] = what.address()
    if has_before and page.rows:
        links["Previous"] = what.address(**before)
    if has_after and page.rows:
        links["Next"] = what.address(**after)
    return links


def _midnight(day: date | None, days: int = 0) -> datetime | None:
    return None if day is None else datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=days)
