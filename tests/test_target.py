"""Another finding is a profile, not a program: no word of the built-in target is left in what the node gives away."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from typer.testing import CliRunner

from cxr_node import pipeline, resources, study_pipeline
from cxr_node.cli import tables
from cxr_node.cli.node import app
from cxr_node.config import loader
from cxr_node.dicom.verify import check
from cxr_node.dicom.verify.rules import Rule
from cxr_node.domain import PNEUMONIA, Origin, Target, Verdict
from cxr_node.model import profile
from cxr_node.model.profile import TargetFile
from cxr_node.outcome import StudyCase, StudyImage
from cxr_node.result_kinds import DICOM_KINDS, ReportPer, ResultKind
from cxr_node.tools import classify, trial_node
from cxr_node.tools.trial_node import Recorder
from tests import builders
from tests.dicom.test_shown_numbers import keep_drawn

TUBERCULOSIS = Target(finding="tuberculosis", code=("56717001", "SCT", "Tuberculosis"))
KINDS = [kind.value for kind in DICOM_KINDS]
PROBABILITIES = {Verdict.POSITIVE: 0.97, Verdict.NEGATIVE: 0.03, Verdict.INDETERMINATE: 0.5}


def predictor(probability: float) -> builders.FixedPredictor:
    point = replace(builders.profile().operating_point, label="tuberculosis")
    judging = builders.profile(labels=("tuberculosis",), operating_point=point, target=TUBERCULOSIS)
    return builders.FixedPredictor(probability=probability, profile=judging)


def config(address: str = "PACS@127.0.0.1:104") -> dict[str, Any]:
    archive = {"address": address, "send": KINDS}
    destinations = [archive | {"name": per.value, "report_per": per.value} for per in ReportPer]
    return {"destinations": destinations, "results": {"normal_heatmap": "banner"}}


def is_silent(content: bytes | str) -> bool:
    raw = content.encode() if isinstance(content, str) else content
    wide = PNEUMONIA.finding.encode("utf-16-be")
    return PNEUMONIA.finding.encode() not in raw.lower() and wide not in raw.lower()


@pytest.mark.parametrize("verdict", PROBABILITIES)
def test_every_result_speaks_of_the_finding_of_its_profile(verdict: Verdict, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = keep_drawn(monkeypatch)
    wanting = loader.parse({"spool": {"path": "."}, **config()})
    sender = Origin(calling_ae_title="MODALITY", peer_host="127.0.0.1", received_at=datetime(2025, 1, 2, tzinfo=UTC))
    source = builders.part10(builders.radiograph())
    outcome = pipeline.process(source, sender, predictor(PROBABILITIES[verdict]), wanting)
    assert isinstance(outcome, pipeline.Reported)
    made = {artifact.kind: artifact for artifact in outcome.artifacts}
    assert set(made) >= {ResultKind.REPORT, ResultKind.MEASUREMENTS, ResultKind.HEATMAP, ResultKind.PDF}
    assert verdict is not Verdict.POSITIVE or set(made) == set(DICOM_KINDS) - {ResultKind.NOT_ANALYSED}
    assert outcome.judgement is not None
    image = StudyImage(content=source, origin=sender, judgement=outcome.judgement)
    whole = study_pipeline.report_study(StudyCase(images=(image,)), wanting)
    assert whole is not None and len(whole.artifacts) >= 2
    every = (*made.values(), *outcome.pictures, *whole.artifacts)
    assert all(is_silent(each.content) for artifact in every for each in artifact.sop_class_choices)
    name = TUBERCULOSIS.name(verdict)
    report = dcmread(io.BytesIO(made[ResultKind.REPORT].content))
    assert report.SeriesDescription.startswith(f"AI: {name}")
    assert name.upper() in drawn
    assert drawn and all(map(is_silent, drawn))
    assert "56717001" in str(dcmread(io.BytesIO(made[ResultKind.MEASUREMENTS].content)))
    for kinds in ([ResultKind.REPORT], [ResultKind.MEASUREMENTS], list(made)):  # what the files are about, they say
        files = [(kind.value, made[kind].content) for kind in kinds]
        checked = check.check_files(files)
        assert (checked.results, checked.flaws) == (len(files), ()), checked.flaws


def test_a_foreign_file_that_reads_as_the_other_verdict_is_found_whatever_it_is_about() -> None:
    wanting = loader.parse({"spool": {"path": "."}, **config()})
    sender = Origin(calling_ae_title="MODALITY", peer_host="127.0.0.1", received_at=datetime(2025, 1, 2, tzinfo=UTC))
    source = builders.part10(builders.radiograph())
    outcome = pipeline.process(source, sender, predictor(PROBABILITIES[Verdict.POSITIVE]), wanting)
    assert isinstance(outcome, pipeline.Reported)
    (report,) = (each for each in outcome.artifacts if each.kind is ResultKind.REPORT)
    dataset = dcmread(io.BytesIO(report.content))
    (findings,) = (each for each in dataset.ContentSequence if each.ConceptNameCodeSequence[0].CodeValue == "121070")
    findings.ContentSequence[0].TextValue = "No tuberculosis detected."
    written = io.BytesIO()
    dataset.save_as(written)
    found = {flaw.rule for flaw in check.check_files([("report", written.getvalue())]).flaws}
    assert Rule.READS_NEGATIVE in found


def test_other_views_too(tmp_path: Path) -> None:
    file = tmp_path / "a.dcm"
    file.write_bytes(builders.part10(builders.radiograph()))
    wanting = loader.parse({"spool": {"path": "."}, **config()})
    words = {}
    for verdict, probability in PROBABILITIES.items():
        (answer,) = classify.judge([file], predictor(probability), wanting, objects=False)
        words[verdict] = answer.as_json("test")["verdict"]
        shown = tables.verdict(answer.word, answer.target).plain
        assert shown.endswith(TUBERCULOSIS.name(verdict))
        assert is_silent(json.dumps(answer.as_json("test"))) and is_silent(str(tables.classify_table([answer]).caption))
    assert list(words.values()) == ["TUBERCULOSIS", "NORMAL", "UNCERTAIN"]


def test_a_row_of_a_profile_that_is_gone_is_given_no_other_finding() -> None:
    assert tables.verdict("TUBERCULOSIS", None).plain == "▲ TUBERCULOSIS SUSPECTED"
    assert tables.verdict("TUBERCULOSIS", PNEUMONIA).plain == "▲ TUBERCULOSIS SUSPECTED"
    assert is_silent(tables.verdict("NORMAL", None).plain)
    assert tables.verdict("UNCERTAIN", None).plain == "? UNCERTAIN"


@pytest.mark.parametrize(
    "finding", ["", "normal", "Uncertain", "negative", "-x", "x ", "a" * 23, "Tuberkulöse", "a\\b"]
)
def test_a_finding_that_would_mislead_or_not_fit_is_refused(finding: str) -> None:
    code = {"value": "56717001", "scheme": "SCT", "meaning": "Tuberculosis"}
    with pytest.raises(ValueError, match="finding"):
        TargetFile.model_validate({"finding": finding, "code": code})


def copied(folder: Path) -> Path:
    """The shipped profile under another name, as one that judges another finding."""
    shutil.copytree(resources.profile_folder(loader.parse({"spool": {"path": "."}}).model.profile), folder)
    described = profile.described_in(folder)
    calibrated = profile.CalibrationFile.model_validate(profile._parsed(folder / "calibration.yaml"))
    target = {"finding": "tuberculosis", "code": {"value": "56717001", "scheme": "SCT", "meaning": "Tuberculosis"}}
    point = calibrated.operating_point.model_copy(update={"label": "TUBERCULOSIS"})
    changes = {"name": "lungs", "labels": ["TUBERCULOSIS"], "target": TargetFile.model_validate(target)}
    profile.write(
        folder,
        described.model_copy(update=changes),
        calibrated.model_copy(update={"operating_point": point}),
    )
    return folder


def test_a_profile_names_its_target_and_may_not_judge_another_finding_as_pneumonia(tmp_path: Path) -> None:
    folder = copied(tmp_path / "profile")
    assert profile.load(folder).target == TUBERCULOSIS
    profile._dump(folder / "profile.yaml", profile.described_in(folder).model_copy(update={"target": None}))
    with pytest.raises(profile.ModelError, match="no target"):
        profile.load(folder)


@pytest.mark.whole
def test_a_whole_node_says_nothing_else(tmp_path: Path) -> None:
    """Received, judged, delivered, listed and logged."""
    folder = copied(tmp_path / "profile")
    files = []
    for number, overrides in enumerate(({}, {"ViewPosition": "LL", "PatientOrientation": ["A", "F"]}), 1):
        files.append(tmp_path / f"{number}.dcm")
        files[-1].write_bytes(builders.part10(builders.radiograph(number, **overrides)))
    uids = [str(dcmread(file).SOPInstanceUID) for file in files]
    work = tmp_path / "work"
    work.mkdir()
    with Recorder(tmp_path / "arrived", "PACS") as pacs:
        settings = config(str(pacs.address)) | {"model": {"profile": str(folder)}}
        with trial_node.node(work, settings, "TEST") as node:
            trial_node.store(node, files, lambda _: None)
            stories = trial_node.settled(node, uids, lambda _: None, look_every_s=0.05)
    verdicts = [stories[uid].instance.verdict for uid in uids]
    assert verdicts[0] in {"TUBERCULOSIS", "NORMAL", "UNCERTAIN"} and verdicts[1] == "REJECTED"
    arrived = list((tmp_path / "arrived").iterdir())
    assert len(arrived) >= 5
    assert all(is_silent(file.read_bytes()) for file in arrived)
    shown = [
        CliRunner().invoke(app, [*command, "--config", str(work / "node.yaml")]).output
        for command in (
            ["list"], ["list", "--json"], ["trace", uids[0]], ["trace", uids[0], "--json"], ["counts"],
            ["counts", "--json"], ["status"], ["status", "--json"], ["list", "--verdict", "tuberculosis"],
        )
    ]  # fmt: skip
    assert "TUBERCULOSIS" in shown[5]
    for said in (*shown, (work / "node.log").read_text()):
        assert said and is_silent(said), said
