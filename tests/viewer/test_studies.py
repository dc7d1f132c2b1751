"""What a radiologist sees of a study of several images: its report, the regions on their image, its pictures.

As `test_results`, with the default: one answer for a study. OHIF shows the regions of the first image that a document
has a region on, and moves to no image of another series: hence those of other images are looked for in the pictures.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import BasicTextSRStorage, Comprehensive3DSRStorage, SecondaryCaptureImageStorage

from cxr_node.domain import Verdict
from tests.pacs.peers import DICOMWEB_PLUGIN, Node, Orthanc, need
from tests.pacs.test_studies import film
from tests.patience import wait_until
from tests.viewer import browser, install_ohif, ohif
from tests.viewer.browser import Viewer
from tests.viewer.test_results import REGION_GREEN_PX, banner, green, mapped, send

pytestmark = [pytest.mark.viewer, pytest.mark.timeout(900)]

STUDIES = {
    "two regions": (("opacity-1", "AP"), ("opacity-2", "AP")),
    "one region": (("opacity-3", "AP"), ("opacity-2", "AP"), ("clear-2", "LL")),
    "normal": (("clear-1", "AP"), ("clear-2", "AP")),
}
RESULTS = {"two regions": 4, "one region": 4, "normal": 2}
SAID = {
    "two regions": (
        "AI: PNEUMONIA SUSPECTED in images 1 and 2. ",
        "Image 2 (AP, series 2, image 1): Pneumonia suspected",
    ),
    "one region": (
        "AI: PNEUMONIA SUSPECTED in image 2. The AI gives no answer for image 1. ",
        "Image 1 (AP, series 1, image 1): UNCERTAIN, between",
        "Image 3 (series 3, image 1): not analysed",
    ),
    "normal": (
        "AI: no pneumonia detected in images 1 and 2. ",
        "Image 2 (AP, series 2, image 1): No pneumonia detected",
    ),
}
KINDS = {
    BasicTextSRStorage: "report",
    Comprehensive3DSRStorage: "measurements",
    SecondaryCaptureImageStorage: "heatmap",
}
Series = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """Orthanc with each study and its results, which the node has sent."""
    browser.need_browser()
    need("Orthanc", "dcmsend")
    if not DICOMWEB_PLUGIN.exists():
        pytest.skip("Orthanc has no DICOMweb: apt-get install orthanc-dicomweb")
    folder = tmp_path_factory.mktemp("studies")
    files = [
        film(folder, study, number, *what)
        for study, films in enumerate(STUDIES.values(), 1)
        for number, what in enumerate(films, 1)
    ]
    with Orthanc(folder / "orthanc") as orthanc:
        send(orthanc.ae_title, orthanc.dicom_port, files)
        with Node(folder / "node", [{"name": "archive", "address": orthanc.address}], study={"quiet_s": 3}) as node:
            send(node.ae_title, node.port, files)
            wait_until(node.is_idle, "an idle node")
            assert orthanc.count() == len(files) + sum(RESULTS.values())
        yield orthanc


@pytest.fixture(scope="module")
def series(archive: Orthanc) -> Series:
    """Study -> kind -> Series Instance UID."""
    found: Series = {}
    for instance in archive.get("/dicom-web/instances?limit=1000"):
        sop_class, study, uid = (instance[tag]["Value"][0] for tag in ("00080016", "0020000D", "0020000E"))
        if sop_class in KINDS:
            found.setdefault(study, {})[KINDS[sop_class]] = uid
    return found


@pytest.fixture(scope="module", params=list(install_ohif.VERSIONS))
def viewer(request: pytest.FixtureRequest, archive: Orthanc) -> Iterator[Viewer]:
    """A page of OHIF on the archive."""
    try:
        folder = install_ohif.installed(request.param)
    except install_ohif.InstallError as error:
        pytest.skip(str(error))
    with browser.chromium() as chromium, ohif.served(folder, archive.http_port) as address:
        yield Viewer(chromium.new_page(viewport=browser.SIZE), address, request.param)


def show(viewer: Viewer, series: Series, study: str, kind: str) -> None:
    (uid,) = (uid for uid in series if uid.endswith(f".{1 + list(STUDIES).index(study)}"))
    viewer.open(uid, series[uid][kind])


def fine(viewer: Viewer, study: str, kind: str) -> None:
    """No crash and nothing in the console; keeps the picture where that is wanted."""
    assert not viewer.crashed()
    assert viewer.errors == []
    assert len(viewer.series_list()) == len(STUDIES[study]) + RESULTS[study]
    if folder := os.environ.get("CXR_NODE_SCREENSHOTS"):
        viewer.screenshot().save(Path(folder) / f"study-{viewer.version}-{study.replace(' ', '-')}-{kind}.png")


@pytest.mark.parametrize("study", STUDIES)
def test_the_report_has_a_line_for_each_image(study: str, viewer: Viewer, series: Series) -> None:
    show(viewer, series, study, "report")
    text = viewer.wait_for_text(SAID[study][0])
    assert all(line in text for line in SAID[study])
    assert "Research use only" in text
    fine(viewer, study, "report")


@pytest.mark.parametrize(("study", "image"), [("two regions", 1), ("one region", 2)])
def test_regions_are_drawn_on_their_image_and_no_frame(study: str, image: int, viewer: Viewer, series: Series) -> None:
    """The image beside it, which has none, has a frame for a region in the document: without it OHIF goes black."""
    show(viewer, series, study, "measurements")
    seen = viewer.wait_for_pixels(lambda pixels: green(pixels).sum() > REGION_GREEN_PX)
    assert seen.mean() > 30  # the radiograph is there, not a black viewport
    viewer.page.locator(browser.PANE).get_by_text("Certainty of Finding").first.wait_for()
    rows = green(seen).any(axis=1).nonzero()[0]
    assert rows[-1] - rows[0] < 0.9 * len(seen)
    assert f"Chest {image}" in str(viewer.page.locator(browser.PANE).first.inner_text())
    fine(viewer, study, "measurements")


@pytest.mark.parametrize("study", ["two regions", "one region"])
def test_pictures_are_shown_in_color(study: str, viewer: Viewer, series: Series) -> None:
    show(viewer, series, study, "heatmap")
    seen = viewer.wait_for_pixels(
        lambda pixels: any(banner(pixels, each).mean() > 0.02 for each in (Verdict.POSITIVE, Verdict.INDETERMINATE))
    )
    if banner(seen, Verdict.POSITIVE).mean() > 0.02:
        viewer.wait_for_pixels(lambda pixels: (mapped(pixels) & ~banner(pixels, Verdict.POSITIVE)).mean() > 0.01)
    fine(viewer, study, "heatmap")


def test_a_study_without_pneumonia_has_no_picture(viewer: Viewer, series: Series) -> None:
    (uid,) = (uid for uid in series if uid.endswith(".3"))
    assert series[uid].keys() == {"report", "measurements"}
    show(viewer, series, "normal", "measurements")
    text = viewer.wait_for_text("AI: no pneumonia detected in images 1 and 2. ")
    assert "Pneumonia: Absent" in text
    assert not green(viewer.pixels()).any()
    fine(viewer, "normal", "measurements")
