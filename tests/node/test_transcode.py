"""Pictures to destinations that take them compressed, to those that do not, and to those that only say so."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.encaps import parse_basic_offsets
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cxr_node import pipeline
from cxr_node.dicom.pixels.compress import Press
from cxr_node.errors import DeliveryError
from cxr_node.node.deliver.link import ResultFile
from cxr_node.node.network import file_meta, pictures
from cxr_node.node.network.pictures import JPEG, JPEG_LS, RLE
from cxr_node.result_kinds import ResultKind
from tests.dicom.contexts import context
from tests.node import peers

PICTURES = (ResultKind.HEATMAP, ResultKind.FRAMES)
ALL = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG, JPEG_LS, RLE)


@pytest.fixture(scope="module")
def press() -> Any:
    made = Press()
    yield made
    made.close()


@pytest.fixture(scope="module")
def contents() -> dict[ResultKind, bytes]:
    found = {}
    for kind in (*PICTURES, ResultKind.REPORT, ResultKind.PDF):
        artifact = pipeline.BUILDERS[kind](context(max_heatmap_px=1024))
        assert artifact is not None
        found[kind] = artifact.content
    return found


def result_file(kind: ResultKind, content: bytes) -> ResultFile:
    return ResultFile(sop_class_uid=peers.SOP_CLASS[kind], size_bytes=len(content), content=content)


def read(kind: ResultKind, data_set: bytes, syntax: str) -> Dataset:
    uid = "1.2.3"
    return dcmread(io.BytesIO(file_meta.file_meta(peers.SOP_CLASS[kind], uid, syntax) + data_set))


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("syntax", [JPEG_LS, RLE])
def test_pixels_and_every_other_element_stay(
    kind: ResultKind, syntax: str, press: Press, contents: dict[ResultKind, bytes]
) -> None:
    _, data_set = file_meta.split(contents[kind])
    compressed = pictures.compress(data_set, syntax, press)
    assert compressed is not None
    assert len(compressed) < len(data_set) * 0.6
    assert compressed == pictures.compress(data_set, syntax, press)
    before, after = dcmread(io.BytesIO(contents[kind])), read(kind, bytes(compressed), syntax)
    assert np.array_equal(before.pixel_array, after.pixel_array)
    offsets = parse_basic_offsets(after.PixelData)
    assert len(offsets) == int(before.get("NumberOfFrames", 1))
    del before.PixelData, after.PixelData
    assert before == after


@pytest.mark.parametrize(
    ("wish", "taken", "expected"),
    [
        ("auto", ALL, JPEG_LS),
        ("lossless", ALL, JPEG_LS),
        ("auto", (ExplicitVRLittleEndian, RLE), RLE),
        ("auto", (ExplicitVRLittleEndian,), ExplicitVRLittleEndian),
        ("auto", (ImplicitVRLittleEndian,), ImplicitVRLittleEndian),
        ("auto", (ImplicitVRLittleEndian, RLE), RLE),
        ("none", ALL, ExplicitVRLittleEndian),
        ("rle", ALL, RLE),
        ("rle", (ExplicitVRLittleEndian, JPEG_LS), ExplicitVRLittleEndian),
        ("jpeg-ls", ALL, JPEG_LS),
    ],
)
def test_what_is_configured_and_accepted_is_sent(
    wish: str, taken: tuple[str, ...], expected: str, press: Press, contents: dict[ResultKind, bytes]
) -> None:
    archive = peers.Archive()
    kinds = (*PICTURES, ResultKind.REPORT, ResultKind.PDF)
    with peers.listening(archive, kinds=kinds, syntaxes=taken) as address:
        to = peers.destination(address, timeout_s=20.0, heatmap_compression=wish, send=[kind.value for kind in kinds])
        pacs = peers.Sender(to, compressor=press)
        assert [pacs.send(result_file(kind, contents[kind])).status for kind in kinds] == [0] * 4
        pacs.close()
    plain = expected if expected == ImplicitVRLittleEndian or ExplicitVRLittleEndian not in taken else taken[0]
    plain = ImplicitVRLittleEndian if ExplicitVRLittleEndian not in taken else plain
    assert archive.syntaxes == ({expected: 4} if expected == plain else {expected: 2, plain: 2})
    for kind in kinds:
        whole = dcmread(io.BytesIO(contents[kind]))
        ((sent,),) = (archive.datasets[whole.SOPInstanceUID],)
        if kind in PICTURES:
            assert np.array_equal(read(kind, sent, expected).pixel_array, whole.pixel_array)


def test_a_peer_that_refuses_what_it_agreed_to_gets_it_uncompressed(
    press: Press, contents: dict[ResultKind, bytes]
) -> None:
    archive = peers.Archive(lambda count: 0xC000 if count == 1 else 0)
    with peers.listening(archive, syntaxes=ALL) as address:
        pacs = peers.Sender(peers.destination(address, timeout_s=20.0), compressor=press)
        assert [pacs.send(result_file(ResultKind.HEATMAP, contents[ResultKind.HEATMAP])).status for _ in "12"] == [0, 0]
        pacs.close()
    assert archive.syntaxes == {ExplicitVRLittleEndian: 2}


def test_a_refusal_of_anything_else_stays_one(press: Press, contents: dict[ResultKind, bytes]) -> None:
    with peers.listening(peers.Archive(lambda _: 0xC000), syntaxes=ALL) as address:
        pacs = peers.Sender(peers.destination(address, timeout_s=20.0), compressor=press)
        for kind in (ResultKind.REPORT, ResultKind.HEATMAP):
            with pytest.raises(DeliveryError, match="0xC000"):
                pacs.send(result_file(kind, contents[kind]))
        pacs.close()


def test_without_a_codec_nothing_compressed_is_proposed(contents: dict[ResultKind, bytes]) -> None:
    archive = peers.Archive()
    with peers.listening(archive, syntaxes=ALL) as address:
        pacs = peers.Sender(peers.destination(address), compressor=None)
        pacs.send(result_file(ResultKind.HEATMAP, contents[ResultKind.HEATMAP]))
        pacs.close()
    assert archive.syntaxes == {ExplicitVRLittleEndian: 1}


def test_what_is_no_picture_of_ours_is_left_as_it_is(press: Press, contents: dict[ResultKind, bytes]) -> None:
    _, report = file_meta.split(contents[ResultKind.REPORT])
    _, picture = file_meta.split(contents[ResultKind.HEATMAP])
    for data_set in (report, picture[:-2], picture[: len(picture) // 2], memoryview(b"\x10\x00\x10\x00PN\x04\x00A^")):
        assert pictures.compress(memoryview(bytes(data_set)), JPEG_LS, press) is None


@pytest.mark.pacs
@pytest.mark.parametrize(("syntax", "program"), [(JPEG_LS, "dcmdjpls"), (RLE, "dcmdrle")])
@pytest.mark.parametrize("kind", PICTURES)
def test_dcmtk_decodes_it(
    kind: ResultKind, syntax: str, program: str, press: Press, contents: dict[ResultKind, bytes], tmp_path: Path
) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is missing: install the package dcmtk")
    uid, data_set = file_meta.split(contents[kind])
    compressed, decoded = tmp_path / "compressed", tmp_path / "decoded"
    compressed.write_bytes(
        file_meta.file_meta(peers.SOP_CLASS[kind], uid, syntax) + (pictures.compress(data_set, syntax, press) or b"")
    )
    subprocess.run([program, compressed, decoded], check=True)
    whole, found = dcmread(io.BytesIO(contents[kind])), dcmread(decoded)
    assert found.SOPInstanceUID == uid
    assert (found.PhotometricInterpretation, found.PlanarConfiguration) == ("RGB", 0)
    assert np.array_equal(found.pixel_array, whole.pixel_array)


@pytest.mark.pacs
@pytest.mark.parametrize("kind", PICTURES)
def test_dcmtk_decodes_jpeg_and_finds_it_standard(
    kind: ResultKind, press: Press, contents: dict[ResultKind, bytes], tmp_path: Path
) -> None:
    for program, package in (("dcmdjpeg", "dcmtk"), ("dciodvfy", "dicom3tools")):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: install the package {package}")
    compressed, decoded = tmp_path / "compressed", tmp_path / "decoded"
    packed = pictures.pack(contents[kind], pictures.Packing(press, JPEG))
    compressed.write_bytes(packed)
    subprocess.run(["dcmdjpeg", compressed, decoded], check=True)
    ours, found = dcmread(io.BytesIO(pictures.unpack(packed, press))), dcmread(decoded)
    assert (found.SOPInstanceUID, found.PhotometricInterpretation) == (ours.SOPInstanceUID, "RGB")
    assert np.abs(found.pixel_array.astype(float) - ours.pixel_array).mean() < 1.0
    for file, content in ((compressed, packed), (decoded, pictures.unpack(packed, press))):
        file.write_bytes(content)
        said = subprocess.run(["dciodvfy", file], capture_output=True, text=True, check=False).stderr
        assert "Error" not in said, said


@pytest.mark.pacs
def test_storescp_of_implicit_vr_alone_gets_every_byte_of_text(tmp_path: Path) -> None:
    """DCMTK's own archive: declared UTF-8, sent in Latin-1; and code extensions."""
    program = shutil.which("storescp")
    if program is None:
        pytest.skip("storescp is missing: install the package dcmtk")
    texts = {
        1: (b"ISO_IR 192", b"M\xfcller^J\xfcrgen "),
        2: (b"\\ISO 2022 IR 149", b"X \x1b$)C\xc8\xe4 \x1b$)C\xc1\xa4\xb8\xe9 "),
        3: (b"GB18030 ", b"Wang^X=\xcd\xf5^\x81\x5c\xb6\xab="),
    }
    with peers.storescp(tmp_path / "store", *(peers.SOP_CLASS[kind] for kind in (ResultKind.REPORT,))) as address:
        pacs = peers.Sender(peers.destination(address, timeout_s=20.0))
        for number, (charset, value) in texts.items():
            value += b" " * (len(value) % 2)
            content = peers.result_object(ResultKind.REPORT, number)
            for old, new, head in ((b"ISO_IR 192", charset, b"CS"), (b"CANARY^TEST ", value, b"PN")):
                old_element = head + len(old).to_bytes(2, "little") + old
                assert old_element in content
                content = content.replace(old_element, head + len(new).to_bytes(2, "little") + new)
            assert pacs.send(result_file(ResultKind.REPORT, content)).status == 0
        pacs.close()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "store").iterdir())
    for charset, value in texts.values():
        assert value in kept
        assert charset in kept
