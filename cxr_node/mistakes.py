"""What the schema's library found wrong in a configuration, one sentence each, with the key's path. Imports no room."""

from __future__ import annotations

import difflib
from typing import Any

from pydantic import BaseModel

from cxr_node import names


def sentence(item: Any, schema: type[BaseModel], content: Any = None) -> str:
    """Say one of `ValidationError.errors()`; `content` is what was validated, for the names of list items."""
    path = names.key_path(item["loc"], content) or "the file"
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(item["loc"][-1]), _keys_at(item["loc"][:-1], schema), n=1)
        return f"{path}: unknown key" + (f"; did you mean {near[0]!r}?" if near else "")
    if item["type"] == "missing":
        return f"{path}: is missing"
    return f"{path}: {item['msg'].removeprefix('Value error, ')}"


def _keys_at(location: tuple[int | str, ...], section: type[BaseModel]) -> list[str]:
    """Keys allowed at a place of the schema, found by walking the fields' types."""
    for part in (part for part in location if isinstance(part, str)):
        if part not in section.model_fields:
            return []
        section = _section_of(section.model_fields[part].annotation) or section
    return list(section.model_fields)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in getattr(annotation, "__args__", ()) if (found := _section_of(part))), None)
