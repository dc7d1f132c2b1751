"""An answer that is not the one asked for, as RFC 9457 describes it. Knows no page."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus


class Problem(Exception):  # noqa: N818 - RFC 9457's word
    """An answer that is not the one asked for."""

    def __init__(
        self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None, **more: str
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.headers, self.more = status, code, detail, headers or {}, more

    def as_json(self) -> dict[str, object]:
        """Members of RFC 9457, and `code`, which programs may rely on."""
        title = HTTPStatus(self.status).phrase
        return {"type": "about:blank", "title": title, "status": self.status, "code": self.code} | (
            {"detail": self.detail} | self.more
        )
