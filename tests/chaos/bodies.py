"""STOW-RS requests with their framing broken: boundaries, headers of parts, ends, lengths, chunks; and their sender.

A right request is made first, then one thing of it is changed. The same seed makes the same requests.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from tests.chaos import mutations
from tests.patience import PATIENCE_S
from tests.web import stowing

_CRLF = b"\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A request as it goes over the wire."""

    number: int
    content: bytes
    uids: tuple[str, ...]
    """SOP Instance UIDs of its files, before anything was changed."""
    content_type: str = stowing.RELATED
    length: int | None = None
    """Content-Length; None: the true one."""
    chunks: tuple[bytes, ...] = ()
    """What is sent in place of the content, as it is; the length is then not told."""
    changed: str = ""
    must_fail: bool = False
    """Nothing could make a 200 of it."""

    @property
    def sent(self) -> bytes:
        return b"".join(self.chunks) or self.content


Change = Callable[[Body, random.Random], Body]


def cut(body: Body, dice: random.Random) -> Body:
    """It ends early, and says so or not."""
    kept = body.content[: dice.randrange(len(body.content) - 4)]
    return replace(body, content=kept, length=dice.choice((None, len(body.content))), must_fail=True)


def longer_than_told(body: Body, dice: random.Random) -> Body:
    return replace(body, length=dice.randrange(1, len(body.content) - 4), must_fail=True)


def other_boundary(body: Body, dice: random.Random) -> Body:
    name = dice.choice(("another", stowing.BOUNDARY + "x", stowing.BOUNDARY[:-1], "x" * 300, "\x01", '"'))
    return replace(body, content_type=f"multipart/related; boundary={name}", must_fail=True)


def other_type(body: Body, dice: random.Random) -> Body:
    kinds = ("multipart/mixed", "application/dicom", "", "multipart/related", "multipart/related; boundary", "\xff;=;")
    return replace(body, content_type=dice.choice(kinds), must_fail=True)


def without_last_boundary(body: Body, dice: random.Random) -> Body:
    end = f"--{stowing.BOUNDARY}--".encode()
    other = dice.choice((b"", end[:-1], end[:-2], b"-" + end[:-3], end.upper()))
    return replace(body, content=body.content.replace(end, other), must_fail=True)


def boundary_inside(body: Body, dice: random.Random) -> Body:
    """A part ends in the middle of its object."""
    at = dice.randrange(200, len(body.content))
    inside = dice.choice((b"\r\n--", b"\n--", b"--")) + stowing.BOUNDARY.encode()
    more = dice.choice((b"\r\n\r\n", b"--\r\n", b"", b" \t\r\n\r\n", b"x"))
    return replace(body, content=body.content[:at] + inside + more + body.content[at:])


def headers(body: Body, dice: random.Random) -> Body:
    """A part's header fields are none, too many, too long, of another type or encoding."""
    right = b"Content-Type: application/dicom\r\n"
    other = dice.choice(
        (
            b"", b"Content-Type application/dicom\r\n", b": x\r\n", b"\0: \0\r\n", b"X: " + b"y" * 10_000 + _CRLF,
            b"".join(b"X-%d: y\r\n" % number for number in range(2000)), b"Content-Type: text/html\r\n", b"\n", b"\r",
            right + b"Content-Transfer-Encoding: base64\r\n", right[:-2], right + b" folded\r\n",
            b"Content-Type: " + b'a;b="' * 100 + _CRLF,
        )
    )  # fmt: skip
    return replace(body, content=body.content.replace(right, other, dice.choice((1, -1))))


def flipped(body: Body, dice: random.Random) -> Body:
    changed = bytearray(body.content)
    for _ in range(dice.choice((1, 3, 30))):
        changed[dice.randrange(min(len(changed), dice.choice((100, 500, len(changed)))))] = dice.randrange(256)
    return replace(body, content=bytes(changed))


def noise(body: Body, dice: random.Random) -> Body:
    some = dice.randbytes(dice.choice((0, 1, 100, 70_000)))
    return replace(body, content=dice.choice((some, some + body.content)), must_fail=bool(some) or not body.content)


