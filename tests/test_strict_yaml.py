"""A key that stands twice is refused with both lines, however deep; what stands once is read as YAML reads it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from cxr_node import resources
from cxr_node.config import loader, strict_yaml
from cxr_node.errors import ConfigError, ModelError
from cxr_node.model import profile
from cxr_node.training.data import recipe

TWICE = {
    "a section appended": ("spool: {}\ndestinations: []\n\ndestinations: []\n", "destinations: twice, lines 2 and 4"),
    "a key of a section": ("spool:\n  path: x\nlisten:\n  port: 1\n  port: 1\n", "listen.port: twice, lines 4 and 5"),
    "in one line": ("admission: {min_size_px: 200, min_size_px: 200}\n", "admission.min_size_px: twice, lines 1 and 1"),
    "three times": ("a: 1\na: 2\nb: 0\na: 3\n", "a: 3 times, lines 1, 2 and 4"),
    "in quotes": ("port: 1\n'port': 2\n", "port: twice, lines 1 and 2"),
    "another spelling": ("on: 1\nyes: 2\n", "on: twice, lines 1 and 2"),
    "in a named item": (
        "destinations:\n  - name: pacs\n    send: []\n    send: []\n",
        "destinations.pacs.send: twice, lines 3 and 4",
    ),
    "in an item": ("peers:\n  - {a: 1}\n  - a: 1\n    a: 2\n", "peers.2.a: twice, lines 3 and 4"),
    "below another": ("a:\n  b:\n    c:\n      d: 1\n      d: 2\n", "a.b.c.d: twice, lines 4 and 5"),
    "two merges": ("x: &x {a: 1}\ny:\n  <<: *x\n  <<: *x\n", "y.<<: twice, lines 3 and 4"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "sentence"), TWICE.values(), ids=TWICE.keys())
def test_what_stands_twice_is_refused_with_its_lines(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(strict_yaml.TwiceError) as raised:
        strict_yaml.load(text)
    assert raised.value.sentences == [sentence]
    file = tmp_path / "node.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as refused:
        loader.load(file)
    assert refused.value.mistakes == [f"{file}: {sentence}"]


def test_all_that_stands_twice_is_told_at_once() -> None:
    with pytest.raises(strict_yaml.TwiceError) as raised:
        strict_yaml.load("a: {b: 1, b: 2}\nc: 1\nc: 2\n")
    assert raised.value.sentences == ["a.b: twice, lines 1 and 1", "c: twice, lines 2 and 3"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a\n- a\n",
        "a: 1\nb: [1, 2, {c: null}]\n",
        "x: &x {a: 1, b: 2}\ny:\n  <<: *x\n  a: 3\nz: *x\n",
        "1: x\n'1': y\n",
    ],
)  # fmt: skip
def test_what_stands_once_is_what_yaml_says(text: str) -> None:
    assert strict_yaml.load(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    "text", ["a: &a [*a]\n", "a: 2026-13-45\n", "[" * 5000, "{[1]: 2}\n", "? {a: 1}\n: 2\n", "a: *b\n"]
)
def test_what_cannot_be_read_is_one_sentence(text: str, tmp_path: Path) -> None:
    file = tmp_path / "node.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="is not YAML: ") as raised:
        loader.load(file)
    assert len(raised.value.mistakes) == 1


def test_recipes_and_profiles_are_read_by_the_same_rule(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("seed: 1\nseed: 2\n")
    with pytest.raises(ConfigError, match="seed: twice, lines 1 and 2"):
        recipe.read(file)
    folder = tmp_path / "profile"
    shutil.copytree(resources.profile_folder("pneumonia-pediatric"), folder)
    described = (folder / "profile.yaml").read_text("utf-8")
    number = len(described.splitlines()) + 1
    (folder / "profile.yaml").write_text(f"{described}version: '9'\n", "utf-8")
    with pytest.raises(ModelError, match=rf"version: twice, lines \d+ and {number}"):
        profile.load(folder)
