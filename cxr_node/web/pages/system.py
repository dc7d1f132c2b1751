"""System: which profiles judge, which software runs, what the machine can do, who may log in, and what was done."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

import cxr_node
from cxr_node.diagnose import thresholds
from cxr_node.errors import ConfigError, ResourceError
from cxr_node.node.audit import recorder
from cxr_node.node.ledger import destination_health, machines, worklist_status
from cxr_node.node.ledger.worklist_status import WorklistStatus
from cxr_node.node.process import supervisor
from cxr_node.web import access, rendering
from cxr_node.web.identity import person
from cxr_node.web.identity.users import User
from cxr_node.web.pages import surroundings, trail
from cxr_node.web.pages.aside import Task, ask
from cxr_node.web.problem import Problem
from cxr_node.web.services import Services, services

router = APIRouter(include_in_schema=False)
PROGRAM = "cxr-node"
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_LICENCE_CHARS = 60
_STATEMENT = surroundings.Kept(partial(ask, Task.CONFORMANCE), 86_400.0)

Viewer = Annotated[person.Person, Depends(access.viewer)]
Found = Annotated[Services, Depends(services)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """What is installed beside the program."""

    name: str
    version: str | None
    tested: str | None
    """Major and minor version that all tests of this release ran with."""
    licence: str

    @property
    def is_as_tested(self) -> bool:
        """As far as that was said."""
        return self.tested is None or (self.version or "").split(".")[:2] == self.tested.split(".")


@router.get("/system")
def system(request: Request, person: Viewer, found: Found) -> Response:
    """One page about this installation."""
    return _page(request, person, found)


@router.post("/system/doctor")
def doctor(request: Request, person: Annotated[person.Person, Depends(access.change)], found: Found) -> Response:
    """Measure this machine, as `cxr-node doctor` does."""
    return _page(request, person, found, readings=ask(Task.DOCTOR, found.config))


@router.get("/system/card/{number}")
def card(request: Request, person: Viewer, found: Found, number: int) -> Response:
    """The model card of a configured profile."""
    judges = surroundings.PROFILES.at(found.config)
    path = judges[number].card if 0 <= number < len(judges) else None
    if path is None:
        raise Problem(404, "no-card", "there is no such model card")
    title = f"Model card of {judges[number].name}"
    return rendering.page(request, "document.html", person=person, title=title, text=_text(path))


@router.get("/system/licence")
def licence(request: Request, person: Viewer) -> Response:
    """The licence of the program itself."""
    return rendering.page(request, "document.html", person=person, title="Licence", text=_licence())


@router.get("/system/conformance")
def conformance(request: Request, person: Viewer, found: Found) -> Response:
    """The DICOM conformance statement, from the code's own tables."""
    title, text = "DICOM conformance statement", _STATEMENT.at(found.config)
    return rendering.page(request, "document.html", person=person, title=title, text=text)


def _page(request: Request, person: person.Person, found: Services, readings: Any = None) -> Response:
    return rendering.page(
        request,
        "system.html",
        person=person,
        judges=surroundings.PROFILES.at(found.config),
        python=".".join(map(str, sys.version_info[:3])),
        libraries=_libraries(),
        readings=readings,
        users=_users(found),
        sessions=found.sessions.number(),
        entries=trail.last(found.config),
        is_audited=found.config.audit.enabled,
        worklists=_worklists(found),
        **_machines(found),
    )


def _machines(found: Services) -> dict[str, Any]:
    """Those that share the ledger, which of them this is, and its Audit Source ID; none where there is one machine."""
    config, none = found.config, {"machines": (), "here": "", "source": ""}
    if config.ledger.url is None:
        return none
    try:
        ledger = found.ledger()
        seen = machines.look(ledger, config.spool.path, (*supervisor.ROLES, "web"))
    except (ConfigError, ResourceError):
        return none
    return {"machines": seen, "here": ledger.database.machine, "source": recorder.source_id(config)}


def _worklists(found: Services) -> Mapping[str, WorklistStatus]:
    """Each, and its items by state; none where there is no worklist, or no ledger yet."""
    try:
        ledger = found.ledger()
        return worklist_status.look(ledger, found.config.worklists, destination_health.look(ledger))
    except (ConfigError, ResourceError):
        return {}


def _users(found: Services) -> Sequence[User]:
    try:
        return () if found.users is None else found.users.users()
    except ConfigError:
        return ()


@cache
def _libraries() -> tuple[Library, ...]:
    return tuple(sorted(_installed(), key=lambda each: each.name))


def _installed() -> Iterator[Library]:
    for line in metadata.requires(PROGRAM) or ():
        if "extra ==" in line or (name := _NAME.match(line)) is None:
            continue
        try:
            about = metadata.metadata(name[0])
        except metadata.PackageNotFoundError:
            yield Library(name=name[0], version=None, tested=thresholds.TESTED.get(name[0]), licence="-")
            continue
        tested = thresholds.TESTED.get(name[0].lower())
        yield Library(name=name[0], version=about["Version"], tested=tested, licence=_named_licence(about))


def _named_licence(about: metadata.PackageMetadata) -> str:
    """By the expression, else by the classifiers; some write the whole text where its name belongs."""
    classes = [each.rpartition(" :: ")[2] for each in about.get_all("Classifier") or () if each.startswith("License")]
    named = [*(about.get_all("License-Expression") or ()), ", ".join(classes), *(about.get_all("License") or ())]
    first = (text.strip().partition("\n")[0][:_LICENCE_CHARS] for text in named)
    return next((text for text in first if text), "-")


@cache
def _licence() -> str:
    for name in ("LICENSE", "licenses/LICENSE"):
        if (text := metadata.distribution(PROGRAM).read_text(name)) is not None:
            return text
    return _text(Path(cxr_node.__file__).parent.parent / "LICENSE")


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        raise Problem(404, "no-document", "this installation does not have that document") from None
