"""What a person waits for at a shell, and what an installation weighs: serving alone, in an environment of its own.

`--help`, `classify` of one radiograph of 10 MB, and the demo, each a process from its start to its end; `classify`
first where no compiled network is kept yet. Installs the checkout by pip, which needs its index.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks import record
from benchmarks.images import TEN_MB
from benchmarks.record import spread
from cxr_node.tools import drawn

CHECKOUT = Path(__file__).parent.parent


def measure(folder: Path, options: argparse.Namespace, bar: Progress) -> dict[str, Any]:
    """Install, weigh, and run each command some times."""
    task = bar.add_task("install and start", total=2 + 3 * options.rounds)
    bin_folder = installed(folder / "venv")
    bar.advance(task)
    (film,) = drawn.write(folder, TEN_MB, 1)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"CACHE_DIRECTORY": str(folder / "cache")}
    program = str(bin_folder / "cxr-node")
    commands = {
        "help": [program, "--help"],
        "classify": [program, "classify", str(film)],
        "demo": [program, "demo", "--out", str(folder / "demo")],
    }
    timed(commands["help"], environment)  # reads the files
    first = timed(commands["classify"], environment)
    bar.advance(task)
    found: dict[str, Any] = {"classify_first_cpu_s": first["cpu_s"]}
    for name, command in commands.items():
        runs = []
        for _ in range(options.rounds):
            runs.append(timed(command, environment))
            bar.advance(task)
        found[name] = {key: spread([run[key] for run in runs]) for key in runs[0]}
    return found | {"installed_mb": weights(next((folder / "venv" / "lib").glob("python*/site-packages")))}


def installed(venv: Path) -> Path:
    """Install the checkout for serving; where its programs are."""
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", str(CHECKOUT)]
    subprocess.run(pip, check=True, stderr=subprocess.DEVNULL)
    return venv / "bin"


def timed(command: Sequence[str], environment: dict[str, str]) -> dict[str, float]:
    """Run a command to its end: seconds of the wall, and of the processor by itself and its children."""
    began = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise subprocess.CalledProcessError(child.returncode, command)
    return {"wall_s": time.perf_counter() - began, "cpu_s": used.ru_utime + used.ru_stime}


def weights(site_packages: Path) -> dict[str, float]:
    """Megabytes of what is installed, by the name of the folder; together under `all`."""
    sizes: Counter[str] = Counter()
    for path in site_packages.rglob("*"):
        if path.is_file() and not path.is_symlink():
            name = path.relative_to(site_packages).parts[0]
            sizes[name.removesuffix(".libs").lstrip("_")] += path.stat().st_size
    told = {name: size / 1e6 for name, size in sizes.most_common()}
    return {"all": sum(told.values())} | told


def main() -> None:
    """Run, and write the figures."""
    record.run("start", record.options(__doc__, rounds=5), measure)


if __name__ == "__main__":
    main()
