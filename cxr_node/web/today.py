"""Today: what waits, who sent last, how each destination fares, and whether anything needs a person."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from cxr_node.errors import ConfigError
from cxr_node.node.ledger import status
from cxr_node.web import access, rendering
from cxr_node.web.services import Services, services

router = APIRouter(include_in_schema=False)


@router.get("/")
def today(
    request: Request,
    person: Annotated[access.Person, Depends(access.viewer)],
    found: Annotated[Services, Depends(services)],
) -> Response:
    """One look at the node; the page asks for `?part` again every ten seconds."""
    template = "today_part.html" if request.headers.get("hx-request") else "today.html"
    try:
        seen = status.look(found.ledger(), found.config)
    except ConfigError:
        return rendering.page(request, "not_yet.html", person=person)
    return rendering.page(request, template, person=person, seen=seen)
