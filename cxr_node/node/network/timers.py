"""Actions at a time to come, nearly all of which are cancelled before it comes: the deadlines of requests.

One thread sleeps until the first of them. Neither setting nor cancelling one starts or wakes a thread.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable

Action = Callable[[], object]


class Timers:
    """Any number of them; threads may share it. An action must neither wait nor raise."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: dict[object, tuple[float, Action]] = {}
        self._wakes_at = 0.0
        self._thread: threading.Thread | None = None

    def after(self, seconds: float, action: Action) -> Callable[[], None]:
        """Run an action after so long; returns what cancels it."""
        key, at = object(), time.monotonic() + seconds
        with self._changed:
            self._due[key] = (at, action)
            if self._thread is None or not self._thread.is_alive():  # a process that was forked has no thread of ours
                self._thread = threading.Thread(target=self._run, name="timers", daemon=True)
                self._thread.start()
            elif at < self._wakes_at:
                self._changed.notify()
        return functools.partial(self._cancel, key)

    def _cancel(self, key: object) -> None:
        with self._changed:
            self._due.pop(key, None)

    def _run(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                passed = [key for key, (at, _) in self._due.items() if at <= now]
                actions = [self._due.pop(key)[1] for key in passed]
                if not self._due and not actions:
                    self._thread = None
                    return
                if not actions:
                    self._wakes_at = min(at for at, _ in self._due.values())
                    self._changed.wait(self._wakes_at - now)
            for action in actions:
                action()
