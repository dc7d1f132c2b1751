"""`cxr-node classify --study`: one answer for each study, the same objects as the node sends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from typer.testing import CliRunner

from cxr_node import pipeline, study_pipeline, wiring
from cxr_node.cli.node import app
from cxr_node.config import loader
from cxr_node.config.schema import Config
from cxr_node.domain import Origin, Precedent, Verdict
from cxr_node.outcome import Rejected, Reported, StudyCase, StudyImage
from cxr_node.tools import classify, classify_study
from cxr_node.tools.classify import ResultFiles
from cxr_node.tools.classify_study import StudyAnswer
from tests import builders
from tests.dicom import studies
from tests.messages.studies import EHR, RIS

CONFIG = loader.parse({"spool": {"path": "."}})
CONFIG_OF_MESSAGES = loader.parse({"spool": {"path": "."}, "destinations": [RIS, EHR]})
OTHER = {"StudyInstanceUID": "1.2.826.0.1.3680043.10.9"}


def folder_of_two(folder: Path) -> Path:
    """A study of two frontals and a lateral, in two folders; another one; and a file of none."""
    files = {
        "1/a.dcm": studies.source(1),
        "2/a.dcm": studies.source(2),
        "2/b": studies.source(3, ViewPosition="LL"),
        "z.dcm": studies.source(4, **OTHER),
        "rubbish.dcm": b"\0" * 128 + b"DICM" + b"rubbish" * 9,
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def judged(folder: Path, config: Config = CONFIG, probability: float = 0.97, **of: Any) -> list[StudyAnswer]:
    found = classify_study.group(classify.files([folder]))
    predictor = builders.FixedPredictor(probability=probability)
    return list(classify_study.judge(found, predictor, config, **{"objects": True} | of))


def test_files_are_grouped_by_study_and_each_is_accounted_for(tmp_path: Path) -> None:
    first, rubbish, other = judged(folder_of_two(tmp_path), objects=False)
    assert [each.verdict for each in first.images] == [Verdict.POSITIVE, Verdict.POSITIVE, Verdict.REJECTED]
    assert (first.word, first.images[2].reason) == ("PNEUMONIA", "view-not-frontal")
    assert (rubbish.study_instance_uid, rubbish.word) == (None, "REJECTED")
    assert (other.study_instance_uid, other.word, len(other.images)) == (OTHER["StudyInstanceUID"], "PNEUMONIA", 1)
    assert not [one for each in (first, other) for one in (*each.artifacts, *each.images[0].artifacts)]


def as_the_node(paths: list[Path], config: Config, probability: float) -> set[bytes]:
    """What a node with this configuration sends of a study that somebody else sends it."""
    images, others, pictures = [], [], []
    for path in paths:
        origin = Origin(calling_ae_title="XR1", peer_host="10.0.0.7", received_at=classify.origin(path).received_at)
        content = path.read_bytes()
        outcome = pipeline.process(
            content, origin, builders.FixedPredictor(probability=probability), config, Precedent()
        )
        match outcome:
            case Reported(judgement=told) if told is not None:
                images.append(StudyImage(content=content, origin=origin, judgement=told))
                pictures += outcome.pictures
            case Rejected(listed=told) if told is not None:
                others.append(told)
    report = study_pipeline.report_study(StudyCase(images=tuple(reversed(images)), others=tuple(others)), config)
    assert report is not None
    return {each.content for each in (*report.artifacts, *pictures)}


@pytest.mark.parametrize(("probability", "count"), [(0.97, 4), (0.03, 2)])
@pytest.mark.parametrize("send", [None, ["report", "key-object", "segmentation", "heatmap"]])
def test_objects_are_those_of_the_node(tmp_path: Path, probability: float, count: int, send: list[str] | None) -> None:
    wants = {"name": "pacs", "address": "PACS@127.0.0.1:104"} | ({"send": send} if send else {})
    config = loader.parse({"spool": {"path": "."}, "destinations": [wants]})
    folder = folder_of_two(tmp_path / "in")
    first = judged(folder, config, probability)[0]
    results = ResultFiles(tmp_path / "out", [path for path, _ in classify_study.group([folder / "z.dcm"])[0].files])
    written = first.write(results)
    paths = [folder / "1" / "a.dcm", folder / "2" / "a.dcm", folder / "2" / "b"]
    assert {path.read_bytes() for path in written} == as_the_node(paths, config, probability)
    assert send is not None or len(written) == count


def test_without_a_destination_that_wants_a_study_the_standard_objects_are_made(tmp_path: Path) -> None:
    wants = {"name": "pacs", "address": "PACS@127.0.0.1:104", "send": ["pdf"], "report_per": "image"}
    config = loader.parse({"spool": {"path": "."}, "destinations": [wants]})
    folder = folder_of_two(tmp_path)
    first = judged(folder, config)[0]
    assert [each.kind for each in first.artifacts] == ["report", "measurements"]
    (alone,) = classify.judge([folder / "z.dcm"], builders.FixedPredictor(), config, objects=True)
    assert [each.kind for each in alone.artifacts] == ["pdf"]


def test_a_second_patient_in_a_study_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(studies.source(1))
    (tmp_path / "b.dcm").write_bytes(studies.source(2, PatientID="SOMEBODY-ELSE"))
    (only,) = judged(tmp_path)
    assert [each.reason for each in only.images] == [None, "identity-conflict"]
    assert only.verdict is Verdict.POSITIVE
    report = dcmread(tmp_path / "a.dcm"), only.artifacts[0].content
    assert b"SOMEBODY-ELSE" not in report[1]
    assert b"Image 2" not in report[1]


@pytest.mark.parametrize(
    ("overrides", "word", "kinds"),
    [({"ViewPosition": "LL"}, "UNCERTAIN", ["report"]), ({"BodyPartExamined": "HAND"}, "REJECTED", [])],
)
def test_a_study_of_which_nothing_was_analysed(
    tmp_path: Path, overrides: dict[str, str], word: str, kinds: list[str]
) -> None:
    (tmp_path / "a.dcm").write_bytes(studies.source(1, **overrides))
    (only,) = judged(tmp_path)
    assert (only.word, [each.kind for each in only.artifacts]) == (word, kinds)


def test_a_file_that_lies_there_twice_has_one_picture(tmp_path: Path) -> None:
    for name in ("a.dcm", "b.dcm"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(studies.source(1))
    (only,) = judged(tmp_path / "in")
    written = only.write(ResultFiles(tmp_path / "out", classify.files([tmp_path / "in"])))
    assert len(written) == 3
    assert len({dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in written}) == 3


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the same: names, bytes; what it writes passes `verify`, with its sources."""
    monkeypatch.setattr(wiring, "on_demand", lambda *_, **__: builders.FixedPredictor())
    folder, out = folder_of_two(tmp_path / "in"), tmp_path / "out"
    argv = ["classify", "--study", str(folder), "--out", str(out)]
    ran = CliRunner().invoke(app, [*argv, "--json"])
    assert ran.exit_code == 0, ran.output
    first, rubbish, other = map(json.loads, ran.stdout.splitlines())
    assert set(first) == {"study", "verdict", "images", "objects"}
    assert (first["verdict"], rubbish["verdict"], rubbish["objects"]) == ("PNEUMONIA", "REJECTED", [])
    assert [Path(each["path"]).name for each in first["images"]] == ["a.dcm", "a.dcm", "b"]
    assert len(first["objects"]) == 4
    assert set(other["objects"]) == {
        f"{OTHER['StudyInstanceUID']}.report.dcm", f"{OTHER['StudyInstanceUID']}.measurements.dcm", "z.heatmap.dcm",
    }  # fmt: skip
    before = {file: file.read_bytes() for file in out.iterdir()}
    told = " ".join(CliRunner().invoke(app, argv).output.split())
    assert "not analysed" in told
    assert {file: file.read_bytes() for file in out.iterdir()} == before
    sources = [str(folder / name) for name in ("1", "2", "z.dcm")]
    checked = CliRunner().invoke(app, ["verify", *sources, str(out)])
    assert checked.stdout.splitlines() == ["7 results, 4 sources, 0 flaws"]


def test_messages_are_written_as_they_would_be_sent(tmp_path: Path) -> None:
    """With names by which other programs know them; a folder that holds some is not walked for images."""
    there = tmp_path / "images"
    there.mkdir()
    (there / "a.dcm").write_bytes(studies.source(1))
    (answer,) = judged(there, CONFIG_OF_MESSAGES)
    names = {path.name: path.read_bytes() for path in answer.write(ResultFiles(there, []))}
    uid = answer.study_instance_uid
    assert set(names) == {f"{uid}.hl7", f"{uid}.fhir.json"}
    assert names[f"{uid}.hl7"].startswith(b"MSH|^~\\&|")
    assert json.loads(names[f"{uid}.fhir.json"])["type"] == "transaction"
    assert classify.files([there]) == [there / "a.dcm"]
