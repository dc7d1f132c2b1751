"""A node of several machines: what its ledger bears, and the price of PostgreSQL and of a bucket for one image.

All on this machine, servers included, each with its data on this disk and synced before it answers.

The ledger alone, as rows, on both engines. Then one, two and three workers that wait as long as an image costs instead
of judging it: processes of their own with many lanes, until more of them judge no more. Last, four whole nodes that
differ in ledger and store, one image after the other to each of them in turn.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa
import yaml
from rich.progress import Progress

from benchmarks import moves, peers, record
from benchmarks.destination import Destination
from benchmarks.images import TEN_MB, Images
from benchmarks.peers import Peer
from benchmarks.record import RESULTS, ratio, spread
from cxr_node.config import loader
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.tables import events
from cxr_node.node.process import notify
from cxr_node.node.process.notify import Role
from cxr_node.node.spool.opening import open_spool
from tests import postgres
from tests.node import buckets
from tests.postgres import Server

SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"
FILE, SHARE, BUCKET = "a file", "a folder as share", "a bucket"
WORKERS = ((1, 8), (1, 16), (2, 16), (3, 16), (3, 32))
"""Processes, and lanes of each."""
DURABLE = ("fsync=on", "autovacuum=on", "shared_buffers=256MB")
_MARK = "cxr_node_benchmark"
_RESULTS = 3
_BACKLOG = 100_000
_CLAIMS = 100
_LIKELY_AT_MOST = 300
"""Images a second, by which a wave is as long as is wanted."""
_START_S = 180.0
"""On a busy machine; where it is quiet, seconds."""
_LOOK_S = 0.05


def measure(folder: Path, options: argparse.Namespace, bar: Progress) -> dict[str, Any]:
    """All three parts."""
    wait_s = _cost_of_an_image_s()
    with postgres.server(_MARK, *DURABLE) as server:
        figures: dict[str, Any] = {"server": _version(server), "object_bytes": Images(TEN_MB).size_bytes}
        figures["moves"] = ledger_alone(folder, server, options.rows, bar)
        figures["claim_ms"] = backlog(folder, server, bar)
        figures["waiting"] = {"wait_s": wait_s, "rows": workers(folder, server, wait_s, options.seconds, bar)}
        figures["price"] = price(folder, server, options.images, bar)
    return figures


def _version(server: Server) -> str:
    with postgres.past_the_node(server.url()) as connection:
        return str(connection.scalar(sa.text("SHOW server_version"))).split()[0]


def _cost_of_an_image_s() -> float:
    """Processor time that a worker spends on an image, as the benchmark of the whole node measured it last."""
    found = json.loads((RESULTS / "node.json").read_text("utf-8"))
    return float(found["figures"]["throughput"]["cpu_s_by_role"]["work"]["p50"])


def ledger_alone(folder: Path, server: Server, images: int, bar: Progress) -> dict[str, Any]:
    """Each move on each engine."""
    task = bar.add_task("ledger alone", total=8)
    found = {}
    for engine in (SQLITE, POSTGRESQL):
        url, cpu = (None, lambda: 0.0) if engine == SQLITE else (database(server), lambda: server_s(server))
        with closing(Ledger.open(folder / f"moves-{engine}", url)) as ledger:
            found[engine] = moves.Moves(ledger, images, cpu).run(lambda: bar.advance(task))
    return {"images": images, "by_engine": found}


def backlog(folder: Path, server: Server, bar: Progress) -> dict[str, Any]:
    """How long a claim takes where few images wait, and where many do."""
    task = bar.add_task("claims before a backlog", total=2)
    found = {}
    for waiting in (1_000, _BACKLOG):
        with closing(Ledger.open(folder / f"backlog-{waiting}", database(server))) as ledger:
            moves.fill_backlog(ledger, waiting, "0" * 64, 1)
            moves.claim_ms(ledger, _CLAIMS // 10)
            found[str(waiting)] = spread(moves.claim_ms(ledger, _CLAIMS))
        bar.advance(task)
    return found


def workers(folder: Path, server: Server, wait_s: float, seconds: int, bar: Progress) -> list[dict[str, Any]]:
    """Images a second by workers and lanes."""
    task = bar.add_task("workers that wait", total=len(WORKERS))
    rows = []
    for number, lanes in WORKERS:
        images = int(seconds * min(number * lanes / wait_s, _LIKELY_AT_MOST))
        rows.append(_work(folder / f"wait-{number}-{lanes}", server, (number, lanes, wait_s), images))
        bar.advance(task)
    return rows


def _work(folder: Path, server: Server, how: tuple[int, int, float], images: int) -> dict[str, Any]:
    number, lanes, wait_s = how
    url = database(server)
    configs = [_configured(folder / str(each), folder / "share", server, url, lanes) for each in range(number)]
    with closing(Ledger.of_node(loader.load(configs[0]))) as ledger, ExitStack() as stack:
        stored = _stored(configs[0])
        working = [stack.enter_context(_worker(config, wait_s)) for config in configs]
        _until(lambda: all(notify.listens(config.parent / "spool", Role.WORK) for config in configs), "workers start")
        used, server_used = sum(_cpu_s(each) for each in working), server_s(server)
        moves.fill_backlog(ledger, images, *stored)
        for config in configs:
            notify.notify(config.parent / "spool", Role.WORK)
        _until(lambda: len(_reported_at(ledger)) >= images, "all studies are reported", 300.0)
        used, server_used = sum(_cpu_s(each) for each in working) - used, server_s(server) - server_used
        at = _reported_at(ledger)
        conflicts = _again(ledger)
    first, last = len(at) // 5, len(at) - len(at) // 10
    return {
        "workers": number,
        "lanes": lanes,
        "images": images,
        "ideal_images_per_s": number * lanes / wait_s,
        "images_per_s": (last - first) / (at[last - 1] - at[first]).total_seconds(),
        "worker_cpu_ms": 1000.0 * used / images,
        "server_cpu_ms": 1000.0 * server_used / images,
        "released": conflicts,
    }


def _reported_at(ledger: Ledger) -> list[datetime]:
    told = sa.select(events.c.at).where(events.c.what == "study-reported").order_by(events.c.at)
    with ledger.database.reading() as connection:
        return list(connection.scalars(told))


def _again(ledger: Ledger) -> int:
    with ledger.database.reading() as connection:
        told = sa.select(sa.func.count()).select_from(events).where(events.c.what == "released")
        return int(connection.scalar(told) or 0)


def _configured(folder: Path, share: Path, server: Server, url: str, lanes: int) -> Path:
    """A machine of a node: its spool, and what all of them share."""
    for each in (folder, share):
        each.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = {
        "spool": {"path": str(folder / "spool"), "store": {"kind": "posix", "path": str(share)}, "min_free_mib": 0},
        "ledger": postgres.section(folder, url),
        "work": {"lanes": lanes},
        "study": {"quiet_s": 0},
        "destinations": [{"name": moves.DESTINATION, "address": "ARCHIVE@127.0.0.1:104"}],
    }
    (folder / "node.yaml").write_text(yaml.safe_dump(content))
    return folder / "node.yaml"


def _stored(config: Path) -> tuple[str, int]:
    """Put one object into the store; all images are of its bytes."""
    spool = open_spool(loader.load(config).spool)
    spool.store.prepare()
    part = spool.begin()
    part.write(b"a radiograph")
    found = spool.store_object(part, datetime.now(UTC))
    return found.sha256, found.size_bytes


@contextmanager
def _worker(config: Path, wait_s: float) -> Iterator[psutil.Process]:
    command = [sys.executable, "-m", "benchmarks.waiting", str(config), str(wait_s)]
    with (config.parent / "log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            yield psutil.Process(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(_START_S)


@dataclass(frozen=True, slots=True)
class Arrangement:
    """A whole node on one engine and one store."""

    name: tuple[str, str]
    node: Peer
    to: Destination
    servers: Callable[[], float]

    def cpu_s(self) -> float:
        """Of the node and of the servers that it uses."""
        return self.node.cpu_s() + self.servers()


def price(folder: Path, server: Server, images: int, bar: Progress) -> list[dict[str, Any]]:
    """Turnaround and processor time of an image on each arrangement, one at a time, each in turn."""
    radiographs = Images(TEN_MB)
    task = bar.add_task("whole nodes", total=4 * images)
    with ExitStack() as stack:
        nodes = list(_arrangements(folder, server, stack))
        took: dict[tuple[str, str], list[float]] = {one.name: [] for one in nodes}
        used: dict[tuple[str, str], list[float]] = {one.name: [] for one in nodes}
        for number in range(-2, images):
            for one in nodes if number % 2 == 0 else reversed(nodes):
                turnaround_s, cpu_s = _answered(one, radiographs, number + 3)
                if number >= 0:  # the first ones make what is made once
                    took[one.name].append(1000.0 * turnaround_s)
                    used[one.name].append(1000.0 * cpu_s)
                    bar.advance(task)
    base = nodes[0].name
    return [
        {"ledger": name[0], "store": name[1], "ms": spread(took[name]), "cpu_ms": spread(used[name])}
        | {"times_ms": spread([ratio(*each) for each in zip(took[name], took[base], strict=True)])}
        | {"times_cpu": spread([ratio(*each) for each in zip(used[name], used[base], strict=True)])}
        for name in took
    ]


def _answered(one: Arrangement, radiographs: Images, number: int) -> tuple[float, float]:
    before = one.cpu_s()
    with one.node.sender() as association:
        sent = association.store(radiographs.numbered(number))
    last = max(arrival.acknowledged_ns for arrival in one.to.wait(_RESULTS * number))
    time.sleep(0.1)  # what it writes behind the last answer is its own
    return (last - sent.last_byte_ns) / 1e9, one.cpu_s() - before


def _arrangements(folder: Path, server: Server, stack: ExitStack) -> Iterator[Arrangement]:
    place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    bucket = buckets.SeaweedFS(place)
    stack.callback(bucket.stop)
    bucket.sync()
    share = folder / "share"
    share.mkdir(mode=0o700)
    keys = buckets.credentials_file(folder / "credentials")
    stores: dict[str, dict[str, Any]] = {
        FILE: {"kind": "file"},
        SHARE: {"kind": "posix", "path": str(share)},
        BUCKET: {"kind": "s3", "endpoint": bucket.url, "bucket": buckets.BUCKET, "credentials": str(keys)},
    }
    names = ((SQLITE, FILE), (POSTGRESQL, FILE), (POSTGRESQL, SHARE), (POSTGRESQL, BUCKET))
    for number, (engine, store) in enumerate(names):
        own = folder / f"node-{number}"
        own.mkdir(mode=0o700)
        sections: dict[str, Any] = {"results": {"normal_heatmap": "banner"}}
        sections["spool"] = {"path": str(own / "spool"), "store": stores[store]}
        if engine == POSTGRESQL:
            sections["ledger"] = postgres.section(own, database(server))
        to = stack.enter_context(Destination())
        node = stack.enter_context(peers.serve(own, to.port, sections=sections))
        used = [psutil.Process(bucket.pid)] if store == BUCKET else []
        yield Arrangement((engine, store), node, to, _servers(server if engine == POSTGRESQL else None, used))


def _servers(server: Server | None, others: Sequence[psutil.Process]) -> Callable[[], float]:
    def used_s() -> float:
        return (server_s(server) if server is not None else 0.0) + sum(map(_cpu_s, others))

    return used_s


_NUMBERS = itertools.count(1)


def database(server: Server) -> str:
    """URL of a new, empty one."""
    name = f"bench_{next(_NUMBERS)}"
    with postgres.past_the_node(server.url()) as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    return server.url(name)


def server_s(server: Server) -> float:
    """CPU seconds of a server's processes, which have one thread each, and of those that have ended."""
    if server.process is None:
        return 0.0
    root = psutil.Process(server.process.pid)
    ended = root.cpu_times()
    return ended.children_user + ended.children_system + sum(map(_ran_s, [root, *root.children(recursive=True)]))


def _ran_s(process: psutil.Process) -> float:
    """Of its one thread, to the nanosecond."""
    try:
        return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0]) / 1e9
    except OSError:  # it has just ended
        return 0.0


def _cpu_s(process: psutil.Process) -> float:
    """Of all its threads, those that have ended too."""
    used = process.cpu_times()
    return float(used.user + used.system)


def _until(holds: Callable[[], bool], what: str, timeout_s: float = _START_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(_LOOK_S)


def main() -> None:
    """Run, and write the figures."""
    os.environ.setdefault("TMPDIR", tempfile.gettempdir())
    record.run("cluster", record.options(__doc__, rows=300, seconds=8, images=12), measure)


if __name__ == "__main__":
    main()
