"""Where results go while they are timed: a Storage SCP that notes when it has acknowledged what, and keeps nothing.

A process of its own, so that it shares no interpreter with the sender; the same for every node that is measured.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from time import monotonic_ns
from typing import Self

from benchmarks import wire

AE_TITLE = "ARCHIVE"
_ANSWERS = {wire.C_STORE_RQ: wire.C_STORE_RSP, wire.C_ECHO_RQ: wire.C_ECHO_RSP}


@dataclass(frozen=True, slots=True)
class Arrival:
    """One acknowledged object."""

    acknowledged_ns: int
    """CLOCK_MONOTONIC, after the C-STORE-RSP was handed to the system."""
    sop_class_uid: str
    sop_instance_uid: str
    size_bytes: int


class Destination:
    """The process, as a context manager."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "benchmarks.destination"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.port = int(self._line())
        threading.Thread(target=self._read, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def wait(self, count: int, timeout_s: float = 120.0) -> list[Arrival]:
        """Wait until so many objects have been acknowledged in all.

        Raises
        ------
        TimeoutError : they have not come in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.arrivals) >= count, timeout_s):
                raise TimeoutError(f"{len(self.arrivals)} of {count} results came")
            return self.arrivals[:count]

    def _line(self) -> str:
        return self._process.stdout.readline() if self._process.stdout is not None else ""

    def _read(self) -> None:
        while line := self._line():
            at, sop_class_uid, sop_instance_uid, size = line.split()
            with self._changed:
                self.arrivals.append(Arrival(int(at), sop_class_uid, sop_instance_uid, int(size)))
                self._changed.notify_all()


def serve() -> None:
    """Listen on a free loopback port, which is the first line of the output; then one line for each object."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_answer, args=(wire.nodelay(connection),), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    with connection, connection.makefile("rb", 1 << 18) as file:
        request: dict[int, bytes] = {}
        encoded, size = b"", 0
        while True:
            kind, content = wire.read_pdu(file)
            match kind:
                case wire.ASSOCIATE_RQ:
                    connection.sendall(wire.accepting(content))
                case wire.P_DATA:
                    for context_id, flags, piece in _pdvs(content):
                        encoded, size = (encoded + piece, size) if flags & 1 else (encoded, size + len(piece))
                        if flags == 3:
                            request, encoded, size = wire.elements_of(encoded), b"", 0
                        has_data = request.get(0x0800) != b"\x01\x01"
                        if flags & 2 and (flags == 2 or not has_data):
                            field = int.from_bytes(request[0x0100], "little")
                            connection.sendall(wire.response(context_id, _ANSWERS[field], request))
                            _tell(request, size)
                case wire.RELEASE_RQ:
                    connection.sendall(wire.pdu(wire.RELEASE_RP, bytes(4)))
                case _:
                    return


def _pdvs(content: bytes) -> list[tuple[int, int, memoryview]]:
    found, place, whole = [], 0, memoryview(content)
    while place < len(content):
        length = int.from_bytes(whole[place : place + 4])
        found.append((content[place + 4], content[place + 5], whole[place + 6 : place + 4 + length]))
        place += 4 + length
    return found


def _tell(request: dict[int, bytes], size: int) -> None:
    at = monotonic_ns()
    if 0x1000 in request:
        names = (request[tag].rstrip(b"\0 ").decode() for tag in (0x0002, 0x1000))
        os.write(sys.stdout.fileno(), f"{at} {' '.join(names)} {size}\n".encode())  # whole: threads share the pipe


if __name__ == "__main__":
    serve()
