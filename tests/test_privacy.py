"""A process that dies leaves no core file: its memory holds patients' images."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

DIE = "import os\n{before}\nos.abort()"
OURS = {
    "privacy": "from cxr_node import process_setup; process_setup.leave_no_core()",
    "every role": "from cxr_node.cli import app; from cxr_node.config import loader; "
    "app.begin_serving(loader.parse({'spool': {'path': '.'}}), 'work')",
}


def cores(folder: Path, before: str) -> list[str]:
    """Core files of a process that aborts where the shell would let it write one."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    if hard == 0 or pattern.startswith(("|", "/")):
        pytest.skip("no core file can be seen on this machine")
    done = subprocess.run(
        [sys.executable, "-c", DIE.format(before=before)],
        cwd=folder,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (hard, hard)),
    )
    assert done.returncode == -signal.SIGABRT
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("before", OURS.values(), ids=OURS.keys())
def test_no_core_is_left(tmp_path: Path, before: str) -> None:
    assert cores(tmp_path, before) == []


def test_without_that_there_would_be_one(tmp_path: Path) -> None:
    assert cores(tmp_path, "") != []


def test_a_handler_that_ignores_the_limit_gets_no_memory() -> None:
    """core(5): a core that is piped is not limited; the filter is kept by exec and by children."""
    look = "import subprocess; print(subprocess.check_output(['cat', '/proc/self/coredump_filter']).decode())"
    code = f"{OURS['privacy']}\n{look}"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(told.stdout, 16) == 0
