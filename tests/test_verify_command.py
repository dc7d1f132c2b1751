"""`cxr-node verify` by hand, and the same check before anything is stored."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cxr_node import pipeline
from cxr_node.cli.node import app
from cxr_node.config import loader
from cxr_node.dicom.results import measurement_sr
from cxr_node.dicom.results.context import Context
from cxr_node.domain import Origin
from cxr_node.errors import InstanceError, UnsoundResultError
from cxr_node.outcome import Artifact, Reported
from cxr_node.result_kinds import DICOM_KINDS, ResultKind
from tests import builders
from tests.dicom import studies

ALONE = {"name": "pacs", "address": "PACS@127.0.0.1:104", "report_per": "image"}
CONFIG = loader.parse({"spool": {"path": "."}, "model": {"profile": "test"}, "destinations": [ALONE]})
ORIGIN = Origin(calling_ae_title="MODALITY", peer_host="127.0.0.1", received_at=datetime(2025, 1, 2, tzinfo=UTC))
RUNNER = CliRunner()
SOURCE = builders.part10(builders.radiograph())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Source and results of one radiograph, as `classify --out` leaves them."""
    outcome = pipeline.process(SOURCE, ORIGIN, builders.FixedPredictor(), CONFIG)
    assert isinstance(outcome, Reported)
    (tmp_path / "source.dcm").write_bytes(SOURCE)
    for artifact in outcome.artifacts:
        (tmp_path / f"{artifact.kind}.dcm").write_bytes(artifact.content)
    return tmp_path


def verify(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["verify", *map(str, arguments)])


def spoil(file: Path, before: bytes, after: bytes) -> None:
    content = file.read_bytes()
    assert before in content
    assert len(before) == len(after)
    file.write_bytes(content.replace(before, after))


def test_sound_files_exit_0(folder: Path) -> None:
    ran = verify(folder)
    assert (ran.exit_code, ran.stdout.strip()) == (0, "3 results, 1 sources, 0 flaws")
    assert verify(folder / "report.dcm").exit_code == 0
    assert verify("--json", folder).stdout == ""


def test_a_flaw_is_one_line_and_exit_1(folder: Path) -> None:
    spoil(folder / "report.dcm", b"UNVERIFIED", b"VERIFIED  ")
    ran = verify(folder)
    assert ran.exit_code == 1
    line, total = ran.stdout.splitlines()
    assert line.startswith(f"{folder / 'report.dcm'}: status: The result must be COMPLETE, UNVERIFIED,")
    assert line.endswith("[VerificationFlag]")
    assert total.endswith("1 flaws")


def test_flaws_as_json(folder: Path) -> None:
    spoil(folder / "measurements.dcm", b"UCUM", b"UCUX")
    ran = verify("--json", folder)
    assert ran.exit_code == 1
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert {line["code"] for line in lines} == {"certainty", "library"}
    assert all(set(line) == {"file", "code", "sentence", "where"} for line in lines)


def test_files_without_a_result_are_wrong_use(folder: Path) -> None:
    assert verify(folder / "source.dcm").exit_code == 2
    assert verify(folder / "missing.dcm").exit_code == 2


def test_highdicom_reads_every_sr_and_segmentation_too(folder: Path) -> None:
    """What it cannot read, or reads with other regions than we do, is a flaw."""
    spoil(folder / "measurements.dcm", b"112040", b"112041")
    ran = verify(folder / "measurements.dcm")
    assert ran.exit_code == 1
    assert "second-reader: highdicom, an independent reader," in ran.stdout.replace("\n", " ")


@pytest.mark.whole
def test_the_node_never_imports_the_second_reader() -> None:
    program = "import sys, cxr_node.pipeline; print([n for n in sys.modules if 'second_reader' in n])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_a_builder_s_mistake_is_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of ours: this instance is set aside as DEAD and told, the others go on."""

    def with_a_bug(context: Context) -> Artifact:
        with monkeypatch.context() as patched:
            patched.setattr(measurement_sr, "PERCENT", measurement_sr.PIXELS)
            return measurement_sr.build(context)

    bugged = {**pipeline.BUILDERS, ResultKind.MEASUREMENTS: with_a_bug}
    monkeypatch.setattr(pipeline, "BUILDERS", bugged)
    with pytest.raises(UnsoundResultError, match=r"1 flaws in its results: measurements: certainty \[") as raised:
        pipeline.process(SOURCE, ORIGIN, builders.FixedPredictor(), CONFIG)
    assert isinstance(raised.value, InstanceError)


def test_all_kinds_of_results_pass() -> None:
    everything = ALONE | {"send": [kind.value for kind in DICOM_KINDS]}
    config = loader.parse({"spool": {"path": "."}, "model": {"profile": "test"}, "destinations": [everything]})
    for probability in (0.97, 0.5, 0.03):
        outcome = pipeline.process(SOURCE, ORIGIN, builders.FixedPredictor(probability=probability), config)
        assert isinstance(outcome, Reported)
        assert ResultKind.PDF in {artifact.kind for artifact in outcome.artifacts}


def test_every_kind_of_several_radiographs_at_once_is_told_apart(tmp_path: Path) -> None:
    """Objects without a content tree name their source in sequences of their own."""
    everything = ALONE | {"send": [*DICOM_KINDS]}
    config = loader.parse({"spool": {"path": "."}, "destinations": [everything]})
    for number in (1, 2):
        content = builders.part10(builders.radiograph(number))
        (tmp_path / f"{number}.dcm").write_bytes(content)
        outcome = pipeline.process(content, ORIGIN, builders.FixedPredictor(), config)
        assert isinstance(outcome, Reported)
        for artifact in outcome.artifacts:
            (tmp_path / f"{number}.{artifact.kind}.dcm").write_bytes(artifact.content)
    shown = RUNNER.invoke(app, ["verify", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    assert f"{2 * len(pipeline.BUILDERS)} results, 2 sources, 0 flaws" in shown.output


def study_files(folder: Path) -> Path:
    """What an archive has of a study: its report, the one that replaced it when an image came late, and all images."""
    of = studies.with_prior(studies.case("pneumonia", "normal", "between", laterals=1))
    early = studies.report(replace(of, images=of.images[:2], priors=()))
    late = studies.report(replace(of, earlier_reports=(studies.refs(early),)))
    names = ("pneumonia", "normal", "between")
    pictures = [each for number, one in enumerate(names, 1) for each in studies.image(number, one)[1].pictures]
    for number, each in enumerate((*early.artifacts, *late.artifacts, *pictures)):
        (folder / f"{number}.{each.kind}.dcm").write_bytes(each.content)
    for number, image in enumerate(of.images):
        (folder / f"source-{number}.dcm").write_bytes(image.content)
    return folder


def test_the_objects_of_a_study_pass(tmp_path: Path) -> None:
    ran = verify(study_files(tmp_path))
    assert (ran.exit_code, ran.stdout.splitlines()[-1:]) == (0, ["10 results, 3 sources, 0 flaws"]), ran.stdout


def test_a_flaw_in_one_image_of_a_study_is_told(tmp_path: Path) -> None:
    """That the lateral was analysed, where its reason stands."""
    spoil(study_files(tmp_path) / "3.report.dcm", b"not analysed - the view", b"analysed, and the view ")
    ran = verify(tmp_path)
    assert ran.exit_code == 1
    assert str(tmp_path / "3.report.dcm") in ran.stdout
