"""The same numbers on every processor, and a runtime that leaves no trap for the signals of its process."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cxr_node import resources
from cxr_node.config.schema import Model
from cxr_node.domain import RuntimeKind
from cxr_node.errors import ModelError
from cxr_node.model import graph_file, openvino_runtime, predictor, profile, runtime, torch_runtime
from cxr_node.model.openvino_runtime import OpenVINORuntime, ov, properties
from cxr_node.model.profile import Profile

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made() -> Profile:
    return profile.load(resources.profile_folder("pneumonia-pediatric"))


@pytest.fixture(scope="module")
def shown(made: Profile) -> np.ndarray:
    return graph_file.golden_inputs(made.input)[6:9]  # mixtures: neither 0 nor 1, so that a rounding shows


def graph(made: Profile) -> ov.Model:
    model = ov.Core().read_model(graph_file.graph(made))
    model.reshape([len(made.input.views), made.input.pictures, made.input.side_px, made.input.side_px])
    return model


def logits(compiled: ov.CompiledModel, shown: np.ndarray) -> np.ndarray:
    request = compiled.create_infer_request()
    return np.concatenate([np.array(request.infer([views])[compiled.outputs[0]]) for views in shown]).ravel()


def test_a_graph_is_compiled_in_float32_and_says_so(made: Profile) -> None:
    compiled = openvino_runtime.apart(lambda: openvino_runtime.in_float32(graph(made), 1))
    assert compiled.get_property(properties.hint.inference_precision()) == ov.Type.f32
    assert compiled.get_property(properties.hint.execution_mode()) == properties.hint.ExecutionMode.ACCURACY
    assert OpenVINORuntime(made, 1).name.endswith("fp32")


def test_bfloat16_where_the_processor_has_it_would_answer_otherwise(made: Profile, shown: np.ndarray) -> None:
    """What OpenVINO takes by itself on such a processor is more than a rounding away; what we compile is not."""
    reference = torch_runtime.load(made, 1, "cpu").infer(shown).logits.ravel()
    ours = OpenVINORuntime(made, 1).infer(shown).logits.ravel()
    np.testing.assert_allclose(ours, reference, atol=1e-4)
    try:
        by_itself = openvino_runtime.apart(lambda: ov.Core().compile_model(graph(made), "CPU"))
    except RuntimeError:  # it would, and ONEDNN_MAX_CPU_ISA forbids it
        pytest.skip("this processor does not multiply bfloat16")
    if by_itself.get_property(properties.hint.inference_precision()) == ov.Type.f32:
        pytest.skip("on this processor OpenVINO takes float32 by itself")
    short = openvino_runtime.apart(
        lambda: ov.Core().compile_model(graph(made), "CPU", {properties.hint.inference_precision(): ov.Type.bf16})
    )
    for other in (by_itself, short):
        assert np.abs(logits(other, shown) - reference).max() > 1e-3


def test_a_runtime_that_computes_in_other_numbers_is_refused(made: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    class Short(OpenVINORuntime):
        """As OpenVINO would be where a hint was ignored: rounded to the 8 bits of bfloat16."""

        def infer(self, shown: np.ndarray) -> runtime.NetworkOutput:
            output = super().infer(shown)
            rounded = (output.logits.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
            return replace(output, logits=rounded)

    monkeypatch.setattr(predictor, "candidates", lambda *_: iter([Short(made, 1)]))
    with pytest.raises(ModelError, match="is refused: a probability differs by"):
        predictor.load_predictor(made, 1, RuntimeKind.OPENVINO)


def test_a_precision_that_the_plugin_did_not_take_is_an_error(
    monkeypatch: pytest.MonkeyPatch, made: Profile, tmp_path: Path
) -> None:
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path))

    class Compiled:
        def get_property(self, _: object) -> ov.Type:
            return ov.Type.bf16

    class Core:
        compile_model = staticmethod(lambda *_: Compiled())
        read_model = staticmethod(lambda path: ov.Core().read_model(path))

    monkeypatch.setattr(openvino_runtime, "ov", type("ov", (), {"Core": Core, "Type": ov.Type}))
    with pytest.raises(ModelError, match="asked for float32, and computes in"):
        OpenVINORuntime(made, 1)


def test_torch_computes_in_float32_whatever_the_process_allows(made: Profile, shown: np.ndarray) -> None:
    network = torch_runtime.load(made, 1, "cpu")
    expected = network.infer(shown)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            found = network.infer(shown)
            assert torch.get_float32_matmul_precision() == "medium", "the process keeps its own setting"
    finally:
        torch.set_float32_matmul_precision(before)
    np.testing.assert_array_equal(found.logits, expected.logits)
    np.testing.assert_array_equal(found.activation, expected.activation)


def test_a_start_tries_one_runtime_and_calls_nothing_an_error(made: Profile, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", "cxr_node"):
        chosen = list(predictor.candidates(made, RuntimeKind.OPENVINO, 1))
        predictor.load_predictor(made, 1, RuntimeKind.OPENVINO)
    assert [one.name for one in chosen] == [f"OpenVINO {openvino_runtime.VERSION} CPU fp32"]
    assert [record.getMessage().partition(" judges by ")[2] for record in caplog.records] == [chosen[0].name]


def test_bfloat16_is_no_runtime_that_can_be_wanted() -> None:
    assert [kind.value for kind in RuntimeKind] == ["auto", "openvino", "torch"]
    with pytest.raises(ValueError, match="openvino-bf16"):
        Model.model_validate({"runtime": "openvino-bf16"})


DROPPED = """
import gc, os, signal, sys, threading
from pathlib import Path
from cxr_node.model import profile
from cxr_node.model.openvino_runtime import OpenVINORuntime
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
made = profile.load(Path(sys.argv[1]))
held = [OpenVINORuntime(made, 1) for _ in range(3)]
{drop}
for _ in range(3):
    gc.collect()
    stop.clear()
    signal.raise_signal(signal.SIGTERM)
    assert stop.is_set()
"""


OLDEST_FIRST = "held.pop(0); held.pop(0); held.pop(0)"
ELSEWHERE = "thread = threading.Thread(target=lambda: (held.clear(), gc.collect())); thread.start(); thread.join()"


@pytest.mark.parametrize(
    ("drop", "options"),
    [
        pytest.param(OLDEST_FIRST, [], id="the oldest first"),
        pytest.param(OLDEST_FIRST, ["-X", "faulthandler"], id="with faulthandler"),
        pytest.param(ELSEWHERE, [], id="in another thread"),
        pytest.param("", [], id="not at all"),
    ],
)
def test_a_signal_after_runtimes_were_dropped_ends_nobody(made: Profile, drop: str, options: list[str]) -> None:
    """OpenVINO's plugin leaves the thread that loaded it with an alternate signal stack that is unmapped."""
    text = textwrap.dedent(DROPPED).replace("{drop}", drop)
    command = [sys.executable, *options, "-c", text, str(made.folder)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
