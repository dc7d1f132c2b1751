"""Studies as messages are made of them: those of `tests.dicom.studies`, and the twenty of `tests.pacs.study_sets`."""

from __future__ import annotations

from typing import Any

from cxr_node.config import loader
from cxr_node.outcome import Artifact, StudyCase
from cxr_node.result_kinds import DICOM_KINDS, ResultKind
from tests.dicom import studies

RIS: dict[str, Any] = {"name": "ris", "kind": "hl7", "address": "127.0.0.1:2575"}
EHR: dict[str, Any] = {"name": "ehr", "kind": "fhir", "url": "http://127.0.0.1:8080/fhir"}
PACS: dict[str, Any] = {"name": "pacs", "address": "PACS@127.0.0.1:104", "send": [kind.value for kind in DICOM_KINDS]}
CONFIG = loader.parse({"spool": {"path": "."}, "destinations": [PACS, RIS, EHR], "results": {"max_heatmap_px": 1024}})


def made(case: StudyCase) -> dict[ResultKind, Artifact]:
    """What the pipeline makes of a study, by kind."""
    return {each.kind: each for each in studies.report(case, CONFIG).artifacts}
