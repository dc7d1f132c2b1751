"""Peers that are slow, silent or many cost themselves: a legal one stores and echoes meanwhile (T1, T2, T3).

Short: 60 slow, 60 silent and a flood at once. Long: 200 slow, 200 silent, a flood; from one host, and from hundreds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests import builders
from tests.chaos.conftest import Report
from tests.chaos.crowd import GARBAGE, LEGAL_HOST, SILENT, SLOW_BEFORE, SLOW_INSIDE, Crowd, Flood, LegalPeer, Manner
from tests.chaos.roles import Peak, Role, Usage, is_back
from tests.node import wire
from tests.patience import PATIENCE_S, eventually

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
        assert eventually(lambda: len(legal.stored) >= 5, PATIENCE_S)
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
            flood = Flood(node.port, "127.0.0.3")
            with flood if flooded else nullcontext():
                gone = eventually(lambda: crowd.left() == 0, PATIENCE_S)
            meanwhile = len(legal.stored)
            assert eventually(lambda: len(legal.stored) >= 20, PATIENCE_S)
            legal.end()
            back = eventually(lambda: is_back(node.usage(), base), PATIENCE_S)
            after = node.usage()
            report(
                f"peers={len(peers)} of {[manner.name for manner in CROWD]} hosts={len({host for _, host in peers})}",
                flood=flood.opened,
                legal=f"'{legal.fared}'",
                longest_borne_s=round(crowd.longest_s(), 1),
                base=f"'{base}'",
                peak=f"'{peak}'",
                after=f"'{after}'",
            )
        assert legal.fared.failures == []
        assert meanwhile > 0, "nobody was served before the last of the crowd was gone"
        assert legal.fared.median_s() < crowd.longest_s(), "requests wait for the deadlines of others"
        assert gone, "somebody is borne with no deadline: by drops he would go on for minutes"
        assert back
        assert after.rss_mib <= base.rss_mib + RSS_SLACK_MIB
        assert node.parts() == []
