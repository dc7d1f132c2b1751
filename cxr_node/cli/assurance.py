"""Commands by which a site watches its node in service; registered by `cli`. numpy and scipy only once one runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxr_node import wiring
from cxr_node.cli import tables
from cxr_node.cli.app import DEFAULT_CONFIG, AsJson, ConfigFile, command, out, say_json
from cxr_node.cli.ledger import opened
from cxr_node.config import loader

if TYPE_CHECKING:
    from cxr_node.assurance.predictive import Reading
    from cxr_node.config.schema import Config
    from cxr_node.node.work.worker import Analyser


@command()
def drift(
    config: ConfigFile = DEFAULT_CONFIG,
    readings: Annotated[
        Path | None,
        typer.Option(
            "--readings",
            help="CSV of answer (PNEUMONIA, NORMAL) and label (present, absent), in the order of the films.",
        ),
    ] = None,
    films: Annotated[
        int | None,
        typer.Option(
            "--reference", min=200, help="Fix the reference at so many films where there is none yet; else 2,000."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare the newest films with the site's own first 2,000; exit 1 where something has changed."""
    from cxr_node.assurance import drift
    from cxr_node.cli import assurance_tables
    from cxr_node.node.ledger import films as ledger_films

    settings = loader.load(config)
    read = [] if readings is None else _readings(readings)
    begun = False
    with opened(settings) as ledger:
        for profile in wiring.profiles(settings):
            weights, number = profile.weights_sha256, films or ledger_films.REFERENCE_FILMS
            seen = drift.look(ledger, weights, read, number)
            measured = ledger_films.measured(ledger, weights) if seen is None else seen.films
            begun |= seen is not None and seen.is_begun
            if as_json:
                told = None if seen is None else tables.plain(seen) | {"begun": seen.is_begun}
                say_json({"profile": profile.name, "version": profile.version, "films": measured, "drift": told})
            elif seen is None:
                out.print(f"{profile.name} {profile.version}: {measured} of the {number} films of its reference so far")
            else:
                out.print(assurance_tables.drift(f"{profile.name} {profile.version}", seen))
    raise typer.Exit(1 if begun else 0)


def _readings(file: Path) -> list[Reading]:
    """Read what radiologists said.

    Raises
    ------
    DataError : the file cannot be read, or a word in it is none of those.
    """
    import csv

    from cxr_node.domain import Verdict
    from cxr_node.errors import DataError

    labels = {"present": True, "absent": False}
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            return [(Verdict.of_word(row["answer"]), labels[row["label"]]) for row in csv.DictReader(lines)]
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not a CSV of answer and label (present, absent): {error!r}") from error


@command()
def replay(
    result: Annotated[Path, typer.Argument(help="A result of this node, as a file.", show_default=False)],
    source: Annotated[
        Path | None, typer.Option("--source", help="Its image, where the spool has it no more.", show_default=False)
    ] = None,
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Make a result again from its image: identical to the byte (exit 0), or the first difference and why (exit 1)."""
    from cxr_node.assurance import replay
    from cxr_node.node.ledger.database import AbsentLedgerError
    from cxr_node.node.spool.opening import open_spool

    settings = loader.load(config)
    content, image = _read(result), None if source is None else _read(source)
    analyser = _analyser(settings)
    try:
        with opened(settings) as ledger:
            told = replay.replay(content, image, settings, analyser, (ledger, open_spool(settings.spool)))
    except AbsentLedgerError:
        told = replay.replay(content, image, settings, analyser, None)
    if as_json:
        say_json(tables.plain(told))
    elif told.is_identical:
        out.print(f"identical to the byte, made again of {told.sources} image(s)")
    else:
        out.print(f"different: {told.difference or 'no such result is made'}", markup=False)
        for reason in told.because:
            out.print(f"  {reason}", markup=False)
    raise typer.Exit(0 if told.is_identical else 1)


def _read(file: Path) -> bytes:
    from cxr_node.errors import DataError

    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}") from error


def _analyser(settings: Config) -> Analyser:
    """As `work` has it, but for what it counts."""
    from cxr_node import pipeline, study_pipeline
    from cxr_node.node.work.worker import Analyser

    classifier = wiring.classifier(settings)
    return Analyser(
        process=lambda content, origin, config, precedent: pipeline.process(
            content, origin, classifier, config, precedent
        ),
        report=study_pipeline.report_study,
    )
