"""The machines that share a ledger: each tells how its processes do, and by which rules and weights it answers.

Where the ledger is a file there is one machine, which is looked at itself.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from cxr_node import __version__
from cxr_node.errors import ConfigError, LedgerLostError, ResourceError
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.tables import machines
from cxr_node.node.process import machine, supervisor
from cxr_node.node.process.supervisor import RoleState

log = logging.getLogger(__name__)

TOLD_EVERY_S = 15.0
SILENT_AFTER_S = 4 * TOLD_EVERY_S
"""What a machine told longer ago is no longer believed: it is dead, or cut off from the ledger."""
_FORGOTTEN_AFTER = timedelta(days=7)
_ROLES = (*supervisor.ROLES, "web")


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineState:
    """One machine, as it was when it last told."""

    name: str
    """What no other machine is called: its host name with a mark."""
    host: str
    version: str
    seen_at: datetime
    is_silent: bool
    """It has not told for too long."""
    roles: Mapping[str, RoleState]


@contextmanager
def telling(ledger: Ledger, spool_path: Path) -> Iterator[None]:
    """Tell the others how this machine's processes do, while the block runs; nothing where there are none."""
    if not ledger.database.is_shared:
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(target=_tell_on, args=(ledger, spool_path, stop), name="machine", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _tell_on(ledger: Ledger, spool_path: Path, stop: threading.Event) -> None:
    while True:
        try:
            tell(ledger, spool_path)
        except (ResourceError, LedgerLostError) as error:  # whoever works says so already
            log.debug("not told: %s", error)
        if stop.wait(TOLD_EVERY_S):
            return


def tell(ledger: Ledger, spool_path: Path, **more: str) -> None:
    """Write down how this machine's processes do now; `more` columns stay until they are written again."""
    now = ledger.now()
    roles = {role: _plain(state) for role, state in supervisor.look(spool_path, _ROLES).items() if state.since}
    row = {"host": machine.host(), "version": __version__, "seen_at": now, "roles": json.dumps(roles)} | more
    with ledger.database.writing() as connection:
        insert = postgresql.insert(machines).values(row | {"name": ledger.database.machine})
        connection.execute(insert.on_conflict_do_update(index_elements=[machines.c.name], set_=row))
        connection.execute(sa.delete(machines).where(machines.c.seen_at < now - _FORGOTTEN_AFTER))


def require_alike(ledger: Ledger, spool_path: Path, rules_sha256: str, installation_id: str) -> None:
    """Let no two machines answer differently: the same image would have other results wherever it is judged.

    Raises
    ------
    ConfigError : a machine that works now has other rules or weights.
    """
    if not ledger.database.is_shared:
        return
    tell(ledger, spool_path, rules_sha256=rules_sha256)
    alive = machines.c.seen_at >= ledger.now() - timedelta(seconds=SILENT_AFTER_S)
    other = sa.and_(machines.c.name != ledger.database.machine, machines.c.rules_sha256 != rules_sha256, alive)
    with ledger.database.reading() as connection:
        rows = connection.execute(sa.select(machines.c.name, machines.c.roles).where(other)).all()
    if names := sorted(row.name for row in rows if json.loads(row.roles).get("work", {}).get("running")):
        raise ConfigError(
            f"results.installation_id: {installation_id} is also {', '.join(names)}, which answers by another profile, "
            "admission or results; give all machines of a node the same, and stop the others before a change"
        )


def look(ledger: Ledger, spool_path: Path, roles: Sequence[str]) -> list[MachineState]:
    """All machines that are known, by name; this one as it is now, where it has any process."""
    now = ledger.now()
    found: list[MachineState] = []
    if ledger.database.is_shared:
        with ledger.database.reading() as connection:
            for row in connection.execute(sa.select(machines).order_by(machines.c.name)).mappings():
                found.append(_state(row, now, roles))
    own = MachineState(
        name=ledger.database.machine,
        host=machine.host(),
        version=__version__,
        seen_at=now,
        is_silent=False,
        roles=supervisor.look(spool_path, roles),
    )
    others = [each for each in found if each.name != own.name]
    is_one = not others or any(state.since is not None for state in own.roles.values())
    return sorted([*others, own] if is_one else others, key=lambda each: each.name)


def together(found: Sequence[MachineState], roles: Sequence[str]) -> dict[str, RoleState]:
    """State of each role over all machines that are heard of."""
    return {role: _merged([each.roles[role] for each in found if not each.is_silent]) for role in roles}


def _merged(states: Sequence[RoleState]) -> RoleState:
    running = [state for state in states if state.running]
    seen_at = max((state.seen_at for state in running or states if state.seen_at is not None), default=None)
    if not running:
        return max(states, key=lambda state: state.since.timestamp() if state.since else 0.0, default=_NEVER)
    since = min((state.since for state in running if state.since is not None), default=None)
    number = sum(state.processes for state in running)
    return RoleState(running=True, processes=number, since=since, in_order=True, seen_at=seen_at)


_NEVER = RoleState(running=False, processes=0, since=None, in_order=True, seen_at=None)


def _plain(state: RoleState) -> dict[str, Any]:
    since, seen_at = (None if at is None else at.isoformat() for at in (state.since, state.seen_at))
    told = {"running": state.running, "processes": state.processes, "in_order": state.in_order}
    return told | {"since": since, "seen_at": seen_at}


def _state(row: Mapping[Any, Any], now: datetime, roles: Sequence[str]) -> MachineState:
    told = json.loads(row["roles"])
    return MachineState(
        name=row["name"],
        host=row["host"],
        version=row["version"],
        seen_at=row["seen_at"],
        is_silent=now - row["seen_at"] > timedelta(seconds=SILENT_AFTER_S),
        roles={role: _read(told[role]) if role in told else _NEVER for role in roles},
    )


def _read(told: Mapping[str, Any]) -> RoleState:
    since, seen_at = (None if told[key] is None else datetime.fromisoformat(told[key]) for key in ("since", "seen_at"))
    return RoleState(
        running=told["running"],
        processes=told["processes"],
        since=since,
        in_order=told["in_order"],
        seen_at=seen_at,
    )
