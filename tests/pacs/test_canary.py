"""Nothing that the node writes tells who a patient is, whatever goes wrong (FAULTS T33, promise 7).

The real node runs as processes and meets good, odd and broken objects, dead and hostile destinations, aborts and
kills. Then everything it wrote is searched for the patient, but the DICOM objects themselves.
"""

from __future__ import annotations

import base64
import contextlib
import os
import random
import re
import resource
import signal
import sqlite3
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pydicom.config
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pynetdicom import AE, evt
from pynetdicom.presentation import AllStoragePresentationContexts

from cxr_node.config.network import Address
from cxr_node.dicom import from_picture
from cxr_node.node.ledger.stages import Stage
from cxr_node.tools import send
from cxr_node.tools.trial_node import Recorder
from tests import builders
from tests.node import peers as small_peers
from tests.node.wire import CR, DX, EXPLICIT, Wire, data_set_of
from tests.pacs import canary
from tests.pacs.peers import Node
from tests.patience import PATIENCE_S, wait_until
from tests.processes import answers, children, free_port, run

pytestmark = [pytest.mark.pacs, pytest.mark.filterwarnings("ignore::UserWarning")]  # pydicom's, of what is odd

PNEUMONIA = Path(__file__).parent.parent.parent / "cxr_node" / "demo_radiographs" / "opacity-1.jpg"
J2K, JPEG_LOSSLESS = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.70"


class WatchedNode(Node):
    """A node that may write core files, and whose temporary and home folders are searched too."""

    def start(self) -> None:
        for variable, name in (("TMPDIR", "tmp"), ("HOME", "home")):
            (self.folder / name).mkdir(exist_ok=True)
            self.environment[variable] = str(self.folder / name)
        usual = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (usual[1], usual[1]))  # a child inherits it
        super().start()
        resource.setrlimit(resource.RLIMIT_CORE, usual)


