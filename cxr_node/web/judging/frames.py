"""What `judging` and its child `judge` say to each other: JSON after its length, and open files beside it."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

_LENGTH = struct.Struct("!I")
_MAX_BYTES = 4 * 1024 * 1024
_MAX_FILES = 2


class Wanted(StrEnum):
    """What is made beside the verdict."""

    NOTHING = "nothing"
    HEATMAP = "heatmap"
    ALL = "all"


def send(line: socket.socket, message: Mapping[str, Any], files: Sequence[int] = ()) -> None:
    """Say something, and hand over open files."""
    body = json.dumps(message).encode()
    socket.send_fds(line, [_LENGTH.pack(len(body))], list(files))
    line.sendall(body)


def receive(line: socket.socket, deadline: float | None = None) -> tuple[dict[str, Any], list[int]]:
    """Wait for what the other one says; the caller closes the files.

    Parameters
    ----------
    deadline : by time.monotonic(); None: for ever

    Raises
    ------
    EOFError : the other one has gone. TimeoutError : the deadline passed.
    """
    _limit(line, deadline)
    head, files, _, _ = socket.recv_fds(line, _LENGTH.size, _MAX_FILES)
    (length,) = _LENGTH.unpack(head + _exactly(line, _LENGTH.size - len(head), deadline, bool(head)))
    if length > _MAX_BYTES:
        raise EOFError
    message: dict[str, Any] = json.loads(_exactly(line, length, deadline))
    return message, files


def _exactly(line: socket.socket, length: int, deadline: float | None, begun: bool = True) -> bytes:
    taken = bytearray()
    if not begun:
        raise EOFError
    while len(taken) < length:
        _limit(line, deadline)
        piece = line.recv(length - len(taken))
        if not piece:
            raise EOFError
        taken += piece
    return bytes(taken)


def _limit(line: socket.socket, deadline: float | None) -> None:
    if deadline is None:
        line.settimeout(None)
        return
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    line.settimeout(left_s)
