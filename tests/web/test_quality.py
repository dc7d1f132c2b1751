"""Quality: shares with their intervals, charts that hold what the table behind them says, one sender or all."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy.stats import binomtest

from benchmarks import drift as simulated
from benchmarks.drift import Site as Site_
from cxr_node.assurance import drift
from cxr_node.node.ledger import readings
from cxr_node.node.ledger.readings import Kept, Reading
from cxr_node.web.monitoring import drifts
from cxr_node.web.pages import charts
from cxr_node.web.pages.charts import Point
from cxr_node.web.pages.shares import Share
from tests.web import pages, rows
from tests.web.site import Site


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with rows.opened(tmp_path_factory.mktemp("quality")) as found:
        yield found


@pytest.mark.parametrize(("count", "total"), [(0, 1), (1, 1), (0, 20), (3, 7), (195, 200), (1, 100_000)])
def test_the_interval_is_wilsons(count: int, total: int) -> None:
    expected = binomtest(count, total).proportion_ci(0.95, method="wilson")
    share = Share(count, total)
    assert (share.low, share.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_of_nothing_nothing_is_known() -> None:
    assert (Share(0, 0).low, Share(0, 0).high) == (0.0, 1.0)


def test_the_page_counts_what_is_in_the_ledger(page: Site) -> None:
    words = pages.texts(page.viewer().get("/quality?days=7").text)
    assert "between the two thresholds" in words
    assert "too-small" in words
    assert "1 of 7" in words, "one of seven that were judged or refused was refused"
    assert "Turnaround" in words


def test_agreement_with_reports_stands_beside_the_answers(page: Site) -> None:
    assert "Agreement with reports" not in page.viewer().get("/quality?days=90").text
    for number, said in ((1, "present"), (7, "absent"), (5, "present")):
        reading = Reading(study_instance_uid=f"1.2.{number}", source="oru", said=said)
        assert readings.keep(page.ledger, reading) is Kept.NEW
    seen = page.viewer().get("/quality?days=30").text
    assert not pages.faults(seen)
    words = pages.texts(seen)
    assert "Agreement with reports" in words
    assert "50.0 % (1.3 to 98.7), 1 of 2" in words, "PPV: one of two that were called positive"
    assert "33.3 % (0.8 to 90.6), 1 of 3" in words, "one of three has no answer"
    assert "Agreement" not in page.viewer().get("/quality?days=30&sender=NOBODY").text


def test_one_sender_has_figures_of_its_own(page: Site) -> None:
    viewer = page.viewer()
    assert "No image came" in viewer.get("/quality?sender=NOBODY").text
    seen = viewer.get("/quality?sender=MODALITY")
    assert '<option value="MODALITY" selected>' in seen.text
    assert viewer.get("/quality?days=8").status_code == 422
    assert viewer.get(f"/quality?sender={'x' * 17}").status_code == 422


def test_a_chart_is_one_picture_with_words_and_without_styles() -> None:
    drawn = charts.columns("<T>", "a & b", ["1", "2"], {"x": [1, 2], "y": [0, 3]})
    assert not pages.faults(drawn)
    assert 'role="img"' in drawn
    assert "&lt;T&gt;" in drawn
    assert drawn.count("<rect") == 3, "nothing is drawn of a 0"
    assert "style" not in drawn


def test_a_line_has_gaps_where_nothing_is_known() -> None:
    points = [Point(0.5, 0.4, 0.6), Point(0.6, 0.5, 0.7), None, Point(0.2, 0.1, 0.9)]
    drawn = charts.lines("t", "d", list("abcd"), {"share": points}, str)
    assert (drawn.count("<polyline"), drawn.count("<polygon"), drawn.count("whisker")) == (2, 1, 1)
    assert not pages.faults(charts.lines("t", "d", [], {"share": []}, str))


def test_drift_says_what_changed_and_what_could_hide(page: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each figure its films, before and now, and the least change that would have been seen."""
    reference = simulated.referred(simulated.drawn(Site_(), 2300, np.random.default_rng(1)))
    films = simulated.drawn(Site_(abstained=0.4), 400, np.random.default_rng(2), first=5000)
    seen = {"children 2.0": drift.compare(reference, films), "adults 1.0": 77}
    monkeypatch.setattr(drifts, "look", lambda *_: seen)
    text = page.viewer().get("/quality").text
    words = pages.texts(text)
    for said in ("Changed: abstention of ROOM_1.", "first-2000", "77 of 2,000 films", "Least change", "40"):
        assert said in words, said
    monkeypatch.setattr(drifts, "look", lambda *_: {"children 2.0": drift.compare(reference, [])})
    assert "No change." in pages.texts(page.viewer().get("/quality").text)