@pytest.fixture(autouse=True)
def _pydicom_lets_us_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects that no modality should send are built on purpose."""
    for mode in ("reading_validation_mode", "writing_validation_mode"):
        monkeypatch.setattr(pydicom.config.settings, mode, pydicom.config.IGNORE)


def marked(number: int, **overrides: Any) -> Dataset:
    """A radiograph of the canary."""
    dataset = builders.radiograph(number, **canary.ATTRIBUTES | overrides)
    dataset.private_block(0x0009, f"{canary.MARK} PRIVATE", create=True).add_new(0x01, "LO", f"{canary.MARK} secret")
    dataset.OtherPatientIDsSequence = [Dataset()]
    dataset.OtherPatientIDsSequence[0].PatientID = f"{canary.MARK}-OTHER"
    return dataset


def odd_objects() -> Iterator[tuple[str, bytes, str]]:
    """SOP Instance UID, encoded data set in Explicit VR Little Endian, SOP Class: what no modality should send."""
    chance = random.Random(7)
    whole = data_set_of(builders.part10(marked(100)))
    uid = str(marked(100).SOPInstanceUID)
    yield uid, whole[: len(whole) // 2], DX
    yield uid, whole[:600], DX
    yield uid, canary.NAME.encode("latin-1") * 100, DX
    yield uid, b"".join(canary.MARK.encode() + chance.randbytes(40) for _ in range(200)), DX
    for vr in (b"US", b"UI", b"DS", b"SQ", b"OB", b"zz", b"DA", b"AT"):
        name = struct.pack("<HH", 0x0010, 0x0010)
        yield uid, whole.replace(name + b"PN", name + vr, 1), DX
        birth = struct.pack("<HH", 0x0010, 0x0030)
        yield uid, whole.replace(birth + b"DA", birth + vr, 1), DX
    yield f"1.2.{canary.MARK}", whole, DX
    yield uid, whole, CR
    numbers = iter(range(101, 140))
    for odd in (
        {"StudyInstanceUID": f"1.2.{canary.MARK}"},
        {"SOPInstanceUID": canary.MARK},
        {"SpecificCharacterSet": canary.MARK},
        {"SpecificCharacterSet": ["ISO 2022 IR 13", "ISO 2022 IR 87"]},
        {"SpecificCharacterSet": "ISO_IR 192"},
        {"PatientAge": canary.MARK[:4]},
        {"PatientAge": "045Y"},
        {"Modality": canary.MARK},
        {"BodyPartExamined": canary.MARK},
        {"ViewPosition": canary.MARK},
        {"ImageType": [canary.MARK, canary.MARK]},
        {"PhotometricInterpretation": canary.MARK},
        {"WindowCenter": canary.MARK},
        {"RescaleSlope": canary.MARK},
        {"PatientID": None},
        {"PatientID": canary.NUMBER},
        {"PatientBirthDate": f"{canary.MARK} no date"},
        {"StudyDate": f"{canary.MARK}"},
        {"SeriesInstanceUID": "1.2.3", "StudyInstanceUID": "1.2.4"},
        {"SeriesInstanceUID": "1.2.3", "StudyInstanceUID": "1.2.5"},
        {"Rows": 3},
        {"PixelData": None},
    ):
        dataset = _with(marked(next(numbers)), odd)
        yield str(dataset.get("SOPInstanceUID", "")), data_set_of(builders.part10(dataset)), DX


def _with(dataset: Dataset, odd: dict[str, Any]) -> Dataset:
    for keyword, value in odd.items():
        if value is None:
            delattr(dataset, keyword)
        elif keyword in ("WindowCenter", "RescaleSlope"):
            dataset.add_new(keyword, "LO", value)
        else:
            setattr(dataset, keyword, value)
    return dataset


def undecodable(number: int, syntax: str) -> bytes:
    """Compressed pixel data that is no such thing, and names the patient."""
    dataset = marked(number)
    dataset.PixelData = encapsulate([f"{canary.NAME}".encode("latin-1") * 500])
    dataset["PixelData"].is_undefined_length = True
    return builders.part10(dataset, syntax)


@contextlib.contextmanager
def quoting_archive() -> Iterator[Address]:
    """Refuses every object, and says whose it was in Error Comment (0000,0902)."""
    entity = AE("QUOTER")
    entity.supported_contexts = AllStoragePresentationContexts

    def refuse(event: evt.Event) -> Dataset:
        answer = Dataset()
        answer.Status = 0xC000 if random.random() < 0.5 else 0x0110  # one is final, one is tried again
        answer.ErrorComment = f"no {canary.NAME.encode('ascii', 'replace').decode()} {canary.BIRTH_DATE}"[:64]
        answer.OffendingElement = [0x00100010]
        return answer

    with small_peers.serving(entity, (evt.EVT_C_STORE, refuse)) as address:
        yield address


def store_odd(node: Node, objects: list[tuple[str, bytes, str]], replies: list[bytes]) -> None:
    """Send what is odd, each over a connection of its own; keep every byte that comes back."""
    for uid, content, sop_class in objects:
        with Wire(node.port) as wire:
            wire.associate(sop_class, EXPLICIT)
            wire.begin_store(uid, sop_class)
            with contextlib.suppress(OSError):
                wire.send_data(content)
            replies.append(wire.receive()[1])


def store(node: Node, folder: Path, *contents: bytes) -> None:
    """Send Part 10 files as a modality does; what is refused is refused."""
    paths = []
    for content in contents:
        paths.append(folder / f"{len(list(folder.iterdir())):04d}.dcm")
        paths[-1].write_bytes(content)
    address = Address(ae_title=node.ae_title, host="127.0.0.1", port=node.port)
    send.store(paths, lambda sent: None, address, "MODALITY")


def cut_in_the_spool(node: Node, folder: Path, content: bytes) -> None:
    """Cut an object after it was acknowledged and before it is judged.

    A worker that is stopped in the middle of a transaction holds the ledger's write lock, and nothing is acknowledged:
    so it must have nothing to do, and is stopped again where it only looked for something.
    """
    wait_until(lambda: _is_quiet(node), "the worker to be idle")
    worker = node.roles()["work"]

    def stopped_between_transactions() -> bool:
        os.kill(worker, signal.SIGSTOP)
        if _can_be_written(node.spool / "ledger.sqlite3"):
            return True
        os.kill(worker, signal.SIGCONT)
        return False

    wait_until(stopped_between_transactions, "the worker to hold no lock")
    before = set((node.spool / "objects").rglob("*.dcm"))
    store(node, folder, content)
    (new,) = set((node.spool / "objects").rglob("*.dcm")) - before
    os.truncate(new, 2000)
    os.kill(worker, signal.SIGCONT)


def _can_be_written(ledger: Path) -> bool:
    with contextlib.closing(sqlite3.connect(ledger, timeout=1.0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        connection.execute("ROLLBACK")
        return True


def abort_in_the_decoder(node: Node) -> int:
    """SIGABRT every decoder child that runs; how many."""
    worker = node.roles().get("work")
    if worker is None:
        return 0
    decoders = children(worker)  # of each thread: a lane starts the decoder
    for decoder in decoders:
        with contextlib.suppress(ProcessLookupError):
            os.kill(decoder, signal.SIGABRT)
    return len(decoders)


def crash(node: Node, role: str, number: int) -> None:
    """End a role by a signal, and wait until the supervisor has it again."""
    before = node.roles()[role]
    os.kill(before, number)
    wait_until(lambda: node.roles().get(role, before) != before, f"{role} again")


@pytest.mark.timeout(600)
def test_the_node_never_tells_who_a_patient_is(tmp_path: Path) -> None:
    peers_folder, sources = tmp_path / "peers", tmp_path / "sources"
    sources.mkdir()
    odd, replies = list(odd_objects()), list[bytes]()
    with Recorder(peers_folder, "PACS") as pacs, quoting_archive() as quoter:
        destinations = [
            {"name": "pacs", "address": str(pacs.address), "idle_close_s": 0.2},
            {"name": "quoter", "address": str(quoter)},
            {"name": "dead", "address": str(small_peers.nobody())},
        ]
        page = free_port()
        more = {
            "work": {"lease_s": 10},
            "delivery": {"first_delay_s": 0.3, "max_delay_s": 1},
            "web": {"port": page},
            "alerts": {"destination_down_s": 1},
        }
        with WatchedNode(tmp_path / "node", destinations, **more) as node:
            demo = from_picture.wrap(PNEUMONIA, PatientAge="003Y", ViewPosition="AP", PatientName=canary.NAME)
            store(node, sources, demo, *(builders.part10(marked(number)) for number in (1, 2, 3)))
            store_odd(node, odd, replies)
            lossless = builders.part10(marked(4), "1.2.840.10008.1.2.4.80")
            store(node, sources, lossless, undecodable(5, J2K), undecodable(6, JPEG_LOSSLESS))
            wait_until(lambda: len(pacs.stored) >= 9, "results in the archive")
            cut_in_the_spool(node, sources, builders.part10(marked(9)))
            for number in (20, 21, 22):
                store(node, sources, builders.part10(marked(number), "1.2.840.10008.1.2.4.80"))
                wait_until(lambda: abort_in_the_decoder(node), "a decoder to abort")
            for role, number in (
                ("receive", signal.SIGABRT),
                ("work", signal.SIGSEGV),
                ("deliver", signal.SIGABRT),
                ("work", signal.SIGKILL),
                ("deliver", signal.SIGKILL),
            ):
                crash(node, role, number)
            wait_until(lambda: answers(node.port), "the port again")
            with Wire(node.port) as wire:
                wire.associate()
                wire.begin_store("1.2.3.4.5")
                wire.send_data(data_set_of(builders.part10(marked(7)))[:2000])
                crash(node, "receive", signal.SIGKILL)
            wait_until(lambda: answers(node.port), "the port again")
            store(node, sources, builders.part10(marked(8)))
            wait_until(lambda: _is_quiet(node), "the queue to empty")
            told = commands(node) | pages(page)
        log = node.log.read_text(errors="replace")
        spared = tuple(node.spool / area for area in ("objects", "results", "incoming"))
        hits, looked_at = canary.search_files(node.folder, spare=spared)
    for place, content in told.items():
        hits += canary.search(place, content)
    hits += [hit for content in replies for hit in canary.search("answer to a peer", content)]
    names = {path.name for path in looked_at}
    print(f"odd objects {len(odd)}, files searched {len(looked_at)}, journal {len(log)} bytes")
    assert hits == []
    assert not [name for name in names if name.startswith("core")], "a core file holds a patient's image"
    assert "ledger.sqlite3" in names
    assert any(path.parent.name == "audit" and path.suffix == ".log" for path in looked_at)
    assert b"spool-corrupt" in told["trace"], [line for line in log.splitlines() if " dead " in line]
    for words in (
        "refused peer=127.0.0.1",
        "Fatal Python error",
        "postponed destination=dead",
        "dead destination=quoter",
    ):
        assert words in log, words
    assert any(canary.search("", path.read_bytes()) for path in (node.spool / "objects").rglob("*.dcm"))


def pages(port: int) -> dict[str, bytes]:
    """What the page and the API say of this node, and of what is asked of them."""
    told: dict[str, bytes] = {}
    address = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=address, headers={"origin": address}, timeout=PATIENCE_S) as browser:
        stages = [f"/queue?stage={stage.value}" for stage in Stage]
        for path in (
            "/",
            *stages,
            "/quality",
            "/system",
            "/metrics",
            "/api/v1/stats",
            "/health/ready",
            "/no-such-page",
        ):
            told[path] = browser.get(path).content
        csrf = re.findall(rb'name="csrf" value="([^"]+)"', told["/queue?stage=dead"])[0].decode()
        for key in (canary.ATTRIBUTES["AccessionNumber"], canary.NAME, canary.NUMBER):
            told["/study"] = told.get("/study", b"") + browser.post("/study", data={"csrf": csrf, "key": key}).content
        name = f"{canary.MARK}.dcm"
        for content in (builders.part10(marked(11)), undecodable(12, J2K), b"DICM" + canary.NAME.encode()):
            files = {"file": (name, content, "application/dicom")}
            told["predict"] = told.get("predict", b"") + browser.post("/api/v1/predict", files=files).content
        told["wrong"] = browser.post("/api/v1/predict", files={canary.MARK: (name, b"", "text/plain")}).content
    assert b"Time line" in told["/study"] and b"destination-down" in told["/"] and b'"verdict"' in told["predict"]
    return told


def _is_quiet(node: Node) -> bool:
    return not node.counts()["RECEIVED"]


def commands(node: Node) -> dict[str, bytes]:
    """What the commands of an operator print of this node."""
    study = str(marked(1).StudyInstanceUID)
    asked = [("status",), ("status", "--json"), ("check",), ("check", "--json"), ("retry", study)]
    asked += [("agreement", str(_reports(node.folder.parent / "reports")), "--json"), ("agreement",)]
    asked += [
        ("shadow",),
        ("drift", "--json"),
        ("accept", "--json"),
        ("accept", "--out", str(node.folder / "acceptance.pdf")),
    ]
    asked += [("export-log", str(node.folder / "log.jsonl"), "--from", "2020-01-01")]
    asked += [("export-cases", "--out", str(node.folder / "cases"), "--discordant", "--uncertain", "--json")]
    for key in (study, str(marked(9).StudyInstanceUID), canary.ATTRIBUTES["AccessionNumber"]):
        asked += [("trace", key), ("trace", key, "--json")]
    told: dict[str, bytes] = {}
    for words in asked:
        done = run(sys.executable, "-m", "cxr_node", *words, "--config", node.config)
        told[" ".join(words[:1])] = told.get(words[0], b"") + (done.stdout + done.stderr).encode()
    assert b"DEAD" in told["trace"] or b"REPORTED" in told["trace"]
    assert b'"unmatched": 0' in told["agreement"]
    assert b"reported" in (node.folder / "log.jsonl").read_bytes()
    return told


def _reports(folder: Path) -> Path:
    """What a RIS says of the patient's study: the ledger keeps one word of it."""
    folder.mkdir()
    text = f"{canary.NAME}, born {canary.BIRTH_DATE}. IMPRESSION: No pneumonia."
    accession = canary.ATTRIBUTES["AccessionNumber"]
    (folder / f"{canary.MARK}.csv").write_text(f'accession,text\n{accession},"{text}"\n', "utf-8")
    (folder / "oru.hl7").write_text(
        f"MSH|^~\\&|RIS|{canary.MARK}|||20250923||ORU^R01|{canary.MARK}1|P|2.5.1\r"
        f"PID|1||{canary.ATTRIBUTES['PatientID']}||{canary.NAME}||{canary.BIRTH_DATE}\r"
        f"OBR|1||{accession}|CXR|||||||||||||||{accession}|||||||F\rOBX|1|TX|IMP||{text}||||||F\r",
        "utf-8",
    )
    return folder


