"""What no node can leave out of an image, each step done the shortest way that we know: how far there is to go.

Take 10 MB from a socket, digest, write and sync it, pass the views through the network, digest, write and sync the
picture, hand it to a socket. Nothing is decoded, resized, drawn, told, checked or written down. One after the other, in
CPU time of all threads of this process.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from benchmarks import record
from benchmarks.images import TEN_MB
from benchmarks.node import PICTURE
from benchmarks.plain_node import PROFILE
from benchmarks.record import spread
from cxr_node import resources
from cxr_node.model import graph_file, profile
from cxr_node.model.predictor import load_predictor

WARM_UP = 5
_PIECE = 256 * 1024


def measure(folder: Path, options: argparse.Namespace, bar: Progress) -> dict[str, Any]:
    """CPU milliseconds of each step, and of all of them."""
    image, picture = os.urandom(TEN_MB.size_bytes), os.urandom(3 * PICTURE[0] * PICTURE[1])
    took: dict[str, list[float]] = {}
    with Peer() as peer:
        steps = _steps(folder, image, picture, peer)
        task = bar.add_task("what cannot be left out", total=options.repeats + WARM_UP)
        for repeat in range(options.repeats + WARM_UP):
            for name, step in steps.items():
                began = time.process_time()
                step()
                if repeat >= WARM_UP:
                    took.setdefault(name, []).append(1000.0 * (time.process_time() - began))
            bar.advance(task)
    ms = {name: spread(values) for name, values in took.items()}
    return {"cpu_ms": ms, "sum_ms": sum(one["p50"] for one in ms.values()), "cores": os.cpu_count() or 1}


def _steps(folder: Path, image: bytes, picture: bytes, peer: Peer) -> dict[str, Callable[[], object]]:
    loaded = profile.load(resources.profile_folder(PROFILE))
    runtime, shown = load_predictor(loaded).runtime, graph_file.golden_inputs(loaded.input)[:1]
    return {
        "take the object from a socket": lambda: peer.give(len(image)),
        "digest it": lambda: hashlib.sha256(image).digest(),
        "write and sync it": lambda: _write(folder / "object", image),
        "pass the views through the network": lambda: runtime.infer(np.array(shown)),
        "digest the picture": lambda: hashlib.sha256(picture).digest(),
        "write and sync it, the picture": lambda: _write(folder / "picture", picture),
        "hand it to a socket": lambda: peer.take(picture),
    }


def _write(path: Path, content: bytes) -> None:
    rest = memoryview(content)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        while rest:
            rest = rest[os.write(file, rest[:_PIECE]) :]
        os.fsync(file)
    finally:
        os.close(file)


class Peer:
    """Who sends and takes, in a process of its own: gives as many bytes as are asked for, throws away others."""

    def __enter__(self) -> Peer:
        with socket.create_server(("127.0.0.1", 0)) as server:
            spawn = multiprocessing.get_context("spawn")
            self._process = spawn.Process(target=_serve, args=(server.getsockname()[1],), daemon=True)
            self._process.start()
            self._connection, _ = server.accept()
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._space = memoryview(bytearray(_PIECE))
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.join()

    def give(self, size_bytes: int) -> None:
        """Read so many bytes."""
        self._connection.sendall(size_bytes.to_bytes(8, "big") + bytes(8))
        while size_bytes:
            size_bytes -= self._connection.recv_into(self._space[: min(size_bytes, _PIECE)])

    def take(self, content: bytes) -> None:
        """Write them; over when the other side has all."""
        self._connection.sendall(bytes(8) + len(content).to_bytes(8, "big"))
        self._connection.sendall(content)
        self._connection.recv(1)


def _serve(port: int) -> None:
    content, space = bytes(_PIECE), memoryview(bytearray(_PIECE))
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while len(asked := connection.recv(16, socket.MSG_WAITALL)) == 16:
            given, taken = int.from_bytes(asked[:8], "big"), int.from_bytes(asked[8:], "big")
            for start in range(0, given, _PIECE):
                connection.sendall(content[: given - start])
            rest = taken
            while rest:
                rest -= connection.recv_into(space[: min(rest, _PIECE)])
            if taken:
                connection.sendall(b"\0")


def main() -> None:
    """Run, and write the figures."""
    record.run("least", record.options(__doc__, repeats=60), measure)


if __name__ == "__main__":
    main()
