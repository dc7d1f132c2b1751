"""Forwards the audit trail to the collector: syslog over TLS, at least once, in the order of each process.

Only the process that holds the lock forwards. The cursor moves once the collector has read a batch; a process that
dies before that sends the batch again. While the collector is down, the trail costs disk space and nothing else.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import ssl
import struct
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cxr_node.config.network import Tls
from cxr_node.config.schema import Syslog
from cxr_node.errors import DeliveryError, ResourceError
from cxr_node.node.audit.trail import Batch, TrailFolder, next_batch
from cxr_node.node.network.tls import Renewed, client_tls, why

log = logging.getLogger(__name__)

BATCH_BYTES = 1024 * 1024
LOOK_EVERY_S = 2.0
_TRY_FOR_LOCK_S = 10.0
_FIRST_DELAY_S, _MAX_DELAY_S = 1.0, 60.0
_SWEEP_EVERY_S = 3600.0
_TIMEOUT_S = 20.0
_CLOSE_S = 10.0
"""How long the collector may take to answer the close."""
_ACK_S = 1.0
_RECORD_BYTES = 1 << 14


class Forwarder:
    """Sends what the collector does not have yet, batch after batch."""

    def __init__(self, settings: Syslog, trail: TrailFolder) -> None:
        self._address = (settings.host, settings.port)
        self._tls = Renewed(settings.tls, _context)
        self._trail = trail
        trail.make()
        self._failures = 0

    def run(self, stop: threading.Event) -> None:
        """Forward until `stop` is set, once no other process does."""
        while not stop.is_set():
            with self._lock() as is_ours:
                if is_ours:
                    self._serve(stop)
            stop.wait(_TRY_FOR_LOCK_S)

    def forward(self) -> int:
        """Send the next batch; how many messages the collector has now.

        Raises
        ------
        OSError : the collector cannot be reached, or has not read them.
        ResourceError : the trail cannot be read, or the cursor not written.
        """
        batch = self._next()
        if batch.lines:
            send(self._address, self._tls.context(), batch.lines)
            self._trail.move_cursor(batch.offsets)
        return len(batch.lines)

    def _serve(self, stop: threading.Event) -> None:
        sweep_at = time.monotonic()
        while not stop.is_set():
            if time.monotonic() >= sweep_at:
                sweep_at = time.monotonic() + _SWEEP_EVERY_S
                self._trail.sweep()
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
        return next_batch(self._trail, self._trail.cursor(), BATCH_BYTES)

    @contextmanager
    def _lock(self) -> Iterator[bool]:
        """Take the forwarder's lock; False if another process holds it."""
        file = os.open(self._trail.folder / "forward.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield True
        except BlockingIOError:
            yield False
        finally:
            os.close(file)


def reach(settings: Syslog) -> str:
    """Connect to the collector without sending anything; returns a sentence for the operator.

    Raises
    ------
    ConfigError : certificate, key or CA cannot be used. DeliveryError : the collector cannot be reached.
    """
    address = (settings.host, settings.port)
    try:
        send(address, _context(settings.tls), ())
    except OSError as error:
        raise DeliveryError(f"{settings.host}:{settings.port}: {_words(error)}", permanent=False) from error
    return f"{settings.host}:{settings.port} answers over TLS"


def _words(error: OSError | ResourceError) -> str:
    """TLS and system errors use fixed words; none quotes a message."""
    if isinstance(error, ResourceError):
        return str(error)
    return why(error) if isinstance(error, ssl.SSLError) else error.strerror or "timed out"


def _context(tls: Tls) -> ssl.SSLContext:
    return client_tls(tls, "audit.syslog.tls")


class UnconfirmedError(OSError):
    """The collector may not have read what was sent, so it is sent again."""


def frame(message: bytes) -> bytes:
    """SYSLOG-FRAME: the length in octets, a space, the message (RFC 5425 4.3)."""
    return f"{len(message)} ".encode() + message


def send(address: tuple[str, int], context: ssl.SSLContext, messages: Sequence[bytes]) -> None:
    """Hand messages over, in their order; when this returns the collector has read them.

    Raises
    ------
    OSError : no connection, no common TLS, or no proof. All of the messages must go again.
    """
    with socket.create_connection(address, _TIMEOUT_S) as connection:
        connection.settimeout(_TIMEOUT_S)
        session = _Session(connection, context, address[0])
        session.write(b"".join(map(frame, messages)))
        session.end()
        _confirm(session, connection)


class _Session:
    """TLS, with every record that comes in our hands.

    `SSLSocket.unwrap` takes a fatal alert for the answer to its close: in TLS 1.3 that is how a collector refuses our
    certificate, after a handshake that we held for done.
    """

    def __init__(self, connection: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._connection = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        while not self._shaken():
            self._receive()

    def write(self, content: bytes) -> None:
        """Send all of it."""
        rest = memoryview(content)
        while rest:
            rest = rest[self._tls.write(rest) :]
            self._flush()

    def end(self) -> None:
        """Send our close_notify, and read nothing that came after it."""
        if self._has_ended():
            raise UnconfirmedError("the collector closed before it had read everything")
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._flush()

    def wait(self) -> None:
        """Wait for the collector's close_notify; whatever else ends the connection is raised."""
        while not self._has_ended():
            self._receive()

    def _shaken(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            self._flush()
        return True

    def _has_ended(self) -> bool:
        """Take in what was received; True behind a close_notify."""
        try:
            while self._tls.read():
                pass  # a collector has nothing to say (RFC 5425 4.3)
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLZeroReturnError:
            pass
        return True

    def _receive(self) -> None:
        if content := self._connection.recv(_RECORD_BYTES):
            self._incoming.write(content)
        else:
            self._incoming.write_eof()

    def _flush(self) -> None:
        self._connection.sendall(self._outgoing.read())


def _confirm(session: _Session, connection: socket.socket) -> None:
    """Wait for the collector's close_notify, which stands behind the last byte it has read.

    Some collectors just close, or not at all. Linux answers the bytes that a closed socket never read with a
    reset; so a plain end, or silence, behind which TCP has everything acknowledged, counts too.
    """
    connection.settimeout(_CLOSE_S)
    try:
        session.wait()
    except (ssl.SSLEOFError, TimeoutError):
        if not _all_acknowledged(connection):
            raise UnconfirmedError("the collector closed before it had read everything") from None


def _all_acknowledged(connection: socket.socket) -> bool:
    deadline = time.monotonic() + _ACK_S
    while (waiting := _unacknowledged_bytes(connection)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return waiting == 0 and connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def _unacknowledged_bytes(connection: socket.socket) -> int:
    """SIOCOUTQ of tcp(7); 1, which proves nothing, if the kernel does not support it."""
    with contextlib.suppress(OSError):
        number: int = struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
        return number
    return 1
