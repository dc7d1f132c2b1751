"""The loop of the alerts: looks at the node, remembers in the ledger what began and ended, and tells people of it once.

A message that a server did not take is sent again, ever more rarely, with all that has to be announced by then. The
ledger knows what was announced, so a restart announces nothing twice, and of several machines one announces, the next
one after its lease. Where one of several ways took a message and the
process ends before the others did, that way gets it once more: better twice than never.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from cxr_node import times
from cxr_node.config.schema import Config
from cxr_node.errors import ConfigError, LedgerLostError, ResourceError
from cxr_node.node.ledger import alerts as book
from cxr_node.node.ledger import duties
from cxr_node.node.ledger.duties import Duty, Held, LostDutyError
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.web.monitoring import announce
from cxr_node.web.monitoring.alerts import Alert, Snapshot, evaluate
from cxr_node.web.monitoring.watch import Watch

log = logging.getLogger(__name__)

EVERY_S = 15.0
HOLD_S = 60.0
"""An alert has ended once its cause has been away for so long: what comes and goes is announced once."""
_LOOK_S = 0.2
_KEPT_S = duties.LEASE_S / 4
"""For so long nobody looks whether the duty is still ours: nobody can have taken it."""
_FIRST_DELAY_S, _MAX_DELAY_S = 15.0, 1800.0
_MAX_LINES = 40


class Store(Protocol):
    """What is remembered beyond this process; `node.ledger.alerts` keeps it."""

    def open_alerts(self) -> tuple[book.Alert, ...]:
        """All that last, and all whose end was not announced yet."""

    def begin_alert(self, key: str, rule: str, subject: str, now: datetime) -> bool:
        """Remember a begin; one whose end was not announced goes on."""

    def mark_announced(self, key: str, now: datetime) -> None:
        """People know of its begin."""

    def end_alert(self, key: str, now: datetime) -> None:
        """Remember its end."""

    def forget_alert(self, key: str) -> None:
        """People know of its end."""


class LedgerStore:
    """The ledger as a store."""

    def __init__(self, ledger: Callable[[], Ledger]) -> None:
        self._ledger = ledger

    def open_alerts(self) -> tuple[book.Alert, ...]:
        """As `Store`."""
        return book.open_alerts(self._ledger())

    def begin_alert(self, key: str, rule: str, subject: str, now: datetime) -> bool:
        """As `Store`."""
        return book.begin_alert(self._ledger(), key, rule, subject, now)

    def mark_announced(self, key: str, now: datetime) -> None:
        """As `Store`."""
        book.mark_announced(self._ledger(), key, now)

    def end_alert(self, key: str, now: datetime) -> None:
        """As `Store`."""
        book.end_alert(self._ledger(), key, now)

    def forget_alert(self, key: str) -> None:
        """As `Store`."""
        book.forget_alert(self._ledger(), key)


class Leading:
    """Whether this machine is the one of several that tells people. For one thread."""

    def __init__(self, ledger: Callable[[], Ledger]) -> None:
        self._ledger = ledger
        self._held: Held | None = None
        self._kept_at = float("-inf")

    def __call__(self) -> bool:
        """Keep the duty, or take it where nobody has it."""
        if self._held is not None and time.monotonic() - self._kept_at < _KEPT_S:
            return True
        ledger, self._kept_at = self._ledger(), time.monotonic()
        if not ledger.database.is_shared:
            return True
        if self._held is not None:
            try:
                duties.require_still(ledger, self._held)
                return True
            except LostDutyError as error:
                log.warning("alerts are told elsewhere: %s", error)
                self._held = None
        taken = duties.take(ledger, Duty.ALERTS, f"{ledger.database.machine}/web")
        self._held = taken if isinstance(taken, Held) else None
        return self._held is not None


@dataclass(frozen=True, slots=True)
class Notice:
    """One begin or end to be announced."""

    key: str
    began_at: datetime
    is_over: bool
    text: str

    @property
    def name(self) -> tuple[str, datetime, bool]:
        """What makes it another one."""
        return self.key, self.began_at, self.is_over


class Channel:
    """One way to people. For one thread."""

    def __init__(self, file: Path, source: str) -> None:
        self._file = file
        self._source = source
        self._message: announce.Message | None = None
        self._batch: tuple[Notice, ...] = ()
        self._began_at = self._due_at = float("-inf")
        self._failures = 0
        self._sent: set[tuple[str, datetime, bool]] = set()

    @property
    def is_sending(self) -> bool:
        """A message is on its way."""
        return self._message is not None

    def has_sent(self, notice: Notice) -> bool:
        """Whether its message was taken."""
        return notice.name in self._sent

    def turn(self, notices: Sequence[Notice]) -> None:
        """Look what became of the message on its way; else send what has to be announced, if it is time for that."""
        self._sent &= {notice.name for notice in notices}
        if self._message is not None:
            self._look(self._message)
        unsent = [notice for notice in notices if notice.name not in self._sent]
        if self._message is None and unsent and time.monotonic() >= self._due_at:
            self._send(unsent)

    def close(self) -> None:
        """Give up what is on its way."""
        if self._message is not None:
            self._message.kill()
            self._message = None

    def _look(self, message: announce.Message) -> None:
        said = message.result()
        if said is None:
            if time.monotonic() - self._began_at < announce.TIMEOUT_S:
                return
            message.kill()
            said = f"no answer within {announce.TIMEOUT_S:.0f} s"
        self._message = None
        if said:
            self._failed(said)
            return
        self._sent.update(notice.name for notice in self._batch)
        if self._failures:
            log.warning("alerts are taken again channel=%s failures=%d", self._file.name, self._failures)
        self._failures = 0

    def _send(self, notices: Sequence[Notice]) -> None:
        self._batch = tuple(notices)
        begun = sum(not notice.is_over for notice in notices)
        counted = [f"{begun} began"] * bool(begun) + [f"{len(notices) - begun} ended"] * (len(notices) > begun)
        lines = [notice.text for notice in notices[:_MAX_LINES]]
        lines += [f"… and {len(notices) - _MAX_LINES} more: `cxr-node status`"] * (len(notices) > _MAX_LINES)
        try:
            url = announce.url_in(self._file)
            title = f"cxr-node {self._source}: {', '.join(counted)}"
            self._began_at = time.monotonic()
            self._message = announce.Message(url, title, "\n\n".join(lines))
        except (ConfigError, OSError) as error:
            self._failed(str(error) if isinstance(error, ConfigError) else error.strerror or "cannot be started")

    def _failed(self, words: str) -> None:
        delay_s = min(_MAX_DELAY_S, _FIRST_DELAY_S * 2.0 ** min(self._failures, 10))
        self._due_at = time.monotonic() + delay_s
        self._failures += 1
        log.error("alerts not taken channel=%s again_in_s=%.0f %s", self._file.name, delay_s, words)


class AlertLoop:
    """Begins and ends alerts, and announces both, where `leads`; elsewhere it looks, for the page."""

    def __init__(
        self,
        config: Config,
        look: Callable[[datetime], Snapshot],
        store: Store,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self._config = config
        self._look = look
        self._store = store
        self._leads = leads
        self._channels = [Channel(file, config.results.installation_id) for file in config.alerts.to]
        self._lasting: Mapping[str, Alert] = {}
        self._away_since: dict[str, datetime] = {}
        self._is_failing = False

    @property
    def lasting(self) -> Mapping[str, Alert]:
        """What was wrong at the last look, by its key."""
        return self._lasting

    def run(self, stop: threading.Event, now: Callable[[], datetime]) -> None:
        """Look every quarter of a minute until `stop` is set; a ledger that fails now is looked at again then."""
        try:
            while not stop.is_set():
                self._forgiving(lambda: self.evaluate(now()))
                until = time.monotonic() + EVERY_S
                while not stop.is_set() and (left_s := until - time.monotonic()) > 0:
                    self._forgiving(lambda: self.tell(now()))
                    is_sending = any(channel.is_sending for channel in self._channels)
                    stop.wait(min(left_s, _LOOK_S) if is_sending else left_s)
        finally:
            for channel in self._channels:
                channel.close()

    def _forgiving(self, turn: Callable[[], None]) -> None:
        try:
            turn()
            self._is_failing = False
        except (ConfigError, ResourceError, LedgerLostError) as error:
            if not self._is_failing:
                log.error("alerts wait for the ledger: %s", error)
            self._is_failing = True

    def evaluate(self, now: datetime) -> None:
        """Look once, and remember what began and what ended."""
        seen = self._look(now)
        found = {alert.key: alert for alert in evaluate(seen, self._config.alerts, now)}
        self._lasting = found
        if not self._leads():
            self._away_since.clear()
            return
        known = {each.key: each for each in self._store.open_alerts()}
        for key, alert in found.items():
            self._away_since.pop(key, None)
            earlier = known.get(key)
            if earlier is None or (earlier.ended_at is not None and not self._is_partly_sent(earlier)):
                self._store.begin_alert(key, alert.rule, alert.subject, now)
                log.warning("alert began rule=%s subject=%s %s", alert.rule, alert.subject, alert.sentence)
        for key, each in known.items():
            if key in found or each.ended_at is not None or each.rule in seen.unread:
                continue
            if (now - self._away_since.setdefault(key, now)).total_seconds() >= HOLD_S:
                del self._away_since[key]
                self._store.end_alert(key, now)
                log.warning("alert ended rule=%s subject=%s", each.rule, each.subject)

    def tell(self, now: datetime) -> None:
        """Turn every channel once, and remember what all of them have sent."""
        if not self._leads():
            return
        notices = [notice for each in self._store.open_alerts() if (notice := self._notice(each)) is not None]
        for channel in self._channels:
            channel.turn(notices)
        for notice in notices:
            if all(channel.has_sent(notice) for channel in self._channels):
                if notice.is_over:
                    self._store.forget_alert(notice.key)
                else:
                    self._store.mark_announced(notice.key, now)

    def _notice(self, each: book.Alert) -> Notice | None:
        """What has to be announced of an alert; None where people know, or where only the next look can say it."""
        if each.ended_at is not None:
            span = f"from {each.began_at:%Y-%m-%d %H:%M} to {each.ended_at:%H:%M} UTC"
            words = f"{each.rule} {each.subject}: {span}, {times.age(each.ended_at - each.began_at)}"
            return Notice(each.key, each.began_at, True, f"Ended: {words}")
        alert = self._lasting.get(each.key)
        if each.announced_at is not None or alert is None:
            return None
        return Notice(each.key, each.began_at, False, f"{_capital(alert.sentence)}.\nWhat to do: {alert.advice}.")

    def _is_partly_sent(self, ended: book.Alert) -> bool:
        notice = self._notice(ended)
        return notice is not None and any(channel.has_sent(notice) for channel in self._channels)


def of_node(config: Config, ledger: Callable[[], Ledger]) -> AlertLoop:
    """The loop that watches one node; for a thread of the process `web`."""
    return AlertLoop(config, Watch(config, ledger).look, LedgerStore(ledger), Leading(ledger))


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
