"""The network of the default profile on a GPU: what serves (fp32), and what it could do (bf16, as a CUDA graph).

From prepared views in the host's memory to logit and heat map there, batches of 1, 8 and 64 images. A share of the peak
is that of one large matrix product in the same numbers, by the same library.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import record
from benchmarks.record import ratio, spread
from cxr_node import resources
from cxr_node.model import graph_file, profile, weights
from cxr_node.model.profile import Profile
from cxr_node.model.torch_runtime import Served, in_float32

PROFILE = "pneumonia-pediatric"
BATCHES = (1, 8, 64)
WAYS = {"plain fp32": torch.float32, "bf16, CUDA graph": torch.bfloat16}
NONE = "benchmarks.gpu: there is no CUDA device on this machine; nothing was measured, and nothing written"
WARM_UP = 3
"""Passes of a stream before its work is captured, as torch asks for; also what is not counted."""
_SIDE = 8192
"""Of the matrices of the product that the peak is taken from."""

Tensors = tuple[torch.Tensor, ...]
Pass = Callable[[], Tensors]


def measure(_folder: Path, options: argparse.Namespace, bar: Progress) -> dict[str, Any]:
    """Every way at every batch."""
    task = bar.add_task("GPU", total=len(BATCHES) * len(WAYS))
    return on(torch.device("cuda"), BATCHES, options.seconds, _SIDE, lambda: bar.advance(task))


def on(
    device: torch.device, batches: Sequence[int], seconds: float, side: int, done: Callable[[], object]
) -> dict[str, Any]:
    """Measure on a device; on a CPU nothing is captured.

    Parameters
    ----------
    seconds : each way at each batch runs for so long
    side : of the matrices of the product that the peak is taken from
    """
    loaded = profile.load(resources.profile_folder(PROFILE))
    views = torch.from_numpy(graph_file.golden_inputs(loaded.input))  # (12, views, pictures, side_px, side_px)
    cells, answers, flops = [], {}, _flops(loaded, views[0])
    for name, dtype in WAYS.items():
        network = _served(loaded, device, dtype)
        peak = 2.0 * side**3 / _product_s(device, dtype, side)
        for batch in batches:
            shown = views[torch.arange(batch) % len(views)].flatten(0, 1)
            once = passing(network, shown, device, dtype)
            answers[name] = _calibrated(once()[0], loaded)[: batches[0] * views.shape[1]]
            took_s = _repeated(once, seconds)
            rate = ratio(batch, float(took_s["p50"]))
            share = flops * rate / peak
            cells.append({"way": name, "batch": batch, "s": took_s, "images_per_s": rate, "peak_share": share})
            done()
    plain, short = (answers[name] for name in WAYS)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "profile": loaded.name,
        "flops_per_image": flops,
        "largest_difference": float((plain - short).abs().max()),
        "cells": cells,
    }


def passing(network: Served, shown: torch.Tensor, device: torch.device, dtype: torch.dtype) -> Pass:
    """Make one pass, from the host's memory and back; in bf16 on CUDA the same kernels again, without their launches.

    Parameters
    ----------
    shown : float32, shape (rows, pictures, side_px, side_px)
    """
    host = shown.to(dtype).contiguous(memory_format=torch.channels_last)
    host = host.pin_memory() if device.type == "cuda" else host
    there = host.to(device)

    def ended(seen: Tensors) -> Tensors:
        return tuple(part.float().cpu() for part in seen)

    def plain() -> Tensors:
        there.copy_(host, non_blocking=True)
        return ended(network(there))

    if dtype is torch.float32 or device.type != "cuda":
        return plain
    beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # in torch itself
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(WARM_UP):
            network(there)
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        seen = network(there)

    def again() -> Tensors:
        there.copy_(host, non_blocking=True)
        graph.replay()
        return ended(seen)

    return again


def _served(loaded: Profile, device: torch.device, dtype: torch.dtype) -> Served:
    network, _ = weights.load(loaded.weights_path, loaded.network, len(loaded.labels))
    placed = copy.deepcopy(network).to(device, dtype).to(memory_format=torch.channels_last).eval()
    return Served(placed, loaded.judged)


def _calibrated(logits: torch.Tensor, loaded: Profile) -> torch.Tensor:
    return torch.sigmoid(loaded.slope * logits[:, loaded.judged] + loaded.intercept)


def _repeated(once: Callable[[], object], seconds: float) -> dict[str, Any]:
    """Seconds of each pass; at least one is counted."""
    for _ in range(WARM_UP):
        once()
    took: list[float] = []
    until = time.perf_counter() + seconds
    while not took or time.perf_counter() < until:
        began = time.perf_counter()
        once()
        took.append(time.perf_counter() - began)
    return spread(took) | {"raw": []}


def _product_s(device: torch.device, dtype: torch.dtype, side: int) -> float:
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))

    def once() -> float:
        return float((one @ other)[0, 0])  # waits for the device

    return float(_repeated(once, 1.0)["p50"])


def _flops(loaded: Profile, views: torch.Tensor) -> float:
    """Operations of one image's views."""
    network = _served(loaded, torch.device("cpu"), torch.float32)
    with FlopCounterMode(display=False) as counted:
        network(views)
    return float(counted.get_total_flops())


def main() -> None:
    """Run, and write the figures; without a CUDA device say so, and end with 1."""
    if not torch.cuda.is_available():
        raise SystemExit(NONE)
    with torch.no_grad(), in_float32():
        record.run("gpu", record.options(__doc__, seconds=10), measure)


if __name__ == "__main__":
    main()
