"""Pixel data to raw integers, and which transfer syntaxes the installed decoders can really take.

PS3.5 8.2 and Annex A. What is not in the table is not offered; deflated is not, for a megabyte of it can hold a
gigabyte (reliability.md T7).
"""

from __future__ import annotations

import base64
import json
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.encaps import encapsulate, generate_fragments, get_frame
from pydicom.pixels.decoders.base import get_decoder

from cxr_node.dicom.part10 import foreign_faults
from cxr_node.dicom.pixels.sandbox import Sandbox
from cxr_node.errors import InstanceError, UndecodableError

SIZE_PX = 32
_FILE = Path(__file__).with_name("samples.json")
_HTJ2K_SAMPLE = uid.HTJ2KLossless
_MAX_ERROR = {uid.JPEGBaseline8Bit: 2, uid.JPEGExtended12Bit: 8, uid.JPEGLSNearLossless: 2, uid.JPEG2000: 4}
"""In stored values; every other syntax gives every value back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What one transfer syntax did with its sample."""

    uid: str
    name: str
    right: bool
    took_ms: float


def trials() -> list[Trial]:
    """Decode the sample of every transfer syntax that the node offers, in the sandbox where the node does too.

    Raises ResourceError: the sandbox cannot be started.
    """
    syntaxes = transfer_syntaxes()
    for syntax in syntaxes:  # libraries are loaded at their first use
        _try(syntax)
    return [_try(syntax) for syntax in syntaxes]


def missing() -> list[str]:
    """Name the transfer syntaxes that the node knows and this installation has no decoder for."""
    offered = {syntax.uid for syntax in transfer_syntaxes()}
    return [syntax.name for syntax in KNOWN if syntax not in offered]


def picture(syntax: str) -> NDArray[Any]:
    """Stored values of the sample: a ramp, 8 bits in JPEG Baseline, else 12; shape (32, 32)."""
    ramp = np.arange(SIZE_PX * SIZE_PX).reshape(SIZE_PX, SIZE_PX)
    return (ramp >> 2).astype(np.uint8) if syntax == uid.JPEGBaseline8Bit else (ramp << 2).astype(np.uint16)


def _try(syntax: TransferSyntax) -> Trial:
    wanted = picture(syntax.uid)
    bits_allocated = wanted.dtype.itemsize * 8
    layout = Layout(
        rows=SIZE_PX, columns=SIZE_PX, bits_allocated=bits_allocated, bits_stored=min(bits_allocated, 12), signed=False,
        photometric_interpretation="MONOCHROME2",
    )  # fmt: skip
    started = time.perf_counter()
    try:
        found = decode(_pixel_data(syntax.uid, wanted), syntax.uid, layout)
        right = int(np.abs(found.astype(int) - wanted.astype(int)).max()) <= _MAX_ERROR.get(uid.UID(syntax.uid), 0)
    except InstanceError:
        right = False
    return Trial(uid=syntax.uid, name=syntax.name, right=right, took_ms=(time.perf_counter() - started) * 1000)


def _pixel_data(syntax: str, wanted: NDArray[Any]) -> bytes:
    if not uid.UID(syntax).is_encapsulated:
        return wanted.astype(">u2" if syntax == uid.ExplicitVRBigEndian else "<u2").tobytes()
    samples = json.loads(_FILE.read_text("ascii"))
    return encapsulate([base64.b85decode(samples.get(syntax) or samples[_HTJ2K_SAMPLE])])


_NATIVE = "numpy"
_GDCM_12_BIT = "gdcm-12-bit"
_IN_PROCESS = frozenset({_NATIVE, "pydicom"})
"""Decoders in Python and numpy; those in C and C++ run in the sandbox."""
_SANDBOX = Sandbox()

