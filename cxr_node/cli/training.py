"""The commands that make and measure a classifier; registered by `cli`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cxr_node.cli import tables
from cxr_node.cli.app import DEFAULT_CONFIG, AsJson, ConfigFile, command, load_config, out, say_json
from cxr_node.errors import DataError, ModelError


class Publisher(StrEnum):
    """Whose weights can be read."""

    TORCHXRAYVISION = "torchxrayvision"


@command("import")
def import_weights(
    publisher: Annotated[Publisher, typer.Argument(help="Whose weights these are.")],
    file: Annotated[Path, typer.Argument(help="State dict of its DenseNet-121; nothing is downloaded.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Profile folder to write.")],
    judge: Annotated[
        str, typer.Option(help="Finding of the verdict: only Pneumonia; others are scored.")
    ] = "Pneumonia",
    weights: Annotated[
        str | None, typer.Option(help="Published name of the weights, if the file does not say.")
    ] = None,
    report_at: Annotated[float, typer.Option(help="Score from which it is reported.")] = 0.5,
    rule_out_below: Annotated[float, typer.Option(help="Score below which it is ruled out.")] = 0.5,
    max_spread: Annotated[float, typer.Option(help="Abstain where views differ by more; 1: never.")] = 1.0,
) -> None:
    """Make a profile folder of TorchXRayVision's weights: 18 findings, scored as their authors do."""
    from cxr_node.model import import_torchxrayvision

    choice = import_torchxrayvision.ImportOptions(
        judge=judge, weights=weights, report_at=report_at, rule_out_below=rule_out_below, max_spread=max_spread
    )
    made = import_torchxrayvision.run(file, out_dir, choice)
    out.print(f"profile {made.name} written to {out_dir}: {len(made.labels)} findings, verdict about {judge}")


@command()
def export(
    folder: Annotated[Path, typer.Argument(help="Profile folder; the graph is written into it.")],
) -> None:
    """Write a profile's network as a graph that serves without torch; training and import do this automatically."""
    from cxr_node.model import profile
    from cxr_node.model.torch_runtime import export

    loaded = profile.load(folder)
    export(loaded)
    out.print(f"the network of {loaded.name} {loaded.version} is exported to {folder}")


DATA = "Folder with manifest.csv, or with a folder per class; PNG, JPEG or DICOM files."
WORD = "The data's word for the label; may be repeated. Counts as"
PART = "Which patients; by default those that training never saw."


@contextmanager
def _wrong_use() -> Iterator[None]:
    """A profile folder that cannot be used is here what data are: given on the command line, so exit code 2."""
    try:
        yield
    except ModelError as error:
        raise DataError(str(error)) from error


class Part(StrEnum):
    """A part of the data that a profile was trained on."""

    TRAINING = "training"
    VALIDATION = "validation"
    CALIBRATION = "calibration"
    ALL = "all"


class Changed(StrEnum):
    """`training.measure.evaluate.Change`, known before torch is."""

    NONE = "none"
    CORRUPTED = "corrupted"
    RESHAPED = "reshaped"
    EXCHANGED = "exchanged"


@command()
def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe, for example config/train/lungs.yaml.")],
    data: Annotated[Path, typer.Option("--data", help=DATA)],
    out_dir: Annotated[Path, typer.Option("--out", help="Profile folder to write; resumes what it finds there.")],
) -> None:
    """Train, calibrate and measure a classifier on labelled images; writes a profile folder."""
    from cxr_node.training.learn import train

    out.print(f"profile written: {train.run(recipe, data, out_dir)}")


