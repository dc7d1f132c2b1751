"""A peer's association PDUs, rewritten in the form that pynetdicom reads: bytes in, bytes out.

PS3.8 9.3.1: "items of an unrecognized type shall be ignored and skipped". Table 9-11: only bit 0 of the version is
tested, reserved fields are not tested. pynetdicom 3.0.4 aborts at an unknown item, a version name of 17 characters,
an AE title outside ASCII, a reserved diagnostic. Here such a PDU is rewritten with only what the node understands,
for either role. Knows no socket and no policy.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence

RQ, AC, RJ, ABORT = 0x01, 0x02, 0x03, 0x07
FIXED_BYTES = 74
"""Of an A-ASSOCIATE-RQ or -AC before its first item (Table 9-11, 9-17)."""
UNSTATED_LENGTH = 16384
"""Longest PDU for a peer that names no limit: every peer accepts this."""
_TITLES = slice(10, 42)
_ECHOED = slice(10, FIXED_BYTES)
_APPLICATION, _PROPOSED, _RESULT, _ABSTRACT, _TRANSFER, _USER = 0x10, 0x20, 0x21, 0x30, 0x40, 0x50
_LENGTH, _CLASS_UID, _ROLE, _VERSION_NAME = 0x51, 0x52, 0x54, 0x55
_SHORTEST_PDU = 8  # a PDV's head and two bytes
_NO_SYNTAX = b"0.0"
"""In the place of a UID that is none: never supported, so its presentation context is answered and rejected."""
_UID = re.compile(rb"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*")
_ACCEPTED, _USER_REJECTION = 0, 1

_RESULTS = {1: "permanent", 2: "transient"}
_REASONS = {
    (1, 1): "No reason given",
    (1, 2): "Application context name not supported",
    (1, 3): "Calling AE title not recognized",
    (1, 7): "Called AE title not recognized",
    (2, 1): "No reason given",
    (2, 2): "Protocol version not supported",
    (3, 1): "Temporary congestion",
    (3, 2): "Local limit exceeded",
}
"""Source and reason of an A-ASSOCIATE-RJ (Table 9-21)."""
_ABORTS = {
    0: "Reason not specified",
    1: "Unrecognized PDU",
    2: "Unexpected PDU",
    4: "Unrecognized PDU parameter",
    5: "Unexpected PDU parameter",
    6: "Invalid PDU parameter value",
}
"""Reasons of the provider's A-ABORT (Table 9-26)."""

REJECTED = "association rejected"
"""How the words of an A-ASSOCIATE-RJ begin."""


def tidy(pdu: bytes) -> bytes:
    """Rewrite an A-ASSOCIATE-RQ, -AC, -RJ or an A-ABORT; any other PDU stays as it is.

    Raises
    ------
    ValueError : its items do not fit into it.
    """
    match pdu[:1]:
        case b"\x01":
            return _tidy_associate(pdu, RQ)
        case b"\x02":
            return _tidy_associate(pdu, AC)
        case b"\x03":
            return _tidy_rejection(pdu)
        case b"\x07":
            source, reason = _last_two(pdu)
            is_known = source == 2 and reason in _ABORTS
            return _encoded(ABORT, bytes([0, 0, source if source == 2 else 0, reason if is_known else 0]))
        case _:
            return pdu


def titles(pdu: bytes) -> tuple[str, str]:
    """Read called and calling AE title of an A-ASSOCIATE-RQ: without padding, printable ASCII, the rest escaped."""
    both = pdu[_TITLES]
    return _escaped(both[:16]), _escaped(both[16:])


def with_echo(answer: bytes, request: bytes) -> bytes:
    """Return an A-ASSOCIATE-AC with the titles and reserved bytes of its request, as Table 9-17 asks for."""
    return answer[: _ECHOED.start] + request[_ECHOED] + answer[_ECHOED.stop :]


def is_about_version(rejection: bytes) -> bool:
    """Whether an A-ASSOCIATE-RJ rejects the protocol version."""
    return _last_two(rejection) == (2, 2)


def in_words(pdu: bytes) -> str:
    """An A-ASSOCIATE-RJ or A-ABORT in words; "" for any other PDU."""
    match pdu[:1]:
        case b"\x03":
            result = pdu[7] if len(pdu) > 7 else 0
            source, reason = _last_two(pdu)
            words = _REASONS.get((source, reason), f"reserved reason {source}/{reason}")
            return f"{REJECTED} ({_RESULTS.get(result, f'reserved result {result}')}): {words}"
        case b"\x07":
            source, reason = _last_two(pdu)
            if source != 2:
                return "association aborted by the peer's application"
            return f"association aborted by the peer: {_ABORTS.get(reason, f'reserved reason {reason}')}"
        case _:
            return ""


def _tidy_rejection(pdu: bytes) -> bytes:
    result = pdu[7] if len(pdu) > 7 else 1
    source, reason = _last_two(pdu)
    if (source, reason) not in _REASONS:
        source, reason = 1, 1
    return _encoded(RJ, bytes([0, result if result in _RESULTS else 1, source, reason]))


def _last_two(pdu: bytes) -> tuple[int, int]:
    """Read the source and the reason of a rejection or an abort; what is not there is 0."""
    both = pdu[8:10].ljust(2, b"\0")
    return both[0], both[1]


