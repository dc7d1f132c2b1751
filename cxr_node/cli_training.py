"""The commands that make and measure a classifier; registered by `cli`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cxr_node import show
from cxr_node.command import AsJson, command, out, say_json

DATA = "Folder with manifest.csv, or with a folder per class; PNG, JPEG or DICOM files."
PART = "Which patients; by default those that training did not see."


class Part(StrEnum):
    """A part of the data that a profile was trained on."""

    TRAINING = "training"
    VALIDATION = "validation"
    CALIBRATION = "calibration"
    ALL = "all"


@command()
def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe, for example config/train/lungs.yaml.")],
    data: Annotated[Path, typer.Option("--data", help=DATA)],
    out_dir: Annotated[Path, typer.Option("--out", help="Profile folder to write; resumes what it finds there.")],
) -> None:
    """Train, calibrate and measure; writes a profile folder."""
    from cxr_node.training import train as room

    out.print(f"profile written: {room.run(recipe, data, out_dir)}")


@command()
def evaluate(
    profile: Annotated[Path, typer.Argument(help="Profile folder; its metrics.json and card are renewed.")],
    data: Annotated[Path, typer.Option("--data", help=DATA)],
    part: Annotated[Part | None, typer.Option(help=PART)] = None,
    column: Annotated[str, typer.Option(help="Label column of manifest.csv.")] = "label",
    positive: Annotated[str | None, typer.Option(help="The data's word for positive; else the recipe's.")] = None,
    negative: Annotated[str | None, typer.Option(help="The data's word for negative; else the recipe's.")] = None,
    corrupted: Annotated[bool, typer.Option("--corrupted", help="Change the images as in training.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure a profile on labelled images, every figure with its interval."""
    from cxr_node.training import evaluate as room
    from cxr_node.training.folder import Labels

    labels = Labels(column=column, positive=positive, negative=negative)
    figures = room.run(profile, data, part=part, labels=labels, corrupted=corrupted, progress=not as_json)
    if as_json:
        say_json(figures)
    else:
        out.print(show.figures(figures))


@command()
def calibrate(
    profile: Annotated[Path, typer.Argument(help="Profile folder whose calibration.yaml is fitted anew.")],
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Labelled images that training never saw; else the folder of --labels."),
    ] = None,
    part: Annotated[Part | None, typer.Option(help=PART)] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="CSV with file, label and, best, patient; files named from --data.")
    ] = None,
    ppv: Annotated[float | None, typer.Option(min=0.5, max=0.999, help="Positive predictive value to promise.")] = None,
    npv: Annotated[float | None, typer.Option(min=0.5, max=0.999, help="Negative predictive value to promise.")] = None,
    confidence: Annotated[
        float | None, typer.Option(min=0.5, max=0.9999, help="Of both promises together; 0.95 by default.")
    ] = None,
    prevalence: Annotated[
        float | None, typer.Option(min=0.001, max=0.999, help="Share of positives it is for; else the recipe's.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Change nothing; compare ways to calibrate, across patients.")
    ] = False,
) -> None:
    """Fit probabilities and thresholds on labelled images and bind them to the weights."""
    from cxr_node.errors import DataError
    from cxr_node.training import calibrate as room
    from cxr_node.training.folder import Labels

    if data is None and labels is None:
        raise DataError("there is nothing to calibrate on: give --data, --labels or both")
    images = data or (labels.parent if labels else Path())
    asked = room.Asked(ppv=ppv, npv=npv, confidence=confidence, prevalence=prevalence)
    work = room.compare if compare else room.run
    out.print(show.figures(work(profile, images, part=part, labels=Labels(manifest=labels), asked=asked)))
