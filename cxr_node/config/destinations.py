"""The key `destinations`: who gets results, by which protocol.

Another kind is another class here, with a `kind` of its own, and a row in `KINDS`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from cxr_node.config.http import AnyTls, Authentication, HttpTls, Url
from cxr_node.config.network import Address, AETitle, Endpoint, Tls
from cxr_node.config.section import Section, by_kind
from cxr_node.result_kinds import SHAPES, Release, ReportPer, ResultKind, Wish

STANDARD_KINDS = (ResultKind.REPORT, ResultKind.MEASUREMENTS, ResultKind.HEATMAP)
"""What a destination gets by default: sentences, codes, and a picture."""


class DestinationTls(Tls):
    """As every `tls`, and the name that the destination's certificate must have."""

    server_name: str | None = None
    """DNS name or IP address in its certificate; None: the host of `address`."""


class Compression(StrEnum):
    """How a destination may get pictures: in fewer bytes."""

    AUTO = "auto"  # JPEG Baseline where it is taken, else what is lossless
    LOSSLESS = "lossless"  # JPEG-LS where it is taken, else RLE, else none
    NONE = "none"
    RLE = "rle"
    JPEG_LS = "jpeg-ls"

    @property
    def is_lossless(self) -> bool:
        """Whether the pixels must be those that were drawn."""
        return self is not Compression.AUTO


def _dicom_alone(kinds: tuple[ResultKind, ...]) -> tuple[ResultKind, ...]:
    """Refuse what is no DICOM object: a kind of destination is made for each of those.

    Raises
    ------
    ValueError : there is one.
    """
    if others := [kind.value for kind in kinds if not SHAPES[kind].is_dicom]:
        raise ValueError(f"{others[0]} is no DICOM object; write a destination of kind: {others[0]}")
    return kinds


class Destination(Section):
    """What every kind of destination has: for logs, status, audit and checks."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    timeout_s: float = Field(default=30.0, gt=0)
    idle_close_s: float = Field(default=10.0, ge=0)
    """A connection without work is closed after this."""
    release: Release | None = None
    """Shadow: what is for it is kept and not sent; None: `results.release`, with its share."""
    release_share: float | None = Field(default=None, gt=0, le=1)
    """Of studies, those whose results it is sent; None: all of them, or `results.release_share`."""

    @property
    def wish(self) -> Wish:
        """What it gets."""
        raise NotImplementedError

    @property
    def where(self) -> str:
        """Its address, for people."""
        raise NotImplementedError

    @property
    def host(self) -> str:
        """Its host, for the audit trail."""
        return "localhost"

    @property
    def ae_title(self) -> str:
        """Its AE title; "" if it has none."""
        return ""

    @property
    def tls_files(self) -> AnyTls | None:
        """Certificate shown to it, and CA it is checked against."""
        return None

    @property
    def commitment_wait_s(self) -> float | None:
        """How long to wait until it has committed itself to an object, or shows it; None: it is not asked."""
        return None

    @property
    def is_asked_to_commit(self) -> bool:
        """Whether it is asked for what it accepted, by Storage Commitment or QIDO-RS."""
        return self.commitment_wait_s is not None


class ArchiveDestination(Destination):
    """What gets DICOM objects has, by whichever protocol."""

    send: Annotated[tuple[ResultKind, ...], AfterValidator(_dicom_alone)] = STANDARD_KINDS
    """The others only where they apply: a key object for PNEUMONIA alone, and no region without an outline."""
    report_per: ReportPer = ReportPer.STUDY

    @property
    def wish(self) -> Wish:
        """As configured."""
        return Wish(per=self.report_per, kinds=self.send)


class DicomDestination(ArchiveDestination):
    """A Storage SCP that gets results."""

    kind: Literal["dicom"] = "dicom"
    address: Address
    tls: DestinationTls | None = None
    calling_ae_title: AETitle | None = None
    """Our AE title towards it; None: the one that the node listens with."""
    heatmap_compression: Compression = Compression.AUTO
    """Of heatmap and heatmap-frames, where the destination takes it, under the same SOP Instance UID."""
    commitment_wait_h: float | None = Field(default=None, gt=0)
    """Request Storage Commitment, and wait this long for the report; None: not requested."""

    @property
    def where(self) -> str:
        """AE@host:port."""
        return str(self.address)

    @property
    def host(self) -> str:
        """Host of its address."""
        return self.address.host

    @property
    def ae_title(self) -> str:
        """AE title of its address."""
        return self.address.ae_title

    @property
    def tls_files(self) -> Tls | None:
        """As configured."""
        return self.tls

    @property
    def commitment_wait_s(self) -> float | None:
        """As configured."""
        return None if self.commitment_wait_h is None else 3600.0 * self.commitment_wait_h


class HttpDestination(Destination):
    """What every destination that speaks HTTP has."""

    url: Url
    tls: HttpTls | None = None
    """None: the machine's authorities are believed, and no certificate is shown."""
    authentication: Authentication | None = None
    allow_plaintext: bool = False
    """Send results over http to another machine."""
    proxy: Url | None = None
    """The HTTP proxy on the way to it, and to its token server; None: none, whatever the environment says."""

    @property
    def where(self) -> str:
        """Its URL."""
        return self.url

    @property
    def host(self) -> str:
        """Host of its URL."""
        return urlsplit(self.url).hostname or ""

    @property
    def tls_files(self) -> HttpTls | None:
        """As configured."""
        return self.tls


