"""Commands by which a site watches its node in service; registered by `cli`. numpy and scipy only once one runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxr_node import wiring
from cxr_node.cli import tables
from cxr_node.cli.app import DEFAULT_CONFIG, AsJson, ConfigFile, command, load_config, out, say_json
from cxr_node.cli.ledger import opened, parsed

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
            help="CSV of answer (PNEUMONIA, NORMAL) and label (present, absent), in the order of the films; "
            "else what `agreement` has read.",
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
    from cxr_node.assurance import agreement, drift
    from cxr_node.cli import assurance_tables
    from cxr_node.node.ledger import films as ledger_films

    settings = load_config(config)
    named = None if readings is None else _readings(readings)
    begun = False
    with opened(settings) as ledger:
        for profile in wiring.profiles(settings):
            weights, number = profile.weights_sha256, films or ledger_films.REFERENCE_FILMS
            read = agreement.answers(ledger, f"{profile.name} {profile.version}") if named is None else named
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

    settings = load_config(config)
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


@command(name="export-log")
def export_log(
    file: Annotated[Path, typer.Argument(help="File to write; with --verify, to check.", show_default=False)],
    since: Annotated[str | None, typer.Option("--from", help="As --since of `list`: 183d, or a date (UTC).")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Written as --from; a bare date includes that day.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check that no line was changed.")] = False,
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Write the log of a period: who sent what, what was answered by what, where it went, what people changed."""
    from cxr_node import times
    from cxr_node.assurance import log_export

    if verify:
        chain = log_export.verify(file)
    else:
        settings = load_config(config)
        with opened(settings) as ledger:
            now = ledger.now()
            begin = parsed(lambda text: times.moment(text, now), since or "183d", "--from") or now
            end = parsed(lambda text: times.moment(text, now, whole_day=True), until, "--to") or now
            chain = log_export.write(file, log_export.entries(ledger, settings, begin, end))
    if as_json:
        say_json(tables.plain(chain))
    else:
        out.print(f"{chain.lines} lines, sha256 of the last: {chain.sha256}")


@command()
def constancy(
    config: ConfigFile = DEFAULT_CONFIG,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=1, help="Seconds until an answer must be there.")
    ] = 120.0,
    as_json: AsJson = False,
) -> None:
    """Send the phantom through the running node; exit 1 where the answer is late, or not the expected one."""
    from cxr_node.assurance import constancy

    settings = load_config(config)
    with opened(settings) as ledger:
        answers = constancy.check(settings, ledger, wiring.profiles(settings), timeout_s)
    for each in answers:
        if as_json:
            say_json(tables.plain(each))
        else:
            said = f"FAIL {each.fault}" if each.fault else f"as expected: {each.verdict}"
            out.print(f"{each.profile}: {said} ({each.took_s:.1f} s)", markup=False)
    raise typer.Exit(1 if any(each.fault for each in answers) else 0)


@command()
def accept(
    config: ConfigFile = DEFAULT_CONFIG,
    studies: Annotated[int, typer.Option("--studies", min=1, help="The last so many studies.")] = 60,
    readings: Annotated[Path | None, typer.Option("--readings", help="As for `drift`.", show_default=False)] = None,
    file: Annotated[Path, typer.Option("--out", help="The page to sign; it is overwritten.")] = Path("acceptance.pdf"),
    as_json: AsJson = False,
) -> None:
    """Count the last studies on one A4 page (PDF) for a chief radiologist to sign; with --json, print them instead."""
    from cxr_node.assurance import acceptance, acceptance_page
    from cxr_node.errors import DataError

    settings = load_config(config)
    named = None if readings is None else _readings(readings)
    with opened(settings) as ledger:
        told = acceptance.look(ledger, settings, wiring.profiles(settings), studies, named)
    if as_json:
        say_json(tables.plain(told))
        return
    try:
        file.write_bytes(acceptance_page.draw(told))
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}") from error
    wrong = sum(number for kind, number in told.faults.items() if kind not in acceptance.NO_FAULT)
    out.print(f"{file}: {told.studies} studies, {told.images} images, {wrong} technical faults", markup=False)
