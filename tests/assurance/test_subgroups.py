"""Among whom an image is counted: from its header, through the worker, into the ledger; a band, never an age."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxr_node import pipeline
from cxr_node.node.ledger import readings
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.subgroups import age_band
from tests import builders
from tests.node import workplace


@pytest.mark.parametrize(
    ("age", "band"),
    [
        (0.0, "0"),
        (0.9, "0"),
        (1.0, "1 to 2"),
        (5.99, "3 to 5"),
        (17.9, "6 to 17"),
        (18.0, "18 to 39"),
        (101.0, "80 and more"),
    ],
)
def test_bands(age: float, band: str) -> None:
    assert age_band(age) == band


@pytest.mark.parametrize(("known", "band"), [("003Y", "3 to 5"), (None, None)])
def test_a_judged_image_is_counted_by_view_and_age_band(tmp_path: Path, known: str | None, band: str | None) -> None:
    config = workplace.config(tmp_path, admission={"age_policy": "warn"})
    image = builders.radiograph(PatientAge=known, PatientBirthDate="20210203" if known else None)
    workplace.receive(config, 1, content=builders.part10(image))
    ledger = Ledger.of_node(config)
    predictor = builders.FixedPredictor()
    worker = workplace.worker(
        config,
        ledger,
        lambda content, origin, rules, precedent: pipeline.process(content, origin, predictor, rules, precedent),
    )
    job = worker.claim()
    assert job is not None
    worker.finish(job)
    ((found,),) = readings.answered(ledger, job.origin.received_at)
    ledger.close()
    assert (found.view, found.age_band) == ("PA", band)
