"""The note about a radiograph that was not analysed: a Basic Text SR of one line, where a site asks for it.

A REJECTED film looks like one that nobody sent; the note says that no answer was given and why, and nothing of the
patient. Only for single radiographs, and where there is no doubt whose. The admission rules are the algorithm that
signs. PS3.3 A.35.1; PS3.16 TID 2000, CID 7001, TID 1204, TID 1002.
"""

from __future__ import annotations

import numpy as np
from pydicom import Dataset

from cxr_node import __version__, domain, times
from cxr_node.config.schema import Results
from cxr_node.dicom.read import admission
from cxr_node.dicom.read.header import Source
from cxr_node.dicom.results import sr_items
from cxr_node.dicom.results.basic_text_sr import ENGLISH, TITLE, observer
from cxr_node.dicom.results.context import Context, finish
from cxr_node.dicom.results.sr_items import Relation
from cxr_node.dicom.results.study import about, start_report
from cxr_node.dicom.words import codes, wording
from cxr_node.domain import Decision, Finding, Origin, Precedent, Prediction, Radiograph, Reason
from cxr_node.outcome import Artifact, Rejected
from cxr_node.result_kinds import ReportPer, ResultKind

REASONS = frozenset({
    Reason.NOT_CHEST, Reason.NOT_FRONTAL, Reason.TOO_SMALL, Reason.TOO_LARGE, Reason.AGE_OUTSIDE_POPULATION,
    Reason.NO_PIXELS, Reason.UNREADABLE_PIXELS, Reason.IMPLAUSIBLE_PIXELS,
})  # fmt: skip
"""What a single radiograph of a known patient may be refused for. The others: no radiograph, our own result, a picture
made from another one, a header that cannot be read, or a patient in doubt."""
LOOKED_AT = REASONS - {Reason.NOT_CHEST, Reason.AGE_OUTSIDE_POPULATION}
"""What a chest radiograph may be refused for that the node might have answered."""
RULES = "admission rules"
_NOTHING = np.empty((0, 0), np.float32)
_NO_POINT = domain.OperatingPoint(
    name="none", label="none", report_at=1.0, rule_out_below=0.0, max_spread=1.0, max_distance=None
)


def because(rejected: Rejected) -> str:
    """Why, as the rules sign it."""
    return f"{rejected.reason}: {rejected.sentence}"


def applies(source: Source, rejected: Rejected, precedent: Precedent) -> bool:
    """Whether a note may be made of this refusal."""
    return rejected.reason in REASONS and admission.is_identity_clear(source, precedent)


def context_of(
    source: Source,
    because: str,
    origin: Origin,
    settings: Results,
    config_sha256: str,
    *,
    per: ReportPer = ReportPer.IMAGE,
) -> Context:
    """What the note is made of: the answer of the rules, which is none; and the report where nothing was answered."""
    identity = domain.ModelIdentity(
        profile=RULES,
        version=__version__,
        weights_sha256=config_sha256,  # the rules in force
        config_sha256=config_sha256,
        operating_point=_NO_POINT,
        calibration=because,
    )
    finding = Finding(
        prediction=Prediction(probability={}, spread=0.0, distance=None),
        decision=Decision(verdict=domain.Verdict.REJECTED),
        heatmap=domain.Heatmap(cells=_NOTHING, border=domain.NO_BORDER, regions=(), label="", layer=""),
        identity=identity,
    )
    kind = ResultKind.NOT_ANALYSED if per is ReportPer.IMAGE else ResultKind.REPORT
    unseen = Radiograph(pixels=_NOTHING, pixel_aspect=1.0, view=source.view, pixel_digest="")
    return Context(
        source=source, radiograph=unseen, finding=finding, origin=origin, settings=settings,
        kinds=frozenset({kind}), zone=times.zone(settings.time_zone), per=per,
    )  # fmt: skip


def build(context: Context, rejected: Rejected) -> Artifact:
    """Make the note."""
    kind = ResultKind.NOT_ANALYSED
    return finish(context, kind, start_report(about(context), kind, _content(context, rejected)))


def _content(context: Context, rejected: Rejected) -> Dataset:
    ref = context.source.ref
    source = sr_items.image(
        Relation.INFERRED_FROM, codes.DCM.SourceOfMeasurement, ref.sop_class_uid, ref.sop_instance_uid
    )
    line = sr_items.text(Relation.CONTAINS, codes.DCM.Summary, wording.not_analysed(rejected), [source])
    children = [
        sr_items.code(Relation.HAS_CONCEPT_MOD, codes.DCM.LanguageOfContentItemAndDescendants, ENGLISH),
        *observer(context),
        sr_items.container(Relation.CONTAINS, codes.DCM.Summary, [line]),
    ]
    return sr_items.root(TITLE, "2000", children)
