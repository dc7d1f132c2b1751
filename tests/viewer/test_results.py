"""What a radiologist sees: the node's results in OHIF, by the text and the pixels on the screen.

The built-in radiographs go through a real node into Orthanc; OHIF shows them in headless Chromium. One node and one
archive for all tests, one browser page for each version of OHIF. CXR_NODE_SCREENSHOTS=FOLDER keeps what was seen.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.uid import BasicTextSRStorage, Comprehensive3DSRStorage, SecondaryCaptureImageStorage, SegmentationStorage

from cxr_node.dicom import from_picture
from cxr_node.dicom.render import picture
from cxr_node.domain import Verdict
from cxr_node.tools.drawn import BUILT_IN, BUILT_IN_ATTRIBUTES
from tests.pacs.peers import DICOMWEB_PLUGIN, Node, Orthanc, need
from tests.patience import wait_until
from tests.processes import run
from tests.viewer import browser, install_ohif, ohif
from tests.viewer.browser import Pixels, Viewer

pytestmark = [pytest.mark.viewer, pytest.mark.timeout(600)]

CASES = {
    "pneumonia": (Verdict.POSITIVE, "AI: PNEUMONIA SUSPECTED. Certainty of pneumonia: "),
    "normal": (Verdict.NEGATIVE, "AI: no pneumonia detected. Certainty of pneumonia: "),
    "uncertain": (Verdict.INDETERMINATE, "AI: UNCERTAIN. The AI gives no answer: certainty of pneumonia "),
    "unlike": (Verdict.INDETERMINATE, "AI: UNCERTAIN. The AI gives no answer: image unlike the training data"),
}
"""Verdict, and how the report's first sentence begins. `unlike` states no certainty, so its SR has no number."""

PICTURES = {"pneumonia": "opacity-2", "normal": "clear-1", "uncertain": "opacity-3", "unlike": "opacity-1"}
"""Which built-in radiograph stands for which case; `unlike` is upside down."""

SOP_CLASSES = {
    BasicTextSRStorage: "report",
    Comprehensive3DSRStorage: "measurements",
    SecondaryCaptureImageStorage: "heatmap",
    SegmentationStorage: "segmentation",
}
SEND = ["report", "measurements", "heatmap", "segmentation"]
RESULTS = 3 * len(CASES) + 1
"""A segmentation is made of the one PNEUMONIA."""
NEWEST = next(iter(install_ohif.VERSIONS))
REGION_GREEN_PX = 200
SCREENSHOT_WIDTH_PX = 920
"""In true color this keeps each below 250 KB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One radiograph with its results, as the archive has them: Series Instance UIDs by kind."""

    study_instance_uid: str
    series: dict[str, str]


def radiograph(case: str, folder: Path) -> Path:
    """Built-in radiograph of a case as DX."""
    source = BUILT_IN / f"{PICTURES[case]}.jpg"
    if case == "unlike":
        with Image.open(source) as upright:
            source = folder / "upside-down.png"
            upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(source)
    file = folder / f"{case}.dcm"
    file.write_bytes(from_picture.wrap(source, **BUILT_IN_ATTRIBUTES))
    return file


def send(ae_title: str, port: int, files: list[Path]) -> None:
    done = run("dcmsend", "-v", "-aec", ae_title, "127.0.0.1", port, *files)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """Orthanc with a radiograph of each case and the results of each, which the node has sent."""
    browser.need_browser()
    need("Orthanc", "dcmsend")
    if not DICOMWEB_PLUGIN.exists():
        pytest.skip("Orthanc has no DICOMweb: apt-get install orthanc-dicomweb")
    folder = tmp_path_factory.mktemp("viewer")
    files = [radiograph(case, folder) for case in CASES]
    with Orthanc(folder / "orthanc") as orthanc:
        send(orthanc.ae_title, orthanc.dicom_port, files)
        wanted = {"name": "archive", "address": orthanc.address, "send": SEND, "report_per": "image"}
        with Node(folder / "node", [wanted], results={"normal_heatmap": "banner"}) as node:
            send(node.ae_title, node.port, files)
            wait_until(node.is_idle, "an idle node")
            stories = node.json("status")[0]["recent"]
            assert orthanc.count() == len(files) + RESULTS, [(story["state"], story["sentence"]) for story in stories]
        yield orthanc


@pytest.fixture(scope="module")
def studies(archive: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Study]:
    """Which study is which case."""
    found: dict[str, dict[str, str]] = {}
    for instance in archive.get("/dicom-web/instances?limit=1000"):
        sop_class, study, series = (instance[tag]["Value"][0] for tag in ("00080016", "0020000D", "0020000E"))
        found.setdefault(study, {})[SOP_CLASSES.get(sop_class, "radiograph")] = series
    folder = tmp_path_factory.mktemp("sources")
    sources = {case: str(dcmread(radiograph(case, folder)).StudyInstanceUID) for case in CASES}
    return {case: Study(study_instance_uid=uid, series=found[uid]) for case, uid in sources.items()}


@pytest.fixture(scope="module", params=list(install_ohif.VERSIONS))
def viewer(request: pytest.FixtureRequest, archive: Orthanc) -> Iterator[Viewer]:
    """A page of OHIF on the archive."""
    with ExitStack() as stack:
        chromium = stack.enter_context(browser.chromium())
        try:
            folder = install_ohif.installed(request.param)
        except install_ohif.InstallError as error:
            pytest.skip(str(error))
        address = stack.enter_context(ohif.served(folder, archive.http_port))
        yield Viewer(chromium.new_page(viewport=browser.SIZE), address, request.param)


