"""`cxr-node agreement` and `export-cases`: what radiologists said, beside what the node said; registered by `cli`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from cxr_node.cli import tables
from cxr_node.cli.app import DEFAULT_CONFIG, AsJson, ConfigFile, command, err, load_config, out, say_json
from cxr_node.cli.ledger import member, moment_since, opened, parsed
from cxr_node.errors import ConfigError, DataError, ResourceError

if TYPE_CHECKING:
    from cxr_node.assurance.agreement import Case, Figures, Imported
    from cxr_node.assurance.report import Readers
    from cxr_node.assurance.word_check import Confusion
    from cxr_node.config.schema import Config

WORDS = "A site's own phrases for reading reports (YAML); they are added to the shipped ones."
MOST_DISCORDANT = 50
"""Studies that a terminal shows; --json has all."""


@command()
def agreement(
    more: Annotated[list[Path] | None, typer.Argument(help="Further files or folders of reports.")] = None,
    reports: Annotated[
        list[Path] | None,
        typer.Option("--reports", help="Reports to read first: CSV, HL7 ORU^R01, DICOM SR or FHIR; files or folders."),
    ] = None,
    since: Annotated[str, typer.Option(help="Studies received since: 12h, 7d, or a date and time.")] = "90d",
    by: Annotated[str, typer.Option(help="Whose word counts: reports, or what was said on the page.")] = "reports",
    words: Annotated[Path | None, typer.Option("--words", help=WORDS)] = None,
    check_rules: Annotated[
        Path | None,
        typer.Option("--check-rules", help="Only score the rules on labelled texts: CSV with label and text."),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen", help="Take ORU^R01 over MLLP at HOST:PORT until stopped; loopback, else by listen.tls."
        ),
    ] = None,
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Compare the node's answers with radiologists' reports: every figure with its number and exact interval."""
    from cxr_node.assurance import agreement as measured
    from cxr_node.assurance.report import Readers
    from cxr_node.assurance.report_rules import Reader, words_of

    readers = Readers(Reader(words_of(words)))
    if check_rules is not None:
        _show_confusion(check_rules, readers, as_json)
        return
    whose = parsed(lambda word: member(measured.By, word), by, "--by") or measured.By.REPORTS
    settings, files = load_config(config), [*(reports or ()), *(more or ())]
    if listen is not None:
        _listen(settings, listen, readers)
        return
    with opened(settings) as ledger:
        imported = _imported(ledger, settings, files, readers) if files else None
        begin = moment_since(since, ledger.now())
        found = measured.cases(ledger, begin, by=whose)
    groups = {name: measured.grouped(found, name) for name in measured.GROUPS}
    total, apart = measured.figures(found), measured.discordant(found)
    if as_json:
        say_json(_plain(imported, readers, total, groups, apart) | {"since": begin.isoformat(), "by": whose})
        return
    if imported is not None:
        _show_imported(imported, readers)
    _show(total, groups, apart, by=whose)


def _listen(settings: Config, address: str, readers: Readers) -> None:
    """Take reports until SIGTERM or SIGINT."""
    import asyncio
    import signal

    from pydantic import ValidationError

    from cxr_node.assurance.mllp_listener import Listener, is_loopback
    from cxr_node.config.network import Endpoint
    from cxr_node.node.network.tls import server_tls
    from cxr_node.node.process import logs

    try:
        there = Endpoint.model_validate(address)
    except ValidationError as error:
        raise DataError(f"--listen {address}: is not HOST:PORT") from error
    secure = None if settings.listen.tls is None else server_tls(settings.listen.tls)
    if not is_loopback(there.host) and secure is None:
        raise ConfigError("--listen: beyond this machine reports come over TLS alone: configure listen.tls")
    logs.configure(form=settings.log.format, role="agreement")

    async def until_told() -> None:
        told = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        await told.wait()

    async def serve(listener: Listener) -> None:
        tls = None if is_loopback(there.host) else secure
        await listener.serve(
            there.host, there.port, tls, lambda port: out.print(f"listening on port {port}"), until_told
        )

    with opened(settings) as ledger:
        try:
            asyncio.run(serve(Listener(ledger, readers)))
        except OSError as error:
            raise ResourceError(f"{there}: cannot be listened on: {error.strerror}") from error


def _imported(ledger: Any, settings: Any, files: list[Path], readers: Readers) -> Imported:
    from cxr_node.assurance import agreement as measured
    from cxr_node.assurance import reports
    from cxr_node.node.audit import recorder

    with recorder.by_operator(settings, "agreement", recorder.account()) as record:
        done = measured.keep(ledger, reports.read(files, readers))
        record(f"{done.reports} reports are read; {done.reports - done.unmatched} are about studies of this node")
    return done


def _plain(
    imported: Imported | None, readers: Readers, total: Figures, groups: Any, apart: list[Case]
) -> dict[str, Any]:
    read = None
    if imported is not None:
        skipped = {"not_final": readers.skipped.not_final, "own": readers.skipped.own}
        read = imported.as_json() | {"left_out": skipped}
    return {
        "imported": read,
        "all": total.as_json(),
        "groups": {name: {key: one.as_json() for key, one in of.items()} for name, of in groups.items()},
        "discordant": [{"images": case.numbers, "verdict": case.verdict.name, "said": case.said} for case in apart],
    }


