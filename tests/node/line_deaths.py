"""A worker that is killed when it comes to one line of the code: every line of a few functions, one after the other."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from types import CodeType, FrameType
from typing import Any

from cxr_node.config.schema import Config
from cxr_node.domain import Origin, Precedent, Reason, Verdict
from cxr_node.node.ledger import ripening, studies
from cxr_node.node.ledger.lease_keeper import worker_name
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.process.notify import Role
from cxr_node.node.spool.file_store import FileStore
from cxr_node.node.spool.spool import Spool
from cxr_node.node.work import report_chain, study_reports
from cxr_node.node.work.study_reports import StudyReporter
from cxr_node.node.work.worker import Analyser, Worker
from cxr_node.outcome import Outcome, Rejected, Reported, StudyCase, StudyReport
from cxr_node.result_kinds import ResultKind
from tests.node import ledgers, workplace

JUDGING: tuple[Any, ...] = (Ledger.settle_reported, ripening.expect, ripening._wait)
SETTLING: tuple[Any, ...] = (
    studies._made_reports,
    studies.settle_study,
    studies._told,
    studies._lock_images,
    studies._link,
    studies._pictures,
    studies._make_due,
    studies._reopen,
    report_chain.earlier,
    report_chain.keep,
)
REPORTING: tuple[Any, ...] = (
    studies.claim_study,
    studies.images_of,
    studies._member,
    studies._digest,
    StudyReporter.finish,
    StudyReporter._end,
    StudyReporter._report,
    StudyReporter._image,
    study_reports._not_analysed,
    study_reports.all_stored,
    study_reports._store,
    Spool.store_result,
    Spool._store,
    FileStore.put,
)
Line = tuple[str, int]
"""Function, and number of a line in its file."""


def lines(functions: tuple[Any, ...], run: Callable[[], object]) -> list[Line]:
    """Run, and tell to which lines of the functions it came, each once, in order."""
    seen: dict[Line, None] = {}
    with _tracing(functions, lambda line: seen.setdefault(line)):
        run()
    return list(seen)


def main(config: Config, now: datetime, functions: tuple[str, ...] = (), line: Line = ("", 0)) -> None:
    """Be a worker, and die at that line where there is one."""
    os.fsync = need_not_last
    told = [each for each in JUDGING + REPORTING + SETTLING if each.__qualname__ in functions]
    with (
        closing(opened(config, lambda: now)) as ledger,
        _tracing(tuple(told), lambda found: os.kill(os.getpid(), signal.SIGKILL) if found == line else None),
    ):
        work(config, ledger)


def opened(config: Config, now: Callable[[], datetime]) -> Ledger:
    """The ledger of a configuration, with that clock."""
    return Ledger(Ledger.of_node(config).database, now)


def need_not_last(_: object) -> None:
    """Instead of fsync, which matters where the machine dies too; it is most of the time of these tests."""


def work(config: Config, ledger: Ledger) -> None:
    """Do all that is due, after freeing what a dead worker held."""
    with worker_name(ledger, config.spool.path, Role.WORK) as owner:
        spool = Spool(config.spool.path)
        spool.sweep()
        worker = Worker(config, ledger, spool, owner, Analyser(process=judge, report=report))
        while worker.do_one():
            pass


def judge(content: bytes, origin: Origin, _: Config, __: Precedent) -> Outcome:
    """`radiograph N` has a picture; anything else is listed."""
    word, _, number = content.decode().partition(" ")
    if word != "radiograph":
        listed = workplace.lateral(int(number))
        return Rejected(reason=Reason.NOT_FRONTAL, sentence="It is lateral.", listed=listed)
    kept = workplace.judgement(int(number))
    picture = (workplace.artifact(ResultKind.HEATMAP, int(number)),)
    return Reported(finding=ledgers.finding(), artifacts=(), pictures=picture, judgement=kept)


def report(case: StudyCase, _: Config) -> StudyReport:
    """Two documents, whose UIDs tell of which images, and after how many reports."""
    number = sum(10**image.judgement.rows for image in case.images) + len(case.earlier_reports)
    made = [workplace.artifact(kind, number) for kind in (ResultKind.REPORT, ResultKind.MEASUREMENTS)]
    return StudyReport(verdict=Verdict.POSITIVE, artifacts=tuple(made))


@contextmanager
def _tracing(functions: tuple[Any, ...], come: Callable[[Line], object]) -> Iterator[None]:
    codes: set[CodeType] = {each.__code__ for each in functions}

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code not in codes:
            return None
        if event == "line":
            come((frame.f_code.co_qualname, frame.f_lineno))
        return trace

    before = sys.gettrace()
    threading.settrace(trace)
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)
        threading.settrace(before)  # type: ignore[arg-type]  # None where there was none
