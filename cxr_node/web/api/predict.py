"""The API, version 1: verdicts on files that are not kept, the classifiers, and measured figures."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response, Security
from fastapi.security import HTTPBearer

from cxr_node import __version__, wiring
from cxr_node.errors import ConfigError
from cxr_node.model import profile as profile_folder
from cxr_node.model.profile import Profile
from cxr_node.node.ledger import listing, queries
from cxr_node.node.ledger.listing import By
from cxr_node.web import access, rendering, uploads
from cxr_node.web.api import answers, page
from cxr_node.web.identity.users import Scope
from cxr_node.web.judging.client import Judged
from cxr_node.web.judging.frames import Wanted
from cxr_node.web.problem import Problem
from cxr_node.web.services import Services, services
from cxr_node.web.uploads import Upload

_KEY = Security(HTTPBearer(auto_error=False, description="A key of `cxr-node user key`; a person's session will do."))
router = APIRouter(prefix="/api/v1", dependencies=[_KEY])
PREDICT, BATCH = "/api/v1/predict", "/api/v1/predict/batch"
Found = Annotated[Services, Depends(services)]
Predicting = Annotated[str, access.allowed(Scope.PREDICT)]
Reading = Annotated[str, access.allowed(Scope.PREDICT, Scope.STATS)]
Counting = Annotated[str, access.allowed(Scope.STATS)]
_BINARY = {"type": "string", "format": "binary"}
_TRUE = ("true", "1", "yes", "on")


def _form(**properties: object) -> dict[str, Any]:
    schema = {"type": "object", "required": [next(iter(properties))], "properties": properties}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


@router.post(
    "/predict",
    response_model=answers.Prediction,
    response_model_exclude_unset=True,
    responses=answers.UPLOAD_REFUSALS,
    openapi_extra=_form(
        file=_BINARY | {"description": "DICOM (PS3.10), PNG or JPEG"},
        explain={"type": "boolean", "description": "as below"},
    ),
)
async def predict(
    request: Request,
    client: Predicting,
    found: Found,
    explain: Annotated[bool, Query(description="add the heat map")] = False,
) -> answers.Prediction:
    """Judge one radiograph. REJECTED is an answer (200); a file that cannot be read is a problem (422)."""
    _require(found)
    found.require_rate(client, 1)
    with found.judge.place():
        async with uploads.received(request, found.config, "file", 1) as form:
            wants_map = explain or form.fields.get("explain", "").lower() in _TRUE
            return await _predicted(found, form.files[0], Wanted.HEATMAP if wants_map else Wanted.NOTHING)


@router.post(
    "/predict/batch",
    response_model=answers.Batch,
    response_model_exclude_unset=True,
    responses=answers.UPLOAD_REFUSALS,
    openapi_extra=_form(files={"type": "array", "items": _BINARY, "minItems": 1}),
)
async def predict_batch(request: Request, client: Predicting, found: Found) -> answers.Batch:
    """Judge several radiographs: for each a prediction or a problem, in the order of the files."""
    _require(found)
    with found.judge.place():
        async with uploads.received(request, found.config, "files", found.web.try_files.max_files) as form:
            found.require_rate(client, len(form.files))
            return answers.Batch(results=[await _entry(found, upload) for upload in form.files])


@router.get("/model/info", responses=answers.REFUSALS)
def model_info(client: Reading, found: Found) -> answers.ModelInfo:
    """Tell which classifiers answer, to the byte, for whom, and where their verdicts begin."""
    profiles = [_info(each) for each in wiring.profiles(found.config)]
    return answers.ModelInfo(program=__version__, runtime=found.config.model.runtime.value, profiles=profiles)


@router.get("/stats", responses=answers.REFUSALS)
def stats(client: Counting, found: Found) -> answers.Stats:
    """Tell what was measured of the classifiers, and what this node has answered."""
    profiles = [_measured(each) for each in wiring.profiles(found.config)]
    return answers.Stats(profiles=profiles, node=_counted(found), tried=dict(found.judge.verdicts))


@router.get("/", include_in_schema=False)
def description(request: Request) -> Response:
    """Show the API to people; no script, nothing from elsewhere."""
    operations = page.operations(request.app.openapi(), str(request.base_url).rstrip("/"))
    return rendering.page(request, "api.html", person=None, operations=operations)


def _require(found: Services) -> None:
    if not found.web.try_files.enabled:
        raise Problem(503, "off", "judging by HTTP is off (web.try.enabled)")


async def _predicted(found: Services, upload: Upload, wanted: Wanted) -> answers.Prediction:
    if upload.problem is not None:
        raise upload.problem
    judged = await found.judge.judge(upload.file, wanted, picture=upload.is_picture)
    with contextlib.closing(judged):
        if judged.unreadable:
            said = judged.prediction
            raise Problem(422, "unreadable", said["sentence"], reason=said["reason"])
        return answers.Prediction.model_validate(judged.prediction | _heatmap(judged))


def _heatmap(judged: Judged) -> dict[str, str]:
    if "heatmap.png" not in judged.parts:
        return {}
    return {"heatmap_png": base64.b64encode(judged.part("heatmap.png")).decode()}


async def _entry(found: Services, upload: Upload) -> answers.BatchEntry:
    try:
        return answers.BatchEntry(prediction=await _predicted(found, upload, Wanted.NOTHING), problem=None)
    except Problem as problem:
        document = answers.ProblemDocument.model_validate(problem.as_json())
        return answers.BatchEntry(prediction=None, problem=document)


def _info(loaded: Profile) -> answers.ProfileInfo:
    described, point = profile_folder.described_in(loaded.folder), loaded.operating_point
    return answers.ProfileInfo(
        name=loaded.name,
        version=loaded.version,
        sha256=described.sha256,
        finding=loaded.target.finding,
        code=list(loaded.target.code),
        age_years=list(loaded.population.age_years),
        population=loaded.population.description,
        thresholds=answers.Thresholds(
            name=point.name,
            rule_out_below=point.rule_out_below,
            report_at=point.report_at,
            max_spread=point.max_spread,
            max_distance=point.max_distance,
            rule_out_max_distance=point.rule_out_max_distance,
            scale=point.scale.value,
        ),
        calibration=loaded.calibration,
        architecture=loaded.network.architecture,
        licence=described.licence,
        citation=described.citation,
    )


def _measured(loaded: Profile) -> answers.ProfileStats:
    try:
        metrics = json.loads((loaded.folder / _METRICS).read_text("utf-8"))
    except (OSError, ValueError):
        metrics = {}
    evaluations, blind = (_figures(metrics.get(name) or {}) for name in ("evaluations", "blind"))
    return answers.ProfileStats(name=loaded.name, version=loaded.version, evaluations=evaluations, blind=blind)


def _figures(sets: Mapping[str, Any]) -> dict[str, answers.Measured]:
    return {
        name: answers.Measured(images=said["images"], rates=said["rates"], note=said.get("note") or "")
        for name, said in sets.items()
    }


def _counted(found: Services) -> answers.NodeStats | None:
    try:
        ledger = found.ledger()
    except ConfigError:
        return None
    counted = listing.counts(ledger, (By.VERDICT,), datetime(1970, 1, 1, tzinfo=UTC))
    verdicts = {each.group[0]: each.images for each in counted if each.group[0]}
    images = {state.value: number for state, number in queries.counts(ledger).items()}
    return answers.NodeStats(images=images, verdicts=verdicts)


_METRICS = Path("metrics.json")
"""Of a profile's folder (`model.profile`)."""
