"""Weights survive the file, and a file that does not fit is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cxr_node.errors import ModelError
from cxr_node.model import weights
from cxr_node.model.networks import Network, build
from cxr_node.model.ood_distance import fit
from cxr_node.model.profile import NetworkSpec

SPEC = NetworkSpec(architecture="mobilenet-v2")


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(1)
    return build(SPEC, 1)


@pytest.fixture
def path(network: Network, tmp_path: Path) -> Path:
    stats = fit(np.random.default_rng(1).random((20, 8), dtype=np.float32), np.arange(20) % 2)
    weights.save(tmp_path / "weights.safetensors", network, stats)
    return tmp_path / "weights.safetensors"


def test_round_trip_in_fp32(network: Network, path: Path) -> None:
    loaded, stats = weights.load(path, SPEC, 1)
    for (name, value), other in zip(network.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert other.dtype == value.dtype, name
        torch.testing.assert_close(other, value, atol=1e-3, rtol=1e-3)
    assert stats["mean"].shape == (2, 8)
    assert not loaded.training


def test_another_user_may_read_it(path: Path) -> None:
    assert path.stat().st_mode & 0o444 == 0o444


def test_other_number_of_labels_is_refused(path: Path) -> None:
    with pytest.raises(ModelError, match="does not fit network 'mobilenet-v2'"):
        weights.load(path, SPEC, 2)


def test_missing_and_broken_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken").write_bytes(b"\x00" * 64)
    for name in ("missing", "broken"):
        with pytest.raises(ModelError, match=f"{name} cannot be read"):
            weights.load(tmp_path / name, SPEC, 1)
