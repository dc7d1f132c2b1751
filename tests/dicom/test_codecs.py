"""What is offered is really decoded: every transfer syntax, encoded by somebody else and compared value by value."""

from __future__ import annotations

import base64
import io
import itertools
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread, uid
from pydicom.encaps import encapsulate, get_frame

from cxr_node.dicom.pixels import codecs
from cxr_node.dicom.read import header
from cxr_node.errors import UndecodableError
from tests.builders import chest, part10, radiograph

# chest(24, 20, bits=16) as one reversible HTJ2K codestream of OpenJPH; nothing installed here encodes it.
_HTJ2K = base64.b85decode(
    "|4;u>04YEK0000K0000O00000000000000K0000O0000000000009pH0sl|{2mk^A000XAQUDA90ssL31q1{@0smY86Cj9?kdTm&kdTm&kdTmw"
    "h=~7W02crOPjF>!N>E53R%LP^FfKASE;BCwkN^q*00003fdB#jlfVEa3Im690KfnfKmZd!022Vh!32kN0PDmAhjak%=>!LK0Kfnh5C8>400A(F"
    "UC!bJi*x`<Pw~hBLNoxw>jZ~%0Kfnii~s>_KmZniGQUC(36z?E`ir*k0CIt~0E9|&VK`il%JYkWg|chX?g$0A=L34U04P8}FKW)QdIbMK6Z%6n"
    "0KfnjqQC$bbpQZe*f^RZC)~w$E~%hX81mjGPyZ}>2%Z@ojFoawFNbq%;(BrTUC==?D`OUDnkTsZvkA8n^1%9LHT6II)3&hc2h4yGoB&q~n!@>_"
    "PZh!zC*%wM?=e|Rj=t_qMC4!|OL0j(Nd*9vLm)reK<`q5y*d0O)aEWzh?E~G09u^@wPwNK*-P4>C`~tWuK=M@QalZ}tJ9hc4e`8agn^u=PErBT"
    "lLHbOeh}U>VedHjIx(k*M;ppuBbxxg057+o02kE|01N3LZnawl8SKKf*dRwaoUASaL`nuE%dzHI)v9OhzR-gw|8vgqW8%SK?rOM0vCVKFd0{Q{"
    "*yUJrtj5+DhihVYRm{F)@+^wMs0Ci~10BsFHEc2#q0@kSW390QVMtq;WHB9Fv$mo3<Gj67uL2NBl~AA+H1B;5T8L$h^~MTV*=lfLdZtC<dF2_x"
    "<U<F8&mP;nXR0PJGpulavK(uU)vdZ!d%-dWU_hJ%UO@noAOb1?2cQHNz(__V%dzHI0GtE|oCYlOfP(X}%HGd75TJ4ibp?VDSwLVBo&kvq7|^UA"
    "8tPVTngisP!QzEdIiLYSOdymkI>G_~RE-l5;l*>u$UzJCVhj`@01?P+uk$T7?YXV`(1Sqed&5{7IrLB`XW$bEWFQehGMbM~xU_k93U^}M*$3D?"
    "-|(cC143|u0i@y!Sks<(5ek;kq3!A6JzE6z1mT?UgauRqKL8LR!5RAkCJ}4)MmLVUD2REfM4XmK5-|uX5QKpN9v}c3UjZe`Xd#+|)xq{uwX<m3"
    "NN`2ifcQmvN&pvCQoM%r)NGaxUp`tPAcPZ>jA!Us1_S$uY2T+0Ge(PAH2#P%!%mu4wPs9$aOyDFMUcEeSulrx#3%xgK)!{!trrP6#<3;OL0{;)"
    "CpY{Q!(EhMP(%-a9RLkvv~Ju0w(cA#*`yh0l8L3ut!lzIgdk!FKnh<0|Je"
)


def stored(bits: int = 12, signed: bool = False) -> NDArray[Any]:
    values = chest(bits=bits)
    values = values + (np.arange(values.size).reshape(values.shape) * 7 % 5).astype(np.uint16) - 2  # no flat areas
    if signed:
        return (values.astype(np.int32) - (1 << (bits - 1))).astype(np.int16)
    return values.astype(np.uint8 if bits == 8 else np.uint16)


def layout(values: NDArray[Any], bits: int) -> codecs.Layout:
    return codecs.Layout(
        rows=values.shape[0],
        columns=values.shape[1],
        bits_allocated=values.dtype.itemsize * 8,
        bits_stored=bits,
        signed=values.dtype.kind == "i",
        photometric_interpretation="MONOCHROME2",
    )