def _show_imported(done: Imported, readers: Readers) -> None:
    from cxr_node.node.ledger.readings import Kept

    said = ", ".join(f"{number} {word}" for word, number in sorted(done.said.items())) or "none"
    out.print(f"{done.reports} reports read: {done.unmatched} matched no study of this node; of the others: {said}")
    words = {Kept.NEW: "new", Kept.SUPERSEDES: "in place of an earlier one", Kept.SAME: "known", Kept.OLDER: "outdated"}
    out.print("kept: " + ", ".join(f"{done.kept[kind]} {word}" for kind, word in words.items()))
    if left := readers.skipped.not_final + readers.skipped.own:
        out.print(f"{left} left out: {readers.skipped.not_final} not final, {readers.skipped.own} of this node")


def _show(total: Figures, groups: Any, apart: list[Case], by: str) -> None:
    from cxr_node.assurance.agreement import SHARES

    if not total.studies:
        raise DataError("nobody's word of a study of this period is known: give --reports, or an earlier --since")
    table = Table(title=f"{total.studies} studies with a word of {by}", title_justify="left")
    table.add_column("figure")
    table.add_column("value (exact 95 % interval), number")
    for name, words in SHARES.items():
        table.add_row(words, str(getattr(total, name)))
    table.add_row("not stated", str(total.not_stated))
    table.add_row("not analysed", str(total.not_analysed))
    out.print(table)
    for name, of in groups.items():
        out.print(_group_table(name, of))
    for case in apart[:MOST_DISCORDANT]:
        images = ", ".join(f"#{number}" for number in case.numbers)
        out.print(f"discordant: {images}: {case.verdict.name} here, {case.said} there", markup=False)
    if len(apart) > MOST_DISCORDANT:
        out.print(f"and {len(apart) - MOST_DISCORDANT} more (--json)")


def _group_table(name: str, of: dict[str, Figures]) -> Table:
    table = Table(title=f"by {name}", title_justify="left")
    for heading in (name, "studies", "PPV", "NPV", "sensitivity", "specificity", "abstained"):
        table.add_column(heading)
    for key, one in of.items():
        shares = (one.ppv, one.npv, one.sensitivity, one.specificity, one.abstained)
        table.add_row(key, str(one.studies), *map(str, shares))
    return table


def _show_confusion(path: Path, readers: Readers, as_json: bool) -> None:
    from cxr_node.assurance import word_check
    from cxr_node.assurance.report_rules import Said

    found = word_check.check(path, readers.rules)
    if as_json:
        counts = {label.value: {read.value: found.counts.get((label, read), 0) for read in Said} for label in Said}
        say_json({"confusion": counts, "right": found.right.as_json(), "wrong_rows": found.wrong_rows})
        return
    out.print(_confusion_table(found))
    out.print(f"read as labelled: {found.right}")
    if found.wrong_rows:
        out.print(f"rows read otherwise: {', '.join(map(str, found.wrong_rows))}")


def _confusion_table(found: Confusion) -> Table:
    from cxr_node.assurance.report_rules import Said

    table = Table("labelled", *(f"read {said}" for said in Said), title="reports", title_justify="left")
    for label in Said:
        table.add_row(label, *(str(found.counts.get((label, read), 0)) for read in Said))
    table.add_row("right of those", *(str(found.of_read(read)) for read in Said))
    return table


@command(name="export-cases")
def export_cases(
    out_dir: Annotated[Path, typer.Option("--out", help="Folder to write; must be empty or not there.")],
    discordant: Annotated[bool, typer.Option("--discordant", help="Studies whose answer is not the reader's.")] = False,
    uncertain: Annotated[bool, typer.Option("--uncertain", help="Studies that were answered UNCERTAIN.")] = False,
    since: Annotated[str, typer.Option(help="Studies received since: 12h, 7d, or a date and time.")] = "90d",
    by: Annotated[str, typer.Option(help="Whose word counts: reports, or what was said on the page.")] = "reports",
    positive: Annotated[str, typer.Option(help="The recipe's word for what is present.")] = "PNEUMONIA",
    negative: Annotated[str, typer.Option(help="The recipe's word for what is absent.")] = "NORMAL",
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Write images to learn from, without their patients, as a folder that `train` reads; look at each before use."""
    from cxr_node.assurance import export_cases as room
    from cxr_node.assurance.agreement import By
    from cxr_node.node.audit import recorder
    from cxr_node.node.spool.opening import open_spool

    if not (discordant or uncertain):
        raise DataError("say which: --discordant, --uncertain or both")
    whose = parsed(lambda word: member(By, word), by, "--by") or By.REPORTS
    settings = load_config(config)
    with opened(settings) as ledger:
        begin = moment_since(since, ledger.now())
        found = room.chosen(ledger, begin, apart=discordant, unsure=uncertain, by=whose)
        if not found:
            raise DataError("there is no such study in this period")
        labels = room.Labels(positive=positive, negative=negative)
        with recorder.by_operator(settings, "export-cases", recorder.account()) as record:
            done = room.write(found, open_spool(settings.spool), out_dir, labels)
            record(f"{done.images} images are written to a folder, without their patients' identity")
    if as_json:
        say_json(tables.plain(done))
        return
    out.print(f"{done.cases} cases: {done.images} images written to {out_dir}, {done.labelled} of them labelled")
    for why, number in done.left_out.items():
        out.print(f"{number} images left out: {why}")
    err.print("The pixels were not cleaned: look at every image before it leaves the house (READ_FIRST.txt)")
