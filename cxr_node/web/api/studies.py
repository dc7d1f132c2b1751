"""STOW-RS over HTTP: `POST /dicom-web/studies`, with or without a study (PS3.18 10.5.1)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from python_multipart.multipart import parse_options_header

from cxr_node.node.receive.reception import is_uid
from cxr_node.web import access
from cxr_node.web.problem import Problem
from cxr_node.web.services import Services, services
from cxr_node.web.stow import answer, door
from cxr_node.web.stow.door import Visit
from cxr_node.web.stow.parts import DICOM
from cxr_node.web.stow.senders import Visitor

router = APIRouter(include_in_schema=False)  # PS3.18 describes it
Found = Annotated[Services, Depends(services)]


@router.post("/studies")
async def store(request: Request, found: Found) -> Response:
    """Store instances of any study."""
    return await _stored(request, found, None)


@router.post("/studies/{study}")
async def store_in_study(request: Request, found: Found, study: str) -> Response:
    """Store instances of one study; those of others fail."""
    return await _stored(request, found, study)


async def _stored(request: Request, found: Services, study: str | None) -> Response:
    host = access.client_of(request)
    visitor = Visitor(
        host=host,
        authorization=request.headers.get("authorization", ""),
        certificate=getattr(request.state, "certificate", None),
    )
    sender = await found.door.admit(visitor)
    boundary = _boundary(request)
    if study is not None and not is_uid(study):
        raise Problem(400, "malformed", "the study in the URL is no UID")
    with found.door.place(sender, host):
        taken = await found.door.take(
            request.stream(), boundary, Visit(sender=sender, host=host, study_instance_uid=study)
        )
    later = {"Retry-After": str(door.RETRY_AFTER_S)} if answer.is_for_now(taken) else {}
    return JSONResponse(answer.module(taken), answer.status(taken), later, media_type=answer.MEDIA_TYPE)


def _boundary(request: Request) -> bytes:
    """Require `multipart/related; type="application/dicom"` as it comes over the wire."""
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/related" or options.get(b"type", DICOM).lower() != DICOM:
        raise Problem(415, "media-type", 'send multipart/related; type="application/dicom"')
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Problem(415, "media-type", "send the body without a Content-Encoding")
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise Problem(400, "malformed", "the Content-Type names no boundary")
    return boundary
