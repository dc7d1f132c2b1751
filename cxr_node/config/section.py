"""What every section of the configuration is: strict and frozen; and how it names a file. Imports no room."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from cxr_node.config import permissions

File = Annotated[Path, AfterValidator(permissions.well_formed)]
"""A path, or `credential:NAME`; see `permissions.place`."""


class Section(BaseModel):
    """A strict, frozen part of the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
