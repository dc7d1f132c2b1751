"""Pixel data to raw integers, and which transfer syntaxes the installed decoders can really take.

Knows no gray scale: `pixels` gives the integers their meaning. PS3.5 8.2 and Annex A. What is not in the table is
not offered; deflated is not, for a megabyte of it can hold a gigabyte (FAULTS T7).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder

from cxr_node.dicom.part10 import foreign_faults
from cxr_node.errors import InstanceError, UndecodableError

_NATIVE = "numpy"
_GDCM_12_BIT = "gdcm-12-bit"

# Per syntax the decoders that were found right on 8- to 16-bit gray images, the preferred one first. Pillow is not
# among them for JPEG 2000 (it loses the sign) and Extended (8 bits only); pydicom's own gdcm plugin declines
# Extended with 12 bits, which GDCM decodes: `_decode_12_bit` asks it directly. pylibjpeg-rle ends the process on a
# cut segment: its Rust panic is no `Exception`.
_DECODERS: dict[uid.UID, tuple[str, ...]] = {
    uid.ExplicitVRLittleEndian: (_NATIVE,),
    uid.ImplicitVRLittleEndian: (_NATIVE,),
    uid.ExplicitVRBigEndian: (_NATIVE,),
    uid.RLELossless: ("pydicom",),
    uid.JPEGBaseline8Bit: ("gdcm", "pillow"),
    uid.JPEGExtended12Bit: (_GDCM_12_BIT,),
    uid.JPEGLossless: ("gdcm",),
    uid.JPEGLosslessSV1: ("gdcm",),
    uid.JPEGLSLossless: ("pyjpegls", "gdcm"),
    uid.JPEGLSNearLossless: ("pyjpegls", "gdcm"),
    uid.JPEG2000Lossless: ("pylibjpeg", "gdcm"),
    uid.JPEG2000: ("pylibjpeg", "gdcm"),
    uid.HTJ2KLossless: ("pylibjpeg",),
    uid.HTJ2KLosslessRPCL: ("pylibjpeg",),
    uid.HTJ2K: ("pylibjpeg",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferSyntax:
    """One transfer syntax that can be decoded here, and by what, the preferred decoder first."""

    uid: str
    name: str
    decoders: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How one gray frame is stored (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    photometric_interpretation: str


@cache
def transfer_syntaxes() -> tuple[TransferSyntax, ...]:
    """What the decoders installed on this machine can decode, in the order in which it is offered."""
    found = []
    for syntax, wanted in _DECODERS.items():
        installed = tuple(name for name in wanted if _is_installed(syntax, name))
        if installed:
            found.append(TransferSyntax(uid=str(syntax), name=syntax.name, decoders=installed))
    return tuple(found)


def decode(pixel_data: bytes, transfer_syntax_uid: str, layout: Layout) -> NDArray[Any]:
    """Decode one frame.

    Parameters
    ----------
    pixel_data : value of Pixel Data (7FE0,0010), encapsulated or native
    layout : what the header says of it

    Returns
    -------
    uint8, uint16, uint32 or their signed kin, shape (rows, columns): as stored, unused bits included

    Raises
    ------
    UndecodableError : no decoder for the syntax, or none can read these bytes, or they hold another size.
    """
    syntax = next((known for known in transfer_syntaxes() if known.uid == transfer_syntax_uid), None)
    if syntax is None:
        raise UndecodableError("The pixel data is in a transfer syntax that cannot be decoded here.")
    faults = []
    try:
        with foreign_faults():
            if uid.UID(transfer_syntax_uid).is_encapsulated:
                _check_size(get_frame(pixel_data, 0, number_of_frames=1), layout)
            for name in syntax.decoders:
                try:
                    with foreign_faults():
                        return _decoder(name)(pixel_data, transfer_syntax_uid, layout, name)
                except InstanceError as error:
                    faults.append(error)
    except UndecodableError:
        raise
    except InstanceError as error:
        raise UndecodableError("The pixel data is damaged: its fragments cannot be told apart.") from error
    raise UndecodableError(f"The pixel data is damaged: no decoder can read it ({syntax.name}).") from faults[0]


_Decoder = Callable[[bytes, str, Layout, str], "NDArray[Any]"]


def _decoder(name: str) -> _Decoder:
    return _decode_12_bit if name == _GDCM_12_BIT else _decode_with_plugin


def _is_installed(syntax: uid.UID, name: str) -> bool:
    plugin = "gdcm" if name == _GDCM_12_BIT else name
    return name == _NATIVE or plugin in get_decoder(syntax).available_plugins


def _decode_with_plugin(pixel_data: bytes, transfer_syntax_uid: str, layout: Layout, name: str) -> NDArray[Any]:
    options: Any = {
        "correct_unused_bits": False,  # `pixels` knows what is in them
        "rows": layout.rows,
        "columns": layout.columns,
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "bits_allocated": layout.bits_allocated,
        "bits_stored": layout.bits_stored,
        "pixel_representation": int(layout.signed),
        "photometric_interpretation": layout.photometric_interpretation,
        "pixel_keyword": "PixelData",
        "pixel_vr": "OB" if layout.bits_allocated <= 8 else "OW",
    }
    plugin = "" if name == _NATIVE else name
    array, _ = get_decoder(transfer_syntax_uid).as_array(pixel_data, raw=True, decoding_plugin=plugin, **options)
    return array


def _decode_12_bit(pixel_data: bytes, transfer_syntax_uid: str, layout: Layout, name: str) -> NDArray[Any]:
    """Decode JPEG Extended, 8 or 12 bits a sample, with GDCM's codec alone: its parser never sees the object."""
    import gdcm  # here, for it is slow to import and wanted for this syntax only

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(get_frame(pixel_data, 0, number_of_frames=1))
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((layout.columns, layout.rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(transfer_syntax_uid)))
    bits = layout.bits_stored
    image.SetPixelFormat(gdcm.PixelFormat(1, layout.bits_allocated, bits, bits - 1, int(layout.signed)))
    buffer = image.GetBuffer().encode("utf-8", "surrogateescape")  # SWIG hands char* over as text
    sample = np.dtype(f"<{'i' if layout.signed else 'u'}{layout.bits_allocated // 8}")
    return np.frombuffer(buffer, sample).reshape(layout.rows, layout.columns)


