"""Study: found by every key, told in full, put right; the key itself stays in nobody's hands but the typist's."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from cxr_node.dicom.read import keys
from cxr_node.dicom.results import basic_text_sr, secondary_capture
from cxr_node.node.ledger import queries
from cxr_node.node.ledger.states import InstanceState, StoredArtifact
from cxr_node.node.ledger.tables import instances
from cxr_node.node.spool.spool import Spool
from cxr_node.result_kinds import ResultKind
from tests.dicom.contexts import context
from tests.node.ledgers import digest, finding
from tests.web import pages, rows
from tests.web.site import Site

ACCESSION = "ACC-Größe-7"
_SAID = re.compile(r'id="said"[^>]*>([^<]*)<')


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with rows.opened(tmp_path_factory.mktemp("study"), show_images=True) as found:
        with found.ledger.database.writing() as connection:
            key = keys.accession_key("ACC-Gr\udcf6\udcdfe-7")  # as Latin-1 it came
            connection.execute(sa.update(instances).where(instances.c.id == 1).values(accession_key=key))
        yield found


@pytest.mark.parametrize("key", ["1.2.1", "1.2.1.1.1", "2.25.1.0", ACCESSION, "#1", "1", digest(1), "instance=1"])
def test_every_key_that_trace_takes_finds_the_image(page: Site, key: str) -> None:
    answer = page.viewer().submit("/study", key=f" {key} ")
    assert answer.status_code == 200
    words = pages.texts(answer.text)
    assert "Image #1: DELIVERED" in words
    for expected in ("received", "delivery-delivered", "report to pacs", "accepted"):
        assert expected in words
    if key == ACCESSION:
        assert key not in answer.text, "the page does not repeat it"


def test_the_study_comes_first_with_its_report_or_what_it_waits_for(page: Site) -> None:
    reported = page.viewer().submit("/study", key="1.2.10").text
    assert not pages.faults(reported)
    words = pages.texts(reported)
    assert words.index("Study: REPORTED") < words.index("Report 1") < words.index("Image #9: DELIVERED")
    assert "PNEUMONIA SUSPECTED" in words[words.index("Report 1") : words.index("Image #9")]
    assert "of 1 analysed" in words
    assert (words.count("report whole DELIVERED"), words.count("measurements whole DELIVERED")) == (1, 1)
    waiting = page.viewer().submit("/study", key="#10").text
    assert not pages.faults(waiting)
    assert "Study: WAITING" in pages.texts(waiting)
    assert re.search(r"waits for its study: work does not run; ripe at [-\d: ]+ UTC", waiting)


def test_what_is_typed_stands_in_no_log_and_no_trail(page: Site, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        answer = page.viewer().submit("/study", key="Mustermann^Max")
        page.viewer().get("/study?key=Mustermann")
    assert "knows no such" in answer.text
    others = ("http", "uvicorn.access")  # the visitor's own, and what has no handler but pytest's
    logged = "".join(each.getMessage() for each in caplog.records if not each.name.startswith(others))
    assert "route=/study" in logged
    assert "Mustermann" not in answer.text + logged + page.audited() + str(answer.url)


def test_a_form_of_another_page_is_not_read(page: Site) -> None:
    viewer = page.viewer()
    assert viewer.post("/study", data={"key": "1"}).status_code == 403
    assert viewer.submit("/study", headers={"origin": "http://elsewhere"}, key="1").status_code == 403
    assert viewer.submit("/study/act", of="2", number=["2"], what="retry").status_code == 403


@pytest.mark.parametrize(
    ("what", "of", "more", "said", "then"),
    [
        ("retry", 2, {}, "Image #2: 1 back in the queue.", InstanceState.RECEIVED),
        ("rejudge", 4, {}, "Image #4: 1 back in the queue.", InstanceState.RECEIVED),
        ("set-aside", 3, {"reason": "duplicate"}, "Image #3: 1 image set aside: duplicate.", InstanceState.SET_ASIDE),
        ("resend", 1, {}, "Image #1: 1 images: retention has deleted", InstanceState.DELIVERED),
    ],
)
def test_an_operator_puts_one_image_right(
    page: Site, what: str, of: int, more: dict[str, str], said: str, then: InstanceState
) -> None:
    operator = page.operator()
    shown = operator.submit("/study", key=f"#{of}").text
    assert f'value="{what}"' in shown
    answer = operator.submit("/study/act", of=str(of), number=[str(of), "5"], what=what, **more)
    found = _SAID.search(answer.text)
    assert found is not None and found[1].startswith(said), answer.text
    (story,) = queries.trace(page.ledger, f"instance={of}")
    assert story.instance.state is then
    assert f"(#{of})" in page.audited()
    assert {f"Image #{of}", "Image #5"} <= set(re.findall(r"Image #\d+", pages.texts(answer.text)))


def test_results_are_shown_as_they_were_sent(page: Site) -> None:
    of, spool = context(), Spool(page.spool)
    built = {ResultKind.REPORT: basic_text_sr.build(of), ResultKind.HEATMAP: secondary_capture.build(of)}
    stored = [
        StoredArtifact(
            kind=kind,
            sop_class_uid=each.sop_class_uid,
            sop_instance_uid=each.sop_instance_uid,
            content_sha256=spool.store_result(each.content).sha256,
            size_bytes=len(each.content),
        )
        for kind, each in built.items()
    ]
    number = rows.receive(page.ledger, 50)
    while (job := page.ledger.claim_instance("worker", 600.0)) is not None and job.instance_id != number:
        pass
    assert job is not None
    page.ledger.settle_reported(job, finding(), stored, {})
    answer = page.viewer().submit("/study/results", of=str(number), number=[str(number)])
    assert answer.status_code == 200
    assert not pages.faults(answer.text)
    assert 'src="data:image/png;base64,iVBOR' in answer.text
    assert "Impressions" in answer.text
    assert f"looks at the results of image #{number}" in page.audited()


def test_results_that_are_gone_are_said_to_be(page: Site) -> None:
    answer = page.viewer().submit("/study/results", of="1", number=["1"])
    assert answer.status_code == 200
    assert not pages.faults(answer.text)
    assert answer.text.count('class="alert"') == 2


def test_without_show_images_nothing_is_shown(tmp_path: Path) -> None:
    with rows.opened(tmp_path) as found:
        viewer = found.viewer()
        assert "Show the results" not in viewer.submit("/study", key="#1").text
        assert viewer.submit("/study/results", of="1", number=["1"]).status_code == 403
