"""A result made again is the same to the byte, or the reason is named: weights, thresholds, version, configuration."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.filewriter import write_file_meta_info

from cxr_node import pipeline, study_pipeline
from cxr_node.assurance import replay
from cxr_node.dicom.results.context import PRODUCT
from cxr_node.dicom.verify.difference import data_set, first_difference, making
from cxr_node.errors import DataError, InstanceError
from cxr_node.node.spool.spool import Area
from cxr_node.node.work.worker import Analyser
from tests import builders
from tests.dicom import studies
from tests.node.test_study_rebuild import Node, opened


def again(node: Node, result: bytes, source: bytes | None = None, *, known: bool = True) -> replay.Replayed:
    here = (node.ledger, node.spool) if known else None
    return replay.replay(result, source, node.config, node.worker.analyser, here)


def with_predictor(predictor: Any) -> Analyser:
    return Analyser(
        process=lambda content, origin, config, precedent: pipeline.process(
            content, origin, predictor, config, precedent
        ),
        report=study_pipeline.report_study,
    )


def test_every_result_of_a_study_is_made_again(tmp_path: Path) -> None:
    """The picture, both reports, and those that replaced others."""
    with opened(tmp_path) as node:
        node.comes(1)
        node.comes(2, ViewPosition="LL")
        first = node.answers()
        node.comes(3)
        second = node.answers()
        assert len(first) == len(second) == 3
        for content in (*second.values(), *first.values()):
            told = again(node, content)
            assert told.is_identical, told


def test_without_a_ledger_the_image_is_enough(tmp_path: Path) -> None:
    with opened(tmp_path) as node:
        node.comes(1)
        for content in node.answers().values():
            assert again(node, content, studies.source(1), known=False).is_identical
            assert again(node, as_archived(content), studies.source(1), known=False).is_identical
            with pytest.raises(DataError, match="--source"):
                again(node, content, known=False)
            other = again(node, content, studies.source(1, PatientSex="F", StudyDescription="x"), known=False)
            assert not other.is_identical and other.difference and other.because


def test_an_image_that_is_gone_may_be_given(tmp_path: Path) -> None:
    with opened(tmp_path) as node:
        node.comes(1)
        content = next(iter(node.answers().values()))
        for digest in list(node.spool.digests(Area.OBJECTS)):
            node.spool.delete(Area.OBJECTS, digest)
        with pytest.raises(DataError, match="not in the spool"):
            again(node, content)
        assert again(node, content, studies.source(1)).is_identical


def test_other_weights_thresholds_and_versions_are_named(tmp_path: Path) -> None:
    with opened(tmp_path) as node:
        node.comes(1)
        results = node.answers()
        report = next(each for each in results.values() if making(each).parts["thresholds"])
        here = (node.ledger, node.spool)
        changed = builders.FixedPredictor(probability=0.97)
        profile = replace(changed.profile, weights_sha256="cd" * 32)
        changed = replace(changed, profile=profile)
        told = replay.replay(report, None, node.config, with_predictor(changed), here)
        assert not told.is_identical and any(line.startswith("weights:") for line in told.because), told
        assert told.difference == "SoftwareVersions"
        point = replace(profile.operating_point, report_at=0.9)
        changed = replace(changed, profile=replace(builders.FixedPredictor().profile, operating_point=point))
        told = replay.replay(report, None, node.config, with_predictor(changed), here)
        assert [line.partition(":")[0] for line in told.because] == ["thresholds"], told
        config = node.config.model_copy(
            update={"results": node.config.results.model_copy(update={"installation_id": "elsewhere"})}
        )
        told = replay.replay(report, None, config, node.worker.analyser, here)
        assert any(line.startswith("installation:") for line in told.because), told
        older = report.replace(PRODUCT.encode(), b"cxr_node 0.0.9")
        told = again(node, older)
        assert told.difference == "SoftwareVersions"
        assert any(line.startswith("version of cxr_node:") for line in told.because), told


def test_what_this_node_never_made_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as node, pytest.raises(InstanceError, match="no result"):
        again(node, studies.source(1))


def as_archived(content: bytes) -> bytes:
    """The same data set under File Meta Information of an archive's own."""
    dataset = dcmread(io.BytesIO(content))
    dataset.file_meta.ImplementationVersionName = "ARCHIVE_1"
    dataset.file_meta.SourceApplicationEntityTitle = "PACS"
    meta = io.BytesIO()
    write_file_meta_info(meta, dataset.file_meta)
    return bytes(128) + b"DICM" + meta.getvalue() + data_set(content)


def test_the_first_difference_is_named_by_its_path() -> None:
    one, other = studies.source(1, PatientSex="M"), studies.source(1, PatientSex="O")
    assert first_difference(one, one) == ""
    assert first_difference(one, other) == "PatientSex"
