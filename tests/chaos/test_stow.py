"""Two doors, one answer: what C-STORE refuses STOW-RS refuses, and the other way round; and 5,000 malformed requests.

Short: each mutation a few times, and 200 requests. Long: 5,000 of each.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from cxr_node.node.ledger.queries import InstanceRow
from cxr_node.web.stow import answer
from tests.chaos import bodies, judge
from tests.chaos.conftest import Report
from tests.chaos.corpus import SYNTAXES
from tests.chaos.mutations import MUTATIONS, Mutant, Mutation, mutant, mutate
from tests.chaos.roles import Peak, Role
from tests.chaos.test_corpus import Sender
from tests.patience import PATIENCE_S, wait_until
from tests.web import stowing

DRAWS = 5
"""Of each mutation, in every run."""


@dataclass
class Doors:
    """One node, with both of them open."""

    receive: Role
    web: Role
    sender: Sender
    client: httpx.Client

    def store(self, one: Mutant) -> tuple[int | None, int]:
        """What C-STORE answers, and STOW-RS in the words of C-STORE."""
        status = self.sender.send(one)
        file = stowing.part10(one.data_set, one.affected_uid, one.syntax)
        said = self.client.post("/dicom-web/studies", content=stowing.body(file))
        if said.status_code == 200:
            return status, 0x0000
        assert said.status_code == 409, said.text
        (reason,) = stowing.reasons(said)
        return status, reason

    def close(self) -> None:
        self.sender.close()
        self.client.close()


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    folder = tmp_path_factory.mktemp("doors")
    with ExitStack() as stack:
        yield _opened(stack, folder)


def _opened(stack: ExitStack, folder: Path) -> Doors:
    receive = stack.enter_context(Role(folder, "receive"))
    web = stack.enter_context(Role(folder, "web", web={"port": 0, "stow": stowing.section(folder)}))
    shown = {"authorization": f"Bearer {stowing.KEY}", "content-type": stowing.RELATED}
    client = httpx.Client(base_url=f"http://127.0.0.1:{web.port}", headers=shown, timeout=PATIENCE_S)
    doors = Doors(receive=receive, web=web, sender=Sender(receive.port), client=client)
    stack.callback(doors.close)
    return doors


def same(status: int | None, reason: int) -> bool:
    """Whether both doors said the same; where C-STORE has a status that is no Failure Reason, its translation."""
    return reason == answer.reason(status) if status is not None else reason != 0x0000


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: each.__name__)
def test_both_doors_say_the_same(doors: Doors, mutation: Mutation, seed: int) -> None:
    place = MUTATIONS.index(mutation)
    for number in range(DRAWS):
        dice = random.Random(f"doors {seed}/{place}/{number}")
        uid = f"1.2.826.0.1.3680043.8.498.76.{seed}.{place}.{number}".encode()
        draft = mutate(dice, dice.choice(SYNTAXES), [mutation], uid)
        one = Mutant(
            number=number, changes=(), syntax=draft.syntax, affected_uid=draft.affected_uid, data_set=draft.encoded()
        )
        status, reason = doors.store(one)
        assert same(status, reason), (mutation.__name__, number, status, reason)


def test_what_both_took_is_one_row(doors: Doors, seed: int) -> None:
    """The same digest by either door, or the second would be another version."""
    before = {row.id for row in doors.receive.rows()}
    one = mutant(seed, 0)
    assert doors.store(one) == (0x0000, 0x0000)
    (row,) = [row for row in doors.receive.rows() if row.id not in before]
    assert (row.calling_ae_title, row.repeats) == ("WIRE", 1)


@pytest.mark.chaos
@pytest.mark.timeout(7200)
def test_both_doors_say_the_same_of_5000(tmp_path: Path, report: Report, seed: int) -> None:
    with ExitStack() as stack:
        doors = _opened(stack, tmp_path)
        said = {number: doors.store(mutant(seed, number)) for number in range(5000)}
        rows = doors.receive.rows()
        assert doors.receive.lives() and doors.web.lives()
    unequal = {number: pair for number, pair in said.items() if not same(*pair)}
    taken = sum(reason == 0x0000 for _, reason in said.values())
    answers = Counter("none" if status is None else f"0x{status:04X}" for status, _ in said.values())
    report(f"objects=5000 answers={dict(answers)} taken={taken} rows={len(rows)} unequal={len(unequal)}")
    assert unequal == {}
    assert sum(1 + row.repeats for row in rows) == 2 * taken


@pytest.mark.parametrize("number", [200, pytest.param(5000, marks=[pytest.mark.chaos, pytest.mark.timeout(7200)])])
def test_malformed_requests(tmp_path: Path, report: Report, seed: int, number: int) -> None:
    answers, stored, wrong = Counter[str](), set[str](), list[str]()
    with ExitStack() as stack:
        doors = _opened(stack, tmp_path)
        base = doors.web.usage()
        with Peak(doors.web.pid) as peak:
            for each in range(number):
                body = bodies.malformed(seed, each)
                status, content = bodies.send(doors.web.port, body)
                answers[f"{body.changed or 'right'}: {status}"] += 1
                wrong += _wrong(body, status)
                stored |= _stored(status, content)
        wait_until(lambda: doors.web.parts() == [], "no part is left")
        rows = doors.receive.rows()
        assert doors.web.lives() and "Traceback" not in doors.web.said()
        unparsable = {row.sop_instance_uid: words for row in rows if (words := _unparsable(doors.web, row))}
        right = doors.client.post("/dicom-web/studies", content=bodies.malformed(seed, 0).content)
    lost = stored - {row.sop_instance_uid for row in rows}
    rss_mib = round(peak.rss_mib - base.rss_mib)
    report(f"requests={number} answers={dict(sorted(answers.items()))}", lost=len(lost), rss_growth_mib=rss_mib)
    assert wrong == []
    assert (lost, unparsable) == (set(), {})
    assert right.status_code == 200, "the server lives on"
    assert peak.rss_mib - base.rss_mib <= 60


def _wrong(body: bodies.Body, status: int | None) -> list[str]:
    told = f"{body.number} {body.changed or 'right'}: {status}"
    is_fault = status is not None and status >= 500
    is_taken = body.must_fail and status == 200
    is_refused = not body.changed and status != 200
    return [told] if is_fault or is_taken or is_refused else []


def _stored(status: int | None, content: bytes) -> set[str]:
    """SOP Instance UIDs that were acknowledged."""
    if status not in (200, 202):
        return set()
    items = json.loads(content).get(stowing.REFERENCED, {}).get("Value", [])
    return {item["00081155"]["Value"][0] for item in items}


def _unparsable(role: Role, row: InstanceRow) -> tuple[str, str] | None:
    file = role.spool / "objects" / row.content_sha256[:2] / f"{row.content_sha256}.dcm"
    assert file.read_bytes()[:132] == bytes(128) + b"DICM"
    said = judge.pydicom_says(file), judge.dcmtk_says(file)
    return said if any(said) else None


def test_the_same_seed_makes_the_same_requests() -> None:
    made = [[bodies.malformed(seed, number) for number in range(40)] for seed in (7, 7, 8)]
    assert made[0] == made[1] != made[2]
