"""Forwards the audit trail to the collector: syslog over TLS, at least once, in the order of each process.

One process at a time does it, whoever holds the lock. The cursor moves after the collector has read a batch; a
process that dies in between sends the batch again. An absent collector costs nothing but the disk of the trail.
"""

from __future__ import annotations

import fcntl
import logging
import os
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from cxr_node.config.schema import Syslog, Tls
from cxr_node.errors import DeliveryError, ResourceError
from cxr_node.node.audit import syslog
from cxr_node.node.audit.trail import Batch, TrailFolder, next_batch
from cxr_node.node.network.tls import Renewed, client_tls, why

log = logging.getLogger(__name__)

BATCH_BYTES = 1024 * 1024
LOOK_EVERY_S = 2.0
_TRY_FOR_OFFICE_S = 10.0
_FIRST_DELAY_S, _MAX_DELAY_S = 1.0, 60.0
_SWEEP_EVERY_S = 3600.0


class Forwarder:
    """Sends what the collector does not have yet, batch after batch."""

    def __init__(self, settings: Syslog, shelf: TrailFolder) -> None:
        self._address = (settings.host, settings.port)
        self._tls = Renewed(settings.tls, _context)
        self._shelf = shelf
        shelf.make()
        self._failures = 0

    def run(self, stop: threading.Event) -> None:
        """Forward until `stop` is set, as soon as no other process does."""
        while not stop.is_set():
            with self._office() as is_ours:
                if is_ours:
                    self._serve(stop)
            stop.wait(_TRY_FOR_OFFICE_S)

    def forward(self) -> int:
        """Send the next batch; how many messages the collector has now.

        Raises
        ------
        OSError : the collector cannot be reached, or has not read them.
        ResourceError : the trail cannot be read, or the cursor not written.
        """
        batch = self._next()
        if batch.lines:
            syslog.send(self._address, self._tls.context(), batch.lines)
            self._shelf.move_cursor(batch.offsets)
        return len(batch.lines)

    def _serve(self, stop: threading.Event) -> None:
        sweep_at = time.monotonic()
        while not stop.is_set():
            if time.monotonic() >= sweep_at:
                sweep_at = time.monotonic() + _SWEEP_EVERY_S
                self._shelf.sweep()
            stop.wait(self._turn())

    def _turn(self) -> float:
        """Forward one batch; how long to wait before the next."""
        try:
            sent = self.forward()
        except (OSError, ResourceError) as error:
            if self._failures == 0:
                log.error("audit collector %s:%d does not take messages: %s", *self._address, _words(error))
            delay_s = min(_MAX_DELAY_S, _FIRST_DELAY_S * 2.0 ** min(self._failures, 30))
            self._failures += 1
            return delay_s
        if sent and self._failures:
            log.warning("audit collector takes messages again after failures=%d", self._failures)
            self._failures = 0
        return 0.0 if sent else LOOK_EVERY_S

    def _next(self) -> Batch:
        return next_batch(self._shelf, self._shelf.cursor(), BATCH_BYTES)

    @contextmanager
    def _office(self) -> Iterator[bool]:
        """Hold the lock of the one who forwards; False where another process does."""
        file = os.open(self._shelf.folder / "forward.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield True
        except BlockingIOError:
            yield False
        finally:
            os.close(file)


def reach(settings: Syslog) -> str:
    """Try the way to the collector, and send nothing; what to tell an operator.

    Raises
    ------
    ConfigError : certificate, key or CA cannot be used. DeliveryError : the collector cannot be reached.
    """
    address = (settings.host, settings.port)
    try:
        syslog.send(address, _context(settings.tls), ())
    except OSError as error:
        raise DeliveryError(f"{settings.host}:{settings.port}: {_words(error)}", permanent=False) from error
    return f"{settings.host}:{settings.port} answers over TLS"


def _words(error: OSError | ResourceError) -> str:
    """TLS and the system name their causes by words of their own; none quotes a message."""
    if isinstance(error, ResourceError):
        return str(error)
    return why(error) if isinstance(error, ssl.SSLError) else error.strerror or "timed out"


def _context(tls: Tls) -> ssl.SSLContext:
    return client_tls(tls, "audit.syslog.tls")
