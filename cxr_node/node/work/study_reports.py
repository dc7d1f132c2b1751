"""Reporting: lease a ripe study, read what was said of its images, make its report, settle in one transaction.

Knows no DICOM and no network, as `worker`. A report is made of the images' headers and of what was said of them: no
pixel is decoded again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from cxr_node import judgement_text
from cxr_node.config.schema import Config
from cxr_node.domain import Origin, Verdict
from cxr_node.errors import LedgerLostError, ModelError, ResourceError
from cxr_node.node.ledger import studies
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.states import DeadReason, Member, StoredArtifact, StudyJob
from cxr_node.node.ledger.wake import wake
from cxr_node.node.network import pictures
from cxr_node.node.network.pictures import Packing
from cxr_node.node.process.logs import describe
from cxr_node.node.process.notify import Role
from cxr_node.node.retry import PAUSE_S
from cxr_node.node.spool.spool import Area, Spool, SpoolCorruptError
from cxr_node.node.work import report_chain
from cxr_node.node.work.earlier_radiographs import EarlierRadiographs, JudgePrior
from cxr_node.outcome import Artifact, Judgement, NotAnalysed, StudyCase, StudyImage, StudyReport
from cxr_node.result_kinds import ReportPer, ResultKind

log = logging.getLogger(__name__)

RETRY_DELAY_S = 10.0
"""After an unexpected error, times the attempt."""


@dataclass(frozen=True, slots=True)
class StudyReporter:
    """Reports studies, each in the lane that calls it."""

    config: Config
    ledger: Ledger
    spool: Spool
    owner: str
    make: Callable[[StudyCase, Config], StudyReport | None]
    judge_prior: JudgePrior | None = None

    def claim(self) -> StudyJob | None:
        """Lease the study that is to be reported next.

        Raises
        ------
        ResourceError : the ledger cannot be used now, and nothing is leased.
        """
        return studies.claim_study(self.ledger, self.owner, self.config.work.lease_s)

    def finish(self, job: StudyJob) -> None:
        """Make the report of one claimed study.

        Raises
        ------
        ModelError, ResourceError : after the study was given back.
        """
        started = time.monotonic()
        ending = self._end(job)
        level = logging.ERROR if ending.startswith("dead") else logging.INFO
        told = (ending, job.instance_id, len(job.members), job.attempts, ms(started))
        log.log(level, "%s instance=%d images=%d attempt=%d took_ms=%d", *told)

    def _end(self, job: StudyJob) -> str:
        if job.attempts > self.config.work.max_attempts:
            return self._dead(job, DeadReason.FAULT, f"{self.config.work.max_attempts} workers died of it")
        try:
            return self._report(job)
        except SpoolCorruptError as error:
            return self._dead(job, DeadReason.SPOOL_CORRUPT, str(error))
        except (ModelError, ResourceError):
            studies.release_study(self.ledger, job, delay_s=PAUSE_S, count_attempt=False)
            raise
        except LedgerLostError:
            raise
        except Exception as error:
            log.error("failed study images=%d attempt=%d %s", len(job.members), job.attempts, describe(error))
            if job.attempts >= self.config.work.max_attempts:
                return self._dead(job, DeadReason.FAULT, describe(error))
            delay_s = RETRY_DELAY_S * job.attempts
            return settled(studies.release_study(self.ledger, job, delay_s=delay_s), "study released")

    def _dead(self, job: StudyJob, death: DeadReason, detail: str) -> str:
        return settled(studies.settle_study_dead(self.ledger, job, death, detail), f"dead study reason={death}")

    def _report(self, job: StudyJob) -> str:
        images = tuple(self._image(member) for member in job.members if member.judgement and not member.is_listed)
        others = tuple(_not_analysed(member) for member in job.members if member.is_listed or not member.judgement)
        unanswered = () if images else tuple(self._unanswered(job.members))
        radiographs = EarlierRadiographs(self.config, self.ledger, self.spool, self.judge_prior).of(job, images)
        if radiographs is None:
            return settled(False, "judging earlier radiographs")
        job, priors = radiographs
        before = report_chain.earlier(self.spool, job)
        earlier = tuple(each.documents for each in before)
        case = StudyCase(images=images, others=others, earlier_reports=earlier, priors=priors, unanswered=unanswered)
        report = self.make(case, self.config)
        stored = [] if report is None else all_stored(self.spool, report.artifacts, ReportPer.STUDY)
        report_chain.keep(self.spool, job, before, stored)
        verdict = None if report is None else _word(report.verdict, images)
        was_held = studies.settle_study(self.ledger, job, verdict, stored, self.config.wishes)
        wake(self.ledger, self.config.spool.path, Role.DELIVER)
        return settled(was_held, "study with nothing to report" if verdict is None else f"study verdict={verdict}")

    def _unanswered(self, members: Sequence[Member]) -> Iterator[tuple[bytes, Origin]]:
        """Whose patient and study it is; files that are damaged cannot tell."""
        for member in members:
            with suppress(SpoolCorruptError):
                content = self.spool.load(Area.OBJECTS, member.content_sha256)
                self.spool.require_whole(Area.OBJECTS, member.content_sha256, content)
                yield content, member.origin

    def _image(self, member: Member) -> StudyImage:
        content = self.spool.load(Area.OBJECTS, member.content_sha256)
        self.spool.require_whole(Area.OBJECTS, member.content_sha256, content)
        judgement = judgement_text.load_judgement(member.judgement)
        return StudyImage(content=content, origin=member.origin, judgement=judgement, page=self._page(judgement))

    def _page(self, judgement: Judgement) -> bytes:
        """The printed page of an image, where a message is to hold it."""
        is_held = any(ResultKind.PDF in wish.within for wish in self.config.wishes.values())
        if judgement.page_sha256 is None or not is_held:
            return b""
        content = self.spool.load(Area.RESULTS, judgement.page_sha256)
        self.spool.require_whole(Area.RESULTS, judgement.page_sha256, content)
        return content


def _word(verdict: Verdict, images: Sequence[StudyImage]) -> str:
    """The word for programs, which of a positive names its target."""
    return images[0].judgement.finding.target.word(verdict) if images else verdict.value


def _not_analysed(member: Member) -> NotAnalysed:
    if member.judgement:
        return judgement_text.load_not_analysed(member.judgement)
    return NotAnalysed(
        sop_class_uid=member.ref.sop_class_uid,
        sop_instance_uid=member.ref.sop_instance_uid,
        series_instance_uid=member.ref.series_instance_uid,
        series_number=None,
        instance_number=None,
        reason=None,
        sentence="It could not be analysed for a technical fault.",
    )


def all_stored(
    spool: Spool, artifacts: Sequence[Artifact], per: ReportPer, packing: Packing | None = None
) -> list[StoredArtifact]:
    """Store each; the largest at the same time as the others, since the disk serves both.

    Pictures are packed: once, however many destinations get them, and there is less to be synced.
    """
    largest = max(artifacts, key=lambda each: len(each.content), default=None)
    with ThreadPoolExecutor(1, "largest") as thread:
        waiting = None if largest is None else thread.submit(_store, spool, largest, per, packing)
        stored = [None if each is largest else _store(spool, each, per, packing) for each in artifacts]
    return [one if one is not None else waiting.result() for one in stored if waiting is not None]


def _store(spool: Spool, artifact: Artifact, per: ReportPer, packing: Packing | None) -> StoredArtifact:
    alternatives = tuple(_store(spool, alternative, per, packing) for alternative in artifact.alternatives)
    content = artifact.content
    if packing is not None and artifact.sop_class_uid in pictures.PICTURES:
        content = pictures.pack(content, packing)
    file = spool.store_result(content)
    return StoredArtifact(
        kind=artifact.kind,
        sop_class_uid=artifact.sop_class_uid,
        sop_instance_uid=artifact.sop_instance_uid,
        series_instance_uid=artifact.series_instance_uid,
        content_sha256=file.sha256,
        size_bytes=file.size_bytes,
        per=per,
        alternatives=alternatives,
    )


def settled(held: bool, ending: str) -> str:
    """Name an end; where the lease was lost, the other worker's end counts."""
    return ending if held else f"lost-lease after={ending}"


def ms(started: float) -> int:
    """Milliseconds since then, by the monotonic clock."""
    return round(1000 * (time.monotonic() - started))
