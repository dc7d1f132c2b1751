"""Which reports of a study came before the one now made: what the ledger knows, and notes that outlive it.

The first report is made of its images alone. One that names earlier reports could not be made again without knowing
them, so a note beside each of its images says which they were, and of which images they were made.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import TypeAdapter

from cxr_node.domain import ResultRef
from cxr_node.node.ledger.states import MadeReport, StoredArtifact, StudyJob
from cxr_node.node.spool.spool import Area, Spool
from cxr_node.result_kinds import DOCUMENTS

NOTE = "reports of its study"
_CHAIN: TypeAdapter[tuple[MadeReport, ...]] = TypeAdapter(tuple[MadeReport, ...])


def earlier(spool: Spool, job: StudyJob) -> tuple[MadeReport, ...]:
    """Reports that came before the one to be made, the first one first; none of them is made of the very same.

    Where the ledger knows a report, a later one that is only noted was never sent: its worker died.
    """
    noted = max((_noted(spool, member.content_sha256) for member in job.members), key=len, default=())
    known = {each.uids for each in job.reports}
    if known:
        last = max((place for place, each in enumerate(noted, 1) if each.uids in known), default=0)
        noted = noted[:last]
    old = {each.uids for each in noted}
    here = [each for each in noted if all(spool.has(Area.OBJECTS, image) for image in each.images)]
    chain = here + [each for each in job.reports if each.uids not in old]
    while chain and chain[-1].made_of_sha256 == job.made_of_sha256:
        chain.pop()
    return tuple(chain)


def keep(spool: Spool, job: StudyJob, before: Sequence[MadeReport], stored: Sequence[StoredArtifact]) -> None:
    """Note a report that names earlier ones beside its images; before the ledger knows it."""
    choices = [choice for each in stored if each.kind in DOCUMENTS for choice in each.sop_class_choices]
    documents = tuple(_named(choice) for choice in choices)
    if not before or not documents:
        return
    images = tuple(member.content_sha256 for member in job.members)
    made = MadeReport(made_of_sha256=job.made_of_sha256, documents=documents, images=images)
    words = _CHAIN.dump_json((*before, made)).decode()
    for image in images:
        if spool.noted(image, NOTE, Area.OBJECTS) != words:
            spool.note(image, NOTE, words, Area.OBJECTS)


def _noted(spool: Spool, image: str) -> tuple[MadeReport, ...]:
    words = spool.noted(image, NOTE, Area.OBJECTS)
    return _CHAIN.validate_json(words) if words else ()


def _named(stored: StoredArtifact) -> ResultRef:
    return ResultRef(
        kind=stored.kind,
        sop_class_uid=stored.sop_class_uid,
        sop_instance_uid=stored.sop_instance_uid,
        series_instance_uid=stored.series_instance_uid or "",
    )
