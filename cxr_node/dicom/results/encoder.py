"""A finished data set to Part 10 files, one for each name it is given.

ASCII text, sequences and what is carried as it was sent are encoded here: pydicom's writer takes ten times as long, and
gets the rest. A test compares whole files with it. PS3.10 7.1; PS3.5 7.1.2 Explicit VR, 7.5 sequences, A.2.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, cast

from pydicom import Dataset
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR, EXPLICIT_VR_LENGTH_32

from cxr_node.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, quiet

Element = DataElement | RawDataElement
_LONG = frozenset(str(vr) for vr in EXPLICIT_VR_LENGTH_32)
"""VRs whose length has 32 bits, after two that are reserved."""
_BINARY = frozenset({"OB", "UI", "UN"})
"""VRs that are padded with a zero byte."""
_MAX_SHORT_BYTES = 0xFFFE
_HEAD, _LONG_HEAD, _ITEM = struct.Struct("<HH2sH"), struct.Struct("<HH2sxxI"), struct.Struct("<HHI")
_SOP_CLASS_UID, _SOP_INSTANCE_UID = 0x00080016, 0x00080018


def to_part10(dataset: Dataset) -> bytes:
    """Part 10 file in Explicit VR Little Endian; the same data set gives the same bytes in every process."""
    return to_part10_each(dataset, [(dataset.SOPClassUID, dataset.SOPInstanceUID)])[0]


def to_bytes(dataset: Dataset) -> bytes:
    """Encode a data set alone, for a digest of it: as it would stand in a file."""
    return b"".join(_parts(_ordered(dataset), dataset.get("SpecificCharacterSet", "")))


def item(elements: bytes) -> bytes:
    """Encoded elements as an item of a sequence, with its length (PS3.5 7.5.1)."""
    return _ITEM.pack(0xFFFE, 0xE000, len(elements)) + elements


def element(tag: int, vr: str, value: bytes) -> bytes:
    """Encode one element, padded to even length.

    Raises struct.error: the value is longer than its VR allows.
    """
    return b"".join(_explicit(tag, vr, _padded(value, b"\0" if vr in _BINARY else b" ")))


def to_part10_each(dataset: Dataset, names: Sequence[tuple[str, str]]) -> list[bytes]:
    """Encode once, and give the result several names: as `to_part10` under each SOP Class and SOP Instance UID."""
    ordered = _ordered(dataset)  # first: `get` converts, and the character set too is carried as it was sent
    charset = dataset.get("SpecificCharacterSet", "")
    before = _parts([each for each in ordered if each.tag < _SOP_CLASS_UID], charset)
    after = _parts([each for each in ordered if each.tag > _SOP_INSTANCE_UID], charset)
    files = []
    for sop_class_uid, sop_instance_uid in names:
        own = (*_uid(_SOP_CLASS_UID, sop_class_uid), *_uid(_SOP_INSTANCE_UID, sop_instance_uid))
        files.append(b"".join((*_file_meta(sop_class_uid, sop_instance_uid), *before, *own, *after)))
    return files


def _file_meta(sop_class_uid: str, sop_instance_uid: str) -> tuple[bytes, ...]:
    elements = (
        *_explicit(0x00020001, "OB", b"\0\1"),
        *_uid(0x00020002, sop_class_uid),
        *_uid(0x00020003, sop_instance_uid),
        *_uid(0x00020010, ExplicitVRLittleEndian),
        *_uid(0x00020012, IMPLEMENTATION_CLASS_UID),
        *_explicit(0x00020013, "SH", _padded(IMPLEMENTATION_VERSION_NAME.encode("ascii"), b" ")),
    )
    length = struct.pack("<I", sum(len(part) for part in elements))
    return bytes(128), b"DICM", *_explicit(0x00020000, "UL", length), *elements


def _ordered(dataset: Dataset) -> list[Element]:
    """Elements by tag, as they are: pydicom would convert what was carried."""
    return [element for _, element in sorted(dataset.items(), key=lambda item: int(item[0]))]


def _parts(elements: Iterable[Element], charset: str | list[str]) -> list[bytes]:
    """Encode elements to pieces of a file, which are joined only once: pixel data is large."""
    return [part for element in elements for part in _element(element, charset)]


def _element(element: Element, charset: str | list[str]) -> tuple[bytes, ...]:
    vr, value = str(element.VR), cast(Any, element.value)
    encoded: bytes | None = None
    if isinstance(element, RawDataElement):
        encoded = value or b""
    elif vr == "SQ":
        encoded = b"".join([part for item in value for part in _item(item, charset)])
    elif isinstance(value, str) and value.isascii():
        encoded = _padded(value.encode("ascii"), b"\0" if vr == "UI" else b" ")
    elif isinstance(value, bytes):
        encoded = _padded(value, b"\0")
    if encoded is None or (vr not in _LONG and len(encoded) > _MAX_SHORT_BYTES):
        return (_by_pydicom(element, charset),)
    return _explicit(int(element.tag), vr, encoded)


def _item(item: Dataset, charset: str | list[str]) -> tuple[bytes, bytes]:
    encoded = b"".join(_parts(_ordered(item), charset))
    return _ITEM.pack(0xFFFE, 0xE000, len(encoded)), encoded


def _explicit(tag: int, vr: str, value: bytes) -> tuple[bytes, bytes]:
    """Tag, VR and length; and the value."""
    head = _LONG_HEAD if vr in _LONG else _HEAD
    return head.pack(tag >> 16, tag & 0xFFFF, vr.encode("ascii"), len(value)), value


def _uid(tag: int, uid: str) -> tuple[bytes, bytes]:
    return _explicit(tag, "UI", _padded(uid.encode("ascii"), b"\0"))


def _padded(value: bytes, padding: bytes) -> bytes:
    return value + padding if len(value) % 2 else value


def _by_pydicom(element: Element, charset: str | list[str]) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    if str(element.VR) in CUSTOMIZABLE_CHARSET_VR and element.value:
        with quiet():  # a character set unknown to pydicom is carried as it is
            write_data_element(buffer, element, charset or None)
    else:
        write_data_element(buffer, element)
    return buffer.getvalue()
