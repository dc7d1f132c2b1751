"""Pictures are compressed once, by the worker; whoever takes them otherwise gets what is left, to the byte."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cxr_node import pipeline
from cxr_node.config.schema import Config
from cxr_node.dicom.pixels.compress import Encoder, Press
from cxr_node.errors import DeliveryError, ResourceError
from cxr_node.node.deliver.dicomweb import DicomWebLink
from cxr_node.node.deliver.implicit import to_implicit
from cxr_node.node.deliver.link import ResultFile
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.network import file_meta, pictures
from cxr_node.node.network.pictures import JPEG, JPEG_LS, RLE, Packing
from cxr_node.node.spool.spool import Area, Spool
from cxr_node.node.work.worker import Worker
from cxr_node.outcome import Artifact, Reported
from cxr_node.result_kinds import ResultKind
from cxr_node.web.pages import aside
from tests.dicom.contexts import context
from tests.node import ledgers, origin_servers, peers, workplace
from tests.node.origin_servers import Origin

PICTURES = (ResultKind.HEATMAP, ResultKind.FRAMES)
LOSSLESS, LOSSY = (Packing(Encoder(), syntax) for syntax in (JPEG_LS, JPEG))


def artifact(kind: ResultKind) -> Artifact:
    made = pipeline.BUILDERS[kind](context(max_heatmap_px=1024))
    assert made is not None
    return made


@pytest.fixture(scope="module")
def made() -> dict[ResultKind, bytes]:
    return {kind: artifact(kind).content for kind in (*PICTURES, ResultKind.REPORT)}


@pytest.fixture(scope="module")
def press() -> Iterator[Press]:
    with closing(Press()) as press:
        yield press


def file(kind: ResultKind, content: bytes) -> ResultFile:
    return ResultFile(sop_class_uid=peers.SOP_CLASS[kind], size_bytes=len(content), content=content)


@pytest.mark.parametrize("kind", PICTURES)
def test_what_is_packed_is_a_smaller_file_of_the_same_pixels_and_unpacks_to_the_byte(
    kind: ResultKind, made: dict[ResultKind, bytes], press: Press
) -> None:
    packed = pictures.pack(made[kind], LOSSLESS)
    assert packed == pictures.pack(made[kind], LOSSLESS) == pictures.pack(made[kind], Packing(press, JPEG_LS))
    assert len(packed) < 0.6 * len(made[kind])
    kept, whole = dcmread(io.BytesIO(packed)), dcmread(io.BytesIO(made[kind]))
    assert kept.file_meta.TransferSyntaxUID == JPEG_LS
    assert np.array_equal(kept.pixel_array, whole.pixel_array)
    assert pictures.unpack(packed, press) == made[kind]


@pytest.mark.parametrize("kind", PICTURES)
def test_jpeg_is_said_to_have_lost_and_stays_near_what_was_checked(
    kind: ResultKind, made: dict[ResultKind, bytes], press: Press
) -> None:
    packed = pictures.pack(made[kind], LOSSY)
    assert packed == pictures.pack(made[kind], Packing(press, JPEG))
    assert len(packed) < 0.2 * len(made[kind])
    kept, back, whole = (dcmread(io.BytesIO(each)) for each in (packed, pictures.unpack(packed, press), made[kind]))
    assert (kept.file_meta.TransferSyntaxUID, back.file_meta.TransferSyntaxUID) == (JPEG, ExplicitVRLittleEndian)
    assert (kept.PhotometricInterpretation, back.PhotometricInterpretation) == ("YBR_FULL_422", "RGB")
    fragments = len(kept.PixelData) - 8 * (int(whole.get("NumberOfFrames", 1)) + 1)
    for each in (kept, back):
        assert (each.LossyImageCompression, each.LossyImageCompressionMethod) == ("01", "ISO_10918_1")
        assert float(each.LossyImageCompressionRatio) == pytest.approx(len(whole.PixelData) / fragments, rel=0.01)
    assert np.abs(back.pixel_array.astype(float) - whole.pixel_array).mean() < 1.5
    for each in (kept, back, whole):
        for keyword in ("PixelData", "PhotometricInterpretation", "LossyImageCompression"):
            delattr(each, keyword)
    for each in (kept, back):
        del each.LossyImageCompressionRatio, each.LossyImageCompressionMethod
        assert each == whole


def test_what_cannot_be_packed_stays_as_it_is(made: dict[ResultKind, bytes], press: Press) -> None:
    packed = pictures.pack(made[ResultKind.HEATMAP], LOSSLESS)
    for content in (made[ResultKind.REPORT], packed, made[ResultKind.HEATMAP][:-2], b"no file"):
        assert pictures.pack(content, LOSSLESS) is content
    assert pictures.unpack(made[ResultKind.HEATMAP], press) is made[ResultKind.HEATMAP]


@pytest.mark.parametrize("syntax", [JPEG, JPEG_LS])
def test_what_is_no_packed_picture_is_not_taken_for_one(
    syntax: str, made: dict[ResultKind, bytes], press: Press
) -> None:
    _, data_set = file_meta.split(pictures.pack(made[ResultKind.FRAMES], Packing(press, syntax)))
    _, native = file_meta.split(made[ResultKind.FRAMES])
    for wrong in (native, data_set[: len(data_set) // 2], data_set[:-9]):
        with pytest.raises(ValueError, match=r"."):
            pictures.decompress(wrong, syntax, press)


def sent_by(
    kind: ResultKind, packed: bytes, wish: str, taken: Sequence[str], press: Press
) -> dict[tuple[str, str], bytes]:
    """Send a kept picture once; what came, by transfer syntax and SOP Instance UID."""
    archive = peers.Archive()
    with peers.listening(archive, kinds=PICTURES, syntaxes=taken) as address:
        to = peers.destination(address, timeout_s=20.0, heatmap_compression=wish, send=[kind.value])
        pacs = peers.Sender(to, compressor=press)
        assert pacs.send(file(kind, packed)).status == 0
        pacs.close()
    ((syntax, count),) = archive.syntaxes.items()
    ((uid, contents),) = archive.datasets.items()
    assert count == len(contents) == 1
    return {(syntax, uid): contents[0]}


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize(
    ("wish", "taken", "expected"),
    [
        ("auto", (ExplicitVRLittleEndian, JPEG, JPEG_LS, RLE), JPEG_LS),
        ("lossless", (ExplicitVRLittleEndian, JPEG, JPEG_LS, RLE), JPEG_LS),
        ("auto", (ImplicitVRLittleEndian, JPEG_LS), JPEG_LS),
        ("auto", (ExplicitVRLittleEndian, RLE), RLE),
        ("none", (ExplicitVRLittleEndian, JPEG_LS), ExplicitVRLittleEndian),
        ("auto", (ExplicitVRLittleEndian,), ExplicitVRLittleEndian),
        ("auto", (ImplicitVRLittleEndian,), ImplicitVRLittleEndian),
    ],
)
def test_a_destination_gets_what_it_accepts(
    kind: ResultKind, wish: str, taken: Sequence[str], expected: str, made: dict[ResultKind, bytes], press: Press
) -> None:
    packed = pictures.pack(made[kind], LOSSLESS)
    uid, native = file_meta.split(made[kind])
    wanted = {
        JPEG_LS: bytes(file_meta.split(packed)[1]),
        RLE: bytes(pictures.compress(native, RLE, press) or b""),
        ExplicitVRLittleEndian: bytes(native),
        ImplicitVRLittleEndian: bytes(to_implicit(native)),
    }
    assert sent_by(kind, packed, wish, taken, press) == {(expected, uid): wanted[expected]}


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize(
    ("wish", "taken", "expected"),
    [
        ("auto", (ExplicitVRLittleEndian, JPEG, JPEG_LS), JPEG),
        ("auto", (ImplicitVRLittleEndian, JPEG), JPEG),
        ("auto", (ExplicitVRLittleEndian, JPEG_LS), JPEG_LS),
        ("auto", (ExplicitVRLittleEndian,), ExplicitVRLittleEndian),
        ("auto", (ImplicitVRLittleEndian,), ImplicitVRLittleEndian),
        ("lossless", (ExplicitVRLittleEndian, JPEG, RLE), RLE),
    ],
)
def test_what_lost_already_loses_no_more(
    kind: ResultKind, wish: str, taken: Sequence[str], expected: str, made: dict[ResultKind, bytes], press: Press
) -> None:
    packed = pictures.pack(made[kind], LOSSY)
    uid, _ = file_meta.split(packed)
    ((came_as, sent),) = sent_by(kind, packed, wish, taken, press).items()
    assert came_as == (expected, uid)
    if expected == JPEG:
        assert sent == bytes(file_meta.split(packed)[1])
    else:
        whole = file_meta.file_meta(peers.SOP_CLASS[kind], uid, expected) + sent
        found, wanted = dcmread(io.BytesIO(whole)), dcmread(io.BytesIO(pictures.unpack(packed, press)))
        assert np.array_equal(found.pixel_array, wanted.pixel_array)
        assert (found.LossyImageCompression, found.PhotometricInterpretation) == ("01", "RGB")


def test_where_nothing_decodes_it_is_tried_again(made: dict[ResultKind, bytes]) -> None:
    packed = pictures.pack(made[ResultKind.HEATMAP], LOSSLESS)
    with peers.listening(peers.Archive(), syntaxes=(ExplicitVRLittleEndian,)) as address:
        pacs = peers.Sender(peers.destination(address, timeout_s=20.0), compressor=None)
        with pytest.raises(DeliveryError, match="decompressed") as raised:
            pacs.send(file(ResultKind.HEATMAP, packed))
        pacs.close()
    assert not raised.value.permanent
    with pytest.raises(ResourceError):
        pictures.unpack(packed, None)


def test_a_web_archive_gets_it_uncompressed(made: dict[ResultKind, bytes], press: Press) -> None:
    origin, whole = Origin(), made[ResultKind.HEATMAP]
    with origin_servers.serving(origin) as url:
        link = DicomWebLink(origin_servers.destination(url), compressor=press)
        chosen = link.open([file(ResultKind.HEATMAP, pictures.pack(whole, LOSSLESS))])[0]
        assert link.store(chosen).words == "HTTP 200"
        link.close()
    assert origin.stored == {file_meta.split(whole)[0]: [whole]}


def stored_by_a_worker(config: Config) -> list[bytes]:
    """Let a worker judge one image with a picture and a report; what is in the spool then, the longest first."""

    def process(*_: object) -> Reported:
        return Reported(
            finding=ledgers.finding(), artifacts=(artifact(ResultKind.HEATMAP), artifact(ResultKind.REPORT))
        )

    workplace.receive(config, 1)
    spool = Spool(config.spool.path)
    with closing(Ledger.of_node(config)) as ledger:
        analyser = replace(workplace.analyser(process), encoder=Encoder())
        assert Worker(config, ledger, spool, "me", analyser).do_one()
    found = [spool.read(Area.RESULTS, digest) for digest in spool.digests(Area.RESULTS)]
    return sorted(found, key=len, reverse=True)


@pytest.mark.parametrize(
    ("others", "packing"),
    [
        ([{"heatmap_compression": "auto"}], LOSSY),
        ([{"heatmap_compression": "lossless"}], LOSSLESS),
        ([{"heatmap_compression": "jpeg-ls"}], LOSSLESS),
        ([{"heatmap_compression": "none"}, {"heatmap_compression": "auto"}], LOSSLESS),
        ([{"heatmap_compression": "none", "send": ["report"]}, {"heatmap_compression": "auto"}], LOSSY),
        ([{"heatmap_compression": "none"}, {"heatmap_compression": "rle"}], None),
        ([{"heatmap_compression": "auto", "send": ["report"]}], None),
    ],
)
def test_the_worker_compresses_what_a_destination_would_have_so_and_with_loss_only_where_all_would(
    others: list[dict[str, object]], packing: Packing | None, tmp_path: Path, made: dict[ResultKind, bytes]
) -> None:
    destinations = [
        {"name": f"pacs{number}", "address": "PACS@127.0.0.1:104", "report_per": "image", **each}
        for number, each in enumerate(others)
    ]
    config = workplace.config(tmp_path / "spool", destinations=destinations)
    whole = made[ResultKind.HEATMAP]
    picture = whole if packing is None else pictures.pack(whole, packing)
    assert stored_by_a_worker(config) == sorted([picture, made[ResultKind.REPORT]], key=len, reverse=True)


def test_the_page_shows_a_kept_picture(tmp_path: Path, made: dict[ResultKind, bytes]) -> None:
    config = workplace.config(tmp_path / "spool")
    whole = made[ResultKind.HEATMAP]
    stored = Spool(config.spool.path)
    stored.store.prepare()
    shown = []
    for content in (whole, pictures.pack(whole, LOSSLESS)):
        sha256 = stored.store_result(content).sha256
        shown += aside._show(config, [{"kind": ResultKind.HEATMAP, "sha256": sha256}])
    first, second = (Image.open(io.BytesIO(base64.b64decode(each["png"]))) for each in shown)
    assert np.array_equal(np.asarray(first), np.asarray(second))
    assert np.array_equal(np.asarray(first), dcmread(io.BytesIO(whole)).pixel_array)
