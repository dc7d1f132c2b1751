"""DICOMweb servers with a temper: those of tests/node, each in a process of its own, which writes down what it kept."""

from __future__ import annotations

import hashlib
import io
import json
import random
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydicom import dcmread

from cxr_node.config.network import Address
from cxr_node.node.network import file_meta
from tests.chaos.archive import Archive, Kept
from tests.node import origin_servers
from tests.node.origin_servers import Asked, Origin, Reply, module, reference, says


def accepted(asked: Asked) -> Reply:
    """It is stored."""
    return Reply(body=module([reference(asked.uid)]), keeps=True)


def forgotten(asked: Asked) -> Reply:
    """It says so, and throws it away."""
    return Reply(body=module([reference(asked.uid)]))


def cut(asked: Asked) -> Reply:
    """It is stored, and half of the answer comes."""
    half = b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\nContent-Length: 999\r\n\r\n{"

    def close(connection: socket.socket) -> None:
        connection.sendall(half)

    return Reply(raw=close, keeps=True)


def _of(answer: Callable[[Asked, int], Reply]) -> Callable[[Asked], Reply]:
    return lambda asked: answer(asked, 0)


MOODS: tuple[Callable[[Asked], Reply], ...] = (
    cut,
    _of(says(503)),
    _of(says(429, Retry_After="1")),
    _of(says(500)),
    _of(says(401)),
    _of(says(302, Location="http://127.0.0.1:1/")),
    _of(says(200, keeps=True)),
    _of(says(200)),
    _of(origin_servers.fails(202, 0x0110)),
    _of(origin_servers.fails(409, 0xA700)),
    lambda asked: Reply(body=b"<html>Log in</html>", headers={"Content-Type": "text/html"}),
    lambda asked: Reply(raw=lambda connection: None),
)
"""After each of them a repeat helps."""
TEMPERS: dict[str, Callable[[random.Random], Callable[[Asked], Reply]]] = {
    "steady": lambda _: accepted,
    "moody": lambda chance: accepted if chance.random() < 0.5 else chance.choice(MOODS),
    "forgetful": lambda chance: chance.choice((accepted, accepted, forgotten)),
}


class WebArchive(Archive):
    """The process, and what it wrote down."""

    @property
    def configured(self) -> dict[str, Any]:
        """As a destination of the node; what a server forgets is noticed after two seconds."""
        url = f"http://127.0.0.1:{self.address.port}/dicom-web"
        return {"kind": "dicomweb", "url": url, "verify_h": 2 / 3600}

    def _target(self) -> Callable[..., None]:
        return run


def run(file: Path, address: Address, temper: str, seed: int) -> None:
    """Be a DICOMweb server until killed; after a kill it has what it wrote down."""
    chance, lock = random.Random(seed), threading.Lock()
    with file.open("a", buffering=1) as lines:

        def answer(asked: Asked, number: int) -> Reply:
            with lock:
                reply = TEMPERS[temper](chance)(asked)
                if reply.keeps:
                    lines.write(json.dumps(asdict(_read(asked.file))) + "\n")
            return reply

        with origin_servers.serving(Origin(answer=answer), address.port):
            threading.Event().wait()


def _read(content: bytes) -> Kept:
    uid, data_set = file_meta.split(content)
    header = dcmread(io.BytesIO(content), specific_tags=["SOPClassUID", "StudyInstanceUID"])
    return Kept(
        sop_instance_uid=uid,
        sop_class_uid=str(header.SOPClassUID),
        study_instance_uid=str(header.StudyInstanceUID),
        sha256=hashlib.sha256(data_set).hexdigest(),
        at=time.monotonic(),
    )
