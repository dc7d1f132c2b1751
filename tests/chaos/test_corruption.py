"""Bytes that rot between receipt and work, and a ledger that is gone or garbage: FAULTS T25 and T26."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from cxr_node.node.ledger import queries
from cxr_node.node.ledger.ledger import FILE_NAME, Ledger
from cxr_node.node.ledger.states import DeadReason, InstanceState
from tests.chaos.accounting import settle
from tests.chaos.conftest import Listening, Report
from tests.chaos.node import ROLES, Node
from tests.chaos.senders import Modality
from tests.patience import NODE_S, wait_until


def flip_a_bit(file: Path, chance: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)


def cut(file: Path, chance: random.Random) -> None:
    os.truncate(file, chance.randrange(file.stat().st_size))


def delete(file: Path, _: random.Random) -> None:
    file.unlink()


DAMAGES = (flip_a_bit, cut, delete)


@pytest.mark.parametrize("images", [9, pytest.param(300, marks=[pytest.mark.chaos, pytest.mark.timeout(1800)])])
def test_corrupted_objects_are_set_aside_and_the_others_go(
    tmp_path: Path, profile: Path, chance: random.Random, listening: Listening, report: Report, images: int
) -> None:
    archives = listening("steady", "steady")
    with Node(tmp_path / "node", profile, archives) as node:
        node.stop("work")
        modality = Modality(tmp_path / "modality", node.address)
        modality.send(modality.take(*range(images)))
        victims = chance.sample(sorted((node.spool / "objects").glob("*/*.dcm")), images // 3)
        for number, victim in enumerate(victims):
            DAMAGES[number % 3](victim, chance)
        node.start("work")
        wait_until(node.is_idle, "everything is settled", NODE_S + images)
        node.shut_down()
    cut_or_changed = sum(victim.exists() for victim in victims)
    accounting = settle(node.spool, modality.sources, modality.acknowledged, [one.kept() for one in archives])
    alarms = sum(" ERROR " in line and " dead " in line for line in node.log("work").splitlines())
    report(accounting, damaged=len(victims), alarms=alarms, restarts=node.restarts.total())
    assert (accounting.dead, accounting.delivered) == (len(victims), images - len(victims))
    assert {row.reason for row in _rows(node.spool) if row.state is InstanceState.DEAD} == {DeadReason.SPOOL_CORRUPT}
    assert alarms == len(victims)
    assert (accounting.lost, accounting.doubled, node.restarts.total()) == (0, 0, 0)
    assert accounting.truncated == cut_or_changed + len(victims), "the files, and the rows that point to them"


def lose(ledger: Path, _: random.Random) -> None:
    for file in ledger.parent.glob(f"{ledger.name}*"):
        file.unlink()


def rot(ledger: Path, chance: random.Random) -> None:
    """Garbage over every page but the first, which says what the file is."""
    content = ledger.read_bytes()
    ledger.write_bytes(content[:4096] + chance.randbytes(len(content) - 4096))


@pytest.mark.parametrize(
    ("images", "damage"),
    [
        (5, lose),
        pytest.param(300, lose, marks=[pytest.mark.chaos, pytest.mark.timeout(1800)]),
        pytest.param(300, rot, marks=[pytest.mark.chaos, pytest.mark.timeout(1800)]),
    ],
)
def test_a_lost_or_rotten_ledger_is_rebuilt_from_the_spool(
    tmp_path: Path,
    profile: Path,
    chance: random.Random,
    listening: Listening,
    report: Report,
    images: int,
    damage: Callable[[Path, random.Random], None],
) -> None:
    """Every image goes to the archive once more, as the same objects."""
    archives = listening("steady")
    with Node(tmp_path / "node", profile, archives) as node:
        modality = Modality(tmp_path / "modality", node.address)
        modality.send(modality.take(*range(images)))
        wait_until(node.is_idle, "everything is settled", NODE_S + images)
        node.stop()
        node.forget()
        damage(node.spool / FILE_NAME, chance)
        for role in ROLES:
            node.start(role)
        wait_until(lambda: len(archives[0].kept()) >= 6 * images, "everything is delivered again", NODE_S + images)
        wait_until(node.is_idle, "everything is settled")
        node.shut_down()
    accounting = settle(node.spool, modality.sources, modality.acknowledged, [one.kept() for one in archives])
    report(accounting, restarts=node.restarts.total(), delivered_again=len(archives[0].kept()) - 3 * images)
    assert accounting.is_clean
    assert accounting.delivered == images
    assert len({(one.sop_instance_uid, one.sha256) for one in archives[0].kept()}) == 3 * images


def _rows(spool: Path) -> list[queries.InstanceRow]:
    ledger = Ledger.open(spool)
    try:
        return queries.recent(ledger, 2**31)
    finally:
        ledger.close()
