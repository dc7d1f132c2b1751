"""`cxr-node classify --out`: whatever files are called, no result is ever written over another one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from typer.testing import CliRunner

from cxr_node import wiring
from cxr_node.cli.node import app
from cxr_node.config import loader
from cxr_node.errors import DataError
from cxr_node.tools import classify
from cxr_node.tools.classify import ResultFiles
from tests import builders

CONFIG = loader.parse({"spool": {"path": "."}})
KINDS = ("heatmap", "measurements", "report")


def image(path: Path, number: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(builders.part10(builders.radiograph(number)))
    return path


def run(paths: list[Path], out: Path, probability: float = 0.97) -> dict[Path, list[str]]:
    """What `classify --out` writes for each image."""
    files = classify.files(paths)
    results = ResultFiles(out, files)
    answers = classify.judge(files, builders.FixedPredictor(probability=probability), CONFIG, objects=True)
    return {
        one.path: [file.name for file in results.write(one.path, one.sop_instance_uid, one.artifacts)]
        for one in answers
    }


def patients(out: Path) -> dict[str, str]:
    return {file.name: str(dcmread(file, stop_before_pixels=True).PatientID) for file in out.iterdir()}


def test_equal_names_in_two_folders(tmp_path: Path) -> None:
    """A patient CD: every one has .../ST000001/IM000001."""
    for number in (1, 2, 3):
        image(tmp_path / "in" / f"PAT{number}" / "ST1" / "IM000001", number)
    written = run([tmp_path / "in"], tmp_path / "out")
    found = patients(tmp_path / "out")
    assert len(found) == 9
    for number, (path, names) in enumerate(written.items(), 1):
        assert path.parts[-3] == f"PAT{number}"
        assert {found[name] for name in names} == {f"TEST-{number:04d}"}


@pytest.mark.parametrize(
    "names",
    [
        ("DX.1.2.3.4.1", "DX.1.2.3.4.2"),
        ("a.dcm", "a"),
        ("a.dcm", "a.ima"),
        ("a.dcm", "A.dcm"),
        ("a.dcm", "a.DCM"),
        ("ä.dcm", "Ä.dcm"),
        ("n" * 200 + "1.dcm", "n" * 200 + "2.dcm"),
    ],
)
def test_names_that_are_almost_equal(tmp_path: Path, names: tuple[str, str]) -> None:
    for number, name in enumerate(names, 1):
        image(tmp_path / "in" / name, number)
    written = run([tmp_path / "in"], tmp_path / "out")
    found = patients(tmp_path / "out")
    assert sorted(found.values()) == sorted(["TEST-0001", "TEST-0002"] * 3)
    assert len({name.casefold() for name in found}) == 6
    for path, made in written.items():
        number = names.index(path.name) + 1
        assert {found[name] for name in made} == {f"TEST-{number:04d}"}


def test_a_picture_and_an_object_of_one_name(tmp_path: Path) -> None:
    image(tmp_path / "in" / "a.dcm", 1)
    Image.fromarray(builders.chest(bits=8).astype(np.uint8)).save(tmp_path / "in" / "a.png")
    run([tmp_path / "in"], tmp_path / "out")
    assert len(patients(tmp_path / "out")) == 6


def test_a_name_alone_stays_as_it_is(tmp_path: Path) -> None:
    image(tmp_path / "in" / "a.dcm", 1)
    image(tmp_path / "in" / "uid" / "DX.1.2.3", 2)
    run([tmp_path / "in"], tmp_path / "out")
    assert sorted(patients(tmp_path / "out")) == sorted(
        f"{name}.{kind}.dcm" for name in ("a", "DX.1.2.3") for kind in KINDS
    )


def test_a_second_run_of_the_same_writes_the_same(tmp_path: Path) -> None:
    for number in (1, 2):
        image(tmp_path / "in" / f"PAT{number}" / "IM1", number)
    image(tmp_path / "in" / "alone.dcm", 3)
    first = run([tmp_path / "in"], tmp_path / "out")
    before = {file: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert run([tmp_path / "in"], tmp_path / "out") == first
    assert {file: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before


def test_results_of_an_earlier_run_stay(tmp_path: Path) -> None:
    """Another patient, then the same image with another answer, and a third time."""
    one, two = image(tmp_path / "1" / "IM1", 1), image(tmp_path / "2" / "IM1", 2)
    run([one], tmp_path / "out")
    kept = {file: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    for probability in (0.97, 0.03, 0.5):
        names = run([two], tmp_path / "out", probability)[two]
        found = patients(tmp_path / "out")
        assert {found[name] for name in names} == {"TEST-0002"}
        assert not {tmp_path / "out" / name for name in names} & set(kept)
        assert all(file.read_bytes() == content for file, content in kept.items())
        kept |= {tmp_path / "out" / name: (tmp_path / "out" / name).read_bytes() for name in names}
    assert len(kept) == 11  # a NORMAL has no picture


def test_one_foreign_file_is_enough_to_choose_another_name(tmp_path: Path) -> None:
    """Even of a kind that is not made now: nobody should find two patients under one name."""
    (tmp_path / "out").mkdir()
    for kind in ("key-object", "REPORT"):
        (tmp_path / "out" / f"a.{kind}.dcm").write_bytes(b"somebody else's")
        (names,) = run([image(tmp_path / "a.dcm", 1)], tmp_path / "out").values()
        assert all(name.startswith("a-") for name in names)
        assert (tmp_path / "out" / f"a.{kind}.dcm").read_bytes() == b"somebody else's"


def test_a_folder_that_cannot_be_written_to_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(DataError, match="cannot be written there"):
        run([image(tmp_path / "a.dcm", 1)], tmp_path / "out")


def test_the_command_says_which_files_are_whose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "on_demand", lambda *_, **__: builders.FixedPredictor())
    for number in (1, 2):
        image(tmp_path / "in" / f"PAT{number}" / "IM1", number)
    argv = ["classify", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    rows = [json.loads(line) for line in CliRunner().invoke(app, [*argv, "--json"]).stdout.splitlines()]
    found = patients(tmp_path / "out")
    for number, row in enumerate(rows, 1):
        assert len(row["objects"]) == 3
        assert {found[name] for name in row["objects"]} == {f"TEST-{number:04d}"}
    told = " ".join(CliRunner().invoke(app, argv).output.split())
    assert all(row["objects"][0] in told.replace(" ", "") or row["objects"][0] in told for row in rows)
