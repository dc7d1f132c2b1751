"""Earlier radiographs from archives of every temper: what comes, what is left there, and that it ends in time."""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pynetdicom import AE, evt
from pynetdicom.events import Event

from cxr_node.config.destinations import DicomDestination
from cxr_node.config.network import Address
from cxr_node.errors import DeliveryError
from cxr_node.node.priors import inbox, retrieve
from cxr_node.node.priors.query import NotFetched, Reason, Wanted
from cxr_node.node.priors.retrieve import FIND, GET, Fetched, Order, PriorScu
from cxr_node.node.spool.spool import Spool
from tests.builders import part10, radiograph
from tests.node import peers
from tests.patience import PATIENCE_S

ROOT = "1.2.826.0.1.3680043.8.498.161"
STORAGE = ("1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1")
EXPLICIT = "1.2.840.10008.1.2.1"
WANTED = Wanted(
    patient_id="CANARY-7",
    issuer="HERE",
    birth_date="19500102",
    study_instance_uid=f"{ROOT}.1.1",
    study_date="20250601",
    study_time="120000",
)
Answers = Iterator[Any]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # of the values that no archive should send


def prior(number: int = 2, **more: Any) -> Dataset:
    made = radiograph(number, PatientID="CANARY-7", StudyDate="20250301", ViewPosition="PA", **more)
    made.StudyInstanceUID, made.SeriesInstanceUID = f"{ROOT}.1.{number}", f"{ROOT}.2.{number}"
    made.SOPInstanceUID = f"{ROOT}.3.{number}"
    return dcmread(io.BytesIO(part10(made)))


def answer(level: str, **more: Any) -> Dataset:
    """One match of a query, as far as a test does not say otherwise."""
    values: dict[str, Any] = {"QueryRetrieveLevel": level, "StudyInstanceUID": f"{ROOT}.1.2"}
    match level:
        case "STUDY":
            values |= {"PatientID": "CANARY-7", "StudyDate": "20250301", "StudyTime": "1200"}
        case "SERIES":
            values |= {"SeriesInstanceUID": f"{ROOT}.2.2", "Modality": "DX"}
        case "IMAGE":
            values |= {"SeriesInstanceUID": f"{ROOT}.2.2", "SOPInstanceUID": f"{ROOT}.3.2"}
    made = Dataset()
    for keyword, value in (values | more).items():
        setattr(made, keyword, value)
    return made


class Source:
    """An archive of one earlier radiograph, unless a test replaces what it answers."""

    def __init__(self, **matches: list[Dataset]) -> None:
        self.matches = {level: [answer(level)] for level in ("STUDY", "SERIES", "IMAGE")} | matches
        self.objects: list[Dataset] = [prior()]
        self.asked: list[Dataset] = []
        self.over = threading.Event()
        """Set at the end, so that no thread of a test outlives it."""

    def find(self, event: Event) -> Answers:
        self.asked.append(event.identifier)
        for match in self.matches[event.identifier.QueryRetrieveLevel]:
            yield 0xFF00, match

    def get(self, event: Event) -> Answers:
        self.asked.append(event.identifier)
        yield len(self.objects)
        for each in self.objects:
            yield 0xFF00, each


@contextlib.contextmanager
def listening(source: Source, *classes: str, scu: bool = True) -> Iterator[Address]:
    entity = AE("PACS")
    for uid in classes or (FIND, GET):
        entity.add_supported_context(uid)
    for uid in STORAGE:
        entity.add_supported_context(uid, EXPLICIT, **({"scu_role": False, "scp_role": True} if scu else {}))
    try:
        with peers.serving(entity, (evt.EVT_C_FIND, source.find), (evt.EVT_C_GET, source.get)) as address:
            yield address
    finally:
        source.over.set()


Fetch = Callable[..., list[Fetched | NotFetched]]


@pytest.fixture
def fetch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Fetch]:
    """Ask for the radiograph before; whatever comes of it is in time, leaves no file, and says nothing of a patient."""
    caplog.set_level(logging.DEBUG, logger="cxr_node")
    spool = Spool(tmp_path / "spool")

    def run(
        address: Address,
        *,
        within_s: float = PATIENCE_S,
        max_bytes: int = 1 << 24,
        wanted: Wanted = WANTED,
        **more: Any,
    ) -> list[Fetched | NotFetched]:
        ends_at = time.monotonic() + within_s
        order = Order(**{"studies": 1, "years": 2, "max_object_bytes": max_bytes, "ends_at": ends_at} | more)
        found = PriorScu(to(address), "CXR_NODE", [EXPLICIT]).fetch(wanted, order, spool.begin)
        assert time.monotonic() < ends_at + PATIENCE_S
        return found

    yield run
    assert not list((tmp_path / "spool" / "incoming").iterdir())
    assert "CANARY" not in caplog.text
    assert "19500102" not in caplog.text


