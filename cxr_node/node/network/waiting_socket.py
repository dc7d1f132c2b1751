"""Waiting without a poll, below pynetdicom's associations: both threads of one sleep until there is work.

Knows no DIMSE message. pynetdicom 3.0.4 polls a thousand times a second. What is overridden here is
internal to it: the version is pinned, and `tests/node/test_waiting_socket.py` holds each name we rely on.
"""

from __future__ import annotations

import os
import queue
import select
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from pynetdicom.association import Association
from pynetdicom.fsm import InvalidEventError, StateMachine
from pynetdicom.transport import AssociationSocket

from cxr_node.node.network import associate_pdu

SLOWEST_BYTES_PER_S = 32 * 1024
"""Of a PDU, and of a whole message."""
WAIT_S = 0.2
"""How long a thread waits before it checks its timers."""
_TURN_S, _CLOSED_TURN_S = 0.001, 0.01


class NotifyingQueue(queue.Queue[Any]):
    """A queue that notifies when something was put."""

    def __init__(self, on_put: Callable[[], None]) -> None:
        super().__init__()
        self._on_put = on_put

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """As the base class, then notify."""
        super().put(item, block, timeout)
        self._on_put()


class Wake:
    """A descriptor to wait on that another thread makes readable."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._file = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """For poll(); -1 once closed, which poll() ignores."""
        return self._file

    def set(self) -> None:
        """Make it readable; after the end this does nothing."""
        with self._lock:
            if self._file >= 0:
                os.eventfd_write(self._file, 1)

    def clear(self) -> None:
        """Make it unreadable."""
        with self._lock, suppress(BlockingIOError):
            if self._file >= 0:
                os.eventfd_read(self._file)

    def close(self) -> None:
        """Close the descriptor."""
        with self._lock:
            file, self._file = self._file, -1
            if file >= 0:
                os.close(file)


class Checkpoint(threading.Event):
    """The event that an association's thread passes on every turn: it waits there until there is work.

    Who sends a request closes it, and waits until the thread says that it is here. A thread of pynetdicom's that has
    served an N-EVENT-REPORT says that it is not, and so it is said again as long as it is true. And one that goes on
    says so only a moment later: a request sent in that moment lost its answer to that thread, and waited in vain.
    """

    def __init__(self, association: Association) -> None:
        super().__init__()
        self._association = association
        self._news, self._gate = threading.Event(), threading.Lock()

    def notify(self) -> None:
        """Let the thread take its next turn now."""
        self._news.set()

    def set(self) -> None:
        """As the base class; opening the checkpoint wakes the thread."""
        super().set()
        self._news.set()

    def clear(self) -> None:
        """As the base class; closing it wakes the thread too. From now on what it says of itself is true."""
        with self._gate:
            super().clear()
        self._news.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for work, but not for long; then as the base class."""
        self._news.wait(WAIT_S)
        self._news.clear()
        while True:
            with self._gate:
                is_open = self.is_set()
                self._association._is_paused = not is_open
            if is_open:
                return True
            super().wait(_CLOSED_TURN_S)


