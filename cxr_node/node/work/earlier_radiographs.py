"""Earlier radiographs for the report of a study: each is judged once, by a profile that judged the study.

What was said of one is in the ledger before a report says it, so a later report of the study says the same. One that
cannot be judged is left out: no study is without a report for what an archive sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cxr_node import judgement_text
from cxr_node.config.schema import Config
from cxr_node.domain import ModelIdentity, Origin
from cxr_node.errors import CxrNodeError, InstanceError
from cxr_node.node.ledger import studies
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.prior_orders import NONE, NOTE, PriorOutcome
from cxr_node.node.ledger.states import DeadReason, Prior, StudyJob
from cxr_node.node.spool.spool import Area, Spool, SpoolCorruptError
from cxr_node.outcome import Judgement, Rejected, StudyImage

JudgePrior = Callable[[bytes, bytes, Config], Judgement | Rejected]
"""Judges an earlier radiograph: its file, and that of an image of the study."""
OTHER_PROFILE = "other-profile"
_NO_SENDER = "PRIORS"  # nobody sent it, and no result says where it came from


class LeftOutError(CxrNodeError):
    """An earlier radiograph that no report is to mention, and why."""

    def __init__(self, reason: str, sentence: str) -> None:
        self.outcome = PriorOutcome(reason=reason, sentence=sentence)
        super().__init__(sentence)


@dataclass(frozen=True, slots=True)
class EarlierRadiographs:
    """What reports say of earlier radiographs."""

    config: Config
    ledger: Ledger
    spool: Spool
    judge: JudgePrior | None
    """None: nothing."""

    def of(self, job: StudyJob, images: Sequence[StudyImage]) -> tuple[StudyJob, tuple[StudyImage, ...]] | None:
        """Judge those that were not judged; the job as it is then, with what its report says. None: the lease was lost.

        Raises
        ------
        ModelError, ResourceError : nothing was remembered; the next try judges them.
        """
        if self.judge is None or not images or job.priors is None:
            return job, ()
        told: list[StudyImage] = []
        answers: dict[int, PriorOutcome] = {}
        for prior in job.priors:
            try:
                image, text = self._image(self.judge, prior, job, images)
            except LeftOutError as error:
                answers[prior.prior_id] = error.outcome
                continue
            told.append(image)
            if text != prior.judgement:
                answers[prior.prior_id] = PriorOutcome(judgement=text)
        settled = studies.settle_priors(self.ledger, job, answers) if answers else job
        if settled is None:
            return None
        self._note(settled)
        return settled, tuple(told)

    def _note(self, job: StudyJob) -> None:
        words = " ".join(each.content_sha256 for each in job.priors or ()) or NONE
        analysed = [each.content_sha256 for each in job.members if each.judgement and not each.is_listed]
        for image in analysed:
            if self.spool.noted(image, NOTE, Area.OBJECTS) != words:
                self.spool.note(image, NOTE, words, Area.OBJECTS)

    def _image(
        self, judge: JudgePrior, prior: Prior, job: StudyJob, images: Sequence[StudyImage]
    ) -> tuple[StudyImage, str]:
        try:
            content = self.spool.read(Area.PRIORS, prior.content_sha256)
        except SpoolCorruptError as error:
            raise LeftOutError(DeadReason.SPOOL_CORRUPT, str(error)) from error
        profiles = {image.judgement.finding.identity for image in images}
        text = prior.judgement
        if text is None or judgement_text.load_judgement(text).finding.identity not in profiles:
            if job.attempts >= max(2, self.config.work.max_attempts):  # it may be what the others died of
                raise LeftOutError(DeadReason.FAULT, f"not judged: {job.attempts - 1} tries of its study failed")
            text = self._judged(judge, content, images[0].content, profiles)
        origin = Origin(calling_ae_title=_NO_SENDER, peer_host="", received_at=prior.fetched_at)
        return StudyImage(content=content, origin=origin, judgement=judgement_text.load_judgement(text)), text

    def _judged(self, judge: JudgePrior, content: bytes, current: bytes, profiles: set[ModelIdentity]) -> str:
        try:
            judged = judge(content, current, self.config)
        except InstanceError as error:
            raise LeftOutError(DeadReason.FAULT, str(error)) from error
        if isinstance(judged, Rejected):
            raise LeftOutError(judged.reason, judged.sentence)
        if judged.finding.identity not in profiles:
            raise LeftOutError(OTHER_PROFILE, "Another profile answers for the patient's age at that time.")
        return judgement_text.dump(judged)