def _check_size(frame: bytes, layout: Layout) -> None:
    """Compare the size in the codestream with the header's before a decoder allocates what it claims.

    Raises
    ------
    UndecodableError : they differ, or there is more than one sample a pixel.
    """
    found = _jpeg_2000_size(frame) if frame[:4] == b"\xff\x4f\xff\x51" else _jpeg_size(frame)
    if found is not None and found != (layout.rows, layout.columns, 1):
        raise UndecodableError("The size in the compressed pixel data differs from that in the header.")


def _jpeg_2000_size(frame: bytes) -> tuple[int, int, int]:
    """Rows, columns and components of the SIZ marker segment (ISO 15444-1 A.5.1)."""
    x_end, y_end, x_start, y_start = (int.from_bytes(frame[at : at + 4], "big") for at in (8, 12, 16, 20))
    return y_end - y_start, x_end - x_start, int.from_bytes(frame[40:42], "big")


def _jpeg_size(frame: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and components of the frame header of JPEG or JPEG-LS (ISO 10918-1 B.2.2); None if not found."""
    position = 2
    while frame[:2] == b"\xff\xd8" and position + 10 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker in _FRAME_HEADERS:
            rows, columns = (int.from_bytes(frame[position + at : position + at + 2], "big") for at in (5, 7))
            return rows, columns, frame[position + 9]
        position += 1 if marker == 0xFF else 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
    return None


_FRAME_HEADERS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
"""SOF0 to SOF15 without DHT, JPG and DAC; SOF55 of JPEG-LS."""
