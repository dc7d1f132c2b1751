"""Today: what an operator sees first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.web import site
from tests.web.site import Site


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site.opened(tmp_path_factory.mktemp("today")) as found:
        yield found


def test_whoever_is_not_known_is_asked_to_log_in(page: Site) -> None:
    answer = page.visitor().get("/")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login"


def test_a_viewer_sees_the_queue_and_no_button(page: Site) -> None:
    answer = page.viewer().get("/")
    assert answer.status_code == 200
    assert "<h1>Today</h1>" in answer.text
    assert 'formaction="/queue' not in answer.text


def test_the_part_that_refreshes_is_no_whole_page(page: Site) -> None:
    answer = page.viewer().get("/", headers={"hx-request": "true"})
    assert "<html" not in answer.text
    assert "Images" in answer.text


def test_without_users_this_machine_is_the_operator(tmp_path: Path) -> None:
    with site.opened(tmp_path, users=False) as found:
        assert found.visitor().get("/").status_code == 200
