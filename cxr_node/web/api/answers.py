"""The shapes of the API's answers, which its description shows; `problems` has the shape of every error."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Prediction(_Answer):
    """What the node says of one file: what `cxr-node classify --json` says, without the path."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "verdict": "PNEUMONIA",
                "probability": 0.962341,
                "reason": None,
                "sentence": None,
                "spread": 0.021377,
                "distance": 0.512208,
                "profile": "pneumonia-pediatric",
            }
        },
    )

    verdict: str = Field(description="PNEUMONIA (or what the profile judges), NORMAL, UNCERTAIN or REJECTED")
    probability: float | None = Field(description="calibrated; null where REJECTED, or where the profile gives scores")
    reason: str | None = Field(description="coded reason of a REJECTED or UNCERTAIN")
    sentence: str | None = Field(description="why it was not analysed, for people")
    spread: float | None = Field(description="largest difference between augmented views")
    distance: float | None = Field(description="from the training data; 1 is its edge")
    profile: str
    classes: dict[str, float] = Field({}, description="only of a profile of several classes")
    judged: str = Field("", description="only of a profile of several findings, as are scale and findings")
    scale: str = ""
    findings: dict[str, float] = {}
    heatmap_png: str = Field("", description="with explain: the node's picture, PNG in base64; absent where REJECTED")


class ProblemDocument(BaseModel):
    """An error (RFC 9457). It never repeats what was sent."""

    type: str
    title: str
    status: int
    code: str = Field(description="stable word for programs")
    detail: str = Field(description="one sentence for people")
    reason: str = Field("", description="with the code unreadable: the coded reason")


class BatchEntry(_Answer):
    """The answer to one file: one of both."""

    prediction: Prediction | None
    problem: ProblemDocument | None


class Batch(_Answer):
    """The answers in the order of the files."""

    results: list[BatchEntry]


class Thresholds(_Answer):
    """The operating point; NORMAL below the one, the finding from the other on."""

    name: str
    rule_out_below: float
    report_at: float
    max_spread: float
    max_distance: float | None
    rule_out_max_distance: float | None
    scale: str = Field(description="probability (calibrated) or score")


class ProfileInfo(_Answer):
    """One classifier, to the byte."""

    name: str
    version: str
    sha256: dict[str, str] = Field(description="of the profile's files")
    finding: str
    code: list[str] = Field(description="value, scheme and meaning of the finding's code")
    age_years: list[float] = Field(description="youngest and oldest, in completed years")
    population: str
    thresholds: Thresholds
    calibration: str
    architecture: str
    licence: str
    citation: str


class ModelInfo(_Answer):
    """Which classifiers answer; where there are several, the patient's age chooses."""

    program: str
    runtime: str = Field(description="as configured: auto, openvino or torch")
    profiles: list[ProfileInfo]


class Measured(_Answer):
    """A profile's figures on one data set. A rate has a value, and low and high where an interval was computed."""

    images: int
    rates: dict[str, dict[str, float]]
    note: str = ""


class ProfileStats(_Answer):
    """What was measured of one profile."""

    name: str
    version: str
    evaluations: dict[str, Measured] = Field(description="by its makers, on images that were held out")
    blind: dict[str, Measured] = Field(description="by others; these are the figures to expect")


class NodeStats(_Answer):
    """What the ledger counts."""

    images: dict[str, int] = Field(description="by state")
    verdicts: dict[str, int]


class Stats(_Answer):
    """Measured figures and this node's own counts."""

    profiles: list[ProfileStats]
    node: NodeStats | None = Field(description="null where the node has not run yet")
    tried: dict[str, int] = Field(description="verdicts of the page and the API since `web` started")


class Check(_Answer):
    """One of the things that must hold."""

    check: str
    result: str = Field(description="Healthy or Unhealthy")
    detail: str = ""


class Health(_Answer):
    """Whether the node works."""

    status: str = Field(description="Healthy or Unhealthy")
    checks: list[Check]


def _problem(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/ProblemDocument"}
    return {"description": description, "content": {"application/problem+json": {"schema": schema}}}


REFUSALS: dict[int | str, dict[str, Any]] = {
    401: _problem("no key, no session, or an unknown key"),
    403: _problem("the key has not this scope, or another site's page asks"),
    429: _problem("too many files this minute, or too many wrong keys; see Retry-After"),
    503: _problem("not now: too many requests wait, the disk is full, or the node is not configured for it"),
}
UPLOAD_REFUSALS: dict[int | str, dict[str, Any]] = REFUSALS | {
    400: _problem("the request ended early"),
    408: _problem("the files came too slowly"),
    413: _problem("a file or the request is too large"),
    415: _problem("neither DICOM nor PNG nor JPEG, or no multipart/form-data"),
    422: _problem("not as documented, or the file cannot be read (code unreadable)"),
    500: _problem("the process that judges ended at this file (code judge-ended), or a fault of this program"),
    504: _problem("judging took longer than web.try.timeout_s"),
}
