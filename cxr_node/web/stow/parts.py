"""The parts of a multipart/related body, each an object: fed as they come, by one thread at a time (PS3.18 8.6.1.2).

Of a part's file the data set is taken, below our own File Meta Information: as by C-STORE, the same data set is the
same file, and no preamble of the network is kept.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from cxr_node.node.network import file_meta
from cxr_node.node.network.file_meta import FileMeta
from cxr_node.node.network.statuses import CANNOT_UNDERSTAND
from cxr_node.node.receive.receiver import RefusedError, TooLargeError
from cxr_node.node.receive.reception import Reception
from cxr_node.web.multipart import PartHeaders

DICOM = b"application/dicom"
MAX_PARTS = 10_000
_PLAIN_ENCODINGS = (b"", b"binary", b"8bit", b"7bit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What became of one part; without UIDs where it does not tell any."""

    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    status: int
    is_too_large: bool = False


class Opener(Protocol):
    """The door, as far as a part needs it."""

    def open(self, meta: FileMeta) -> Reception:
        """Begin to receive an object."""

    def close(self, reception: Reception) -> int:
        """Finish it; the status."""

    def refuse(self, refusal: RefusedError) -> None:
        """Note a part that is no object."""


class Parts:
    """All parts of one request.

    Raises
    ------
    FormParserError : from `feed` and `end`; this is no multipart body, or it was cut.
    """

    def __init__(self, boundary: bytes, opener: Opener) -> None:
        self.taken: list[Taken] = []
        self._opener = opener
        self._headers = PartHeaders()
        self._head: bytearray | None = None
        """The first bytes of a file, until its File Meta Information is there."""
        self._reception: Reception | None = None
        self._fault = ""
        self._is_complete = self._is_over = False
        self._turn = threading.Lock()
        callbacks: dict[str, Callable[..., Any]] = {
            **self._headers.callbacks(),
            "on_part_begin": self._headers.begin,
            "on_headers_finished": self._begin,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._complete,
        }
        self._parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]  # a TypedDict

    def feed(self, piece: bytes) -> None:
        """Take what came; an object whose last byte is in it is durable when this returns."""
        with self._turn:
            if not self._is_over:
                self._parser.write(piece)

    def end(self) -> None:
        """Require that all of it has come; the parser's own `finalize` looks at nothing."""
        if not self._is_complete:
            raise FormParserError("cut short")
        if not self.taken:
            raise FormParserError("without a part")

    def discard(self) -> int | None:
        """Drop the object that is not complete, once no other thread is at it: its bytes; None where there is none."""
        with self._turn:
            self._is_over = True
            reception, self._reception = self._reception, None
            return None if reception is None else reception.discard()

    def _begin(self) -> None:
        if len(self.taken) >= MAX_PARTS:
            raise FormParserError("more instances than one request may have")
        kind, _ = parse_options_header(self._headers[b"content-type"] or DICOM)
        encoding = (self._headers[b"content-transfer-encoding"] or b"").strip().lower()
        self._reception, self._head, self._fault = None, bytearray(), ""
        if kind != DICOM:
            self._fault = "a part that is no application/dicom"
        elif encoding not in _PLAIN_ENCODINGS:
            self._fault = "a part with a transfer encoding"

    def _data(self, data: bytes, start: int, end: int) -> None:
        piece = memoryview(data)[start:end]
        if self._reception is not None:
            self._reception.write(piece)
        elif self._head is not None and not self._fault:
            self._head += piece
            self._open()

    def _open(self) -> None:
        head = bytes(self._head or b"")
        try:
            meta = file_meta.read(head)
        except ValueError as error:
            self._fault = str(error)
            return
        if meta is not None:
            self._head = None
            self._reception = self._opener.open(meta)
            self._reception.write(memoryview(head)[meta.size_bytes :])

    def _end(self) -> None:
        reception, self._reception, self._head = self._reception, None, None
        if reception is None:
            self._opener.refuse(RefusedError(CANNOT_UNDERSTAND, self._fault or "no Part 10 file"))
            self.taken.append(Taken(status=CANNOT_UNDERSTAND))
            return
        status = self._opener.close(reception)
        request = reception.request
        self.taken.append(
            Taken(
                sop_class_uid=request.sop_class_uid,
                sop_instance_uid=request.sop_instance_uid,
                status=status,
                is_too_large=isinstance(reception.refusal, TooLargeError),
            )
        )

    def _complete(self) -> None:
        self._is_complete = True
