"""Several threads, one predictor: together where they wait, alone where one fails."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import pytest

from cxr_node.domain import Examination, Radiograph, View
from cxr_node.errors import ModelError
from cxr_node.model.predictor import BatchingPredictor
from cxr_node.model.profile import Profile


def radiograph(number: int) -> Radiograph:
    pixels = np.zeros((2, 2), np.float32)
    return Radiograph(pixels=pixels, pixel_aspect=1.0, view=View.PA, pixel_digest=str(number))


class Counting:
    """Answers with the digest; the first call waits until it is let go. `bad` digests fail every call they are in."""

    def __init__(self, batch: int, bad: str = "") -> None:
        self.batch, self.bad = batch, bad
        self.calls: list[list[str]] = []
        self.begun, self.go = threading.Event(), threading.Event()
        self._busy = threading.Lock()
        self.profile = cast(Profile, None)

    def examine_all(self, radiographs: Sequence[Radiograph]) -> list[Examination]:
        assert self._busy.acquire(blocking=False), "two threads at once"
        try:
            asked = [each.pixel_digest for each in radiographs]
            self.calls.append(asked)
            self.begun.set()
            assert self.go.wait(10)
            if self.bad in asked:
                raise ModelError(f"no number in {self.bad}")
            return cast(list[Any], asked)
        finally:
            self._busy.release()


def examined(examiner: Counting, count: int) -> list[Any]:
    """Ask for one, and for the others while it is being examined."""
    shared = BatchingPredictor(examiner)
    with ThreadPoolExecutor(count) as pool:
        first = pool.submit(shared.examine, radiograph(0))
        assert examiner.begun.wait(10)
        others = [pool.submit(shared.examine, radiograph(number)) for number in range(1, count)]
        while len(shared._waiting) < count - 1:
            threading.Event().wait(0.001)
        examiner.go.set()
        return [each.exception(10) or each.result() for each in (first, *others)]


def test_what_waits_is_examined_together_and_each_gets_its_own_answer() -> None:
    examiner = Counting(batch=4)
    assert examined(examiner, 8) == [str(number) for number in range(8)]
    assert [len(call) for call in examiner.calls] == [1, 4, 3]


def test_where_no_batch_pays_each_goes_alone() -> None:
    examiner = Counting(batch=1)
    assert examined(examiner, 4) == ["0", "1", "2", "3"]
    assert [len(call) for call in examiner.calls] == [1] * 4


def test_one_that_fails_fails_alone() -> None:
    answers = examined(Counting(batch=8, bad="2"), 5)
    assert [str(answer) for answer in answers] == ["0", "1", "no number in 2", "3", "4"]
    assert isinstance(answers[2], ModelError)


def test_who_comes_alone_waits_for_nobody() -> None:
    examiner = Counting(batch=16)
    examiner.go.set()
    assert cast(Any, BatchingPredictor(examiner).examine(radiograph(7))) == "7"
    with pytest.raises(ModelError):
        BatchingPredictor(failing()).examine(radiograph(1))


def failing() -> Counting:
    examiner = Counting(batch=2, bad="1")
    examiner.go.set()
    return examiner
