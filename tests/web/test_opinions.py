"""A reader's word on a study: who may say it, what is kept of it, and who sees it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cxr_node.node.ledger import readings
from cxr_node.web.identity.users import Role
from tests.web import pages, rows
from tests.web.site import Site, Visitor

PASSWORD = "a long enough password"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with rows.opened(tmp_path_factory.mktemp("opinions")) as found:
        for name in ("rita", "rolf"):
            found.users.add(name, Role.READER, PASSWORD)
        yield found


def reader(page: Site, name: str = "rita") -> Visitor:
    visitor = page.visitor()
    assert visitor.log_in(name, PASSWORD).status_code == 303
    return visitor


def test_a_reader_says_whether_an_answer_is_right_and_may_say_otherwise_later(page: Site) -> None:
    rita = reader(page)
    shown = rita.submit("/study", key="#7").text
    assert "Agree: pneumonia" in shown and "Disagree: no pneumonia" in shown and "You said" not in shown
    answer = rita.submit("/study/say", of="7", number=["7"], said="present")
    assert not pages.faults(answer.text)
    assert "your word on its study is kept: present." in answer.text and "You said: present." in answer.text
    again = rita.submit("/study/say", of="7", number=["7"], said="absent")
    assert "in place of what you said before: absent." in again.text
    other = reader(page, "rolf").submit("/study", key="#7").text
    assert "You said" not in other and "page (rita)" in other and "absent" not in pages.texts(other), (
        "nor what others said"
    )
    kept = readings.said_of(page.ledger, ["1.2.7"])["1.2.7"]
    assert [(each.source, each.reader, each.said) for each in kept] == [("page", "rita", "absent")]
    assert "says of the study of image #7: absent" in page.audited()


def test_where_there_is_no_answer_a_reader_says_what_there_is(page: Site) -> None:
    shown = reader(page).submit("/study", key="#5").text
    assert "There is pneumonia" in shown and "There is no pneumonia" in shown and "Agree" not in shown


def test_of_what_was_not_analysed_nobody_is_asked(page: Site) -> None:
    assert "/study/say" not in reader(page).submit("/study", key="#4").text


def test_only_a_reader_is_asked_and_heard(page: Site) -> None:
    for visitor in (page.viewer(), page.operator()):
        assert "/study/say" not in visitor.submit("/study", key="#1").text
        answer = visitor.submit("/study/say", of="1", number=["1"], said="present")
        assert answer.status_code == 403 and "role reader" in answer.text
    assert not readings.said_of(page.ledger, ["1.2.1"])


def test_a_reader_changes_nothing_else_and_another_page_nothing_at_all(page: Site) -> None:
    rita = reader(page)
    assert rita.submit("/study/act", of="2", number=["2"], what="retry").status_code == 403
    assert rita.post("/study/say", data={"of": "1", "number": "1", "said": "present"}).status_code == 403
    elsewhere = {"origin": "http://elsewhere"}
    assert rita.submit("/study/say", headers=elsewhere, of="1", number=["1"], said="present").status_code == 403
    assert rita.submit("/study/say", of="1", number=["1"], said="maybe").status_code == 422
    assert not readings.said_of(page.ledger, ["1.2.1"])
