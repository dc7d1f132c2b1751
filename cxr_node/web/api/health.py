"""Whether the process lives, and whether the node works: for load balancers, service managers and monitoring.

`live`, `ready` and `ready/receive` are about this machine, whatever others do: a load balancer asks them whether to
send anybody here. `node` is about all machines that share the ledger, for those who watch the node.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from cxr_node import wiring
from cxr_node.config.consistency import is_loopback
from cxr_node.errors import ConfigError, CxrNodeError, ResourceError
from cxr_node.node.ledger import machines, queries
from cxr_node.node.ledger.machines import MachineState
from cxr_node.node.process import supervisor
from cxr_node.node.process.supervisor import RoleState
from cxr_node.web import access
from cxr_node.web.api import answers
from cxr_node.web.services import Services, services

router = APIRouter(prefix="/health")
_MIB = 1024 * 1024
_UNHEALTHY = {503: {"model": answers.Health, "description": "something does not work"}}


@router.get("/live")
def live() -> answers.Health:
    """Say that this process answers."""
    return answers.Health(status="Healthy", checks=[])


@router.get("/ready", responses=_UNHEALTHY)  # type: ignore[arg-type]  # FastAPI's key type is wider
def ready(request: Request, response: Response, found: Annotated[Services, Depends(services)]) -> answers.Health:
    """Look at ledger, disk, weights and processes. Why something is wrong is for this machine, a key or a session."""
    return _answer(request, response, _looks(found))


@router.get("/ready/receive", responses=_UNHEALTHY)  # type: ignore[arg-type]  # as above
def receives(request: Request, response: Response, found: Annotated[Services, Depends(services)]) -> answers.Health:
    """Look at what this machine's receiver needs, and whether it lets callers in: for the load balancer before it."""
    looks = _looks(found)
    return _answer(request, response, {name: looks[name] for name in ("ledger", "spool", "receive")})


@router.get("/node", responses=_UNHEALTHY)  # type: ignore[arg-type]  # as above
def node(request: Request, response: Response, found: Annotated[Services, Depends(services)]) -> answers.Health:
    """Look at the ledger, at each process on whichever machine, and whether all machines are heard of."""

    def seen() -> list[MachineState]:
        return machines.look(found.ledger(), found.config.spool.path, supervisor.ROLES)

    def heard_of() -> None:
        if missing := [each.name for each in seen() if each.is_missing]:
            raise ResourceError(f"nothing is heard of {', '.join(missing)}")

    looks: dict[str, Callable[[], object]] = {"ledger": _looks(found)["ledger"], "machines": heard_of}
    roles = {
        role: partial(_require_running, role, lambda role: machines.together(seen(), supervisor.ROLES)[role])
        for role in supervisor.ROLES
    }
    return _answer(request, response, looks | roles)


def _answer(request: Request, response: Response, looks: dict[str, Callable[[], object]]) -> answers.Health:
    told = _is_local(request) or access.is_known(request)
    checks = [_check(name, look, told) for name, look in looks.items()]
    well = all(each.result == "Healthy" for each in checks)
    response.status_code = 200 if well else 503
    return answers.Health(status="Healthy" if well else "Unhealthy", checks=checks)


def _is_local(request: Request) -> bool:
    return is_loopback(access.client_of(request)) and "x-forwarded-for" not in request.headers


def _looks(found: Services) -> dict[str, Callable[[], object]]:
    config = found.config

    def room() -> None:
        free_mib = shutil.disk_usage(config.spool.path).free // _MIB
        if free_mib < config.spool.min_free_mib:
            raise ResourceError(f"{free_mib} MiB free, spool.min_free_mib asks for {config.spool.min_free_mib}")

    looks: dict[str, Callable[[], object]] = {
        "ledger": lambda: queries.recent(found.ledger(), 1),
        "spool": room,
        "weights": lambda: wiring.profiles(config),
    }
    return looks | {
        role: partial(_require_running, role, lambda role: supervisor.look(config.spool.path)[role])
        for role in supervisor.ROLES
    }


def _require_running(role: str, state_of: Callable[[str], RoleState]) -> None:
    state = state_of(role)
    if not state.running:
        raise ResourceError(f"{role} does not run")
    if state.stopping:
        raise ResourceError(f"{role} stops")


def _check(name: str, look: Callable[[], object], told: bool) -> answers.Check:
    try:
        look()
    except (CxrNodeError, ConfigError, OSError) as error:
        return answers.Check(check=name, result="Unhealthy", detail=str(error) if told else "")
    return answers.Check(check=name, result="Healthy")