def decoded(content: bytes) -> NDArray[Any]:
    source = header.read(content)
    assert isinstance(source, header.Source)
    described = codecs.Layout(
        rows=source.integer("Rows"),
        columns=source.integer("Columns"),
        bits_allocated=source.integer("BitsAllocated"),
        bits_stored=source.integer("BitsStored"),
        signed=source.integer("PixelRepresentation") == 1,
        photometric_interpretation="MONOCHROME2",
        pixel_vr=str(source.dataset["PixelData"].VR),
    )
    return codecs.decode(source.dataset.PixelData, source.ref.transfer_syntax_uid, described)


def by_gdcm(content: bytes, syntax: str, tmp_path: Path) -> bytes:
    """Encode with GDCM: JPEG Lossless of both kinds."""
    (tmp_path / "plain").write_bytes(content)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(tmp_path / "plain"))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(tmp_path / "coded"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return (tmp_path / "coded").read_bytes()


def by_dcmtk(content: bytes, tmp_path: Path, *options: str) -> tuple[bytes, NDArray[Any]]:
    """Encode with dcmcjpeg, and what dcmdjpeg makes of it."""
    if shutil.which("dcmcjpeg") is None:
        pytest.skip("dcmcjpeg is not installed: apt install dcmtk")
    plain, coded, back = (tmp_path / name for name in ("plain", "coded", "back"))
    plain.write_bytes(content)
    subprocess.run(["dcmcjpeg", *options, str(plain), str(coded)], check=True)
    subprocess.run(["dcmdjpeg", str(coded), str(back)], check=True)
    return coded.read_bytes(), decoded(back.read_bytes())


def test_everything_that_is_promised_is_installed() -> None:
    found = {syntax.uid: syntax for syntax in codecs.transfer_syntaxes()}
    assert set(found) == {
        uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.RLELossless,
        uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless,
        uid.JPEGLSNearLossless, uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K,
    }  # fmt: skip
    assert all(syntax.decoder and syntax.name for syntax in found.values())
    assert uid.DeflatedExplicitVRLittleEndian not in found


def test_what_is_not_installed_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "_is_installed", lambda syntax, name: name in ("numpy", "gdcm"))
    offered = {syntax.uid: syntax.decoder for syntax in codecs.transfer_syntaxes.__wrapped__()}
    assert uid.HTJ2K not in offered
    assert uid.RLELossless not in offered
    assert uid.JPEG2000 not in offered
    assert offered[uid.JPEGLossless] == "gdcm"


@pytest.mark.parametrize(
    ("bits", "signed"), [(8, False), (10, False), (12, False), (12, True), (16, False), (16, True)]
)
@pytest.mark.parametrize(
    "syntax",
    [
        uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.RLELossless,
        uid.JPEGLSLossless, uid.JPEG2000Lossless,
    ],
    ids=lambda syntax: syntax.name,
)  # fmt: skip
def test_lossless_syntaxes_give_every_value_back(syntax: uid.UID, bits: int, signed: bool) -> None:
    values = stored(bits, signed)
    assert np.array_equal(decoded(part10(radiograph(stored=values), syntax)), values)


@pytest.mark.parametrize(("bits", "signed"), [(8, False), (12, False), (12, True), (16, False), (16, True)])
@pytest.mark.parametrize("syntax", [uid.JPEGLossless, uid.JPEGLosslessSV1], ids=["57", "70"])
def test_jpeg_lossless_gives_every_value_back(syntax: uid.UID, bits: int, signed: bool, tmp_path: Path) -> None:
    values = stored(bits, signed)
    coded = by_gdcm(part10(radiograph(stored=values)), syntax, tmp_path)
    assert header.read(coded).ref.transfer_syntax_uid == syntax  # type: ignore[union-attr] # a Source, or it fails
    assert np.array_equal(decoded(coded), values)


@pytest.mark.parametrize("selection_value", range(1, 8))
@pytest.mark.parametrize("bits", [12, 16])
def test_jpeg_lossless_with_every_predictor(selection_value: int, bits: int, tmp_path: Path) -> None:
    values = stored(bits)
    coded, back = by_dcmtk(part10(radiograph(stored=values)), tmp_path, "+el", "+sv", str(selection_value))
    assert np.array_equal(back, values)
    assert np.array_equal(decoded(coded), values)


@pytest.mark.parametrize(("option", "bits"), [("+ee", 12), ("+ee", 8), ("+eb", 8)])
def test_lossy_jpeg_decodes_as_dcmtk_does(option: str, bits: int, tmp_path: Path) -> None:
    coded, back = by_dcmtk(part10(radiograph(stored=stored(bits))), tmp_path, option, "+q", "95")
    found = decoded(coded)
    assert found.dtype == back.dtype
    assert np.abs(found.astype(int) - back).max() <= 1
    assert np.corrcoef(found.ravel(), stored(bits).ravel())[0, 1] > 0.999


