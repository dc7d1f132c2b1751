from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import save_file

from cxr_node.errors import ModelError
from cxr_node.model import profile
from tests.model import folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A profile folder; nothing in `profile` looks into the weights, so a few bytes stand for them."""
    (tmp_path / "weights.safetensors").write_bytes(b"weights")
    profile.write(tmp_path, folders.DESCRIBED, folders.CALIBRATED)
    return tmp_path


def edit(path: Path, **changes: object) -> None:
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))


def test_what_is_written_is_read(folder: Path) -> None:
    loaded = profile.load(folder)
    assert (loaded.name, loaded.version, loaded.labels) == ("random", "0.0.1", ("pneumonia",))
    assert (loaded.slope, loaded.intercept) == (1.5, -0.25)
    assert loaded.input == folders.DESCRIBED.input
    assert loaded.operating_point.report_at == 0.8
    assert loaded.weights_sha256 == profile.sha256(folder / "weights.safetensors")
    assert loaded.calibration == "platt, fitted on nothing"


@pytest.mark.parametrize("name", profile.BOUND_FILES)
def test_a_changed_file_is_refused_and_both_hashes_are_named(folder: Path, name: str) -> None:
    released = profile.sha256(folder / name)
    with (folder / name).open("ab") as file:
        file.write(b"\n# one more line\n")
    with pytest.raises(ModelError) as refusal:
        profile.load(folder)
    assert released in str(refusal.value)
    assert profile.sha256(folder / name) in str(refusal.value)


def test_a_calibration_of_other_weights_is_refused_though_its_own_hash_fits(folder: Path) -> None:
    """Somebody trained again and listed the new hash, but kept the old calibration."""
    (folder / "weights.safetensors").write_bytes(b"new weights")
    fresh = {name: profile.sha256(folder / name) for name in profile.BOUND_FILES}
    edit(folder / "profile.yaml", sha256=fresh)
    with pytest.raises(ModelError, match="cxr-node calibrate"):
        profile.load(folder)


@pytest.mark.parametrize("name", [*profile.BOUND_FILES, "profile.yaml"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelError, match=name):
        profile.load(folder)


def test_a_misspelled_key_is_named(folder: Path) -> None:
    edit(folder / "profile.yaml", lables=["pneumonia"])
    with pytest.raises(ModelError, match="lables"):
        profile.load(folder)


def test_a_profile_of_a_later_format_is_refused(folder: Path) -> None:
    edit(folder / "profile.yaml", format=99)
    with pytest.raises(ModelError, match="format 99"):
        profile.load(folder)


def test_an_operating_point_of_another_label_is_refused(folder: Path) -> None:
    edit(folder / "profile.yaml", labels=["effusion"])
    with pytest.raises(ModelError, match="pneumonia"):
        profile.load(folder)


def test_a_negative_slope_would_turn_answers_round(folder: Path) -> None:
    edit(folder / "calibration.yaml", slope=-1.0)
    edit(folder / "profile.yaml", sha256={name: profile.sha256(folder / name) for name in profile.BOUND_FILES})
    with pytest.raises(ModelError, match="slope"):
        profile.load(folder)


def test_text_that_is_no_yaml_is_malformed(folder: Path) -> None:
    (folder / "profile.yaml").write_text("name: [")
    with pytest.raises(ModelError, match="malformed"):
        profile.load(folder)


def test_profiles_are_read_without_torch(folder: Path) -> None:
    code = (
        "import sys, pathlib; from cxr_node.model import decision, profile; "
        "profile.load(pathlib.Path(sys.argv[1])); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)


def test_random_weights_make_a_whole_folder(tmp_path: Path) -> None:
    save_file(folders.tensors(), tmp_path / "weights.safetensors")
    profile.write(tmp_path, folders.DESCRIBED, folders.CALIBRATED)
    assert profile.load(tmp_path).weights_path.stat().st_size > 1_000_000
