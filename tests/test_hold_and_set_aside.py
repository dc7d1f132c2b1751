"""hold, release and set-aside as an operator types them: what is said, what stands in the audit trail, how they end."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxr_node.node.audit.recorder import account
from tests.node import audit_schema, workplace
from tests.test_ledger import PACS, WARD, Site, flat


@pytest.fixture
def site(tmp_path: Path) -> Site:
    one = Site(tmp_path, PACS, WARD)
    one.judged(1)
    return one


def trail(site: Site, command: str) -> list[bytes]:
    """Messages of a command."""
    segments = sorted((site.spool / "audit").glob(f"*-{command}-*.log"))
    lines = [line for segment in segments for line in segment.read_bytes().splitlines()]
    messages = [line[line.index(b"<AuditMessage") :] for line in lines]
    assert [audit_schema.faults(message) for message in messages] == [[]] * len(messages)
    return messages


def test_a_held_destination_is_shown_and_is_no_alarm(site: Site) -> None:
    assert site.run("status", "--fail-on", "waiting").exit_code == 1
    shown = site.run("hold", "destination=pacs", "--reason", "maintenance")
    assert (shown.exit_code, f"by {account()}" in flat(shown)) == (0, True), shown.output
    assert site.run("hold", "pacs").exit_code == 0, "it is held already"
    site.run("hold", "ward")
    (seen,) = site.json("status")
    held = seen["health"]["pacs"]["held"]
    assert (held["by"], held["reason"]) == (account(), "maintenance")
    assert seen["health"]["pacs"]["deliveries"]["READY"] == 3
    assert f"by {account()} (maintenance)" in flat(site.run("status"))
    assert site.run("status", "--fail-on", "waiting").exit_code == 0
    assert "pacs is held since" in flat(site.run("trace", "1"))

    shown = site.run("now", "pacs")
    assert (shown.exit_code, "pacs: is held" in flat(shown)) == (2, True)
    shown = site.run("release", "pacs")
    assert (shown.exit_code, flat(shown)) == (0, "pacs is released: 3 objects are due now")
    assert site.run("status", "--fail-on", "waiting").exit_code == 1
    told = [*trail(site, "hold"), *trail(site, "release")]
    assert len(told) == 4
    for message in told:
        assert b"110132" in message
        assert f'UserID="{account()}"'.encode() in message


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("hold", "pasc"), "pasc: no destination of this name is configured; there are: pacs, ward"),
        (("hold", "pacs", "--reason", "Mr Smith"), "--reason: there is no 'Mr Smith'; write maintenance, migration"),
        (("release", "pasc"), "there are: pacs, ward"),
        (("release", "pacs"), "pacs: is not held; held are: none"),
        (("set-aside", "1"), "say why: --reason duplicate, wrong-patient"),
        (("set-aside", "1", "--reason", "wrong-patent"), "there is no 'wrong-patent'; did you mean 'wrong-patient'?"),
        (("set-aside", "7", "--reason", "duplicate"), "7: the ledger knows no such UID"),
        (("set-aside", "1", "--reason", "duplicate", "--destination", "x"), "x: no destination of this name"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_exit_2(site: Site, words: tuple[str, ...], said: str) -> None:
    shown = site.run(*words)
    assert (shown.exit_code, said in flat(shown)) == (2, True), shown.output
    assert "Traceback" not in shown.output


def test_a_hold_of_a_removed_destination_can_be_ended(site: Site) -> None:
    site.run("hold", "ward")
    site.configured(PACS)
    assert site.run("hold", "ward").exit_code == 2
    assert site.run("release", "ward").exit_code == 0


def test_what_is_dead_is_set_aside_with_reason_and_person_and_comes_back(site: Site) -> None:
    site.refuse("pacs")
    site.accept("ward")
    assert site.run("status", "--fail-on", "dead").exit_code == 1
    assert site.run("list", "--set-aside").output.strip() == "none"
    shown = site.run("set-aside", "1", "--reason", "wrong-patient")
    assert (shown.exit_code, flat(shown)) == (0, "1 images, 3 deliveries set aside: wrong-patient")
    assert site.run("status", "--fail-on", "dead").exit_code == 0
    assert site.json("status")[0]["instances"]["SET_ASIDE"] == 1
    (row,) = site.json("list", "--set-aside")
    assert (row["state"], row["reason"]) == ("SET_ASIDE", "wrong-patient")
    assert site.json("list", "--state", "set_aside", "--reason", "wrong-patient") == [row]
    assert f"set aside: wrong-patient, by {account()}, " in flat(site.run("trace", "1"))
    assert f"wrong-patient, by {account()}, " in flat(site.run("list"))
    (message,) = trail(site, "set-aside")
    assert b"set aside: wrong-patient" in message
    assert site.run("set-aside", "1", "--reason", "duplicate").exit_code == 2

    assert flat(site.run("retry", "--dead")) == "0 back in the queue"
    assert flat(site.run("retry", "1")) == "1 back in the queue"
    assert (site.states(), site.open_at("pacs"), site.open_at("ward")) == (["REPORTED"], 3, 0)


def test_one_destination_is_left_out(site: Site) -> None:
    shown = site.run("set-aside", "1", "--reason", "sent-otherwise", "--destination", "ward")
    assert (shown.exit_code, site.open_at("pacs"), site.open_at("ward")) == (0, 3, 0), shown.output
    assert [row["state"] for row in site.json("list", "--set-aside")] == ["REPORTED"]
    site.accept("pacs")
    assert site.states() == ["SET_ASIDE"]


def test_what_waits_to_be_judged_is_ended_and_what_is_in_hand_is_not(site: Site) -> None:
    workplace.receive(site.settings, 2)
    with site.ledger() as ledger:
        job = ledger.claim_instance("me", 60.0)
        assert job is not None
        shown = site.run("set-aside", "2", "--reason", "test-image")
        assert (shown.exit_code, "being judged or sent right now" in flat(shown)) == (1, True), shown.output
        assert ledger.release(job, delay_s=0.0, detail="given back")
    assert site.run("set-aside", "2", "--reason", "test-image").exit_code == 0
    assert site.states()[1] == "SET_ASIDE"


def test_what_is_in_shadow_is_shown_and_sent_by_one_command_and_one_message(tmp_path: Path) -> None:
    dark = PACS | {"release": "shadow"}
    site = Site(tmp_path, dark, WARD)
    site.judged(1, 2)
    site.accept("ward")
    (seen,) = site.json("status")
    assert (seen["instances"]["SHADOW"], seen["destinations"]["pacs"]["SHADOW"]) == (2, 6)
    assert "pacs (PACS@127.0.0.1:104) is in SHADOW: its results are kept and not sent; 6 objects kept" in flat(
        site.run("status")
    )
    assert site.run("status", "--fail-on", "dead,down,waiting,uncommitted").exit_code == 0
    assert "in SHADOW since" in flat(site.run("trace", "1"))
    assert "pacs: SHADOW; 6 objects kept" in flat(site.run("shadow"))
    assert [row["state"] for row in site.json("list", "--state", "shadow")] == ["SHADOW", "SHADOW"]
    assert site.run("retry", "1").exit_code == 2

    refused = site.run("shadow", "send")
    assert (refused.exit_code, "Send 6 objects for pacs?" in flat(refused)) == (1, True), "it asks"
    shown = site.run("shadow", "send", "1", "--yes")
    assert (shown.exit_code, flat(shown)) == (0, "3 objects are due at pacs now")
    assert site.open_at("pacs") == 3
    assert site.run("shadow", "send", "1", "--yes").exit_code == 2, "nothing of it is in shadow any more"
    shown = site.run("shadow", "expire", "--destination", "pacs", "--yes")
    assert flat(shown) == "3 objects for pacs are expired"
    assert "shadow, expired: by" in flat(site.run("trace", "2"))
    told = trail(site, "shadow")
    assert [b"results in shadow are sent: 3 objects for pacs, of one key" in told[0], len(told)] == [True, 2]
    assert b"results in shadow are expired: 3 objects for pacs" in told[1]
