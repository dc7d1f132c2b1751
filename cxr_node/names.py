"""How a configuration names who calls: by AE title, and by certificate; and its own list items. Imports no room."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

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
        raise ValueError(f"{value!r} is no AE title: 1 to 16 ASCII characters without backslash")
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
        raise ValueError(f"{value!r} is no SHA-256 fingerprint: that has {_DIGITS} hexadecimal digits, colons allowed")
    return digits
