"""Graphs that are kept from one start to the next, and what must not be believed of them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from cxr_node import resources
from cxr_node.model import compiled_graphs, graph_file, openvino_runtime, profile
from cxr_node.model.openvino_runtime import OpenVINORuntime
from cxr_node.model.profile import Profile

NAME = compiled_graphs.name_of("a graph")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path / "cache"))
    return tmp_path / "cache" / "graphs"


@pytest.fixture(scope="module")
def made() -> Profile:
    return profile.load(resources.profile_folder("pneumonia-pediatric"))


def test_what_was_kept_is_read_again(folder: Path) -> None:
    assert compiled_graphs.read(NAME) is None
    compiled_graphs.keep(NAME, b"compiled")
    assert compiled_graphs.read(NAME) == b"compiled"
    assert compiled_graphs.read(compiled_graphs.name_of("another")) is None
    assert [path.stat().st_mode & 0o777 for path in (folder, *folder.iterdir())] == [0o700, 0o600]


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:-1], lambda whole: whole[:40] + b"?" + whole[41:], lambda _: b""]
)
def test_a_damaged_graph_is_none(folder: Path, damage) -> None:  # type: ignore[no-untyped-def]
    compiled_graphs.keep(NAME, bytes(100))
    (path,) = folder.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert compiled_graphs.read(NAME) is None


def test_a_folder_that_others_can_write_to_is_not_read(folder: Path) -> None:
    compiled_graphs.keep(NAME, b"compiled")
    folder.chmod(0o770)
    assert compiled_graphs.read(NAME) is None
    (path,) = folder.iterdir()
    path.unlink()
    compiled_graphs.keep(NAME, b"compiled")
    assert not list(folder.iterdir())


def test_where_nothing_can_be_kept_nobody_is_disturbed(folder: Path) -> None:
    folder.parent.write_text("a file where the folder would be")
    compiled_graphs.keep(NAME, b"compiled")
    assert compiled_graphs.read(NAME) is None


def test_a_graph_that_nobody_reads_is_forgotten(folder: Path) -> None:
    compiled_graphs.keep(NAME, b"of an old version")
    (old,) = folder.iterdir()
    a_while_ago = time.time() - 31 * 86400
    os.utime(old, (a_while_ago, a_while_ago))
    other = compiled_graphs.name_of("another")
    compiled_graphs.keep(other, b"compiled")
    assert (compiled_graphs.read(NAME), compiled_graphs.read(other)) == (None, b"compiled")


@pytest.mark.whole
def test_a_later_start_compiles_nothing_and_answers_the_same(
    made: Profile, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, _ = graph_file.trial(made.input)
    first = OpenVINORuntime(made, 1).infer(shown)
    assert len(list(folder.iterdir())) == 1
    with monkeypatch.context() as patched:
        patched.delattr(openvino_runtime, "in_float32")
        again = OpenVINORuntime(made, 1).infer(shown)
    np.testing.assert_array_equal(again.logits, first.logits)
    np.testing.assert_array_equal(again.activation, first.activation)
    np.testing.assert_array_equal(again.signature, first.signature)


@pytest.mark.whole
def test_what_openvino_cannot_read_is_compiled_again(
    made: Profile, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_graphs, "read", lambda _: b"no graph at all")
    assert np.isfinite(OpenVINORuntime(made, 1).infer(graph_file.trial(made.input, few=True)[0]).logits).all()
    assert len(list(folder.iterdir())) == 1
