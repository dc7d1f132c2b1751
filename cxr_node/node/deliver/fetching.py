"""The threads of *deliver* that fetch images: of earlier studies, and of work items."""

from __future__ import annotations

from dataclasses import dataclass

from cxr_node.config.destinations import DicomDestination
from cxr_node.config.worklists import AnyWorklist
from cxr_node.node.deliver.input_images import InputImages, InputTools
from cxr_node.node.deliver.loop import DeliveryContext, ServiceLoop
from cxr_node.node.deliver.prior_loop import PriorLoop, PriorTools
from cxr_node.node.deliver.worklist_loop import WorklistLoop, manager_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetching:
    """What fetching images needs of other rooms; None: none are fetched."""

    priors: PriorTools | None = None
    inputs: InputTools | None = None

    def loops(self, context: DeliveryContext) -> list[ServiceLoop]:
        """What is configured, each a thread."""
        worklists = [_worklist_loop(context, each, self.inputs) for each in context.config.worklists]
        return [*_prior_loops(context, self.priors), *worklists]


NOTHING_FETCHED = Fetching()


def _prior_loops(context: DeliveryContext, tools: PriorTools | None) -> list[ServiceLoop]:
    configured = context.config.priors
    if configured is None or tools is None:
        return []
    return [
        PriorLoop(context, configured, source, tools)
        for source in context.config.destinations
        if source.name == configured.source and isinstance(source, DicomDestination)
    ]


def _worklist_loop(context: DeliveryContext, worklist: AnyWorklist, tools: InputTools | None) -> WorklistLoop:
    manager = manager_of(worklist, context.config.listen.ae_title, context.refusals)
    return WorklistLoop(context, worklist, manager, None if tools is None else InputImages(context, tools))
