"""How a study that is reported as one looks in a terminal: what it waits for, its reports, where each went.

Decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group
from rich.table import Table
from rich.text import Text

from cxr_node.cli import ledger_tables, tables
from cxr_node.cli.ledger_tables import Targets, when
from cxr_node.domain import Target
from cxr_node.node.ledger.queries import Story
from cxr_node.node.ledger.states import StudyState
from cxr_node.node.ledger.study_stories import MadeOf, ReportRow, StudyRow
from cxr_node.result_kinds import called


def study(told: StudyRow, stories: Iterable[Story], targets: Targets) -> Group:
    """One study from its first image to its last report; the stories of its images come after it."""
    profiles = ((story.instance.profile or "").rpartition(" ")[0] for story in stories)  # name and version
    target = next((targets[name] for name in profiles if name in targets), None)
    head = Table(show_header=False, box=None)
    for name, value in _head(told, target):
        head.add_row(name, Text(value, overflow="fold"))
    ways = ledger_tables.deliveries(
        (f"report {report.number}: {ledger_tables.kind(one)}", one)
        for report in told.reports
        for document in report.documents
        for one in document.deliveries
    )
    return Group(head, *ways, Text())


def _head(told: StudyRow, target: Target | None) -> Iterable[tuple[str, str]]:
    yield "Study Instance UID", told.study_instance_uid
    yield "state of the study", told.state.value
    if told.waits_since is not None:
        yield "waits since", f"{when(told.waits_since)} UTC"
    if told.why is not None:
        yield ("waits" if told.waits_since is not None else "to do"), told.why
    if told.waits_since is not None or not told.reports:
        yield "images so far", made_of(told.so_far)
    if told.state is StudyState.REPORTED and not told.reports:
        yield "report", "none: it has no chest radiograph that was looked at"
    for report in told.reports:
        yield f"report {report.number}", f"{tables.verdict(report.verdict, target)}, {_of_report(report)}"


def made_of(images: MadeOf) -> str:
    """How many images of each kind."""
    said = [f"{images.analysed} analysed"]
    said += [f"{images.listed} listed"] if images.listed else []
    said += [f"{images.failed} failed"] if images.failed else []
    return ", ".join(said)


def _of_report(report: ReportRow) -> str:
    said = f"made {when(report.reported_at)} UTC of {made_of(report.made_of)}"
    if report.replaces:
        said += f"; replaces report {', '.join(map(str, report.replaces))}"
    if report.replaced_by is not None:
        said += f"; replaced by report {report.replaced_by}"
    return "\n".join((said, *(f"{called(each.kind)} {each.sop_instance_uid}" for each in report.documents)))
