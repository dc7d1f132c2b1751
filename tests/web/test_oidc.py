"""Login by an identity provider, a true one and one that lies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc.jwk import OctKey, RSAKey

from tests.web import provider as identity
from tests.web.site import Site, Visitor, opened


@pytest.fixture(scope="module")
def provider() -> Iterator[identity.Provider]:
    with identity.running() as provider:
        yield provider


@pytest.fixture(scope="module")
def site(provider: identity.Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("site")
    secret = folder / "secret"
    secret.touch(0o600)
    secret.write_text("s3cret\n")
    section = {
        "issuer": provider.address,
        "client_id": "node",
        "client_secret": str(secret),
        "operators": ["pacs-admins"],
        "viewers": ["radiologists"],
    }
    with opened(folder, users=False, web={"oidc": section}) as site:
        yield site


@pytest.fixture(autouse=True)
def truthful(provider: identity.Provider) -> None:
    provider.claims, provider.signs_with, provider.algorithm = {"groups": ["radiologists"]}, None, "RS256"


def logged_in(visitor: Visitor) -> httpx.Response:
    """Follow the browser's way to the provider and back."""
    asked = visitor.get("/login/oidc")
    assert asked.status_code == 303
    back = httpx.get(asked.headers["location"]).headers["location"]
    return visitor.get(back)


@pytest.mark.parametrize(("groups", "role"), [(["radiologists"], "viewer"), (["x", "pacs-admins"], "operator")])
def test_a_claim_says_what_a_person_may_do(
    site: Site, provider: identity.Provider, groups: list[str], role: str
) -> None:
    provider.claims = {"groups": groups, "preferred_username": "olga"}
    visitor = site.visitor()
    assert visitor.get("/").status_code == 303
    answer = logged_in(visitor)
    assert answer.status_code == 200 and "You are logged in" in answer.text
    assert f"olga ({role})" in visitor.get("/").text
    assert "olga" in site.audited()


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"groups": []}, 403),
        ({"groups": "unknown"}, 403),
        ({"iss": "http://evil.example"}, 502),
        ({"aud": "another"}, 502),
        ({"exp": 1}, 502),
        ({"nonce": "another"}, 502),
    ],
)
def test_a_token_that_proves_nothing_is_refused(
    site: Site, provider: identity.Provider, claims: dict[str, Any], status: int
) -> None:
    provider.claims |= claims
    visitor = site.visitor()
    assert logged_in(visitor).status_code == status
    assert visitor.get("/").status_code == 303


def test_a_token_of_another_key_is_refused(site: Site, provider: identity.Provider) -> None:
    provider.signs_with = RSAKey.generate_key(2048, {"kid": "1"})
    assert logged_in(site.visitor()).status_code == 502


def test_a_token_signed_with_the_clients_secret_is_refused(site: Site, provider: identity.Provider) -> None:
    provider.algorithm, provider.signs_with = "HS256", OctKey.import_key(os.urandom(32), {"kid": "1"})  # type: ignore[assignment]
    assert logged_in(site.visitor()).status_code == 502


def test_a_login_belongs_to_the_browser_that_began_it(site: Site) -> None:
    begun, other = site.visitor(), site.visitor()
    back = httpx.get(begun.get("/login/oidc").headers["location"]).headers["location"]
    assert other.get(back).status_code == 403
    assert begun.get(back).status_code == 403, "a state is used once"
    state = parse_qs(urlsplit(back).query)["state"][0]
    assert begun.get(f"/login/oidc/callback?state={state}x&code=1").status_code == 403


def test_a_provider_that_is_down_is_a_sentence(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.touch(0o600)
    section = {"issuer": "http://127.0.0.1:9", "client_id": "node", "client_secret": str(secret)}
    with opened(tmp_path, users=False, web={"oidc": section}) as site:
        answer = site.visitor().get("/login/oidc")
        assert answer.status_code == 502 and "does not answer" in answer.text
