"""Drawn radiographs: any size and depth, reproducible, all different, and judged like the pictures they come from."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from cxr_node import pipeline, resources
from cxr_node.config import loader
from cxr_node.domain import Origin, Verdict
from cxr_node.model import predictor, profile
from cxr_node.outcome import Reported
from cxr_node.tools import drawn
from cxr_node.tools.drawn import Plate


def read(content: bytes) -> Dataset:
    return dcmread(io.BytesIO(content))


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_size_and_depth_are_those_asked_for(bits: int) -> None:
    plate = Plate.of_size(0.4, bits)
    (dataset,) = map(read, drawn.draw(plate, 1))
    allocated = 8 if bits == 8 else 16
    assert (dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit) == (allocated, bits, bits - 1)
    assert len(dataset.PixelData) == pytest.approx(400_000, rel=0.01)
    stored = dataset.pixel_array
    assert stored.shape == (plate.rows, plate.cols)
    assert stored.max() < 1 << bits
    assert stored.std() > (1 << bits) / 10  # a picture
    fine = np.abs(np.diff(stored.astype(float), axis=1))
    assert 0 < np.median(fine) < (1 << bits) / 50  # with grain, and not one of wrapped values


def test_ten_megabytes_are_2000_by_2500() -> None:
    assert Plate.of_size(10) == Plate()


def test_the_same_number_gives_the_same_bytes_and_no_two_are_alike(tmp_path: Path) -> None:
    plate = Plate(rows=130, cols=160)
    files = list(drawn.write(tmp_path, plate, 40))
    seen = [read(file.read_bytes()) for file in files]
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "PatientID"):
        assert len({dataset[keyword].value for dataset in seen}) == 40
    assert list(drawn.draw(plate, 3, first=17)) == [file.read_bytes() for file in files[16:19]]


@pytest.mark.parametrize("wrong", [{"bits_stored": 7}, {"bits_stored": 17}, {"rows": 0}, {"age_years": 1000}])
def test_what_dicom_cannot_say_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="8 to 16 bits"):
        Plate(**wrong)


@pytest.mark.whole
def test_the_default_profile_judges_them_like_the_pictures() -> None:
    settings = loader.parse({"spool": {"path": "."}})
    judge = predictor.load_predictor(profile.load(resources.profile_folder(settings.model.profile)), 1)
    origin = Origin(calling_ae_title="TEST", peer_host="localhost", received_at=datetime.now(UTC))
    outcomes = [pipeline.process(content, origin, judge, settings) for content in drawn.draw(Plate.of_size(2), 6, 0)]
    verdicts = [outcome.finding.decision.verdict for outcome in outcomes if isinstance(outcome, Reported)]
    pneumonia = [Verdict.POSITIVE, Verdict.POSITIVE, Verdict.INDETERMINATE]
    assert verdicts == [verdict for pair in zip([Verdict.NEGATIVE] * 3, pneumonia, strict=True) for verdict in pair]
