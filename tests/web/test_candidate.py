"""Two profiles on the page: Quality has both side by side, Today says which of them is live."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cxr_node import wiring
from cxr_node.node.ledger import candidates, promotions
from cxr_node.node.ledger.candidates import Comparison
from cxr_node.node.ledger.counted import Counted
from cxr_node.outcome import Answer
from tests.node.ledgers import finding
from tests.web import pages, rows, site
from tests.web.site import Site


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Site]:
    model = {"profile": "pneumonia-pediatric", "others": [], "candidate": "pneumonia-adult"}
    with site.opened(tmp_path, model=model) as found:
        rivals = wiring.rivals(found.config)
        assert rivals is not None
        for number, verdict in enumerate(("PNEUMONIA", "UNCERTAIN", "PNEUMONIA"), 1):
            rows.receive(found.ledger, number)
            job = found.ledger.claim_instance("worker", 600.0)
            assert job is not None
            live = Answer(profile="pneumonia-pediatric 1", verdict="PNEUMONIA")
            pair = Comparison(candidate_sha256=rivals.candidate_sha256, live=live)
            assert found.ledger.settle_reported(job, finding(), [], {}, counted=Counted(comparison=pair))
            film = candidates.claim(found.ledger, rivals.candidate_sha256, "worker", 60.0)
            assert film is not None
            assert candidates.settle(found.ledger, film, Answer(profile="pneumonia-adult 1", verdict=verdict))
        yield found


def test_quality_shows_both_with_number_and_interval(page: Site) -> None:
    shown = page.viewer().get("/quality").text
    assert not pages.faults(shown)
    words = " ".join(pages.texts(shown).split())
    assert "pneumonia-adult 1 judged after pneumonia-pediatric 1 what that had answered; nothing of it is sent" in words
    assert "The same verdict 66.7 % 66.7 % (20.8 to 93.9), 2 of 3 films" in words
    assert "Yes against no 0.0 % 0.0 % (0.0 to 65.8), 0 of 2 films that both answered" in words
    assert "PNEUMONIA 2 1 UNCERTAIN 0 0" in words


def test_today_says_who_is_live(page: Site) -> None:
    viewer = page.viewer()
    today = viewer.get("/").text
    assert not pages.faults(today)
    assert "pneumonia-adult is a candidate" in " ".join(pages.texts(today).split())
    rivals = wiring.rivals(page.config)
    assert rivals is not None
    promotions.promote(page.ledger, rivals, by="anna")
    from cxr_node.web.pages import surroundings
    from cxr_node.web.pages import today as of_today

    surroundings.PROMOTION._seen.clear()
    of_today._SEEN._seen.clear()
    words = " ".join(pages.texts(viewer.get("/").text).split())
    assert "pneumonia-adult is live in place of pneumonia-pediatric since" in words
    assert "promoted by anna" in words
