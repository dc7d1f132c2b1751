"""Earlier radiographs from a real Orthanc: none, three, one of another issuer, one that cannot be moved."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from cxr_node.config.destinations import DicomDestination
from cxr_node.config.network import Address
from cxr_node.dicom.pixels import codecs
from cxr_node.node.priors.query import NotFetched, Reason, Wanted
from cxr_node.node.priors.retrieve import Fetched, Order, PriorScu
from cxr_node.node.spool.spool import Spool
from tests.builders import part10, radiograph
from tests.pacs.peers import Orthanc

pytestmark = pytest.mark.pacs

ROOT = "1.2.826.0.1.3680043.8.498.160"
OPEN = {"DicomAlwaysAllowFind": True, "DicomAlwaysAllowGet": True, "MaximumStorageCacheSize": 0}
"""To whoever asks (by default only to modalities that it knows), and from files that may be gone."""


def image(patient: str, study: int, day: str, view: str = "PA", **more: Any) -> Dataset:
    """One radiograph of a patient; a study of two images has them in series of their own."""
    number = 10 * study + (view != "PA")
    made = radiograph(number, PatientID=patient, StudyDate=day, StudyTime="101112", ViewPosition=view)
    made.StudyInstanceUID, made.SeriesInstanceUID = f"{ROOT}.1.{study}", f"{ROOT}.2.{number}"
    made.SOPInstanceUID, made.PatientBirthDate = f"{ROOT}.3.{number}", "19500102"
    made.IssuerOfPatientID = "HERE"
    for keyword, value in more.items():
        setattr(made, keyword, value)
    return made


ARCHIVED = (
    image("NONE", 1, "20250601"),
    image("THREE", 2, "20250601"),
    image("THREE", 3, "20240301"),
    image("THREE", 4, "20250301"),
    image("THREE", 4, "20250301", "LL"),
    image("THREE", 5, "20200301"),
    image("THREE", 6, "20250401", BodyPartExamined="HAND"),
    image("OTHER", 7, "20250601"),
    image("OTHER", 8, "20250301", IssuerOfPatientID="THERE"),
    image("BORN", 9, "20250601"),
    image("BORN", 10, "20250301", PatientBirthDate="19510102"),
    image("LATERAL", 11, "20250601"),
    image("LATERAL", 12, "20250301", "LL"),
    image("GONE", 13, "20250601"),
    image("GONE", 14, "20250301"),
    image("THREE4", 15, "20250501"),
    image("MÜLLER", 16, "20250601"),
    image("MÜLLER", 17, "20250301"),
)


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with Orthanc(tmp_path_factory.mktemp("orthanc"), more=OPEN) as archive:
        for each in ARCHIVED:
            archive.post("/instances", part10(each))
        yield archive


def source(orthanc: Orthanc) -> DicomDestination:
    return DicomDestination(name="pacs", address=Address.model_validate(orthanc.address), timeout_s=10.0)


def wanted(patient: str, study: int) -> Wanted:
    return Wanted(
        patient_id=patient,
        issuer="HERE",
        birth_date="19500102",
        study_instance_uid=f"{ROOT}.1.{study}",
        study_date="20250601",
        study_time="101112",
    )


Fetch = Callable[..., list[Fetched | NotFetched]]


@pytest.fixture
def fetch(orthanc: Orthanc, tmp_path: Path) -> Fetch:
    scu = PriorScu(source(orthanc), "CXR_NODE", [syntax.uid for syntax in codecs.transfer_syntaxes()])
    spool = Spool(tmp_path / "spool")

    def run(patient: str, study: int, studies: int = 1, years: float = 2.0) -> list[Fetched | NotFetched]:
        order = Order(studies=studies, years=years, max_object_bytes=1 << 28, ends_at=time.monotonic() + 30)
        return scu.fetch(wanted(patient, study), order, spool.begin)

    return run


def uids(found: list[Fetched | NotFetched]) -> list[str]:
    """SOP Instance UIDs as they stand in the files, which are discarded."""
    read = []
    for one in found:
        assert isinstance(one, Fetched), one
        content = one.part.path.read_bytes()
        one.part.discard()
        file = dcmread(io.BytesIO(content))
        assert file.file_meta.MediaStorageSOPInstanceUID == file.SOPInstanceUID == one.ref.sop_instance_uid
        assert file.SOPClassUID == one.ref.sop_class_uid
        assert file.StudyInstanceUID == one.ref.study_instance_uid
        assert file.pixel_array.size > 0
        read.append(str(file.SOPInstanceUID))
    return read


def reasons(found: list[Fetched | NotFetched]) -> list[Reason]:
    assert all(isinstance(one, NotFetched) for one in found), found
    return [one.reason for one in found if isinstance(one, NotFetched)]


def test_who_has_none_has_none(fetch: Fetch) -> None:
    assert reasons(fetch("NONE", 1)) == [Reason.NONE]
    assert reasons(fetch("NOBODY", 1)) == [Reason.NONE]


def test_of_three_the_newest_frontal_comes(fetch: Fetch) -> None:
    assert uids(fetch("THREE", 2)) == [f"{ROOT}.3.40"]
    assert uids(fetch("THREE", 2, studies=5)) == [f"{ROOT}.3.40", f"{ROOT}.3.30"]
    assert uids(fetch("THREE", 2, studies=5, years=10)) == [f"{ROOT}.3.40", f"{ROOT}.3.30", f"{ROOT}.3.50"]


def test_a_patient_id_beyond_ascii_is_found(fetch: Fetch) -> None:
    assert uids(fetch("MÜLLER", 16)) == [f"{ROOT}.3.170"]


def test_another_issuer_s_and_another_birth_date_s_stay_there(fetch: Fetch) -> None:
    assert reasons(fetch("OTHER", 7)) == [Reason.OTHER_ISSUER]
    assert reasons(fetch("BORN", 9)) == [Reason.NONE]


def test_a_lateral_alone_is_not_fetched(fetch: Fetch) -> None:
    assert reasons(fetch("LATERAL", 11)) == [Reason.NOT_FOUND]


@pytest.mark.parametrize("patient", ["", " ", "*", "THRE?", "THREE\\NONE", "T" * 65])
def test_a_patient_id_that_would_match_others_is_not_asked(fetch: Fetch, patient: str) -> None:
    assert reasons(fetch(patient, 2)) == [Reason.NOT_ASKED]


def refused(folder: Path, patient: str, study: int, lost: str = "", **settings: Any) -> list[Reason]:
    """Reasons of an archive that is set up otherwise, and has lost a file; nothing stays in the spool."""
    with Orthanc(folder / "orthanc", more=OPEN | settings) as archive:
        for each in ARCHIVED:
            archive.post("/instances", part10(each))
        if lost:
            archive.lose(lost)
        scu = PriorScu(source(archive), "CXR_NODE", [syntax.uid for syntax in codecs.transfer_syntaxes()])
        begun = time.monotonic()
        order = Order(studies=1, years=2, max_object_bytes=1 << 28, ends_at=begun + 20)
        found = scu.fetch(wanted(patient, study), order, Spool(folder / "spool").begin)
    assert time.monotonic() - begun < 15
    assert not list((folder / "spool" / "incoming").iterdir())
    return reasons(found)


def test_an_object_whose_file_is_gone_cannot_be_retrieved(tmp_path: Path) -> None:
    gone = refused(tmp_path, "GONE", 13, f"{ROOT}.3.140", StorageAccessOnFind="Never")
    assert gone == [Reason.CANNOT_RETRIEVE]


def test_an_archive_that_permits_no_c_get_or_no_c_find_says_so(tmp_path: Path) -> None:
    assert refused(tmp_path / "get", "THREE", 2, DicomAlwaysAllowGet=False) == [Reason.CANNOT_RETRIEVE]
    assert refused(tmp_path / "find", "THREE", 2, DicomAlwaysAllowFind=False) == [Reason.CANNOT_QUERY]
