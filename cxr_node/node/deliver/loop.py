"""The loop of one thread of the delivery process: do what is due, then sleep until a notification or a time.

Knows neither what is done nor for whom: a courier sends, `commitment_loop` requests commitment, each in its thread.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from contextlib import closing
from dataclasses import dataclass, field

from cxr_node.config.schema import Config
from cxr_node.errors import LedgerLostError, ResourceError
from cxr_node.node.audit.recorder import SILENT, Audit
from cxr_node.node.ledger import destination_health
from cxr_node.node.ledger.clock_watch import ClockWatch
from cxr_node.node.ledger.lease_keeper import LeaseKeeper
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.network.rejections import Refusals
from cxr_node.node.process.notify import Role, Wakeup
from cxr_node.node.retry import NOTICE_STOP_S, PAUSE_S, Pause
from cxr_node.node.spool.spool import Spool

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryContext:
    """What all threads of the process share."""

    config: Config
    ledger: Ledger
    spool: Spool
    owner: str
    keeper: LeaseKeeper
    audit: Audit = SILENT
    refusals: Refusals = field(default_factory=Refusals)
    """What destinations refused or broke off; the journal has a line for each try already."""
    clock: ClockWatch = field(default_factory=ClockWatch)


class ServiceLoop(ABC):
    """Serves one destination until the process stops; closes what is open while there is nothing to do."""

    def __init__(self, context: DeliveryContext, name: str, idle_close_s: float) -> None:
        self.name = name
        self.moved_at = time.monotonic()
        """When the loop last came round; for the watchdog."""
        self._context = context
        self._idle_close_s = idle_close_s
        self._has_work = threading.Event()
        self._requests = 0

    @abstractmethod
    def do_one(self) -> Pause:
        """Do what is due first, and say how long to pause.

        Raises
        ------
        ResourceError : the ledger or the spool cannot be used now.
        """

    @abstractmethod
    def close(self) -> None:
        """Close what is open; the next `do_one` opens it again."""

    @abstractmethod
    def forget_failures(self) -> None:
        """Try without delay: an operator asked for it."""

    def wake(self) -> None:
        """Let the loop look at once; for other threads of this process."""
        self._has_work.set()

    def run(self, stop: threading.Event) -> None:
        """Loop until `stop` is set."""
        with closing(Wakeup(self._context.config.spool.path, Role.DELIVER)) as wakeup:
            try:
                self._is_asked()  # requests to the process before this one are fulfilled: a loop begins with a try
                while not stop.is_set():
                    self._sleep(self._try_one(), wakeup, stop)
            except LedgerLostError as error:  # the thread that watches this one ends the process
                log.error("ended destination=%s %s", self.name, error)
            finally:
                self.close()

    def _try_one(self) -> Pause:
        try:
            return self.do_one()
        except ResourceError as error:
            log.error("paused destination=%s pause_s=%.0f %s", self.name, PAUSE_S, error)
            return Pause(PAUSE_S, is_fixed=True)

    def _sleep(self, pause: Pause, wakeup: Wakeup, stop: threading.Event) -> None:
        """Sleep in short pieces, to notice `stop`; close what has had nothing to do for long enough."""
        begun = self.moved_at = time.monotonic()
        closed = False
        if pause.is_fixed and self._is_asked():  # while it was trying
            return
        while not stop.is_set() and (slept_s := self.moved_at - begun) < pause.seconds:
            if not closed and slept_s >= self._idle_close_s:
                self.close()
                closed = True
            piece_s = min(NOTICE_STOP_S, pause.seconds - slept_s)
            if pause.is_fixed:
                if wakeup.wait(piece_s) and self._is_asked():
                    return
            elif wakeup.wait(piece_s) or self._has_work.is_set():
                self._has_work.clear()
                return
            self.moved_at = time.monotonic()

    def _is_asked(self) -> bool:
        """Whether an operator has asked for a try (`cxr-node now`) since the last call."""
        try:
            requests = destination_health.nudges(self._context.ledger, self.name)
        except ResourceError:
            return False
        is_new, self._requests = requests != self._requests, requests
        if is_new:
            log.info("tried at once destination=%s requested by an operator", self.name)
            self.forget_failures()
        return is_new
