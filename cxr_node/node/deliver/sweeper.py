"""When retention sweeps, and which of several machines does it: the one that has leased the duty.

A machine that dies in the middle leaves the duty to the next one as soon as its lease is over.
"""

from __future__ import annotations

import logging
import time

from cxr_node.config.schema import Config
from cxr_node.errors import ResourceError
from cxr_node.node.deliver import prior_files, retention
from cxr_node.node.ledger import duties, shadow, work_items
from cxr_node.node.ledger.duties import Duty, Held
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.spool.spool import Spool

log = logging.getLogger(__name__)


class Sweeper:
    """Sweeps when it is time for that. For one thread.

    Parameters
    ----------
    owner : a name that no other living process has
    """

    def __init__(self, ledger: Ledger, spool: Spool, config: Config, owner: str) -> None:
        settings = config.spool
        self._ledger, self._spool, self._settings, self._owner = ledger, spool, settings, owner
        self._shadow_days = config.results.shadow_keep_days
        self._pause_s = retention.pause_s(min(settings.retention_days, settings.rejected_days))
        self._due_at = time.monotonic()
        self._again_s = 0.0  # a process that has just begun does not ask when another one swept

    def put_off(self) -> None:
        """A clock that was just put forward must not delete anything."""
        self._due_at = time.monotonic() + self._pause_s

    def turn(self) -> None:
        """Sweep, where it is time, and where nobody else does or has just done it."""
        if time.monotonic() < self._due_at:
            return
        self.put_off()
        try:
            held = duties.take(self._ledger, Duty.SWEEP, self._owner, self._again_s)
            self._again_s = self._pause_s
            if isinstance(held, float):
                self._due_at = time.monotonic() + min(held, self._pause_s)
                return
            self._sweep(held)
            duties.done(self._ledger, held)
        except ResourceError as error:
            log.error("retention put off: %s", error)

    def _sweep(self, held: Held) -> None:
        ledger, spool, kept = self._ledger, self._spool, self._settings
        if expired := shadow.expire_old(ledger, self._shadow_days, held):
            log.info("shadow expired deliveries=%d", expired)
        if swept := retention.sweep(ledger, spool, kept.retention_days, kept.rejected_days, held):
            log.info("retention instances=%d", swept)
        if gone := prior_files.sweep(ledger, spool, held):
            log.info("retention earlier_radiographs=%d", gone)
        if kept.history_days is not None and (forgotten := retention.forget(ledger, kept.history_days, held)):
            log.info("forgotten instances=%d", forgotten)
        if kept.history_days is not None and (forgotten := work_items.forget(ledger, kept.history_days, held)):
            log.info("forgotten work_items=%d", forgotten)
