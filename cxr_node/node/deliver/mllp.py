"""HL7 version 2 messages to one destination, over a connection that stays open while there is work (MLLP release 1).

One message at a time, and the answer to it before the next. The message is sent as it is stored, but for MSH-3 to 6,
MSH-11 and the character set, which are the destination's: at every repeat the same bytes under the same MSH-10.

| what comes | what becomes of it |
|---|---|
| AA or CA with our MSH-10 | delivered |
| AE, AR, CE, CR with an error code of its content (100 to 103, 200 to 205) | permanent: the same bytes fail again |
| AE, AR, CE, CR with 206 or 207 (locked, internal error) | tried again |
| AE or CE without a known code | tried again, up to `delivery.max_age_h`: engines say so of any trouble of theirs |
| AR or CR without a known code | permanent |
| an answer to another MSH-10, or none that can be read | passed over; the wait goes on |
| no answer in `timeout_s`, or a cut one | tried again, over a new connection: a late answer is never read |
| a second answer | passed over: it is dropped before the next message |
| a connection that broke while it was idle | the same once more, over a new one |

HL7 2.5.1 2.9.2, 2.14.8 (MSA), table 0008, table 0357; HL7 Transport Specification: MLLP, Release 1.
"""

from __future__ import annotations

import re
import select
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass

from cxr_node.config.destinations import Hl7CharacterSet, Hl7Destination
from cxr_node.errors import DeliveryError, UnreachableError
from cxr_node.node.deliver.link import ResultFile, StaleConnectionError, StoreReply
from cxr_node.node.network.tls import Renewed, client_tls, why