class Pace:
    """Longest time of a whole message; else a peer could hold it open by a byte a minute."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self.begin()

    def begin(self) -> None:
        """A message begins."""
        self._begun_at, self._bytes = time.monotonic(), 0

    def keeps_up(self, nr_bytes: int) -> bool:
        """Whether the peer is still fast enough, now that more has arrived."""
        self._bytes += nr_bytes
        return time.monotonic() - self._begun_at <= self._grace_s + self._bytes / SLOWEST_BYTES_PER_S


class WaitingSocket(AssociationSocket):
    """A connection whose thread sleeps until the peer, or its own process, has something for it."""

    wake: Wake
    """Set by a thread that has something to send."""
    said = ""
    """Why the peer rejected or aborted, in words."""
    fault = ""
    """What was wrong with a PDU of the peer's that could not be read, in words of ours."""
    has_input = False
    """What the last `pump` found."""

    def hear(self, content: bytes) -> None:
        """Observe a PDU before it is decoded."""
        self.said = self.said or associate_pdu.in_words(content)

    def meet(self, event: str, state: str) -> None:
        """Observe an event of PS3.8 9.2 before it is handled."""

    def fail(self, error: Exception) -> None:
        """Observe any fault that ends the association."""

    @property
    def ready(self) -> bool:
        """Whether there is a PDU for pynetdicom to read; neither reads nor waits."""
        return self.has_input

    def pump(self) -> bool:
        """Wait for the peer, or for something to send; True where there is a PDU for pynetdicom to read.

        By poll(): select() cannot watch descriptors beyond 1023.
        """
        connection = self.socket
        if connection is None or not self._is_connected:
            time.sleep(_TURN_S)
            return False
        if self._pending():
            return True
        try:
            poll = select.poll()
            poll.register(connection, select.POLLIN)
            poll.register(self.wake, select.POLLIN)
            number = connection.fileno()
            wait_s = WAIT_S if self.event_queue.empty() else 0.0
            found = [file for file, _ in poll.poll(wait_s * 1000)]
        except (OSError, ValueError):
            self.event_queue.put("Evt17")
            return False
        if self.wake.fileno() in found:
            self.wake.clear()
        return number in found

    def _pending(self) -> bool:
        """Whether TLS holds more decrypted bytes."""
        return isinstance(self.socket, ssl.SSLSocket) and bool(self.socket.pending())


class Machine(StateMachine):
    """PS3.8 9.2; an event that has no place in it ends its own connection, and nothing else."""

    def __init__(self, association: Association, connection: WaitingSocket) -> None:
        super().__init__(association.dul)
        self._connection = connection

    def do_action(self, event: str) -> None:
        """As the base class, but a fault does not end the thread."""
        state = self.current_state
        self._connection.meet(event, state)
        try:
            super().do_action(event)
            if state == "Sta2" and event == "Evt17":  # closed: the association's thread would wait on for the request
                self.dul.to_user_queue.put(cast(Any, None))
        except InvalidEventError:  # our answer to a peer that has broken the protocol meanwhile
            self.dul.kill_dul()  # the association's thread sees it, and the connection is closed
        except Exception as error:  # a fault of one association must not end the others
            self._connection.fail(error)
            self.dul.kill_dul()


def understand_more(association: Association, connection: WaitingSocket) -> None:
    """Let what the standard asks to skip or not to test be skipped and not tested, in either role."""
    dul: Any = association.dul  # one method of its own is replaced
    dul.state_machine = Machine(association, connection)
    decode: Callable[[bytearray], tuple[Any, str]] = dul._decode_pdu

    def decode_tidied(content: bytearray) -> tuple[Any, str]:
        whole = bytes(content)
        connection.hear(whole)
        try:
            tidied = associate_pdu.tidy(whole)
        except ValueError as error:  # pynetdicom answers with an A-ABORT (PS3.8 9.2, Evt19)
            connection.fault = str(error)
            raise
        return decode(bytearray(tidied))

    dul._decode_pdu = decode_tidied


def end_polling(association: Association, connection: WaitingSocket) -> None:
    """Let both threads of an association wait until the other, or the peer, has something for them."""
    checkpoint = association._reactor_checkpoint = Checkpoint(association)
    checkpoint.set()
    association.dul.to_user_queue = NotifyingQueue(checkpoint.notify)
    association.dimse.msg_queue = NotifyingQueue(checkpoint.notify)
    association.dul.to_provider_queue = NotifyingQueue(connection.wake.set)
    dul: Any = association.dul  # one method of its own is replaced
    dul._run_loop_delay = 0.0  # `pump` waits
    look: Callable[[], bool] = dul._is_transport_event

    def pump_and_look() -> bool:
        connection.has_input = dul.socket is connection and connection.pump()
        return look()

    dul._is_transport_event = pump_and_look