@command()
def evaluate(
    profile: Annotated[Path, typer.Argument(help="Profile folder; its metrics.json and card are updated.")],
    data: Annotated[Path, typer.Option("--data", help=DATA)],
    external: Annotated[
        Path | None, typer.Option(help="Second data set, shown next to the first; its words: --external-...")
    ] = None,
    page: Annotated[Path | None, typer.Option(help="HTML page to write: all figures, with plots.")] = None,
    part: Annotated[Part | None, typer.Option(help=PART)] = None,
    parts_of: Annotated[
        Path | None,
        typer.Option(help="What the profile was trained on, where --data are other copies: --part is of its patients."),
    ] = None,
    manifest: Annotated[Path | None, typer.Option(help="CSV file to read instead of the data's manifest.csv.")] = None,
    column: Annotated[str, typer.Option(help="Label column of manifest.csv.")] = "label",
    positive: Annotated[list[str] | None, typer.Option(help=f"{WORD} positive; else the recipe's.")] = None,
    negative: Annotated[list[str] | None, typer.Option(help=f"{WORD} negative; else the recipe's.")] = None,
    external_column: Annotated[str, typer.Option(help="--column of the second data set.")] = "label",
    external_positive: Annotated[list[str] | None, typer.Option(help="--positive of the second data set.")] = None,
    external_negative: Annotated[list[str] | None, typer.Option(help="--negative of the second data set.")] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(help="Manifest column to split by, beside sublabel, age, sex and view; may be repeated."),
    ] = None,
    boxes: Annotated[
        str | None,
        typer.Option(help="Manifest column of radiologists' boxes, as boxes_1024: does the heat map peak in one?"),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Second profile folder, on the same images: differences with intervals.")
    ] = None,
    padding: Annotated[
        int | None, typer.Option(min=0, help="Images whose edges are moved (padded, cut); else as many as --sample.")
    ] = None,
    change: Annotated[
        Changed,
        typer.Option(
            help="Change all images: corrupted as in training, cut to the shape of the other class's films, or in "
            "the surroundings and style of the other class."
        ),
    ] = (Changed.NONE),
    outsiders: Annotated[
        Path | None, typer.Option(help="Folder of images that the profile was not made for: are they refused?")
    ] = None,
    sample: Annotated[
        int, typer.Option(min=0, help="Images to re-encode; twice as many are altered and explained. 0: none.")
    ] = 20,
    keep: Annotated[bool, typer.Option(help="Update the profile's metrics.json and card.")] = True,
    as_json: AsJson = False,
) -> None:
    """Measure a profile on labelled images, every figure with its interval."""
    from cxr_node.training.data.profile_folder import Labels
    from cxr_node.training.measure.evaluate import Change
    from cxr_node.training.report import evaluation, views

    words = (tuple(positive or ()), tuple(negative or ()))
    labels = Labels(
        manifest=manifest, column=column, positive=words[0], negative=words[1], by=tuple(by or ()), boxes=boxes
    )
    data_sets = [evaluation.DataSet(data=data, part=part, labels=labels, change=Change(change), parts_of=parts_of)]
    if external:
        words = (tuple(external_positive or ()), tuple(external_negative or ()))
        labels = Labels(column=external_column, positive=words[0], negative=words[1])
        data_sets.append(evaluation.DataSet(data=external, labels=labels, change=Change(change)))
    extras = evaluation.Extras(
        sample=sample, padded=padding, against=against, strangers=outsiders, page=page, keep=keep
    )
    with _wrong_use():
        measured = evaluation.run(profile, data_sets, extras, progress=not as_json)
    if as_json:
        say_json(measured)
    else:
        out.print(views.tables(measured))
        if page:
            out.print(f"page written: {page}")


@command()
def calibrate(
    profile: Annotated[
        Path, typer.Argument(help="Profile folder; with --from-agreement also a built-in profile's name.")
    ],
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Labelled images that training never saw; else the folder of --labels."),
    ] = None,
    part: Annotated[Part | None, typer.Option(help=PART)] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", help="CSV with file, label and preferably patient; paths relative to --data."),
    ] = None,
    ppv: Annotated[float | None, typer.Option(min=0.5, max=0.999, help="Positive predictive value to promise.")] = None,
    npv: Annotated[float | None, typer.Option(min=0.5, max=0.999, help="Negative predictive value to promise.")] = None,
    confidence: Annotated[
        float | None, typer.Option(min=0.5, max=0.9999, help="Probability that both promises hold; 0.95 by default.")
    ] = None,
    prevalence: Annotated[
        float | None,
        typer.Option(min=0.001, max=0.999, help="Share of positives that the calibration is for; else the recipe's."),
    ] = None,
    views: Annotated[
        str | None, typer.Option(help="Views that answer from now on, such as plain,closer; the profile's by default.")
    ] = None,
    from_agreement: Annotated[
        bool,
        typer.Option(
            "--from-agreement", help="A site's own thresholds, of what radiologists said of answered studies."
        ),
    ] = False,
    out_file: Annotated[
        Path | None, typer.Option("--out", help="With --from-agreement: the file to write; else it is only shown.")
    ] = None,
    since: Annotated[str, typer.Option(help="With --from-agreement: studies received since then.")] = "365d",
    by: Annotated[str, typer.Option(help="With --from-agreement: whose word counts, reports or page.")] = "reports",
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Fit probabilities and thresholds on labelled images, or on a site's agreement, and bind them to the weights."""
    if from_agreement:
        from cxr_node.cli import site_calibration

        if data or part or labels or views:
            raise DataError("--from-agreement takes no --data, --part, --labels or --views: the ledger has the scores")
        wanted = site_calibration.Wanted(ppv=ppv, npv=npv, confidence=confidence, prevalence=prevalence)
        site_calibration.run(str(profile), wanted, out_file, (since, by), load_config(config), as_json=as_json)
        return
    from cxr_node.training.calibrate import calibrate
    from cxr_node.training.data.profile_folder import Labels

    if data is None and labels is None:
        raise DataError("there is nothing to calibrate on: give --data, --labels or both")
    images = data or (labels.parent if labels else Path())
    shown = None if views is None else views.split(",")
    options = calibrate.CalibrationOptions(ppv=ppv, npv=npv, confidence=confidence, prevalence=prevalence, views=shown)
    measured = calibrate.run(profile, images, part=part, labels=Labels(manifest=labels), options=options)
    out.print(tables.figures(measured))


@command()
def compare(
    profiles: Annotated[list[Path], typer.Argument(help="Profile folders; profile.yaml and metrics.json are read.")],
    out_file: Annotated[Path | None, typer.Option("--out", help="Markdown file to write; else it is printed.")] = None,
) -> None:
    """Compare profiles that were trained on the same images; writes docs/models.md."""
    from cxr_node.training.report import compare

    with _wrong_use():
        text = compare.page(profiles)
    if out_file is None:
        out.print(text, markup=False, highlight=False, soft_wrap=True)
    else:
        out_file.write_text(text, "utf-8")
        out.print(f"written: {out_file}")
