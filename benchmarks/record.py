"""What all benchmarks share: their command line, the arithmetic of a comparison, and what stands beside the figures.

Medians with quartiles, and ratios; nothing is rounded before it is written. Beside the figures: machine, date, command.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cxr_node import __version__

RESULTS = Path(__file__).parent / "results"
LIBRARIES = (
    *("torch", "openvino", "numpy", "pydicom", "pynetdicom", "grad-cam", "highdicom", "opencv-python-headless"),
    *("sqlalchemy", "pillow"),
)
_PROGRAMS = {"dcmtk": ("storescp", "--version"), "orthanc": ("Orthanc", "--version")}
_SYNCS = 20


Measure = Callable[[Path, argparse.Namespace, Progress], dict[str, Any]]
_SHARES = {"min": 0.0, "p25": 25.0, "p50": 50.0, "p75": 75.0, "p95": 95.0, "max": 100.0}


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Describe repeated measurements: how many, percentiles (linear between two values), and the values themselves.

    Raises
    ------
    ValueError : there are no values, or one is no number.
    """
    found = np.asarray(values, dtype=np.float64)
    if not found.size or not np.isfinite(found).all():
        raise ValueError("percentiles need numbers")
    shares = {name: float(np.percentile(found, share)) for name, share in _SHARES.items()}
    return {"n": len(values), **shares, "raw": [float(value) for value in values]}


def ratio(more: float, less: float) -> float:
    """How many times `less` goes into `more`.

    Raises
    ------
    ValueError : a time or a rate is not above 0; no ratio means anything then.
    """
    if not (more > 0.0 and less > 0.0):
        raise ValueError("a ratio needs figures above 0")
    return more / less


def options(description: str | None, **counts: int) -> argparse.ArgumentParser:
    """Build the command line of a benchmark: counts and their defaults."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for name, default in counts.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, help=" ")
    return parser


def run(name: str, parser: argparse.ArgumentParser, measure: Measure) -> None:
    """Measure, and write the figures."""
    with scratch() as folder, bar() as shown:
        shown.console.print(write(name, folder, measure(folder, parser.parse_args(), shown)))


def write(name: str, scratch: Path, figures: dict[str, Any]) -> Path:
    """Keep the figures of one run, with what they were measured on."""
    file = RESULTS / f"{name}.json"
    file.parent.mkdir(exist_ok=True)
    content = {"benchmark": name, **_circumstances(scratch), "figures": figures}
    file.write_text(json.dumps(_short(content), indent=1) + "\n", "utf-8")
    return file


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for spools, on the file system of TMPDIR; gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="cxr-node-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def bar() -> Iterator[Progress]:
    """Rows of progress on stderr."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, refresh_per_second=2) as shown:
        yield shown


def _circumstances(scratch: Path) -> dict[str, Any]:
    from cxr_node.diagnose import disk, machine

    module = Path(sys.argv[0]).stem
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", f"benchmarks.{module}", *sys.argv[1:]]),
        "version": __version__,
        "commit": _commit(),
        "machine": {
            "processor": machine.processor_name(),
            "cores": machine.processor().cores,
            "memory_gib": psutil.virtual_memory().total / 2**30,
            "system": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
            "kernel": platform.release(),
            "file_system": disk.kind(scratch),
            "fsync_4_kib_ms": _fsync_ms(scratch),
            "load_average": list(os.getloadavg()),
            "threads_set": os.environ.get("OMP_NUM_THREADS"),
        },
        "versions": machine.versions(LIBRARIES) | {name: _program(*command) for name, command in _PROGRAMS.items()},
    }


def _commit() -> str | None:
    """What was measured; the results of the run before do not make it another one."""
    git = ("git", "-C", str(RESULTS.parent.parent))
    changed = _said(*git, "status", "--porcelain", "--", "cxr_node", "weights", "benchmarks/*.py")
    head = _said(*git, "rev-parse", "--short", "HEAD")
    return f"{head}-changed" if head and changed else head


def _fsync_ms(folder: Path) -> float:
    """Median of some; what a commit costs here."""
    took = []
    with (folder / "fsync").open("wb", buffering=0) as file:
        for _ in range(_SYNCS):
            began = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            took.append(1000.0 * (time.perf_counter() - began))
    return sorted(took)[_SYNCS // 2]


def _program(program: str, option: str) -> str | None:
    """Version of a program, from the first line that names one."""
    words = _said(program, option)
    found = [word.strip("v,$") for word in (words or "").split() if word.strip("v,$")[:1].isdigit()]
    return found[0] if found else None


def foreign_path() -> str:
    """PATH without an active virtual environment: pynetdicom has some of DCMTK's names there."""
    own = sysconfig.get_path("scripts") if sys.prefix != sys.base_prefix else None
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(each for each in folders if each != own)


def find(program: str) -> str | None:
    """Where a program lies that is not this environment's."""
    return shutil.which(program, path=foreign_path())


def _said(*command: str) -> str | None:
    program = find(command[0])
    if program is None:
        return None
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, timeout=10, check=False)
    return done.stdout.strip() or None


def _short(value: Any) -> Any:
    """Six significant digits are more than any of this is worth."""
    match value:
        case bool() | int() | str() | None:
            return value
        case float():
            return float(f"{value:.6g}")
        case dict():
            return {name: _short(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_short(inner) for inner in value]
    raise TypeError(f"{type(value).__name__} is nothing for JSON")
