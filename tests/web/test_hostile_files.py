"""Thousands of damaged files by HTTP: each gets an answer, and the page lives on in its memory."""

from __future__ import annotations

import io
import random
from collections import Counter
from pathlib import Path

import pytest
from pydicom import FileMetaDataset, dcmread
from pydicom.filewriter import write_file_meta_info

from tests import builders
from tests.chaos import mutations
from tests.web.asking import DICOM, JPEG, Page, judge_of, memory_mb, png, post

MAX_MB = 150
_PNG = png()


def damaged(seed: int, number: int) -> bytes:
    """By turns a data set that is wrong, or a file of one of three kinds with flipped, cut or doubled bytes."""
    if number % 4 == 0:
        mutant = mutations.mutant(seed, number)
        return _part10(mutant.data_set, mutant.syntax)
    dice = random.Random(f"{seed}/{number}")
    content = bytearray((DICOM, _PNG, JPEG)[number % 4 - 1])
    for _ in range(dice.choice((1, 4, 64))):
        reach = dice.choice((512, len(content)))
        content[dice.randrange(min(reach, len(content)))] = dice.randrange(256)
    begin = dice.randrange(len(content))
    match dice.randrange(4):
        case 0:
            del content[begin:]
        case 1:
            content[begin:begin] = content[: dice.randrange(4096)]
        case 2:
            del content[begin : begin + dice.randrange(1, 4096)]
    return bytes(content)


def _part10(data_set: bytes, syntax: str) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dcmread(io.BytesIO(DICOM), stop_before_pixels=True).SOPClassUID
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = syntax
    file = io.BytesIO()
    write_file_meta_info(file, meta, enforce_standard=True)
    return bytes(128) + b"DICM" + file.getvalue() + data_set


@pytest.mark.parametrize("count", [200, pytest.param(5000, marks=[pytest.mark.chaos, pytest.mark.timeout(7200)])])
def test_each_damaged_file_gets_an_answer(tmp_path: Path, request: pytest.FixtureRequest, count: int) -> None:
    seed = request.config.getoption("--chaos-seed")
    statuses: Counter[int] = Counter()
    with Page(tmp_path) as page, page.client() as client:
        assert post(client, builders.part10(builders.radiograph(1))).status_code == 200
        first = judge_of(page.process.pid)
        for number in range(count):
            content = damaged(seed, number)
            told = post(client, content)
            statuses[told.status_code] += 1
            assert told.status_code in (200, 415, 422), f"{seed}/{number}: {told.status_code} {told.text}"
            if told.status_code == 200:
                assert told.json()["verdict"]
        assert page.lives() and memory_mb(page.process.pid) < MAX_MB
        assert judge_of(page.process.pid) == first, "no file ended the process that judges"
    assert set(statuses) >= {200, 422}, statuses
    print(f"{count} files: {dict(statuses)}")
    assert "Traceback" not in page.said()
