"""The command that measures this machine at the node's own work; registered by `cli`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from cxr_node.cli import tables
from cxr_node.cli.app import AsJson, command, out, say_json
from cxr_node.config import loader
from cxr_node.config.schema import Config
from cxr_node.errors import DataError


@command()
def bench(
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", envvar="CXR_NODE_CONFIG", help="Measure with these profiles and results."),
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="Built-in profile or profile folder; else the configured.")
    ] = None,
    images: Annotated[int, typer.Option(min=1, max=1000, help="Sent one at a time, and as many at once.")] = 30,
    size_mb: Annotated[float, typer.Option(min=0.1, max=200.0, help="Pixel data of each.")] = 10.0,
    batch: Annotated[str, typer.Option(help="Radiographs at once for the network.")] = "1,4,16",
    out_dir: Annotated[Path | None, typer.Option("--out", help="Write bench.json and bench.svg here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure what this machine does with the node's work: speed, turnaround, processor, memory."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from cxr_node.bench import figures
    from cxr_node.bench import run as room

    settings = _settings(config, profile)
    try:
        choice = room.BenchOptions(images=images, size_mb=size_mb, batches=room.parsed_batches(batch))
    except ValueError as error:
        raise typer.BadParameter(f"--batch {batch!r}: write sizes of 1 to 256, for example 1,4,16") from error
    if out_dir is not None:
        _make(out_dir)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=as_json or not console.is_terminal) as bar:
        found = room.run(settings, choice, bar)
    if out_dir is not None:
        (out_dir / "bench.json").write_text(json.dumps(tables.plain(found), indent=2) + "\n", "utf-8")
        figures.write(out_dir / "bench.svg", found)
    if as_json:
        say_json(tables.plain(found))
    else:
        from cxr_node.cli.bench_table import bench_table

        out.print(bench_table(found))


def _settings(file: Path | None, profile: str | None) -> Config:
    settings = loader.load(file) if file else loader.parse({"spool": {"path": tempfile.gettempdir()}})
    if profile is None:
        return settings
    return settings.model_copy(update={"model": settings.model.model_copy(update={"profile": profile, "others": ()})})


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error.strerror})") from error
