"""The page Try: a person's files in, verdicts with their reasons and downloads out, and nothing kept."""

from __future__ import annotations

import html
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image
from pydicom import dcmread

from cxr_node import resources
from cxr_node.dicom.verify import check
from cxr_node.dicom.words import wording
from cxr_node.model import profile as profiles
from cxr_node.node.ledger import queries
from tests import builders
from tests.web.asking import CANARY, JPEG, LATERAL
from tests.web.site import Site, Visitor, opened

NAMED = builders.part10(builders.radiograph(5, **CANARY))
FOREIGN = b"no radiograph"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with opened(tmp_path_factory.mktemp("try"), web={"try": {"max_files": 4, "per_minute": 1000}}) as site:
        yield site


@pytest.fixture(scope="module")
def viewer(site: Site) -> Visitor:
    return site.viewer()


def send(visitor: Visitor, *contents: bytes, token: str | None = None, origin: str | None = None) -> httpx.Response:
    files = [("files", ("Zimtschnecke_Kim.dcm", content)) for content in contents]
    csrf = visitor.token("/try") if token is None else token
    headers = {"origin": visitor.address if origin is None else origin}
    return visitor.post("/try", data={"csrf": csrf}, files=files, headers=headers)


@pytest.fixture(scope="module")
def results(viewer: Visitor) -> tuple[str, str]:
    """Address and text of the page of four results."""
    sent = send(viewer, JPEG, NAMED, LATERAL, FOREIGN)
    assert sent.status_code == 303
    address = sent.headers["location"]
    return address, viewer.get(address).text


def words(page: str) -> str:
    """What a person reads."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def test_each_file_has_its_verdict_and_the_reason(results: tuple[str, str]) -> None:
    _, page = results
    said = re.split(r"File \d ", words(page))[1:]
    assert len(said) == 4
    positive, doubtful, rejected, foreign = said
    shipped = profiles.load(resources.profile_folder("pneumonia-pediatric")).operating_point
    thresholds = ", ".join(wording.threshold_labels(shipped))
    assert f"PNEUMONIA SUSPECTED · Certainty of pneumonia: 98 % ({thresholds})" in positive
    assert "Report" in positive and "Research use only" in positive
    assert doubtful.startswith("UNCERTAIN") and "unlike the training data" in doubtful and "ertainty" not in doubtful
    assert rejected.startswith("not analysed") and "view-not-frontal" in rejected
    assert "neither DICOM" in foreign and "(file-type)" in foreign
    assert "NORMAL" not in words(page)
    assert "Nothing is kept" in words(page)
    assert "Zimt" not in page


def test_the_downloads_are_what_the_node_would_send(viewer: Visitor, results: tuple[str, str]) -> None:
    address, page = results
    links = re.findall(r'href="(/try/[^"]+)"', page)
    names = [link.rpartition("/")[2] for link in links if link.startswith(f"{address}/1/")]
    assert names == ["report.pdf", "report.dcm", "measurements.dcm", "heatmap.dcm", "result.json"]
    content = {name: viewer.get(f"{address}/1/{name}") for name in names}
    assert all(
        answer.status_code == 200 and "attachment" in answer.headers["content-disposition"]
        for answer in content.values()
    )
    assert content["report.pdf"].content.startswith(b"%PDF-")
    assert json.loads(content["result.json"].text)["verdict"] == "PNEUMONIA"
    objects = [(name, content[name].content) for name in names if name.endswith(".dcm")]
    checked = check.check_files(iter(objects))
    assert (checked.results, checked.flaws) == (3, ())
    serial = dcmread(io.BytesIO(objects[0][1])).DeviceSerialNumber
    assert " tried " in serial, "no archive takes it for the node's own result"
    for picture in re.findall(r'src="(/try/[^"]+)"', page):
        answer = viewer.get(picture)
        with Image.open(io.BytesIO(answer.content)) as opened_picture:
            assert opened_picture.format == "PNG"
        assert answer.headers["cache-control"] == "no-store"


def test_another_person_does_not_see_them(site: Site, results: tuple[str, str]) -> None:
    address, _ = results
    assert site.visitor().get(address).headers["location"] == "/login"
    for other in (site.viewer(), site.operator()):
        assert other.get(address).status_code == 404
        assert other.get(f"{address}/1/heatmap.png").status_code == 404


@pytest.mark.parametrize("place", ["5/heatmap.png", "0/heatmap.png", "4/result.json", "1/report.html", "3/heatmap.png"])
def test_what_is_not_there_is_not_found(viewer: Visitor, results: tuple[str, str], place: str) -> None:
    assert viewer.get(f"{results[0]}/{place}").status_code == 404


def test_another_sites_form_is_refused(site: Site, viewer: Visitor) -> None:
    assert send(viewer, JPEG, origin="https://elsewhere.example").status_code == 403
    assert send(viewer, JPEG, token="made up").status_code == 403
    assert send(viewer, JPEG, token=site.viewer().token("/try")).status_code == 403
    stranger = site.visitor()
    refused = stranger.post("/try", files=[("files", ("x", JPEG))], headers={"origin": stranger.address})
    assert refused.headers["location"] == "/login"


def test_no_file_leads_back_to_the_form(viewer: Visitor) -> None:
    assert send(viewer, b"").headers["location"] == "/try"


def test_too_many_files_are_said(viewer: Visitor) -> None:
    refused = send(viewer, *[FOREIGN] * 5)
    assert refused.status_code == 422
    assert "at most 4" in refused.text


def test_the_drawn_radiographs_are_judged(viewer: Visitor) -> None:
    sent = viewer.submit("/try/drawn")
    page = viewer.get(sent.headers["location"]).text
    said = words(page)
    assert said.startswith("Results")
    assert (said.count("no pneumonia detected ("), said.count("PNEUMONIA SUSPECTED ·")) == (0, 2)
    assert said.count("no pneumonia detected · Certainty of pneumonia: ") == 3 and said.count("UNCERTAIN ·") == 1
    assert page.count("/heatmap.png") == 6, "a picture of each, also where nothing was detected"


def test_nothing_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(tmp_path) as site, caplog.at_level("DEBUG", logger="cxr_node"):
        viewer = site.viewer()
        before, trail = files(site.spool), site.audited()
        address = send(viewer, NAMED, LATERAL).headers["location"]
        viewer.get(address)
        assert files(site.spool) == before
        assert site.audited() == trail
        assert sum(queries.counts(site.ledger).values()) == 0
        assert "judged verdict=" in caplog.text
        assert "Zimt" not in caplog.text and "ZIMT" not in caplog.text
        assert builders.radiograph(5).SOPInstanceUID not in caplog.text
    assert not any(b"ZIMT-4711" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def files(spool: Path) -> set[Path]:
    return {path for path in spool.rglob("*") if path.is_file() and path.suffix not in (".alive", ".log")}
