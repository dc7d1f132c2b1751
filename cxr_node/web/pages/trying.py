"""Try: a person's own files, judged by the node's path. Nothing of them enters ledger, log, audit trail or spool."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from cxr_node import resources
from cxr_node.web import access, rendering, uploads
from cxr_node.web.identity import person
from cxr_node.web.judging.client import Judged
from cxr_node.web.judging.frames import Wanted
from cxr_node.web.judging.kept import KEEP_S, Result
from cxr_node.web.problem import Problem
from cxr_node.web.services import Services, services

router = APIRouter(include_in_schema=False)
PATH = "/try"
_CHUNK_BYTES = 256 * 1024
_TYPES = {".png": "image/png", ".pdf": "application/pdf", ".dcm": "application/dicom"}
_DOWNLOADS = {
    "report.pdf": "report (PDF)",
    "report.dcm": "report (SR)",
    "measurements.dcm": "measurements (SR)",
    "heatmap.dcm": "heat map (SC)",
}
Person = Annotated[person.Person, Depends(access.viewer)]
Found = Annotated[Services, Depends(services)]


@router.get(PATH)
def page(request: Request, person: Person, found: Found) -> Response:
    """Ask for files."""
    _require(found)
    return rendering.page(request, "try.html", person=person, settings=found.web.try_files, keep_min=KEEP_S / 60)


@router.post(PATH)
async def judge(request: Request, person: Person, found: Found) -> Response:
    """Judge the files of a form, and show the results on a page of their own, which may be loaded again."""
    _require(found)
    access.check_origin(request)
    with found.judge.place():
        async with uploads.received(request, found.config, "files", found.web.try_files.max_files) as form:
            access.compare_token(form.fields.get("csrf"), person)
            files = [upload for upload in form.files if upload.size_bytes]  # a browser sends an empty one for none
            found.require_rate(person.name, len(files))
            results = [await _result(found, upload.file, upload.is_picture, upload.problem) for upload in files]
    return _shown(person, found, results)


@router.post(f"{PATH}/drawn")
async def judge_drawn(request: Request, person: Person, found: Found) -> Response:
    """Judge the six drawn radiographs of the demo."""
    _require(found)
    access.check_origin(request)
    await access.check_token(request, person)
    pictures = sorted(resources.DRAWN.glob("*.jpg"))
    found.require_rate(person.name, len(pictures))
    results = []
    with found.judge.place():
        for path in pictures:
            with path.open("rb") as file:
                results.append(await _result(found, file, picture=True, problem=None, drawn=True))
    return _shown(person, found, results)


@router.get(f"{PATH}/{{token}}")
async def results_page(token: str, request: Request, person: Person, found: Found) -> Response:
    """Show what was found."""
    results = found.kept.find(person.csrf, token)
    reports = [_report(result.judged) for result in results]
    return rendering.page(
        request,
        "try_results.html",
        person=person,
        token=token,
        results=list(zip(results, reports, strict=True)),
        downloads=_DOWNLOADS,
        keep_min=KEEP_S / 60,
    )


@router.get(f"{PATH}/{{token}}/{{number}}/{{name}}")
async def part(token: str, number: int, name: str, person: Person, found: Found) -> Response:
    """Give one picture, object or page; nothing of it may be cached."""
    results = found.kept.find(person.csrf, token)
    judged = results[number - 1].judged if 1 <= number <= len(results) else None
    headers = {"Cache-Control": "no-store"}
    if judged is not None and name == "result.json":
        content = json.dumps(judged.prediction, indent=2)
        return Response(content, media_type="application/json", headers=headers | _as_file(number, name))
    if judged is None or judged.file is None or name not in judged.parts or name == "report.html":
        raise Problem(404, "gone", "there is no such result")
    kind = _TYPES[os.path.splitext(name)[1]]  # noqa: PTH122 - no path
    headers |= {"Content-Length": str(judged.parts[name][1])} | (_as_file(number, name) if name in _DOWNLOADS else {})
    return StreamingResponse(_pieces(judged.file, *judged.parts[name]), media_type=kind, headers=headers)


def _require(found: Services) -> None:
    if not found.web.try_files.enabled:
        raise Problem(404, "off", "Try is off (web.try.enabled)")


async def _result(
    found: Services, file: BinaryIO, picture: bool, problem: Problem | None, drawn: bool = False
) -> Result:
    """Judge one file; a problem of its own costs the others nothing."""
    if problem is not None:
        return Result(judged=None, problem=problem)
    try:
        return Result(judged=await found.judge.judge(file, Wanted.ALL, picture=picture, drawn=drawn))
    except Problem as error:
        return Result(judged=None, problem=error)


def _shown(person: person.Person, found: Services, results: Sequence[Result]) -> Response:
    if not results:
        return RedirectResponse(PATH, 303)
    return RedirectResponse(f"{PATH}/{found.kept.add(person.csrf, results)}", 303)


def _report(judged: Judged | None) -> str:
    """The report as `dicom.render.html` wrote it, which escapes every value; "" where there is none."""
    return judged.part("report.html").decode() if judged is not None and "report.html" in judged.parts else ""


def _as_file(number: int, name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{number}-{name}"'}


def _pieces(file: BinaryIO, begin: int, length: int) -> Iterator[bytes]:
    """Read in pieces from a descriptor of its own: the result may be forgotten while it is sent."""
    with os.fdopen(os.dup(file.fileno()), "rb") as own:
        for at in range(begin, begin + length, _CHUNK_BYTES):
            yield os.pread(own.fileno(), min(_CHUNK_BYTES, begin + length - at), at)
