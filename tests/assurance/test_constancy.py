"""The phantom goes the whole way of a running node, gets the expected answer, and disturbs nothing."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cxr_node import pipeline, wiring
from cxr_node.assurance import constancy, phantom_record
from cxr_node.assurance.phantom_record import Answer
from cxr_node.config import loader
from cxr_node.dicom.read import header
from cxr_node.domain import CONSTANCY_CALLER, Origin
from cxr_node.errors import DataError
from cxr_node.node.ledger import films, queries
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.states import InstanceState
from cxr_node.tools import send, trial_node
from cxr_node.tools.trial_node import Recorder
from cxr_node.web.monitoring.metrics import Exposition
from tests import builders
from tests.node import workplace
from tests.node.test_study_rebuild import opened


@pytest.mark.whole
def test_the_phantom_goes_through_a_running_node_and_nowhere_else(tmp_path: Path) -> None:
    with Recorder(tmp_path / "arrived", "PACS") as pacs:
        settings = {"destinations": [{"name": "pacs", "address": str(pacs.address)}], "study": {"quiet_s": 0.2}}
        with trial_node.node(tmp_path, settings, "MODALITY") as node:
            config = loader.load(node.folder / "node.yaml")
            profiles = wiring.profiles(config)
            first = constancy.check(config, node.ledger, profiles, 120.0)
            again = constancy.check(config, node.ledger, profiles, 120.0)
            for answer in (*first, *again):
                assert not answer.fault, answer
                assert (answer.verdict, answer.weights_sha256) != ("", "")
            assert [each.probability for each in first] == [each.probability for each in again]
            for profile in profiles:
                assert films.measured(node.ledger, profile.weights_sha256) == 2, "it was judged, and measured"
                assert films.since(node.ledger, profile.weights_sha256) == [], "and is no film"
            rows = queries.recent(node.ledger, 10)
            assert {row.state for row in rows} == {InstanceState.DELIVERED}
            assert {row.calling_ae_title for row in rows} == {CONSTANCY_CALLER}
            assert queries.queues(node.ledger) == {}, "nothing was ever due"
            assert pacs.stored == []
            text = Exposition(config, lambda: node.ledger).read().decode()
            assert 'cxr_node_constancy{profile="' in text and "cxr_node_scrape_errors 0.0" in text


@pytest.mark.whole
@pytest.mark.parametrize("name", ["pneumonia-pediatric", "pneumonia-adult"])
def test_what_is_expected_of_shipped_weights_is_what_they_say(name: str) -> None:
    config = loader.parse({"spool": {"path": "unused"}, "model": {"profile": name, "others": []}})
    (profile,) = wiring.profiles(config)
    assert profile.calibration_sha256 in constancy.EXPECTED, "the calibration is newer than the table"
    analysis = pipeline.judge(constancy.phantom(profile, "2.25.1"), wiring.predictor(profile, config), config)
    assert isinstance(analysis, pipeline.Analysis)
    finding = analysis.finding
    word, probability = constancy.EXPECTED[profile.calibration_sha256]
    assert finding.target.word(finding.decision.verdict) == word
    assert finding.calibrated_probability == pytest.approx(probability, abs=constancy.LARGEST_DIFFERENCE)


def test_a_node_that_does_not_answer_is_a_fault_and_is_kept(tmp_path: Path) -> None:
    config = workplace.config(tmp_path, listen={"port": send.free_port("127.0.0.1"), "host": "127.0.0.1"})
    with closing(Ledger.of_node(config)) as ledger:
        (answer,) = constancy.check(config, ledger, [builders.profile()], 0.2)
    assert answer.fault and answer.verdict == ""
    assert phantom_record.last(config.spool.path) == [answer]


def test_after_a_fault_the_first_answer_is_still_expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, profile = workplace.config(tmp_path), builders.profile()
    said = iter([("PNEUMONIA", 0.9), ("NORMAL", 0.1), ("NORMAL", 0.1), ("PNEUMONIA", 0.9)])

    def answered(*_: object) -> SimpleNamespace:
        verdict, probability = next(said)
        return SimpleNamespace(verdict=verdict, probability=probability)

    monkeypatch.setattr(constancy, "_send", lambda *_: None)
    monkeypatch.setattr(constancy, "_settled", answered)
    with closing(Ledger.of_node(config)) as ledger:
        found = [constancy.check(config, ledger, [profile], 1.0)[0].fault for _ in range(4)]
    assert [bool(fault) for fault in found] == [False, True, True, False]


@pytest.mark.parametrize("changes", [{"calibration_sha256": "e1" * 32}, {"site": (1.1, 0.2), "version": "1+site.0a1b"}])
def test_a_profile_calibrated_anew_is_no_fault(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are those that are shipped; the numbers are others, and are right."""
    config, shipped = workplace.config(tmp_path), builders.profile(calibration_sha256=next(iter(constancy.EXPECTED)))
    said = iter(
        [constancy.EXPECTED[shipped.calibration_sha256], ("UNCERTAIN", 0.8), ("UNCERTAIN", 0.8), ("NORMAL", 0.1)]
    )

    def answered(*_: object) -> SimpleNamespace:
        verdict, probability = next(said)
        return SimpleNamespace(verdict=verdict, probability=probability)

    monkeypatch.setattr(constancy, "_send", lambda *_: None)
    monkeypatch.setattr(constancy, "_settled", answered)
    anew = replace(shipped, **changes)
    with closing(Ledger.of_node(config)) as ledger:
        found = [constancy.check(config, ledger, [each], 1.0)[0].fault for each in (shipped, anew, anew, anew)]
    assert [bool(fault) for fault in found] == [False, False, False, True]


