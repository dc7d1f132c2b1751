"""What an answer was made from, in the words in which its objects must say it."""

from __future__ import annotations

from dataclasses import dataclass

from cxr_node.dicom.results import copied_attributes
from cxr_node.dicom.results.context import PRODUCT, Context
from cxr_node.dicom.verify.plain import Triple, plain, text
from cxr_node.result_kinds import SHAPES, ResultKind


@dataclass(frozen=True, slots=True)
class Facts:
    """One answer."""

    context: Context
    product: str = PRODUCT

    @property
    def series_numbers(self) -> dict[ResultKind, int]:
        """Of all kinds that are made."""
        return {kind: SHAPES[kind].series_number for kind in self.context.kinds}

    @property
    def source(self) -> tuple[str, str]:
        """SOP Class and SOP Instance UID of the radiograph."""
        return self.context.source.ref.sop_class_uid, self.context.source.ref.sop_instance_uid

    @property
    def picture(self) -> tuple[str, str]:
        """SOP Class and SOP Instance UID of the picture."""
        return SHAPES[ResultKind.HEATMAP].sop_class_uid, self.context.instance_uid(ResultKind.HEATMAP)

    @property
    def modality(self) -> Triple:
        """TID 1602: what the library must say of the source."""
        is_computed = self.context.source.modality == "CR"
        return ("CR", "DCM", "Computed Radiography") if is_computed else ("DX", "DCM", "Digital Radiography")

    @property
    def procedure(self) -> Triple | None:
        """Coded procedure of the source; None where it has none."""
        carried = copied_attributes.procedure_code(self.context.source.dataset)
        if carried is None:
            return None
        item = plain(carried)
        return text(item, "CodeValue"), text(item, "CodingSchemeDesignator"), text(item, "CodeMeaning")
