"""What goes wrong, in words: an HTML page for people, `application/problem+json` for programs (RFC 9457).

A problem never repeats what a client sent: it may be a patient's name.
"""

from __future__ import annotations

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from cxr_node.errors import ConfigError, CxrNodeError, DataError, LedgerLostError, ResourceError
from cxr_node.web import rendering
from cxr_node.web.problem import Problem

log = logging.getLogger(__name__)
API, DICOMWEB = "/api/", "/dicom-web"


def wants_json(request: Request) -> bool:
    """Whether a program asks."""
    path = request.url.path
    return path.startswith((API, f"{DICOMWEB}/", "/health", "/metrics"))


def answer(request: Request, problem: Problem) -> Response:
    """A problem as its asker reads it."""
    if wants_json(request):
        return JSONResponse(
            problem.as_json(), problem.status, dict(problem.headers), media_type="application/problem+json"
        )
    return rendering.page(
        request, "problem.html", status=problem.status, headers=problem.headers, problem=problem, person=None
    )


def register(app: FastAPI) -> None:
    """Let an application answer every error by a problem."""

    @app.exception_handler(Problem)
    async def known(request: Request, error: Problem) -> Response:
        return answer(request, error)

    @app.exception_handler(HTTPException)
    async def of_starlette(request: Request, error: HTTPException) -> Response:
        phrase = HTTPStatus(error.status_code).phrase
        code = phrase.lower().replace(" ", "-")
        return answer(request, Problem(error.status_code, code, SENTENCES.get(error.status_code, phrase)))

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        places = sorted({".".join(str(part) for part in one["loc"] if isinstance(part, str)) for one in error.errors()})
        return answer(request, Problem(422, "malformed", f"not as documented: {', '.join(places) or 'the request'}"))

    @app.exception_handler(CxrNodeError)
    async def ours(request: Request, error: CxrNodeError) -> Response:
        return answer(request, of_error(error))

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        log.exception("a request failed")
        return answer(request, Problem(500, "fault", "a fault of this program; its log has the place in the code"))


SENTENCES = {
    404: "there is no such page",
    405: "this page does not take that method",
    408: "the rest of the request did not come in time",
    413: "the request is larger than this page takes",
}


def of_error(error: CxrNodeError) -> Problem:
    """Whose fault an error of ours is, as a status."""
    match error:
        case DataError():
            return Problem(400, "unusable", str(error))
        case ConfigError():
            return Problem(503, "not-configured", str(error))
        case ResourceError() | LedgerLostError():
            return Problem(503, "not-now", str(error), {"Retry-After": "10"})
        case _:
            log.error("a request failed: %s", error)
            return Problem(500, "fault", str(error))
