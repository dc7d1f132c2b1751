"""One thread's rounds in the process that delivers: do what is due, then rest until a wakeup or a time.

Knows neither what is done nor for whom: `deliver` sends, `asking` asks for commitment, each in a thread of its own.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from cxr_node.config.schema import Config
from cxr_node.errors import LedgerLostError, ResourceError
from cxr_node.node.audit.recorder import SILENT, Audit
from cxr_node.node.ledger import destination_health
from cxr_node.node.ledger.lease_keeper import Keeper
from cxr_node.node.ledger.ledger import ClockWatch, Ledger
from cxr_node.node.network.rejections import Refusals
from cxr_node.node.process.notify import Role, Wakeup
from cxr_node.node.retry import Rest
from cxr_node.node.spool.spool import Spool

log = logging.getLogger(__name__)

LOOK_AFTER_S = 30.0
"""a notification that was lost costs at most this."""
NOTICE_STOP_S = 0.25
_PAUSE_S = 5.0  # after a fault of this machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """What all threads of the process share."""

    config: Config
    ledger: Ledger
    spool: Spool
    owner: str
    keeper: Keeper
    audit: Audit = SILENT
    refusals: Refusals = field(default_factory=Refusals)
    """What destinations refused or broke off; the journal has a line of each try already."""
    clock: ClockWatch = field(default_factory=ClockWatch)


class Rounds(ABC):
    """Do one thing after the other until told to stop; what is open is closed while nothing is to be done."""

    def __init__(self, home: Home, name: str, idle_close_s: float) -> None:
        self.name = name
        self.moved_at = time.monotonic()
        """When its loop last came round; for the watchdog."""
        self._home = home
        self._idle_close_s = idle_close_s
        self._nudged = threading.Event()
        self._wishes = 0

    @abstractmethod
    def do_one(self) -> Rest:
        """Do what is due first, and say what to do next.

        Raises
        ------
        ResourceError : the ledger or the spool cannot be used now.
        """

    @abstractmethod
    def close(self) -> None:
        """End what is open; the next round opens it again."""

    @abstractmethod
    def urged(self) -> None:
        """Begin without delays: an operator wants it tried now."""

    def nudge(self) -> None:
        """Let the thread look at once; for other threads of this process."""
        self._nudged.set()

    def run(self, stop: threading.Event) -> None:
        """Go round until `stop` is set."""
        with Wakeup(self._home.config.spool.path, Role.DELIVER) as wakeup:
            try:
                self._is_urged()  # what was wished of the process before is done: it begins with a try
                while not stop.is_set():
                    self._sleep(self._try_one(), wakeup, stop)
            except LedgerLostError as error:  # who watches the threads ends the process
                log.error("ended destination=%s %s", self.name, error)
            finally:
                self.close()

    def _try_one(self) -> Rest:
        try:
            return self.do_one()
        except ResourceError as error:
            log.error("paused destination=%s pause_s=%.0f %s", self.name, _PAUSE_S, error)
            return Rest(_PAUSE_S, deaf=True)

    def _sleep(self, rest: Rest, wakeup: Wakeup, stop: threading.Event) -> None:
        """Sleep in short pieces, for the sake of `stop`; release an association that has nothing to do."""
        begun = self.moved_at = time.monotonic()
        closed = False
        if rest.deaf and self._is_urged():  # while it was trying
            return
        while not stop.is_set() and (slept_s := self.moved_at - begun) < rest.seconds:
            if not closed and slept_s >= self._idle_close_s:
                self.close()
                closed = True
            piece_s = min(NOTICE_STOP_S, rest.seconds - slept_s)
            if rest.deaf:
                if wakeup.wait(piece_s) and self._is_urged():
                    return
            elif wakeup.wait(piece_s) or self._nudged.is_set():
                self._nudged.clear()
                return
            self.moved_at = time.monotonic()

    def _is_urged(self) -> bool:
        """Whether an operator wishes a try since this was asked last (`cxr-node now`)."""
        try:
            wishes = destination_health.nudges(self._home.ledger, self.name)
        except ResourceError:
            return False
        is_new, self._wishes = wishes != self._wishes, wishes
        if is_new:
            log.info("tried at once destination=%s by an operator's wish", self.name)
            self.urged()
        return is_new
