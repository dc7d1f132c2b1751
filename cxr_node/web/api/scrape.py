"""`/metrics` for Prometheus: a key with the scope metrics, or a session; on loopback without users, anybody."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from cxr_node.web import access
from cxr_node.web.identity.users import Scope
from cxr_node.web.monitoring import metrics
from cxr_node.web.services import Services, services

router = APIRouter()


@router.get("/metrics", dependencies=[access.allowed(Scope.METRICS)], include_in_schema=False)
def scrape(found: Annotated[Services, Depends(services)]) -> Response:
    """All metrics, in Prometheus' text format."""
    return Response(found.exposition.read(), media_type=metrics.CONTENT_TYPE)
