"""Peers that are slow, silent or many cost themselves: a legal one stores and echoes meanwhile (T1, T2, T3).

Short: 60 slow, 60 silent and a flood at once. Long: 200 slow, 200 silent, a flood; from one host, and from hundreds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests import builders
from tests.chaos.conftest import Report
from tests.chaos.crowd import GARBAGE, LEGAL_HOST, SILENT, SLOW_BEFORE, SLOW_INSIDE, Crowd, Flood, LegalPeer, Manner
from tests.chaos.roles import Peak, Role, Usage, eventually, is_back
from tests.node import wire

DEADLINE_S = 5.0
"""For a handshake, an A-ASSOCIATE-RQ and a short PDU (node/transport.py, node/listener.py)."""
SLACK_S = 2.0
RSS_SLACK_MIB = 20.0
"""Stacks and arenas that the C library keeps for the next time."""

CROWD = [SILENT, SLOW_BEFORE, SLOW_INSIDE, GARBAGE]


def radiographs(first: int = 1) -> Iterator[tuple[str, bytes]]:
    """SOP Instance UIDs and encoded data sets of small radiographs, without end; only the UIDs differ."""
    stored = builders.chest(rows=144, columns=128)
    template = wire.data_set_of(builders.part10(builders.radiograph(0, stored, SOPInstanceUID="1.2.3.40000000")))
    for number in range(10000000 + first, 40000000):
        uid = f"1.2.3.{number}"
        yield uid, template.replace(b"1.2.3.40000000", uid.encode())


def hosts(number: int, spread: bool) -> list[str]:
    """Addresses of a crowd: all the same, or all different."""
    return [f"127.0.{1 + index // 250}.{1 + index % 250}" if spread else "127.0.0.1" for index in range(number)]


def warmed_up(node: Role) -> Usage:
    """What a receiver holds that has been used: a few associations, one of them after the other."""
    with LegalPeer(node.port, radiographs(9_000_000)) as legal:
        assert eventually(lambda: len(legal.stored) >= 5, 20) is not None
    threads = node.usage().threads
    eventually(lambda: node.usage().threads < threads, 1.0)
    return node.usage()


@pytest.mark.parametrize(
    ("each", "spread", "flooded"),
    [
        (30, True, True),
        pytest.param(100, False, False, marks=pytest.mark.chaos),
        pytest.param(100, True, False, marks=pytest.mark.chaos),
        pytest.param(100, True, True, marks=pytest.mark.chaos),
    ],
)
def test_a_crowd_keeps_nobody_else_out(tmp_path: Path, report: Report, each: int, spread: bool, flooded: bool) -> None:
    known = [{"ae_title": "LEGAL", "hosts": [LEGAL_HOST]}]  # else hundreds of hosts may have associations as well
    with Role(tmp_path, "receive", listen={"peers": known if spread else []}) as node:
        base = warmed_up(node)
        manners: list[Manner] = [manner for manner in CROWD for _ in range(each)]
        peers = list(zip(manners, hosts(len(manners), spread), strict=True))
        with Peak(node.pid) as peak, LegalPeer(node.port, radiographs()) as legal, Crowd(node.port, peers) as crowd:
            last_came, flood = time.monotonic(), Flood(node.port, "127.0.0.3")
            with flood if flooded else nullcontext():
                gone_s = eventually(lambda: crowd.left() == 0, 60)
            last_came = time.monotonic() if flooded else last_came
            assert eventually(lambda: len(legal.stored) >= 20, 30) is not None
            legal.end()
            due_s = max(SLACK_S, last_came + DEADLINE_S + SLACK_S - time.monotonic())
            back_s = eventually(lambda: is_back(node.usage(), base), 30)
            after = node.usage()
            report(
                f"peers={len(peers)} of {[manner.name for manner in CROWD]} hosts={len({host for _, host in peers})}",
                flood=flood.opened,
                legal=f"'{legal.fared}'",
                longest_borne_s=round(crowd.longest_s(), 1),
                base=f"'{base}'",
                peak=f"'{peak}'",
                after=f"'{after}'",
                back_s=back_s and round(back_s, 1),
            )
        assert legal.fared.failures == []
        assert legal.fared.p95_s() < 1.0
        assert gone_s is not None
        assert crowd.longest_s() <= DEADLINE_S + SLACK_S
        assert back_s is not None and back_s <= due_s
        assert after.rss_mib <= base.rss_mib + RSS_SLACK_MIB
        assert node.parts() == []
