"""The application: its pages, its API, and what guards them."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.staticfiles import StaticFiles
from starlette.types import ASGIApp

from cxr_node import __version__
from cxr_node.web import access, problems
from cxr_node.web.api import health, predict, scrape
from cxr_node.web.guard import Guard
from cxr_node.web.pages import login, quality, queue, study, system, today, trying
from cxr_node.web.problems import DICOMWEB
from cxr_node.web.services import Services

_STATIC = Path(__file__).parent / "static"
_DESCRIPTION = "Chest radiographs judged by the node's own pipeline. Research use only: not for diagnosis."
UPLOADS = frozenset({predict.PREDICT, predict.BATCH, trying.PATH})


def create(services: Services) -> ASGIApp:
    """Build the application of one node."""
    app = FastAPI(
        title="cxr_node",
        version=__version__,
        description=_DESCRIPTION,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # its pages come from a CDN
        redoc_url=None,
    )
    app.state.services = services
    problems.register(app)
    _register_access(app)
    if services.stow is not None:
        from cxr_node.web.api import studies

        app.include_router(studies.router, prefix=DICOMWEB)
    for room in (login, today, queue, study, quality, system, trying, predict, health, scrape):
        app.include_router(room.router)
    app.mount("/static", StaticFiles(directory=_STATIC), name="static")
    return Guard(app, services.web, UPLOADS)


def _register_access(app: FastAPI) -> None:
    @app.exception_handler(access.LoginNeeded)
    async def login(request: Request, error: access.LoginNeeded) -> Response:
        return access.answer_login(request, error) or problems.answer(request, error)
