"""The same input gives the same bytes, in every process, after every restart, on every date; else new UIDs.

Whole commands with the real classifier, compared by `cmp`. `tests/dicom/test_result` asks the same of the single parts.
"""

from __future__ import annotations

import functools
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pydicom
import pytest

from cxr_node import pipeline, study_pipeline
from cxr_node.config import loader, schema
from cxr_node.config.schema import Config
from cxr_node.dicom import from_picture
from cxr_node.domain import Origin
from cxr_node.outcome import Reported, StudyCase, StudyImage
from cxr_node.result_kinds import DICOM_KINDS, OF_ONE_IMAGE, ReportPer
from tests import builders
from tests.dicom.contexts import RECEIVED

ROOT = Path(__file__).parent.parent
IMAGE = ROOT / "cxr_node" / "demo_radiographs" / "opacity-1.jpg"
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
MODIFIED_AT = 1_700_000_000
SEND_ALL = [kind.value for kind in DICOM_KINDS]
SHARED = {f"{kind} of study" for kind in OF_ONE_IMAGE}
OWN_UID = re.compile(rb"\b2\.25\.\d{30,39}\b")


def settings(**results: Any) -> Config:
    """Want everything, of each image and of its study."""
    pacs = {"address": "PACS@127.0.0.1:104", "send": SEND_ALL}
    destinations = [pacs | {"name": per.value, "report_per": per.value} for per in ReportPer]
    results = {"time_zone": "UTC", **results}
    return loader.parse({"spool": {"path": "."}, "destinations": destinations, "results": results})


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("source") / "one.dcm"
    file.write_bytes(from_picture.wrap(IMAGE, PatientAge="003Y", ViewPosition="AP"))
    os.utime(file, (MODIFIED_AT, MODIFIED_AT))
    return file


def classify(source: Path, folder: Path, **environment: str) -> list[Path]:
    """Result objects that a process of its own makes, in a zone that is configured: the host's is another."""
    file = source.with_suffix(".yaml")
    file.write_text("spool: {path: nowhere}\nresults: {time_zone: Europe/Berlin}\n")
    command = [sys.executable, "-m", "cxr_node", "classify", str(source), "--out", str(folder), "--json"]
    command += ["--config", str(file)]
    subprocess.run(command, env={**os.environ, **environment}, check=True, capture_output=True, timeout=120)
    return sorted(folder.glob("*.dcm"))


def elsewhere() -> dict[str, str]:
    """Name other circumstances: time zone, hash seed, locale, threads, and a date years ahead where there is a way."""
    environment = {"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7", "LC_ALL": "C", "OMP_NUM_THREADS": "2"}
    return environment | ({"LD_PRELOAD": str(FAKETIME), "FAKETIME": "2031-02-28 23:59:58"} if FAKETIME else {})


