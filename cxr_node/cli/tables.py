"""Tables, lines and bars for the terminal. Decides nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cxr_node.diagnose import thresholds
from cxr_node.dicom.words import names
from cxr_node.dicom.words.rounding import beside
from cxr_node.domain import PNEUMONIA, Target, Verdict

if TYPE_CHECKING:
    from cxr_node.demo import ImageRow, StudyRow
    from cxr_node.diagnose.thresholds import CheckResult
    from cxr_node.tools.classify import Answer
    from cxr_node.tools.classify_study import StudyAnswer
    from cxr_node.tools.send import Sent

Item = TypeVar("Item")

STYLES = {Verdict.POSITIVE: "bold", Verdict.NEGATIVE: "", Verdict.INDETERMINATE: "cyan", Verdict.REJECTED: "yellow"}
"""Never color alone: the symbol and the word say it first."""


def progress(items: Iterable[Item], total: int, what: str, *, quiet: bool = False) -> Iterator[Item]:
    """Pass items on, with a progress bar if stderr is a terminal."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )  # services need none

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        yield from bar.track(items, total=total, description=what)


def verdict(word: str | None, target: Target | None) -> Text:
    """Show the symbol and the name of a verdict, given its word for programs; "-" where there is none yet."""
    return Text("-") if word is None else Text(names.verdict(word, target), STYLES[Verdict.of_word(word)])


def stated(probability: float | None, abstain_reason: str | None, verdict: str | None = None) -> str:
    """The certainty beside a verdict; "-" where none may stand there without its thresholds (`rounding.beside`)."""
    return (beside(verdict, probability) if abstain_reason is None else None) or "-"


def demo_table(rows: Sequence[StudyRow]) -> Table:
    """Study, verdict, certainty, turnaround, objects; below a study of several images what is said of each."""
    table = Table(title="what came back: reports, measurements, heat maps", title_justify="left")
    table.add_column("study")
    table.add_column("verdict")
    for heading in ("certainty", "turnaround", "objects delivered"):
        table.add_column(heading, justify="right")
    for row in rows:
        took = "-" if row.turnaround_ms is None else f"{row.turnaround_ms:.0f} ms"
        count = str(len(row.objects))
        if len(row.images) == 1:
            table.add_row(row.name, _said(row.images[0]), row.images[0].certainty or "-", took, count)
            continue
        table.add_row(row.name, verdict((row.target or PNEUMONIA).word(row.verdict), row.target), "", took, count)
        for number, image in enumerate(row.images, 1):
            table.add_row(f"  image {number}: {image.name}", _said(image), image.certainty or "-", "", "")
    return table


def _said(image: ImageRow) -> Text:
    said = Text(image.state) if image.verdict is None else verdict(image.verdict, image.target)
    if image.reason:
        said.append(f" ({names.reason(image.reason)})")
    return said


def classify_table(answers: Sequence[Answer]) -> Table:
    """Path, verdict, certainty, reason."""
    table = Table(caption=_scope(answers), caption_justify="left")
    for heading in ("file", "verdict", "certainty", "reason"):
        table.add_column(heading, overflow="fold")
    for answer in answers:
        table.add_row(str(answer.path), verdict(answer.word, answer.target), answer.stated or "-", _why(answer))
    return table


def study_table(answers: Sequence[StudyAnswer]) -> Table:
    """Study, verdict, and below each other its images: what is said of each, or why it was not analysed."""
    images = [image for answer in answers for image in answer.images]
    table = Table(caption=_scope(images), caption_justify="left")
    for heading in ("study", "verdict", "images"):
        table.add_column(heading, overflow="fold")
    for answer in answers:
        said = verdict(answer.word, answer.target)
        table.add_row(answer.study_instance_uid or "-", said, Text("\n".join(map(_image_line, answer.images))))
    return table


def _image_line(image: Answer) -> str:
    if image.target is None:
        return f"{image.path}: not analysed - {_why(image)}"
    more = [word for word in (image.stated and f"certainty {image.stated}", _why(image)) if word]
    return ", ".join([f"{image.path}: {names.verdict(image.word, image.target)}", *more])


def _why(answer: Answer) -> str:
    return " - ".join(word for word in (names.reason(answer.reason), answer.sentence) if word)


def _scope(answers: Sequence[Answer]) -> str:
    findings = dict.fromkeys(one.target.finding for one in answers if one.target is not None)
    concerns = f" The verdict concerns {' or '.join(findings)} only." if findings else ""
    return f"Research use only.{concerns}"


def check_line(result: CheckResult) -> Text:
    """ok, warn or FAIL, what was looked at, what was seen."""
    good = Text("warn ", "yellow") if result.warning else Text("ok   ", "green")
    mark = good if result.ok else Text("FAIL ", "bold red")
    return mark + Text(f"{result.subject}: {result.figure}")


def doctor_table(results: Sequence[CheckResult]) -> Table:
    """Verdict, what was measured, its figure, and below it what to do."""
    styles = {
        thresholds.Verdict.WELL: "green",
        thresholds.Verdict.CHANGE: "yellow",
        thresholds.Verdict.STOP: "bold red",
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    for result in results:
        figure = Text(result.figure)
        if result.advice:
            figure.append(f"\ndo this: {result.advice}", styles[result.verdict])
        table.add_row(Text(result.verdict, styles[result.verdict]), result.subject, figure)
    return table


def doctor_line(results: Sequence[CheckResult]) -> Text:
    """Summary in one sentence."""
    stops, changes = (
        sum(result.verdict is wanted for result in results)
        for wanted in (thresholds.Verdict.STOP, thresholds.Verdict.CHANGE)
    )
    rest = f"{changes} could be better" if changes else "nothing is to be changed"
    if stops:
        return Text(f"This machine cannot hold the node yet: {stops} to put right first, {rest}.", "bold red")
    return Text(f"This machine can hold the node; {rest}.", "green")


def sending(paths: Sequence[Path], store: Callable[[Sequence[Path], Callable[[Sent], None]], None]) -> int:
    """Store files with a progress bar, report each failure; returns how many failed."""
    from rich.progress import Progress

    console = Console(stderr=True, highlight=False)
    failures = 0
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("sending", total=len(paths))

        def arrived(sent: Sent) -> None:
            nonlocal failures
            bar.advance(task)
            if not sent.ok:
                failures += 1
                console.print(f"{sent.path}: {sent.sentence}", style="yellow", markup=False)

        store(paths, arrived)
    console.print(f"{len(paths) - failures} of {len(paths)} stored")
    return failures


def figures(measured: Mapping[str, Any]) -> Table:
    """Name, value and interval of each figure that an evaluation returns."""
    table = Table("figure", "value", "95 % interval")
    for name, value in _flat(measured):
        if isinstance(value, Mapping):
            table.add_row(name, f"{value['value']:.4f}", f"{value['low']:.4f} to {value['high']:.4f}")
        else:
            table.add_row(name, f"{value:.4f}" if isinstance(value, float) else str(value), "")
    return table


def plain(value: Any) -> Any:
    """Dataclasses and times as what JSON can say."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value


def _flat(measured: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in measured.items():
        if isinstance(value, Mapping) and not {"value", "low", "high"} <= set(value):
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value
