"""The machines that share a ledger: each tells how its processes do, and by which rules and weights it answers.

Where the ledger is a file there is one machine, which is looked at itself.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cxr_node import __version__
from cxr_node.config.schema import Config
from cxr_node.errors import ConfigError, LedgerLostError, ResourceError
from cxr_node.node.ledger import states
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.postgres import wait_to_begin
from cxr_node.node.ledger.tables import machines
from cxr_node.node.process import machine, supervisor
from cxr_node.node.process.supervisor import RoleState

log = logging.getLogger(__name__)

TOLD_EVERY_S = 15.0
SILENT_AFTER_S = 4 * TOLD_EVERY_S
"""What a machine told longer ago is no longer believed: it is dead, or cut off from the ledger."""
_LAST_WORD_S = 5.0
"""How long the end of a process waits for a server that is away."""
_FORGOTTEN_AFTER = timedelta(days=7)
_ROLES = (*supervisor.ROLES, "web")


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The file system of a machine's own part of the spool."""

    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What the process `web` of a machine sees there, and no other machine can."""

    certificate_ends: Mapping[str, datetime]
    """When the first certificate of a role ends."""
    audit_since: datetime | None
    """Of the oldest audit message that waits for its collector; None: there is none."""


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
    disk: Disk | None
    """None: it cannot be looked at."""
    watched: Watched | None
    """None: its process `web` never told; of this machine itself, which is looked at, always."""

    @property
    def has_left(self) -> bool:
        """Its processes ended as they were told to: nobody expects to hear of it."""
        return self.is_silent and all(
            state.stopping if state.running else state.in_order for state in self.roles.values()
        )

    @property
    def is_missing(self) -> bool:
        """Nobody knows why nothing is heard of it."""
        return self.is_silent and not self.has_left


@contextmanager
def telling(ledger: Ledger, spool_path: Path) -> Iterator[None]:
    """Tell the others how this machine's processes do, while the block runs, and at its end; nothing without others."""
    if not ledger.database.is_shared:
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(target=_tell_to_the_end, args=(ledger, spool_path, stop), name="machine", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_LAST_WORD_S)


def _tell_to_the_end(ledger: Ledger, spool_path: Path, stop: threading.Event) -> None:
    _tell_on(ledger, spool_path, stop)
    with suppress(ResourceError, LedgerLostError):
        tell(ledger, spool_path)  # that it stops


def _tell_on(ledger: Ledger, spool_path: Path, stop: threading.Event) -> None:
    while True:
        try:
            tell(ledger, spool_path)
        except (ResourceError, LedgerLostError) as error:  # whoever works says so already
            log.debug("not told: %s", error)
        if stop.wait(TOLD_EVERY_S):
            return


def tell(ledger: Ledger, spool_path: Path, watched: Watched | None = None) -> None:
    """Write down how this machine and its processes do now; what its `web` sees stays until that tells again."""
    more = {} if watched is None else {"watched": json.dumps(_as_json(watched))}
    with ledger.database.writing() as connection:
        _tell(connection, ledger, spool_path, more)
        forgotten = machines.c.seen_at < ledger.now() - _FORGOTTEN_AFTER
        connection.execute(sa.delete(machines).where(forgotten))


def _tell(connection: sa.Connection, ledger: Ledger, spool_path: Path, more: Mapping[str, Any]) -> None:
    roles = {role: _plain(state) for role, state in supervisor.look(spool_path, _ROLES).items() if state.since}
    disk = _disk(spool_path)
    row = {"host": machine.host(), "version": __version__, "seen_at": ledger.now(), "roles": json.dumps(roles), **more}
    row |= {} if disk is None else {"disk": json.dumps(asdict(disk))}
    insert = states.insert(connection.dialect.name, machines).values(row | {"name": ledger.database.machine})
    connection.execute(insert.on_conflict_do_update(index_elements=[machines.c.name], set_=row))


