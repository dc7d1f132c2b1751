"""The mark on an image that somebody should look at: Key Object Selection, for a positive only.

A key object is read as "look here", so there is none for a negative, and none where the algorithm abstains. The images
have no purpose of reference: TID 2010 gives them none, and validators call one an error.

Clauses: PS3.3 A.35.4 Key Object Selection Document IOD, C.17.6; PS3.16 TID 2010, TID 1002, TID 1004, CID 7010.
"""

from __future__ import annotations

from pydicom import Dataset
from pydicom.sr.codedict import codes

from cxr_node.dicom.results import sr_items
from cxr_node.dicom.results.basic_text_sr import ENGLISH, observer
from cxr_node.dicom.results.context import SHAPES, Context, finish, start_document
from cxr_node.dicom.results.sr_items import Relation
from cxr_node.dicom.words import wording
from cxr_node.domain import Artifact, ResultKind, Verdict

TITLE = codes.DCM.OfInterest


def build(context: Context) -> Artifact | None:
    """Mark the radiograph, and its picture where there is one; None unless the verdict is positive."""
    if context.finding.decision.verdict is not Verdict.POSITIVE:
        return None
    return finish(context, ResultKind.KEY_OBJECT, start_document(context, ResultKind.KEY_OBJECT, _content(context)))


def _content(context: Context) -> Dataset:
    ref = context.source.ref
    children = [
        sr_items.code(Relation.HAS_CONCEPT_MOD, codes.DCM.LanguageOfContentItemAndDescendants, ENGLISH),
        *observer(context),
        sr_items.text(Relation.CONTAINS, codes.DCM.KeyObjectDescription, wording.summary(context.finding)),
        sr_items.image(Relation.CONTAINS, None, ref.sop_class_uid, ref.sop_instance_uid),
    ]
    if ResultKind.HEATMAP in context.kinds:
        picture = SHAPES[ResultKind.HEATMAP].sop_class_uid, context.instance_uid(ResultKind.HEATMAP)
        children.append(sr_items.image(Relation.CONTAINS, None, *picture))
    return sr_items.root(TITLE, "2010", children)
