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
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[demo.IndexRow], Path]:
    out = tmp_path_factory.mktemp("demo") / "out"
    rubbish = out.parent / "rubbish.dcm"
    rubbish.write_bytes(b"\0" * 128 + b"DICM" + b"rubbish" * 50)
    lateral = out.parent / "lateral.dcm"
    lateral.write_bytes(builders.part10(builders.radiograph(ViewPosition="LL", PatientOrientation=["A", "F"])))
    images = sorted(drawn.BUILT_IN.glob("*.jpg"))
    return demo.run([*images, rubbish, lateral], out, Console(quiet=True)), out


def test_every_radiograph_is_answered_with_its_objects(shown: tuple[list[demo.IndexRow], Path]) -> None:
    rows, _ = shown
    assert len(rows) == 7  # six built in, one lateral; rubbish is said and left out
    *built_in, lateral = rows
    assert [row.verdict for row in built_in] == ["NORMAL"] * 3 + ["PNEUMONIA"] * 2 + ["UNCERTAIN"]
    doubtful = built_in[-1]
    assert doubtful.reason == "between-thresholds"
    assert doubtful.probability is not None and 0.25 < doubtful.probability < 0.6  # far from both
    assert all(row.objects == ("report.dcm", "measurements.dcm", "heatmap.dcm") for row in built_in)
    assert all(row.turnaround_ms is not None and row.turnaround_ms > 0 for row in built_in)
    assert (lateral.verdict, lateral.reason, lateral.objects) == ("REJECTED", "view-not-frontal", ())


def test_the_folder_opens(shown: tuple[list[demo.IndexRow], Path]) -> None:
    rows, out = shown
    page = (out / "index.html").read_text()
    assert "Research use only" in page
    assert all(row.name in page and row.said in page for row in rows)
    assert "between-thresholds" not in page
    assert "NORMAL" not in re.sub(r"<style>.*?</style>|<[^>]*>", "", page, flags=re.DOTALL)
    for row in rows[:-1]:
        source, report = dcmread(row.folder / "source.dcm"), dcmread(row.folder / "report.dcm")
        assert report.StudyInstanceUID == source.StudyInstanceUID
        assert f"AI: {row.said}" in (row.folder / "report.html").read_text()
        with Image.open(row.folder / "heatmap.png") as picture:
            assert picture.mode == "RGB"
            assert np.asarray(picture).std() > 10
