"""Every page shows every row, however odd: well-formed, escaped, without a patient, and without a change by looking."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cxr_node.node.ledger.stages import Stage
from tests.web import pages, rows
from tests.web.site import Site, Visitor

ADDRESSES = (
    "/",
    *(f"/queue?stage={stage.value}" for stage in Stage),
    "/queue?stage=dead&reason=fault",
    "/queue?stage=waiting&sender=%3Cb%3E%26%27%22&since=2020-01-01&until=2099-12-31",
    "/queue?stage=to-deliver&destination=pacs",
    "/study",
    "/quality",
    "/quality?days=7",
    "/system",
    "/system/card/0",
    "/no-such-page",
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with rows.opened(tmp_path_factory.mktemp("pages")) as found:
        yield found


@pytest.fixture(scope="module")
def operator(page: Site) -> Visitor:
    return page.operator()


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_page_with_odd_rows_is_well_formed_and_escaped(operator: Visitor, address: str) -> None:
    answer = operator.get(address)
    assert answer.status_code == (404 if "no-such" in address else 200)
    assert not pages.faults(answer.text)
    assert "49" not in pages.texts(answer.text).split(), "nothing that a peer wrote is evaluated"


@pytest.mark.parametrize("name", rows.ODD)
def test_a_study_with_odd_names_is_found_and_shown(page: Site, operator: Visitor, name: str) -> None:
    number = 100 + rows.ODD.index(name)
    answer = operator.submit("/study", key=f"1.2.{number}.1.1")
    assert answer.status_code == 200
    assert "RECEIVED" in answer.text
    assert not pages.faults(answer.text)


def test_the_story_of_every_image_is_shown(page: Site, operator: Visitor) -> None:
    for number in range(1, 10):
        answer = operator.submit("/study", key=f"1.2.{number}")
        assert answer.status_code == 200
        assert not pages.faults(answer.text)
        assert "Time line" in answer.text


@pytest.mark.parametrize("query", ["stage=nothing", "reason=Mustermann", "before=0", "since=yesterday", "after=9" * 9])
def test_an_address_asks_for_what_there_is(operator: Visitor, query: str) -> None:
    answer = operator.get(f"/queue?{query}")
    assert answer.status_code == 422
    assert "Mustermann" not in answer.text
    assert not pages.faults(answer.text)
