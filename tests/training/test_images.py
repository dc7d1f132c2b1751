"""No child in two parts, DICOM files seen as the node sees them; one clear sentence for every mistake."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cxr_node import pipeline
from cxr_node.config.schema import Admission
from cxr_node.dicom.pixels import pixels
from cxr_node.dicom.read import header
from cxr_node.errors import DataError
from cxr_node.training.data import images
from cxr_node.training.data.images import Item
from cxr_node.training.learn import train
from tests import builders
from tests.training import folders
from tests.training.folders import CLASSES


def split(items: list[Item], seed: int = 1) -> dict[str, list[Item]]:
    return images.split(items, validation=0.2, calibration=0.2, seed=seed)


def test_children_stay_in_one_part(tmp_path: Path) -> None:
    rows = folders.children()
    items = images.read(folders.manifest(tmp_path, rows), CLASSES)
    child_of = {tmp_path / row["file"]: (row["patient"], row["sublabel"]) for row in rows}
    parts = {name: {child_of[item.path] for item in part} for name, part in split(items).items()}
    assert sum(len(children) for children in parts.values()) == len(set(child_of.values()))
    assert sum(len(part) for part in split(items).values()) == len(items)


def test_numbers_of_other_subclasses_are_other_children(tmp_path: Path) -> None:
    items = images.read(folders.manifest(tmp_path, folders.children(count=4)), CLASSES)
    assert len({item.group for item in items}) == 3 * 4


def test_exact_copies_join_two_children(tmp_path: Path) -> None:
    rows = folders.children(count=4, images=2)
    rows[0]["exact_duplicate_group"] = rows[2]["exact_duplicate_group"] = "7"
    items = images.read(folders.manifest(tmp_path, rows), CLASSES)
    assert len({items[place].group for place in range(4)}) == 1
    assert items[4].group != items[0].group


def test_files_of_equal_content_join_without_being_told(tmp_path: Path) -> None:
    folders.tree(tmp_path)
    shutil.copy(tmp_path / "NORMAL" / "0.png", tmp_path / "NORMAL" / "copy.png")
    group_of = {item.path.name: item.group for item in images.read(tmp_path, CLASSES) if not item.positive}
    assert group_of["0.png"] == group_of["copy.png"] != group_of["1.png"]


@settings(max_examples=50)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=6, max_size=40),
    seed=st.integers(0, 1000),
)
def test_every_deal_is_whole_disjoint_and_has_both_classes(sizes: list[int], seed: int) -> None:
    items = [
        Item(path=Path(f"{group}-{place}"), positive=bool(group % 2), kind="", group=str(group), digest="")
        for group, size in enumerate(sizes)
        for place in range(size)
    ]
    parts = split(items, seed)
    groups = [{item.group for item in part} for part in parts.values()]
    assert sum(len(one) for one in groups) == len(sizes)
    assert sorted(item.path for part in parts.values() for item in part) == sorted(item.path for item in items)
    for part in parts.values():
        assert {item.positive for item in part} == {True, False}
    assert parts == split(items, seed)


def test_new_seed_is_a_new_deal(tmp_path: Path) -> None:
    items = images.read(folders.tree(tmp_path), CLASSES)
    assert split(items, seed=1) != split(items, seed=2)


def test_folder_tree_is_read(tmp_path: Path) -> None:
    items = images.read(folders.tree(tmp_path, each=4), CLASSES)
    assert [item.positive for item in items].count(True) == 4
    assert len(items) == 8
    loaded = images.load_all(items, 24)
    assert loaded.shape == (8, 24, 24)
    assert loaded.dtype == np.uint8


def test_a_column_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no manifest\.csv, so no column 'finding'"):
        images.read(folders.tree(tmp_path), CLASSES, label_column="finding")


def test_16_bits_are_kept(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 32768], [65535, 256]], dtype=np.uint16)).save(tmp_path / "deep.png")
    item = Item(path=tmp_path / "deep.png", positive=True, kind="", group="", digest="")
    np.testing.assert_allclose(images.load(item), [[0.0, 0.5], [1.0, 0.0039]], atol=1e-4)


def test_other_label_columns_may_hold_other_words(tmp_path: Path) -> None:
    rows = [{"file": f"{n}.png", "finding": ("Opacity", "Clear", "Other")[n % 3]} for n in range(6)]
    folders.manifest(tmp_path, rows)
    items = images.read(tmp_path, {"Opacity": True, "Clear": False}, label_column="finding")
    assert len(items) == 4


def test_fingerprint_knows_content_not_names(tmp_path: Path) -> None:
    folders.tree(tmp_path / "a", each=3)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "NORMAL" / "0.png").rename(tmp_path / "b" / "NORMAL" / "9.png")
    same, other = images.read(tmp_path / "a", CLASSES), images.read(tmp_path / "b", CLASSES)
    assert images.fingerprint(same) == images.fingerprint(other)
    assert images.fingerprint(same[1:]) != images.fingerprint(same)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere is not a folder$"):
        images.read(tmp_path / "nowhere", CLASSES)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no labelled image"):
        images.read(tmp_path, CLASSES)


def test_one_class_only(tmp_path: Path) -> None:
    folders.tree(tmp_path)
    shutil.rmtree(tmp_path / "NORMAL")
    with pytest.raises(DataError, match="has no image with the label 'NORMAL'"):
        images.read(tmp_path, CLASSES)


def test_unknown_label(tmp_path: Path) -> None:
    folders.tree(tmp_path)
    folders.draw(tmp_path / "COVID" / "0.png", opacity=True, seed=1)
    with pytest.raises(DataError, match="has the label 'COVID'; known are NORMAL, PNEUMONIA"):
        images.read(tmp_path, CLASSES)


def test_listed_file_is_missing(tmp_path: Path) -> None:
    rows = folders.children(count=3)
    folders.manifest(tmp_path, rows)
    (tmp_path / rows[5]["file"]).unlink()
    with pytest.raises(DataError, match=f"{rows[5]['file']} is listed but does not exist"):
        images.read(tmp_path, CLASSES)


def test_manifest_without_labels(tmp_path: Path) -> None:
    folders.manifest(tmp_path, [{"file": "0.png", "class": "NORMAL"}])
    with pytest.raises(DataError, match="has no column 'label'; it has file, class"):
        images.read(tmp_path, CLASSES)


def test_too_few_patients(tmp_path: Path) -> None:
    items = images.read(folders.tree(tmp_path, each=2), CLASSES)
    with pytest.raises(DataError, match="2 patients with the negative label are too few"):
        split(items)


def test_broken_image(tmp_path: Path) -> None:
    folders.tree(tmp_path)
    (tmp_path / "NORMAL" / "3.png").write_bytes(b"\x89PNG broken")
    items = images.read(tmp_path, CLASSES)
    with pytest.raises(DataError, match=r"NORMAL/3\.png is not a readable image"):
        images.load_all(items, 32)


def test_classes_of_another_column_change_no_deal(tmp_path: Path) -> None:
    """Recipes of two classes and of three are compared on the same patients."""
    folders.manifest(tmp_path, folders.children())
    two = images.read(tmp_path, CLASSES)
    three = images.read(tmp_path, {"normal": False, "bacteria": True, "virus": True}, label_column="sublabel")
    assert images.fingerprint(two) == images.fingerprint(three)
    for part, items in split(two).items():
        assert {item.path for item in items} == {item.path for item in split(three)[part]}
    assert {item.word for item in three} == {"normal", "bacteria", "virus"}


def test_a_tree_may_have_a_folder_for_each_of_several_classes(tmp_path: Path) -> None:
    for word in ("healthy", "pneumonia", "tuberculosis"):
        folders.draw(tmp_path / word / "0.png", opacity=word != "healthy", seed=len(word))
    sides = {"healthy": False, "pneumonia": True, "tuberculosis": False}
    items = images.read(tmp_path, sides, label_column="sublabel")
    assert {item.word: item.positive for item in items} == sides


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


@pytest.mark.whole
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
