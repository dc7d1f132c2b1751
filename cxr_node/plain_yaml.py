"""YAML that says each thing once: a key that stands twice is refused, with both lines. Imports no room.

YAML's own rule (1.2, 3.2.1.1: keys of a mapping are unique) is one that PyYAML leaves to its user: it keeps the last
value and drops the first without a word, and appending a section is just how configuration files are edited.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

import yaml

from cxr_node import names


class TwiceError(yaml.YAMLError):
    """Keys that stand more than once; one sentence each, with the key's path and its lines."""

    def __init__(self, sentences: list[str]) -> None:
        super().__init__("; ".join(sentences))
        self.sentences = sentences


def load(text: str) -> Any:
    """Read one document as plain values.

    Raises
    ------
    yaml.YAMLError : it is no YAML, or holds a value that is none (a month 13, an alias within itself).
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
        return names.list_item(number, None)
    scalars = {
        key.value: value.value
        for key, value in item.value
        if isinstance(key, yaml.ScalarNode) and isinstance(value, yaml.ScalarNode)
    }
    return names.list_item(number, scalars)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _joined(path: str, part: str) -> str:
    return f"{path}.{part}".lstrip(".")


def _times(number: int) -> str:
    return "twice" if number == 2 else f"{number} times"


def _listed(lines: list[int]) -> str:
    return f"{', '.join(map(str, lines[:-1]))} and {lines[-1]}"
