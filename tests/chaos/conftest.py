"""What every scenario is given: a profile that costs little, a seeded chance, and a place to hand in its account."""

from __future__ import annotations

import fcntl
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cxr_node.model.profile import load
from cxr_node.model.torch_runtime import export
from tests.chaos.archive import Archive
from tests.model import folders
from tests.processes import free_port

Report = Callable[..., None]
"""`report(accounting, restarts=3, ...)`: one line in the summary of the run."""

Listening = Callable[..., list[Archive]]
"""`listening("steady", "full")`: an archive of each temper, which ends with the test."""


@pytest.fixture(scope="session")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole profile with random weights, and with its graph, for a worker starts five times as fast without torch.

    Made once for all workers of the run.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "chaos-profile"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            made = folders.write(folder.with_suffix(".new"))
            export(load(made))
            made.rename(folder)
    return folder


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Listening]:
    """Destinations of a scenario; see `Listening`."""
    archives: list[Archive] = []

    def start(*tempers: str) -> list[Archive]:
        for number, temper in enumerate(tempers):
            archives.append(Archive(tmp_path / f"archive{number}-{temper}.jsonl", free_port(), temper, number))
            archives[-1].start()
        return archives

    yield start
    for archive in archives:
        archive.kill()


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Of this run; `--chaos-seed` repeats one."""
    given: int = request.config.getoption("--chaos-seed")
    return given


@pytest.fixture
def chance(request: pytest.FixtureRequest, seed: int) -> random.Random:
    """The same for the same seed and scenario, whatever ran before."""
    return random.Random(f"{seed} {request.node.name}")


@pytest.fixture
def report(request: pytest.FixtureRequest, seed: int) -> Report:
    """Hand in what was counted; it is printed at the end of the run, passed or not."""
    began = time.monotonic()

    def add(accounting: object, **more: Any) -> None:
        words = [request.node.name, str(accounting), *(f"{name}={value}" for name, value in more.items())]
        account = " ".join([*words, f"seed={seed}", f"duration_s={time.monotonic() - began:.1f}"])
        request.node.user_properties.append(("account", account))  # comes along from another process too
        print(account)

    return add


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [
        one for many in terminalreporter.stats.values() for one in many if getattr(one, "when", "") == "teardown"
    ]
    accounts = [account for report in reports for name, account in report.user_properties if name == "account"]
    if accounts:
        terminalreporter.section("chaos: accounts")
        for account in accounts:
            terminalreporter.line(account)
