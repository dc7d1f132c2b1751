"""The exported graph says what torch says, and nothing else is served."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from cxr_node import resources
from cxr_node.domain import RuntimeKind
from cxr_node.errors import ModelError
from cxr_node.model import graph_file, openvino_runtime, predictor, preprocess, profile, runtime, torch_runtime
from cxr_node.model.profile import CalibrationFile, NetworkSpec, Profile, Shown
from cxr_node.model.torch_runtime import export
from tests.model import folders, test_networks
from tests.model.test_predictor import radiograph


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Profile:
    made = profile.load(folders.write(tmp_path_factory.mktemp("exported")))
    export(made)
    return made


@pytest.fixture(scope="module")
def shipped_profile() -> Profile:
    return profile.load(resources.profile_folder("pneumonia-pediatric"))


def edited(made: Profile, folder: Path, **changes: object) -> Profile:
    """A copy of the profile whose network.yaml says something else."""
    folder.mkdir(exist_ok=True)
    for file in made.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    told = yaml.safe_load((folder / graph_file.DESCRIPTION).read_text("utf-8"))
    (folder / graph_file.DESCRIPTION).write_text(yaml.safe_dump(told | changes), "utf-8")
    return profile.load(folder)


def test_openvino_says_what_torch_says(shipped_profile: Profile) -> None:
    quick = predictor.load_predictor(shipped_profile, threads=1)
    assert quick.runtime.name.startswith("OpenVINO") and quick.runtime.name.endswith("fp32")
    reference = predictor.load_predictor(shipped_profile, 1, RuntimeKind.TORCH)
    for seed in range(3):
        one, other = quick.examine(radiograph(seed)), reference.examine(radiograph(seed))
        assert one.prediction.probability["PNEUMONIA"] == pytest.approx(
            other.prediction.probability["PNEUMONIA"], abs=1e-5
        )
        assert one.prediction.distance == pytest.approx(other.prediction.distance, rel=1e-4)
        np.testing.assert_allclose(one.heatmap.cells, other.heatmap.cells, atol=1 / 128)


def test_a_profile_of_two_views_answers_from_those_two(small: Profile, tmp_path: Path) -> None:
    described = profile.described_in(small.folder)
    shown = described.input.model_copy(update={"views": (Shown.PLAIN, Shown.BRIGHTER)})
    for file in small.folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    calibration = profile.read(tmp_path / "calibration.yaml", CalibrationFile)
    profile.write(tmp_path, described.model_copy(update={"input": shown}), calibration)
    made = profile.load(tmp_path)
    with pytest.raises(ModelError, match=r"other views than profile\.yaml shows"):
        predictor.load_predictor(made, threads=1)
    export(made)
    every, two = (predictor.load_predictor(each, threads=1, wanted=RuntimeKind.OPENVINO) for each in (small, made))
    for seed in range(3):
        one, spec = radiograph(seed), small.input
        rows = every.runtime.infer(preprocess.views(preprocess.pictures(one.pixels, spec), spec)[None]).logits[0, :, 0]
        kept = rows[[0, 3]]
        seen, before = two.examine(one), every.examine(one)
        assert seen.measurement.logit == pytest.approx(float(kept.mean()), abs=1e-4)
        assert seen.measurement.logit != pytest.approx(before.measurement.logit, abs=1e-4)
        by_view = predictor.calibrated(kept, made.slope, made.intercept)
        assert seen.prediction.spread == pytest.approx(float(np.ptp(by_view)), abs=1e-4)
        assert seen.prediction.distance == pytest.approx(before.prediction.distance, rel=1e-4)
        np.testing.assert_allclose(seen.heatmap.cells, before.heatmap.cells, atol=1 / 128)


def test_the_map_is_that_of_the_reference_implementation_on_100_images(shipped_profile: Profile) -> None:
    """Package grad-cam runs forward and backward through everything; the graph runs forward once."""
    grad_cam = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    import torch

    from cxr_node.model import weights

    network, _ = weights.load(shipped_profile.weights_path, shipped_profile.network, 1)
    quick = predictor.load_predictor(shipped_profile, threads=1)
    count = len(shipped_profile.input.views)
    inputs = graph_file.golden_inputs(shipped_profile.input)
    inputs = inputs.reshape(-1, 1, *inputs.shape[2:])
    assert len(inputs) == 12 * count
    reference = grad_cam.GradCAM(network, [network.get_submodule("trunk.18")])
    worst = 1.0
    for views in inputs:
        found = quick.runtime.infer(np.repeat(views[None], count, axis=1))
        expected = reference.get_cam_image(  # before it is scaled up and stretched
            torch.from_numpy(views), [], None, *_passed(reference, views, targets.ClassifierOutputTarget(0)), False
        )
        expected = np.maximum(expected[0], 0.0)
        if expected.max() > 0:
            worst = min(worst, float(np.corrcoef(found.activation[0].ravel(), expected.ravel())[0, 1]))
    assert worst >= 0.999


def _passed(reference: object, views: np.ndarray, target: object) -> tuple[np.ndarray, np.ndarray]:
    import torch

    reference.activations_and_grads(torch.from_numpy(views))[:, 0].sum().backward()
    held = reference.activations_and_grads
    return held.activations[0].detach().numpy(), held.gradients[0].detach().numpy()


def test_a_softmax_over_classes_is_exported_with_its_map(tmp_path: Path) -> None:
    made = profile.load(test_networks.profile_folder(tmp_path))
    export(made)
    quick, reference = (
        predictor.load_predictor(made, 1, kind).examine(radiograph(2))
        for kind in (RuntimeKind.OPENVINO, RuntimeKind.TORCH)
    )
    for name, share in reference.prediction.classes.items():
        assert quick.prediction.classes[name] == pytest.approx(share, abs=1e-5)
    np.testing.assert_allclose(quick.heatmap.cells, reference.heatmap.cells, atol=1 / 128)


@pytest.mark.parametrize("architecture", ["efficientnet-b0", "resnet50", "densenet121"])
def test_a_head_with_hidden_layers_is_exported(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their closed-form gradient goes through batch normalisation and rectifiers."""
    import torch

    from cxr_node.model import networks, weights

    monkeypatch.setattr(graph_file, "_SHARES", ())
    spec = NetworkSpec(architecture=architecture)
    torch.manual_seed(5)
    weights.save(tmp_path / "weights.safetensors", networks.build(spec, 1).eval(), {})
    point = folders.CALIBRATED.operating_point.model_copy(update={"max_distance": None})
    profile.write(
        tmp_path,
        folders.DESCRIBED.model_copy(update={"network": spec}),
        folders.CALIBRATED.model_copy(update={"operating_point": point}),
    )
    made = profile.load(tmp_path)
    export(made)
    shown = graph_file.golden_inputs(made.input)[:2]
    quick = predictor.load_predictor(made, 1, RuntimeKind.OPENVINO).runtime.infer(shown)
    reference = torch_runtime.load(made, 1, "cpu").infer(shown)
    np.testing.assert_allclose(quick.logits, reference.logits, rtol=1e-3, atol=1e-4)
    scale = float(np.abs(reference.activation).max()) or 1.0
    np.testing.assert_allclose(quick.activation / scale, reference.activation / scale, atol=1e-3)


