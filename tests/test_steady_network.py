"""Browsers side by side, and no network that changes under them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests import steady_network
from tests.patience import PATIENCE_S, wait_until


@pytest.fixture(autouse=True)
def _locks_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("locks")))


@contextmanager
def beside(what: AbstractContextManager[None]) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Another who does it, until it is told to end: an event once it has begun, and one that ends it."""
    begun, end = threading.Event(), threading.Event()

    def do() -> None:
        with what:
            begun.set()
            end.wait(PATIENCE_S)

    thread = threading.Thread(target=do)
    thread.start()
    try:
        yield begun, end
    finally:
        end.set()
        thread.join()


def test_browsers_run_side_by_side_and_a_change_waits_for_them() -> None:
    with beside(steady_network.kept()) as (first, end), beside(steady_network.kept()) as (second, other_end):
        wait_until(lambda: first.is_set() and second.is_set(), "both browsers look")
        with beside(steady_network.changing()) as (changes, _):
            end.set()
            assert not changes.wait(0.2), "one of them still looks"
            other_end.set()
            assert changes.wait(PATIENCE_S)


def test_who_comes_after_a_change_waits_for_it() -> None:
    with beside(steady_network.kept()) as (looks, end_of_look):
        wait_until(looks.is_set, "a browser looks")
        with beside(steady_network.changing()) as (changes, end_of_change):
            assert not changes.wait(0.2)
            with beside(steady_network.kept()) as (later, _):
                assert not later.wait(0.2), "it does not overtake a change that waits"
                end_of_look.set()
                wait_until(changes.is_set, "the network changes")
                assert not later.wait(0.1)
                end_of_change.set()
                wait_until(later.is_set, "and then the next one looks")
