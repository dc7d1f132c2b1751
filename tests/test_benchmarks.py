"""The arithmetic of the benchmarks, and that docs/performance.md is what their JSON gives. Nothing is timed here."""

from __future__ import annotations

import copy
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

pytest.importorskip("pytorch_grad_cam", reason="the plain side is not installed: pip install 'cxr-node[bench]'")
pytest.importorskip("cv2", reason="the plain side is not installed: pip install 'cxr-node[bench]'")

from benchmarks import classify, growth, page, record, start, wire
from benchmarks.images import Images
from benchmarks.peers import PLAIN
from cxr_node.tools import drawn
from cxr_node.tools.drawn import Plate


@pytest.fixture(scope="module")
def runs() -> dict[str, Any]:
    return page.read()


def test_percentiles_are_linear_between_two_values() -> None:
    told = record.spread([4.0, 1.0, 3.0, 2.0, 5.0])
    assert (told["n"], told["min"], told["p25"], told["p50"], told["p75"], told["max"]) == (5, 1.0, 2.0, 3.0, 4.0, 5.0)
    assert told["p95"] == pytest.approx(4.8)
    assert told["raw"] == [4.0, 1.0, 3.0, 2.0, 5.0]


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_there_are_no_percentiles_of_what_is_no_number(values: list[float]) -> None:
    with pytest.raises(ValueError, match="numbers"):
        record.spread(values)


def test_a_ratio_needs_two_figures() -> None:
    assert record.ratio(10.0, 4.0) == 2.5
    for more, less in ((0.0, 1.0), (1.0, 0.0), (1.0, -1.0), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match="above 0"):
            record.ratio(more, less)


def test_growth_is_the_worst_step_from_fewest_to_most() -> None:
    assert growth.growth([[10.0, 20.0], [11.0, 30.0], [12.0, 22.0]]) == {"rows": 1.2, "associations": 30.0 / 11.0}


@pytest.mark.whole
@pytest.mark.parametrize("side", [classify.OURS, classify.PLAIN])
def test_both_sides_of_classify_answer_every_file(side: str, tmp_path: Path) -> None:
    list(drawn.write(tmp_path, Plate(rows=224, cols=224), 2))
    found = classify.timed(side, tmp_path, 2)
    assert all(value > 0 for value in found.values())
    with pytest.raises(ValueError, match="not every file"):
        classify.timed(side, tmp_path, 3)


def test_a_folder_is_compared_by_medians() -> None:
    runs = [{"images_per_s": rate, "cores_busy": 1.0} for rate in (9.0, 20.0, 11.0)]
    other = [{"images_per_s": 2.0, "cores_busy": 1.5}]
    found = classify.compared({classify.OURS: runs, classify.PLAIN: other})
    assert (found["ratio"], found[classify.PLAIN]["cores_busy"]["p50"]) == (5.5, 1.5)


def test_an_installation_is_weighed_by_package(tmp_path: Path) -> None:
    for name, size in {"scipy/a.py": 2, "scipy.libs/b.so": 3, "_gdcm/c.so": 4, "d.py": 1}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size * 1_000_000))
    assert start.weights(tmp_path) == {"all": 10.0, "scipy": 5.0, "gdcm": 4.0, "d.py": 1.0}


def test_a_command_is_timed_to_its_end_and_must_succeed() -> None:
    found = start.timed([sys.executable, "-c", "sum(range(10**6))"], dict(os.environ))
    assert found["cpu_s"] > 0.0
    assert found["wall_s"] > 0.0
    with pytest.raises(subprocess.CalledProcessError):
        start.timed([sys.executable, "-c", "raise SystemExit(3)"], dict(os.environ))


def test_numbered_instances_differ_in_their_uids_alone() -> None:
    images = Images(Plate(rows=64, cols=80))
    one, other = (dcmread(io.BytesIO(b"".join(images.numbered(number).parts)), force=True) for number in (5, 11))
    assert {element.keyword for element in one if element != other[element.tag]} == {
        "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID",
    }  # fmt: skip
    assert one.SOPInstanceUID == images.numbered(5).sop_instance_uid
    assert one.SOPInstanceUID.is_valid
    assert np.array_equal(one.PixelData, other.PixelData)


def test_a_command_reads_as_it_was_written() -> None:
    elements = {0x0002: b"1.2.3\0", 0x0100: b"\1\0"}
    assert {number: wire.elements_of(wire.command(elements))[number] for number in elements} == elements


def test_the_committed_page_is_what_the_figures_give(runs: dict[str, Any]) -> None:
    """To mend: `python -m benchmarks.page`."""
    assert (page.DOCS / "performance.md").read_text("utf-8") == page.write(runs)


def test_the_committed_charts_show_the_figures(runs: dict[str, Any]) -> None:
    for name in page.NAMES:
        chart = page.picture(page.PICTURES, name)
        assert page.drawn_from(chart.read_text("utf-8")) == page.digest(runs[name]), "run: python -m benchmarks.page"


def test_charts_are_drawn_anew_without_a_difference_of_their_own(runs: dict[str, Any], tmp_path: Path) -> None:
    page.draw(runs, tmp_path / "one")
    page.draw(runs, tmp_path / "two")
    for name in page.NAMES:
        one, two = (page.picture(tmp_path / folder, name).read_bytes() for folder in ("one", "two"))
        assert one == two


def test_a_goal_that_is_missed_is_said(runs: dict[str, Any]) -> None:
    slower = copy.deepcopy(runs)
    slower["node"]["figures"]["turnaround"]["ratio"]["p50"][PLAIN] = 0.5
    goal = next(goal for goal in page.goals(slower) if goal.what.startswith("turnaround"))
    assert (goal.seen, goal.met) == ("0.5 x", False)
    assert f"| {goal.what} | at least 4 x | 0.5 x | **no** |" in page.write(slower)