def test_a_runtime_that_answers_otherwise_is_refused(small: Profile, tmp_path: Path) -> None:
    golden = np.array(graph_file.description(small).golden_logits) + 1.0
    other = edited(small, tmp_path / "other", golden_logits=golden.tolist())
    with pytest.raises(ModelError, match=r"OpenVINO .* fp32 is refused: a probability differs by 0\.\d+ from torch"):
        predictor.load_predictor(other, 1, RuntimeKind.OPENVINO)


@pytest.mark.parametrize(("few", "calls"), [(False, 6), (True, 2)])
def test_a_start_tries_every_input_and_a_single_answer_four(shipped_profile: Profile, few: bool, calls: int) -> None:
    shown, (inputs, views) = graph_file.trial(shipped_profile.input, few=few)
    assert shown.shape == (calls, 2, 2, 224, 224)
    np.testing.assert_array_equal(shown, graph_file.golden_inputs(shipped_profile.input)[inputs, views])
    assert len(set(inputs.ravel())) == 2 * calls
    assert set(views.ravel()) == {0, 1}
    kinds = {"clear" if number < 3 else "opaque" if number < 6 else "mixed" for number in inputs.ravel().tolist()}
    assert kinds == {"clear", "opaque", "mixed"}


@pytest.mark.parametrize("view", range(2))
def test_a_runtime_that_errs_in_one_view_is_refused_for_a_single_answer_too(
    shipped_profile: Profile, monkeypatch: pytest.MonkeyPatch, view: int
) -> None:
    class Wrong(openvino_runtime.OpenVINORuntime):
        """Of any call, it answers one place wrong."""

        def infer(self, shown: np.ndarray) -> runtime.NetworkOutput:
            output = super().infer(shown)
            output.logits[:, view] += 0.05
            return output

    monkeypatch.setattr(predictor, "candidates", lambda *_: iter([Wrong(shipped_profile, 1)]))
    with pytest.raises(ModelError, match="is refused: a probability differs by"):
        predictor.load_predictor(shipped_profile, 1, RuntimeKind.OPENVINO, for_one=True)


