"""`classify` on a folder beside a plain loop over it: pydicom, torch in fp32 and the package grad-cam, file by file.

Each a process from its start to its end, in turn. Every file gets a probability from all views and a heat map on its
own grid, which the plain loop makes with the functions of `plain_node`. Cores busy is processor time over wall time.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks import record
from benchmarks.images import TEN_MB
from benchmarks.record import ratio, spread
from cxr_node.tools import drawn
from cxr_node.tools.drawn import Plate

OURS, PLAIN = "cxr_node", "plain loop"
_COMMANDS = {OURS: ("cxr_node", "classify", "--json"), PLAIN: ("benchmarks.classify", "--loop")}


def measure(folder: Path, options: argparse.Namespace, bar: Progress) -> dict[str, Any]:
    """Both sides on a folder of each size, in turn."""
    sizes = {"224 px": (Plate(rows=224, cols=224), options.images), "10 MB": (TEN_MB, options.large_images)}
    task = bar.add_task("classify", total=len(sizes) * options.rounds * len(_COMMANDS))
    found = {}
    for name, (plate, count) in sizes.items():
        drawings = folder / name
        drawings.mkdir()
        list(drawn.write(drawings, plate, count))
        runs: dict[str, list[dict[str, float]]] = {side: [] for side in _COMMANDS}
        for _ in range(options.rounds):
            for side in _COMMANDS:
                runs[side].append(timed(side, drawings, count))
                bar.advance(task)
        found[name] = {"images": count} | compared(runs)
    return found


def compared(runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Spreads of the runs of each side, and how many times the images a second of the plain loop ours does."""
    told: dict[str, Any] = {
        side: {key: spread([run[key] for run in each]) for key in each[0]} for side, each in runs.items()
    }
    return told | {"ratio": ratio(*(told[side]["images_per_s"]["p50"] for side in (OURS, PLAIN)))}


def timed(side: str, folder: Path, count: int) -> dict[str, float]:
    """Run one side on a folder of so many files.

    Raises
    ------
    ValueError : not every file got an answer.
    """
    command = [sys.executable, "-m", *_COMMANDS[side], str(folder)]
    began, used_s = time.perf_counter(), _children_s()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    wall_s, cpu_s = time.perf_counter() - began, _children_s() - used_s
    if len(done.stdout.splitlines()) != count or "REJECTED" in done.stdout:
        raise ValueError(f"{side}: not every file got an answer")
    return {
        "images_per_s": ratio(count, wall_s),
        "cpu_ms_per_image": 1000.0 * cpu_s / count,
        "cores_busy": ratio(cpu_s, wall_s),
    }


def loop(folder: Path) -> None:
    """Judge a folder as a script would, and print a line for each file."""
    from pydicom import dcmread

    from benchmarks.plain_node import PROFILE, PlainModel, shown
    from cxr_node import resources
    from cxr_node.model import profile

    model = PlainModel(profile.load(resources.profile_folder(PROFILE)))
    for file in sorted(folder.iterdir()):
        answer = model.same_answer(shown(dcmread(file)))
        print(file.name, answer.probability, float(answer.map.max()))


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Run, and write the figures; with `--loop`, be the plain loop."""
    if sys.argv[1:2] == ["--loop"]:
        loop(Path(sys.argv[2]))
    else:
        record.run("classify", record.options(__doc__, images=200, large_images=40, rounds=3), measure)


if __name__ == "__main__":
    main()
