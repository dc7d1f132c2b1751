"""Two doors, one answer: what C-STORE refuses STOW-RS refuses, and the other way round; and 5,000 malformed requests.

Short: each mutation a few times, and 200 requests. Long: 5,000 of each.
"""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from cxr_node.node.ledger.queries import InstanceRow
from cxr_node.node.network import failure_reasons
from tests import builders
from tests.chaos import bodies, judge
from tests.chaos.conftest import Report
from tests.chaos.corpus import SYNTAXES
from tests.chaos.mutations import MUTATIONS, Mutant, Mutation, mutant, mutate
from tests.chaos.roles import Peak, Role
from tests.chaos.test_corpus import Sender
from tests.patience import PATIENCE_S, wait_until
from tests.processes import free_port
from tests.web import stowing

DRAWS = 5
"""Of each mutation, in every run."""
KILLS = 3
SMALL = builders.chest(160, 136)


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
    return reason == failure_reasons.reason(status) if status is not None else reason != 0x0000


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


def test_a_kill_in_the_middle_of_an_object(tmp_path: Path, seed: int) -> None:
    """No answer, nothing in the ledger; what was begun is swept by the next process, and the sender sends again."""
    body = bodies.malformed(seed, 0)
    with ExitStack() as stack:
        doors = _opened(stack, tmp_path)
        with socket.create_connection(("127.0.0.1", doors.web.port), PATIENCE_S) as peer:
            peer.sendall(bodies.request(doors.web.port, body)[:-100])
            wait_until(lambda: len(doors.web.parts()) == 1, "an object has begun")
            doors.web.kill()
            with suppress(ConnectionResetError):
                assert peer.recv(1) == b""
        assert len(doors.web.parts()) == 1 and doors.receive.rows() == []
        doors.web.log.unlink()
        with Role(tmp_path, "web", web={"port": 0, "stow": stowing.section(tmp_path)}) as again:
            assert again.parts() == [] and "swept unfinished files=1" in again.said()
            assert bodies.send(again.port, body)[0] == 200
        assert [row.sop_instance_uid for row in doors.receive.rows()] == list(body.uids)


def test_kills_lose_and_double_nothing(tmp_path: Path, report: Report, chance: random.Random) -> None:
    """A sender repeats what was not answered; the process dies again and again, at whatever line."""
    made = dict(stowing.radiograph(number, SMALL) for number in range(1, 31))
    web = Role(tmp_path, "web", web={"port": free_port(), "stow": stowing.section(tmp_path)})
    kills, unanswered, dead = 0, 0, threading.Event()

    def keep_killing() -> None:
        nonlocal kills
        try:
            for _ in range(KILLS):
                time.sleep(chance.uniform(0.0, 1.0))
                web.kill()
                web.log.unlink()
                web.start()
                kills += 1
                web.wait_ready()
        finally:
            dead.set()

    with Role(tmp_path, "receive") as receive, web:
        address, missing = f"http://127.0.0.1:{web.port}", set(made)
        killer = threading.Thread(target=keep_killing)
        killer.start()
        try:
            while missing or not dead.is_set():  # what was acknowledged may come again, and is one all the same
                uid = chance.choice(sorted(missing or made))
                if _acknowledged(address, uid, made[uid]):
                    missing.discard(uid)
                else:
                    unanswered += 1
        finally:
            killer.join()
        wait_until(lambda: web.parts() == [], "no part is left")
        rows = receive.rows()
    report(f"objects={len(made)} kills={kills} unanswered={unanswered} rows={len(rows)}")
    assert sorted(row.sop_instance_uid for row in rows) == sorted(made)
    assert kills == KILLS


def _acknowledged(address: str, uid: str, file: bytes) -> bool:
    try:
        said = stowing.post(address, stowing.body(file))
    except httpx.TransportError:
        time.sleep(0.05)  # it is being started again
        return False
    return said.status_code == 200 and stowing.uids(said, stowing.REFERENCED) == [uid]
