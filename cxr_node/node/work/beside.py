"""A candidate beside the live profile: it answers films that have their answer, while nobody waits for one.

In a thread of its own, one film at a time, and none while an image is in hand or due. Whatever it raises costs that
film a pair in the comparison. Where it ends the process, the film is not tried again, an image that had come meanwhile
is judged again with nothing beside it, and after three such ends the candidate rests.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from cxr_node.errors import LedgerLostError, ModelError, ResourceError
from cxr_node.node.ledger import candidates, promotions
from cxr_node.node.ledger.candidates import CandidateJob, Comparison, NoAnswer
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.process.logs import describe
from cxr_node.node.spool.spool import Area, Spool, SpoolCorruptError
from cxr_node.outcome import Answer, Reported

log = logging.getLogger(__name__)

LOOK_S = 0.1
"""How soon the next film is begun after the one in hand."""
_LOOK_EVERY_S = 1.0
_LEASE_S = 600.0
_WAIT_S = 30.0
_FAULTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A profile that is not live."""

    sha256: str
    """Which one: its weights, version and thresholds."""
    judge: Callable[[bytes], Answer]
    """Called by one thread."""
    promotion: int = 0
    """Number of the last promotion when both were loaded: under another one, another profile is live."""


class ProfileChangedError(ModelError):
    """Another profile was made live: a new process begins with it."""


def comparison(candidate: Candidate | None, reported: Reported) -> Comparison | None:
    """What a candidate is to answer, too; None: there is none."""
    if candidate is None or reported.answer is None:
        return None
    return Comparison(candidate_sha256=candidate.sha256, live=reported.answer)


class Beside:
    """Lets a candidate answer. For the thread that fills the lanes."""

    def __init__(self, ledger: Ledger, spool: Spool, owner: str, candidate: Candidate) -> None:
        self._ledger, self._spool, self._owner, self._candidate = ledger, spool, owner, candidate
        self._thread: threading.Thread | None = None
        self._faults = 0
        self._looked_at = time.monotonic()
        if candidates.kills_workers(ledger, candidate.sha256):
            log.error("candidate rests: the last films that it was given each ended their worker")
            self._faults = _FAULTS

    @property
    def rests(self) -> bool:
        """It failed too often: it is given no film before the next start."""
        return self._faults >= _FAULTS

    def require_live(self) -> None:
        """Whether what answers here is live still; looked up once a second.

        Raises
        ------
        ProfileChangedError : a person made the other one live.
        """
        if time.monotonic() - self._looked_at < _LOOK_EVERY_S:
            return
        self._looked_at = time.monotonic()
        if promotions.last_id(self._ledger) != self._candidate.promotion:
            raise ProfileChangedError("another profile was made live: this worker starts again with it")

    def step(self) -> bool:
        """Begin the next film unless one is in hand, and say whether one is. Only while no image is in hand or due.

        Raises
        ------
        ResourceError : the ledger cannot be used now.
        """
        if self._thread is not None and self._thread.is_alive():
            return True
        if self.rests:
            return False
        job = candidates.claim(self._ledger, self._candidate.sha256, self._owner, _LEASE_S)
        if job is None:
            return False
        self._thread = threading.Thread(target=self._answer, args=(job,), name="candidate", daemon=True)
        self._thread.start()
        return True

    def join(self) -> None:
        """Wait until nothing is in hand, but not for one that hangs."""
        if self._thread is not None:
            self._thread.join(_WAIT_S)

    def _answer(self, job: CandidateJob) -> None:
        started = time.monotonic()
        try:
            said = self._said(job)
        except (ResourceError, LedgerLostError) as error:  # the lease runs out, and the film is left out
            log.error("candidate instance=%d %s", job.instance_id, error)
            return
        log.info("candidate %s instance=%d took_ms=%d", said, job.instance_id, 1000 * (time.monotonic() - started))

    def _said(self, job: CandidateJob) -> str:
        if job.claim.attempts > 1:
            return self._failed(job, NoAnswer.WORKER_DIED)
        if job.is_purged:
            return self._failed(job, NoAnswer.NO_BYTES)
        try:
            content = self._spool.load(Area.OBJECTS, job.content_sha256)
            self._spool.require_whole(Area.OBJECTS, job.content_sha256, content)
            answer = self._candidate.judge(content)
        except SpoolCorruptError:
            return self._failed(job, NoAnswer.NO_BYTES)
        except (LedgerLostError, ResourceError):
            raise
        except Exception as error:  # around one film
            self._faults += 1
            log.error("candidate failed instance=%d %s", job.instance_id, describe(error))
            if self.rests:
                log.error("candidate rests after %d faults in a row, until this worker starts again", _FAULTS)
            return self._failed(job, NoAnswer.FAULT)
        self._faults = 0
        candidates.settle(self._ledger, job, answer)
        return f"verdict={answer.verdict}"

    def _failed(self, job: CandidateJob, why: NoAnswer) -> str:
        candidates.fail(self._ledger, job, why)
        return f"no answer reason={why}"