def bare_line_ends(body: Body, dice: random.Random) -> Body:
    return replace(body, content=body.content.replace(_CRLF, dice.choice((b"\n", b"\r"))), must_fail=True)


def broken_chunks(body: Body, dice: random.Random) -> Body:
    """Chunks (RFC 9112 7.1) whose lengths lie, or that have no end."""
    size = b"%x" % len(body.content)
    told = dice.choice(
        (b"zz", b"-1", b"ffffffffffffffffffff", b"%x" % (len(body.content) + 5), b"5", size + b";" * 70_000)
    )
    chunks = (told, _CRLF, body.content, dice.choice((b"", _CRLF, b"x\r\n")), dice.choice((b"", b"0\r\n")))
    return replace(body, chunks=chunks, must_fail=True)


def several_parts(body: Body, dice: random.Random) -> Body:
    """Hundreds of parts without an object."""
    part = f"--{stowing.BOUNDARY}\r\n\r\n".encode() + dice.randbytes(3) + _CRLF
    return replace(body, content=part * dice.choice((3, 300)) + body.content, must_fail=True)


def broken_object(body: Body, dice: random.Random) -> Body:
    """The framing is right, an object is not (`mutations`), or its File Meta Information."""
    one = mutations.mutant(dice.getrandbits(30), 1 + 2 * body.number % 20)
    file = stowing.part10(one.data_set, one.affected_uid, one.syntax)
    if dice.random() < 0.5:
        at = dice.randrange(128, 340)
        file = file[:at] + dice.choice((b"", dice.randbytes(4), bytes(70_000))) + file[at + dice.choice((0, 1, 4)) :]
    return replace(body, content=stowing.body(file), uids=())


CHANGES: tuple[Change, ...] = (
    cut, longer_than_told, other_boundary, other_type, without_last_boundary, boundary_inside, headers, flipped, noise,
    bare_line_ends, broken_chunks, several_parts, broken_object,
)  # fmt: skip


def malformed(seed: int, number: int) -> Body:
    """The numbered request of a corpus; one in twenty is left as it is."""
    dice = random.Random(f"body {seed}/{number}")
    uid = f"1.2.826.0.1.3680043.8.498.78.{seed}.{number}"
    files = [_file(f"{uid}.{place}") for place in range(dice.choice((1, 1, 2)))]
    named = tuple(f"{uid}.{place}" for place in range(len(files)))
    body = Body(number=number, content=stowing.body(*files), uids=named)
    if number % 20 == 0:
        return body
    change = dice.choice(CHANGES)
    return replace(change(body, dice), changed=change.__name__)


def _file(uid: str) -> bytes:
    draft = mutations.mutate(random.Random(0), mutations.SYNTAXES[0], (), uid.encode())
    return stowing.part10(draft.encoded(), uid)


def request(port: int, body: Body) -> bytes:
    """The whole of it, as it goes over the wire."""
    length = len(body.content) if body.length is None else body.length
    framing = "Transfer-Encoding: chunked" if body.chunks else f"Content-Length: {length}"
    lines = ("POST /dicom-web/studies HTTP/1.1", f"Host: 127.0.0.1:{port}", "Connection: close", framing)
    shown = (f"Authorization: Bearer {stowing.KEY}", f"Content-Type: {body.content_type}")
    return "\r\n".join((*lines, *shown, "", "")).encode("latin-1") + body.sent


def send(port: int, body: Body) -> tuple[int | None, bytes]:
    """Status and body of the answer; None where the server closed the connection without one."""
    said = b""
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as peer:
        with suppress(OSError):
            peer.sendall(request(port, body))
            if body.chunks or (body.length or 0) > len(body.content):
                peer.shutdown(socket.SHUT_WR)  # else the server, which waits for more, has to be waited for
        with suppress(OSError):
            while some := peer.recv(65536):
                said += some
    if not said.startswith(b"HTTP/1.1 "):
        return None, said
    return int(said[9:12]), said.partition(b"\r\n\r\n")[2]
