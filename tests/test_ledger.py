"""What an administrator asks of the ledger and does to it: status, list, counts, trace, retry, forget, now."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from typer.testing import CliRunner, Result

from cxr_node.cli.node import app
from cxr_node.config.schema import Config
from cxr_node.dicom.read import keys
from cxr_node.domain import AbstainReason, Origin, Reason, Verdict
from cxr_node.node.deliver import courier, removed_destinations
from cxr_node.node.ledger import destination_health, lookup, operator_moves, queries
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.states import DeadReason, DeliveryState, InstanceState
from cxr_node.node.ledger.tables import artifacts, deliveries, instance_artifacts, instances
from cxr_node.node.process.supervisor import Presence
from cxr_node.node.receive.receiver import Receiver, StoreRequest
from cxr_node.node.spool.spool import Spool
from tests.node import ledgers, peers, workplace

RUNNER = CliRunner()
PACS = {"name": "pacs", "address": "PACS@127.0.0.1:104", "report_per": "image"}
WARD = {"name": "ward", "address": "WARD@127.0.0.1:104", "report_per": "image"}


class Site:
    """A spool, a configuration file that can be changed, and the commands on it."""

    def __init__(self, folder: Path, *destinations: dict[str, Any]) -> None:
        self.spool, self.file = folder / "spool", folder / "node.yaml"
        self.configured(*destinations)
        self.settings = workplace.config(self.spool, destinations=list(destinations))

    def configured(self, *destinations: dict[str, Any]) -> None:
        self.file.write_text(yaml.safe_dump({"spool": {"path": str(self.spool)}, "destinations": list(destinations)}))

    def run(self, *words: str) -> Result:
        return RUNNER.invoke(app, [*words, "--config", str(self.file)])

    def json(self, *words: str) -> list[Any]:
        shown = self.run(*words, "--json")
        assert shown.exit_code == 0, shown.output
        return [json.loads(line) for line in shown.stdout.splitlines()]

    def judged(self, *numbers: int) -> None:
        workplace.receive(self.settings, *numbers)
        with self.ledger() as ledger:
            worker = workplace.worker(self.settings, ledger)
            while worker.do_one():
                pass

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        opened = Ledger.open(self.spool)
        try:
            yield opened
        finally:
            opened.close()

    def refuse(self, destination: str) -> None:
        """All that waits for it is DEAD."""
        with self.ledger() as ledger:
            while job := ledger.claim_delivery(destination, "me", 60.0):
                assert ledger.settle_delivery_dead(job, status=0xA900, detail="refused")

    def accept(self, destination: str) -> None:
        with self.ledger() as ledger:
            while job := ledger.claim_delivery(destination, "me", 60.0):
                assert ledger.settle_delivered(job, 0x0000)

    def states(self) -> list[str]:
        return [state for state, _ in workplace.states(self.settings)]

    def open_at(self, destination: str) -> int:
        with self.ledger() as ledger:
            states = queries.queues(ledger).get(destination, {})
        return sum(states.get(state, 0) for state in (DeliveryState.READY, DeliveryState.WAIT))


def flat(shown: Result) -> str:
    return " ".join(shown.output.split())


@contextmanager
def delivering(settings: Config) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=courier.run, args=(settings, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


# --- retry -----------------------------------------------------------------------------------------------------------


def keys_of_one(site: Site) -> dict[str, str]:
    """Every name that one instance has, in a log line, a table or a letter."""
    with site.ledger() as ledger, ledger.database.reading() as connection:
        row = connection.execute(sa.select(instances)).mappings().one()
        delivery = connection.scalar(sa.select(sa.func.min(deliveries.c.id)))
        result = queries.trace(ledger, row["sop_instance_uid"])[0].deliveries[0].sop_instance_uid
    uids = {name: row[f"{name}_instance_uid"] for name in ("sop", "series", "study")}
    digest = row["content_sha256"]
    numbers = {"number": f"{row['id']}", "instance": f"instance={row['id']}", "#": f"#{row['id']}"}
    numbers |= {"delivery": f"delivery={delivery}", "sha256": f"sha256={digest[:12]}", "digest": digest}
    return uids | numbers | {"result": result, "accession": "ACC-7"}


def test_retry_takes_whatever_trace_and_list_take(tmp_path: Path) -> None:
    site = Site(tmp_path, PACS)
    site.judged(1)
    with site.ledger() as ledger, ledger.database.writing() as connection:
        connection.execute(sa.update(instances).values(accession_key=keys.accession_key("ACC-7")))
    for name, key in keys_of_one(site).items():
        site.refuse("pacs")
        assert len(site.json("trace", key)) == len(site.json("list", key)) == 1, name
        shown = site.run("retry", key)
        assert (shown.exit_code, flat(shown)) == (0, "1 back in the queue"), name
        assert (site.states(), site.open_at("pacs")) == (["REPORTED"], 3), name


NAMES_NOTHING = {
    *("ae", "again_in_s", "attempt", "bytes", "cause", "destination", "destinations", "down_s", "kind", "ms", "new"),
    *("objects", "owner", "peer", "port", "reason", "status", "took_ms", "tries", "verdict", "priority", "certainty"),
    *("accepted_not_committed", "committed", "mode", "sent_again", "probability"),
}
"""Fields of log lines whose values are no names of the ledger's."""