def _tidy_associate(pdu: bytes, kind: int) -> bytes:
    if len(pdu) < FIXED_BYTES:
        raise ValueError("an association without its fixed fields")
    if kind == RQ and not all(map(_unpadded, (pdu[10:26], pdu[26:42]))):
        raise ValueError("an AE title of nothing but padding")
    items = list(_items(pdu[FIXED_BYTES:]))
    version = 1 if pdu[7] & 1 else 0
    fields = struct.pack(">HH", version, 0) + b"".join(map(_title, (pdu[10:26], pdu[26:42]))) + bytes(32)
    name = next((_uid(content) for item, content in items if item == _APPLICATION), _NO_SYNTAX)
    contexts = _contexts(items, kind)
    said = [part for item, content in items if item == _USER for part in _items(content)]
    return _encoded(kind, fields + _item(_APPLICATION, name) + contexts + _item(_USER, _user_information(said)))


def _contexts(items: Sequence[tuple[int, bytes]], kind: int) -> bytes:
    """Presentation contexts that have a legal number; of two with the same number the first."""
    found: dict[int, bytes] = {}
    for item, content in items:
        if item == (_PROPOSED if kind == RQ else _RESULT) and len(content) >= 4 and content[0] % 2:
            result, subs = _proposed(content) if kind == RQ else _result(content)
            found.setdefault(content[0], _item(item, bytes([content[0], 0, result, 0]) + subs))
    return b"".join(found.values())


def _proposed(content: bytes) -> tuple[int, bytes]:
    parts = list(_items(content[4:]))
    abstract = next((_uid(part) for kind, part in parts if kind == _ABSTRACT), _NO_SYNTAX)
    syntaxes = [_uid(part) for kind, part in parts if kind == _TRANSFER] or [_NO_SYNTAX]
    return 0, _item(_ABSTRACT, abstract) + b"".join(_item(_TRANSFER, syntax) for syntax in dict.fromkeys(syntaxes))


def _result(content: bytes) -> tuple[int, bytes]:
    """A rejected context has no significant syntax (9.3.3.2); one accepted without a syntax is useless."""
    if content[2] != _ACCEPTED:
        return content[2], b""
    syntax = next((_uid(part) for kind, part in _items(content[4:]) if kind == _TRANSFER), _NO_SYNTAX)
    return (_USER_REJECTION, b"") if syntax == _NO_SYNTAX else (_ACCEPTED, _item(_TRANSFER, syntax))


def _user_information(said: Sequence[tuple[int, bytes]]) -> bytes:
    """Keep what the node uses, the roles too. Answering the rest is optional (PS3.7 D.3.3)."""
    lengths = [int.from_bytes(content[:4]) for part, content in said if part == _LENGTH and len(content) >= 4]
    length = next(iter(lengths), UNSTATED_LENGTH)
    heeded = _item(_LENGTH, struct.pack(">I", max(length & ~1, _SHORTEST_PDU) if length else 0))
    uid = next((_uid(content) for part, content in said if part == _CLASS_UID), _NO_SYNTAX)
    heeded += _item(_CLASS_UID, uid)
    if name := next((_printable(content)[:16] for part, content in said if part == _VERSION_NAME), b""):
        heeded += _item(_VERSION_NAME, name)
    return heeded + b"".join(_role(content) for part, content in said if part == _ROLE)


def _role(content: bytes) -> bytes:
    """Give a role that can be read; of a byte that is neither 0 nor 1 the standard says nothing."""
    length = int.from_bytes(content[:2])
    uid, ends = _uid(content[2 : 2 + length]), content[2 + length : 4 + length]
    if len(ends) < 2 or uid == _NO_SYNTAX:
        return b""
    return _item(_ROLE, struct.pack(">H", len(uid)) + uid + bytes(min(end, 1) for end in ends))


def _items(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Walk over items, or over the sub-items of one; up to three bytes of padding at the end are ignored.

    Raises
    ------
    ValueError : one does not fit.
    """
    place = 0
    while len(content) - place >= 4:
        kind, length = struct.unpack_from(">BxH", content, place)
        start, place = place + 4, place + 4 + length
        if place > len(content):
            raise ValueError(f"an item {kind:02X}H of {length} bytes where {len(content) - start} are left")
        yield kind, content[start:place]
    if any(content[place:]):
        raise ValueError("half an item at the end")


def _uid(content: bytes) -> bytes:
    """A UID without its padding; an invalid one becomes one that is never supported."""
    uid = content.rstrip(b"\0 ")
    return uid if len(uid) <= 64 and _UID.fullmatch(uid) else _NO_SYNTAX


def _title(content: bytes) -> bytes:
    """Give an AE title in the letters that pynetdicom takes; `titles` keeps those that came."""
    return _printable(content).ljust(16)


def _printable(content: bytes) -> bytes:
    letters = _unpadded(content)
    return bytes(one if 0x20 <= one < 0x7F and one != 0x5C else 0x3F for one in letters)  # "\" becomes "?"


def _escaped(content: bytes) -> str:
    letters = _unpadded(content)
    return "".join(chr(one) if 0x20 <= one < 0x7F and one != 0x5C else f"\\x{one:02X}" for one in letters)


def _unpadded(content: bytes) -> bytes:
    """PS3.8 Table 9-11: leading and trailing spaces are not significant; some devices fill up with NUL."""
    return content.split(b"\0")[0].strip()


def _item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(content)) + content


def _encoded(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBI", kind, 0, len(content)) + content
