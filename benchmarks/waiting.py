"""A worker that waits as long as an image costs, instead of judging it: `cxr-node work` in all else, a process.

What it claims, reads, stores and settles is as always; its results are a few bytes, so that the ledger is the limit.
"""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import replace
from pathlib import Path

from benchmarks import moves
from cxr_node.config import loader
from cxr_node.config.schema import Config
from cxr_node.domain import Origin, Precedent, Verdict, View
from cxr_node.node.process import supervisor
from cxr_node.node.work import worker
from cxr_node.node.work.worker import Analyser
from cxr_node.outcome import Artifact, Judgement, Outcome, Reported, StudyCase, StudyReport
from cxr_node.result_kinds import ResultKind

CONTENT = b"a result"


def analyser(wait_s: float) -> Analyser:
    """It takes its time, and says the same of every image."""

    def process(content: bytes, origin: Origin, config: Config, precedent: Precedent) -> Outcome:
        time.sleep(wait_s)
        number = _number(origin)
        pictures = (_artifact(number, ResultKind.HEATMAP),)
        return Reported(finding=moves.finding(), artifacts=(), pictures=pictures, judgement=_judgement())

    def report(case: StudyCase, _: Config) -> StudyReport | None:
        number = _number(case.images[0].origin)
        made = tuple(_artifact(number, kind) for kind in moves.DOCUMENTS)
        return StudyReport(verdict=Verdict.POSITIVE, artifacts=made)

    return Analyser(process=process, report=report)


def _number(origin: Origin) -> int:
    """Each image was received at a time of its own."""
    return int(origin.received_at.timestamp() * 1_000_000)


def _judgement() -> Judgement:
    return Judgement(
        finding=moves.finding(),
        rows=2500,
        columns=2000,
        pixel_aspect=1.0,
        view=View.PA,
        remarks=(),
        cautions=(),
        pixel_digest="0" * 64,
        header_sha256="0" * 64,
    )


def _artifact(number: int, kind: ResultKind) -> Artifact:
    first, *below = (
        Artifact(
            kind=kind,
            sop_class_uid=sop_class_uid,
            sop_instance_uid=f"2.25.7{choice:03d}{number:030d}",
            series_instance_uid=f"2.25.5{choice:03d}{number:030d}",
            content=CONTENT,
        )
        for sop_class_uid, choice in moves.sop_classes(kind)
    )
    return replace(first, alternatives=tuple(below))


def main(file: str, wait_s: str) -> None:
    """Work until SIGTERM."""
    stop = supervisor.stop_event()
    logging.basicConfig(level=logging.WARNING)
    worker.run(loader.load(Path(file)), lambda: analyser(float(wait_s)), stop)


if __name__ == "__main__":
    main(*sys.argv[1:])
