"""How another machine is named and believed: AE title, port, address, certificates."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from cxr_node.config import permissions, strict_yaml
from cxr_node.config.section import File, Section

AETitle = Annotated[str, AfterValidator(strict_yaml.ae_title)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Tls(Section):
    """Certificate and key to show, CA to believe; PEM files. Both sides are authenticated."""

    certificate: File
    key: File
    ca: File
    crl: File | None = None
    """Certificates that the CA has revoked, as PEM, renewed before it expires; None: revocation is not checked."""

    def located(self) -> Self:
        """Name the files where they are: credentials looked up, the key closed to others.

        Raises
        ------
        ConfigError : there is no such credential, or others may read the key.
        """
        places = {"certificate": self.certificate, "ca": self.ca, "crl": self.crl}
        found = {name: permissions.place(path) for name, path in places.items() if path is not None}
        return self.model_copy(update={**found, "key": permissions.private_key(self.key)})


class Endpoint(Section):
    """host:port."""

    host: str
    port: Annotated[int, Field(ge=1, le=65535)]

    _form: ClassVar[re.Pattern[str]] = re.compile(r"(?P<host>\[[^\]]+\]|[^:\s@]+):(?P<port>\d{1,5})")
    _hint: ClassVar[str] = "is not host:port; write for example ris.example.org:2575"

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        match = cls._form.fullmatch(value.strip())
        if match is None:
            raise ValueError(f"{value!r} {cls._hint}")
        return {**match.groupdict(), "host": match["host"].strip("[]")}

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Address(Endpoint):
    """AE@host:port."""

    ae_title: AETitle

    _form = re.compile(r"(?P<ae_title>[^@]+)@(?P<host>\[[^\]]+\]|[^:\s]+):(?P<port>\d{1,5})")
    _hint = "is not a DICOM address; write AE@host:port, for example ORTHANC@127.0.0.1:4242"

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}:{self.port}"
