"""Destinations of every temper, on free loopback ports, and small result objects to send them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, dsutils, evt
from pynetdicom.events import Event
from pynetdicom.transport import ThreadedAssociationServer

from cxr_node.config.destinations import STANDARD_KINDS, AnyDestination, DicomDestination
from cxr_node.config.network import Address
from cxr_node.node.deliver.link import ResultFile, StaleConnectionError, StoreReply, link_to
from cxr_node.node.network.rejections import Refusals
from cxr_node.result_kinds import ResultKind
from cxr_node.tools.trial_node import TURN_S, close
from tests.patience import PATIENCE_S
from tests.processes import Program, answers, free_port

SOP_CLASS = {
    ResultKind.REPORT: "1.2.840.10008.5.1.4.1.1.88.11",
    ResultKind.MEASUREMENTS: "1.2.840.10008.5.1.4.1.1.88.34",
    ResultKind.HEATMAP: "1.2.840.10008.5.1.4.1.1.7",
    ResultKind.PRESENTATION_STATE: "1.2.840.10008.5.1.4.1.1.11.1",
    ResultKind.SEGMENTATION: "1.2.840.10008.5.1.4.1.1.66.4",
    ResultKind.FRAMES: "1.2.840.10008.5.1.4.1.1.7.4",
    ResultKind.KEY_OBJECT: "1.2.840.10008.5.1.4.1.1.88.59",
    ResultKind.PDF: "1.2.840.10008.5.1.4.1.1.104.1",
    ResultKind.NOT_ANALYSED: "1.2.840.10008.5.1.4.1.1.88.11",
}
MEASUREMENT_CLASSES = tuple(f"1.2.840.10008.5.1.4.1.1.88.{number}" for number in (34, 33, 22))
"""SOP Classes of the measurements, the first choice first."""
_PROFILE = """
[[TransferSyntaxes]]
[S]
TransferSyntax1 = LittleEndianImplicit
[[PresentationContexts]]
[C]
{contexts}
[[Profiles]]
[P]
PresentationContexts = C
"""
BOTH_SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_ROOT = "1.2.826.0.1.3680043.8.498.78"


def uid(kind: ResultKind, number: int = 1, choice: int = 0) -> str:
    """SOP Instance UID of the result object of that kind and number; each SOP Class has its own."""
    return f"{_ROOT}.{list(ResultKind).index(kind)}.{number}" + (f".{choice}" if choice else "")


def result_object(kind: ResultKind, number: int = 1, padding: int = 0, choice: int = 0) -> bytes:
    """A Part 10 file in Explicit VR Little Endian; `padding` bytes of private data make it large."""
    data_set = Dataset()
    data_set.SpecificCharacterSet = "ISO_IR 192"
    data_set.SOPClassUID = MEASUREMENT_CLASSES[choice] if choice else SOP_CLASS[kind]
    data_set.SOPInstanceUID = uid(kind, number, choice)
    data_set.PatientName = "CANARY^TEST"
    data_set.PatientID = f"CANARY-{number}"
    data_set.StudyInstanceUID = f"{_ROOT}.9.{number}"
    if padding:
        data_set.private_block(0x0009, "CXR TESTS", create=True).add_new(0x01, "OB", bytes(padding))
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(data_set.SOPClassUID)
    meta.MediaStorageSOPInstanceUID = UID(data_set.SOPInstanceUID)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data_set.file_meta = meta
    file = io.BytesIO()
    dcmwrite(file, data_set, enforce_file_format=True)
    return file.getvalue()


def destination(address: Address, name: str = "pacs", timeout_s: float = 2.0, **more: object) -> AnyDestination:
    """A configured destination that gives up early."""
    return DicomDestination.model_validate({"name": name, "address": address, "timeout_s": timeout_s, **more})


class Sender:
    """A link, driven as the courier drives it; of several SOP Classes the first that is accepted goes."""

    def __init__(self, to: AnyDestination, refusals: Refusals | None = None, compressor: Any = None) -> None:
        self.link = link_to(to, "CXR_NODE", refusals, compressor)
        self.close = self.link.close

    def send(self, *alternatives: ResultFile) -> StoreReply:
        """Open and store; once more where the connection was lost while it was idle."""
        try:
            return self.link.store(self.link.open(alternatives)[0])
        except StaleConnectionError:
            return self.link.store(self.link.open(alternatives)[0])


def nobody() -> Address:
    """An address where nobody listens, nor will before the caller does."""
    return Address(ae_title="NOBODY", host="127.0.0.1", port=free_port())


class Archive:
    """A Storage SCP that remembers what came, as bytes, and answers what `answer` says (called with the count).

    It keeps what it answers with success or a warning, and what it aborts after.
    """

    def __init__(self, answer: Callable[[int], int | None] = lambda _: 0x0000) -> None:
        self.answer = answer
        self.associations = 0
        self.arrived = threading.Condition()
        self.datasets: dict[str, list[bytes]] = {}
        """Encoded data sets by SOP Instance UID, repeats included."""
        self.syntaxes: Counter[str] = Counter()
        self.sop_classes: Counter[str] = Counter()
        self._count = 0

    def __call__(self, event: Event) -> int | None:
        """Handle one C-STORE; None aborts the association before any answer."""
        with self.arrived:
            self._count += 1
            status = self.answer(self._count)
            if status is None or status == 0x0000 or status >> 12 == 0xB:
                self.keep(event)
            self.arrived.notify_all()
        if status is None:
            event.assoc.abort(block=False)
            return 0x0000
        return status

    def keep(self, event: Event) -> None:
        """Remember one object; its answer has not left yet."""
        uid = str(event.request.AffectedSOPInstanceUID)
        self.datasets.setdefault(uid, []).append(event.request.DataSet.getvalue())
        self.syntaxes[event.context.transfer_syntax] += 1
        self.sop_classes[str(event.request.AffectedSOPClassUID)] += 1

    def wait(self, objects: int, timeout_s: float = PATIENCE_S) -> bool:
        """Wait until so many different objects are there."""
        with self.arrived:
            return self.arrived.wait_for(lambda: len(self.datasets) >= objects, timeout_s)

    def digests(self) -> dict[str, set[str]]:
        """Different contents of each object: one each, if all is well."""
        return {uid: {hashlib.sha256(one).hexdigest() for one in many} for uid, many in self.datasets.items()}


@contextlib.contextmanager
def listening(
    archive: Archive,
    *,
    kinds: tuple[ResultKind, ...] = STANDARD_KINDS,
    measurement_classes: tuple[str, ...] | None = None,
    syntaxes: tuple[str, ...] = BOTH_SYNTAXES,
    ae_title: str = "PACS",
    requires: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Address]:
    """Serve an archive that lets in the calling AE title `requires` only."""
    entity = AE(ae_title)
    supported = {SOP_CLASS[kind] for kind in kinds}
    if measurement_classes is not None:
        supported = supported - set(MEASUREMENT_CLASSES) | set(measurement_classes)
    for sop_class_uid in supported:
        entity.add_supported_context(sop_class_uid, list(syntaxes))
    entity.add_supported_context("1.2.840.10008.1.1")
    entity.maximum_pdu_size = 131072
    if requires is not None:
        entity.require_calling_aet = [requires]

    def count(_: Event) -> None:
        archive.associations += 1

    with serving(
        entity, (evt.EVT_C_STORE, archive), (evt.EVT_ACCEPTED, count), host=host, port=port, tls=tls
    ) as address:
        yield address


@contextlib.contextmanager
def serving(
    entity: AE, *handlers: Any, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[Address]:
    """Listen in a thread of its own; each handler is an event with its function."""
    server = entity.make_server(
        (host, port), ssl_context=tls, evt_handlers=list(handlers), server_class=ThreadedAssociationServer
    )
    threading.Thread(target=server.serve_forever, args=(TURN_S,), daemon=True).start()
    try:
        yield Address(ae_title=entity.ae_title, host=host, port=server.server_address[1])
    finally:
        close(server)


class _StoreScp(Program):
    port = 0

    def is_ready(self) -> bool:
        return answers(self.port)


@contextlib.contextmanager
def storescp(store: Path, *sop_class_uids: str) -> Iterator[Address]:
    """DCMTK's Storage SCP, which keeps what it takes in a folder: everything, or these SOP Classes in Implicit VR."""
    if shutil.which("storescp") is None:
        pytest.skip("storescp is missing: install the package dcmtk")
    store.mkdir()
    options: list[object] = []
    if sop_class_uids:
        contexts = (f"PresentationContext{place} = {uid}\\S" for place, uid in enumerate(sop_class_uids, 1))
        profile = store.with_suffix(".profile")
        profile.write_text(_PROFILE.format(contexts="\n".join(contexts)))
        options = ["-xf", profile, "P"]
    address = nobody()
    program = _StoreScp(
        store.parent, "storescp", *options, "-od", store, "-pdu", 131072, "+B", address.port, name=store.name
    )
    program.port = address.port
    with program:
        yield address