START, END = b"\x0b", b"\x1c\x0d"
MAX_ANSWER_BYTES = 65536
"""An acknowledgment has a few hundred; more is no answer."""
_CHUNK = 4096
_ACCEPTED = ("AA", "CA")
_REFUSED = ("AE", "AR", "CE", "CR")
_OF_CONTENT = frozenset({"100", "101", "102", "103", "200", "201", "202", "203", "204", "205"})
_OF_THE_MOMENT = frozenset({"206", "207"})
_IDENTIFIERS = {"PID": {3}, "ORC": {2, 3}, "OBR": {2, 3, 18, 19}}
"""Fields in which no letter may be replaced."""
_WORD = re.compile(r"[A-Z0-9]{1,20}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgment:
    """What of an answer counts; no free text of the destination's, for it may name the patient."""

    code: str
    """MSA-1."""
    control_id: str
    """MSA-2."""
    error: str
    """Code of table 0357, "" where there is none."""


class MllpLink:
    """An MLLP receiver as a destination. For one thread."""

    def __init__(self, destination: Hl7Destination) -> None:
        self._destination = destination
        self._tls = None if destination.tls is None else Renewed(destination.tls, client_tls)
        self._socket: socket.socket | None = None
        self._was_idle = False

    def open(self, alternatives: Sequence[ResultFile]) -> Sequence[ResultFile]:
        """Connect, unless a connection is open on which nothing came that nobody waits for."""
        if self._socket is not None and _has_something(self._socket):  # closed, or an answer too many
            self.close()
        self._was_idle = self._socket is not None
        if self._socket is None:
            self._socket = self._connect()
        return alternatives

    def store(self, file: ResultFile) -> StoreReply:
        """Send the message, and judge the answer to it."""
        message = addressed(file.content, self._destination)
        control_id = message.split(b"|", 10)[9].decode("ascii", "replace")
        try:
            answer = self._exchange(message, control_id)
        except DeliveryError:
            self.close()
            raise
        return judge(answer)

    def close(self) -> None:
        """Disconnect."""
        connection, self._socket = self._socket, None
        if connection is not None:
            connection.close()

    def probe(self) -> str:
        """Connect and disconnect: a message would be an entry in somebody's list."""
        self._connect().close()
        return f"{self._destination.where} takes the connection{' over TLS' if self._tls else ''}"

    def _connect(self) -> socket.socket:
        address, timeout_s = self._destination.address, self._destination.timeout_s
        try:
            connection = socket.create_connection((address.host, address.port), timeout_s)
        except OSError as error:
            said = "no answer" if isinstance(error, TimeoutError) else (error.strerror or "no connection").lower()
            raise UnreachableError(f"{address}: {said}") from error
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is None:
            return connection
        configured = self._destination.tls.server_name if self._destination.tls else None
        try:
            return self._tls.context().wrap_socket(connection, server_hostname=configured or address.host)
        except OSError as error:
            connection.close()
            raise UnreachableError(f"{address}: TLS: {why(error)}") from error

    def _exchange(self, message: bytes, control_id: str) -> Acknowledgment:
        connection, until = self._socket, time.monotonic() + self._destination.timeout_s
        if connection is None:
            raise DeliveryError("not connected", permanent=False)
        received = bytearray()
        try:
            connection.settimeout(self._destination.timeout_s)
            connection.sendall(START + message + END)
            while True:
                for frame in _frames(received):
                    answer = parse(frame)
                    if answer is not None and answer.control_id == control_id:
                        return answer
                if len(received) > MAX_ANSWER_BYTES:
                    raise DeliveryError("an answer without an end", permanent=False)
                self._receive(connection, received, until)
        except TimeoutError as error:
            raise DeliveryError(f"no answer to it within {self._destination.timeout_s:g} s", permanent=False) from error
        except OSError as error:
            raise self._broken("the connection broke", received) from error

    def _receive(self, connection: socket.socket, received: bytearray, until: float) -> None:
        left_s = until - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        connection.settimeout(left_s)
        chunk = connection.recv(_CHUNK)
        if not chunk:
            raise self._broken("the destination closed the connection before it answered", received)
        received += chunk

    def _broken(self, words: str, received: bytearray) -> DeliveryError:
        if received:
            return DeliveryError(f"{words}; its answer was cut", permanent=False)
        return StaleConnectionError(words) if self._was_idle else DeliveryError(words, permanent=False)


def addressed(content: bytes, destination: Hl7Destination) -> bytes:
    """Fill in the fields of the header that are the destination's, and write the message in its character set.

    A letter that the character set does not have becomes a question mark.

    Raises
    ------
    DeliveryError : an identifier has such a letter, permanently.
    """
    segments = content.decode("utf-8").split("\r")
    header = segments[0].split("|")
    header[2:6] = [
        destination.sending_application, destination.sending_facility,
        destination.receiving_application, destination.receiving_facility,
    ]  # fmt: skip
    header[10], header[17] = destination.processing_id, destination.character_set.value
    encoding = destination.character_set.encoding
    text = "\r".join(["|".join(header), *segments[1:]])
    try:
        return text.encode(encoding)
    except UnicodeEncodeError:
        _require_identifiers(segments, destination.character_set)
        return text.encode(encoding, "replace")


def _require_identifiers(segments: list[str], character_set: Hl7CharacterSet) -> None:
    for segment in segments:
        name, *fields = segment.split("|")
        for number, value in enumerate(fields, 1):
            if number in _IDENTIFIERS.get(name, ()) and not _fits(value, character_set.encoding):
                words = (
                    f"{name}-{number} cannot be written in {character_set.value}; write character_set: UNICODE UTF-8"
                )
                raise DeliveryError(words, permanent=True)


def _fits(value: str, encoding: str) -> bool:
    return value.encode(encoding, "replace") == value.encode(encoding, "ignore")


def parse(frame: bytes) -> Acknowledgment | None:
    """Read an answer; None where it is none. Its codes are ASCII in every character set."""
    segments = [segment for segment in re.split(r"[\r\n]+", frame.decode("latin-1")) if segment]
    if not segments or not segments[0].startswith("MSH") or len(segments[0]) < 5:
        return None
    field, component = segments[0][3], segments[0][4]
    rows = {name: fields for name, *fields in (segment.split(field) for segment in reversed(segments))}
    acknowledged = rows.get("MSA", [])
    if len(acknowledged) < 2:
        return None
    places = [*_at(rows.get("ERR", []), 3, component)[:1], *_at(rows.get("ERR", []), 1, component)[3:4]]
    places += _at(acknowledged, 6, component)[:1]
    codes = [each.split("&")[0].strip() for each in places]
    error = next((code for code in codes if code and _WORD.fullmatch(code)), "")
    return Acknowledgment(code=acknowledged[0].strip(), control_id=acknowledged[1].strip(), error=error)


def _at(fields: list[str], number: int, component: str) -> list[str]:
    return fields[number - 1].split(component) if len(fields) >= number else []


def judge(answer: Acknowledgment) -> StoreReply:
    """By the table above.

    Raises
    ------
    DeliveryError : it was not accepted.
    """
    if answer.code in _ACCEPTED:
        return StoreReply(words=f"acknowledged={answer.code}")
    known = answer.code if answer.code in _REFUSED else "an answer of no known code"
    words = f"{known}, error {answer.error}" if answer.error else known
    is_rejected = answer.code in ("AR", "CR") and answer.error not in _OF_THE_MOMENT
    raise DeliveryError(words, permanent=answer.error in _OF_CONTENT or is_rejected, answered=True)


def _frames(received: bytearray) -> list[bytes]:
    """Take the whole answers out of what was received; what stands before a start byte is no part of one."""
    found = []
    while (end := received.find(END)) >= 0:
        start = received.find(START, 0, end)
        if start >= 0:
            found.append(bytes(received[start + 1 : end]))
        del received[: end + len(END)]
    return found


def _has_something(connection: socket.socket) -> bool:
    """Whether it was closed, or something lies there to be read."""
    if isinstance(connection, ssl.SSLSocket) and connection.pending():
        return True
    return bool(select.select([connection], [], [], 0)[0])
