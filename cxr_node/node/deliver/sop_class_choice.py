"""Which rung of a result goes to a destination, known to the ledger before its first byte leaves.

Knows no association and no schedule: `destinations` asks which of the rungs that are taken shall go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from cxr_node.errors import DeliveryError
from cxr_node.node.deliver.loop import Home
from cxr_node.node.deliver.storage_scu import Parcel
from cxr_node.node.ledger.states import DeliveryJob, StoredArtifact
from cxr_node.node.spool.spool import Area, Spool


class Ladder:
    """The rungs of one delivery: one of them goes, and the ledger knows which before its first byte leaves.

    What was chosen once stays chosen while the destination takes it, whatever else it takes by now: after an
    answer that was lost, another rung would be a second object in the archive.
    """

    def __init__(self, home: Home, job: DeliveryJob, begins: Callable[[str], None] = lambda sop_class: None) -> None:
        self.parcels = tuple(_parcel(home.spool, stored) for stored in job.artifact.rungs)
        self._home = home
        self._job = job
        self._rung = job.rung or self._noted()
        self._begins = begins

    def choose(self, taken: Sequence[Parcel]) -> Parcel:
        """Name the rung that goes, of those that the destination takes; every byte of it was checked."""
        known = self.parcels[self._rung]
        parcel = known if known in taken else taken[0]
        rung = self.parcels.index(parcel)
        content = self._home.spool.read(Area.RESULTS, self._job.artifact.rungs[rung].content_sha256)
        if rung != self._job.rung:
            self._home.spool.note(self._job.artifact.content_sha256, self._job.destination, str(rung))
            if not self._home.ledger.choose(self._job, rung):
                raise DeliveryError("another process took this delivery over", permanent=False)
        self._rung = rung
        self._begins(parcel.sop_class_uid)
        return replace(parcel, content=content)

    def _noted(self) -> int:
        """What was chosen before the ledger was lost (`rebuild`); 0 where nothing was."""
        if not self._job.artifact.alternatives:
            return 0
        rung = self._home.spool.noted(self._job.artifact.content_sha256, self._job.destination)
        return int(rung) if rung.isdecimal() and int(rung) < len(self.parcels) else 0


def _parcel(spool: Spool, stored: StoredArtifact) -> Parcel:
    path = spool.locate(Area.RESULTS, stored.content_sha256)
    return Parcel(path=path, sop_class_uid=stored.sop_class_uid, size_bytes=stored.size_bytes)
