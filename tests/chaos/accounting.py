"""What became of everything that the node answered for: one object, and one line, for every scenario.

Counted from outside: what the senders were told, what the destinations wrote down, and the bytes on the node's disk.
The ledger is only asked which state an instance is in.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from cxr_node.config.destinations import STANDARD_KINDS
from cxr_node.dicom.pixels.compress import Press
from cxr_node.node.ledger import queries
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.queries import InstanceRow
from cxr_node.node.ledger.states import SETTLED, InstanceState
from cxr_node.node.network import file_meta, pictures
from cxr_node.result_kinds import ResultKind
from tests.chaos.archive import Kept
from tests.node import peers
from tests.node.wire import data_set_of

KIND = {sop_class: kind for kind, sop_class in peers.SOP_CLASS.items() if kind is not ResultKind.NOT_ANALYSED}
KIND |= dict.fromkeys(peers.MEASUREMENT_CLASSES, ResultKind.MEASUREMENTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One SOP Instance as a sender has it; each is alone in its study, so that its results can be told apart."""

    sop_instance_uid: str
    study_instance_uid: str
    sha256: str
    """Of the encoded data set, without the File Meta Information, which the node writes anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounting:
    """SOP Instances that were sent; `acknowledged` = delivered + rejected + dead + lost."""

    acknowledged: int
    """Different instances answered with 0x0000."""
    delivered: int
    rejected: int
    dead: int
    lost: int
    """Acknowledged, and not in the ledger, not settled, or DELIVERED without all results at every destination."""
    doubled: int
    """Instances with two rows, and results that a destination has under two UIDs or with two contents."""
    truncated: int
    """Files of the spool, and objects at the destinations, that are not whole; unfinished files left behind."""

    @property
    def is_clean(self) -> bool:
        """Nothing lost, nothing doubled, nothing truncated, and the sum is right."""
        ends = self.delivered + self.rejected + self.dead + self.lost
        return not (self.lost or self.doubled or self.truncated) and ends == self.acknowledged

    def __str__(self) -> str:
        return " ".join(f"{name}={getattr(self, name)}" for name in self.__slots__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a node at rest knows and has."""

    rows: Sequence[InstanceRow]
    files: Iterable[tuple[str, bytes]]
    """Objects and results: the digest that names each, and its bytes."""
    unfinished: int
    """Files that nobody writes any more."""


def held(spool: Path) -> Held:
    """Look into the folder of a node on one machine."""
    ledger = Ledger.open(spool)
    try:
        rows = queries.recent(ledger, 2**31)
    finally:
        ledger.close()
    return Held(rows=rows, files=_files(spool), unfinished=len(list((spool / "incoming").iterdir())))


def _files(spool: Path) -> Iterator[tuple[str, bytes]]:
    for area in ("objects", "results"):
        for file in (spool / area).glob("*/*.dcm"):  # notes have other names
            yield file.stem, file.read_bytes()


def settle(
    spool: Path,
    sources: Mapping[str, Source],
    acknowledged: Iterable[str],
    archives: Sequence[Iterable[Kept]],
    forgets: bool = False,
) -> Accounting:
    """As `draw_up`, of a node on one machine with its spool in that folder."""
    return draw_up(held(spool), sources, acknowledged, archives, forgets)


def draw_up(
    node: Held,
    sources: Mapping[str, Source],
    acknowledged: Iterable[str],
    archives: Sequence[Iterable[Kept]],
    forgets: bool = False,
) -> Accounting:
    """Draw up the account of a node at rest.

    Parameters
    ----------
    node : what it knows and has
    sources : what was sent, by SOP Instance UID
    acknowledged : SOP Instance UIDs that were answered with 0x0000
    archives : what each destination that must have everything has kept
    forgets : the ledger deletes rows (`spool.history_days`): what it does not know must be at every destination
    """
    by_uid = defaultdict(list)
    for row in node.rows:
        by_uid[row.sop_instance_uid].append(row)
    kept = [list(archive) for archive in archives]
    finished = [complete(archive) for archive in kept]
    delivered = set.intersection(*finished)
    ends: Counter[InstanceState | None] = Counter()
    for uid in set(acknowledged):
        states = {row.state for row in by_uid.get(uid, [])}
        if forgets and not states:
            states = {InstanceState.DELIVERED}
        ends[_end(states, sources[uid].study_instance_uid in delivered)] += 1
    return Accounting(
        acknowledged=ends.total(),
        delivered=ends[InstanceState.DELIVERED],
        rejected=ends[InstanceState.REJECTED],
        dead=ends[InstanceState.DEAD],
        lost=ends[None],
        doubled=sum(len(same) > 1 for same in by_uid.values()) + _doubled(kept),
        truncated=truncated(node, sources, [] if forgets else kept),
    )


def _end(states: set[InstanceState], at_every_destination: bool) -> InstanceState | None:
    """Where an instance came to its end; None where it did not, or where a destination lacks what it should have."""
    if not states or not states <= set(SETTLED):
        return None
    end = min(states)
    return None if end is InstanceState.DELIVERED and not at_every_destination else end


def complete(kept: Sequence[Kept]) -> set[str]:
    """Studies of which a destination has every kind of result."""
    kinds = defaultdict(set)
    for one in kept:
        kinds[one.study_instance_uid].add(KIND[one.sop_class_uid])
    return {study for study, found in kinds.items() if found >= set(STANDARD_KINDS)}


def _doubled(archives: Sequence[Sequence[Kept]]) -> int:
    """The same bytes under the same UID are one instance, however often they come (a reply may be lost)."""
    contents = defaultdict(set)
    doubled = 0
    for kept in archives:
        uids = defaultdict(set)
        for one in kept:
            uids[one.study_instance_uid, KIND[one.sop_class_uid]].add(one.sop_instance_uid)
            contents[one.sop_instance_uid].add(one.sha256)
        doubled += sum(len(names) > 1 for names in uids.values())
    return doubled + sum(len(digests) > 1 for digests in contents.values())


def truncated(node: Held, sources: Mapping[str, Source], archives: Sequence[Sequence[Kept]]) -> int:
    """Compare every byte: file against name, object against what was sent, destination against result."""
    bad = node.unfinished
    stored: dict[str, str] = {}
    uncompressed: set[str] = set()
    with closing(Press()) as press:
        for digest, content in node.files:
            if hashlib.sha256(content).hexdigest() != digest:
                bad += 1
                continue
            is_object = content[128:132] == b"DICM"  # else a message, of which every byte counts
            stored[digest] = hashlib.sha256(data_set_of(content) if is_object else content).hexdigest()
            if is_object and file_meta.halves(content)[0].sop_class_uid in pictures.PICTURES:
                uncompressed.add(hashlib.sha256(data_set_of(pictures.unpack(content, press))).hexdigest())
    for row in node.rows:
        source = sources.get(row.sop_instance_uid)
        bad += source is not None and row.purged_at is None and stored.get(row.content_sha256) != source.sha256
    if any(row.purged_at for row in node.rows):
        return bad  # retention has taken results that destinations still have
    whole = {*stored.values(), *uncompressed}
    return bad + sum(one.sha256 not in whole for kept in archives for one in kept)
