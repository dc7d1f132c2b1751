"""Part 10 bytes or a file to a checked header; hostile input ends in `InstanceError` or `Rejected`, never elsewhere.

PS3.10 7.1 (file meta information), PS3.5 9.1 (UIDs).
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from pydicom import Dataset
from pydicom.multival import MultiValue

from cxr_node.dicom.part10 import attach, foreign_faults, parse, quiet, raw_text, settle
from cxr_node.dicom.read import age, character_sets, encoding_check
from cxr_node.dicom.read.keys import accession_key
from cxr_node.domain import InstanceRef, Reason, View
from cxr_node.errors import ContradictionError, InstanceError, ResourceError
from cxr_node.outcome import Rejected

MAX_PIXEL_BITS = 8 * 1024**3
"""Rows x Columns x Bits Allocated x Samples x Frames that a header may claim: 1 GiB, four times the largest object."""

_UID = re.compile(r"(?=.{1,64}$)[0-9]+(\.[0-9]+)*")
"""PS3.5 9.1, but for leading zeros, which some devices write."""
SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
"""The one in the patient first (PS3.3 10.7)."""
MAX_STATION_CHARS = 16
"""VR SH (PS3.5 6.2)."""
_META_GROUP = 0x0002
_WANTED = frozenset(
    (
        *(0x00020002, 0x00020003, 0x00020010, 0x00080016, 0x00080018, 0x0020000D, 0x0020000E),  # UIDs
        *(0x00080050, 0x00100020),  # Accession Number, Patient ID
        *(0x00080005, 0x00081010),  # Specific Character Set, Station Name
        *(0x00280002, 0x00280008, 0x00280010, 0x00280011, 0x00280100),  # size of the pixel data
    )
)
"""What `inspect` reads."""
Text = Callable[[int], str]
"""Tells an attribute's raw value as text, by its tag."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """What a file on disk claims to be, without its pixel data; an absent number is 0 (samples and frames: 1)."""

    ref: InstanceRef
    rows: int
    columns: int
    bits_allocated: int
    samples: int
    frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A received instance: every attribute of the data set is converted and safe to read.

    `dataset` : without private attributes; pixel data, if any, as received (`decoders` turns it into stored values)
    `unreadable` : tags of attributes that were there but could not be read, and were dropped
    """

    dataset: Dataset = field(repr=False)
    ref: InstanceRef
    unreadable: frozenset[int] = frozenset()

    @property
    def modality(self) -> str:
        """Modality (0008,0060) in capitals, or ""."""
        return self.text("Modality").upper()

    @property
    def view(self) -> View:
        """PA or AP where the header tells it."""
        from cxr_node.dicom.read import projection  # its words cost time and memory, and the receiver reads none

        return projection.frontal_view(self.dataset)

    @property
    def age_years(self) -> float | None:
        """Age at the examination in years, not rounded; None where the header does not tell it."""
        found = age.evidence(self.text)
        return found[0].years if found else None

    @property
    def spacing_mm(self) -> tuple[float, float] | None:
        """Distance between rows, and between columns, as the header states it; None where it does not."""
        for keyword in SPACINGS:
            stated = self.numbers(keyword)
            if len(stated) == 2 and all(math.isfinite(value) and value > 0 for value in stated):
                return stated[0], stated[1]
        return None

    def text(self, keyword: str) -> str:
        """One attribute as text, "" where it is absent or empty; several values joined by a backslash."""
        with quiet():
            value = self.dataset.get(keyword)
        if isinstance(value, MultiValue):
            return "\\".join(str(part) for part in value).strip()
        return "" if value is None else str(value).strip()

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """All values of a numeric attribute; () where it is absent, empty or not numeric."""
        value = self.dataset.get(keyword)
        parts = value if isinstance(value, (MultiValue, list)) else [value]
        try:
            return tuple(float(part) for part in parts)
        except (TypeError, ValueError, OverflowError):
            return ()

    def integer(self, keyword: str, default: int = 0) -> int:
        """First value of a numeric attribute, whole; `default` where it is absent or no whole number."""
        values = self.numbers(keyword)
        return int(values[0]) if values and values[0].is_integer() else default


def read(content: bytes) -> Source | Rejected:
    """Read a Part 10 file into a `Source`, or say why it cannot be read."""
    try:
        with foreign_faults():
            dataset, pixels = parse(io.BytesIO(content), len(content))
            if not (raw_text(dataset, 0x0020000D) and raw_text(dataset, 0x0020000E)):
                return Rejected(
                    reason=Reason.IDENTITY_EMPTY, sentence="The study or series that it belongs to is not stated."
                )
            ref = _reference(lambda tag: raw_text(dataset.file_meta if tag >> 16 == _META_GROUP else dataset, tag))
            if pixels is not None:
                attach(dataset, pixels, content)
            plain, unreadable = settle(dataset)
            return Source(dataset=plain, ref=ref, unreadable=unreadable)
    except InstanceError as error:
        return Rejected(reason=Reason.UNREADABLE_HEADER, sentence=f"The object cannot be read: {error}.")


def inspect(path: Path) -> Inspected:
    """Check that a file on disk can be walked to its end, and read its header; pixel data is not read.

    Raises InstanceError: not parsable, UIDs missing or ill-formed (PS3.5 9.1), file meta information absent or
    contradicting the data set, an absurd size. The sentence holds no value of the object; ResourceError: this machine
    cannot read the file.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise ResourceError(f"a received file cannot be read: {error.strerror}") from error
    with file, foreign_faults():
        values = encoding_check.check(file, os.fstat(file.fileno()).st_size, _WANTED)
        inspected = Inspected(
            ref=_reference(values.text),
            rows=values.number(0x00280010, 0),
            columns=values.number(0x00280011, 0),
            bits_allocated=values.number(0x00280100, 0),
            samples=values.number(0x00280002, 1),
            frames=values.number(0x00280008, 1),
        )
    bits = inspected.bits_allocated * max(inspected.samples, 1) * max(inspected.frames, 1)
    if inspected.rows * inspected.columns * bits > MAX_PIXEL_BITS:
        raise InstanceError("its image would be larger than any radiograph")
    return inspected


