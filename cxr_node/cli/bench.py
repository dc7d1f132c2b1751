"""The command that measures this machine at the node's own work, and how its figures look in a terminal."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.bar import Bar
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cxr_node.cli import tables
from cxr_node.cli.app import AsJson, command, config_of, load_config, out, say_json
from cxr_node.errors import DataError

if TYPE_CHECKING:
    from cxr_node.bench.figures import Bench, Pipeline, Spread, WholeNode
    from cxr_node.config.schema import Config

_BAR_WIDTH = 30


@command()
def bench(
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", envvar="CXR_NODE_CONFIG", help="Measure with these profiles and results."),
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="Built-in profile or profile folder; else the configured.")
    ] = None,
    images: Annotated[
        int, typer.Option(min=1, max=1000, help="Radiographs sent one at a time, and again as many at once.")
    ] = 30,
    size_mb: Annotated[float, typer.Option(min=0.1, max=200.0, help="Pixel data of each, in MB.")] = 10.0,
    batch: Annotated[str, typer.Option(help="Radiographs at once for the network.")] = "1,4,16",
    out_dir: Annotated[Path | None, typer.Option("--out", help="Write bench.json here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure what this machine does with the node's work: speed, turnaround, processor, memory."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from cxr_node.bench import measure

    settings = _settings(config, profile)
    try:
        options = measure.BenchOptions(images=images, size_mb=size_mb, batches=measure.parsed_batches(batch))
    except ValueError as error:
        raise typer.BadParameter(f"--batch {batch!r}: write sizes of 1 to 256, for example 1,4,16") from error
    if out_dir is not None:
        _make(out_dir)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=as_json or not console.is_terminal) as bar:
        found = measure.run(settings, options, bar)
    if out_dir is not None:
        (out_dir / "bench.json").write_text(json.dumps(tables.plain(found), indent=2) + "\n", "utf-8")
    if as_json:
        say_json(tables.plain(found))
    else:
        out.print(bench_table(found))


def _settings(file: Path | None, profile: str | None) -> Config:
    settings = load_config(file) if file else config_of({"spool": {"path": tempfile.gettempdir()}})
    if profile is None:
        return settings
    return settings.model_copy(update={"model": settings.model.model_copy(update={"profile": profile, "others": ()})})


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error.strerror})") from error


def bench_table(found: Bench) -> Group:
    """What was measured on what, three tables, and what one must know to read them."""
    notes = [Text(note, "dim") for note in found.notes]
    return Group(
        _head(found),
        _stages(found.pipeline),
        Text(_cost(found.pipeline.cpu_s_per_1000_images, found.pipeline.peak_mib) + "\n"),
        _batches(found.pipeline),
        _turnaround(found.node),
        Text(f"{found.node.images_per_s:.1f} images/s sustained; ready {found.node.started_in_s:.1f} s after start\n"),
        _roles(found.node),
        *notes,
    )


def _head(found: Bench) -> Text:
    here = found.machine
    threads = "all cores" if found.threads == 0 else f"{found.threads} threads"
    return Text(
        f"{here.cores:g} cores ({here.processor}), {here.memory_gib:g} GiB, spool on {here.file_system}\n"
        f"{found.profile} by {found.runtime}, {threads}; results: {', '.join(found.results)}\n"
        f"drawn radiographs of {found.cols} x {found.rows}, {found.bits_stored} bits: {found.size_mb:.1f} MB each\n"
    )


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    return table


def _stages(found: Pipeline) -> Table:
    table = _table(f"one process, one radiograph after the other ({found.images})", "stage", "median ms", "share")
    table.add_column("", width=_BAR_WIDTH)
    largest = max(stage.share for stage in found.stages) or 1.0
    for stage in found.stages:
        bar = Bar(largest, 0.0, stage.share, width=_BAR_WIDTH)
        table.add_row(stage.name, f"{stage.ms:.1f}", f"{100.0 * stage.share:.0f} %", bar)
    table.add_row("together", f"{found.ms_per_image:.1f}", "", f"{1000.0 / found.ms_per_image:.1f} images/s")
    return table


def _cost(cpu_s: float, peak_mib: float) -> str:
    return f"{cpu_s:.0f} CPU seconds per 1,000 images, peak memory {peak_mib:.0f} MiB"


def _batches(found: Pipeline) -> Table:
    table = _table("the stage examine, by batch size", "images at once", "ms an image", "images/s", "peak MiB")
    for each in found.batches:
        row = (f"{each.ms_per_image:.1f}", f"{each.images_per_s:.1f}", f"{each.peak_mib:.0f}")
        table.add_row(str(each.size), *row)
    return table


def _turnaround(found: WholeNode) -> Table:
    table = _table("\nthe whole node: turnaround, receipt to last result acknowledged", "sent", "images")
    for heading in ("p50 ms", "p95 ms", "p99 ms"):
        table.add_column(heading, justify="right")
    table.add_row("one at a time", *_spread(found.one_at_a_time))
    table.add_row("all at once", *_spread(found.all_at_once))
    return table


def _spread(found: Spread) -> tuple[str, ...]:
    return (str(found.count), *(f"{ms:.0f}" for ms in (found.p50_ms, found.p95_ms, found.p99_ms)))


def _roles(found: WholeNode) -> Table:
    table = _table("", "process", "CPU s per 1,000 images", "peak MiB")
    table.title = None
    for role in found.roles:
        table.add_row(role.name, f"{role.cpu_s_per_1000_images:.0f}", f"{role.peak_mib:.0f}")
    table.add_row("sender and PACS", f"{found.peers_cpu_s_per_1000_images:.0f}", "")
    return table