# Per syntax the decoder that was found right on 8- to 16-bit gray images. Pillow is not taken for JPEG 2000 (it loses
# the sign) and Extended (8 bits only); pydicom's own gdcm plugin declines Extended with 12 bits, which GDCM decodes:
# `_decode_12_bit` asks it directly. pylibjpeg-rle ends the process on a cut segment (its Rust panic is no `Exception`),
# pyjpegls reads on beyond the end of a cut codestream, and GDCM aborts on some JPEG 2000 that openjpeg refuses.
_DECODERS: dict[uid.UID, str] = {
    uid.ExplicitVRLittleEndian: _NATIVE,
    uid.ImplicitVRLittleEndian: _NATIVE,
    uid.ExplicitVRBigEndian: _NATIVE,
    uid.RLELossless: "pydicom",
    uid.JPEGBaseline8Bit: "pillow",
    uid.JPEGExtended12Bit: _GDCM_12_BIT,
    uid.JPEGLossless: "gdcm",
    uid.JPEGLosslessSV1: "gdcm",
    uid.JPEGLSLossless: "gdcm",
    uid.JPEGLSNearLossless: "gdcm",
    uid.JPEG2000Lossless: "pylibjpeg",
    uid.JPEG2000: "pylibjpeg",
    uid.HTJ2KLossless: "pylibjpeg",
    uid.HTJ2KLosslessRPCL: "pylibjpeg",
    uid.HTJ2K: "pylibjpeg",
}
KNOWN = tuple(_DECODERS)
"""The transfer syntaxes that a whole installation decodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferSyntax:
    """One transfer syntax that can be decoded here, and by what."""

    uid: str
    name: str
    decoder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How one gray frame is stored (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    photometric_interpretation: str
    pixel_vr: str = ""
    """VR of Pixel Data; "" where nobody knows it. It matters for 8 bits in Big Endian alone."""


@cache
def transfer_syntaxes() -> tuple[TransferSyntax, ...]:
    """What the decoders installed on this machine can decode, in the order in which it is offered."""
    return tuple(
        TransferSyntax(uid=str(syntax), name=syntax.name, decoder=decoder)
        for syntax, decoder in _DECODERS.items()
        if _is_installed(syntax, decoder)
    )


def decode(pixel_data: bytes | memoryview, transfer_syntax_uid: str, layout: Layout) -> NDArray[Any]:
    """Decode one frame.

    Parameters
    ----------
    pixel_data : value of Pixel Data (7FE0,0010), encapsulated or native
    layout : what the header says of it

    Returns
    -------
    uint8, uint16, uint32 or their signed kin, shape (rows, columns): as stored, unused bits included; native pixel
    data is not copied, and not to be written to

    Raises UndecodableError: no decoder for the syntax, or none can read these bytes, or they hold another size.
    """
    syntax = next((known for known in transfer_syntaxes() if known.uid == transfer_syntax_uid), None)
    if syntax is None:
        raise UndecodableError("The pixel data is in a transfer syntax that cannot be decoded here.")
    try:
        with foreign_faults():
            if uid.UID(transfer_syntax_uid).is_encapsulated:
                frame = _only_frame(bytes(pixel_data))
                _check_frame(frame, transfer_syntax_uid, layout)
                pixel_data = encapsulate([frame], has_bot=False)
            elif transfer_syntax_uid == uid.ExplicitVRBigEndian:
                pixel_data = _unswapped(pixel_data, layout)
            if syntax.decoder in _IN_PROCESS:
                array = _decode(pixel_data, transfer_syntax_uid, layout, syntax.decoder)
                if array.shape != (layout.rows, layout.columns):  # pydicom takes what is twice as long for two frames
                    raise UndecodableError("There is more pixel data than the header describes.")
                return array
    except UndecodableError:
        raise
    except InstanceError as error:
        raise UndecodableError(f"The pixel data is damaged ({syntax.name}).") from error
    return _decode_elsewhere(bytes(pixel_data), syntax, layout)


def _only_frame(pixel_data: bytes) -> bytes:
    """Join all fragments behind the Basic Offset Table (PS3.5 A.4): an object of one frame has no other.

    What the tables say is not read: writers fill them with an entry for each fragment, with lengths, or with nothing
    of sense, and they could only tell what is known. Where the table itself was left out, the codestream comes first.
    """
    table, *fragments = generate_fragments(pixel_data)
    if not any(fragments) or table.startswith(_CODESTREAM_STARTS):
        fragments.insert(0, table)
    return b"".join(fragments)


def _unswapped(pixel_data: bytes | memoryview, layout: Layout) -> bytes | memoryview:
    """Undo the swap of bytes in pairs: in Big Endian OW is made of words, 8-bit pixels lie in them two by two (A.3)."""
    if layout.bits_allocated > 8 or layout.pixel_vr != "OW":
        return pixel_data
    cells = np.frombuffer(pixel_data, np.uint8)
    even = len(cells) & ~1
    return cells[:even].reshape(-1, 2)[:, ::-1].tobytes() + cells[even:].tobytes()


def _decode_elsewhere(pixel_data: bytes, syntax: TransferSyntax, layout: Layout) -> NDArray[Any]:
    sample = _sample(layout)
    expected_bytes = layout.rows * layout.columns * sample.itemsize
    request = {
        "syntax": syntax.uid,
        "layout": asdict(layout),
        "decoder": syntax.decoder,
        "expected_bytes": expected_bytes,
    }
    found = _SANDBOX.ask(request, pixel_data)
    if found is not None and len(found) == expected_bytes:
        return np.frombuffer(found, sample).reshape(layout.rows, layout.columns)
    raise UndecodableError(f"The pixel data is damaged: it cannot be decoded ({syntax.name}).")


def answer(request: dict[str, Any], pixel_data: bytes) -> bytes:
    """Decode in the sandbox's child; no bytes where the decoder refuses."""
    layout = Layout(**request["layout"])
    try:
        with foreign_faults():
            array = _decode(pixel_data, request["syntax"], layout, request["decoder"])
            return array.astype(_sample(layout), copy=False).tobytes()
    except InstanceError:
        return b""