def test_a_record_of_an_older_version_is_read(tmp_path: Path) -> None:
    kept = Answer(
        profile="test 1",
        weights_sha256="ab" * 32,
        at="2026-11-01T00:00:00+00:00",
        verdict="NORMAL",
        probability=0.1,
        expected_verdict="NORMAL",
        expected_probability=0.1,
        took_s=1.0,
        fault="",
    )
    phantom_record.keep(tmp_path, [kept])
    file = tmp_path / "run" / "constancy.json"
    (old,) = json.loads(file.read_text())
    del old["calibration_sha256"]
    file.write_text(json.dumps([old]))
    assert phantom_record.last(tmp_path) == [kept]


def test_another_answer_than_the_first_is_a_fault() -> None:
    same = ("PNEUMONIA", 0.9)
    assert constancy._difference(same, ("PNEUMONIA", 0.90005)) == ""
    assert "expected" in constancy._difference(same, ("NORMAL", 0.9))
    assert "differs" in constancy._difference(same, ("PNEUMONIA", 0.91))
    assert constancy._difference(same, ("PNEUMONIA", None))


def test_a_real_study_from_a_device_of_that_name_goes_its_way(tmp_path: Path) -> None:
    """Not the caller but the study says that it is the phantom."""
    with opened(tmp_path) as node:
        node.comes(1)
        assert node.answers()
        part = node.spool.begin()
        part.write(constancy.phantom(builders.profile(), "2.25.77"))
        ref = header.inspect(part.path).ref
        stored = node.spool.store_object(part, node.clock())
        origin = Origin(calling_ae_title="MODALITY", peer_host="10.0.0.7", received_at=stored.at)
        assert node.ledger.add(ref, origin, stored.sha256, stored.size_bytes)
        assert node.answers() == {}, "and the phantom goes nowhere, whoever sends it"


def test_a_listener_with_tls_is_said(tmp_path: Path) -> None:
    config = workplace.config(tmp_path)
    secure = config.model_copy(update={"listen": config.listen.model_copy(update={"tls": object()})})
    with closing(Ledger.of_node(config)) as ledger, pytest.raises(DataError, match="TLS"):
        constancy.check(secure, ledger, [builders.profile()], 1.0)
