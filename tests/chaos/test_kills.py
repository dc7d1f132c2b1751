"""kill -9 of receive, work and deliver at random and at named places while images come in: FAULTS T16, T17, T21."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from cxr_node.node.ledger.states import InstanceState
from tests.chaos.accounting import settle
from tests.chaos.conftest import Listening, Report
from tests.chaos.node import ROLES, Node
from tests.chaos.senders import Modality
from tests.chaos.studies import Oracle, draw, reported
from tests.chaos.studies import settle as settle_studies
from tests.node.test_crash import DELIVERY_DIES, WORKER_DIES
from tests.patience import NODE_S, wait_until

SHORT, LONG = (32, 8), (1000, 50)
"""Images, and kills."""
AT_ONCE = 10
"""Studies that may wait to be judged before more are sent."""
LIFE_S = 2.0
"""Mean time that a role lives on after it was seen at work."""

PLACES = {
    "receive": [
        ("cxr_node.node.spool.part:Part.write", "before"),  # an empty file
        ("cxr_node.node.spool.file_store:FileStore.put", "before"),  # all bytes written, nothing durable
        ("cxr_node.node.spool.disk:sync", "before"),  # renamed, the name not durable
        ("cxr_node.node.ledger.ledger:Ledger.add", "before"),  # durable, the ledger knows nothing
        ("cxr_node.node.ledger.ledger:Ledger.add", "after"),  # committed, not answered
        ("cxr_node.node.receive.storage_scp:StorageProvider._respond", "before"),  # the same, one step later
    ],
    "work": [("cxr_node.pipeline:process", when) if "judge" in place else (place, when) for place, when in WORKER_DIES],
    "deliver": DELIVERY_DIES,
}
"""Where each role dies; the worker and the delivery as in tests/node/test_crash, here with the real pipeline."""


@pytest.mark.parametrize(
    ("images", "times"), [SHORT, pytest.param(*LONG, marks=[pytest.mark.chaos, pytest.mark.timeout(3600)])]
)
def test_random_kills(
    tmp_path: Path, profile: Path, chance: random.Random, listening: Listening, report: Report, images: int, times: int
) -> None:
    archives = listening("steady", "steady")
    kills: Counter[str] = Counter()
    with Node(tmp_path / "node", profile, archives) as node:
        modality = Modality(tmp_path / "modality", node.address)
        for number in range(times):
            part = range(number * images // times, (number + 1) * images // times)
            with modality.sending(modality.take(*part)):
                role = chance.choice(ROLES)
                wait_until(lambda role=role: node.pid(role) is not None, f"{role} works")
                time.sleep(min(chance.expovariate(1 / LIFE_S), 4 * LIFE_S))
                node.kill(role)
                kills[role] += 1
        wait_until(node.is_idle, "everything is settled", NODE_S + images)
        wait_until(lambda: all(node.pid(role) is not None for role in ROLES), "who was killed last works again")
        took_s = node.shut_down()
    kept = [archive.kept() for archive in archives]
    accounting = settle(node.spool, modality.sources, modality.acknowledged, kept)
    repeats = [len(one) - 3 * images for one in kept]
    report(
        accounting,
        kills=dict(kills),
        restarts=node.restarts.total(),
        broken_associations=modality.broken,
        repeated_sends=repeats,
        stop_s=round(took_s, 1),
    )
    assert node.deaths == [(role, -signal.SIGKILL) for role, _ in node.deaths] and len(node.deaths) == times
    assert accounting.is_clean
    assert accounting.delivered == images


@pytest.mark.parametrize(
    ("studies", "times", "quiet_s"),
    [(40, 4, 4.0), pytest.param(None, 30, 15.0, marks=[pytest.mark.chaos, pytest.mark.timeout(7200)])],
)
def test_random_kills_while_studies_come(
    tmp_path: Path,
    profile: Path,
    chance: random.Random,
    listening: Listening,
    report: Report,
    request: pytest.FixtureRequest,
    studies: int | None,
    times: int,
    quiet_s: float,
) -> None:
    """Of each study one report, and another where an image comes after it: these at every destination, and no other."""
    studies = studies or int(request.config.getoption("--studies"))
    archives = listening("steady", "steady")
    kills: Counter[str] = Counter()
    ripe = {"quiet_s": quiet_s, "max_wait_s": 600.0}
    with Node(tmp_path / "node", profile, archives, report_per="study", study=ripe) as node:
        modality = Modality(tmp_path / "modality", node.address)
        drawn = list(draw(modality, range(1, studies + 1), chance))
        waiting = [study for study in drawn if len(study.parts) > 1]

        def late() -> list[Path]:
            """Take what is late, of studies that are reported."""
            have = reported([archive.kept() for archive in archives])
            some = [study for study in waiting if study.uid in have]
            waiting[:] = [study for study in waiting if study.uid not in have]
            return [file for study in some for file in study.parts[1]]

        for number in range(times):
            part = drawn[number * studies // times : (number + 1) * studies // times]
            with modality.sending([file for study in part for file in study.parts[0]] + late(), associations=3):
                role = chance.choice(ROLES)
                wait_until(lambda role=role: node.pid(role) is not None, f"{role} works")
                time.sleep(min(chance.expovariate(1 / LIFE_S), 4 * LIFE_S))
                node.kill(role)
                kills[role] += 1
            wait_until(lambda: node.counts()[InstanceState.RECEIVED] <= AT_ONCE, "images are judged", NODE_S)
        while waiting:
            modality.send(late())
            time.sleep(0.5)
        wait_until(node.is_idle, "everything is settled", NODE_S + 3 * studies)
        wait_until(lambda: all(node.pid(role) is not None for role in ROLES), "who was killed last works again")
        node.shut_down()
    kept = [archive.kept() for archive in archives]
    oracle = Oracle(node.config)
    accounting = settle_studies(node.spool, modality, drawn, oracle.objects, kept, quiet_s)
    repeats = [len(one) - accounting.objects for one in kept]
    report(
        accounting,
        late=sum(len(study.parts) - 1 for study in drawn),
        kills=dict(kills),
        restarts=node.restarts.total(),
        broken_associations=modality.broken,
        repeated_sends=repeats,
    )
    assert node.deaths == [(role, -signal.SIGKILL) for role, _ in node.deaths] and len(node.deaths) == times
    assert accounting.is_clean
    assert accounting.images == sum(len(study.files) for study in drawn)
    assert accounting.reports >= sum(len(study.parts) for study in drawn)


@pytest.mark.parametrize("rounds", [1, pytest.param(8, marks=[pytest.mark.chaos, pytest.mark.timeout(3600)])])
def test_kills_at_named_places(
    tmp_path: Path, profile: Path, chance: random.Random, listening: Listening, report: Report, rounds: int
) -> None:
    """In each round every role dies at one of its places; the long run visits every place."""
    places = {role: chance.sample(points, len(points)) for role, points in PLACES.items()}
    archives = listening("steady", "steady")
    node = Node(tmp_path / "node", profile, archives)
    for role in ROLES:
        node.arm(role, *places[role][0], chance.randint(1, 2))
    with node:
        modality = Modality(tmp_path / "modality", node.address)
        for number in range(rounds):
            if number:
                for role in ROLES:
                    node.arm(role, *places[role][number % len(places[role])], chance.randint(1, 2))
                    node.kill(role)
            with modality.sending(modality.take(*range(4 * number, 4 * number + 4)), batch=1):
                wait_until(
                    lambda all_=3 + 6 * number: len(node.deaths) >= all_, "every role dies at its place", 4 * NODE_S
                )
        wait_until(node.is_idle, "everything is settled", 2 * NODE_S)
        wait_until(lambda: all(node.pid(role) is not None for role in ROLES), "who was killed last works again")
        node.shut_down()
    accounting = settle(node.spool, modality.sources, modality.acknowledged, [one.kept() for one in archives])
    report(accounting, kills=len(node.deaths), restarts=node.restarts.total(), broken_associations=modality.broken)
    assert {code for _, code in node.deaths} == {-signal.SIGKILL}
    assert accounting.is_clean
    assert accounting.delivered == 4 * rounds
