"""The API against its own description: schemathesis asks what the OpenAPI document allows, and what it does not."""

from __future__ import annotations

import contextlib
from pathlib import Path

import hypothesis
import pytest
import schemathesis
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import content_type_conformance, not_a_server_error, response_schema_conformance

from cxr_node.web.identity.users import Scope
from tests.patience import NODE_S
from tests.web.asking import LATERAL, post
from tests.web.site import opened

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance]
FAR_FROM_HERE = "^/(health/(ready|node)|metrics)"
"""The first are 503 here, for nothing else runs; the other is no JSON."""


@pytest.mark.parametrize("examples", [8, pytest.param(200, marks=pytest.mark.chaos)])
def test_no_request_ends_in_a_server_error(tmp_path: Path, caplog: pytest.LogCaptureFixture, examples: int) -> None:
    asked = 0
    with opened(tmp_path, web={"try": {"per_minute": 1_000_000}}) as site:
        headers = {"Authorization": f"Bearer {site.key(Scope.PREDICT, Scope.STATS)}"}
        assert post(site.visitor(), LATERAL, headers=headers).status_code == 200
        schema = schemathesis.openapi.from_url(f"{site.address}/api/v1/openapi.json")

        def ask(case: schemathesis.Case) -> None:
            nonlocal asked
            asked += 1
            case.call_and_validate(headers=headers, timeout=NODE_S, checks=CHECKS)

        for result in schema.exclude(path_regex=FAR_FROM_HERE).get_all_operations():
            for mode in schemathesis.GenerationMode:
                given = hypothesis.given(result.ok().as_strategy(generation_mode=mode))
                settings = hypothesis.settings(
                    max_examples=examples, database=None, suppress_health_check=list(hypothesis.HealthCheck)
                )
                with contextlib.suppress(Unsatisfiable):  # what takes nothing cannot be asked wrongly
                    settings(given(ask))()
    assert asked >= 4 * examples
    assert "a request failed" not in caplog.text
