"""kill -9 at every line of the duty: whoever comes next ends what was begun, once, and no item is left in progress."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cxr_node.node.ledger.lease_keeper import worker_name
from cxr_node.node.process.notify import Role
from tests.forks import FORKS
from tests.node import line_deaths, performer, workplace
from tests.node.performer import Performer, about, performing, sound
from tests.node.ups_manager import UpsManager, item_uid, listening

BEGIN = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
AT_ONCE = 4


@dataclass(frozen=True)
class Site:
    """A node that has not begun, and its manager with one item that can be done, and one whose image never comes."""

    manager: UpsManager
    node: Performer


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    manager = UpsManager()
    manager.add(about(1))
    manager.add(about(2))
    with listening(manager) as address:
        config = performer.config(folder, address, images_within_min=0.15)
        workplace.receive(config, 1)
        with performing(config, BEGIN) as node:
            manager.shelf = performer.shelf(config)
            yield Site(manager, node)


def finish(made: Site) -> None:
    """Let another process of the same machine do the rest, some time later."""
    made.node.clock.forward(60.0)
    with worker_name(made.node.ledger, made.node.config.spool.path, Role.DELIVER) as owner:
        made.node.run(8, owner=owner)


def check(made: Site) -> None:
    sound(made.manager)
    assert made.manager.items[item_uid(1)].moves == ["IN PROGRESS", "COMPLETED"]
    assert made.manager.items[item_uid(2)].moves == ["IN PROGRESS", "CANCELED"]
    assert sorted(made.node.states()) == [("CANCELED", "images-missing"), ("COMPLETED", None)]


def lines(folder: Path, functions: tuple[object, ...]) -> list[line_deaths.Line]:
    with site(folder) as made:
        found = line_deaths.lines(functions, lambda: made.node.run(performer.ROUNDS))
        check(made)
    return found


@pytest.mark.parametrize("part", range(performer.PARTS))
def test_killed_at_any_line_every_item_is_ended_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    monkeypatch.setattr(os, "fsync", line_deaths.need_not_last)
    functions = performer.deadly()
    names = tuple(each.__qualname__ for each in functions)
    found = lines(tmp_path / "undisturbed", functions)
    assert len(found) >= 100, len(found)
    deadly = found[part :: performer.PARTS]
    for start in range(0, len(deadly), AT_ONCE):
        with ExitStack() as stack:
            some = {
                line: stack.enter_context(site(tmp_path / "-".join(map(str, line))))
                for line in deadly[start:][:AT_ONCE]
            }
            victims = {
                line: FORKS.Process(target=performer.main, args=(made.node.config, BEGIN, names, line))
                for line, made in some.items()
            }
            for victim in victims.values():
                victim.start()
            for line, victim in victims.items():
                victim.join(60)
                assert victim.exitcode == -signal.SIGKILL, f"never came to {line}"
                finish(some[line])
                check(some[line])
