"""The key `spool.store`: where finished bytes are, for one machine or for several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from cxr_node.config.section import File, Section, by_kind


class FileStore(Section):
    """The folder of the spool: one machine."""

    kind: Literal["file"] = "file"


class PosixStore(Section):
    """A folder that all machines of the node mount."""

    kind: Literal["posix"] = "posix"
    path: Path
    """A folder on the share, not the mount point itself: where it is missing, the share is not mounted."""


class S3Store(Section):
    """A bucket of an object store."""

    kind: Literal["s3"] = "s3"
    endpoint: str | None = Field(default=None, pattern=r"^https?://[^\s/]+/?$")
    """URL of the service; None: Amazon's, of the region."""
    bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    region: str = "us-east-1"
    prefix: str = Field(default="", pattern=r"^([A-Za-z0-9_.-]+/)*$")
    """Before every name, with a slash at its end."""
    credentials: File
    """File with aws_access_key_id and aws_secret_access_key in a section [default]."""
    ca: Path | None = None
    """Authority of the service's certificate; None: those of the machine."""
    allow_plaintext: bool = False
    """Send images without TLS."""
    timeout_s: float = Field(default=5.0, gt=0, le=60)
    """Without an answer for so long, a request is tried again."""
    cache_mib: int = Field(default=2048, ge=0)
    """What was stored or read last is kept on this machine's disk, for minutes and up to so much; 0: nothing."""


AnyStore = Annotated[
    FileStore | PosixStore | S3Store,
    BeforeValidator(by_kind({"file": FileStore, "posix": PosixStore, "s3": S3Store}, "file")),
]
"""Validated by its kind, so that an error names that kind's keys only."""