def to(address: Address) -> DicomDestination:
    return DicomDestination(name="pacs", address=address, timeout_s=5.0)


def why(found: list[Fetched | NotFetched]) -> Reason:
    (one,) = found
    assert isinstance(one, NotFetched), one
    assert "CANARY" not in one.sentence
    assert one.sentence
    return one.reason


def taken(found: list[Fetched | NotFetched]) -> list[Dataset]:
    files: list[Dataset] = []
    for one in found:
        assert isinstance(one, Fetched), one
        files.append(dcmread(io.BytesIO(one.part.path.read_bytes())))
        one.part.discard()
    return files


def test_the_object_comes_as_it_is(fetch: Fetch) -> None:
    source = Source()
    with listening(source) as address:
        (file,) = taken(fetch(address))
    expected = prior()
    assert file == expected
    assert file.file_meta.TransferSyntaxUID == EXPLICIT
    assert [each.QueryRetrieveLevel for each in source.asked] == ["STUDY", "SERIES", "IMAGE", "IMAGE"]
    first = source.asked[0]
    assert (first.PatientID, first.StudyDate) == ("CANARY-7", "20230602-20250601")
    assert source.asked[-1].SOPInstanceUID == expected.SOPInstanceUID


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"PatientID": "CANARY-70"}, Reason.NONE),
        ({"PatientID": ["CANARY-7", "CANARY-8"]}, Reason.NONE),
        ({"PatientID": ""}, Reason.NONE),
        ({"IssuerOfPatientID": "THERE"}, Reason.OTHER_ISSUER),
        ({"PatientBirthDate": "19500103"}, Reason.NONE),
        ({"StudyInstanceUID": f"{ROOT}.1.1"}, Reason.NONE),
        ({"StudyInstanceUID": "1.2.*"}, Reason.NONE),
        ({"StudyInstanceUID": "1.2\\1.3"}, Reason.NONE),
        ({"StudyDate": "20250602"}, Reason.NONE),
        ({"StudyDate": "20250601", "StudyTime": "120000"}, Reason.NONE),
        ({"StudyDate": "20250601", "StudyTime": ""}, Reason.NONE),
        ({"StudyDate": "20230601"}, Reason.NONE),
        ({"StudyDate": ""}, Reason.NONE),
        ({"ModalitiesInStudy": ["CT", "SR"]}, Reason.NONE),
    ],
)
def test_a_study_that_is_no_earlier_one_of_the_patient_is_left_there(
    fetch: Fetch, more: dict[str, Any], reason: Reason
) -> None:
    source = Source(STUDY=[answer("STUDY", **more)])
    with listening(source) as address:
        assert why(fetch(address)) is reason
    assert len(source.asked) == 1


@pytest.mark.parametrize(
    "more",
    [
        {"IssuerOfPatientID": "HERE", "PatientBirthDate": "19500102", "ModalitiesInStudy": ["DX", "SR"]},
        {"StudyDate": "20250601", "StudyTime": "115959"},
        {"StudyDate": "20230602"},
    ],
)
def test_a_study_that_is_one_is_taken(fetch: Fetch, more: dict[str, Any]) -> None:
    with listening(Source(STUDY=[answer("STUDY", **more)])) as address:
        assert len(taken(fetch(address))) == 1


