"""Queue and Today: what operators do there, who may, what the trail has of it, and pages of a long list."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cxr_node.node.ledger import holds, queries
from cxr_node.node.ledger.states import InstanceState
from cxr_node.node.process import notify
from cxr_node.node.process.notify import Wakeup
from cxr_node.web.pages import acts
from tests.web import pages, rows
from tests.web.site import Site, Visitor

_SHOWN = re.compile(r'aria-label="Image #(\d+)"')


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Site]:
    with rows.opened(tmp_path) as found:
        yield found


def state(page: Site, number: int) -> InstanceState:
    (story,) = queries.trace(page.ledger, f"instance={number}")
    return story.instance.state


def said(text: str) -> str:
    found = re.search(r'id="said"[^>]*>([^<]*)<', text)
    return found[1] if found is not None else ""


def test_a_selection_is_tried_again_and_the_trail_says_who_did(page: Site) -> None:
    with closing(Wakeup(page.spool, notify.Role.WORK)) as worker:
        answer = page.operator().submit("/queue?stage=dead", what="retry", number=["2", "3"])
        assert worker.wait(30.0), "the worker is woken"
    assert answer.status_code == 200
    assert said(answer.text) == "2 back in the queue."
    assert "Dead: 0 images" in pages.texts(answer.text), "the list is that of now"
    assert (state(page, 2), state(page, 3)) == (InstanceState.RECEIVED, InstanceState.REPORTED)
    (story,) = queries.trace(page.ledger, "instance=2")
    assert story.events[-1].detail.startswith("by olga")
    assert "another try for 2 images (#2, #3)" in page.audited()
    assert 'UserID="olga"' in page.audited()


def test_all_of_one_reason_are_tried_again_and_no_other(page: Site) -> None:
    answer = page.operator().submit("/queue?stage=dead", what="retry-all", of_reason="fault")
    assert said(answer.text) == "1 back in the queue."
    assert (state(page, 2), state(page, 3)) == (InstanceState.RECEIVED, InstanceState.DEAD)


def test_everything_on_the_page_is_set_aside_for_a_reason_and_taken_back(page: Site) -> None:
    operator = page.operator()
    assert "reason" in said(operator.submit("/queue?stage=dead", what="set-aside", number=["2"]).text)
    wish = {"what": "set-aside", "reason": "test-image", "every": "true", "shown": ["2", "3"]}
    assert said(operator.submit("/queue?stage=dead", **wish).text) == "2 images set aside: test-image."
    assert state(page, 2) is InstanceState.SET_ASIDE
    answer = operator.submit("/queue?stage=set-aside", what="retry", number=["2", "3", "6"])
    assert said(answer.text) == "3 back in the queue."


def test_nothing_ticked_and_an_unknown_reason_change_nothing(page: Site) -> None:
    operator = page.operator()
    assert "Nothing is ticked" in said(operator.submit("/queue?stage=dead", what="retry").text)
    assert operator.submit("/queue", what="set-aside", number=["2"], reason="Mr Smith").status_code == 422
    assert operator.submit("/queue", what="erase", number=["2"]).status_code == 422
    assert operator.submit("/queue", what="retry", number=["0"]).status_code == 422
    assert operator.submit("/queue", what="retry", number=[str(2**70)]).status_code == 422
    assert operator.submit("/queue", what="retry", number=["99999"]).status_code == 200
    assert state(page, 2) is InstanceState.DEAD


def test_what_waits_for_its_study_has_a_list_of_its_own(page: Site) -> None:
    operator = page.operator()
    shown = operator.get("/queue?stage=for-study").text
    assert not pages.faults(shown)
    words = pages.texts(shown)
    assert "Waiting for its study: 1 image" in words
    assert re.search(r"#10 .* waits for its study, ripe at [-\d: ]+ UTC", words)
    assert "#10" not in operator.get("/queue?stage=to-deliver").text
    today = pages.texts(operator.get("/").text)
    assert "WAITING 1 the oldest for" in today and "Reports made today (UTC) 1" in today


@pytest.mark.parametrize("address", ["/", "/queue?stage=dead"])
def test_a_destination_is_held_and_released(page: Site, address: str) -> None:
    operator = page.operator()
    answer = operator.submit(address, what="hold", destination="pacs", hold_reason="")
    assert said(answer.text).startswith("Held by olga: what is for pacs")
    assert set(holds.look(page.ledger)) >= {"pacs"}
    assert "holds pacs" in page.audited()
    with closing(Wakeup(page.spool, notify.Role.DELIVER)) as courier:
        answer = operator.submit(address, what="release", destination="pacs")
        assert courier.wait(30.0)
    assert said(answer.text) == "Released: 6 objects are due at pacs now."
    assert "pacs" not in holds.look(page.ledger)
    assert operator.submit(address, what="release", destination="<gone> &'\"").status_code == 200, "it may be let go"
    assert operator.submit(address, what="hold", destination="Mustermann").status_code == 400
    assert "Mustermann" not in page.audited()


def test_a_viewer_has_no_buttons_and_gets_403(page: Site) -> None:
    viewer = page.viewer()
    for address in ("/", "/queue?stage=dead"):
        text = viewer.get(address).text
        assert 'name="what"' not in text
        assert 'type="checkbox"' not in text
        assert "is held since" in text or address == "/"
    for address, wish in (
        ("/queue", {"what": "retry", "number": ["2"]}),
        ("/", {"what": "hold", "destination": "pacs"}),
    ):
        assert viewer.submit(address, **wish).status_code == 403
        assert page.operator().post(address, data=wish).status_code == 403, "without Origin and token"
    assert page.operator().submit("/queue", headers={"origin": "http://elsewhere"}, what="retry").status_code == 403
    assert (state(page, 2), "pacs" in holds.look(page.ledger)) == (InstanceState.DEAD, False)


def test_what_cannot_be_recorded_is_not_done(page: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise acts.DataError("the trail cannot be written")

    operator = page.operator()
    monkeypatch.setattr(acts.Operator, "_audit", full)
    for wish in ({"what": "retry", "number": ["2"]}, {"what": "retry-all"}, {"what": "hold", "destination": "pacs"}):
        assert operator.submit("/queue", **wish).status_code == 400
    assert operator.submit("/queue", what="set-aside", number=["2"], reason="duplicate").status_code == 400
    assert (state(page, 2), "pacs" in holds.look(page.ledger)) == (InstanceState.DEAD, False)


def test_a_long_list_is_walked_there_and_back(page: Site) -> None:
    for number in range(1000, 1120):
        rows.receive(page.ledger, number)
    viewer, operator = page.viewer(), page.operator()
    first = operator.get("/queue?stage=waiting").text
    seen, text = [numbers(first)], first
    while (address := link(text, "Next")) is not None:
        text = operator.get(address).text
        seen.append(numbers(text))
    everything = [number for some in seen for number in some]
    assert everything == sorted(set(everything)), "the oldest first, none twice"
    assert len(everything) == 120 + len(rows.ODD) + 1
    assert numbers(operator.get(link(text, "Previous") or "").text) == seen[-2]
    assert link(text, "First") == "/queue?stage=waiting"
    assert link(viewer.get("/queue?stage=waiting").text, "First") is None


def test_filters_narrow_the_list_and_stand_in_the_address(page: Site) -> None:
    operator = page.operator()
    assert len(numbers(operator.get("/queue?stage=waiting&sender=WWWWWWWWWWWWWWWW").text)) == 1
    assert numbers(operator.get("/queue?stage=dead&reason=undelivered").text) == [3]
    assert numbers(operator.get("/queue?stage=dead&destination=second").text) == []
    assert numbers(operator.get("/queue?stage=dead&until=2001-01-01").text) == []
    assert sorted(numbers(operator.get("/queue?stage=dead&reason=&sender=&since=2001-01-01").text)) == [2, 3]


def numbers(text: str) -> list[int]:
    return [int(found) for found in _SHOWN.findall(text)]


def link(text: str, name: str) -> str | None:
    found = re.search(rf'<a class="button" href="([^"]+)">{name}</a>', text)
    return found[1].replace("&amp;", "&") if found is not None else None


def test_today_names_what_needs_a_person(page: Site) -> None:
    words = pages.texts(page.viewer().get("/").text)
    for expected in (
        "Destination down pacs",
        "failing for",
        "held since",
        "MiB free",
        "is reported from",
        "does not run",
    ):
        assert expected in words
    part = Visitor.get(page.viewer(), "/", headers={"hx-request": "true"}).text
    assert not pages.faults(part)
    assert "<form" not in part, "what somebody fills in is not exchanged below their hands"
    focusable = re.findall(r"<(?:a|button|input|select)\b[^>]*>", part)
    assert focusable
    assert all(" id=" in each for each in focusable), "htmx finds the focus again by its id"