def test_same_bytes_across_processes_and_dates(source: Path, tmp_path: Path) -> None:
    if shutil.which("cmp") is None:
        pytest.skip("cmp is not installed: apt-get install diffutils")
    first = classify(source, tmp_path / "first")
    again = classify(source, tmp_path / "again", **elsewhere())
    assert len(first) >= 3
    assert [file.name for file in again] == [file.name for file in first]
    for one, other in zip(first, again, strict=True):
        compared = subprocess.run(["cmp", str(one), str(other)], capture_output=True, text=True, check=False)
        assert compared.returncode == 0, compared.stdout


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed: apt-get install libfaketime")
def test_the_faked_date_reaches_the_process() -> None:
    """The test of the test above."""
    said = subprocess.run(
        [sys.executable, "-c", "import datetime; print(datetime.date.today())"],
        env={**os.environ, "LD_PRELOAD": str(FAKETIME), "FAKETIME": "2031-02-28 12:00:00", "TZ": "UTC"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == "2031-02-28"


ORIGIN = Origin(calling_ae_title="MODALITY", peer_host="127.0.0.1", received_at=RECEIVED)


def results(
    *, dataset: Any = None, predictor: Any = None, origin: Origin = ORIGIN, rules: Config | None = None
) -> dict[tuple[str, str], bytes]:
    """Result objects of one radiograph, and of the study that has no other, by kind and SOP class, every SOP Class."""
    content = builders.part10(builders.radiograph() if dataset is None else dataset)
    rules = rules or settings()
    outcome = pipeline.process(content, origin, predictor or builders.FixedPredictor(), rules)
    assert isinstance(outcome, Reported) and outcome.judgement is not None
    image = StudyImage(content=content, origin=origin, judgement=outcome.judgement)
    report = study_pipeline.report_study(StudyCase(images=(image,)), rules)
    assert report is not None
    made = {ReportPer.IMAGE: outcome.artifacts, ReportPer.STUDY: (*outcome.pictures, *report.artifacts)}
    return {
        (f"{artifact.kind} of {per}", choice.sop_class_uid): choice.content
        for per, artifacts in made.items()
        for artifact in artifacts
        for choice in artifact.sop_class_choices
    }


def uids(made: dict[tuple[str, str], bytes]) -> set[bytes]:
    """UIDs that the node made, wherever they stand, but for those of program and device, and of shared series."""
    found = {uid for content in made.values() for uid in OWN_UID.findall(content)}
    return found - constant() - set(shared_series(made).values())


def shared_series(made: dict[tuple[str, str], bytes]) -> dict[str, bytes]:
    """Series of the pictures of a study by their kind: all its images have the same, whatever is said of them."""
    series = {}
    for (name, _), content in made.items():
        if name in SHARED:
            dataset = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
            series[name] = str(dataset.SeriesInstanceUID).encode()
    return series


@functools.cache
def unchanged() -> dict[tuple[str, str], bytes]:
    """Result objects before anything is changed."""
    return results()


@functools.cache
def constant() -> set[bytes]:
    """UIDs that any radiograph's results have: Implementation Class, device."""
    other = results(dataset=builders.radiograph(2, stored=builders.chest(bits=11)))
    one = unchanged()
    return set.intersection(*(set(OWN_UID.findall(b"".join(made.values()))) for made in (one, other)))


def pixels_changed_by_one() -> Any:
    stored = builders.chest()
    stored[10, 10] += 1
    return builders.radiograph(stored=stored)


def with_point(**changes: float) -> builders.FixedPredictor:
    profile = builders.profile()
    return builders.FixedPredictor(
        profile=builders.profile(operating_point=replace(profile.operating_point, **changes))
    )


CHANGES: dict[str, Callable[[], dict[tuple[str, str], bytes]]] = {
    "weights": lambda: results(predictor=builders.FixedPredictor(profile=builders.profile(weights_sha256="cd" * 32))),
    "threshold": lambda: results(predictor=with_point(report_at=0.86)),
    "profile version": lambda: results(predictor=builders.FixedPredictor(profile=builders.profile(version="2"))),
    "calibration": lambda: results(predictor=builders.FixedPredictor(profile=builders.profile(calibration="other"))),
    "results configuration": lambda: results(rules=settings(max_heatmap_px=1024)),
    "admission configuration": lambda: results(
        rules=settings().model_copy(update={"admission": schema.Admission(age_policy=schema.AgePolicy.WARN)})
    ),
    "zone": lambda: results(rules=settings(time_zone="Asia/Tokyo")),
    "installation": lambda: results(rules=settings(installation_id="other")),
    "one pixel": lambda: results(dataset=pixels_changed_by_one()),
    "instance": lambda: results(dataset=builders.radiograph(SOPInstanceUID="1.2.3.4")),
}


def test_results_name_uids_of_their_own() -> None:
    made = unchanged()
    assert len(uids(made)) >= 2 * len({kind for kind, _ in made})
    assert len(constant()) == 2


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_is_changed_gives_new_uids(change: str) -> None:
    before, after = unchanged(), CHANGES[change]()
    assert before.keys() == after.keys()
    assert not uids(before) & uids(after)


@pytest.mark.parametrize("change", CHANGES)
def test_pictures_of_a_study_share_a_series_while_the_same_node_answers(change: str) -> None:
    before, after = shared_series(unchanged()), shared_series(CHANGES[change]())
    assert len(before) == len(SHARED)
    same = {name for name in SHARED if before[name] == after[name]}
    is_other = change in {"weights", "results configuration", "admission configuration", "installation"}
    assert same == (set() if is_other else SHARED)


def test_a_zone_matters_only_where_the_source_tells_no_offset() -> None:
    told = builders.radiograph(TimezoneOffsetFromUTC="+0100")
    assert results(dataset=told) == results(dataset=told, rules=settings(time_zone="Asia/Tokyo"))
    assert unchanged() == results(rules=settings(time_zone="Africa/Accra"))  # by another name, the same bytes and UIDs


def test_the_place_and_the_sender_do_not_change_a_byte() -> None:
    moved = replace(ORIGIN, calling_ae_title="OTHER", peer_host="10.0.0.1")
    assert unchanged() == results(origin=moved)


def test_the_time_of_receipt_alone_tells_of_time() -> None:
    """The ledger keeps it, so a repeat has it too; it is the content time, and nothing else changes with it."""
    later = replace(ORIGIN, received_at=ORIGIN.received_at + timedelta(days=400))
    before, after = unchanged(), results(origin=later)
    assert uids(before) == uids(after)
    stamps = [RECEIVED.strftime("%Y%m%d").encode(), later.received_at.strftime("%Y%m%d").encode()]
    assert {key: content.replace(stamps[0], stamps[1]) for key, content in before.items() if "pdf" not in key[0]} == {
        key: content for key, content in after.items() if "pdf" not in key[0]
    }
