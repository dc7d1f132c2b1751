"""YAML that says each thing once: a key that stands twice is refused, with both lines. Imports no room.

YAML's own rule (1.2, 3.2.1.1: keys of a mapping are unique) is one that PyYAML leaves to its user: it keeps the last
value and drops the first without a word, and appending a section is just how configuration files are edited.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import yaml
from pydantic import BaseModel

_DIGITS = 64
_SHORTEST = 32
"""A run of so many hexadecimal digits is meant as a fingerprint, not as a name."""


_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def list_item(number: int, item: Any) -> str:
    """How a path names an item of a list: a destination by its name, anything else by its number, the first is 1."""
    name = item.get("name") if isinstance(item, Mapping) else None
    return name if isinstance(name, str) and _NAME.fullmatch(name) else str(number + 1)


def key_path(location: Sequence[int | str], content: Any) -> str:
    """Write the path of a key, or of an item, as people count: `destinations.pacs.send.2` is its second kind."""
    parts = []
    for part in location:
        inside = content[part] if _holds(content, part) else None
        parts.append(list_item(part, inside) if isinstance(part, int) else part)
        content = inside
    return ".".join(parts)


def _holds(content: Any, part: int | str) -> bool:
    if isinstance(part, int):
        return isinstance(content, list | tuple) and part < len(content)
    return isinstance(content, Mapping) and part in content


def ae_title(value: str) -> str:
    """PS3.5 6.2, VR AE: 1 to 16 characters of the default repertoire, no backslash, not only spaces."""
    title = value.strip()
    if not 1 <= len(title) <= 16 or "\\" in title or not all(" " <= char <= "~" for char in title):
        raise ValueError(f"{value!r} is not an AE title: 1 to 16 ASCII characters without backslash")
    return title


def fingerprint_or_name(value: str) -> str:
    """Bring both into the form in which they are compared.

    Raises
    ------
    ValueError : it is neither; a fingerprint is written as `openssl x509 -noout -fingerprint -sha256` shows it.
    """
    name = value.strip().lower()
    with suppress(ValueError):
        return str(ipaddress.ip_address(name))
    digits = name.replace(":", "")
    if len(digits) < _SHORTEST or re.fullmatch("[0-9a-f]+", digits) is None:
        if not name:
            raise ValueError("is empty; write a name in the certificate, or its SHA-256 fingerprint")
        return name
    if len(digits) != _DIGITS:
        raise ValueError(f"{value!r} is not a SHA-256 fingerprint: {_DIGITS} hexadecimal digits, colons allowed")
    return digits


def network(value: str) -> str:
    """Require an address or a network; no name, for who answers for a name may change.

    Raises
    ------
    ValueError : it is neither.
    """
    try:
        ipaddress.ip_network(value.strip(), strict=False)
    except ValueError as error:
        raise ValueError(f"{value!r} is no address and no network; write 10.0.0.2, or 10.0.0.0/28") from error
    return value.strip()


def sentence(item: Any, schema: type[BaseModel], content: Any = None) -> str:
    """Say one of `ValidationError.errors()`; `content` is what was validated, for the names of list items."""
    path = key_path(item["loc"], content) or "the file"
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


class TwiceError(yaml.YAMLError):
    """Keys that stand more than once; one sentence each, with the key's path and its lines."""

    def __init__(self, sentences: list[str]) -> None:
        super().__init__("; ".join(sentences))
        self.sentences = sentences


def load(text: str) -> Any:
    """Read one document as plain values.

    Raises
    ------
    yaml.YAMLError : it is not YAML, or holds an invalid value (a month 13, an alias within itself).
    TwiceError : a key stands twice; a `yaml.YAMLError` too.
    """
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        if twice := list(_Walk(loader).twice(root, "")):
            raise TwiceError(twice)
        return loader.construct_document(root)
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
    except ValueError as error:  # of the constructors, and with the value in it, which may be a secret
        raise yaml.YAMLError("it holds a date or a number that is none; write it in quotes") from error
    finally:
        loader.dispose()


class _Walk:
    """Through the document as it is written, before merging and construction hide what stands twice."""

    def __init__(self, loader: yaml.SafeLoader) -> None:
        self._loader = loader
        self._within: set[int] = set()
        self._seen: set[int] = set()

    def twice(self, node: yaml.Node, path: str) -> Iterator[str]:
        """Say each key that stands more than once, here and below; what an alias repeats is looked at once."""
        if id(node) in self._within:
            raise yaml.YAMLError(f"line {_line(node)}: an alias stands within what it repeats")
        if id(node) in self._seen:
            return
        self._within.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            for number, item in enumerate(node.value):
                yield from self.twice(item, _joined(path, _item_name(number, item)))
        elif isinstance(node, yaml.MappingNode):
            yield from self._keys(node, path)
        self._within.remove(id(node))
        self._seen.add(id(node))

    def _keys(self, node: yaml.MappingNode, path: str) -> Iterator[str]:
        lines: dict[Hashable, list[int]] = {}
        written: dict[Hashable, str] = {}
        for key_node, value in node.value:
            key = _key(self._loader, key_node)
            lines.setdefault(key, []).append(_line(key_node))
            written.setdefault(key, str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?")
            yield from self.twice(value, _joined(path, written[key]))
        for key, where in lines.items():
            if len(where) > 1:
                yield f"{_joined(path, written[key])}: {_times(len(where))}, lines {_listed(where)}"


def _key(loader: yaml.SafeLoader, node: yaml.Node) -> Hashable:
    """Equal for what is one key to the reader: `port` and "port", `yes` and `true`."""
    if not isinstance(node, yaml.ScalarNode):
        return id(node)  # not hashable: its constructor refuses it with the line
    if node.tag == "tag:yaml.org,2002:merge":
        return node.tag
    value = loader.construct_object(node)
    return value if isinstance(value, Hashable) else id(node)


def _item_name(number: int, item: yaml.Node) -> str:
    if not isinstance(item, yaml.MappingNode):
        return list_item(number, None)
    scalars = {
        key.value: value.value
        for key, value in item.value
        if isinstance(key, yaml.ScalarNode) and isinstance(value, yaml.ScalarNode)
    }
    return list_item(number, scalars)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _joined(path: str, part: str) -> str:
    return f"{path}.{part}".lstrip(".")


def _times(number: int) -> str:
    return "twice" if number == 2 else f"{number} times"


def _listed(lines: list[int]) -> str:
    return f"{', '.join(map(str, lines[:-1]))} and {lines[-1]}"