@pytest.mark.parametrize("vr", ["OB", "OW"])
@pytest.mark.parametrize("size", [(24, 20), (23, 21)], ids=["even", "odd"])
def test_8_bits_in_big_endian_lie_in_words_where_the_vr_says_so(vr: str, size: tuple[int, int]) -> None:
    """As pydicom reads them (PS3.5 A.3): bytes of OW are swapped in pairs, those of OB are not."""
    values = chest(*size, bits=8).astype(np.uint8)
    dataset = radiograph(stored=values)
    dataset["PixelData"].VR = vr
    content = part10(dataset, uid.ExplicitVRBigEndian)
    assert np.array_equal(dcmread(io.BytesIO(content)).pixel_array, values)
    assert np.array_equal(decoded(content), values)


def fragments(*parts: bytes, table: bytes = b"") -> bytes:
    """Encapsulate by hand (PS3.5 A.4): the table may say anything."""
    return b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(part)) + part for part in (table, *parts))


def frame_of(syntax: uid.UID) -> tuple[bytes, NDArray[Any]]:
    """One codestream, and what it holds."""
    if syntax == uid.JPEGBaseline8Bit:
        file = io.BytesIO()
        Image.fromarray(stored(8)).save(file, "JPEG", quality=95)
        frame = file.getvalue()
        values = np.asarray(Image.open(io.BytesIO(frame)))
    else:
        values = stored(12)
        source = header.read(part10(radiograph(stored=values), syntax))
        assert isinstance(source, header.Source)
        frame = get_frame(source.dataset.PixelData, 0, number_of_frames=1)
    return frame + b"\0" * (len(frame) % 2), values


@pytest.mark.parametrize(
    "syntax",
    [uid.JPEGBaseline8Bit, uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless],
    ids=lambda syntax: syntax.name,
)
@pytest.mark.parametrize(
    "table", ["empty", "of the frame", "per fragment", "garbage", "zeros", "lengths", "odd", "descending", "huge"]
)
@pytest.mark.parametrize("pieces", [1, 3])
def test_one_frame_owns_all_fragments_whatever_the_table_says(syntax: uid.UID, table: str, pieces: int) -> None:
    frame, values = frame_of(syntax)
    step = len(frame) // pieces & ~1
    cuts = [*(place * step for place in range(pieces)), len(frame)]
    parts = [frame[start:end] for start, end in itertools.pairwise(cuts)]
    starts = [cut + 8 * number for number, cut in enumerate(cuts[:-1])]
    tables = {
        "empty": b"", "of the frame": struct.pack("<I", 0), "per fragment": struct.pack(f"<{pieces}I", *starts),
        "garbage": struct.pack("<I", 1234), "zeros": bytes(8), "lengths": struct.pack("<2I", 0, len(frame)),
        "odd": b"\1\2\3\4\5\6", "descending": struct.pack("<3I", 900, 40, 0), "huge": b"\xff" * 16,
    }  # fmt: skip
    value = fragments(*parts, table=tables[table])
    assert np.array_equal(codecs.decode(value, syntax, layout(values, min(12, 8 * values.itemsize))), values)


@pytest.mark.parametrize("syntax", [uid.JPEGBaseline8Bit, uid.JPEG2000Lossless], ids=lambda syntax: syntax.name)
def test_a_table_that_was_left_out_costs_no_fragment(syntax: uid.UID) -> None:
    frame, values = frame_of(syntax)
    middle = len(frame) // 2 & ~1
    for parts in ((frame,), (frame[:middle], frame[middle:])):
        value = fragments(*parts[1:], table=parts[0])
        assert np.array_equal(codecs.decode(value, syntax, layout(values, min(12, 8 * values.itemsize))), values)


def test_an_extended_offset_table_is_not_needed() -> None:
    frame, values = frame_of(uid.JPEG2000Lossless)
    middle = len(frame) // 2 & ~1
    dataset = radiograph(
        stored=values,
        ExtendedOffsetTable=struct.pack("<2Q", 0, middle + 8),
        ExtendedOffsetTableLengths=struct.pack("<2Q", middle, len(frame) - middle),
        PixelData=fragments(frame[:middle], frame[middle:]),
    )
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    assert np.array_equal(decoded(part10(dataset, uid.JPEG2000Lossless)), values)


def test_jpeg_baseline_of_another_encoder() -> None:
    values, file = stored(8), io.BytesIO()
    Image.fromarray(values).save(file, "JPEG", quality=95)
    found = codecs.decode(encapsulate([file.getvalue()]), uid.JPEGBaseline8Bit, layout(values, 8))
    assert np.abs(found.astype(int) - values).max() <= 6


