"""Images that are examined side by side, each on one core: the same numbers as one after the other on all."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest

from cxr_node import resources
from cxr_node.model import graph_file, profile
from cxr_node.model.openvino_runtime import OpenVINORuntime
from cxr_node.model.profile import Profile
from cxr_node.model.runtime import Company, Floats, NetworkOutput
from tests.patience import wait_until


@pytest.fixture(scope="module")
def shipped_profile() -> Profile:
    return profile.load(resources.profile_folder("pneumonia-pediatric"))


@pytest.fixture(scope="module")
def shown(shipped_profile: Profile) -> Floats:
    return graph_file.trial(shipped_profile.input, few=True)[0]


@pytest.fixture
def two() -> Iterator[Company]:
    """Two images in hand."""
    company = Company()
    with ExitStack() as images:
        for _ in range(2):
            images.enter_context(company)
        yield company


def same(one: NetworkOutput, other: NetworkOutput) -> bool:
    names = ("logits", "activation", "signature", "strangeness")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


def beside(runtime: OpenVINORuntime, shown: Floats) -> int:
    """Ask once with company; how many requests of one core there are then."""
    runtime.infer(shown[:1])
    wait_until(lambda: runtime._beside._free, "the network is compiled once more", 60)
    return len(runtime._beside._free)


def test_company_gives_the_same_numbers_side_by_side(shipped_profile: Profile, shown: Floats, two: Company) -> None:
    alone = OpenVINORuntime(shipped_profile, 2).infer(shown)
    runtime = OpenVINORuntime(shipped_profile, 2, two)
    assert beside(runtime, shown) == 2
    runtime._request = None  # nobody may use it any more
    with ThreadPoolExecutor(2) as lanes:
        found = list(lanes.map(runtime.infer, [shown] * 6))
    assert all(same(alone, each) for each in found)
    assert len(runtime._beside._free) == 2


def test_more_images_than_cores_have_a_turn_each(shipped_profile: Profile, shown: Floats, two: Company) -> None:
    runtime = OpenVINORuntime(shipped_profile, 2, two)
    beside(runtime, shown)
    with ThreadPoolExecutor(5) as lanes:
        found = list(lanes.map(runtime.infer, [shown[:1]] * 10))
    assert all(same(found[0], each) for each in found)


def test_who_is_alone_has_all_cores(shipped_profile: Profile, shown: Floats) -> None:
    company = Company()
    runtime = OpenVINORuntime(shipped_profile, 2, company)
    with company:
        runtime.infer(shown[:1])
        with company:
            assert not company.is_alone
        assert company.is_alone
    assert not runtime._beside._maker.locked()


def test_other_numbers_are_never_used(
    shipped_profile: Profile, shown: Floats, two: Company, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = OpenVINORuntime(shipped_profile, 2, two)
    first = runtime._answer
    asked: list[object] = []

    def elsewhere(request: object, some: Floats) -> NetworkOutput:
        asked.append(request)
        return first(request, some + np.float32(request is not runtime._request) * np.float32(1e-3))

    runtime._answer = elsewhere  # type: ignore[method-assign]
    with caplog.at_level(logging.INFO):
        runtime.infer(shown[:1])
        wait_until(lambda: "one after the other" in caplog.text, "the two are compared", 60)
    assert any(request is not runtime._request for request in asked)
    assert runtime._beside.take() is None
    assert same(runtime.infer(shown[:1]), OpenVINORuntime(shipped_profile, 2).infer(shown[:1]))