def test_the_search_finds_what_it_shall(tmp_path: Path) -> None:
    """Every text and date, in every form, inside other bytes; a database before and after its checkpoint."""
    for needle, form in canary.NEEDLES.items():
        assert canary.search("", b"\0noise " + needle.upper() + b" noise"), form
    for text in (canary.NAME, canary.ATTRIBUTES["PatientID"], "1922", canary.BIRTH_DATE, "2022-03-17", "17.03.2022"):
        found = bool(canary.search("", f"x {text} y".encode()))
        assert found == (text != "1922"), text
    for shift in range(3):
        content = base64.b64encode(b"." * shift + canary.NAME.encode("latin-1") + b"more")
        assert canary.search("", content), shift
    connection = sqlite3.connect(tmp_path / "ledger.sqlite3")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE t (x TEXT)")
    connection.execute("INSERT INTO t VALUES (?)", (canary.NAME,))
    connection.commit()
    (tmp_path / "spared").mkdir()
    (tmp_path / "spared" / "a.dcm").write_bytes(canary.MARK.encode())
    hits, looked_at = canary.search_files(tmp_path, spare=(tmp_path / "spared",))
    connection.close()
    assert {hit.place for hit in hits} == {"ledger.sqlite3-wal"}
    assert len(looked_at) == 3