@pytest.mark.parametrize(
    ("series", "image"),
    [
        ({"Modality": "CT"}, {}),
        ({"BodyPartExamined": "HAND"}, {}),
        ({"ViewPosition": "LL"}, {}),
        ({"SeriesDescription": "Chest lat."}, {}),
        ({"SeriesInstanceUID": "*"}, {}),
        ({"StudyInstanceUID": f"{ROOT}.1.3"}, {}),
        ({}, {"ViewPosition": "LATERAL"}),
        ({}, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11"}),
        ({}, {"SOPInstanceUID": f"{ROOT}.3.2\\{ROOT}.3.3"}),
    ],
)
def test_what_is_no_frontal_radiograph_is_left_there(
    fetch: Fetch, series: dict[str, Any], image: dict[str, Any]
) -> None:
    with listening(Source(SERIES=[answer("SERIES", **series)], IMAGE=[answer("IMAGE", **image)])) as address:
        assert why(fetch(address)) is Reason.NOT_FOUND


def test_the_one_that_says_it_is_frontal_comes_first_then_the_newest(fetch: Fetch) -> None:
    images = [
        answer("IMAGE", SOPInstanceUID=f"{ROOT}.3.8", ContentDate="20250301", ContentTime="1201"),
        answer("IMAGE", SOPInstanceUID=f"{ROOT}.3.9", ContentDate="20250301", ContentTime="1202"),
        answer("IMAGE", ContentDate="20250301", ContentTime="1200", ViewPosition="AP"),
    ]
    source = Source(IMAGE=images, SERIES=[answer("SERIES", SeriesDescription="Chest 2 images")])
    source.get = lambda event: iter([0xC000])  # type: ignore[method-assign]
    with listening(source) as address:
        assert why(fetch(address)) is Reason.CANNOT_RETRIEVE
    assert len(source.asked) == 3
    tried: list[str] = []

    def refuse(event: Event) -> Answers:
        tried.append(str(event.identifier.SOPInstanceUID))
        yield 0

    source.get = refuse  # type: ignore[method-assign]
    with listening(source) as address:
        assert why(fetch(address)) is Reason.CANNOT_RETRIEVE
    assert tried == [f"{ROOT}.3.2", f"{ROOT}.3.9", f"{ROOT}.3.8"]


def silent(source: Source) -> Callable[[Event], Answers]:
    def wait(event: Event) -> Answers:
        source.over.wait(30)
        yield from ()

    return wait


def slow(source: Source) -> Callable[[Event], Answers]:
    def drip(event: Event) -> Answers:
        while not source.over.wait(0.2):
            yield 0xFF00, answer("STUDY")

    return drip


def endless(source: Source) -> Callable[[Event], Answers]:
    def flow(event: Event) -> Answers:
        while not source.over.is_set():
            yield 0xFF00, answer("STUDY")

    return flow


def long_winded(source: Source) -> Callable[[Event], Answers]:
    def flow(event: Event) -> Answers:
        while not source.over.is_set():
            yield 0xFF00, answer("STUDY", TextValue="x" * 65536)

    return flow


def aborting(source: Source) -> Callable[[Event], Answers]:
    def abort(event: Event) -> Answers:
        event.assoc.abort()
        yield from ()

    return abort


def refusing(source: Source) -> Callable[[Event], Answers]:
    def refuse(event: Event) -> Answers:
        if event.request.__class__.__name__ == "C_GET":
            yield 1
        yield 0xA900, None

    return refuse


@pytest.mark.parametrize(
    ("temper", "reason"),
    [
        (silent, Reason.TIMEOUT),
        (slow, Reason.TIMEOUT),
        (endless, Reason.FAULT),
        (long_winded, Reason.FAULT),
        (aborting, Reason.CANNOT_QUERY),
        (refusing, Reason.CANNOT_QUERY),
    ],
)
def test_a_query_always_ends(fetch: Fetch, temper: Callable[[Source], Any], reason: Reason) -> None:
    source = Source()
    source.find = temper(source)  # type: ignore[method-assign]
    with listening(source) as address:
        within_s = 1.5 if reason is Reason.TIMEOUT else PATIENCE_S
        assert why(fetch(address, within_s=within_s)) is reason


@pytest.mark.parametrize(
    ("temper", "reason"),
    [
        (silent, Reason.TIMEOUT),
        (aborting, Reason.CANNOT_RETRIEVE),
        (refusing, Reason.CANNOT_RETRIEVE),
    ],
)
def test_a_retrieval_always_ends(fetch: Fetch, temper: Callable[[Source], Any], reason: Reason) -> None:
    source = Source()
    source.get = temper(source)  # type: ignore[method-assign]
    with listening(source) as address:
        assert why(fetch(address, within_s=1.5 if reason is Reason.TIMEOUT else PATIENCE_S)) is reason


def test_an_object_that_trickles_in_is_broken_off_in_time(fetch: Fetch) -> None:
    with listening(Source()) as archive:

        def relay(connection: socket.socket) -> None:
            with socket.create_connection((archive.host, archive.port)) as upstream:
                threading.Thread(target=pump, args=(connection, upstream), daemon=True).start()
                passed = 0
                while content := upstream.recv(1024):
                    connection.sendall(content)
                    passed += len(content)
                    if passed > 20_000:  # in the middle of the object
                        time.sleep(0.1)

        with peers.raw_peer(relay) as address:
            assert why(fetch(address, within_s=5.0)) is Reason.TIMEOUT


def pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while content := source.recv(65536):
            target.sendall(content)
        target.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("objects", [[prior(3)], [prior(), prior()], [prior(), prior(3)]])
def test_another_object_or_a_second_one_is_refused(fetch: Fetch, objects: list[Dataset]) -> None:
    source = Source()
    source.objects = objects
    with listening(source) as address:
        assert why(fetch(address)) is Reason.FAULT


def test_an_object_that_is_too_long_is_broken_off(fetch: Fetch) -> None:
    with listening(Source()) as address:
        (one,) = fetch(address, max_bytes=100_000)
    assert isinstance(one, NotFetched)
    assert "listen.max_object_mib" in one.sentence


def test_who_has_no_context_for_it_says_so(fetch: Fetch) -> None:
    with listening(Source(), GET) as address:
        assert why(fetch(address)) is Reason.CANNOT_QUERY
        with pytest.raises(DeliveryError, match="takes no C-FIND"):
            PriorScu(to(address), "CXR_NODE", [EXPLICIT]).probe()
    with listening(Source(), FIND) as address:
        assert why(fetch(address)) is Reason.CANNOT_RETRIEVE
        with pytest.raises(DeliveryError, match="takes no C-GET"):
            PriorScu(to(address), "CXR_NODE", [EXPLICIT]).probe()
    with listening(Source(), scu=False) as address:
        assert why(fetch(address)) is Reason.CANNOT_RETRIEVE
        with pytest.raises(DeliveryError, match="sends no CR or DX images"):
            PriorScu(to(address), "CXR_NODE", [EXPLICIT]).probe()
    with listening(Source()) as address:
        assert PriorScu(to(address), "CXR_NODE", [EXPLICIT]).probe() == f"{address} takes C-FIND and C-GET"
    with listening(Source(STUDY=[]), FIND) as address:  # nothing to retrieve: no matter that it could not
        assert why(fetch(address)) is Reason.NONE


def test_who_is_away_or_mute_is_unreachable(fetch: Fetch) -> None:
    assert why(fetch(peers.nobody(), within_s=2.0)) is Reason.UNREACHABLE

    def mute(connection: socket.socket) -> None:
        while connection.recv(65536):
            pass

    with peers.raw_peer(mute) as address:
        assert why(fetch(address, within_s=2.0)) is Reason.UNREACHABLE

    def drip(connection: socket.socket) -> None:
        peers.read_pdu(connection)
        for byte in struct.pack(">BBL", 0x02, 0, 60000) + bytes(60000):
            connection.sendall(bytes([byte]))
            time.sleep(0.05)

    with peers.raw_peer(drip) as address:
        assert why(fetch(address, within_s=2.0)) is Reason.UNREACHABLE


@pytest.mark.parametrize("patient_id", ["", "  ", "*", "CANARY-?", "CANARY-7\\CANARY-8", "C" * 65, "CAN\nARY"])
def test_a_patient_id_that_matches_others_is_not_asked(fetch: Fetch, patient_id: str) -> None:
    source = Source()
    wanted = Wanted(patient_id=patient_id, study_instance_uid=f"{ROOT}.1.1", study_date="20250601")
    with listening(source) as address:
        assert why(fetch(address, wanted=wanted)) is Reason.NOT_ASKED
    assert source.asked == []


@pytest.mark.parametrize(
    ("uid", "day"), [("1.2.*", "20250601"), ("1.2", ""), ("1.2", "20250631"), ("1.2", "2025-06-01")]
)
def test_a_study_without_uid_or_date_asks_nothing(fetch: Fetch, uid: str, day: str) -> None:
    wanted = Wanted(patient_id="CANARY-7", study_instance_uid=uid, study_date=day)
    assert why(fetch(peers.nobody(), wanted=wanted)) is Reason.NOT_ASKED


def test_when_time_is_over_nothing_is_asked(fetch: Fetch) -> None:
    source = Source()
    with listening(source) as address:
        assert why(fetch(address, within_s=-0.5)) is Reason.TIMEOUT
    assert source.asked == []


def test_limits_are_what_the_archive_s_answers_need() -> None:
    assert retrieve.MAX_ANSWERS * 800 < inbox.MAX_ANSWER_BYTES


def test_a_full_disk_is_a_value(fetch: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cxr_node.node.spool.part.os.write", full)
    with listening(Source()) as address:
        assert why(fetch(address)) is Reason.FAULT
