"""candidate and promote as a person types them, with the profiles that come with the package."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from cxr_node import pipeline, wiring
from cxr_node.cli.candidate import beside
from cxr_node.cli.node import app
from cxr_node.config import loader
from cxr_node.config.schema import Config
from cxr_node.dicom import from_picture
from cxr_node.domain import Origin
from cxr_node.errors import ConfigError
from cxr_node.node.ledger import candidates
from cxr_node.node.ledger.candidates import Comparison
from cxr_node.node.ledger.counted import Counted
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.outcome import Answer, Reported
from cxr_node.resources import DRAWN
from tests.node import ledgers
from tests.node.test_ledger import PACS

LIVE, OTHER = "pneumonia-pediatric", "pneumonia-adult"
MODEL = {"profile": LIVE, "others": [], "candidate": OTHER}
YES, NO, NONE = "PNEUMONIA", "NORMAL", "UNCERTAIN"


class Site:
    """A configuration with a candidate, and a ledger."""

    def __init__(self, folder: Path, **model: Any) -> None:
        self.file = folder / "node.yaml"
        self.content = {"spool": {"path": str(folder / "spool")}, "model": MODEL | model}
        self.file.write_text(yaml.safe_dump(self.content))
        self.config = loader.parse(self.content)
        self.ledger = Ledger.of_node(self.config)

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(app, [*words, "--config", str(self.file)])

    def said(self, number: int, live: str, other: str) -> None:
        """Both have answered a film."""
        sha256 = wiring.identity_sha256(wiring.candidate(self.config))  # type: ignore[arg-type]  # there is one
        at = datetime.now(UTC)
        origin = Origin(calling_ae_title="ROOM1", peer_host="10.0.0.7", received_at=at)
        assert self.ledger.add(ledgers.reference(number), origin, ledgers.digest(number), 1)
        job = self.ledger.claim_instance("me", 60.0)
        assert job is not None
        pair = Comparison(candidate_sha256=sha256, live=Answer(profile=f"{LIVE} 1", verdict=live))
        assert self.ledger.settle_reported(job, ledgers.finding(), [], PACS, counted=Counted(comparison=pair))
        film = candidates.claim(self.ledger, sha256, "me", 60.0)
        assert film is not None
        assert candidates.settle(self.ledger, film, Answer(profile=f"{OTHER} 1", verdict=other))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    one = Site(tmp_path)
    yield one
    one.ledger.close()


def flat(shown: Result) -> str:
    return " ".join(shown.output.split())


def test_who_answers_already_is_no_candidate(tmp_path: Path) -> None:
    spool = {"spool": {"path": str(tmp_path)}}
    for model in ({"candidate": LIVE}, {"candidate": OTHER}):
        with pytest.raises(ConfigError, match=r"model\.candidate: pneumonia-\w+ answers already"):
            loader.parse(spool | {"model": model})
    with pytest.raises(ConfigError, match="could cost an image its only attempt"):
        loader.parse(spool | {"model": MODEL, "work": {"max_attempts": 1}})
    copy = tmp_path / "copy"
    copy.symlink_to(Path("weights").absolute() / LIVE)
    twin = loader.parse(spool | {"model": MODEL | {"candidate": str(copy)}})
    with pytest.raises(ConfigError, match=r"has the weights and the thresholds of model\.profile"):
        wiring.candidate(twin)


def test_a_candidate_that_cannot_be_read_costs_nobody_an_answer(site: Site) -> None:
    broken = loader.parse(site.content | {"model": MODEL | {"candidate": "no-such-profile"}})
    assert beside(broken, site.ledger) is None
    assert wiring.with_live_profile(broken, site.ledger) == broken
    assert wiring.agreed_sha256(broken) != wiring.agreed_sha256(site.config)


def test_both_are_shown_side_by_side_and_beside_labels(site: Site, tmp_path: Path) -> None:
    shown = site.run("candidate")
    assert (shown.exit_code, "no candidate was given a film yet" in flat(shown)) == (2, True)
    for number, (live, other) in enumerate([(YES, YES), (NONE, YES), (NO, NO), (NO, YES)], 1):
        site.said(number, live, other)
    told = flat(site.run("candidate"))
    assert "films 4, due 0, failed 0" in told
    assert "the same verdict 50.0 % (6.8 to 93.2), 2 of 4" in told
    assert "yes against no, of those both answered 33.3 % (0.8 to 90.6), 1 of 3" in told
    assert "ROOM1: the same verdict 50.0 %" in told
    labels = tmp_path / "labels.csv"
    labels.write_text("study,said\n1.2.1,present\n1.2.2,present\n1.2.3,absent\n1.2.4,absent\n9.9,present\n")
    shown = site.run("candidate", "--labels", str(labels), "--json")
    found = json.loads(shown.stdout)
    assert {"live": NO, "candidate": YES, "films": 1} in found["cross"]
    part = found["labels"]["sensitivity"]
    assert (part["live"]["count"], part["candidate"]["count"], part["difference"]["value"]) == (1, 2, 0.5)
    assert found["labels"]["specificity"]["difference"]["value"] == -0.5
    labels.write_text("1.2.1,present\n1.2.2,pneumonia\n")
    shown = site.run("candidate", "--labels", str(labels))
    assert (shown.exit_code, "line 2: write a KEY, a comma, and present or absent" in flat(shown)) == (2, True)


def test_promotion_is_one_command_and_one_message_with_a_way_back(site: Site) -> None:
    shown = site.run("promote", "--yes")
    assert (shown.exit_code, "has answered no film here" in flat(shown)) == (2, True)
    site.said(1, YES, NO)
    assert site.run("promote", "--back", "--yes").exit_code == 2, "it is not promoted"
    assert site.run("promote").exit_code == 1, "it asks"
    shown = site.run("promote", "--yes")
    assert (shown.exit_code, f"{OTHER} is live in place of {LIVE}" in flat(shown)) == (0, True), shown.output
    live = wiring.with_live_profile(site.config, site.ledger)
    assert (live.model.profile, live.model.candidate, live.model.others) == (OTHER, LIVE, ())
    again = beside(live, site.ledger)
    assert again is not None and again.promotion == 1, "the one before runs beside it now"
    assert f"{OTHER} is live in place of {LIVE}, promoted by" in flat(site.run("status"))
    assert site.run("promote", "--yes").exit_code == 2, "it is live already"
    settled = loader.parse(site.content | {"model": {"profile": OTHER, "candidate": LIVE}})
    assert wiring.with_live_profile(settled, site.ledger) == settled, "the configuration says so itself by now"
    assert wiring.agreed_sha256(settled) == wiring.agreed_sha256(site.config), "no machine refuses the other"
    assert site.run("promote", "--back", "--yes").exit_code == 0
    assert wiring.with_live_profile(site.config, site.ledger) == site.config
    trail = "".join(path.read_text() for path in sorted((site.config.spool.path / "audit").glob("*-promote-*.log")))
    assert trail.count("<AuditMessage") == 2
    assert f"profile {OTHER} is live in place of {LIVE}" in trail
    assert f"profile {LIVE} is live in place of {OTHER} again" in trail


@pytest.mark.whole
def test_the_shipped_profiles_answer_the_same_film(site: Site) -> None:
    content = from_picture.wrapped(sorted(DRAWN.glob("*.jpg"))[0].read_bytes(), PatientAge="005Y")
    classifier = wiring.classifier(site.config)
    origin = Origin(calling_ae_title="ROOM1", peer_host="10.0.0.7", received_at=datetime.now(UTC))
    outcome = pipeline.process(content, origin, classifier, site.config)
    assert isinstance(outcome, Reported) and outcome.answer is not None
    live = outcome.answer
    assert live.profile.startswith(LIVE) and live.score is not None and live.peak is not None
    assert all(0.0 <= share <= 1.0 for share in live.peak)
    named = beside(site.config, site.ledger)
    assert named is not None
    said = named.judge(content)
    assert (said.profile.startswith(OTHER), said.verdict, said.reason) == (True, "REJECTED", "age-outside-population")
    grown = beside(Config.model_validate(_of_any_age(site.config)), site.ledger)
    assert grown is not None
    answer = grown.judge(content)
    assert answer.score is not None and answer.score != live.score


def _of_any_age(config: Config) -> dict[str, Any]:
    return config.model_dump(mode="json", by_alias=True) | {"admission": {"age_policy": "ignore"}}
