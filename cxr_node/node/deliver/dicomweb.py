"""DICOMweb user agent: stores one object a request by STOW-RS, and looks for it by QIDO-RS (PS3.18 10.5, 10.6).

Objects are sent in Explicit VR Little Endian, the default of application/dicom: HTTP negotiates nothing before the
first byte, so nothing is compressed. One object a request, so that each has an answer of its own;
the connection stays open between them. A request URL carries our own SOP Instance UID and nothing else.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence

from cxr_node.config.destinations import DicomWebDestination
from cxr_node.errors import DeliveryError, ResourceError
from cxr_node.node.deliver import dicomweb_answers
from cxr_node.node.deliver.http_client import HttpClient
from cxr_node.node.deliver.http_exchange import Request, in_pieces
from cxr_node.node.deliver.link import ResultFile, StaleConnectionError, StoreReply
from cxr_node.node.network import file_meta, pictures
from cxr_node.node.network.pictures import PictureCompressor
from cxr_node.node.network.rejections import Refusals

ACCEPT = "application/dicom+json"
"""Alone: Orthanc logs an error for a list. What answers in XML all the same is read."""
_NO_SOP_CLASS = 0x0122
_NOBODY = "2.25.0"
"""No object has it: asked for by `check`, so that no answer is about a patient."""
_NO_SERVICE = (404, 405, 501)


class DicomWebLink:
    """An origin server as a destination. For one thread.

    Raises
    ------
    ConfigError : a certificate, key or secret cannot be used.
    """

    def __init__(
        self,
        destination: DicomWebDestination,
        refusals: Refusals | None = None,
        compressor: PictureCompressor | None = None,
    ) -> None:
        self._destination = destination
        self._compressor = compressor
        self._http = HttpClient(destination, refusals)
        self._offered: set[str] = set()
        self._refused: set[str] = set()

    def open(self, alternatives: Sequence[ResultFile]) -> list[ResultFile]:
        """Get a token; all SOP Classes but those that the server has refused, for HTTP negotiates none."""
        self._http.authorize()
        self._offered = {file.sop_class_uid for file in alternatives}
        left = [file for file in alternatives if file.sop_class_uid not in self._refused]
        return left or list(alternatives)

    def store(self, file: ResultFile) -> StoreReply:
        """STOW-RS of one object; where the answer proves nothing, QIDO-RS decides."""
        try:
            return self._store(file)
        except DeliveryError as error:
            if error.status == _NO_SOP_CLASS:
                self._refused.add(file.sop_class_uid)
                if self._offered - self._refused:  # the next try is the same result in another SOP Class
                    raise DeliveryError(str(error), permanent=False, status=error.status) from error
            raise

    def close(self) -> None:
        """Close the connection."""
        if self._compressor is not None:
            self._compressor.close()
        self._http.close()

    def probe(self) -> str:
        """QIDO-RS for an object that nobody has; where that is not there, OPTIONS."""
        where = self._destination.where
        try:
            request = _query(self._destination.url, _NOBODY)
            answer = self._http.ask(request)
            if answer.status not in _NO_SERVICE or self._destination.verify_h is not None:
                dicomweb_answers.found(answer, _NOBODY)
                return f"{where} answers QIDO-RS{self._as_whom()}"
            answer = self._http.ask(Request(method="OPTIONS", url=f"{self._destination.url}/studies"))
            if answer.status // 100 != 2:
                raise dicomweb_answers.refusal(answer)
            return f"{where} answers{self._as_whom()}, without QIDO-RS: the first result shows whether it stores"
        except DeliveryError as error:
            raise DeliveryError(f"{where}: {error}", permanent=error.permanent, answered=error.answered) from error
        finally:
            self._http.close()

    def _as_whom(self) -> str:
        over = " over TLS" if self._destination.url.startswith("https:") else ""
        shown = self._destination.authentication
        return f"{over}, authentication {shown.kind} accepted" if shown is not None else over

    def _store(self, file: ResultFile) -> StoreReply:
        uid, content = self._uncompressed(file.content)
        answer = self._http.ask(_store_request(self._destination.url, content), len(content))
        try:
            reply = dicomweb_answers.stored(answer, uid)
        except DeliveryError as error:
            if not dicomweb_answers.says_little(error.status):
                raise
            return self._looked_up(uid, str(error), error.status)
        if reply is not None:
            return reply
        words = dicomweb_answers.unproven(answer)
        self._http.confused(words)
        return self._looked_up(uid, words)

    def _uncompressed(self, content: bytes) -> tuple[str, bytes]:
        """SOP Instance UID, and the file as it leaves."""
        try:
            uid, _ = file_meta.split(content)
            return uid, pictures.unpack(content, self._compressor)
        except ValueError as error:
            raise DeliveryError(str(error), permanent=True) from error
        except ResourceError as error:
            raise DeliveryError(str(error), permanent=False) from error

    def _looked_up(self, uid: str, words: str, status: int | None = None) -> StoreReply:
        """The answer leaves open whether it is there; `words` and `status` are what it said."""
        after_s = None
        try:
            if is_seen(self._http, self._destination.url, uid):
                return StoreReply(words=f"{words}; seen by QIDO-RS", status=status, is_warning=True)
            words += ", and QIDO-RS does not show it"
        except DeliveryError as error:
            words, after_s = f"{words}, and to QIDO-RS {error}", error.after_s
        raise DeliveryError(words, permanent=False, status=status, answered=True, after_s=after_s)


def is_seen(http: HttpClient, url: str, sop_instance_uid: str) -> bool:
    """Whether QIDO-RS lists an object.

    Raises
    ------
    DeliveryError : it could not be asked, or gave no answer to that.
    """
    request = _query(url, sop_instance_uid)
    try:
        answer = http.ask(request)
    except StaleConnectionError:
        answer = http.ask(request)
    return dicomweb_answers.found(answer, sop_instance_uid)


def _query(url: str, sop_instance_uid: str) -> Request:
    return Request(method="GET", url=f"{url}/instances?SOPInstanceUID={sop_instance_uid}", headers={"accept": ACCEPT})


def _store_request(url: str, content: bytes) -> Request:
    """Multipart/related of one part (PS3.18 8.6.1.2.1), made piece by piece while it leaves."""
    boundary = uuid.uuid4().hex
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\nContent-Length: {len(content)}\r\n\r\n".encode()
    tail = f"\r\n--{boundary}--\r\n".encode()
    headers = {
        "accept": ACCEPT,
        "content-type": f'multipart/related; type="application/dicom"; boundary={boundary}',
        "content-length": str(len(head) + len(content) + len(tail)),
    }

    def pieces() -> Iterator[bytes]:
        yield head
        yield from in_pieces(content)
        yield tail

    return Request(method="POST", url=f"{url}/studies", headers=headers, body=pieces)
