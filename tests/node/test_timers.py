"""Deadlines of requests: one thread for all of them, however many are set and cancelled."""

from __future__ import annotations

import threading
import time

from cxr_node.node.network.timers import Timers
from tests.patience import eventually


def test_an_action_runs_at_its_time_and_one_that_is_cancelled_does_not() -> None:
    timers, ran = Timers(), list[tuple[str, float]]()
    begun = time.monotonic()
    timers.after(0.3, lambda: ran.append(("last", time.monotonic())))
    cancel = timers.after(0.1, lambda: ran.append(("cancelled", time.monotonic())))
    timers.after(0.05, lambda: ran.append(("first", time.monotonic())))
    cancel()
    cancel()
    assert eventually(lambda: len(ran) == 2)
    assert [name for name, _ in ran] == ["first", "last"]
    assert [at - begun >= wait_s for (_, at), wait_s in zip(ran, (0.05, 0.3), strict=True)] == [True, True]


def test_a_thousand_requests_start_and_wake_one_thread() -> None:
    timers, threads = Timers(), set[threading.Thread | None]()
    for _ in range(1000):
        timers.after(60.0, lambda: None)()
        threads.add(timers._thread)
    (thread,) = threads
    assert thread is not None and thread.is_alive()


def test_one_that_is_due_earlier_is_not_kept_waiting_by_a_later_one() -> None:
    timers, ran = Timers(), threading.Event()
    later = timers.after(60.0, lambda: None)
    time.sleep(0.05)  # the thread sleeps until then
    timers.after(0.05, ran.set)
    assert ran.wait(30.0)
    later()


def test_its_thread_ends_when_nothing_is_left_and_starts_again() -> None:
    timers, ran = Timers(), list[int]()
    for number in range(2):
        timers.after(0.02, lambda number=number: ran.append(number))
        assert eventually(lambda number=number: ran == list(range(number + 1)) and timers._thread is None)
