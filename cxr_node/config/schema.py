"""The whole configuration: one strict schema, read from one YAML file.

An unknown key is an error with its path and a suggestion; every key has a default except the four that
name a place (`config/node.yaml` shows them all). Imports no room.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from cxr_node.config import strict_yaml
from cxr_node.config.destinations import STANDARD_KINDS, AnyDestination, Destination, DicomDestination
from cxr_node.config.ledger import LedgerSection
from cxr_node.config.monitoring import AlertsSection, LogSection
from cxr_node.config.network import AETitle, Port, Tls
from cxr_node.config.page import Web
from cxr_node.config.section import Section
from cxr_node.config.storage import AnyStore, FileStore
from cxr_node.config.triage import Triage
from cxr_node.config.worklists import AnyWorklist
from cxr_node.domain import RuntimeKind
from cxr_node.result_kinds import Release, ReportPer, ResultKind, Wish
from cxr_node.times import known as known_zone

MAX_STUDY_WAIT_S = 3600.0
"""Longest time that a study is waited for."""
MAX_DELAY_S = 3600.0
"""Longest delay between two tries of a delivery; one that seems longer in the ledger was set by another clock."""


class Peer(Section):
    """A permitted caller: its AE title, hosts and certificates (empty: any)."""

    ae_title: AETitle
    hosts: tuple[str, ...] = ()
    certificate: tuple[Annotated[str, AfterValidator(strict_yaml.fingerprint_or_name)], ...] = ()
    """SHA-256 fingerprints, or names: a subjectAltName, or the Common Name of a certificate without any."""


class SopClasses(StrEnum):
    """For which Storage SOP Classes presentation contexts are accepted."""

    ALL = "all"  # one letter in it must not fail a routed study; what is not a radiograph is REJECTED
    RADIOGRAPHS = "radiographs"  # CT, MR, SR and all others get no context, and cost no disk


class Listen(Section):
    """The Storage and Verification SCP."""

    ae_title: AETitle = "CXR_NODE"
    host: str = "127.0.0.1"
    port: Port = 11112
    tls: Tls | None = None
    allow_plaintext: bool = False
    """Listen without TLS although other machines reach the port."""
    proxy_protocol: tuple[Annotated[str, AfterValidator(strict_yaml.network)], ...] = ()
    """Load balancers: addresses or networks that must, and alone may, name the peer they pass on (PROXY protocol 2)."""
    require_called_ae_title: bool = True
    peers: tuple[Peer, ...] = ()
    """Permitted callers; empty: everyone who can reach the port."""
    sop_classes: SopClasses = SopClasses.ALL
    max_associations: int = Field(default=32, ge=1, le=512)
    max_associations_per_host: int = Field(default=16, ge=1, le=512)
    """Keeps one host from taking all associations."""
    max_pdu_bytes: int = Field(default=131072, ge=16384, le=1048576)
    max_object_mib: int = Field(default=256, ge=1, le=4096)
    idle_timeout_s: float = Field(default=60.0, gt=0)
    """An association that is silent for this long is aborted."""
    drain_s: float = Field(default=0.0, ge=0, le=60)
    """After SIGTERM, so long new associations are rejected and those that are there go on; then it listens no more."""


class SpoolSection(Section):
    """Where received objects, results and the ledger are."""

    path: Path
    store: AnyStore = FileStore()
    """Objects, results and their notes; the rest stays below `path`, on a disk of this machine."""
    min_free_mib: int = Field(default=1024, ge=0)
    """Below this a C-STORE is answered 0xA700 before a byte is taken."""
    retention_days: float = Field(default=30.0, ge=0)
    """Objects and results of settled instances are deleted after this; their ledger rows stay."""
    rejected_days: float = Field(default=1.0, ge=0)
    """Objects that were rejected are deleted after this; not those that an operator may still admit."""
    history_days: float | None = Field(default=None, ge=0)
    """Ledger rows of settled instances go after this, so that the ledger stops growing; None: never."""

    @model_validator(mode="after")
    def _rows_outlive_bytes(self) -> SpoolSection:
        if self.history_days is not None and self.history_days < self.retention_days:
            raise ValueError("history_days must not be less than retention_days: a row outlives its bytes")
        return self


DEFAULT_PROFILE = "pneumonia-pediatric"


class Model(Section):
    """Which classifier."""

    profile: str = DEFAULT_PROFILE
    """A folder of the built-in weights, or the path of a profile folder."""
    others: tuple[str, ...] = ("pneumonia-adult",)
    """Further profiles, for patients whose age `profile` does not cover: the first of them that does answers.

    Beside another `profile` than the default none, unless named: nobody shall answer whom nobody chose.
    """
    site_calibrations: tuple[Path, ...] = ()
    """Files of `cxr-node calibrate --from-agreement`: a site's own thresholds, one file for a profile."""
    candidate: str | None = None
    """A further profile that judges what `profile` has answered, after it: kept, compared, never sent; None: none."""
    runtime: RuntimeKind = RuntimeKind.AUTO
    """What computes the network; a runtime whose answers differ from torch's in float32 is refused."""
    threads: int = Field(default=0, ge=0, le=256)
    """Threads of one worker's inference; 0: all cores of the machine."""

    @model_validator(mode="before")
    @classmethod
    def _others_belong_to_the_default(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("profile", DEFAULT_PROFILE) != DEFAULT_PROFILE:
            return {"others": ()} | given
        return given


class AgePolicy(StrEnum):
    """Effect of an age outside the profile's population."""

    ENFORCE = "enforce"
    WARN = "warn"
    IGNORE = "ignore"


class Admission(Section):
    """Which radiographs may be judged."""

    age_policy: AgePolicy = AgePolicy.ENFORCE
    min_size_px: int = Field(default=128, ge=32)
    max_pixels: int = Field(default=100_000_000, ge=1_000_000)
    """Rows x Columns beyond which pixel data is not decoded."""


class NormalHeatmap(StrEnum):
    """What the picture of a NORMAL shows."""

    NONE = "none"  # there is none
    BANNER = "banner"
    MAP = "map"


class Results(Section):
    """What every result object says about its origin, and whether it is sent."""

    manufacturer: str = "cxr_node project"
    installation_id: str = "cxr-node"
    """Serial number of this installation; part of every UID the node makes."""
    normal_heatmap: NormalHeatmap = NormalHeatmap.NONE
    max_heatmap_px: int = Field(default=1280, ge=1024, le=4096)
    """Long side of the heat map picture."""
    time_zone: Annotated[str, AfterValidator(known_zone)] | None = None
    """IANA name of the zone of study times without a UTC offset; None: the host's."""
    triage: Triage | None = None
    """Marks for the worklists of other systems; None: there are none."""
    release: Release = Release.LIVE
    """Shadow: results are made, kept and counted, and not sent, wherever a destination does not say otherwise."""
    release_share: float = Field(default=1.0, gt=0, le=1)
    """While they are live: of studies, those whose results are sent; the others stay in shadow."""
    shadow_keep_days: float = Field(default=30.0, gt=0)
    """What has been in shadow for so long expires, and is then kept as long as any other."""


class Study(Section):
    """When a study is ripe: all of it is there, as far as anybody can tell, and it is reported."""

    quiet_s: float = Field(default=15.0, ge=0, le=600)
    """After its last image."""
    max_wait_s: float = Field(default=120.0, ge=0, le=MAX_STUDY_WAIT_S)
    """After its first image that no report has, however many follow."""

    @model_validator(mode="after")
    def _quiet_is_within_the_wait(self) -> Self:
        if self.quiet_s > self.max_wait_s:
            raise ValueError("quiet_s must not be more than max_wait_s")
        return self


class Priors(Section):
    """From where the patient's earlier radiographs are fetched, to say what the same profile says of them."""

    source: str = Field(alias="from")
    """Name of a destination that answers C-FIND and C-GET."""
    studies: int = Field(default=1, ge=1, le=5)
    """How many earlier studies, the newest first."""
    years: float = Field(default=2.0, gt=0, le=100)
    """Older ones are left alone."""


class Delivery(Section):
    """When a failed delivery is tried again, and which result is too late."""

    first_delay_s: float = Field(default=5.0, gt=0)
    max_delay_s: float = Field(default=1800.0, gt=0, le=MAX_DELAY_S)
    max_age_h: float = Field(default=72.0, gt=0)
    not_after_min: float | None = Field(default=None, gt=0)
    """A result that is not sent so long after its image was received is kept and not sent; None: none is too late."""


class Work(Section):
    """How jobs are handed out."""

    lease_s: float = Field(default=120.0, gt=0)
    max_attempts: int = Field(default=3, ge=1, le=10)
    lanes: int = Field(default=0, ge=0, le=64)  # in hand at a time; 0: by cores, or as a batch needs


class Syslog(Section):
    """A collector of audit messages: syslog over TLS (PS3.15 A.6, RFC 5425)."""

    host: str
    port: Annotated[int, Field(ge=1, le=65535)] = 6514
    tls: Tls


class AuditSection(Section):
    """The audit trail of PS3.15 A.5: transfers, refused peers, start and stop of the node."""

    enabled: bool = True
    folder: Path | None = None
    """None: the folder `audit` of the spool."""
    source_id: str | None = Field(default=None, pattern=r"^[!-~]{1,64}$")
    """AuditSourceID of every message; None: results.installation_id; with `ledger.url` each machine adds its name."""
    keep_days: float = Field(default=183.0, gt=0)
    """Older messages are deleted, once the collector has them where there is one. Six months: EU AI Act, article 26."""
    max_mib: int = Field(default=1024, ge=64)
    """Beyond this the oldest messages are deleted, collected or not."""
    syslog: Syslog | None = None


_NOT_IN_A_RESULT = {"time_zone", "release", "release_share", "shadow_keep_days"}


class Config(Section):
    """The whole configuration."""

    listen: Listen = Listen()
    spool: SpoolSection
    ledger: LedgerSection = LedgerSection()
    model: Model = Model()
    admission: Admission = Admission()
    results: Results = Results()
    work: Work = Work()
    study: Study = Study()
    priors: Priors | None = None
    """None: none are fetched."""
    delivery: Delivery = Delivery()
    audit: AuditSection = AuditSection()
    log: LogSection = LogSection()
    web: Web | None = None
    """None: there is no page, nobody counts, nobody is alerted."""
    alerts: AlertsSection = AlertsSection()
    destinations: tuple[AnyDestination, ...] = ()
    worklists: tuple[AnyWorklist, ...] = ()
    """From where work items are pulled; none: images come unasked."""

    @model_validator(mode="after")
    def _names_are_unique(self) -> Config:
        names = [destination.name for destination in self.destinations]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two destinations are named {sorted(twice)[0]!r}; names must differ")
        return self

    @model_validator(mode="after")
    def _priors_come_from_a_destination(self) -> Config:
        archives = {each.name for each in self.destinations if isinstance(each, DicomDestination)}
        if self.priors is not None and self.priors.source not in archives:
            raise ValueError(f"priors: from: there is no destination of kind dicom named {self.priors.source!r}")
        return self

    @model_validator(mode="after")
    def _worklists_stand_beside_destinations(self) -> Config:
        names = [each.name for each in (*self.destinations, *self.worklists)]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"worklists: there are two of the name {sorted(twice)[0]!r}; names must differ")
        archives = {each.name for each in self.destinations if isinstance(each, DicomDestination)}
        for each in self.worklists:
            if each.retrieve_from is not None and each.retrieve_from not in archives:
                raise ValueError(
                    f"worklists.{each.name}.retrieve_from: there is no destination of kind dicom named "
                    f"{each.retrieve_from!r}"
                )
        return self

    @property
    def wishes(self) -> dict[str, Wish]:
        """What the destinations want, by name."""
        return {each.name: replace(each.wish, live_share=self.live_share(each)) for each in self.destinations}

    def live_share(self, destination: Destination) -> float:
        """Of studies, the share whose results a destination is sent; the others stay in shadow."""
        if (destination.release or self.results.release) is Release.SHADOW:
            return 0.0
        own = destination.release_share
        if own is None and destination.release is None:
            own = self.results.release_share
        return 1.0 if own is None else own

    def kinds(self, per: ReportPer) -> frozenset[ResultKind]:
        """Kinds to make of each image or study: all that some destination wants, the standard ones without any."""
        if not self.destinations:
            return frozenset(STANDARD_KINDS if per is ReportPer.STUDY else ())
        wanted = (each for each in self.wishes.values() if each.per is per)
        return frozenset(kind for each in wanted for kind in (*each.kinds, *each.within))

    @property
    def answer_sha256(self) -> str:
        """Digest of everything here that can change a result's content; part of every UID the node makes.

        Without `results.time_zone`: what an object says of it, an offset, stands in its UIDs by itself, so that the
        same bytes have the same UIDs whether a zone was configured or found; and without what is not configured. And
        without what says whether it is sent: the same result is sent one day, under the same UIDs.
        """
        parts = {"admission": self.admission, "results": self.results}
        content = {
            name: part.model_dump(mode="json", exclude=_NOT_IN_A_RESULT, exclude_none=True)
            for name, part in parts.items()
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