class DicomWebDestination(HttpDestination, ArchiveDestination):
    """An origin server that gets results by STOW-RS (PS3.18 10.5)."""

    kind: Literal["dicomweb"] = "dicomweb"
    verify_h: float | None = Field(default=None, gt=0)
    """Look by QIDO-RS for what it accepted, and send again what is not there after so long; None: not looked for."""

    @property
    def commitment_wait_s(self) -> float | None:
        """As configured."""
        return None if self.verify_h is None else 3600.0 * self.verify_h


class Hl7CharacterSet(StrEnum):
    """Of MSH-18 (HL7 table 0211); the value is what stands there."""

    UTF_8 = "UNICODE UTF-8"
    ASCII = "ASCII"
    LATIN_1 = "8859/1"
    LATIN_2 = "8859/2"
    CYRILLIC = "8859/5"
    ARABIC = "8859/6"
    GREEK = "8859/7"
    HEBREW = "8859/8"
    LATIN_5 = "8859/9"
    LATIN_9 = "8859/15"

    @property
    def encoding(self) -> str:
        """What Python calls it."""
        if self is Hl7CharacterSet.UTF_8:
            return "utf-8"
        return self.value.lower().replace("8859/", "iso8859-")


_HD = r"^[^|^~\\&\x00-\x1f\x7f]{0,180}(\^[^|~\\&\x00-\x1f\x7f]{0,180})?$"
"""A name, or a name with a universal identifier and its type behind carets."""


class MessageDestination(Destination):
    """What gets a report as a message: of the whole study, for of two messages about one order the last one counts."""

    kind: str

    @property
    def wish(self) -> Wish:
        """The one kind of result that it reads."""
        return Wish(per=ReportPer.STUDY, kinds=(ResultKind(self.kind),))


class Hl7Destination(MessageDestination):
    """A system that takes HL7 version 2 messages over MLLP: a RIS, or an integration engine."""

    kind: Literal["hl7"] = "hl7"
    address: Endpoint
    tls: DestinationTls | None = None
    allow_plaintext: bool = False
    """Send without TLS to another machine."""
    character_set: Hl7CharacterSet = Hl7CharacterSet.UTF_8
    sending_application: str = Field(default="CXR_NODE", pattern=_HD)
    sending_facility: str = Field(default="", pattern=_HD)
    receiving_application: str = Field(default="", pattern=_HD)
    receiving_facility: str = Field(default="", pattern=_HD)
    processing_id: Literal["P", "T", "D"] = "P"
    """MSH-11: production, training or debugging."""

    @property
    def where(self) -> str:
        """mllp://host:port."""
        return f"{'mllps' if self.tls else 'mllp'}://{self.address}"

    @property
    def host(self) -> str:
        """Host of its address."""
        return self.address.host

    @property
    def tls_files(self) -> Tls | None:
        """As configured."""
        return self.tls


class PatientReference(StrEnum):
    """How a FHIR server is told whose a report is."""

    IDENTIFIER = "identifier"  # by the identifier alone: the server need not know the patient, and may not link it
    SEARCH = "search"  # the one Patient that has it: where the server has none, or several, the report waits
    CREATE = "create"  # as search; where the server has none, one is made of name, sex and birth date


class FhirDestination(HttpDestination, MessageDestination):
    """A FHIR R4 server that gets a report as a transaction."""

    kind: Literal["fhir"] = "fhir"
    patient: PatientReference = PatientReference.IDENTIFIER
    patient_system: str | None = Field(default=None, pattern=r"^[A-Za-z][A-Za-z0-9+.-]*:[!-{}~]+$")
    """URI of whoever gives Patient IDs, where the image does not name it by one."""
    pdf: bool = False
    """With the page of each image that the verdict rests on, as an attachment of the report."""
    pdf_max_mib: float = Field(default=8.0, gt=0, le=64)
    """Pages of one report, all in all; where they have more, the report goes without them."""

    @property
    def wish(self) -> Wish:
        """The bundle, and pages in it."""
        return Wish(per=ReportPer.STUDY, kinds=(ResultKind.FHIR,), within=(ResultKind.PDF,) if self.pdf else ())

    @model_validator(mode="after")
    def _no_patient_is_guessed(self) -> Self:
        if self.patient is not PatientReference.IDENTIFIER and self.patient_system is None:
            raise ValueError(
                f"patient: {self.patient} needs patient_system: the same number may be another's elsewhere"
            )
        return self


KINDS: dict[str, type[Destination]] = {
    "dicom": DicomDestination,
    "dicomweb": DicomWebDestination,
    "hl7": Hl7Destination,
    "fhir": FhirDestination,
}
AnyDestination = Annotated[
    DicomDestination | DicomWebDestination | Hl7Destination | FhirDestination,
    BeforeValidator(by_kind(KINDS, "dicom")),
]
"""One destination, of any kind; validated by its kind, so that an error names that kind's keys only."""
