"""The sections `log` and `alerts`: how the node speaks to those who watch it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from cxr_node.config.section import File, Section

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class LogFormat(StrEnum):
    """Form of a line on stderr."""

    TEXT = "text"
    JSON = "json"


class LogSection(Section):
    """What the processes write to stderr."""

    format: LogFormat = LogFormat.TEXT


class AlertsSection(Section):
    """What counts as wrong, and where alerts go."""

    to: tuple[File, ...] = ()
    """Files, or credentials, with one Apprise URL each; a URL holds a password, so none stands here."""
    destination_down_s: float = Field(default=600.0, ge=0)
    waiting_s: float = Field(default=300.0, gt=0)
    """Of the oldest image that waits for the worker, and of the oldest result for a destination that is up."""
    quiet_gaps: float = Field(default=5.0, ge=1)
    """A sender is quiet after this multiple of its usual gap, in its usual hours."""
    rejections_factor: float = Field(default=2.0, gt=1)
    """Of a sender's rejections in the last day against its share before."""
    abstention_band: tuple[Share, Share] | None = None
    """Least and greatest share of UNCERTAIN; None: what the profile's own evaluation predicts."""
    disk_watermarks: float = Field(default=2.0, ge=1)
    """Free space below this multiple of spool.min_free_mib."""
    certificate_days: float = Field(default=30.0, ge=0)
    audit_waiting_s: float = Field(default=3600.0, gt=0)
    """Of the oldest audit message that the collector does not have."""

    @model_validator(mode="after")
    def _band_has_two_sides(self) -> Self:
        if self.abstention_band is not None and self.abstention_band[0] >= self.abstention_band[1]:
            raise ValueError("abstention_band: the first share must be less than the second")
        return self
