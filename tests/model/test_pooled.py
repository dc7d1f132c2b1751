"""The numbers that are kept of a film: few, the same everywhere, and as far apart as the features were."""

from __future__ import annotations

import hashlib

import numpy as np

from cxr_node.model import pooled


def unpacked(signature: np.ndarray) -> np.ndarray:
    return np.frombuffer(pooled.packed(signature.astype(np.float32)), "<f2").astype(float)


def test_they_are_128_bytes_whatever_the_network_has() -> None:
    for channels in (3, 64, 65, 320, 1024):
        assert len(pooled.packed(np.ones(channels, np.float32))) == 128
    assert unpacked(np.array([1.0, 2.0, 3.0]))[:4].tolist() == [1.0, 2.0, 3.0, 0.0]


def test_the_projection_is_pinned() -> None:
    """Another one would make every reference void."""
    digest = hashlib.sha256(pooled.signs(320).astype(np.int8).tobytes()).hexdigest()
    assert digest == "efab311f5f688d912836ef3e87e65a871e64d6969fdc6f35e07f912803e2a082"
    assert abs(pooled.signs(320).mean()) < 0.02


def test_distances_between_films_are_kept() -> None:
    rng = np.random.default_rng(0)
    films = rng.standard_normal((40, 320))
    before = np.linalg.norm(films[:20] - films[20:], axis=1)
    few = np.stack([unpacked(film) for film in films])
    after = np.linalg.norm(few[:20] - few[20:], axis=1)
    assert np.abs(after / before - 1.0).mean() < 0.12


def test_a_number_that_float16_cannot_hold_is_cut() -> None:
    assert np.isfinite(unpacked(np.array([1e9, -1e9]))).all()