def test_near_lossless_and_lossy_syntaxes_stay_close() -> None:
    values = stored(12)
    near = dcmread(io.BytesIO(part10(radiograph(stored=values))))
    near.compress(uid.JPEGLSNearLossless, jls_error=2, generate_instance_uid=False)
    assert np.abs(decoded(part10(near, uid.JPEGLSNearLossless)).astype(int) - values).max() <= 2
    lossy = dcmread(io.BytesIO(part10(radiograph(stored=values))))
    lossy.compress(uid.JPEG2000, j2k_psnr=[60], generate_instance_uid=False)
    assert np.abs(decoded(part10(lossy, uid.JPEG2000)).astype(int) - values).max() < 40


@pytest.mark.parametrize("syntax", [uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K], ids=["201", "202", "203"])
def test_htj2k_gives_every_value_back(syntax: uid.UID) -> None:
    values = chest(24, 20, bits=16)
    assert np.array_equal(codecs.decode(encapsulate([_HTJ2K]), syntax, layout(values, 16)), values)


@pytest.mark.parametrize("syntax", [s.uid for s in codecs.transfer_syntaxes() if uid.UID(s.uid).is_encapsulated])
@pytest.mark.parametrize("damage", ["empty", "zeros", "text", "no fragments"])
def test_damaged_pixel_data_is_a_coded_refusal(syntax: str, damage: str, capfd: pytest.CaptureFixture[str]) -> None:
    frames = {"empty": b"\0\0", "zeros": bytes(4000), "text": b"no pixels here, only words. " * 50}
    value = encapsulate([frames[damage]]) if damage in frames else b"\1\2\3\4"
    with pytest.raises(UndecodableError):
        codecs.decode(value, syntax, layout(stored(8 if syntax == uid.JPEGBaseline8Bit else 12), 12))


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless], ids=lambda s: s.name)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_cut_codestreams_are_refused(syntax: uid.UID, share: float, capfd: pytest.CaptureFixture[str]) -> None:
    source = header.read(part10(radiograph(), syntax))
    assert isinstance(source, header.Source)
    frame = get_frame(source.dataset.PixelData, 0, number_of_frames=1)
    cut = encapsulate([frame[: int(len(frame) * share)]])
    with pytest.raises(UndecodableError):
        codecs.decode(cut, syntax, layout(chest(), 12))


@pytest.mark.parametrize(
    "syntax", [uid.JPEGBaseline8Bit, uid.JPEGLSLossless, uid.JPEG2000Lossless], ids=lambda syntax: syntax.name
)
def test_a_codestream_of_another_size_is_refused_before_it_is_decoded(syntax: uid.UID) -> None:
    if syntax == uid.JPEGBaseline8Bit:
        file = io.BytesIO()
        Image.fromarray(stored(8)).save(file, "JPEG")
        frame = file.getvalue()
    else:
        source = header.read(part10(radiograph(), syntax))
        assert isinstance(source, header.Source)
        frame = get_frame(source.dataset.PixelData, 0, number_of_frames=1)
    other = layout(chest(300, 200), 12)
    with pytest.raises(UndecodableError, match="size in the compressed pixel data differs"):
        codecs.decode(encapsulate([frame]), syntax, other)


def test_short_native_pixel_data_and_unknown_syntaxes_are_refused() -> None:
    with pytest.raises(UndecodableError):
        codecs.decode(bytes(100), uid.ExplicitVRLittleEndian, layout(chest(), 12))
    with pytest.raises(UndecodableError, match="cannot be decoded here"):
        codecs.decode(bytes(100), "1.2.840.10008.1.2.4.100", layout(chest(), 12))


_FRAMES = {
    syntax: get_frame(radiograph_frame.dataset.PixelData, 0, number_of_frames=1)
    for syntax in (uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless)
    if isinstance(radiograph_frame := header.read(part10(radiograph(stored=chest(64, 64)), syntax)), header.Source)
}


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    syntax=st.sampled_from(sorted(_FRAMES)),
    edits=st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=6)), min_size=1, max_size=5),
)
def test_mutated_codestreams_are_decoded_or_refused(syntax: str, edits: list[tuple[int, bytes]]) -> None:
    frame = bytearray(_FRAMES[uid.UID(syntax)])
    for at, change in edits:
        frame[at % len(frame) : at % len(frame) + len(change)] = change
    try:
        found = codecs.decode(encapsulate([bytes(frame)]), syntax, layout(chest(64, 64), 12))
    except UndecodableError:
        return
    assert found.shape == (64, 64)
