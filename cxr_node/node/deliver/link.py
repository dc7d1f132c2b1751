"""What a destination of any kind is to the courier, and the table of the kinds.

The courier opens a link, chooses one of the SOP Classes that the destination accepts, stores, and closes when there is
nothing left to send. A new kind of destination is a class with these four methods, and a row in `link_to`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cxr_node.config.destinations import (
    AnyDestination,
    DicomDestination,
    DicomWebDestination,
    FhirDestination,
    Hl7Destination,
)
from cxr_node.errors import DeliveryError
from cxr_node.node.network.pictures import PictureCompressor
from cxr_node.node.network.rejections import Refusals


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultFile:
    """One result in one SOP Class: a Part 10 file in Explicit VR Little Endian, or of a picture in JPEG or JPEG-LS."""

    sop_class_uid: str
    size_bytes: int
    content: bytes = field(default=b"", repr=False, compare=False)
    """Its bytes, once it was chosen and they were read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreReply:
    """The destination accepted the object."""

    words: str
    """What it answered, for the log."""
    status: int | None = None
    """DIMSE status; None from a destination that has none."""
    is_warning: bool = False


class StaleConnectionError(DeliveryError):
    """A connection that had been idle broke: open it again and store the same once more, which changes nothing."""

    def __init__(self, message: str) -> None:
        super().__init__(message, permanent=False)


class Link(Protocol):
    """The connection to one destination. For one thread."""

    def open(self, alternatives: Sequence[ResultFile]) -> Sequence[ResultFile]:
        """Connect, unless it is connected; the alternatives that the destination accepts, in their order: at least one.

        `alternatives` are one result in several SOP Classes.

        Raises
        ------
        DeliveryError : there is no connection now (`UnreachableError`), or none of them will ever be accepted.
        """
        ...

    def store(self, file: ResultFile) -> StoreReply:
        """Hand over one of the files that `open` named last.

        Raises
        ------
        StaleConnectionError : `open` found the connection open, and it was lost.
        DeliveryError : the file was not accepted; says whether a repeat can help.
        """
        ...

    def close(self) -> None:
        """Disconnect; the next `open` connects again."""
        ...

    def probe(self) -> str:
        """Connect apart from all that, and say in one sentence that the destination answers (`cxr-node check`).

        Raises
        ------
        ConfigError, DeliveryError : it does not, and why.
        """
        ...


def link_to(
    destination: AnyDestination,
    node_ae_title: str,
    refusals: Refusals | None = None,
    compressor: PictureCompressor | None = None,
) -> Link:
    """Make the link to a destination; nothing is opened yet.

    A kind's module is imported where a destination is of that kind: other processes do without its libraries.

    Parameters
    ----------
    node_ae_title : how the node calls itself where the destination does not say otherwise
    refusals : counts what the destination refuses or breaks off
    compressor : compresses pictures where the destination accepts that, and decompresses them where it does not; None:
        all are uncompressed and leave so

    Raises
    ------
    ConfigError : a certificate or key cannot be used.
    """
    match destination:
        case DicomDestination():
            from cxr_node.node.deliver.storage_scu import StorageScu

            return StorageScu(destination, node_ae_title, refusals, compressor)
        case DicomWebDestination():
            from cxr_node.node.deliver.dicomweb import DicomWebLink

            return DicomWebLink(destination, refusals, compressor)
        case Hl7Destination():
            from cxr_node.node.deliver.mllp import MllpLink

            return MllpLink(destination)
        case FhirDestination():
            from cxr_node.node.deliver.fhir import FhirLink

            return FhirLink(destination, refusals)
