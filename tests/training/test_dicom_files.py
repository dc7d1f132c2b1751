"""DICOM files with labels are training images like any others, seen as the node sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cxr_node import pipeline
from cxr_node.config.schema import Admission
from cxr_node.dicom.pixels import pixels
from cxr_node.dicom.read import header
from cxr_node.errors import DataError
from cxr_node.training.data import images
from cxr_node.training.learn import train
from tests import builders
from tests.training import folders
from tests.training.folders import CLASSES


def write(path: Path, number: int, **overrides: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = builders.chest(40, 48) if "PNEUMONIA" in str(path) else builders.chest(40, 48)[::-1].copy()
    stored = stored // 2 + np.random.default_rng(number).integers(0, 400, stored.shape).astype(np.uint16)
    path.write_bytes(builders.part10(builders.radiograph(number, stored, **overrides)))
    return path


def tree(folder: Path, each: int = 5) -> Path:
    """One folder per class, with the names that archives give: a suffix, none, and a UID."""
    for place, label in enumerate(CLASSES):
        for number in range(each):
            name = (f"{number}.dcm", f"IM{number}", f"1.2.3.{number}")[number % 3]
            write(folder / label / name, number=100 * place + number)
    return folder


def test_a_tree_of_dicom_files_is_read(tmp_path: Path) -> None:
    tree(tmp_path)
    (tmp_path / "NORMAL" / "notes.txt").write_text("no image")
    (tmp_path / "NORMAL" / ".hidden.dcm").write_bytes(b"")
    items = images.read(tmp_path, CLASSES)
    assert sorted(item.positive for item in items) == [False] * 5 + [True] * 5
    assert len({item.group for item in items}) == 10


def test_images_are_those_that_the_node_sees(tmp_path: Path) -> None:
    path = write(tmp_path / "PNEUMONIA" / "a.dcm", number=3, PhotometricInterpretation="MONOCHROME1")
    source = header.read(path.read_bytes())
    assert isinstance(source, header.Source)
    seen = pixels.decode(source, Admission()).pixels
    np.testing.assert_array_equal(images.load_dicom(path), seen)
    assert pipeline.pixels.decode is pixels.decode
    inverse = write(tmp_path / "PNEUMONIA" / "b.dcm", number=3, PhotometricInterpretation="MONOCHROME2")
    assert np.corrcoef(images.load_dicom(inverse).ravel(), seen.ravel())[0, 1] < -0.9


def test_images_of_one_patient_stay_in_one_part(tmp_path: Path) -> None:
    for number in range(12):
        label = "NORMAL" if number % 2 else "PNEUMONIA"
        write(tmp_path / label / f"{number}.dcm", number=number, PatientID=f"CHILD-{number // 4}")
    items = images.read(tmp_path, CLASSES)
    assert len({item.group for item in items}) == 3
    assert not any("CHILD" in item.group for item in items)


def test_without_a_patient_the_study_groups(tmp_path: Path) -> None:
    for number in range(2):
        write(tmp_path / "NORMAL" / f"{number}.dcm", number=number, PatientID="", StudyInstanceUID="1.2.3")
    write(tmp_path / "PNEUMONIA" / "0.dcm", number=5, PatientID="")
    assert len({item.group for item in images.read(tmp_path, CLASSES)}) == 2


def test_a_manifest_may_list_dicom_files_and_its_patients_come_first(tmp_path: Path) -> None:
    rows = []
    for number in range(4):
        write(tmp_path / f"{number}.dcm", number=1)
        rows.append(f"{number}.dcm,{'NORMAL' if number % 2 else 'PNEUMONIA'},child{number // 2}")
    (tmp_path / "manifest.csv").write_text("file,label,patient\n" + "\n".join(rows[:2]) + "\n" + "\n".join(rows[2:]))
    for number in range(4):  # no two alike, or copies would join
        write(tmp_path / f"{number}.dcm", number=number, PatientID="SAME")
    items = images.read(tmp_path, CLASSES)
    assert [items[0].group == items[1].group, items[1].group == items[2].group] == [True, False]


@pytest.mark.parametrize(
    "content", [b"", b"rubbish", builders.part10(builders.radiograph(1))[:3000]], ids=["empty", "rubbish", "cut"]
)
def test_a_broken_file_is_named(content: bytes, tmp_path: Path) -> None:
    tree(tmp_path)
    (tmp_path / "NORMAL" / "9.dcm").write_bytes(content)
    with pytest.raises(DataError, match=r"NORMAL/9\.dcm is not a readable image: "):
        images.load_all(images.read(tmp_path, CLASSES), 32)


def test_an_undecodable_image_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "NORMAL" / "a.dcm", number=1, BitsStored=99)
    with pytest.raises(DataError, match=r"a\.dcm is not a readable image: "):
        images.load_dicom(path)


def test_a_training_from_dicom_files_ends_in_a_profile(tmp_path: Path) -> None:
    recipe = folders.small_recipe(tmp_path, epochs=1, average_epochs=1)
    out = train.run(recipe, tree(tmp_path / "data"), tmp_path / "out", progress=False)
    assert (out / "profile.yaml").is_file()


def test_age_sex_and_view_of_the_header_split_an_evaluation(tmp_path: Path) -> None:
    path = write(tmp_path / "NORMAL" / "a.dcm", number=1, PatientAge="030M", PatientSex="F", ViewPosition="AP")
    assert images.header_tags(path) == {"age": "2.5", "sex": "F", "view": "AP"}
    write(tmp_path / "PNEUMONIA" / "b.dcm", number=2, PatientAge="", PatientSex="", ViewPosition="PA")
    normal, pneumonia = sorted(images.read(tmp_path, CLASSES), key=lambda item: item.positive)
    assert normal.tags == images.header_tags(path)
    assert pneumonia.tags["view"] == "PA"
    assert "sex" not in pneumonia.tags
