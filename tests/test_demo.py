"""The README's first command: the built-in radiographs through a real node, into a folder that a person can open."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from rich.console import Console

from cxr_node import demo
from cxr_node.tools import drawn
from tests import builders


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[demo.StudyRow], Path]:
    out = tmp_path_factory.mktemp("demo") / "out"
    rubbish = out.parent / "rubbish.dcm"
    rubbish.write_bytes(b"\0" * 128 + b"DICM" + b"rubbish" * 50)
    lateral = out.parent / "lateral.dcm"
    lateral.write_bytes(builders.part10(builders.radiograph(ViewPosition="LL", PatientOrientation=["A", "F"])))
    images = sorted(drawn.BUILT_IN.glob("*.jpg"))
    return demo.run([*images, rubbish, lateral], out, Console(quiet=True)), out


def test_every_study_is_answered_with_its_objects(shown: tuple[list[demo.StudyRow], Path]) -> None:
    rows, _ = shown
    assert [len(row.images) for row in rows] == [2, 1, 1, 1, 1, 1]  # rubbish is said and left out
    assert [row.verdict.value for row in rows] == [
        "POSITIVE", "NORMAL", "NORMAL", "POSITIVE", "UNCERTAIN", "UNCERTAIN",
    ]  # fmt: skip
    together, clear, _, _, doubtful, lateral = rows
    assert [image.verdict for image in together.images] == ["NORMAL", "PNEUMONIA"]
    (image,) = doubtful.images
    assert image.reason == "between-thresholds"
    assert image.probability is not None and 0.06 < image.probability < 0.8  # close to neither
    assert together.objects == ("report.dcm", "measurements.dcm", "heatmap-2.dcm")
    assert clear.objects == ("report.dcm", "measurements.dcm")
    assert doubtful.objects == ("report.dcm", "measurements.dcm", "heatmap-1.dcm")
    assert all(row.turnaround_ms is not None and row.turnaround_ms > 1000 * demo.QUIET_S for row in rows)
    (image,) = lateral.images
    assert (image.verdict, image.reason, lateral.objects) == ("REJECTED", "view-not-frontal", ("report.dcm",))


def test_the_folder_opens(shown: tuple[list[demo.StudyRow], Path]) -> None:
    rows, out = shown
    page = (out / "index.html").read_text()
    assert "Research use only" in page
    assert "7 radiographs of 6 studies" in page
    assert all(row.name in page and image.said in page for row in rows for image in row.images)
    assert "between-thresholds" not in page
    assert "NORMAL" not in re.sub(r"<style>.*?</style>|<[^>]*>", "", page, flags=re.DOTALL)
    for row in rows:
        report = dcmread(row.folder / "report.dcm")
        assert f"AI: {row.said}" in (row.folder / "report.html").read_text()
        for number, _ in enumerate(row.images, 1):
            assert report.StudyInstanceUID == dcmread(row.folder / f"source-{number}.dcm").StudyInstanceUID
    for name in (name.removesuffix(".dcm") for row in rows for name in row.objects if name.startswith("heatmap")):
        assert f"{name}.png" in page
    with Image.open(rows[0].folder / "heatmap-2.png") as picture:
        assert picture.mode == "RGB"
        assert np.asarray(picture).std() > 10


def test_the_report_of_two_images_names_both(shown: tuple[list[demo.StudyRow], Path]) -> None:
    text = (shown[0][0].folder / "report.html").read_text()
    assert "AI: PNEUMONIA SUSPECTED in image 2." in text
    assert "Image 1 (AP, series 1, image 1): No pneumonia detected" in text
