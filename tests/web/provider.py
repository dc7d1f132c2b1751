"""A small OpenID provider on loopback: it logs everybody in as the claims say, and can lie."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey


@dataclass(slots=True, kw_only=True)
class Provider:
    """What it says; change it between two logins."""

    address: str = ""
    claims: dict[str, Any] = field(default_factory=dict)
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "1"}))
    signs_with: RSAKey | None = None
    """Another key than the published one."""
    algorithm: str = "RS256"
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def id_token(self, nonce: str) -> str:
        """Sign the claims."""
        now = int(time.time())
        whole = {"iss": self.address, "aud": "node", "sub": "4711", "exp": now + 300, "iat": now, "nonce": nonce}
        key = self.signs_with or self.key
        return jwt.encode({"alg": self.algorithm, "kid": "1"}, whole | self.claims, key)

    def authorize(self, query: dict[str, str]) -> str:
        """The address that the browser is sent back to."""
        code = str(len(self.codes))
        self.codes[code] = query
        return f"{query['redirect_uri']}?state={query['state']}&code={code}"

    def token(self, form: dict[str, str]) -> dict[str, str] | None:
        """Exchange a code once; PKCE must fit (RFC 7636 4.6)."""
        asked = self.codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if asked is None or base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != asked["code_challenge"]:
            return None
        return {"access_token": "x", "token_type": "Bearer", "id_token": self.id_token(asked["nonce"])}


@contextmanager
def running() -> Iterator[Provider]:
    """Serve one."""
    provider = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(place.query).items()}
            if place.path == "/.well-known/openid-configuration":
                endpoints = {"authorization_endpoint": "/authorize", "token_endpoint": "/token", "jwks_uri": "/keys"}
                self._say(
                    {"issuer": provider.address} | {name: provider.address + path for name, path in endpoints.items()}
                )
            elif place.path == "/keys":
                self._say({"keys": [provider.key.as_dict(private=False)]})
            else:
                self.send_response(303)
                self.send_header("Location", provider.authorize(query))
                self.end_headers()

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"])).decode()
            found = provider.token({name: values[0] for name, values in parse_qs(content).items()})
            self._say(found or {"error": "invalid_grant"}, 200 if found else 400)

        def _say(self, content: dict[str, Any], status: int = 200) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Quietly."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, name="provider")
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
