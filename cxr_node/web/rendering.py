"""Pages from templates: every value is escaped, nothing that a user wrote is a template or an expression."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cxr_node import __version__, times
from cxr_node.dicom.words import names, rounding
from cxr_node.domain import Verdict
from cxr_node.node.ledger.status import clock
from cxr_node.result_kinds import called

if TYPE_CHECKING:
    from cxr_node.web.identity.person import Person

NAVIGATION = (("/", "Today"), ("/queue", "Queue"), ("/study", "Study"), ("/quality", "Quality"), ("/system", "System"))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cxr_node.web", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"clock": clock, "age": times.age, "utc": _utc, "plain": names.reason, "called": called}
    environment.globals |= {
        "version": __version__,
        "navigation": NAVIGATION,
        "verdict_name": names.verdict,
        "verdict_class": _verdict_class,
        "beside": rounding.beside,
    }
    return environment


_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
"""Controls, and what turns the direction of the text behind it: a peer may call itself by them."""


def _printable(value: object) -> object:
    """Mark in texts what nobody sees; Markup is ours."""
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return _UNSEEN.sub("\ufffd", value)


def _utc(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _verdict_class(word: str) -> str:
    """Of the style sheet; the same for every target's positive."""
    return Verdict.of_word(word).name


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
