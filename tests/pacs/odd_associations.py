"""Associations that are odd and legal, or that DCMTK forgives: drawn from PS3.8 9.3.2 and Annex D of PS3.7, seeded.

Each oddity changes one thing of a plain A-ASSOCIATE-RQ or -AC. A form is one oddity, or a few at once.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.node.wire import DX, EXPLICIT, IMPLICIT, VERIFICATION

APPLICATION = b"1.2.840.10008.3.1.1.1"
STORAGE_SERVICE = b"1.2.840.10008.4.2"
SEED = 12


def item(kind: int, content: bytes, reserved: int = 0) -> bytes:
    """An item or a sub-item (PS3.8 9.3.2)."""
    return struct.pack(">BBH", kind, reserved, len(content)) + content


def proposed(
    number: int, abstract: str, syntaxes: tuple[str, ...], *, pad: bytes = b"", reserved: int = 0, more: bytes = b""
) -> bytes:
    """A Presentation Context Item of an A-ASSOCIATE-RQ; `more` stands between its sub-items."""
    named = b"".join(item(0x40, syntax.encode() + pad, reserved) for syntax in syntaxes)
    head = bytes([number, reserved, reserved, reserved])
    return item(0x20, head + item(0x30, abstract.encode() + pad, reserved) + more + named, reserved)


def role(uid: bytes, scu: int, scp: int) -> bytes:
    """SCP/SCU Role Selection (PS3.7 D.3.3.4)."""
    return item(0x54, struct.pack(">H", len(uid)) + uid + bytes([scu, scp]))


def identity(kind: int, first: bytes, second: bytes = b"", answer: int = 0) -> bytes:
    """User Identity of a request (PS3.7 D.3.3.7)."""
    return item(0x58, bytes([kind, answer]) + _counted(first) + _counted(second))


def common(uid: bytes, related: tuple[bytes, ...], version: int = 0) -> bytes:
    """SOP Class Common Extended Negotiation (PS3.7 D.3.3.6)."""
    listed = b"".join(map(_counted, related))
    return item(0x57, _counted(uid) + _counted(STORAGE_SERVICE) + _counted(listed), version)


def _counted(value: bytes) -> bytes:
    return struct.pack(">H", len(value)) + value


@dataclass(slots=True)
class Request:
    """The parts of an A-ASSOCIATE-RQ (Table 9-11), each as bytes that an oddity may change."""

    version: int = 1
    first_reserved: int = 0
    second_reserved: bytes = bytes(2)
    third_reserved: bytes = bytes(32)
    called: bytes = b"CXR_NODE".ljust(16)
    calling: bytes = b"ODD".ljust(16)
    before: bytes = item(0x10, APPLICATION)
    contexts: list[bytes] = field(
        default_factory=lambda: [proposed(1, VERIFICATION, (IMPLICIT,)), proposed(3, DX, (EXPLICIT,))]
    )
    between: bytes = b""
    user: dict[int, bytes] = field(
        default_factory=lambda: {
            0x51: item(0x51, struct.pack(">I", 16384)),
            0x52: item(0x52, b"1.2.3.4.5"),
            0x55: item(0x55, b"ODD_1"),
        }
    )
    """Sub-items by their type, which is also their order."""
    user_reserved: int = 0
    after: bytes = b""
    user_first: bool = False
    piece_bytes: int = 0
    """How many bytes are sent at a time; 0: all at once."""
    verifying: int = 1
    """The presentation context of Verification."""

    def encoded(self) -> bytes:
        """The PDU."""
        user = item(0x50, b"".join(self.user.values()), self.user_reserved) if self.user else b""
        contexts = b"".join(self.contexts) + self.between
        items = self.before + (user + contexts if self.user_first else contexts + user) + self.after
        fixed = struct.pack(">H", self.version) + self.second_reserved + self.called + self.calling
        body = fixed + self.third_reserved + items
        return struct.pack(">BBI", 0x01, self.first_reserved, len(body)) + body

    def pieces(self) -> Iterator[bytes]:
        """As it is sent."""
        content = self.encoded()
        step = self.piece_bytes or len(content)
        return (content[start : start + step] for start in range(0, len(content), step))


Oddity = Callable[[Request], None]


def _set(**values: object) -> Oddity:
    def change(request: Request) -> None:
        for name, value in values.items():
            setattr(request, name, value)

    return change


def _user(kind: int, content: bytes | None) -> Oddity:
    """Put a sub-item behind the others, or in the place of that type; None takes it out."""

    def change(request: Request) -> None:
        if content is None:
            request.user.pop(kind, None)
        else:
            request.user[kind] = content

    return change


def _contexts(*contexts: bytes, verifying: int = 1) -> Oddity:
    def change(request: Request) -> None:
        request.contexts, request.verifying = list(contexts), verifying

    return change


def _shuffled(request: Request) -> None:
    request.user = dict(reversed(request.user.items()))


def _twice(request: Request) -> None:
    request.user |= {0x100 + kind: content for kind, content in request.user.items()}


_ECHO, _STORE = proposed(1, VERIFICATION, (IMPLICIT,)), proposed(3, DX, (EXPLICIT,))
_MANY = [proposed(number, f"1.2.826.0.1.3680043.8.498.{number}", (EXPLICIT, IMPLICIT)) for number in range(3, 256, 2)]


def _variants(area: str, name: str, values: dict[str, Oddity]) -> dict[str, tuple[str, Oddity]]:
    return {f"{name} {word}": (area, oddity) for word, oddity in values.items()}


ODDITIES: dict[str, tuple[str, Oddity]] = {
    **_variants("version", "version", {f"{bits:04X}": _set(version=bits) for bits in (3, 0x101, 0x8001, 0xFFFF)}),
    **_variants("first", "first reserved", {"01": _set(first_reserved=1), "FF": _set(first_reserved=255)}),
    **_variants("second", "second reserved", {"FFFF": _set(second_reserved=b"\xff\xff")}),
    **_variants(
        "third",
        "third reserved",
        {"text": _set(third_reserved=b"vendor".ljust(32)), "FF": _set(third_reserved=b"\xff" * 32)},
    ),
    **_variants(
        "called",
        "called",
        {
            "padded with NUL": _set(called=b"CXR_NODE".ljust(16, b"\0")),
            "with spaces before": _set(called=b"CXR_NODE".rjust(16)),
            "with NUL and spaces": _set(called=b"CXR_NODE\0 \0 \0   "),
            "unlike ours": _set(called=b"SOMEBODY ELSE".ljust(16)),
            "of 16": _set(called=b"ABCDEFGHIJKLMNOP"),
        },
    ),
    **_variants(
        "calling",
        "calling",
        {
            "padded with NUL": _set(calling=b"ODD".ljust(16, b"\0")),
            "with spaces before": _set(calling=b"ODD".rjust(16)),
            "with something after NUL": _set(calling=b"ODD\0stale bytes!"),
            "in Latin-1": _set(calling=b"R\xf6ntgen 1".ljust(16)),
            "in UTF-8": _set(calling="Röntgen 1".encode().ljust(16)),
            "in Cyrillic": _set(calling=b"\xc0\xc1\xc2\xc3".ljust(16)),
            "with a backslash": _set(calling=b"ODD\\1".ljust(16)),
            "with a control character": _set(calling=b"ODD\x07\x1b[1".ljust(16)),
            "with markup": _set(calling=b"<&\"'%s{}\xff\xfe>".ljust(16)),
            "of 16": _set(calling=b"ABCDEFGHIJKLMNOP"),
        },
    ),
    **_variants(
        "application",
        "application context",
        {
            "padded with NUL": _set(before=item(0x10, APPLICATION + b"\0")),
            "reserved byte": _set(before=item(0x10, APPLICATION, 0xFF)),
            "last": lambda request: _set(before=b"", after=request.before + request.after)(request),
        },
    ),
    **_variants(
        "unknown",
        "unknown item",
        {
            "70 first": lambda request: _set(before=item(0x70, b"vendor") + request.before)(request),
            "70 between": _set(between=item(0x70, b"vendor")),
            "70 last": _set(after=item(0x70, b"vendor")),
            "FF": _set(between=item(0xFF, b"\0\1\2")),
            "11": _set(between=item(0x11, b"1.2.840.10008.3.1.1.2")),
            "22": _set(between=item(0x22, bytes(4) + item(0x40, EXPLICIT.encode()))),
            "00": _set(after=item(0x00, b"")),
            "empty": _set(between=item(0x7F, b"", 0xFF)),
            "long": _set(between=item(0x60, bytes(20000))),
            "many": _set(between=b"".join(item(0x80 + kind, b"x" * kind) for kind in range(40))),
        },
    ),
    **_variants(
        "sub-item",
        "unknown sub-item",
        {
            f"{kind:02X}": _user(kind, item(kind, content))
            for kind, content in ((0x60, b"vendor"), (0x5A, b""), (0xFF, b"\xff" * 9), (0x00, b"0"), (0x50, b"1234"))
        }
        | {"5B first": lambda request: _set(user={0x5B: item(0x5B, b"vendor"), **request.user})(request)},
    ),
    **_variants(
        "name",
        "version name",
        {
            "absent": _user(0x55, None),
            "empty": _user(0x55, item(0x55, b"")),
            "of 16": _user(0x55, item(0x55, b"SIXTEEN_LETTERS_")),
            "padded with NUL": _user(0x55, item(0x55, b"ODD_1\0")),
            "padded with spaces": _user(0x55, item(0x55, b"ODD_1           ")),
            "in Latin-1": _user(0x55, item(0x55, b"R\xd6NTGEN")),
            "with a backslash": _user(0x55, item(0x55, b"ODD\\1")),
            "with a control character": _user(0x55, item(0x55, b"ODD\n1")),
        }
        | {f"of {length}": _user(0x55, item(0x55, b"N" * length)) for length in (17, 20, 40, 64)},
    ),
    **_variants(
        "class",
        "implementation class",
        {
            "absent": _user(0x52, None),
            "padded with NUL": _user(0x52, item(0x52, b"1.2.3.4.5\0")),
            "padded with a space": _user(0x52, item(0x52, b"1.2.3.4.5 ")),
            "with leading zeros": _user(0x52, item(0x52, b"1.2.003.04")),
            "of 64": _user(0x52, item(0x52, b"1." + b"2" * 62)),
            "empty": _user(0x52, item(0x52, b"")),
            "no UID": _user(0x52, item(0x52, b"vendor\xe9")),
        },
    ),
    **_variants(
        "length",
        "maximum length",
        {"absent": _user(0x51, None), "of 8 bytes": _user(0x51, item(0x51, struct.pack(">II", 16384, 0)))}
        | {
            str(length): _user(0x51, item(0x51, struct.pack(">I", length)))
            for length in (0, 4096, 8191, 131072, 2**31, 2**32 - 1)
        },
    ),
    **_variants(
        "user",
        "user information",
        {
            "first": _set(user_first=True),
            "empty": _set(user={0x51: b""}),
            "absent": _set(user={}),
            "reserved byte": _set(user_reserved=0xFF),
            "in reverse": _shuffled,
            "all twice": _twice,
            "item twice": lambda request: _set(after=item(0x50, item(0x51, struct.pack(">I", 16384))))(request),
        },
    ),
    **_variants(
        "window",
        "operations window",
        {f"{a}/{b}": _user(0x53, item(0x53, struct.pack(">HH", a, b))) for a, b in ((0, 0), (1, 1), (5, 3), (65535, 0))}
        | {"of 2 bytes": _user(0x53, item(0x53, b"\0\5"))},
    ),
    **_variants(
        "role",
        "role",
        {f"{scu}/{scp}": _user(0x54, role(DX.encode(), scu, scp)) for scu, scp in ((1, 0), (0, 1), (1, 1), (0, 0))}
        | {
            "of Verification": _user(0x54, role(VERIFICATION.encode(), 1, 0)),
            "of a class not proposed": _user(0x54, role(b"1.2.840.10008.1.20.1", 0, 1)),
            "padded with NUL": _user(0x54, role(DX.encode() + b"\0", 1, 0)),
            "beyond 1": _user(0x54, role(DX.encode(), 2, 255)),
            "twice": _user(0x54, 2 * role(DX.encode(), 1, 1)),
        },
    ),
    **_variants(
        "extended",
        "extended negotiation",
        {
            "of storage": _user(0x56, item(0x56, _counted(DX.encode()) + bytes([2, 0, 0, 0, 1, 0]))),
            "without information": _user(0x56, item(0x56, _counted(DX.encode()))),
            "padded with NUL": _user(0x56, item(0x56, _counted(DX.encode() + b"\0") + b"\1")),
            "of a class not proposed": _user(0x56, item(0x56, _counted(b"1.2.3") + bytes(100))),
            "twice": _user(0x56, 2 * item(0x56, _counted(DX.encode()) + b"\2")),
        },
    ),
    **_variants(
        "common",
        "common extended negotiation",
        {
            "plain": _user(0x57, common(DX.encode(), ())),
            "with related classes": _user(0x57, common(DX.encode(), (b"1.2.840.10008.5.1.4.1.1.1", b"1.2.3"))),
            "of version 1": _user(0x57, common(DX.encode(), (), 1)),
            "of a class not proposed": _user(0x57, common(b"1.2.3.4", (b"1.2.3\0",))),
        },
    ),
    **_variants(
        "identity",
        "user identity",
        {
            f"{kind} {word}": _user(0x58, identity(kind, *fields))
            for kind in (1, 2, 3, 4, 5, 6, 200)
            for word, fields in {"": (b"doctor", b"secret" if kind == 2 else b"", 0)}.items()
        }
        | {
            "with an answer": _user(0x58, identity(1, b"doctor", b"", 1)),
            "with a password and an answer": _user(0x58, identity(2, b"doctor", b"p\xe4ss", 1)),
            "of no name": _user(0x58, identity(1, b"")),
            "of a large ticket": _user(0x58, identity(3, bytes(9000), b"", 1)),
            "answer byte 255": _user(0x58, identity(4, b"<saml/>", b"", 255)),
        },
    ),
    **_variants(
        "contexts",
        "contexts",
        {
            "in reverse": _contexts(_STORE, _ECHO),
            "from 255 down": _contexts(
                proposed(255, VERIFICATION, (IMPLICIT,)), proposed(127, DX, (EXPLICIT,)), verifying=255
            ),
            "with several syntaxes": _contexts(
                proposed(1, VERIFICATION, (EXPLICIT, "1.2.840.10008.1.2.2", IMPLICIT)), _STORE
            ),
            "with a syntax twice": _contexts(proposed(1, VERIFICATION, (IMPLICIT, IMPLICIT)), _STORE),
            "with a private syntax": _contexts(proposed(1, VERIFICATION, ("1.2.826.0.1.77", IMPLICIT)), _STORE),
            "padded with NUL": _contexts(proposed(1, VERIFICATION, (IMPLICIT,), pad=b"\0"), _STORE),
            "reserved bytes": _contexts(proposed(1, VERIFICATION, (IMPLICIT,), reserved=0xFF), _STORE),
            "with an unknown sub-item": _contexts(
                proposed(1, VERIFICATION, (IMPLICIT,), more=item(0x41, b"vendor")), _STORE
            ),
            "syntaxes first": _contexts(
                item(0x20, bytes([1, 0, 0, 0]) + item(0x40, IMPLICIT.encode()) + item(0x30, VERIFICATION.encode())),
                _STORE,
            ),
            "of one class many times": _contexts(
                *(proposed(number, DX, (EXPLICIT,)) for number in range(3, 40, 2)), _ECHO
            ),
            "128 of them": _contexts(_ECHO, *_MANY),
            "of unknown classes": _contexts(_ECHO, *_MANY[:3], proposed(99, "2.25.1", ("2.25.2",))),
            "with an odd UID": _contexts(_ECHO, proposed(3, "1.2.x.01.", (EXPLICIT,))),
            "with a UID of 64": _contexts(_ECHO, proposed(3, "1." + "2" * 62, ("1." + "3" * 62,))),
            "without a class": _contexts(_ECHO, item(0x20, bytes([3, 0, 0, 0]) + item(0x40, EXPLICIT.encode()))),
            "of an even number": _contexts(_ECHO, proposed(4, DX, (EXPLICIT,))),
            "number 0": _contexts(_ECHO, proposed(0, DX, (EXPLICIT,))),
            "with a number twice": _contexts(_ECHO, _STORE, _STORE),
            "with one number for two": _contexts(_ECHO, proposed(1, DX, (EXPLICIT,))),
            "Verification alone": _contexts(_ECHO),
        },
    ),
    **_variants("pieces", "in pieces", {f"of {size}": _set(piece_bytes=size) for size in (1, 3, 5, 6, 7, 73, 74, 75)}),
    **_variants(
        "end",
        "at the end",
        {"four bytes": _set(after=bytes(4))},
    ),
}
"""Name to what it touches, and what it does."""


def forms(number: int, seed: int = SEED) -> dict[str, Request]:
    """Every oddity by itself, then as many mixtures of two to five as it takes."""
    chance, made = random.Random(seed), {name: mixed(name) for name in ODDITIES}
    while len(made) < number:
        chosen = chance.sample(sorted(ODDITIES), chance.randint(2, 5))
        if len({ODDITIES[name][0] for name in chosen}) == len(chosen):  # no two that change the same
            made[", ".join(chosen)] = mixed(*chosen)
    return made


def mixed(*names: str) -> Request:
    """A request with these oddities."""
    request = Request()
    for name in names:
        ODDITIES[name][1](request)
    return request


@dataclass(slots=True)
class Acceptance:
    """The parts of an A-ASSOCIATE-AC (Table 9-17) that answers a request, each as bytes that an oddity may change."""

    contexts: dict[int, bytes]
    """By number: the first syntax of each is accepted."""
    version: int = 1
    first_reserved: int = 0
    second_reserved: bytes = bytes(2)
    fixed: bytes = bytes(64)
    before: bytes = item(0x10, APPLICATION)
    between: bytes = b""
    after: bytes = b""
    user: list[bytes] = field(
        default_factory=lambda: [
            item(0x51, struct.pack(">I", 16384)),
            item(0x52, b"1.2.3.4.5"),
            item(0x55, b"ODD_1"),
        ]
    )
    user_first: bool = False
    piece_bytes: int = 0

    def encoded(self) -> bytes:
        """The PDU."""
        user = item(0x50, b"".join(self.user)) if self.user else b""
        contexts = b"".join(self.contexts.values()) + self.between
        items = self.before + (user + contexts if self.user_first else contexts + user) + self.after
        body = struct.pack(">H", self.version) + self.second_reserved + self.fixed + items
        return struct.pack(">BBI", 0x02, self.first_reserved, len(body)) + body


def accepted(number: int, syntax: bytes, *, result: int = 0, reserved: int = 0, more: bytes = b"") -> bytes:
    """A Presentation Context Item of an A-ASSOCIATE-AC."""
    return item(0x21, bytes([number, reserved, result, reserved]) + more + item(0x40, syntax, reserved), reserved)


def acceptance(request: bytes) -> Acceptance:
    """Accept every context of a request, in its first syntax."""
    contexts, place = {}, 74
    while place < len(request):
        kind, length = request[place], int.from_bytes(request[place + 2 : place + 4])
        content = request[place + 4 : place + 4 + length]
        if kind == 0x20:
            at = 4 + 4 + int.from_bytes(content[6:8])  # behind the abstract syntax
            size = int.from_bytes(content[at + 2 : at + 4])
            contexts[content[0]] = accepted(content[0], content[at + 4 : at + 4 + size])
        place += 4 + length
    return Acceptance(contexts=contexts, fixed=request[10:74])


def _answer(**values: object) -> Callable[[Acceptance], None]:
    def change(answer: Acceptance) -> None:
        for name, value in values.items():
            setattr(answer, name, value)

    return change


def _also(*more: bytes) -> Callable[[Acceptance], None]:
    return lambda answer: answer.user.extend(more)


def _instead(kind: int, *more: bytes) -> Callable[[Acceptance], None]:
    def change(answer: Acceptance) -> None:
        answer.user = [one for one in answer.user if one[0] != kind] + list(more)

    return change


def _each(made: Callable[[int, bytes], bytes]) -> Callable[[Acceptance], None]:
    """Change every context, from its number and its syntax."""

    def change(answer: Acceptance) -> None:
        for number, content in answer.contexts.items():
            answer.contexts[number] = made(number, content[12:])

    return change


def _rejected(result: int, syntax: bytes | None) -> Callable[[Acceptance], None]:
    """Reject what is proposed in Implicit VR, as an archive that knows one syntax does."""

    def change(answer: Acceptance) -> None:
        for number, content in answer.contexts.items():
            if content[12:] == IMPLICIT.encode():
                head = bytes([number, 0, result, 0])
                answer.contexts[number] = item(0x21, head + (b"" if syntax is None else item(0x40, syntax)))

    return change


def _reversed(answer: Acceptance) -> None:
    answer.contexts = dict(reversed(answer.contexts.items()))


def _explicit_only(answer: Acceptance) -> None:
    answer.contexts = {n: one for n, one in answer.contexts.items() if one[12:] == EXPLICIT.encode()}


ANSWERS: dict[str, Callable[[Acceptance], None]] = {
    **{f"version {bits:04X}": _answer(version=bits) for bits in (3, 0x8001, 0xFFFF)},
    "first reserved byte": _answer(first_reserved=0xFF),
    "second reserved bytes": _answer(second_reserved=b"\xff\xff"),
    "titles of NUL": _answer(fixed=bytes(64)),
    "titles in Latin-1": _answer(fixed=b"R\xf6ntgenarchiv  ".ljust(64, b"\xff")),
    "titles of others": _answer(fixed=b"SOMEBODY".ljust(16) + b"ELSE".ljust(48)),
    "application context padded": _answer(before=item(0x10, APPLICATION + b"\0")),
    "application context last": _answer(before=b"", after=item(0x10, APPLICATION)),
    "unknown item first": _answer(before=item(0x70, b"vendor") + item(0x10, APPLICATION)),
    "unknown item between": _answer(between=item(0x22, b"vendor")),
    "unknown item last": _answer(after=item(0xFF, b"vendor", 0xFF)),
    "unknown empty items": _answer(between=b"".join(item(0x90 + n, b"") for n in range(30))),
    **{
        f"unknown sub-item {kind:02X}": _also(item(kind, content))
        for kind, content in ((0x60, b"vendor"), (0x5A, b""), (0xFF, b"\xff" * 9))
    },
    "operations window": _also(item(0x53, struct.pack(">HH", 5, 5))),
    "operations window of 2 bytes": _also(item(0x53, b"\0\5")),
    "role that nobody asked for": _also(role(DX.encode(), 1, 1)),
    "role beyond 1": _also(role(DX.encode(), 7, 9)),
    "identity": _also(item(0x59, _counted(b"ticket"))),
    "identity of a request": _also(identity(9, b"x")),
    "extended negotiation": _also(item(0x56, _counted(DX.encode()) + b"\2\0\0")),
    "common extended negotiation": _also(common(DX.encode(), (b"1.2.3",))),
    "version name absent": _instead(0x55),
    **{f"version name of {n}": _instead(0x55, item(0x55, b"N" * n)) for n in (0, 17, 20, 64)},
    "version name in Latin-1": _instead(0x55, item(0x55, b"R\xd6NTGEN\n1")),
    "implementation class absent": _instead(0x52),
    "implementation class padded": _instead(0x52, item(0x52, b"1.2.3.4\0")),
    "implementation class no UID": _instead(0x52, item(0x52, b"vendor\xe9")),
    "implementation class of 64": _instead(0x52, item(0x52, b"1." + b"2" * 62)),
    "maximum length absent": _instead(0x51),
    **{f"maximum length {n}": _instead(0x51, item(0x51, struct.pack(">I", n))) for n in (0, 128, 4097, 2**32 - 1)},
    "user information absent": _answer(user=[]),
    "user information first": _answer(user_first=True),
    "user information twice": _answer(after=item(0x50, item(0x51, struct.pack(">I", 4096)))),
    "contexts in reverse": _reversed,
    "contexts padded with NUL": _each(lambda number, syntax: accepted(number, syntax + b"\0")),
    "contexts with reserved bytes": _each(lambda number, syntax: accepted(number, syntax, reserved=0xFF)),
    "contexts with an unknown sub-item": _each(
        lambda number, syntax: accepted(number, syntax, more=item(0x41, b"vendor"))
    ),
    "contexts twice": _answer(between=accepted(1, b"1.2.840.10008.1.2.4.50")),
    "contexts of unknown numbers": _answer(between=accepted(201, EXPLICIT.encode()) + accepted(203, b"1.2.3")),
    "contexts of an even number": _answer(between=accepted(2, EXPLICIT.encode()) + accepted(0, b"1.2.3")),
    "contexts that are left out": _explicit_only,
    "rejected without a syntax": _rejected(4, None),
    "rejected with an empty syntax": _rejected(3, b""),
    "rejected with nonsense": _rejected(2, b"\xff\xfe not a UID"),
    "rejected for a reserved reason": _rejected(99, IMPLICIT.encode()),
    "in pieces of 1": _answer(piece_bytes=1),
    "in pieces of 7": _answer(piece_bytes=7),
}
"""What an archive may make of its acceptance."""
