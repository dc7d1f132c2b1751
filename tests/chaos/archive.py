"""Destinations with a temper: the archive of tests/node in a process of its own, which writes down what it was given.

An object is written down before its answer leaves, so the list is right even when the process is killed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from pynetdicom import _config
from pynetdicom.events import Event
from pynetdicom.transport import AssociationSocket

from cxr_node.config.network import Address
from cxr_node.result_kinds import DICOM_KINDS
from tests.node import peers

AE_TITLE = "ARCHIVE"
SLOW_BYTES_PER_S = 1000
RESET_CHANCE = 0.01
"""That a read of an aborting archive is its last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One object that an archive has kept; `sha256` of its encoded data set."""

    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    sha256: str
    at: float
    """Seconds of time.monotonic()."""


Answer = Callable[[random.Random], int | None]
"""Status of one C-STORE; None: the association is aborted instead."""

TEMPERS: dict[str, Answer] = {
    "steady": lambda _: 0x0000,
    "full": lambda chance: chance.choice((0x0000, 0xA700, 0x0110, 0xB000)),  # a repeat helps, or a warning is enough
    "strict": lambda chance: chance.choice((0x0000, 0x0000, 0x0000, 0xA900, 0xC000)),  # a repeat cannot help
    "weary": lambda chance: 0x0000 if chance.random() >= 0.05 else chance.choice((0xA700, None)),
    "mute": lambda chance: chance.choice((0x0000, 0x0000, None)),  # keeps it, and the reply is lost
    "lying": lambda _: 0x0000,  # says so, and throws it away
    "aborting": lambda _: 0x0000,
    "slow": lambda _: 0x0000,
}


class Archive:
    """The process, and what it wrote down; it may be killed and started again under the same address."""

    gets_objects = True
    """Or messages, of which there is one of each study."""

    def __init__(self, file: Path, port: int, temper: str = "steady", seed: int = 0, host: str = "127.0.0.1") -> None:
        self.address = Address(ae_title=AE_TITLE, host=host, port=port)
        self.starts = 0
        self._file, self.temper, self._seed = file, temper, seed
        self._process: BaseProcess | None = None

    def start(self) -> None:
        """Start the process; it may take a moment until it listens."""
        from tests.forks import FORKS

        self.starts += 1
        arguments = (self._file, self.address, self.temper, self._seed + self.starts)
        self._process = FORKS.Process(target=self._target(), args=arguments, daemon=True)
        self._process.start()

    @property
    def configured(self) -> dict[str, Any]:
        """As a destination of the node."""
        return {"address": str(self.address)}

    def _target(self) -> Callable[..., None]:
        return run

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.join()

    def kept(self) -> list[Kept]:
        """All that it took, repeats included."""
        if not self._file.exists():
            return []
        lines = self._file.read_text().split("\n")[:-1]  # a kill may have cut the last one
        return [Kept(**json.loads(line)) for line in lines]


@contextmanager
def flapping(archive: Archive, chance: random.Random, period_s: float = 1.0) -> Iterator[None]:
    """Up for about a second, down for about a second; at the end it is up."""
    done = threading.Event()

    def flap() -> None:
        while not done.wait(period_s * chance.uniform(0.7, 1.3)):
            archive.kill()
            done.wait(period_s * chance.uniform(0.7, 1.3))
            archive.start()

    thread = threading.Thread(target=flap, name="flapping")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def run(file: Path, address: Address, temper: str, seed: int) -> None:
    """Be an archive until killed."""
    _config.LOG_HANDLER_LEVEL = "none"
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    chance = random.Random(seed)
    if temper == "slow":
        _slow_down()
    elif temper == "aborting":
        _reset(chance)
    with file.open("a", buffering=1) as lines:

        class Writing(peers.Archive):
            def keep(self, event: Event) -> None:
                if temper != "lying":
                    lines.write(json.dumps(asdict(_read(event))) + "\n")

        archive = Writing(lambda _: TEMPERS[temper](chance))
        with peers.listening(
            archive,
            kinds=DICOM_KINDS,
            measurement_classes=peers.MEASUREMENT_CLASSES,
            ae_title=AE_TITLE,
            host=address.host,
            port=address.port,
        ):
            threading.Event().wait()


def _read(event: Event) -> Kept:
    return Kept(
        sop_instance_uid=str(event.request.AffectedSOPInstanceUID),
        sop_class_uid=str(event.request.AffectedSOPClassUID),
        study_instance_uid=str(event.dataset.StudyInstanceUID),
        sha256=hashlib.sha256(event.request.DataSet.getvalue()).hexdigest(),
        at=time.monotonic(),
    )


def _slow_down() -> None:
    """Read at 1 kB/s, whatever the network could do."""
    genuine = AssociationSocket.recv

    def recv(connection: AssociationSocket, number: int) -> Any:
        time.sleep(number / SLOW_BYTES_PER_S)
        return genuine(connection, number)

    AssociationSocket.recv = recv  # type: ignore[method-assign]  # this process is nothing but a slow archive


def _reset(chance: random.Random) -> None:
    """Lose the connection in the middle of an object, now and then."""
    genuine = AssociationSocket.recv

    def recv(connection: AssociationSocket, number: int) -> Any:
        if chance.random() < RESET_CHANCE and connection.socket is not None:
            connection.socket.shutdown(socket.SHUT_RDWR)
        return genuine(connection, number)

    AssociationSocket.recv = recv  # type: ignore[method-assign]  # this process is nothing but an aborting archive
