"""One predictor for several threads: what they ask for while it is busy is examined together.

Knows no network. Nobody waits for company: who finds the predictor free is examined at once, and what has gathered
meanwhile goes next, up to `batch` of them in one call. One radiograph's failure is its own.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

from cxr_node.domain import Examination, Radiograph
from cxr_node.model.profile import Profile


class Examiner(Protocol):
    """What is shared; `predictor.ProfilePredictor` is one. For one thread at a time."""

    @property
    def profile(self) -> Profile:
        """Whose weights these are."""
        ...

    @property
    def batch(self) -> int:
        """How many radiographs at once pay."""
        ...

    def examine_all(self, radiographs: Sequence[Radiograph]) -> list[Examination]:
        """Predict and explain radiographs in one call; no one's answer depends on the others."""
        ...


class BatchingPredictor:
    """An examiner that threads may share; `pipeline.Predictor`."""

    def __init__(self, examiner: Examiner) -> None:
        self._examiner = examiner
        self._waiting: deque[tuple[Radiograph, Future[Examination]]] = deque()
        self._turn = threading.Lock()

    @property
    def profile(self) -> Profile:
        """The examiner's."""
        return self._examiner.profile

    @property
    def batch(self) -> int:
        """How many threads at once pay."""
        return self._examiner.batch

    def examine(self, radiograph: Radiograph) -> Examination:
        """Predict and explain one radiograph, perhaps together with those of other threads."""
        answer: Future[Examination] = Future()
        self._waiting.append((radiograph, answer))
        with self._turn:  # whoever had it before may have answered for this one too
            while not answer.done():
                self._examine([self._waiting.popleft() for _ in range(min(self.batch, len(self._waiting)))])
        return answer.result()

    def _examine(self, some: Sequence[tuple[Radiograph, Future[Examination]]]) -> None:
        try:
            examinations = self._examiner.examine_all([radiograph for radiograph, _ in some])
        except Exception as error:
            if len(some) > 1:  # whose fault is it? each one's alone
                for one in some:
                    self._examine([one])
            else:
                some[0][1].set_exception(error)
            return
        for (_, answer), examination in zip(some, examinations, strict=True):
            answer.set_result(examination)
