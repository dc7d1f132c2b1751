"""Orthanc takes the pictures compressed, and decodes them to the pixels that were sent."""

from __future__ import annotations

import io
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread

from cxr_node import pipeline
from cxr_node.config.network import Address
from cxr_node.dicom.pixels.compress import Press
from cxr_node.node.deliver.link import ResultFile
from cxr_node.node.network.pictures import JPEG, JPEG_LS, RLE, Packing, pack, unpack
from cxr_node.result_kinds import ResultKind
from tests.dicom.contexts import context
from tests.node import peers
from tests.pacs.peers import Orthanc

pytestmark = pytest.mark.pacs


@pytest.mark.parametrize(("wish", "syntax"), [("auto", JPEG), ("lossless", JPEG_LS), ("rle", RLE)])
def test_orthanc_keeps_and_shows_what_was_sent(wish: str, syntax: str, tmp_path: Path) -> None:
    made = {
        kind: pipeline.BUILDERS[kind](context(max_heatmap_px=1024)) for kind in (ResultKind.HEATMAP, ResultKind.FRAMES)
    }
    press, sent = Press(), dict[str, Dataset]()
    with Orthanc(tmp_path / "orthanc") as archive:
        address = Address(ae_title=archive.ae_title, host="127.0.0.1", port=archive.dicom_port)
        to = peers.destination(address, timeout_s=30.0, heatmap_compression=wish, send=[kind.value for kind in made])
        pacs = peers.Sender(to, compressor=press)
        for artifact in made.values():
            assert artifact is not None
            content = pack(artifact.content, Packing(press, JPEG)) if syntax == JPEG else artifact.content
            sent[artifact.sop_instance_uid] = dcmread(io.BytesIO(unpack(content, press)))
            file = ResultFile(sop_class_uid=artifact.sop_class_uid, size_bytes=len(content), content=content)
            assert pacs.send(file).status == 0
        pacs.close()
        kept = {dcmread(io.BytesIO(archive.file(each))).SOPInstanceUID: each for each in archive.get("/instances")}
        for artifact in made.values():
            assert artifact is not None
            instance = kept[artifact.sop_instance_uid]
            assert dcmread(io.BytesIO(archive.file(instance))).file_meta.TransferSyntaxUID == syntax
            whole = sent[artifact.sop_instance_uid]
            frames = whole.pixel_array.reshape(-1, whole.Rows, whole.Columns, 3)
            for number, frame in enumerate(frames):
                url = f"http://127.0.0.1:{archive.http_port}/instances/{instance}/frames/{number}/preview"
                with urllib.request.urlopen(url, timeout=30) as answer:
                    shown = np.asarray(Image.open(io.BytesIO(answer.read())))
                difference = np.abs(shown.astype(float) - frame)
                assert difference.mean() < (1.0 if syntax == JPEG else 1e-9)