def identify(path: Path) -> InstanceRef:
    """Check a file as `inspect` does; which SOP Instance it is."""
    return inspect(path).ref


def _reference(text: Text) -> InstanceRef:
    ref = InstanceRef(
        study_instance_uid=_uid(text, 0x0020000D, "Study Instance UID"),
        series_instance_uid=_uid(text, 0x0020000E, "Series Instance UID"),
        sop_instance_uid=_uid(text, 0x00080018, "SOP Instance UID"),
        sop_class_uid=_uid(text, 0x00080016, "SOP Class UID"),
        transfer_syntax_uid=_uid(text, 0x00020010, "Transfer Syntax UID"),
        patient_key=_patient_key(text),
        accession_key=accession_key(accession) if (accession := text(0x00080050)) else None,
        station_name=character_sets.ascii_folded(text(0x00081010), text(0x00080005), MAX_STATION_CHARS) or None,
    )
    claimed = text(0x00020002), text(0x00020003)
    for named, is_ in zip(claimed, (ref.sop_class_uid, ref.sop_instance_uid), strict=True):
        if named and named != is_:
            raise ContradictionError("its file meta information contradicts its data set")
    return ref


def _patient_key(text: Text) -> str:
    """One study's patient as one digest; "" where there is no Patient ID, for nobody is guessed.

    The issuer is left out: archives add it to some images of a study and not to others, and within one study the
    same Patient ID of another issuer is not met.
    """
    patient_id = text(0x00100020)
    if not patient_id:
        return ""
    return sha256("\0".join((text(0x0020000D), patient_id)).encode("utf-8", "surrogateescape")).hexdigest()


def _uid(text: Text, tag: int, name: str) -> str:
    value = text(tag)
    if _UID.fullmatch(value) is None:
        raise InstanceError(f"its {name} is missing or ill-formed")
    return value