@pytest.mark.parametrize("case", CASES)
def test_the_report_is_read_as_it_was_written(case: str, viewer: Viewer, studies: dict[str, Study]) -> None:
    _, sentence = CASES[case]
    show(viewer, studies[case], "report")
    text = viewer.wait_for_text(sentence)
    assert "Research use only" in text
    assert "Not verified" in text
    assert "%" in text.split("Technique")[0] or case == "unlike"
    assert ("Human reading required" in text) == case.startswith("un")
    for other, (_, foreign) in CASES.items():
        assert other == case or foreign not in text
    fine(viewer, studies[case], case, "report")


@pytest.mark.parametrize("case", CASES)
def test_the_picture_is_in_color_and_its_verdict_uncovered(
    case: str, viewer: Viewer, studies: dict[str, Study]
) -> None:
    verdict, _ = CASES[case]
    show(viewer, studies[case], "heatmap")
    seen = viewer.wait_for_pixels(lambda pixels: banner(pixels, verdict).mean() > 0.02)
    assert all(banner(seen, other).mean() < 0.002 for other in picture.BANNERS if other is not verdict)
    colored = np.mean(mapped(seen) & ~banner(seen, verdict))
    if verdict is Verdict.POSITIVE:
        assert colored > 0.01
    else:  # no map, or one without color
        assert colored < 0.001
    assert not viewer.has_player(), "OHIF's player covers a part of the picture"
    fine(viewer, studies[case], case, "heatmap")


def test_the_region_of_a_pneumonia_is_drawn_on_the_radiograph(viewer: Viewer, studies: dict[str, Study]) -> None:
    show(viewer, studies["pneumonia"], "measurements")
    seen = viewer.wait_for_pixels(lambda pixels: green(pixels).sum() > REGION_GREEN_PX)
    assert seen.mean() > 30  # the radiograph is there, not a black viewport
    assert "%" in viewer.wait_for_text("Certainty of Finding")
    rows, _ = np.nonzero(green(seen))
    assert np.ptp(rows) < 0.9 * len(seen)  # an outline in the image
    fine(viewer, studies["pneumonia"], "pneumonia", "measurements")


@pytest.mark.parametrize("case", [case for case in CASES if case != "pneumonia"])
def test_where_no_region_is_claimed_codes_are_shown_and_nothing_is_drawn(
    case: str, viewer: Viewer, studies: dict[str, Study]
) -> None:
    """No frame, no line to nowhere, no question over the film, and no black viewport."""
    _, sentence = CASES[case]
    show(viewer, studies[case], "measurements")
    text = viewer.wait_for_text(sentence)
    assert f"Pneumonia: {'Absent' if case == 'normal' else 'Undetermined'}" in text
    assert ("Certainty of Finding" in text) == (case != "unlike")
    assert not green(viewer.pixels()).any()
    assert viewer.page.get_by_text("continue tracking").count() == 0
    fine(viewer, studies[case], case, "measurements")


def test_the_segmentation_is_drawn_on_the_radiograph(viewer: Viewer, studies: dict[str, Study]) -> None:
    """Without the plane of its pixels it was a black page."""
    show(viewer, studies["pneumonia"], "segmentation")
    viewer.wait_for_text("open this Segmentation")
    seen = viewer.wait_for_pixels(lambda pixels: pixels.mean() > 30)
    assert seen.std() > 20  # the radiograph is there
    assert "Loading SEG" not in str(viewer.page.locator(browser.PANE).first.inner_text())
    fine(viewer, studies["pneumonia"], "pneumonia", "segmentation")


def show(viewer: Viewer, study: Study, kind: str) -> None:
    viewer.open(study.study_instance_uid, study.series[kind])


def fine(viewer: Viewer, study: Study, case: str, kind: str) -> None:
    """No crash, nothing in the console, every series in the list; keeps the picture where that is wanted."""
    assert not viewer.crashed()
    assert viewer.errors == []
    assert len(viewer.series_list()) == len(study.series)
    folder = os.environ.get("CXR_NODE_SCREENSHOTS")
    if folder and viewer.version == NEWEST:
        viewer.tidy()
        whole = viewer.screenshot()
        height = round(whole.height * SCREENSHOT_WIDTH_PX / whole.width)
        small = whole.resize((SCREENSHOT_WIDTH_PX, height), Image.Resampling.LANCZOS)
        small.save(Path(folder) / f"viewer-{case}-{kind}.png", optimize=True)


def banner(pixels: Pixels, verdict: Verdict) -> NDArray[np.bool_]:
    """Where the banner's color is."""
    color = np.asarray(picture.BANNERS[verdict][0], np.int16)
    near: NDArray[np.bool_] = np.abs(pixels.astype(np.int16) - color).max(axis=-1) <= 8
    return near


def mapped(pixels: Pixels) -> NDArray[np.bool_]:
    """Where the greens and yellows of the heat map are: neither a radiograph nor OHIF's own blue has them."""
    signed = pixels.astype(np.int16)
    greener: NDArray[np.bool_] = signed[..., 1] - signed[..., 2] > 30
    return greener


def green(pixels: Pixels) -> NDArray[np.bool_]:
    """Where OHIF has drawn the region of an SR."""
    red, greenness, blue = np.moveaxis(pixels, -1, 0)
    drawn: NDArray[np.bool_] = (greenness > 150) & (red < 100) & (blue < 100)
    return drawn