def received(site: Site, ledger: Ledger) -> None:
    """As by a C-STORE."""
    ref = ledgers.reference(1)
    receiver = Receiver(site.settings, lambda _: ref, Spool(site.spool), lambda: ledger)
    request = StoreRequest(
        sop_class_uid=ref.sop_class_uid,
        sop_instance_uid=ref.sop_instance_uid,
        transfer_syntax_uid=ref.transfer_syntax_uid,
        calling_ae_title="MODALITY",
        peer_host="10.0.0.7",
    )
    part = receiver.begin(request)
    part.write(b"radiograph 1")
    receiver.finish(request, part)


def test_every_number_and_digest_of_a_log_line_leads_to_the_image(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Received, judged, sent, refused: each field is a name that every command takes, or it is known to be none."""
    judge = workplace.judge
    monkeypatch.setattr(workplace, "judge", lambda _, *rest: judge(b"radiograph 1", *rest))
    archive = peers.Archive(lambda count: {1: 0xA700, 2: 0x0000}.get(count, 0xA900))
    with caplog.at_level("INFO", "cxr_node"), peers.listening(archive) as address:
        site = Site(tmp_path, {"name": "pacs", "address": str(address), "report_per": "image"})
        with site.ledger() as ledger:
            received(site, ledger)
        site.judged()
        with delivering(site.settings):
            assert workplace.eventually(lambda: site.states() == ["DEAD"])
    fields = {tuple(field) for line in caplog.messages for field in re.findall(r"(?<!\S)(\w+)=(\S+)", line)}
    assert {name for name, _ in fields} >= {"instance", "sha256", "delivery"}
    names = {name for name, _ in fields} - NAMES_NOTHING
    assert names <= lookup.FIELDS.keys(), "a field that no command takes"
    for name, value in sorted(field for field in fields if field[0] in names):
        key = f"{name}={value}"
        assert len(site.json("trace", key)) == len(site.json("list", key)) == 1, key
        assert flat(site.run("retry", key)) == "1 back in the queue", key
        site.refuse("pacs")
        assert flat(site.run("resend", key)) == "pacs: 3 objects are due again", key
        site.refuse("pacs")
        assert flat(site.run("rejudge", key)) == "1 back in the queue", key
        site.judged()
        site.refuse("pacs")
    assert "nothing waits for pacs" in site.run("now", "destination=pacs").output


def test_an_accession_number_outside_ascii_is_found_in_every_way_it_was_written(tmp_path: Path) -> None:
    """Case 40: ISO_IR 100 on the wire, UTF-8 in the terminal."""
    site = Site(tmp_path, PACS)
    site.judged(1)
    with site.ledger() as ledger, ledger.database.writing() as connection:
        key = keys.accession_key(b"\xc412".decode("ascii", "surrogateescape"))
        connection.execute(sa.update(instances).values(accession_key=key))
    site.refuse("pacs")
    assert "1.2.1.1.1" in site.run("trace", "Ä12").output
    assert len(site.json("list", "A\u0308" + "12")) == 1
    assert site.run("retry", "Ä12").exit_code == 0
    assert site.run("trace", "Ö12").exit_code == 2


def test_retry_says_what_is_so_where_it_does_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path, PACS)
    site.judged(1)
    said = {"unknown": site.run("retry", "NO-SUCH"), "on its way": site.run("retry", "1.2.1")}
    site.accept("pacs")
    said["delivered"] = site.run("retry", "1.2.1")
    workplace.receive(site.settings, 2, content=b"a hand")
    said["waiting"] = site.run("retry", "1.2.2")
    with site.ledger() as ledger:
        worker = workplace.worker(site.settings, ledger)
        assert worker.do_one()
    said["rejected"] = site.run("retry", "1.2.2")
    assert all(shown.exit_code == 2 for shown in said.values())
    assert "the ledger knows no such UID, Accession Number, number or digest" in flat(said.pop("unknown"))
    assert all("nothing of it is DEAD" in flat(shown) for shown in said.values())
    assert "1.2.1.1.1 is on its way to its destinations" in flat(said["on its way"])
    assert "1.2.1.1.1 is DELIVERED since " in flat(said["delivered"])
    assert "1.2.2.1.1 waits to be judged" in flat(said["waiting"])
    assert "1.2.2.1.1 is REJECTED, not-a-chest" in flat(said["rejected"])


def test_retry_leaves_a_removed_destination_alone(tmp_path: Path) -> None:
    site = Site(tmp_path, PACS, WARD)
    site.judged(1, 2)
    site.refuse("ward")
    site.accept("pacs")
    site.configured(PACS)
    shown = site.run("retry", "1.2.1")
    assert shown.exit_code == 2
    assert "DEAD only at other destinations, or at those that are not configured" in flat(shown)
    assert flat(site.run("retry", "--dead")).startswith("0 back in the queue 2 stay DEAD")
    assert (site.states(), site.open_at("ward")) == (["DEAD", "DEAD"], 0)
    site.configured(PACS, WARD)
    assert flat(site.run("retry", "--dead", "--destination", "ward")) == "2 back in the queue"
    assert site.open_at("ward") == 6


def test_what_is_refused_by_one_while_another_is_still_down_can_be_tried_again(tmp_path: Path) -> None:
    site = Site(tmp_path, PACS, WARD)
    site.judged(1)
    site.refuse("ward")
    assert site.states() == ["REPORTED"], "pacs is still to get it"
    assert flat(site.run("retry", "1.2.1")) == "1 back in the queue"
    assert site.open_at("ward") == 3


def test_retry_of_what_has_no_bytes_any_more_says_so(tmp_path: Path) -> None:
    site = Site(tmp_path, PACS)
    site.judged(1)
    site.refuse("pacs")
    with site.ledger() as ledger:
        ledgers.purge(ledger, 1)
    shown = site.run("retry", "1.2.1")
    assert shown.exit_code == 2
    assert "stay DEAD: its bytes were deleted" in flat(shown)
    assert site.states() == ["DEAD"]


def test_all_dead_are_retried_by_destination_reason_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_moves, "_REVIVED_AT_ONCE", 2)
    site = Site(tmp_path, PACS, WARD)
    site.judged(*range(1, 6))  # more than one transaction
    site.refuse("ward")
    site.accept("pacs")
    workplace.receive(site.settings, 500)
    with site.ledger() as ledger:
        job = ledger.claim_instance("me", 60.0)
        assert job is not None
        assert ledger.settle_dead(job, DeadReason.FAULT, "a bug")
    assert flat(site.run("retry", "--dead", "--reason", "fault", "--since", "1h")) == "1 back in the queue"
    assert flat(site.run("retry", "--dead", "--destination", "pacs")).startswith("0 back in the queue 5 stay DEAD")
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).date().isoformat()
    assert flat(site.run("retry", "--dead", "--since", tomorrow)) == "0 back in the queue"
    assert (
        flat(site.run("retry", "--dead", "--destination", "ward", "--reason", "undelivered")) == "5 back in the queue"
    )
    assert site.open_at("ward") == 15
    for words in (["retry"], ["retry", "1.2.1", "--dead"], ["retry", "--dead", "--reason", "undeliverd"]):
        assert site.run(*words).exit_code == 2
    assert "did you mean 'undelivered'?" in site.run("retry", "--dead", "--reason", "undeliverd").output


def test_a_result_that_two_images_share_takes_both_back(tmp_path: Path) -> None:
    site = Site(tmp_path, PACS)
    site.judged(1)
    with site.ledger() as ledger:  # the same radiograph in another transfer syntax: another instance, the same results
        origin = Origin(calling_ae_title="MODALITY", peer_host="h", received_at=datetime.now(UTC))
        assert ledger.add(ledgers.reference(1), origin, "f" * 64, 5)
        job = ledger.claim_instance("me", 60.0)
        assert job is not None
        stored = [row.sop_instance_uid for row in queries.trace(ledger, "#1")[0].deliveries]
        known = [one for one in ledgers.results() if one]
        same = [
            type(one)(**{name: getattr(one, name) for name in one.__slots__} | {"sop_instance_uid": uid})
            for one, uid in zip(known, stored, strict=True)
        ]
        assert ledger.settle_reported(job, ledgers.finding(), same, ledgers.wishes(pacs=()))
    site.refuse("pacs")
    assert site.states() == ["DEAD", "DEAD"]
    assert site.run("retry", "#1").exit_code == 0
    assert site.states() == ["REPORTED", "REPORTED"]
    site.accept("pacs")
    assert site.states() == ["DELIVERED", "DELIVERED"]


# --- forget ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("started", [False, True])
def test_forget_settles_what_a_removed_destination_left(tmp_path: Path, *, started: bool) -> None:
    site = Site(tmp_path, PACS, WARD)
    site.judged(1, 2, 3)
    with site.ledger() as ledger:  # one result reached it while it was there
        job = ledger.claim_delivery("ward", "me", 60.0)
        assert job is not None
        assert ledger.settle_delivered(job, 0x0000)
    site.accept("pacs")
    assert site.run("forget", "--destination", "ward").exit_code == 2, "it is configured"
    site.configured(PACS)
    if started:
        with site.ledger() as ledger:
            removed_destinations.settle(ledger, ["pacs"])
        assert site.states() == ["DEAD"] * 3
    shown = site.run("forget", "--destination", "ward")
    assert (shown.exit_code, flat(shown)) == (
        0,
        "8 deliveries to ward forgotten, 3 images are DELIVERED now",
    )
    assert site.states() == ["DELIVERED"] * 3
    (seen,) = site.json("status")
    assert list(seen["destinations"]) == ["pacs"]
    assert "ward" not in site.run("status").output
    told = [event["what"] for event in site.json("trace", "1.2.2")[0]["events"]]
    assert told.count("delivery-forgotten") == 3
    assert site.run("forget", "--destination", "ward").exit_code == 0
    assert "nothing was ever due" in flat(site.run("forget", "--destination", "wrad"))


def test_forget_leaves_what_another_destination_refused_dead_and_what_is_in_hand(tmp_path: Path) -> None:
    site = Site(tmp_path, PACS, WARD)
    site.judged(1)
    site.refuse("pacs")
    site.configured(PACS)
    with site.ledger() as ledger:
        assert ledger.claim_delivery("ward", "a process", 60.0) is not None
    shown = site.run("forget", "--destination", "ward")
    assert shown.exit_code == 1
    assert "1 deliveries are in hand" in flat(shown)
    with site.ledger() as ledger, ledger.database.writing() as connection:
        connection.execute(sa.update(deliveries).values(lease_owner=None, lease_until=None))
    assert site.run("forget", "--destination", "ward").exit_code == 0
    assert workplace.states(site.settings) == [("DEAD", "undelivered")]


# --- status, trace, now ----------------------------------------------------------------------------------------------


def test_status_tells_which_roles_run_and_fails_on_what_was_asked(tmp_path: Path) -> None:
    site = Site(tmp_path, PACS)
    site.judged(1)
    stopped = site.run("status", "--fail-on", "stopped")
    assert stopped.exit_code == 1
    assert stopped.output.splitlines()[0] == "FAIL stopped: receive, work, deliver do not run"
    with Presence(site.spool, "receive") as one, Presence(site.spool, "work") as two:
        one.ready()
        two.ready()
        assert "FAIL stopped: deliver does not run" in site.run("status", "--fail-on", "stopped").output
        with Presence(site.spool, "deliver") as three:
            three.ready()
            assert site.run("status", "--fail-on", "stopped,dead,down,waiting>15m").exit_code == 0
            (seen,) = site.json("status")
            assert all(role["running"] and role["since"] for role in seen["roles"].values())
    waiting = site.run("status", "--fail-on", "waiting")
    assert waiting.exit_code == 1
    assert "3 results for pacs, the oldest (delivery=1) for " in waiting.output
    site.refuse("pacs")
    dead = RUNNER.invoke(app, ["status", "--json", "--fail-on", "dead", "-c", str(site.file)])
    assert dead.exit_code == 1
    assert json.loads(dead.stdout)["failed"] == [
        "dead: 1 images are DEAD (cxr-node list --state DEAD)",
        "dead: pacs has not taken 3 objects (cxr-node list --destination pacs --state DEAD)",
    ]
    assert site.run("status").exit_code == 0


def test_what_one_of_two_destinations_refused_is_dead_and_so_is_a_note(tmp_path: Path) -> None:
    """No image of them is DEAD: one is on its way to the other destination, one was rejected."""
    site = Site(tmp_path, PACS, WARD)
    site.judged(1)
    workplace.receive(site.settings, 2, content=b"a hand")
    site.judged()
    site.refuse("ward")
    with site.ledger() as ledger, ledger.database.writing() as connection:
        image = sa.select(instances.c.id).where(instances.c.state == InstanceState.REJECTED).scalar_subquery()
        note = {"kind": "note", "sop_class_uid": "1.2", "sop_instance_uid": "1.3", "size_bytes": 1}
        note["content_sha256"] = "0" * 64
        row = connection.execute(sa.insert(artifacts).returning(artifacts.c.id), note).scalar_one()
        connection.execute(sa.insert(instance_artifacts).values(instance_id=image, artifact_id=row))
        at = datetime.now(UTC)
        died = {"artifact_id": row, "destination": "pacs", "state": "DEAD", "not_before": at, "first_due_at": at}
        connection.execute(sa.insert(deliveries), died)
    assert site.states() == ["REPORTED", "REJECTED"]
    shown = site.run("status", "--fail-on", "dead")
    assert shown.exit_code == 1
    assert shown.output.splitlines()[:2] == [
        "FAIL dead: pacs has not taken 1 objects (cxr-node list --destination pacs --state DEAD)",
        "FAIL dead: ward has not taken 3 objects (cxr-node list --destination ward --state DEAD)",
    ]
    assert len(site.json("list", "--destination", "pacs", "--state", "DEAD")) == 1
    with site.ledger() as ledger, ledger.database.writing() as connection:
        connection.execute(sa.update(instances).values(purged_at=at))
    assert site.run("status", "--fail-on", "dead").exit_code == 0, "nothing is left to be retried"


@pytest.mark.parametrize(
    "text", ["", "ded", "dead>1h", "waiting>", "waiting>15", "waiting<15m", "dead;stopped", "dead,"]
)
def test_a_word_that_is_no_alarm_is_refused(week: Site, text: str) -> None:
    shown = week.run("status", "--fail-on", text)
    assert shown.exit_code == 2
    assert "--fail-on: " in shown.output


def test_a_destination_that_is_down_is_seen_from_outside_and_tried_at_once(tmp_path: Path) -> None:
    """An outage: who waits and why, and `now` when it is over, without waiting for the next try."""
    nobody = peers.nobody()
    there = {"name": "pacs", "address": str(nobody), "report_per": "image", "timeout_s": 2.0}
    site = Site(tmp_path, there)
    slow = workplace.config(
        site.spool, destinations=[there], delivery={"first_delay_s": 3000, "max_delay_s": 3600, "max_age_h": 72}
    )
    site.judged(1, 2)
    with Presence(site.spool, "deliver") as present, delivering(slow):
        present.ready()

        def is_down() -> bool:
            with site.ledger() as ledger:
                return bool(destination_health.look(ledger).get("pacs"))

        assert workplace.eventually(is_down)
        (seen,) = site.json("status")
        assert seen["health"]["pacs"]["down_since"] is not None
        assert seen["health"]["pacs"]["next_try_at"] > seen["health"]["pacs"]["down_since"]
        text = flat(site.run("status", "--fail-on", "down"))
        assert text.startswith("FAIL down: pacs has not answered for ")
        assert f"pacs ({nobody}) has been down since " in text
        assert ", next try " in text
        told = [
            row["why"]
            for story in site.json("trace", "1.2.1") + site.json("trace", "1.2.2")
            for row in story["deliveries"]
        ]
        assert len(told) == 6
        assert all(why.startswith("pacs has been down since ") and "next try at" in why for why in told)
        assert sum("trying again at" in why for why in told) == 1, "the one that knocks"
        assert any("before it: 5 waiting" in why for why in told)
        archive = peers.Archive()
        with peers.listening(archive, port=nobody.port, ae_title="NOBODY"):
            shown = site.run("now", "pacs")
            assert (shown.exit_code, flat(shown)) == (0, "pacs: 6 objects are due now")
            assert workplace.eventually(lambda: site.states() == ["DELIVERED"] * 2, 60.0)
    (seen,) = site.json("status")
    assert seen["health"]["pacs"]["down_since"] is None
    assert seen["health"]["pacs"]["last_success_at"] is not None
    assert "nothing waits for pacs" in site.run("now", "pacs").output
    assert site.run("now", "pasc").exit_code == 2


def test_trace_says_of_each_that_waits_why(tmp_path: Path) -> None:
    site = Site(tmp_path, PACS, WARD)
    workplace.receive(site.settings, 1, 2)
    (story,) = site.json("trace", "1.2.2")
    assert story["instance"]["why"] == "work does not run; before it: 1 waiting"
    with Presence(site.spool, "work") as present, Presence(site.spool, "deliver") as sender:
        present.ready()
        sender.ready()
        assert site.json("trace", "1.2.1")[0]["instance"]["why"] == "it is the next"
        with site.ledger() as ledger:
            assert ledger.claim_instance("me", 60.0) is not None
        assert site.json("trace", "1.2.1")[0]["instance"]["why"] == "it is being judged now"
        assert site.json("trace", "1.2.2")[0]["instance"]["why"] == "before it: 1 waiting"
        site.judged(3)
        with site.ledger() as ledger:
            assert ledger.claim_delivery("pacs", "me", 60.0) is not None
        why = {(row["destination"], row["id"]): row["why"] for row in site.json("trace", "1.2.2")[0]["deliveries"]}
        assert [text for (name, _), text in why.items() if name == "pacs"] == [
            "it is being sent now",
            "another image of this destination is being tried; before it: 1 waiting",
            "another image of this destination is being tried; before it: 2 waiting",
        ]
        site.configured(PACS)
        stray = [row["why"] for row in site.json("trace", "1.2.3")[0]["deliveries"] if row["destination"] == "ward"]
        assert stray == ["ward is not configured; `cxr-node forget --destination ward` settles it"] * 3


def test_a_pipe_gets_whole_lines_and_a_narrow_terminal_whole_uids(tmp_path: Path) -> None:
    site = Site(tmp_path, PACS)
    long = "1.2.826.0.1.3680043.8.498.47933337123463873509020426302861234567"
    assert len(long) == 64
    with site.ledger() as ledger:
        origin = Origin(calling_ae_title="[red]MODALITY_12", peer_host="10.0.0.7", received_at=datetime.now(UTC))
        ref = ledgers.reference(1, sop_instance_uid=long, study_instance_uid=long, station_name="ROOM 12 CHEST XR")
        assert ledger.add(ref, origin, "a" * 64, 5)
    for words in (["status"], ["list"], ["trace", long]):
        lines = site.run(*words).stdout.splitlines()
        assert any(long in line for line in lines), words
        assert not any("…" in line for line in lines)
    (line,) = (line for line in site.run("list").stdout.splitlines() if long in line)
    assert "[red]MODALITY_12" in line
    assert "ROOM 12 CHEST XR" in line
    for width in (60, 80, 100):
        from rich.console import Console

        from cxr_node.cli import ledger_tables

        console = Console(width=width, record=True)
        with site.ledger() as ledger, console.capture() as capture:
            console.print(ledger_tables.Listing(queries.recent(ledger, 1), {}))
        assert long in "".join(capture.get().split()), "folded at the most"
        assert (width < 72) or any(long in line for line in capture.get().splitlines())


# --- list, counts ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Two senders, two stations, all verdicts and reasons; the newest has the highest number."""
    rows = [
        ("ROUTER", "XR1", 9.0, InstanceState.DELIVERED, Verdict.POSITIVE, None, None),
        ("ROUTER", "XR2", 8.0, InstanceState.DELIVERED, Verdict.INDETERMINATE, None, AbstainReason.VIEWS_DISAGREE),
        ("ROUTER", "XR1", 3.0, InstanceState.REJECTED, Verdict.REJECTED, Reason.NOT_CHEST, None),
        ("OTHER", None, 2.0, InstanceState.DEAD, Verdict.NEGATIVE, DeadReason.UNDELIVERED, None),
        ("ROUTER", "XR2", 1.0, InstanceState.RECEIVED, None, None, None),
    ]
    site, now = Site(tmp_path_factory.mktemp("week"), PACS), datetime.now(UTC)
    with site.ledger() as ledger:
        for number, (sender, station, days, *_) in enumerate(rows, 1):
            at = now - timedelta(days=days)
            origin = Origin(calling_ae_title=sender, peer_host="h", received_at=at)
            assert ledger.add(ledgers.reference(number, station_name=station), origin, ledgers.digest(number), 5)
        with ledger.database.writing() as connection:
            for number, (_, _, _, state, verdict, reason, abstained) in enumerate(rows, 1):
                values = {"state": state, "verdict": verdict, "reason": reason, "abstain_reason": abstained}
                connection.execute(sa.update(instances).where(instances.c.id == number).values(values))
    return site


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        ([], [5, 4, 3, 2, 1]),
        (["--limit", "2"], [5, 4]),
        (["--state", "dead"], [4]),
        (["--verdict", "UNCERTAIN"], [2]),
        (["--reason", "not-a-chest"], [3]),
        (["--reason", "views-disagree"], [2]),
        (["--reason", "undelivered"], [4]),
        (["--sender", "ROUTER"], [5, 3, 2, 1]),
        (["--station", "XR1"], [3, 1]),
        (["--sender", "ROUTER", "--since", "4d"], [5, 3]),
        (["--since", "8d12h"], None),
        (["--since", "204h", "--until", "60h"], [3, 2]),
        (["--state", "DELIVERED", "--until", "8.5d"], [1]),
        (["#4"], [4]),
        (["1.2.3"], [3]),
        (["--sender", "nobody"], []),
        (["--state", "DEADD"], None),
        (["--verdict", "maybe"], None),
        (["--reason", "because"], None),
        (["--destination", "nowhere"], None),
    ],
)
def test_list_finds_by_what_images_have_in_common(week: Site, words: list[str], numbers: list[int] | None) -> None:
    if numbers is None:
        shown = week.run("list", *words)
        assert shown.exit_code == 2
        assert "Traceback" not in shown.output
        return
    assert [row["id"] for row in week.json("list", *words)] == numbers
    assert week.run("list", *words).exit_code == 0


