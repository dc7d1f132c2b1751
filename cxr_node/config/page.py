"""The section `web`: the page, and who may see it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from cxr_node.config import strict_yaml
from cxr_node.config.network import AETitle
from cxr_node.config.section import File, Section


class WebTls(Section):
    """Certificate and key of the page; PEM files. A browser shows no certificate of its own."""

    certificate: File
    key: File
    ca: File | None = None
    """Authority of the certificates that senders show (`web.stow`); whoever shows none is not asked again."""


class Oidc(Section):
    """Users of the hospital's identity provider (OpenID Connect)."""

    issuer: str = Field(pattern=r"^https?://\S+$")
    client_id: str
    client_secret: File
    claim: str = "groups"
    """Claim of the ID token that says what a person may do."""
    operators: tuple[str, ...] = ()
    """Values of the claim that make an operator."""
    readers: tuple[str, ...] = ()
    """Values of the claim that make a reader: a radiologist, who says on the page whether an answer is right."""
    viewers: tuple[str, ...] = ()
    """Values of the claim that make a viewer; whoever has none of these is refused."""


class TrySection(Section):
    """The page and the API that judge one file and keep nothing."""

    enabled: bool = True
    max_file_mib: int = Field(default=256, ge=1, le=1024)
    max_files: int = Field(default=16, ge=1, le=256)
    per_minute: int = Field(default=60, ge=1)
    """Files that one client may have judged in a minute."""
    timeout_s: float = Field(default=120.0, gt=0)
    """One file takes no longer; its process ends then, and another is started for the next."""
    idle_unload_s: float = Field(default=600.0, ge=0)
    """The network is unloaded after so long without a file."""


class StowSender(Section):
    """Who may store over HTTP; all that is written here must be right of one and the same request."""

    name: AETitle
    """Stands where the calling AE title of a C-STORE does."""
    key: File | None = None
    """A file with the sender's key, of mode 0600."""
    certificate: tuple[Annotated[str, AfterValidator(strict_yaml.fingerprint_or_name)], ...] = ()
    """Fingerprints or names of the certificates that it may show, as in `listen.peers`; empty: it need not show one."""
    hosts: tuple[str, ...] = ()
    """Its hosts, as in `listen.peers`; empty: any."""

    @model_validator(mode="after")
    def _is_proven(self) -> Self:
        if self.key is None and not self.certificate:
            raise ValueError(f"{self.name} needs a key or a certificate: a name proves nothing")
        return self


class Stow(Section):
    """Radiographs by STOW-RS (PS3.18 10.5), by the same rules as by C-STORE."""

    senders: tuple[StowSender, ...]
    max_request_mib: int = Field(default=4096, ge=1, le=65536)
    """All instances of one request; of each, `listen.max_object_mib`."""
    max_requests: int = Field(default=8, ge=1, le=32)
    """At a time; beyond them 503."""
    max_requests_per_sender: int = Field(default=4, ge=1, le=32)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        if not self.senders:
            raise ValueError("senders: is empty; name who may store, or write stow: null")
        names = [each.name for each in self.senders]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two senders are named {sorted(twice)[0]!r}; names must differ")
        return self


class Web(Section):
    """The page, the API, health and metrics."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8042
    tls: WebTls | None = None
    users: Path | None = None
    """File of local users and API keys, written by `cxr-node user`; needed where others than this machine reach it."""
    oidc: Oidc | None = None
    proxies: tuple[str, ...] = ()
    """Addresses of the reverse proxies whose X-Forwarded-For and X-Forwarded-Proto are believed."""
    names: tuple[str, ...] = ()
    """Host names by which browsers reach the page, besides `host` and this machine's own."""
    session_h: float = Field(default=8.0, gt=0, le=168)
    """A login lasts so long without being used."""
    show_images: bool = False
    """Show the heat maps and reports that were sent, on the page of a study."""
    try_files: TrySection = Field(default=TrySection(), alias="try")
    stow: Stow | None = None
    """None: nobody stores over HTTP."""
