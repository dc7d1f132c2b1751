"""What processes count: in files of their slot, that outlive them, and of no more labels than were promised."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, values
from prometheus_client.multiprocess import MultiProcessCollector

from cxr_node.node.process import metrics

COUNT = """
import sys
from pathlib import Path
from cxr_node.node.process import metrics
metrics.begin(Path(sys.argv[1]), "receive", ["PEER"])
for sender in sys.argv[2].split(","):
    metrics.received(sender)
with metrics.stage("decode"):
    pass
print(metrics._slot is not None, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def counting() -> Iterator[None]:
    """Leave the process as it was: prometheus_client keeps its files for the whole of it."""
    before, environment = values.ValueClass, os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    yield
    values.ValueClass = before
    metrics._counters = None
    if metrics._slot is not None:
        os.close(metrics._slot)
        metrics._slot = None
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    if environment is not None:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = environment


def counted(spool: Path) -> dict[tuple[str, str], float]:
    """Each sample by its name and the value of its only label."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(spool / metrics.FOLDER))
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in registry.collect()
        for sample in family.samples
    }


def start(spool: Path, senders: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", COUNT, str(spool), senders]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_processes_of_a_role_count_beside_each_other_and_after_each_other(tmp_path: Path) -> None:
    both = [start(tmp_path, "A,PEER"), start(tmp_path, "A")]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
    both[0].kill()
    both[1].communicate()
    both[0].communicate()
    assert start(tmp_path, "A").communicate(timeout=90)[0] == "True\n"
    found = counted(tmp_path)
    assert found["cxr_node_instances_received_total", "A"] == 3
    assert found["cxr_node_instances_received_total", "PEER"] == 1
    assert found["cxr_node_stage_seconds_count", "decode"] == 3
    files = sorted(file.name for file in (tmp_path / metrics.FOLDER).iterdir())
    slots = ("receive-0", "receive-1")
    assert files == sorted(f"{kind}{slot}{end}" for slot in slots for kind, end in KINDS), "a slot is used again"


KINDS = (("counter_", ".db"), ("histogram_", ".db"), ("", ".lock"))


@pytest.mark.usefixtures("counting")
def test_a_flood_of_callers_makes_no_flood_of_series(tmp_path: Path) -> None:
    peers = [f"PEER{number}" for number in range(120)]
    metrics.begin(tmp_path, "receive", peers)
    for sender in (*(f"STRANGER{number}" for number in range(metrics.MAX_SENDERS + 50)), *peers):
        metrics.received(sender)
    found = counted(tmp_path)
    assert found["cxr_node_instances_received_total", metrics.OTHER] == 50
    assert found["cxr_node_instances_received_total", "PEER119"] == 1, "who is configured has a series of its own"


@pytest.mark.usefixtures("counting")
def test_the_bound_holds_over_restarts(tmp_path: Path) -> None:
    strangers = ",".join(f"STRANGER{number}" for number in range(metrics.MAX_SENDERS))
    start(tmp_path, strangers).communicate(timeout=90)
    metrics.begin(tmp_path, "receive")
    metrics.received("STRANGER0")
    metrics.received("NEWCOMER")
    found = counted(tmp_path)
    assert found["cxr_node_instances_received_total", "STRANGER0"] == 2
    assert found["cxr_node_instances_received_total", metrics.OTHER] == 1


@pytest.mark.usefixtures("counting")
def test_files_have_all_their_blocks_before_they_are_mapped(tmp_path: Path) -> None:
    """On a full disk a write into a hole of a mapped file is a SIGBUS."""
    metrics.begin(tmp_path, "deliver")
    names = [f"PACS-{number:059}" for number in range(50)]
    for name in names:
        metrics.attempted(name, "delivered")
        metrics.attempted(name, "postponed")
    for file in (tmp_path / metrics.FOLDER).glob("*.db"):
        found = file.stat()
        assert found.st_size == metrics._FILE_BYTES, "it never grows"
        assert found.st_blocks * 512 >= found.st_size


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize(
    "torn", [b"\x40\x00\x00\x00" + b"\xff" * 60, b"\x01", b"\x20\0\0\0\0\0\0\0\x04\0\0\0oops" + b"\0" * 40]
)
def test_a_torn_file_is_replaced(tmp_path: Path, torn: bytes) -> None:
    folder = tmp_path / metrics.FOLDER
    folder.mkdir()
    (folder / "counter_receive-0.db").write_bytes(torn)
    metrics.begin(tmp_path, "receive")
    metrics.received("A")
    assert counted(tmp_path)["cxr_node_instances_received_total", "A"] == 1


@pytest.mark.usefixtures("counting")
def test_a_disk_that_takes_no_file_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / metrics.FOLDER).write_text("in the way")
    metrics.begin(tmp_path, "receive")
    metrics.received("A")
    with metrics.transaction():
        metrics.turned_around(1.0)
    assert "nothing is counted" in caplog.text


def test_before_the_begin_nothing_is_imported_and_nothing_written(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom cxr_node.node.process import metrics\n"
        "metrics.received('A'); metrics.refused('host'); metrics.turned_around(1)\n"
        "with metrics.stage('read'), metrics.transaction(): pass\n"
        "print('prometheus_client' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=90)
    assert done.stdout == "False\n", done.stderr
    assert not any(tmp_path.iterdir())


def test_serve_begins_at_nothing(tmp_path: Path) -> None:
    start(tmp_path, "A").communicate(timeout=90)
    metrics.clear(tmp_path)
    assert not any((tmp_path / metrics.FOLDER).iterdir())
    metrics.clear(tmp_path / "nowhere")
