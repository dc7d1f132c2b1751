"""The section `ledger`: a database server that several machines share, instead of the file in the spool."""

from __future__ import annotations

from typing import Annotated, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, model_validator

from cxr_node.config.section import File, Section

_SCHEME = "postgresql+psycopg"
_EXAMPLE = f"{_SCHEME}://cxr@db.example.org/cxr?sslmode=verify-full&sslrootcert=FILE"


def _of_postgresql(url: str) -> str:
    """Check how the URL is written; what the server says of it is told when the node starts.

    Raises
    ------
    ValueError : it names no PostgreSQL database, or holds a password. The password is not repeated.
    """
    try:
        parts = urlsplit(url)
        database, options, _ = parts.path.strip("/"), dict(parse_qsl(parts.query)), parts.port
    except ValueError:
        raise ValueError(f"is not a URL; write {_EXAMPLE}") from None
    if "password" in options:
        raise ValueError("holds a password; keep it in a file of its own, and write password: FILE")
    if parts.scheme != _SCHEME:
        raise ValueError(f"{parts.scheme or url!r} is no database that is known; write {_EXAMPLE}")
    if not database or "/" in database:
        raise ValueError(f"names no database; write {_EXAMPLE}")
    if not parts.hostname and "host" not in options:
        raise ValueError(f"names no host; write {_EXAMPLE}")
    return url


class LedgerSection(Section):
    """Where the ledger is."""

    url: Annotated[str, AfterValidator(_of_postgresql)] | None = None
    """Of a PostgreSQL database, with libpq's own options; None: an SQLite file in the spool."""
    password: File | None = None
    """File of mode 0600, or credential, that holds it, read again for each connection; None: none is sent."""

    @model_validator(mode="after")
    def _password_is_for_a_server(self) -> Self:
        if self.password is not None and self.url is None:
            raise ValueError("password: is given without url: the SQLite file in the spool has none")
        return self
