"""The key `worklists`: from where work items are pulled (Unified Procedure Steps, PS3.4 Annex CC, IHE AIW-I)."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from cxr_node.config.destinations import DestinationTls, DicomDestination, HttpDestination
from cxr_node.config.http import Authentication, HttpTls, Url
from cxr_node.config.network import Address, AETitle
from cxr_node.config.section import Section, by_kind

_FORM = re.compile(r"(?P<value>[^^]*)\^(?P<scheme>[^^]*)\^(?P<meaning>[^^]*)")
_WORD = r"^[!-)+->@-\[\]-~]+$"
"""The same, of what is asked for: without wildcards and spaces."""
_TEXT = r"^[ -\[\]-~]*[!-\[\]-~][ -\[\]-~]*$"
"""ASCII without a backslash: a list of values in an identifier (PS3.5 6.2), and neither may it be empty."""


class Code(Section):
    """A coded entry, written VALUE^SCHEME^MEANING (PS3.3 8)."""

    value: str = Field(pattern=_WORD, max_length=16)
    scheme: str = Field(pattern=_WORD, max_length=16)
    meaning: str = Field(pattern=_TEXT, max_length=64)

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, given: Any) -> Any:
        if not isinstance(given, str):
            return given
        found = _FORM.fullmatch(given.strip())
        if found is None:
            raise ValueError(f"{given!r} is no code; write VALUE^SCHEME^MEANING, for example 110005^DCM^Interpretation")
        return {name: part.strip() for name, part in found.groupdict().items()}

    def __str__(self) -> str:
        return f"{self.value}^{self.scheme}^{self.meaning}"


class Worklist(Section):
    """What every kind of worklist has."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,40}$")
    """How logs, status and trace call it."""
    workitem_code: Code
    """Scheduled Workitem Code of the items that are for this node."""
    station_name: Code | None = None
    """Scheduled Station Name Code of those items; None: those of any station, or of none."""
    retrieve_from: str | None = None
    """A destination of kind dicom that images are fetched from; None: the one whose AE title the item names, if any."""
    every_s: float = Field(default=30.0, ge=1, le=3600)
    """How often it is looked into."""
    claim_max: int = Field(default=4, ge=1, le=100)
    """Items in hand at a time."""
    images_within_min: float = Field(default=10.0, gt=0, le=1440)
    """An item whose images are not all there so long after it was claimed is canceled."""
    done_within_min: float = Field(default=60.0, gt=0, le=10080)
    """An item whose report is not stored so long after it was claimed is canceled."""
    timeout_s: float = Field(default=30.0, gt=0, le=30)
    idle_close_s: float = Field(default=10.0, ge=0)
    """A connection without work is closed after this."""

    @model_validator(mode="after")
    def _images_come_before_reports(self) -> Self:
        if self.images_within_min > self.done_within_min:
            raise ValueError("images_within_min must not be more than done_within_min")
        return self

    @property
    def where(self) -> str:
        """Its address, for people."""
        raise NotImplementedError


class UpsWorklist(Worklist):
    """A Unified Procedure Step manager that speaks DIMSE: UPS Pull SCP."""

    kind: Literal["ups"] = "ups"
    address: Address
    tls: DestinationTls | None = None
    calling_ae_title: AETitle | None = None
    """Our AE title towards it; None: the one that the node listens with."""

    @property
    def where(self) -> str:
        """AE@host:port."""
        return str(self.address)

    @property
    def peer(self) -> DicomDestination:
        """The manager, as an association is opened with one."""
        return DicomDestination(
            name=self.name,
            address=self.address,
            tls=self.tls,
            calling_ae_title=self.calling_ae_title,
            timeout_s=self.timeout_s,
        )


class UpsRsWorklist(Worklist):
    """A Unified Procedure Step manager that speaks HTTP (PS3.18 11)."""

    kind: Literal["ups-rs"] = "ups-rs"
    url: Url
    tls: HttpTls | None = None
    """None: the machine's authorities are believed, and no certificate is shown."""
    authentication: Authentication | None = None
    allow_plaintext: bool = False
    """Speak http to another machine."""
    proxy: Url | None = None
    """The HTTP proxy on the way to it, and to its token server; None: none, whatever the environment says."""

    @property
    def where(self) -> str:
        """Its URL."""
        return self.url

    @property
    def server(self) -> HttpDestination:
        """The manager, as HTTP requests are sent to one."""
        return HttpDestination(
            name=self.name,
            url=self.url,
            tls=self.tls,
            authentication=self.authentication,
            allow_plaintext=self.allow_plaintext,
            proxy=self.proxy,
            timeout_s=self.timeout_s,
        )


KINDS: dict[str, type[Worklist]] = {"ups": UpsWorklist, "ups-rs": UpsRsWorklist}
AnyWorklist = Annotated[UpsWorklist | UpsRsWorklist, BeforeValidator(by_kind(KINDS, "ups"))]
"""One worklist, of any kind; validated by its kind, so that an error names that kind's keys only."""