@contextlib.contextmanager
def raw_peer(behave: Callable[[socket.socket], None]) -> Iterator[Address]:
    """A TCP listener that treats each connection as `behave` says, in a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    connections: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connections.append(connection)
            threading.Thread(target=_quietly, args=(behave, connection), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield Address(ae_title="RAW", host="127.0.0.1", port=listener.getsockname()[1])
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in connections:
            connection.close()
        thread.join(5)


def _quietly(behave: Callable[[socket.socket], None], connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        behave(connection)


def read_pdu(connection: socket.socket) -> bytes:
    """One whole PDU (PS3.8 9.3.1)."""
    header = _read(connection, 6)
    return header + _read(connection, struct.unpack(">L", header[2:])[0])


def accept_association(connection: socket.socket) -> None:
    """Answer A-ASSOCIATE-RQ by accepting every first transfer syntax; then the caller goes its own way."""
    request = read_pdu(connection)
    items, contexts = request[74:], b""
    while items:
        kind, length = items[0], struct.unpack(">H", items[2:4])[0]
        if kind == 0x20:  # presentation context
            body = items[4 : 4 + length]
            subs = body[4:]
            while subs[0] != 0x40:
                subs = subs[4 + struct.unpack(">H", subs[2:4])[0] :]
            syntax = subs[: 4 + struct.unpack(">H", subs[2:4])[0]]
            contexts += struct.pack(">BBH", 0x21, 0, 4 + len(syntax)) + bytes([body[0], 0, 0, 0]) + syntax
        items = items[4 + length :]
    name = b"1.2.840.10008.3.1.1.1"
    application = struct.pack(">BBH", 0x10, 0, len(name)) + name
    maximum = struct.pack(">BBHL", 0x51, 0, 4, 16384)
    implementation = b"1.2.3.4"
    maximum += struct.pack(">BBH", 0x52, 0, len(implementation)) + implementation
    user = struct.pack(">BBH", 0x50, 0, len(maximum)) + maximum
    body = request[6:74] + application + contexts + user
    connection.sendall(struct.pack(">BBL", 0x02, 0, len(body)) + body)


def answer_store(connection: socket.socket, status: int, answers_to: int | None = None) -> None:
    """Read one C-STORE-RQ with its data set and answer it, or claim to answer another message."""
    command = b""
    while True:
        pdu = read_pdu(connection)
        context, control, fragment = pdu[10], pdu[11], pdu[12:]
        if control & 1:
            command += fragment
        elif control & 2:
            break
    request = dsutils.decode(io.BytesIO(command), True, True)
    response = Dataset()
    response.AffectedSOPClassUID = request.AffectedSOPClassUID
    response.CommandField = 0x8001
    response.MessageIDBeingRespondedTo = request.MessageID if answers_to is None else answers_to
    response.CommandDataSetType = 0x0101
    response.Status = status
    response.AffectedSOPInstanceUID = request.AffectedSOPInstanceUID
    body = dsutils.encode(response, True, True)
    assert body is not None
    length = Dataset()
    length.CommandGroupLength = len(body)
    prefix = dsutils.encode(length, True, True)
    assert prefix is not None
    value = bytes([context, 3]) + prefix + body
    item = struct.pack(">L", len(value)) + value
    connection.sendall(struct.pack(">BBL", 0x04, 0, len(item)) + item)


def _read(connection: socket.socket, length: int) -> bytes:
    got = b""
    while len(got) < length:
        piece = connection.recv(length - len(got))
        if not piece:
            raise ConnectionError("closed")
        got += piece
    return got
