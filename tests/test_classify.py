"""`cxr-node classify` without a network: folders walked, pictures wrapped, every file answered."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import CTImageStorage

from cxr_node.config import loader
from cxr_node.domain import Examination, Radiograph, Verdict
from cxr_node.errors import DataError, ModelError
from cxr_node.model.profile import NetworkSpec
from cxr_node.result_kinds import DICOM_KINDS
from cxr_node.tools import classify
from cxr_node.tools.classify import ResultFiles
from tests import builders

CONFIG = loader.parse({"spool": {"path": "."}})


def folder_of_many(folder: Path) -> Path:
    (folder / "b").mkdir(parents=True)
    (folder / "a.dcm").write_bytes(builders.part10(builders.radiograph()))
    (folder / "b" / "no-suffix").write_bytes(builders.part10(builders.radiograph(2)))
    (folder / "b" / "ct.dcm").write_bytes(builders.part10(builders.radiograph(3, SOPClassUID=CTImageStorage)))
    (folder / "b" / "garbage.dcm").write_bytes(b"\x00" * 128 + b"DICM" + b"garbage" * 9)
    Image.fromarray(builders.chest(bits=8).astype(np.uint8)).save(folder / "c.png")
    (folder / "manifest.csv").write_text("file,label\n")
    (folder / ".hidden").write_text("")
    return folder


def test_a_folder_is_walked_and_every_image_is_answered(tmp_path: Path) -> None:
    files = classify.files([folder_of_many(tmp_path / "data")])
    assert [file.name for file in files] == ["a.dcm", "ct.dcm", "garbage.dcm", "no-suffix", "c.png"]
    answers = {one.path.name: one for one in classify.judge(files, builders.FixedPredictor(), CONFIG, objects=False)}
    assert answers["a.dcm"].verdict is answers["no-suffix"].verdict is answers["c.png"].verdict is Verdict.POSITIVE
    assert answers["ct.dcm"].reason == "sop-class-not-supported"
    assert answers["garbage.dcm"].verdict is Verdict.REJECTED


def test_processes_answer_as_threads_do_and_in_order(tmp_path: Path) -> None:
    files = classify.files([folder_of_many(tmp_path / "data")])
    whole = list(classify.judge(files, builders.FixedPredictor(), CONFIG, objects=True))
    apart = list(classify.judge_apart(files, builders.FixedPredictor, CONFIG, objects=True, count=2))
    assert [one.path for one in apart] == files
    for one, other in zip(whole, apart, strict=True):
        assert (one.as_json("test"), one.artifacts) == (other.as_json("test"), other.artifacts)
    assert any(one.artifacts for one in apart)


class Failing(builders.FixedPredictor):
    """Has no answer."""

    def examine(self, radiograph: Radiograph) -> Examination:
        raise ModelError("the network failed")


def test_what_fails_in_a_process_is_told_as_it_is(tmp_path: Path) -> None:
    files = classify.files([folder_of_many(tmp_path / "data")])
    with pytest.raises(ModelError, match="the network failed"):
        list(classify.judge_apart(files, Failing, CONFIG, objects=False, count=1))


def test_a_process_pays_from_some_files_on(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SimpleNamespace(available=64 << 30)
    monkeypatch.setattr(classify.os, "sched_getaffinity", lambda _: set(range(4)))
    monkeypatch.setattr(classify.psutil, "virtual_memory", lambda: memory)
    assert [classify.processes(count) for count in (1, 63, 64, 100, 1000)] == [1, 1, 2, 3, 4]
    memory.available = 3 << 30
    assert classify.processes(1000) == 3
    memory.available = 0
    assert classify.processes(1000) == 1


def test_the_json_contract(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(builders.part10(builders.radiograph()))
    (tmp_path / "b.dcm").write_bytes(b"rubbish")
    predictor = builders.FixedPredictor(probability=0.5)
    good, bad = (
        one.as_json("test") for one in classify.judge(classify.files([tmp_path]), predictor, CONFIG, objects=False)
    )
    assert (good["verdict"], good["probability"], good["reason"]) == ("UNCERTAIN", 0.5, "between-thresholds")
    assert (bad["verdict"], bad["probability"], bad["profile"]) == ("REJECTED", None, "test")
    assert bad["reason"]
    assert set(good) >= {"path", "verdict", "probability", "reason", "profile"}


def test_the_same_file_gives_the_same_objects(tmp_path: Path) -> None:
    file = tmp_path / "a.dcm"
    file.write_bytes(builders.part10(builders.radiograph()))
    (one,) = classify.judge([file], builders.FixedPredictor(), CONFIG, objects=True)
    (two,) = classify.judge([file], builders.FixedPredictor(), CONFIG, objects=True)
    assert one.artifacts == two.artifacts
    assert len(one.artifacts) == 3
    ResultFiles(tmp_path / "out", [file]).write(one.path, one.sop_instance_uid, one.artifacts)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a.heatmap.dcm",
        "a.measurements.dcm",
        "a.report.dcm",
    ]


@pytest.mark.parametrize(("probability", "kinds"), [(0.97, {"pdf", "key-object", "segmentation"}), (0.03, {"pdf"})])
def test_only_what_some_destination_wants_is_made(tmp_path: Path, probability: float, kinds: set[str]) -> None:
    file = tmp_path / "a.dcm"
    file.write_bytes(builders.part10(builders.radiograph()))
    address = "PACS@127.0.0.1:104"
    wanting = loader.parse(
        {
            "spool": {"path": "."},
            "destinations": [
                {"name": "printer", "address": address, "send": ["pdf"]},
                {"name": "archive", "address": address, "send": ["pdf", "key-object", "segmentation"]},
            ],
        }
    )
    (one,) = classify.judge([file], builders.FixedPredictor(probability=probability), wanting, objects=True)
    assert {artifact.kind.value for artifact in one.artifacts} == kinds


@pytest.mark.parametrize("probability", [0.97, 0.5, 0.03])
def test_a_profile_of_several_classes_gives_every_object(tmp_path: Path, probability: float) -> None:
    file = tmp_path / "a.dcm"
    file.write_bytes(builders.part10(builders.radiograph()))
    spec = NetworkSpec(architecture="fixed", classes={"normal": False, "bacteria": True, "virus": True})
    several = builders.profile(labels=("pneumonia", "normal", "bacteria", "virus"), network=spec)
    kinds = [kind.value for kind in DICOM_KINDS]
    destination = {"name": "archive", "address": "PACS@127.0.0.1:104", "send": kinds}
    wanting = loader.parse({"spool": {"path": "."}, "destinations": [destination]})
    predictors = [
        builders.FixedPredictor(probability=probability, profile=one) for one in (several, builders.profile())
    ]
    answers = [next(classify.judge([file], predictor, wanting, objects=True)) for predictor in predictors]
    assert answers[0].verdict is answers[1].verdict
    assert [artifact.kind for artifact in answers[0].artifacts] == [artifact.kind for artifact in answers[1].artifacts]


def test_what_does_not_exist_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        classify.files([tmp_path / "nowhere"])
    with pytest.raises(DataError, match="no image found"):
        classify.files([tmp_path])
