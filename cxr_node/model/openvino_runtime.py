"""The runtime for CPUs: OpenVINO, on the graph that `export` wrote into the profile folder. Knows no torch."""

from __future__ import annotations

import numpy as np

from cxr_node.errors import ModelError
from cxr_node.model import exported
from cxr_node.model.openvino_alone import VERSION, ov, properties
from cxr_node.model.preprocess import VIEW_NAMES
from cxr_node.model.profile import Profile
from cxr_node.model.runtime import Floats, Sight


class OpenVINORuntime:
    """A network in OpenVINO; `runtime.Runtime`.

    One image is one call on all of its views, whatever waits beside it: a larger batch is no quicker on a CPU
    (measured: 8.1 ms for one image, 8.3 ms an image for two, 9.2 for four), and so no image can touch its neighbour.
    """

    batch = 1

    def __init__(self, profile: Profile, threads: int, *, bf16: bool = False) -> None:
        precision = ov.Type.bf16 if bf16 else ov.Type.f32
        self.name = f"OpenVINO {VERSION} CPU {'bf16' if bf16 else 'fp32'}"
        self.layer = exported.description(profile).layer
        options = {
            properties.hint.inference_precision(): precision,
            properties.hint.performance_mode(): properties.hint.PerformanceMode.LATENCY,
            properties.inference_num_threads(): threads,
        }
        try:
            core = ov.Core()
            model = core.read_model(exported.graph(profile))
            model.reshape([len(VIEW_NAMES), 1, profile.input.size_px, profile.input.size_px])
            self._request = core.compile_model(model, "CPU", options).create_infer_request()
        except RuntimeError as error:
            raise ModelError(f"{profile.folder}: OpenVINO cannot use the exported network: {error}") from error

    def see(self, shown: Floats) -> Sight:
        """As `runtime.Runtime`; one image after the other."""
        seen = [self._see(np.ascontiguousarray(views)) for views in shown]
        strange = [one.strangeness for one in seen if one.strangeness is not None]
        return Sight(
            logits=np.concatenate([one.logits for one in seen]),
            activation=np.concatenate([one.activation for one in seen]),
            signature=np.concatenate([one.signature for one in seen]),
            strangeness=np.concatenate(strange) if strange else None,
        )

    def _see(self, views: Floats) -> Sight:
        try:
            self._request.infer([views], share_inputs=True)
        except RuntimeError as error:
            raise ModelError(f"the network failed: {error}") from error
        logits, activation, signature, *strange = (tensor.data for tensor in self._request.output_tensors)
        return Sight(  # copies: the request writes into the same memory at its next call
            logits=logits[None].copy(),
            activation=activation[:1].copy(),
            signature=signature[:1].copy(),
            strangeness=strange[0][:1].copy() if strange else None,
        )
