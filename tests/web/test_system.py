"""System: profiles, software, the machine, users, and the audit trail in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.web import site
from tests.web.site import Site


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site.opened(tmp_path_factory.mktemp("system")) as found:
        yield found


def test_profiles_versions_and_users_are_named(page: Site) -> None:
    seen = page.viewer().get("/system").text
    assert "pneumonia-pediatric" in seen
    assert "is reported from" in seen
    assert "pydicom" in seen
    assert "vito" in seen
    assert site.PASSWORDS["vito"] not in seen
    assert "argon2id" not in seen


def test_the_model_card_is_a_link_by_number(page: Site) -> None:
    visitor = page.viewer()
    assert 'href="/system/card/0"' in visitor.get("/system").text
    assert "<pre" in visitor.get("/system/card/0").text
    assert visitor.get("/system/card/7").status_code == 404
    assert visitor.get("/system/licence").status_code == 200


def test_the_trail_says_who_logged_in_and_who_failed_to(page: Site) -> None:
    visitor = page.viewer()
    page.visitor().log_in("vito", "a wrong password")
    seen = visitor.get("/system").text
    assert "logged in" in seen
    assert "failed" in seen
    assert page.audited().count("110122") >= 2


def test_doctor_is_for_operators_and_measures(page: Site) -> None:
    assert page.viewer().submit("/system/doctor").status_code == 403
    answer = page.operator().submit("/system/doctor")
    assert answer.status_code == 200
    assert "decoders" in answer.text
    assert "clock" in answer.text


def test_a_session_counts_until_it_ends(tmp_path: Path) -> None:
    with site.opened(tmp_path) as found:
        one, other = found.viewer(), found.viewer()
        assert "2 open sessions" in one.get("/system").text
        other.submit("/logout")
        assert "1 open session." in one.get("/system").text


def test_the_conformance_statement_is_the_programs(page: Site) -> None:
    seen = page.viewer().get("/system/conformance").text
    assert "Digital X-Ray Image" in seen


def test_worklists_are_counted(page: Site, tmp_path: Path) -> None:
    assert 'id="worklists"' not in page.viewer().get("/system").text
    pulled = {"name": "orders", "address": "RIS@127.0.0.1:104", "workitem_code": "CXR-AI^99RIS^Chest AI"}
    pacs = {"name": "pacs", "address": "PACS@127.0.0.1:104"}
    with site.opened(tmp_path, worklists=[pulled], destinations=[pacs]) as found:
        seen = found.viewer().get("/system").text
    assert "RIS@127.0.0.1:104" in seen
    assert "none yet" in seen
