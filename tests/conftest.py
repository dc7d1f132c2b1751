"""For all tests: torch's threads sleep while they wait, as in the worker; spinning ones starve what else runs here.

Long chaos runs only where they are asked for, by `pytest -m chaos`; `--chaos-seed` repeats one that failed.
"""

import atexit
import functools
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import typer.testing

from benchmarks.record import foreign_path
from cxr_node.model import graph_file
from tests import postgres, steady_network
from tests.leftovers import Lookout, adopt_orphans
from tests.processes import Program

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# No test rests on how quick a machine is; all else stays, in CI its fixed examples.
hypothesis.settings.register_profile("unhurried", hypothesis.settings(deadline=None))
hypothesis.settings.load_profile("unhurried")
typer.testing._get_command = functools.cache(typer.testing._get_command)  # half of a command's time was its building
adopt_orphans()
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else every process compiles what it imports of ours
if "CACHE_DIRECTORY" not in os.environ:  # one for all of xdist's workers; and nothing stays in this user's own
    os.environ["CACHE_DIRECTORY"] = tempfile.mkdtemp(prefix="cxr-node-cache-")
    atexit.register(shutil.rmtree, os.environ["CACHE_DIRECTORY"], ignore_errors=True)
os.environ["PATH"] = foreign_path()  # DCMTK's storescu is meant, and an active environment's is pynetdicom's

WHOLE = {
    "chaos",
    "node",
    "pacs",
    "viewer",
    "web",
    "test_ancestors.py",
    "test_bench.py",
    "test_bench_gpu.py",
    "test_bench_node.py",
    "test_calibrate_command.py",
    "test_compare.py",
    "test_conformance.py",
    "test_demo.py",
    "test_evaluate_command.py",
    "test_export.py",
    "test_float32.py",
    "test_heatmaps.py",
    "test_identity.py",
    "test_import.py",
    "test_import_torchxrayvision.py",
    "test_landed_adult.py",
    "test_landed_profile.py",
    "test_options.py",
    "test_phantom.py",
    "test_probe.py",
    "test_process_setup.py",
    "test_quiet.py",
    "test_replay.py",
    "test_same_truth.py",
    "test_sandbox.py",
    "test_second.py",
    "test_shaped.py",
    "test_side_by_side.py",
    "test_site_calibration.py",
    "test_together.py",
    "test_train.py",
}
"""What runs the node, our program, a training, or a network (its export, its import, many images) from end to end.

A single test of another file is marked where it stands. `pytest -m "not whole"` leaves the unit tests.
"""
UNITS = "not whole"
FIRST = ("viewer", "chaos", "pacs", "web")
"""Rooms whose modules take longest: what begins last must not be what all others wait for."""
BROWSERS = frozenset(("viewer", "web"))
"""Rooms with tests that look at a page."""
CHAOS_SEED = 20240601


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chaos-seed", type=int, default=CHAOS_SEED, help="seed of tests/chaos (default: %(default)s)")
    parser.addoption("--soak-images", type=int, default=10_000, help="images of the long soak (default: %(default)s)")
    parser.addoption("--studies", type=int, default=1000, help="studies of the long kills (default: %(default)s)")


def pytest_report_header(config: pytest.Config) -> str:
    return f"chaos seed: {config.getoption('--chaos-seed')}"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import nothing of what is left out anyway."""
    left_out = config.getoption("markexpr") == UNITS and _is_whole(collection_path, config)
    return True if left_out else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark by place, so that no new test of those rooms is forgotten; leave out what takes long, and begin with it."""
    for item in items:
        if _runs_whole(item):
            item.add_marker("whole")
    if "chaos" not in str(config.getoption("markexpr")):
        long = [item for item in items if item.get_closest_marker("chaos")]
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    room = item.path.parent.name
    return FIRST.index(room) if room in FIRST else len(FIRST) + (not _runs_whole(item))


def _runs_whole(item: pytest.Item) -> bool:
    return _is_whole(item.path, item.config)


def _is_whole(path: Path, config: pytest.Config) -> bool:
    return _lies_in(WHOLE, path, config)


def _lies_in(places: set[str] | frozenset[str], path: Path, config: pytest.Config) -> bool:
    return not places.isdisjoint(path.relative_to(config.rootpath).parts)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """With `-n auto`: one more than there are cores, for tests of the node wait about a third of their time."""
    return len(os.sched_getaffinity(0)) + (config.getoption("markexpr") != UNITS)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n`: a module is one worker's, for its tests share what was dear to make; and in the order above."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test with a browser is not disturbed by one that makes a network."""
    if not _lies_in(BROWSERS, item.path, item.config):
        return (yield)
    with steady_network.kept():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails shows what the programs said that it had running: nobody can ask them later."""
    report = yield
    if report.failed:
        report.sections += [(str(program.log), program.said()[-8000:]) for program in Program.running]
    return report


def pytest_collection_finish() -> None:
    """Leave what was imported out of each later search for garbage: 5 of 130 s of the unit tests."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    postgres.close()


@pytest.fixture(scope="module")
def few_golden_inputs() -> Iterator[None]:
    """Six instead of twelve, for networks of random weights that are exported and loaded again and again."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(graph_file, "_SHARES", ())
        yield


@pytest.fixture(scope="session", autouse=True)
def _nothing_outlives_the_run() -> Iterator[None]:
    yield from _watched()


@pytest.fixture(scope="module", autouse=True)
def _nothing_outlives_its_module() -> Iterator[None]:
    yield from _watched()


def _watched() -> Iterator[None]:
    """A test that leaves a process or a listening socket behind is an error, and names it."""
    lookout = Lookout()
    yield
    left = lookout.left()
    assert not left, "left behind:\n" + "\n".join(left)
