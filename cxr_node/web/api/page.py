"""The description of the API as its page shows it, read off the OpenAPI document that programs read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One parameter, or one member of a request or an answer."""

    name: str
    kind: str
    description: str
    required: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One status."""

    status: str
    description: str
    schema: str
    """Name of its shape; "" where it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    description: str
    fields: tuple[Field, ...]
    answers: tuple[Answer, ...]
    members: tuple[Field, ...]
    """Of the good answer."""
    curl: str


def operations(document: Mapping[str, Any], base_url: str) -> list[Operation]:
    """List them in the document's order."""
    return [
        _operation(document, base_url, method.upper(), path, said)
        for path, methods in document["paths"].items()
        for method, said in methods.items()
    ]


def _operation(
    document: Mapping[str, Any], base_url: str, method: str, path: str, said: Mapping[str, Any]
) -> Operation:
    form = said.get("requestBody", {}).get("content", {}).get("multipart/form-data", {}).get("schema", {})
    parameters = tuple(
        Field(
            name=each["name"],
            kind=f"{each['in']}, {_kind(each['schema'])}",
            description=each.get("description", ""),
            required=each.get("required", False),
        )
        for each in said.get("parameters", ())
    )
    return Operation(
        method=method,
        path=path,
        description=said.get("description", said.get("summary", "")),
        fields=(*_members(form), *parameters),
        answers=tuple(_answer(status, each) for status, each in sorted(said["responses"].items())),
        members=tuple(_members(_resolved(document, _schema(said["responses"].get("200", {}))))),
        curl=_curl(f"{base_url}{path}", method, form, "security" in said),
    )


def _answer(status: str, said: Mapping[str, Any]) -> Answer:
    return Answer(status=status, description=said["description"], schema=_kind(_schema(said)) if _schema(said) else "")


def _schema(response: Mapping[str, Any]) -> Mapping[str, Any]:
    return next((content.get("schema", {}) for content in response.get("content", {}).values()), {})


def _resolved(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    found: Mapping[str, Any] = document["components"]["schemas"][name] if name else schema
    return found


def _members(schema: Mapping[str, Any]) -> Iterator[Field]:
    for name, said in schema.get("properties", {}).items():
        required = name in schema.get("required", ())
        yield Field(name=name, kind=_kind(said), description=said.get("description", ""), required=required)


def _kind(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    match schema.get("type"):
        case "array":
            return f"list of {_kind(schema['items'])}"
        case "string" if schema.get("format") == "binary":
            return "file"
        case None:
            return "any"
        case kind:
            return str(kind)


def _curl(url: str, method: str, form: Mapping[str, Any], takes_key: bool) -> str:
    words = ["curl"]
    if takes_key:
        words.append('-H "Authorization: Bearer $KEY"')
    words += [f"-F {name}=@chest.dcm" for name, said in form.get("properties", {}).items() if "file" in _kind(said)]
    if method != "GET" and not form:
        words.append(f"-X {method}")
    return " ".join([*words, url])
