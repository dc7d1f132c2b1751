"""The machine that a training runs on: a GPU where there is one, else the processor."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cxr_node.model.networks import Network

ESTIMATED_OVER_S = 600.0
"""The expected end is reckoned from the last minutes: a batch may take long, and epochs end with a measurement."""


class _Bars(Progress):
    """Only what there is to do has a bar: many steps are a recipe's or an evaluation's choice."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table([task for task in self.tasks if task.total])


def bar_of(shown: bool) -> Progress:
    """Build a bar on standard error, so that standard output stays for results."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return _Bars(
        *columns,
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        speed_estimate_period=ESTIMATED_OVER_S,
        disable=not shown,
    )


Answer = TypeVar("Answer")


def chosen(threads: int) -> torch.device:
    """Choose the device, and make its arithmetic repeatable."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = False  # it would choose algorithms by how busy the machine is
    torch.backends.cudnn.deterministic = True
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def of(network: Network) -> torch.device:
    """Where a network's parameters lie."""
    return next(network.parameters()).device


def placed(batch: torch.Tensor, network: Network) -> torch.Tensor:
    """Bring a batch of images to a network, in the order of memory that convolutions are fastest with."""
    return batch.to(of(network), memory_format=torch.channels_last)


def cores() -> int:
    """How many there are."""
    return os.cpu_count() or 1


def on_all_cores(ask: Callable[[torch.Tensor], Answer], batches: Sequence[torch.Tensor]) -> list[Answer]:
    """Give each batch one core, instead of all cores one batch together; empty batches are left out.

    Beside a training, whose threads keep the cores busy, cores that share a batch wait for each other at every layer
    (measured: 1.4 s an image, not 0.1).
    """
    with ThreadPoolExecutor(cores(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(ask, [batch for batch in batches if len(batch)]))
