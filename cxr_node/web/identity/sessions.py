"""Who is logged in, and how often somebody failed to: kept in memory, so a restart of `web` ends all sessions.

Knows no HTTP and no user file. A session's token is in the browser's cookie; its CSRF token is in each form.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from cxr_node.web.identity.users import Role

MAX_SESSIONS = 1_000
MAX_WATCHED = 10_000
FREE_FAILURES = 5
"""Failures of one name or one address before the next attempt has to wait."""
LONGEST_WAIT_S = 900.0
_FIRST_WAIT_S = 2.0


class Via(StrEnum):
    """How a person was recognised."""

    PASSWORD = "password"  # noqa: S105 - no password
    OIDC = "oidc"
    LOOPBACK = "loopback"


@dataclass(slots=True, kw_only=True)
class Session:
    """One browser."""

    name: str
    role: Role
    via: Via
    password_hash: str = ""
    """Of a local user when the session began; another one in the file ends it."""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    used_at: float = 0.0


class Sessions:
    """All sessions; the one unused for longest goes where there are too many."""

    def __init__(self, lifetime_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lifetime_s, self._clock = lifetime_s, clock
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def begin(self, session: Session) -> Session:
        """Remember a session; the least recently used one is forgotten beyond `MAX_SESSIONS`."""
        with self._lock:
            session.used_at = self._clock()
            self._sessions[session.token] = session
            while len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)
        return session

    def find(self, token: str) -> Session | None:
        """The session of a cookie, which is used now; None where it is unknown or has expired."""
        with self._lock:
            session = self._sessions.get(token)
            if session is None:
                return None
            now = self._clock()
            if now - session.used_at > self._lifetime_s:
                del self._sessions[token]
                return None
            session.used_at = now
            self._sessions.move_to_end(token)
            return session

    def number(self) -> int:
        """How many are open; those that have expired do not count."""
        with self._lock:
            now = self._clock()
            return sum(now - session.used_at <= self._lifetime_s for session in self._sessions.values())

    def end(self, token: str) -> None:
        """Forget a session."""
        with self._lock:
            self._sessions.pop(token, None)


class Attempts:
    """Slows down guessing: by user name and by address, doubling from two seconds to a quarter of an hour."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait_s(self, *keys: str) -> float:
        """Seconds until one of these may try again; 0 where they may now."""
        with self._lock:
            return max((self._wait_s(key) for key in keys), default=0.0)

    def failed(self, *keys: str) -> None:
        """Count one failure of each."""
        with self._lock:
            for key in keys:
                self._failures[key] = (self._failures.get(key, (0, 0.0))[0] + 1, self._clock())
                self._failures.move_to_end(key)
            while len(self._failures) > MAX_WATCHED:
                self._failures.popitem(last=False)

    def succeeded(self, *keys: str) -> None:
        """Forget the failures of these."""
        with self._lock:
            for key in keys:
                self._failures.pop(key, None)

    def _wait_s(self, key: str) -> float:
        number, at = self._failures.get(key, (0, 0.0))
        if number < FREE_FAILURES:
            return 0.0
        doubled = min(LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(number - FREE_FAILURES, 16))
        return max(0.0, at + doubled - self._clock())


class Rate:
    """Events of one client in a sliding minute."""

    _SPAN_S = 60.0

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, list[float]] = OrderedDict()

    def wait_s(self, client: str, number: int = 1) -> float:
        """Count `number` events and return 0, or return the seconds until there is room for them."""
        now = self._clock()
        with self._lock:
            seen = [at for at in self._seen.get(client, ()) if now - at < self._SPAN_S]
            room = self._per_minute - len(seen)
            fits = number <= room
            self._seen[client] = [*seen, *([now] * number if fits else ())]
            self._seen.move_to_end(client)
            while len(self._seen) > MAX_WATCHED:
                self._seen.popitem(last=False)
        if fits:
            return 0.0
        if number > self._per_minute:
            return self._SPAN_S
        return self._SPAN_S - (now - seen[number - room - 1])
