"""Pages from templates: every value is escaped, nothing that a user wrote is a template or an expression."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from cxr_node import __version__, times
from cxr_node.node.ledger.status import clock

if TYPE_CHECKING:
    from cxr_node.web.access import Person

NAVIGATION = (("/", "Today"), ("/queue", "Queue"), ("/study", "Study"), ("/quality", "Quality"), ("/system", "System"))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cxr_node.web", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"clock": clock, "age": times.age}
    environment.globals |= {"version": __version__, "navigation": NAVIGATION}
    return environment


def page(
    request: Request,
    template: str,
    *,
    person: Person | None,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **values: Any,
) -> HTMLResponse:
    """Fill a template; `person` is whoever looks, None where nobody is known."""
    services = request.app.state.services
    text = (
        _environment()
        .get_template(template)
        .render(
            path=request.url.path,
            person=person,
            has_users=services.has_users,
            try_enabled=services.web.try_files.enabled,
            now=datetime.now().astimezone(),
            **values,
        )
    )
    return HTMLResponse(text, status, dict(headers or {}) | {"Cache-Control": "no-store"})