def test_a_changed_graph_does_not_start(small: Profile, tmp_path: Path) -> None:
    other = edited(small, tmp_path / "other")
    (other.folder / "network.bin").write_bytes(b"\0")
    with pytest.raises(ModelError, match=r"network\.bin was changed"):
        predictor.load_predictor(other, 1)


def test_a_graph_of_other_weights_does_not_start(small: Profile, tmp_path: Path) -> None:
    other = edited(small, tmp_path / "other", weights_sha256="0" * 64)
    with pytest.raises(ModelError, match=r"was made of weights 000.*Run cxr-node export"):
        predictor.load_predictor(other, 1)


def test_without_a_graph_torch_serves_and_openvino_says_what_to_do(tmp_path: Path) -> None:
    made = profile.load(folders.write(tmp_path))
    assert predictor.load_predictor(made, 1).runtime.name.startswith("torch")
    with pytest.raises(ModelError, match="cxr-node export"):
        predictor.load_predictor(made, 1, RuntimeKind.OPENVINO)


NO_TORCH = """
import sys
sys.modules["torch"] = sys.modules["torchvision"] = None  # as where they are not installed: importing them fails
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name.startswith("torch") else found(name, *rest)
from cxr_node.cli.node import app
app(sys.argv[1:])
"""


def test_an_installation_without_torch_judges(tmp_path: Path) -> None:
    image = Path(graph_file.__file__).parents[1] / "demo_radiographs" / "opacity-1.jpg"
    command = [sys.executable, "-c", NO_TORCH, "classify", "--help"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    command = [sys.executable, "-c", NO_TORCH, "classify", str(image)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "%" in done.stdout and "Traceback" not in done.stderr


def test_training_without_torch_says_what_to_install(tmp_path: Path) -> None:
    command = [sys.executable, "-c", NO_TORCH, "export", str(resources.profile_folder("pneumonia-pediatric"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == (
        "cxr-node: this command needs torch, which is not installed: pip install 'cxr-node[torch]'\n"
    )


def test_nobody_is_told_of_our_use() -> None:
    program = (
        "import sys, cxr_node.model.openvino_runtime, openvino.tools.ovc;"
        "print(*(m for m in sys.modules if sys.modules[m]), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "openvino.tools.ovc.telemetry_stub" in done.stdout
    assert "openvino_telemetry" not in done.stdout
