"""Today: what waits, who sent last, how each destination fares, and whether anything needs a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request, Response
from pydantic import BaseModel, Field, field_validator

from cxr_node.errors import ConfigError
from cxr_node.node.ledger import alerts, browse, holds, status
from cxr_node.node.ledger.browse import Place
from cxr_node.node.ledger.holds import HoldReason
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.listing import By, Wanted
from cxr_node.node.ledger.queries import InstanceRow
from cxr_node.node.ledger.stages import Stage
from cxr_node.web import access, rendering
from cxr_node.web.identity import person
from cxr_node.web.pages import acts, surroundings
from cxr_node.web.pages.acts import Act, Operator
from cxr_node.web.pages.surroundings import Kept
from cxr_node.web.problem import Problem
from cxr_node.web.services import Services, services

router = APIRouter(include_in_schema=False)
SENDERS = 12
"""So many are shown at once, the last one first; the others behind them."""
_WAITING = (Stage.WAITING, Stage.WORKING, Stage.FOR_STUDY, Stage.TO_DELIVER, Stage.HELD)


class Wish(BaseModel):
    """What a button at a destination sends."""

    what: Act
    destination: str = Field(max_length=64)
    hold_reason: HoldReason | None = None

    @field_validator("hold_reason", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return value or None


@router.get("/")
def today(
    request: Request,
    person: Annotated[person.Person, Depends(access.viewer)],
    found: Annotated[Services, Depends(services)],
) -> Response:
    """One look at the node; the page asks for its middle again every ten seconds."""
    part = request.headers.get("hx-request") and not request.headers.get("hx-boosted")
    return _page(request, person, found, template="today_part.html" if part else "today.html")


@router.post("/")
def act(
    request: Request, operator: Annotated[Operator, Depends(acts.operator)], wish: Annotated[Wish, Form()]
) -> Response:
    """Hold or release a destination, and show what is there then."""
    match wish.what:
        case Act.HOLD:
            said = operator.hold(wish.destination, wish.hold_reason)
        case Act.RELEASE:
            said = operator.release(wish.destination)
        case _:
            raise Problem(422, "malformed", "there is no such button here")
    return _page(request, operator.person, operator.found, said=said)


def _page(
    request: Request, person: person.Person, found: Services, template: str = "today.html", said: str | None = None
) -> Response:
    if said is not None:
        _SEEN.forget(found)
    try:
        seen = _SEEN.at(found)
    except ConfigError:
        return rendering.page(request, "not_yet.html", person=person)
    return rendering.page(request, template, person=person, said=said, **seen)


def _look(found: Services) -> Mapping[str, Any]:
    ledger, config = found.ledger(), found.config
    with ledger.database.one_view():
        seen = status.look(ledger, config)
        oldest = {stage: _oldest(ledger, stage) for stage in _WAITING}
        lasting = [alert for alert in alerts.open_alerts(ledger) if alert.ended_at is None]
        held = holds.look(ledger)
    senders = seen.last_received
    return {
        "seen": seen,
        "oldest": {stage: row for stage, row in oldest.items() if row is not None},
        "shadow": {
            name: words
            for name, place in seen.health.items()
            if (words := status.shadow_words(place, seen.at)) is not None
        },
        "alerts": [(alert, found.watcher.lasting.get(alert.key)) for alert in lasting],
        "held": held,
        "hold_reasons": tuple(HoldReason),
        "destinations": list(seen.addresses),
        "last": {"Sender": list(senders[By.SENDER].items()), "Station": list(senders[By.STATION].items())},
        "most": SENDERS,
        "several": ledger.database.is_shared,
        "disks": surroundings.disks(config, seen.machines if ledger.database.is_shared else ()),
        "certificates": surroundings.CERTIFICATES.at(config),
        "judges": surroundings.PROFILES.at(config),
        "candidate": config.model.candidate,
        "promotion": surroundings.PROMOTION.at(found),
    }


_SEEN = Kept(_look, 3.0)
"""At a million images a look takes a second: those who watch share it."""


def _oldest(ledger: Ledger, stage: Stage) -> InstanceRow | None:
    rows = browse.page(ledger, Wanted(stage=stage), Place(oldest_first=True, size=1)).rows
    return rows[0] if rows else None
