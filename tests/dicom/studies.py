"""Studies of several images, judged by a classifier whose answers are fixed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from cxr_node import pipeline, study_pipeline
from cxr_node.config import loader, schema
from cxr_node.domain import Origin, ResultRef
from cxr_node.outcome import NotAnalysed, Rejected, Reported, StudyCase, StudyImage, StudyReport
from tests import builders
from tests.dicom.contexts import CASES, RECEIVED

KINDS = ("report", "measurements", "heatmap", "key-object", "segmentation", "presentation-state")


def settings(*send: str, per: str = "study", **results: Any) -> schema.Config:
    wants = {"name": "pacs", "address": "PACS@127.0.0.1:104", "send": list(send or KINDS), "report_per": per}
    return loader.parse(
        {"spool": {"path": "."}, "destinations": [wants], "results": {"max_heatmap_px": 1024} | results}
    )


CONFIG = settings()


def source(number: int, **overrides: Any) -> bytes:
    """Image `number` of the study, in a series of its own."""
    named: dict[str, Any] = {
        "SOPInstanceUID": f"1.2.826.0.1.3680043.10.1.{number}",
        "SeriesInstanceUID": f"1.2.826.0.1.3680043.10.2.{number}",
        "SeriesNumber": number,
        "InstanceNumber": 1,
    }
    return builders.part10(builders.radiograph(1, **named | overrides))


def origin(number: int) -> Origin:
    received = RECEIVED + timedelta(seconds=number)
    return Origin(calling_ae_title="MODALITY", peer_host="127.0.0.1", received_at=received)


def image(
    number: int, case: str = "pneumonia", config: schema.Config = CONFIG, **overrides: Any
) -> tuple[StudyImage, Reported]:
    content = source(number, **overrides)
    answers: dict[str, Any] = dict(CASES[case])
    outcome = pipeline.process(content, origin(number), builders.FixedPredictor(**answers), config)
    assert isinstance(outcome, Reported), outcome
    assert outcome.judgement is not None
    return StudyImage(content=content, origin=origin(number), judgement=outcome.judgement), outcome


def lateral(number: int, **overrides: Any) -> tuple[bytes, NotAnalysed]:
    content = source(number, **{"ViewPosition": "LL"} | overrides)
    outcome = pipeline.process(content, origin(number), builders.FixedPredictor(), CONFIG)
    assert isinstance(outcome, Rejected)
    assert outcome.listed is not None
    return content, outcome.listed


def case(*cases: str, laterals: int = 0, config: schema.Config = CONFIG) -> StudyCase:
    images = tuple(image(number, each, config)[0] for number, each in enumerate(cases, 1))
    others = [lateral(len(cases) + number) for number in range(1, laterals + 1)]
    files = tuple((content, origin(9)) for content, _ in others) if not images else ()
    return StudyCase(images=images, others=tuple(each for _, each in others), unanswered=files)


def report(of: StudyCase, config: schema.Config = CONFIG) -> StudyReport:
    made = study_pipeline.report_study(of, config)
    assert made is not None
    return made


def refs(of: StudyReport) -> tuple[ResultRef, ...]:
    return tuple(each.ref for each in of.artifacts)


def with_prior(of: StudyCase) -> StudyCase:
    prior, _ = image(8, "normal", StudyInstanceUID="1.2.826.0.1.3680043.10.9", StudyDate="20230405", StudyTime="101112")
    return replace(of, priors=(prior,))
