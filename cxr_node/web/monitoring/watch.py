"""One look at the node for the alerts: what the rules need, and nothing that belongs to a patient."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from cxr_node import times
from cxr_node.config.schema import Config
from cxr_node.errors import ConfigError
from cxr_node.node.ledger import destination_health, holds, listing, machines, queries, study_stories
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.listing import By, Count
from cxr_node.node.ledger.machines import MachineState, Watched
from cxr_node.node.ledger.states import DeadReason
from cxr_node.node.process import supervisor
from cxr_node.web.monitoring import drifts, facts, habits
from cxr_node.web.monitoring.alerts import Abstention, Rule, Shares, Silence, Snapshot
from cxr_node.web.monitoring.facts import Paced
from cxr_node.web.monitoring.habits import LEARNED_DAYS, Habit

log = logging.getLogger(__name__)

_DAY = timedelta(days=1)
_LEARN_EVERY_S, _COUNT_EVERY_S = 3600.0, 60.0


class Watch:
    """Looks again and again; what takes long is looked at more rarely. For one thread."""

    def __init__(self, config: Config, ledger: Callable[[], Ledger]) -> None:
        self._config = config
        self._ledger = ledger
        self._habits = Paced(self._learned, _LEARN_EVERY_S)
        self._before = Paced(self._days_before, _LEARN_EVERY_S)
        self._day = Paced(partial(self._counts, _DAY), _COUNT_EVERY_S)
        self._abstentions = Paced(self._abstained, _COUNT_EVERY_S)
        self._unread: set[Rule] = set()
        self._begun_at: datetime | None = None

    def look(self, now: datetime) -> Snapshot:
        """Look once.

        Raises
        ------
        ResourceError, LedgerLostError : the ledger cannot be read; nothing is known then.
        """
        ledger, config = self._ledger(), self._config
        found = machines.look(ledger, config.spool.path, supervisor.ROLES)
        names = {destination.name for destination in config.destinations}.difference(holds.look(ledger))
        health, oldest = destination_health.look(ledger), listing.oldest_instance(ledger)
        due = listing.oldest_deliveries(ledger)
        studies = study_stories.counts(ledger, config.study.max_wait_s)
        seen: dict[str, Any] = {
            "down_since": {
                name: at for name in names if name in health and (at := health[name].down_since) is not None
            },
            "silences": self._silences(ledger, now),
            "image_since": oldest.since if oldest else None,
            "results_since": {name: first.since for name, first in due.items() if name in names},
            "study_due_at": studies.oldest.due_at if studies.oldest else None,
            "studies_failed": studies.failed,
            "dead": {
                reason: number for reason, number in queries.dead(ledger).items() if reason != DeadReason.UNREPORTED
            },
            **self._processes(ledger, found, now),
            "rejections": self._rejections(),
            "abstentions": self._abstentions(),
            "drifts": self._drifts(ledger),
            "watermark_bytes": facts.watermark_bytes(config),
        }
        unread = {
            *self._try(seen, "free_bytes", Rule.DISK, lambda: self._disks(ledger, found)),
            *self._try(seen, "certificate_ends", Rule.CERTIFICATE, lambda: facts.certificate_ends(config)),
            *self._try(seen, "audit_since", Rule.AUDIT_BACKLOG, self._audit_since),
        }
        self._unread = unread
        if ledger.database.is_shared:
            self._see_with_others(ledger, found, seen)
        return Snapshot(**seen, unread=frozenset(unread))

    def _see_with_others(self, ledger: Ledger, found: Sequence[MachineState], seen: dict[str, Any]) -> None:
        """Tell the other machines what only this one sees, and say of which machine each of it is."""
        path, here = self._config.spool.path, ledger.database.machine
        ends, since = seen.get("certificate_ends", {}), seen.get("audit_since", {})
        mine = Watched(certificate_ends=ends, audit_since=since.get("audit"))
        machines.tell(ledger, path, None if self._unread else mine)
        told = {each.name: mine if each.name == here else each.watched for each in found}
        known = {name: watched for name, watched in told.items() if watched is not None}
        seen["certificate_ends"] = {
            f"{role} of {name}": at for name, watched in known.items() for role, at in watched.certificate_ends.items()
        }
        seen["audit_since"] = {
            f"audit of {name}": watched.audit_since
            for name, watched in known.items()
            if watched.audit_since is not None
        }

    def _disks(self, ledger: Ledger, found: Sequence[MachineState]) -> dict[str, int]:
        share = facts.store_free_bytes(self._config)
        free = {} if share is None else {"store": share}
        if not ledger.database.is_shared:
            return free | {"spool": facts.free_bytes(self._config)}
        return free | {f"spool of {each.name}": each.disk.free_bytes for each in found if each.disk is not None}

    def _try(self, seen: dict[str, Any], name: str, rule: Rule, read: Callable[[], Any]) -> set[Rule]:
        """Look at a file; one that cannot be read hides nothing else, and is said once."""
        try:
            seen[name] = read()
        except (OSError, ConfigError) as error:
            if rule not in self._unread:
                words = str(error) if isinstance(error, ConfigError) else error.strerror
                log.error("alerts not looked at rule=%s %s", rule, words)
            return {rule}
        return set()

    def _processes(
        self, ledger: Ledger, found: Sequence[MachineState], now: datetime
    ) -> dict[str, dict[str, datetime]]:
        """Since this process looks, at the earliest: a node that is switched on starts one process after the other."""
        begun_at = self._begun_at = self._begun_at or now
        roles = machines.together(found, supervisor.ROLES)
        stopped = {role: state for role, state in roles.items() if not state.running}
        if ledger.database.is_shared:
            stopped |= {
                f"{role} on {each.name}": state
                for each in found
                if not each.is_silent
                for role, state in each.roles.items()
                if not state.running and not state.in_order
            }
        since = {name: max(state.since or begun_at, begun_at) for name, state in stopped.items()}
        silent = {each.name: each.seen_at for each in found if each.is_missing}
        return {"stopped_since": since, "silent_since": silent}

    def _audit_since(self) -> dict[str, datetime]:
        backlog = facts.backlog(self._config)
        return {} if backlog is None or backlog.since is None else {"audit": backlog.since}

    def _silences(self, ledger: Ledger, now: datetime) -> dict[str, Silence]:
        last, known = listing.last_received(ledger, By.SENDER), self._habits()
        return {
            sender: Silence(since=last[sender], silent_s=habit.usual_s(last[sender], now), gap_s=habit.gap_s)
            for sender, habit in known.items()
            if sender in last
        }

    def _drifts(self, ledger: Ledger) -> dict[str, str]:
        found = drifts.look(self._config, ledger)
        return {
            name: ", ".join(seen.changed) for name, seen in found.items() if not isinstance(seen, int) and seen.is_begun
        }

    def _learned(self) -> dict[str, Habit]:
        ledger, zone = self._ledger(), times.zone(self._config.results.time_zone)
        now = ledger.now()
        sent = listing.minutes(ledger, now - timedelta(days=LEARNED_DAYS))
        found = {sender: habits.learned(minutes, zone, now) for sender, minutes in sent.items()}
        return {sender: habit for sender, habit in found.items() if habit is not None}

    def _rejections(self) -> dict[str, Shares]:
        day, before = self._day(), self._before()
        return {
            sender: Shares(few=one[0], of=one[1], few_before=before[sender][0], of_before=before[sender][1])
            for sender, one in day.items()
            if sender in before
        }

    def _days_before(self) -> Mapping[str, tuple[int, int]]:
        return self._counts(timedelta(days=LEARNED_DAYS), _DAY)

    def _counts(self, since: timedelta, until: timedelta | None = None) -> dict[str, tuple[int, int]]:
        """Rejected, and judged at all, by sender."""
        ledger = self._ledger()
        now = ledger.now()
        counted = listing.counts(ledger, [By.SENDER], now - since, now - until if until is not None else None)
        return {count.group[0] or "": _shares(count) for count in counted}

    def _abstained(self) -> dict[str, Abstention]:
        """By name and version, as the ledger writes them."""
        ledger = self._ledger()
        counted = listing.abstentions(ledger, ledger.now() - timedelta(days=7))
        bands = {f"{each.name} {each.version}": each.abstention for each in facts.profiles(self._config)}
        return {
            name: Abstention(few=few, of=of, band=bands[name]) for name, (few, of) in counted.items() if name in bands
        }


def _shares(count: Count) -> tuple[int, int]:
    return count.verdicts["REJECTED"], count.images - count.waiting - count.dead
