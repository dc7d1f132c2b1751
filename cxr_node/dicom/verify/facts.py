"""What a set of results says, as one answer: the words and numbers that every object of it must use.

Taken from the context that made it here, recovered from the objects in `verify_recover`. Judges nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cxr_node.dicom.own_identity import IMPLEMENTATION_CLASS_UID, PROCESSING_EQUIPMENT, PRODUCT
from cxr_node.dicom.read.header import Source
from cxr_node.dicom.results import context as result
from cxr_node.dicom.results import copied_attributes
from cxr_node.dicom.verify.plain import Parsed, Plain, Triple, code, items, plain, text
from cxr_node.dicom.verify.tree import Item
from cxr_node.domain import Finding, Point, Radiograph, ResultKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One result object under the name it is blamed by; `kind` is None for kinds that are not checked in full."""

    name: str
    kind: ResultKind | None
    parsed: Parsed
    root: Item
    """Content tree of an SR, with nothing in it for other objects."""

    @property
    def dataset(self) -> Plain:
        """Header and content."""
        return self.parsed.dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One answer, in all the words that the results of it must use. None: not known, anything may stand there."""

    finding: Finding
    radiograph: Radiograph
    shows_map: bool
    refers_to_map: bool
    series_numbers: Mapping[ResultKind, int]
    product: str
    manufacturer: str
    model_name: str
    algorithm_version: str
    serial_number: str
    device_uid: str
    source: tuple[str, str]
    """SOP Class and SOP Instance UID."""
    picture: tuple[str, str] | None
    knows_source: bool
    size_px: tuple[int, int] | None
    """Rows and columns of the source."""
    modality: Triple | None
    procedure: Triple | None
    has_region: bool
    """Whether the measurements have one to draw: a positive where something stands out."""
    outlines: tuple[tuple[Point, ...], ...] | None
    """Of the regions, in order; empty where none is claimed."""
    groups: int
    """How many groups the measurements have: one for each region, and one where none is claimed."""
    places: tuple[str, ...] | None
    """In words, where each region lies; "" where that is not known."""
    looked: str
    """The same of all, in a sentence; "" where that is not known."""
    tracking_uids: tuple[str, ...] | None
    """By group."""
    moment: str
    """Contribution DateTime, with its offset."""
    offset: str | None
    """Timezone Offset From UTC, "" where there is to be none; None: not known whether."""
    is_exact: bool
    """From the context, not recovered: no rounding stands between a fact and what is written."""


def of_context(context: result.Context) -> Facts:
    """Take what the objects were made from."""
    rows, columns = context.radiograph.pixels.shape
    shape = result.SHAPES[ResultKind.HEATMAP].sop_class_uid
    made = ResultKind.HEATMAP in context.kinds
    return Facts(
        finding=context.finding,
        radiograph=context.radiograph,
        shows_map=context.shows_map,
        refers_to_map=context.refers_to_map,
        series_numbers={kind: result.SHAPES[kind].series_number for kind in context.kinds},
        product=result.PRODUCT,
        manufacturer=context.manufacturer,
        model_name=context.model_name,
        algorithm_version=context.algorithm_version,
        serial_number=context.serial_number,
        device_uid=context.device_uid,
        source=(context.source.ref.sop_class_uid, context.source.ref.sop_instance_uid),
        picture=(shape, context.instance_uid(ResultKind.HEATMAP)) if made else None,
        knows_source=True,
        size_px=(rows, columns),
        modality=modality(context.source),
        procedure=procedure(context.source),
        has_region=bool(context.regions),
        outlines=tuple(region.outline for region in context.regions),
        groups=(groups := max(len(context.regions), 1)),
        places=context.places,
        looked=context.looked,
        tracking_uids=tuple(context.tracking_uid(number) for number in range(1, groups + 1)),
        moment=context.moment.strftime("%Y%m%d%H%M%S.%f%z"),
        offset=context.clock.offset or "",
        is_exact=True,
    )


def modality(source: Source) -> Triple:
    """TID 1602: what the library must say of the source."""
    is_computed = source.modality == "CR"
    return ("CR", "DCM", "Computed Radiography") if is_computed else ("DX", "DCM", "Digital Radiography")


def procedure(source: Source) -> Triple | None:
    """Coded procedure of the source; None where it has none."""
    carried = copied_attributes.procedure_code(source.dataset)
    if carried is None:
        return None
    item = plain(carried)
    return text(item, "CodeValue"), text(item, "CodingSchemeDesignator"), text(item, "CodeMeaning")


def equipment(dataset: Plain) -> Plain:
    """Our item of Contributing Equipment; where it is missing, the equipment module says nearly the same."""
    for item in items(dataset, "ContributingEquipmentSequence"):
        if code(item, "PurposeOfReferenceCodeSequence")[0] == PROCESSING_EQUIPMENT:
            return item
    return {**dataset, "SoftwareVersions": software(dataset)[1]}


def software(dataset: Plain) -> tuple[str, str]:
    """Program and algorithm, as Software Versions names them."""
    first, _, second = text(dataset, "SoftwareVersions").partition("\\")
    return first, second


def is_ours(parsed: Parsed) -> bool:
    """Tell our results from all other objects; archives keep one of these marks or the other."""
    named = (text(parsed.meta, "ImplementationClassUID"), text(parsed.dataset, "InstanceCreatorUID"))
    return IMPLEMENTATION_CLASS_UID in named or text(equipment(parsed.dataset), "ManufacturerModelName").startswith(
        PRODUCT
    )
