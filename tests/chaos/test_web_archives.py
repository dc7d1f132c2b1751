"""kill -9 of the node while DICOMweb servers and RIS refuse, cut off, forget and lie: all of it arrives, and once.

Short: 8 images and 3 kills. Long: 1,000 images and 50 kills.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from cxr_node.node.ledger.states import PromiseState
from tests.chaos import mllp_archive
from tests.chaos.accounting import held, settle
from tests.chaos.archive import Archive
from tests.chaos.conftest import Listening, Report
from tests.chaos.node import ROLES, Node
from tests.chaos.senders import Modality
from tests.chaos.test_kills import LIFE_S, LONG
from tests.chaos.web_archive import WebArchive
from tests.patience import NODE_S, wait_until
from tests.processes import free_port

QUIET_S = 1.0
TEMPERS = ("steady", "moody", "forgetful")


def seen(node: Node) -> bool:
    """Every object was seen, or is told to a person: nothing is left to do."""
    return node.is_idle() and all(set(states) <= {PromiseState.UNCOMMITTED} for states in node.uncommitted().values())


def killed_while_sending(
    node: Node, modality: Modality, chance: random.Random, images: int, times: int
) -> Counter[str]:
    """Send images in as many parts, kill a role during each, and wait until all is settled and seen; who was killed."""
    kills: Counter[str] = Counter()
    for number in range(times):
        part = range(number * images // times, (number + 1) * images // times)
        with modality.sending(modality.take(*part)):
            role = chance.choice((*ROLES, "deliver", "deliver"))
            wait_until(lambda role=role: node.pid(role) is not None, f"{role} works")
            time.sleep(min(chance.expovariate(1 / LIFE_S), 4 * LIFE_S))
            node.kill(role)
            kills[role] += 1
    wait_until(lambda: seen(node), "everything is settled and seen", NODE_S + 4 * images)
    wait_until(lambda: all(node.pid(role) is not None for role in ROLES), "who was killed last works again")
    return kills


@pytest.mark.parametrize(
    ("images", "times"), [(8, 3), pytest.param(*LONG, marks=[pytest.mark.chaos, pytest.mark.timeout(7200)])]
)
def test_kills_before_dicomweb_servers_of_every_temper(
    tmp_path: Path, profile: Path, chance: random.Random, listening: Listening, report: Report, images: int, times: int
) -> None:
    web = [WebArchive(tmp_path / f"web-{temper}.jsonl", free_port(), temper, 7) for temper in TEMPERS]
    archives: list[Archive] = [*listening("steady"), *web]
    try:
        for archive in web:
            archive.start()
        with Node(tmp_path / "node", profile, archives) as node:
            modality = Modality(tmp_path / "modality", node.address)
            kills = killed_while_sending(node, modality, chance, images, times)
            left = node.uncommitted()
            node.shut_down()
    finally:
        for archive in web:
            archive.kill()
    kept = [archive.kept() for archive in archives]
    accounting = settle(node.spool, modality.sources, modality.acknowledged, kept[:3])
    sends = dict(zip(("dicom", *TEMPERS), map(len, kept), strict=True))
    report(accounting, kills=dict(kills), restarts=node.restarts.total(), kept=sends, unseen=left)
    assert node.deaths == [(role, -signal.SIGKILL) for role, _ in node.deaths] and len(node.deaths) == times
    assert accounting.is_clean
    assert accounting.delivered == images
    assert set(left) <= {"archive3"}, "what is there is seen, whoever was killed while he looked"
    forgetful = len({one.sop_instance_uid for one in kept[3]})
    unseen = sum(sum(states.values()) for name, states in left.items() if name == "archive3")
    assert forgetful + unseen >= 3 * images, "what is not there is told"


@pytest.mark.parametrize(
    ("images", "times"), [(8, 3), pytest.param(*LONG, marks=[pytest.mark.chaos, pytest.mark.timeout(7200)])]
)
def test_kills_before_an_archive_a_web_server_and_a_ris(
    tmp_path: Path, profile: Path, chance: random.Random, listening: Listening, report: Report, images: int, times: int
) -> None:
    """Over DIMSE, HTTP and MLLP at once; a message that comes again under its control ID is one message to a RIS."""
    web = WebArchive(tmp_path / "web-moody.jsonl", free_port(), "moody", 7)
    ris = mllp_archive.Ris(tmp_path / "ris-moody.jsonl", free_port(), "moody", 11)
    archives: list[Archive] = [*listening("steady"), web, ris]
    try:
        for archive in (web, ris):
            archive.start()
        with Node(tmp_path / "node", profile, archives, study={"quiet_s": QUIET_S}) as node:
            modality = Modality(tmp_path / "modality", node.address)
            kills = killed_while_sending(node, modality, chance, images, times)
            left = node.uncommitted()
            node.shut_down()
    finally:
        for archive in (web, ris):
            archive.kill()
    kept = [archive.kept() for archive in archives]
    accounting = settle(node.spool, modality.sources, modality.acknowledged, kept[:2])
    studies = {modality.sources[uid].study_instance_uid for uid in modality.acknowledged}
    messages = mllp_archive.settle(held(node.spool), studies, kept[2])
    repeats = [len(objects) - 3 * images for objects in kept[:2]]
    report(
        accounting, messages=messages, kills=dict(kills), restarts=node.restarts.total(), repeated_sends=repeats,
        broken_associations=modality.broken,
    )  # fmt: skip
    assert node.deaths == [(role, -signal.SIGKILL) for role, _ in node.deaths] and len(node.deaths) == times
    assert accounting.is_clean
    assert accounting.delivered == images
    assert messages.is_clean
    assert left == {}, "what is there is seen, whoever was killed while he looked"
