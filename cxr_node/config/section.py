"""What every section of the configuration is: strict and frozen; and how it names a file. Imports no room."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

from cxr_node.config import permissions

File = Annotated[Path, AfterValidator(permissions.well_formed)]
"""A path, or `credential:NAME`; see `permissions.place`."""


class Section(BaseModel):
    """A strict, frozen part of the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def by_kind(kinds: Mapping[str, type[Section]], default: str) -> Callable[[Any], Any]:
    """Make the check of a tagged union: by the class of its `kind`, so that an error names that kind's keys only."""

    def validate(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        kind = value.get("kind", default)
        if not isinstance(kind, str) or kind not in kinds:
            raise ValueError(f"kind {kind!r} is unknown; write one of: {', '.join(kinds)}")
        return kinds[kind].model_validate(value)

    return validate