@contextmanager
def alike(ledger: Ledger, config: Config, rules_sha256: str) -> Iterator[None]:
    """Let no two machines answer differently: the same image would have other results wherever it is judged.

    Nor send differently: one's shadow must not be another's live result.

    Two that begin at once take turns here, and the second one finds the first, which does not work yet.

    Raises
    ------
    ConfigError : a machine that works, or begins to, has other rules or weights.
    """
    if not ledger.database.is_shared:
        yield
        return
    mine, agreed_sha256 = machines.c.name == ledger.database.machine, _agreed(config, rules_sha256)
    with ledger.database.writing() as connection:
        wait_to_begin(connection)
        if names := _otherwise(connection, agreed_sha256, ledger):
            raise ConfigError(
                f"results.installation_id: {config.results.installation_id} is also {', '.join(names)}, which answers "
                "by another profile, admission, results or release; give all machines of a node the same, "
                "and stop the others before a change"
            )
        until = ledger.now() + timedelta(seconds=SILENT_AFTER_S)
        _tell(connection, ledger, config.spool.path, {"rules_sha256": agreed_sha256, "rules_until": until})
    try:
        yield
    finally:
        with suppress(ResourceError, LedgerLostError), ledger.database.writing() as connection:
            connection.execute(sa.update(machines).where(mine).values(rules_until=None))


def _agreed(config: Config, rules_sha256: str) -> str:
    """Digest of all that must be the same: rules and weights, what results say, and whose results are sent."""
    shares = sorted((to.name, config.live_share(to)) for to in config.destinations)
    return sha256(repr((rules_sha256, config.answer_sha256, shares)).encode()).hexdigest()


def _otherwise(connection: sa.Connection, rules_sha256: str, ledger: Ledger) -> list[str]:
    """Names of the other machines that work by other rules, or have just begun to."""
    now = ledger.now()
    other = sa.and_(machines.c.name != ledger.database.machine, machines.c.rules_sha256 != rules_sha256)
    alive = machines.c.seen_at >= now - timedelta(seconds=SILENT_AFTER_S)
    found = sa.select(machines.c.name, machines.c.roles, machines.c.rules_until).where(other, alive)
    return sorted(
        row.name
        for row in connection.execute(found)
        if json.loads(row.roles).get("work", {}).get("running")
        or (row.rules_until is not None and row.rules_until > now)
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
        disk=_disk(spool_path),
        watched=None,
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
    stopping = all(state.stopping for state in running)
    return RoleState(running=True, processes=number, since=since, in_order=True, seen_at=seen_at, stopping=stopping)


_NEVER = RoleState(running=False, processes=0, since=None, in_order=True, seen_at=None)


def _plain(state: RoleState) -> dict[str, Any]:
    since, seen_at = (None if at is None else at.isoformat() for at in (state.since, state.seen_at))
    told = {"running": state.running, "processes": state.processes, "in_order": state.in_order}
    return told | {"since": since, "seen_at": seen_at, "stopping": state.stopping}


def _state(row: Mapping[Any, Any], now: datetime, roles: Sequence[str]) -> MachineState:
    told = json.loads(row["roles"])
    return MachineState(
        name=row["name"],
        host=row["host"],
        version=row["version"],
        seen_at=row["seen_at"],
        is_silent=now - row["seen_at"] > timedelta(seconds=SILENT_AFTER_S),
        roles={role: _read(told[role]) if role in told else _NEVER for role in roles},
        disk=None if row["disk"] is None else Disk(**json.loads(row["disk"])),
        watched=None if row["watched"] is None else _watched(json.loads(row["watched"])),
    )


def _read(told: Mapping[str, Any]) -> RoleState:
    since, seen_at = (None if told[key] is None else datetime.fromisoformat(told[key]) for key in ("since", "seen_at"))
    return RoleState(
        running=told["running"],
        processes=told["processes"],
        since=since,
        in_order=told["in_order"],
        seen_at=seen_at,
        stopping=told.get("stopping", False),
    )


def _disk(spool_path: Path) -> Disk | None:
    try:
        usage = shutil.disk_usage(spool_path)
    except OSError:
        return None
    return Disk(free_bytes=usage.free, total_bytes=usage.total)


def _as_json(watched: Watched) -> dict[str, Any]:
    ends = {role: at.isoformat() for role, at in watched.certificate_ends.items()}
    return {"certificate_ends": ends, "audit_since": watched.audit_since and watched.audit_since.isoformat()}


def _watched(told: Mapping[str, Any]) -> Watched:
    ends = {role: datetime.fromisoformat(at) for role, at in told["certificate_ends"].items()}
    since = told["audit_since"]
    return Watched(certificate_ends=ends, audit_since=None if since is None else datetime.fromisoformat(since))
