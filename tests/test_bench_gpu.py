"""The benchmark of a GPU on a machine without one: it says so, and computes what it would on a CPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, record

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_without_a_gpu_the_script_says_so_and_writes_nothing() -> None:
    before = sorted((path.name, path.stat().st_mtime_ns) for path in record.RESULTS.iterdir())
    done = subprocess.run(
        ["sh", str(ROOT / "benchmarks" / "gpu.sh")],
        env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", gpu.NONE + "\n")
    assert sorted((path.name, path.stat().st_mtime_ns) for path in record.RESULTS.iterdir()) == before


def test_a_tiny_run_has_every_way_and_both_answer_alike() -> None:
    steps: list[None] = []
    with torch.no_grad():
        found = gpu.on(torch.device("cpu"), (1,), 0.0, 64, lambda: steps.append(None))
    assert [(cell["way"], cell["batch"]) for cell in found["cells"]] == [(way, 1) for way in gpu.WAYS]
    assert len(steps) == len(gpu.WAYS)
    assert all(cell["images_per_s"] > 0 and cell["peak_share"] > 0 for cell in found["cells"])
    assert 4e9 < found["flops_per_image"] < 8e9  # two views through three networks
    assert 1e-6 < found["largest_difference"] < 0.2, "bfloat16 is another answer, and of the same network"
