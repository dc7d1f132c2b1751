"""The progress bar of long work, with its expected end.

Knows nothing of what the work is.
"""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

ESTIMATED_OVER_S = 600.0
"""The expected end is reckoned from the last minutes: a batch may take long, and epochs end with a measurement."""


def bar_of(shown: bool) -> Progress:
    """Build a bar on standard error, so that standard output stays for results."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(
        *columns,
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        speed_estimate_period=ESTIMATED_OVER_S,
        disable=not shown,
    )
