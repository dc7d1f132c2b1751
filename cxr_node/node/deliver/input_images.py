"""Fetches the images of a work item from an archive, by C-GET, into the same door as what is sent to the node.

Knows no DICOM: `priors` retrieves, and the door is handed in: the header check, the spool, the ledger and the audit of
the process that receives.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cxr_node.config.destinations import DicomDestination
from cxr_node.config.worklists import Worklist
from cxr_node.domain import Priority
from cxr_node.errors import InstanceError
from cxr_node.node.deliver.loop import DeliveryContext
from cxr_node.node.ledger.work_items import InputImage, WorkItem
from cxr_node.node.priors.query import NotFetched, Ref
from cxr_node.node.priors.retrieve import Fetched, Order, PriorScu
from cxr_node.node.spool.disk import MIB

log = logging.getLogger(__name__)

_LONGEST_S = 60.0

Keep = Callable[[Fetched, DicomDestination, Priority], None]
"""Checks an object and makes it durable, in spool and ledger; its file is no longer the caller's where it returns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputTools:
    """What fetching needs of other rooms."""

    door: Callable[[DeliveryContext], Keep]
    transfer_syntaxes: Sequence[str]
    """That can be decoded, the preferred first."""


class InputImages:
    """Fetches images for the items of one worklist. For one thread."""

    def __init__(self, context: DeliveryContext, tools: InputTools) -> None:
        self._context = context
        self._tools = tools
        self._keep = tools.door(context)
        self._sources = {each.name: each for each in context.config.destinations if isinstance(each, DicomDestination)}

    def are_sought(self, item: WorkItem, worklist: Worklist) -> bool:
        """Whether there is an archive to ask; else they are awaited."""
        return any(self._source(each, worklist) is not None for each in item.images)

    def fetch(self, item: WorkItem, worklist: Worklist, missing: Sequence[InputImage]) -> str:
        """Fetch what is missing; why not all of it came, without anything of a patient.

        Raises
        ------
        ResourceError : the ledger or the spool cannot be used now.
        """
        if not self._context.spool.has_room():
            return "the disk is below its watermark"
        why: list[str] = []
        for source in self._sources.values():
            refs = [_ref(each) for each in missing if self._source(each, worklist) is source]
            if askable := [ref for ref in refs if ref.series_instance_uid]:
                why += self._from(source, askable, item.priority)
            if len(askable) < len(refs):  # a C-GET of an instance needs it (PS3.4 C.4.3.1.3)
                why.append("the item does not name the series of its images")
        if any(self._source(each, worklist) is None for each in missing):
            why.append("images that no configured archive has are awaited")
        return "; ".join(dict.fromkeys(why))

    def _source(self, image: InputImage, worklist: Worklist) -> DicomDestination | None:
        if worklist.retrieve_from is not None:
            return self._sources.get(worklist.retrieve_from)
        named = (each for each in self._sources.values() if each.ae_title == image.retrieve_ae_title)
        return next(named, None) if image.retrieve_ae_title else None

    def _from(self, source: DicomDestination, refs: Sequence[Ref], priority: Priority) -> list[str]:
        config = self._context.config
        order = Order(
            studies=1,
            years=1,
            max_object_bytes=config.listen.max_object_mib * MIB,
            ends_at=time.monotonic() + _LONGEST_S,
        )
        scu = PriorScu(source, config.listen.ae_title, self._tools.transfer_syntaxes, self._context.refusals)
        found = scu.retrieve(refs, order, self._context.spool.begin)
        why = []
        try:
            for each in found:
                if isinstance(each, NotFetched):
                    why.append(each.sentence)
                    continue
                try:
                    self._keep(each, source, priority)
                except InstanceError as error:
                    why.append(f"{source.name} sent an image that cannot be kept: {error}")
        finally:
            for each in found:
                if isinstance(each, Fetched):
                    each.part.discard()
        return why


def _ref(image: InputImage) -> Ref:
    return Ref(
        study_instance_uid=image.study_instance_uid,
        series_instance_uid=image.series_instance_uid,
        sop_instance_uid=image.sop_instance_uid,
        sop_class_uid=image.sop_class_uid,
        study_date="",
    )
