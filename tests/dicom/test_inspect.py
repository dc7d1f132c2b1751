"""A header is read alike from the file, at the door, and by pydicom from its bytes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from pydicom import uid

from cxr_node.dicom.read import header
from cxr_node.errors import InstanceError
from tests import builders

SYNTAXES = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.RLELossless)


def told(path: Path) -> str:
    try:
        return repr(header.inspect(path))
    except InstanceError as error:
        return str(error)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_whole_file_is_read_and_one_that_is_cut_or_longer_is_not(tmp_path: Path, syntax: str) -> None:
    whole = builders.part10(builders.radiograph(), syntax)
    files = [tmp_path / str(number) for number in range(5)]
    contents = (whole, whole[:-500], whole[:1200], whole[:300], whole + b"more")
    for path, content in zip(files, contents, strict=True):
        path.write_bytes(content)
    expected = [told(path) for path in files]
    assert expected[0].startswith("Inspected(")
    assert not any(words.startswith("Inspected(") for words in expected[1:])


def test_what_the_door_reads_is_what_the_worker_reads(tmp_path: Path) -> None:
    """Headers with bytes changed, left out and put in: who is let in has one identity, whoever reads it."""
    dice, path, same = random.Random(20240601), tmp_path / "file", 0
    small = builders.radiograph(1, builders.chest(rows=32, columns=32))
    files = [builders.part10(small, syntax) for syntax in SYNTAXES]
    for _ in range(400):
        content = bytearray(dice.choice(files))
        at = dice.randrange(132, len(content) - 2048)
        match dice.randrange(3):
            case 0:
                content[at] = dice.randrange(256)
            case 1:
                del content[at : at + dice.choice((1, 2, 8))]
            case _:
                content[at:at] = dice.randbytes(dice.choice((1, 2, 8)))
        path.write_bytes(content)
        if told(path).startswith("Inspected("):
            source = header.read(bytes(content))
            assert isinstance(source, header.Source), source
            assert source.ref == header.inspect(path).ref
            same += 1
    assert same > 50