def test_list_by_destination_and_state_means_the_state_there(tmp_path: Path) -> None:
    site = Site(tmp_path, PACS, WARD)
    site.judged(1, 2, 3)
    with site.ledger() as ledger:
        while job := ledger.claim_delivery("ward", "me", 60.0):
            done = ledger.settle_delivered(job, 0) if job.claim.row_id <= 6 else None
            assert done or ledger.settle_delivery_dead(job, status=None, detail="refused")
    at = {
        words: [row["id"] for row in site.json("list", *words.split())]
        for words in (
            "--destination pacs",
            "--destination ward --state DEAD",
            "--destination pacs --state DEAD",
            "--destination pacs --state REPORTED",
        )
    }
    assert at == {
        "--destination pacs": [3, 2, 1],
        "--destination ward --state DEAD": [3, 2],
        "--destination pacs --state DEAD": [],
        "--destination pacs --state REPORTED": [3, 2, 1],
    }


def test_counts_by_each_word_and_by_two(week: Site) -> None:
    def counted(*words: str) -> dict[Any, int]:
        names = words[1].split(",")
        return {tuple(row[name] for name in names): row["images"] for row in week.json("counts", *words)}

    assert counted("--by", "sender") == {("OTHER",): 1, ("ROUTER",): 4}
    assert counted("--by", "station") == {(None,): 1, ("XR1",): 2, ("XR2",): 2}
    assert counted("--by", "verdict")[("UNCERTAIN",)] == 1
    assert counted("--by", "reason") == {(None,): 2, ("not-a-chest",): 1, ("undelivered",): 1, ("views-disagree",): 1}
    assert counted("--by", "sender,station", "--since", "5d") == {
        ("OTHER", None): 1,
        ("ROUTER", "XR1"): 1,
        ("ROUTER", "XR2"): 1,
    }
    days = [row["day"] for row in week.json("counts")]
    assert days == sorted(days, reverse=True)
    assert len(days) == 5
    by_station = {row["station"]: row for row in week.json("counts", "--by", "station", "--since", "60h")}
    assert by_station["XR1"]["images"] == 0, "it sent nothing lately, and is told of"
    assert by_station["XR1"]["last_received_at"] is not None
    assert by_station["XR2"]["waiting"] == 1
    (seen,) = week.json("status")
    assert list(seen["last_received"]["station"]) == ["XR2", "XR1"]
    assert list(seen["last_received"]["sender"]) == ["ROUTER", "OTHER"]
    assert week.run("counts", "--by", "weekday").exit_code == 2
    assert "last received" in week.run("counts", "--by", "sender").output