def _sample(layout: Layout) -> np.dtype[Any]:
    return np.dtype(f"<{'i' if layout.signed else 'u'}{layout.bits_allocated // 8}")


def _is_installed(syntax: uid.UID, name: str) -> bool:
    plugin = "gdcm" if name == _GDCM_12_BIT else name
    return name == _NATIVE or plugin in get_decoder(syntax).available_plugins


def _decode(pixel_data: bytes | memoryview, transfer_syntax_uid: str, layout: Layout, name: str) -> NDArray[Any]:
    if name == _GDCM_12_BIT:
        return _decode_12_bit(pixel_data, transfer_syntax_uid, layout)
    options: Any = {
        "correct_unused_bits": False,  # `pixels` knows what is in them
        "view_only": True,
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


def _decode_12_bit(pixel_data: bytes | memoryview, transfer_syntax_uid: str, layout: Layout) -> NDArray[Any]:
    """Decode JPEG Extended, 8 or 12 bits a sample, with GDCM's codec alone: its parser never sees the object."""
    import gdcm  # here, for it is slow to import and wanted for this syntax only

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(get_frame(bytes(pixel_data), 0, number_of_frames=1))
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
    return np.frombuffer(buffer, _sample(layout)).reshape(layout.rows, layout.columns)


def _check_frame(frame: bytes, syntax: str, layout: Layout) -> None:
    """Compare the codestream's own header with the data set's before a decoder believes it.

    A decoder allocates what the codestream claims, and GDCM ends the process on an empty one or on an impossible
    precision.

    Raises UndecodableError: there is no header, or it tells of another image.
    """
    if syntax == uid.RLELossless:  # all it says is where its segments begin
        return
    found = _jpeg_2000_header(frame) if syntax in uid.JPEG2000TransferSyntaxes + _HTJ2K else _jpeg_header(frame)
    if found is None:
        raise UndecodableError("The pixel data is damaged: its compressed image has no header.")
    rows, columns, components, precision_bits = found
    if (rows, columns, components) != (layout.rows, layout.columns, 1):
        sizes = f"{rows} x {columns} x {components}, not {layout.rows} x {layout.columns} x 1"
        raise UndecodableError(f"The size in the compressed pixel data differs from that in the header ({sizes}).")
    if not 2 <= precision_bits <= min(layout.bits_allocated, 16):
        depths = f"{precision_bits} bits, Bits Allocated {layout.bits_allocated}"
        raise UndecodableError(
            f"The bit depth in the compressed pixel data does not fit that in the header ({depths})."
        )


def _jpeg_2000_header(frame: bytes) -> tuple[int, int, int, int] | None:
    """Rows, columns, components and precision of the SIZ marker segment (ISO 15444-1 A.5.1)."""
    start = frame.find(b"\xff\x4f\xff\x51", 0, 512)  # some writers put the boxes of a JP2 file before it
    if start < 0 or len(frame) < start + 43:
        return None
    x_end, y_end, x_start, y_start = (
        int.from_bytes(frame[start + at : start + at + 4], "big") for at in (8, 12, 16, 20)
    )
    components = int.from_bytes(frame[start + 40 : start + 42], "big")
    return y_end - y_start, x_end - x_start, components, (frame[start + 42] & 0x7F) + 1


def _jpeg_header(frame: bytes) -> tuple[int, int, int, int] | None:
    """Rows, columns, components and precision of the frame header of JPEG or JPEG-LS (ISO 10918-1 B.2.2)."""
    position = 2
    while frame[:2] == b"\xff\xd8" and position + 10 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker in _FRAME_HEADERS:
            rows, columns = (int.from_bytes(frame[position + at : position + at + 2], "big") for at in (5, 7))
            return rows, columns, frame[position + 9], frame[position + 4]
        position += 1 if marker == 0xFF else 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
    return None


_CODESTREAM_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  ")
"""JPEG and JPEG-LS, JPEG 2000, a JP2 file. No table begins so: its first offset is 0."""
_HTJ2K = [uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K]
_FRAME_HEADERS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
"""SOF0 to SOF15 without DHT, JPG and DAC; SOF55 of JPEG-LS."""
