"""The commands that make a profile of published weights, and a graph of a profile; registered by `cli`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cxr_node.command import command, out


class Publisher(StrEnum):
    """Whose weights can be read."""

    TORCHXRAYVISION = "torchxrayvision"


@command("import")
def import_weights(
    publisher: Annotated[Publisher, typer.Argument(help="Whose weights these are.")],
    file: Annotated[Path, typer.Argument(help="State dict of its DenseNet-121; nothing is downloaded.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Profile folder to write.")],
    judge: Annotated[str, typer.Option(help="Finding that the verdict is about.")] = "Pneumonia",
    weights: Annotated[str | None, typer.Option(help="Published name; only where the file does not tell.")] = None,
    report_at: Annotated[float, typer.Option(help="Score from which it is reported.")] = 0.5,
    rule_out_below: Annotated[float, typer.Option(help="Score below which it is ruled out.")] = 0.5,
    max_spread: Annotated[float, typer.Option(help="Abstain where views differ by more; 1: never.")] = 1.0,
) -> None:
    """Make a profile folder of TorchXRayVision's weights: 18 findings, scored as their authors do."""
    from cxr_node.model import adopt

    choice = adopt.Choice(
        judge=judge, weights=weights, report_at=report_at, rule_out_below=rule_out_below, max_spread=max_spread
    )
    made = adopt.run(file, out_dir, choice)
    out.print(f"profile {made.name} written to {out_dir}: {len(made.labels)} findings, verdict about {judge}")


@command()
def export(
    folder: Annotated[Path, typer.Argument(help="Profile folder; the graph is written into it.")],
) -> None:
    """Write a profile's network as a graph that serves without torch; training and import do it by themselves."""
    from cxr_node.model import profile
    from cxr_node.model.export import export as write

    loaded = profile.load(folder)
    write(loaded)
    out.print(f"the network of {loaded.name} {loaded.version} is exported to {folder}")
