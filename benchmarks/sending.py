"""Many objects over several associations at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.images import Numbered
from benchmarks.peers import Peer
from benchmarks.wire import Sent


def flood(
    peer: Peer, instances: Sequence[Numbered], associations: int, sent: Callable[[], object] = lambda: None
) -> list[Sent]:
    """Send all, each association one after the other, as modalities do; `sent` is called after each answer."""

    def send(part: Sequence[Numbered]) -> list[Sent]:
        told = []
        with peer.sender() as association:
            for instance in part:
                told.append(association.store(instance))
                sent()
        return told

    with ThreadPoolExecutor(associations) as pool:
        parts = [instances[start::associations] for start in range(associations)]
        return [one for part in pool.map(send, parts) for one in part]


def took_s(told: Sequence[Sent]) -> float:
    """From the first byte of the first to the last answer."""
    return (max(one.answered_ns for one in told) - min(one.begun_ns for one in told)) / 1e9
