"""Published weights become a profile folder that answers as their authors' package would; or one clear sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from cxr_node import heatmap
from cxr_node.domain import Prediction, Radiograph, Scale, Verdict, View
from cxr_node.errors import DataError, ModelError
from cxr_node.model import import_torchxrayvision, preprocess, profile
from cxr_node.model.decision import decide
from cxr_node.model.predictor import ProfilePredictor, load_predictor
from cxr_node.model.torchxrayvision import LABELS, OP_THRESHOLDS
from tests import builders
from tests.model import xrv_states

pytestmark = pytest.mark.usefixtures("few_golden_inputs")
PUBLISHED = "nih-pc-chex-mimic_ch-google-openi-kaggle-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt"
ALL = "densenet121-res224-all"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile folder of random weights under the published name."""
    place = tmp_path_factory.mktemp("xrv")
    torch.save(xrv_states.state(), place / PUBLISHED)
    import_torchxrayvision.run(place / PUBLISHED, place / "out", import_torchxrayvision.ImportOptions())
    return place / "out"


@pytest.fixture(scope="module")
def predictor(folder: Path) -> ProfilePredictor:
    return load_predictor(profile.load(folder), threads=1)


@pytest.fixture
def unexported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch answers: the graph takes four seconds, and is written and asked by the tests that have `folder`."""
    monkeypatch.setattr(import_torchxrayvision, "export", lambda made: None)


def radiograph() -> Radiograph:
    pixels = (builders.chest() / np.float32(4095)).astype(np.float32)
    return Radiograph(pixels=pixels, pixel_aspect=1.0, view=View.PA, pixel_digest="ab" * 32)


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def test_the_folder_tells_what_it_is(folder: Path) -> None:
    made = profile.load(folder)
    assert made.name == f"torchxrayvision-{ALL}"
    assert made.labels == LABELS
    assert made.op_norm == pytest.approx(OP_THRESHOLDS[ALL])
    assert made.population.age_years == (18, 120)
    point = made.operating_point
    assert (point.label, point.report_at, point.rule_out_below) == ("Pneumonia", 0.5, 0.5)
    assert (point.max_distance, point.scale) == (None, Scale.SCORE)
    described = profile.ProfileFile.model_validate(yaml.safe_load((folder / "profile.yaml").read_text()))
    assert described.licence == "Apache-2.0"
    assert "Cohen" in described.citation
    card = (folder / "MODEL_CARD.md").read_text()
    for word in ("not probabilities", "Apache-2.0", "Cohen", "adults", "Hernia (0.04289)", "not noticed"):
        assert word in card


def test_scores_are_those_of_the_published_network(predictor: ProfilePredictor) -> None:
    """All of it by the second reading: input, network, sigmoid, op-norm."""
    answered = predictor.examine(radiograph()).prediction
    image = torch.from_numpy(preprocess.prepare(radiograph().pixels, predictor.profile.input))[None, None]
    sigmoids = torch.sigmoid(xrv_states.reference(xrv_states.state(), image))[0].tolist()
    expected = {
        label: p / (2 * t) if p < t else 1 - (1 - p) / (2 * (1 - t))
        for label, p, t in zip(LABELS, sigmoids, OP_THRESHOLDS[ALL], strict=True)
    }
    assert answered.probability == pytest.approx(expected, abs=1e-5)
    assert list(answered.probability) == list(LABELS)
    assert answered.distance is None
    assert 0 < answered.spread < 1


def test_the_heat_map_lies_in_the_square_that_was_seen(predictor: ProfilePredictor) -> None:
    found = predictor.examine(radiograph()).heatmap
    assert (found.label, found.layer) == ("Pneumonia", "features.norm5")
    weight = heatmap.on_grid(found, (320, 288))
    assert not weight[:16].any()
    assert not weight[-16:].any()


def test_without_a_distance_only_thresholds_and_views_decide(folder: Path) -> None:
    point = profile.load(folder).operating_point
    for score, verdict in ((0.62, Verdict.POSITIVE), (0.5, Verdict.POSITIVE), (0.49, Verdict.NEGATIVE)):
        seen = Prediction(probability={"Pneumonia": score}, spread=0.9, distance=None)
        assert decide(seen, point).verdict is verdict


@pytest.mark.usefixtures("unexported")
def test_a_file_s_own_thresholds_are_used_and_untrained_findings_left_out(tmp_path: Path) -> None:
    """As `torch.save(xrv.models.DenseNet(weights=...).state_dict())` writes them, here for the RSNA weights."""
    stored = torch.tensor(OP_THRESHOLDS["densenet121-res224-rsna"])
    save_file(xrv_states.state() | {"op_threshs": stored}, tmp_path / "state.safetensors")
    choice = import_torchxrayvision.ImportOptions(judge="pneumonia", rule_out_below=0.3, report_at=0.6, max_spread=0.4)
    made = import_torchxrayvision.run(tmp_path / "state.safetensors", tmp_path / "out", choice)
    assert made.name.endswith("-rsna")
    point = made.operating_point
    assert (point.rule_out_below, point.report_at, point.max_spread) == (0.3, 0.6, 0.4)
    answered = load_predictor(made, threads=1).examine(radiograph()).prediction
    assert set(answered.probability) == {"Pneumonia", "Lung Opacity"}


@pytest.mark.usefixtures("unexported")
def test_the_named_weights_stand_in_for_thresholds_that_the_file_lacks(tmp_path: Path) -> None:
    file = saved(tmp_path / "state.pt", xrv_states.state())
    with pytest.raises(DataError, match=r"--weights densenet121-res224-all"):
        import_torchxrayvision.run(file, tmp_path / "out", import_torchxrayvision.ImportOptions())
    with pytest.raises(DataError, match="no such weights"):
        import_torchxrayvision.run(file, tmp_path / "out", import_torchxrayvision.ImportOptions(weights="all"))
    made = import_torchxrayvision.run(
        file, tmp_path / "out", import_torchxrayvision.ImportOptions(weights="densenet121-res224-pc")
    )
    assert made.op_norm is not None
    assert made.op_norm[14] is None


def test_a_whole_model_is_not_unpickled_and_its_owner_is_told_how(tmp_path: Path) -> None:
    for old in (False, True):
        torch.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / PUBLISHED, _use_new_zipfile_serialization=not old)
        with pytest.raises(DataError) as refusal:
            import_torchxrayvision.run(tmp_path / PUBLISHED, tmp_path / "out", import_torchxrayvision.ImportOptions())
        sentence, *lines = str(refusal.value).splitlines()
        assert "would run code" in sentence
        assert [line.split("(")[0].strip() for line in lines] == ["import torch, torchxrayvision", "torch.save"]
        assert ".state.pt" in lines[1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [torch.zeros(3), {"state_dict": {}}, [1, 2]])
def test_what_is_no_state_dict_is_one_sentence(tmp_path: Path, content: object) -> None:
    with pytest.raises(DataError, match="something else than a state dict"):
        import_torchxrayvision.run(
            saved(tmp_path / PUBLISHED, content), tmp_path / "out", import_torchxrayvision.ImportOptions()
        )


BROKEN: dict[str, tuple[dict[str, torch.Tensor | None], str]] = {
    "missing": ({"features.norm5.bias": None}, r"features\.norm5\.bias is missing"),
    "three channels": ({"features.conv0.weight": torch.zeros(64, 3, 7, 7)}, r"\(64, 3, 7, 7\)"),
    "two findings": ({"classifier.weight": torch.zeros(2, 1024)}, r"\(2, 1024\)"),
    "foreign": ({"head.weight": torch.zeros(2)}, r"head\.weight is no parameter"),
    "not a number": ({"classifier.bias": torch.full((18,), torch.nan)}, "no number"),
    "thresholds": ({"op_threshs": torch.full((18,), 1.5)}, "18 numbers between 0 and 1"),
    "not judged": ({"op_threshs": torch.full((18,), torch.nan)}, "not trained"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_does_not_fit_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    changes, sentence = BROKEN[case]
    state = {name: value for name, value in (xrv_states.state() | changes).items() if value is not None}
    monkeypatch.setattr(
        import_torchxrayvision, "_read", lambda file: state
    )  # no 28 MB written and read for each mistake
    with pytest.raises(DataError, match=sentence) as refusal:
        import_torchxrayvision.run(tmp_path / PUBLISHED, tmp_path / "out", import_torchxrayvision.ImportOptions())
    assert len(str(refusal.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"no weights", b"\x80\x02}q\x00.", b"PK\x03\x04broken"])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_what_is_no_file_of_tensors_is_one_sentence(tmp_path: Path, content: bytes, suffix: str) -> None:
    (tmp_path / f"state.{suffix}").write_bytes(content)
    with pytest.raises(DataError, match="state"):
        import_torchxrayvision.run(
            tmp_path / f"state.{suffix}", tmp_path / "out", import_torchxrayvision.ImportOptions(weights=ALL)
        )
    with pytest.raises(DataError, match="cannot be read"):
        import_torchxrayvision.run(
            tmp_path / f"nowhere.{suffix}", tmp_path / "out", import_torchxrayvision.ImportOptions()
        )


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        (import_torchxrayvision.ImportOptions(judge="Effusion"), "about Pneumonia"),
        (import_torchxrayvision.ImportOptions(report_at=0.3), "--report-at"),
        (import_torchxrayvision.ImportOptions(max_spread=0.0), "--max-spread"),
    ],
)
def test_a_choice_that_cannot_be_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: import_torchxrayvision.ImportOptions, sentence: str
) -> None:
    monkeypatch.setattr(import_torchxrayvision, "_read", lambda file: xrv_states.state())
    file = tmp_path / PUBLISHED
    with pytest.raises(DataError, match=sentence):
        import_torchxrayvision.run(file, tmp_path / "out", choice)


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_torchxrayvision, "_read", lambda file: xrv_states.state())
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        import_torchxrayvision.run(
            tmp_path / PUBLISHED, tmp_path / "file" / "out", import_torchxrayvision.ImportOptions()
        )


def test_a_profile_is_not_overwritten(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds a profile already"):
        import_torchxrayvision.run(tmp_path / PUBLISHED, folder, import_torchxrayvision.ImportOptions())


def test_a_limit_without_statistics_does_not_start(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("weights.safetensors", "profile.yaml", "calibration.yaml"):
        (copy / name).write_bytes((folder / name).read_bytes())
    text = (copy / "calibration.yaml").read_text().replace("max_distance: null", "max_distance: 1.0")
    (copy / "calibration.yaml").write_text(text)
    described = (copy / "profile.yaml").read_text()
    released, now = (profile.sha256(place / "calibration.yaml") for place in (folder, copy))
    (copy / "profile.yaml").write_text(described.replace(released, now))
    with pytest.raises(ModelError, match="belong together"):
        load_predictor(profile.load(copy))
