"""The reference runtime: torch, float32, on CUDA where there is a GPU; and the export of a network as a graph.

The graph serves without torch; torch's own answers are written beside it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import yaml
from torch import nn

from cxr_node.errors import ModelError
from cxr_node.model import graph_file, weights
from cxr_node.model.networks import Network
from cxr_node.model.profile import Profile, sha256
from cxr_node.model.runtime import Floats, NetworkOutput

OUTPUTS = ("logits", "activation", "signature", "strangeness")
"""Names of what `Served` returns, in this order; without the last where the network has not learned it."""


class Served(nn.Module):
    """A network in evaluation mode that also explains one of its logits.

    `label` : which logit is judged, and explained
    """

    def __init__(self, network: Network, label: int) -> None:
        super().__init__()
        self.network = network
        self.label = label

    def forward(self, shown: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(images, pictures, side_px, side_px) -> `OUTPUTS`, a row for each image."""
        early_map = self.network.early(shown)
        feature_map = self.network.late(early_map)
        seen = (
            self.network.head(feature_map),
            self.network.activation(feature_map, self.label),
            self.network.signature(early_map),
        )
        strangeness = self.network.strangeness(feature_map)
        return seen if strangeness is None else (*seen, strangeness)


CUDA_BATCH = 16
"""Images at once on a GPU; on a CPU a batch of images is no quicker than one after the other (measured)."""


class TorchRuntime:
    """A network in torch; `runtime.Runtime`."""

    is_shared = False

    def __init__(self, network: Network, label: int, device: str = "cpu") -> None:
        self._device = torch.device(device)
        placed = network.to(self._device).to(memory_format=torch.channels_last).eval()  # 33 instead of 50 ms
        self._served = Served(placed, label)
        self.name = f"torch {torch.__version__.partition('+')[0]} {device} fp32"
        self.layer = network.layer
        self.batch = CUDA_BATCH if device == "cuda" else 1

    def infer(self, shown: Floats) -> NetworkOutput:
        """As `runtime.Runtime`; all images in one batch."""
        images, views = shown.shape[:2]
        try:
            with torch.no_grad(), in_float32():
                rows = torch.from_numpy(shown).flatten(0, 1).to(self._device)
                seen = self._served(rows.contiguous(memory_format=torch.channels_last))
                logits, activation, signature, *strange = (part.float().cpu().numpy() for part in seen)
        except RuntimeError as error:  # torch's only word for shapes, memory and devices
            raise ModelError(f"the network failed: {error}") from error
        return NetworkOutput(
            logits=logits.reshape(images, views, -1),
            activation=activation[::views],
            signature=signature[::views],
            strangeness=strange[0][::views] if strange else None,
        )


@contextmanager
def in_float32() -> Iterator[None]:
    """Multiply float32 as float32, whatever the process allows elsewhere: the calibration was fitted on that.

    A GPU may take TF32 instead, and a processor with AMX or AVX-512 bfloat16, where a program or a library said so.
    """
    torch.backends.cudnn.allow_tf32 = False
    before = torch.get_float32_matmul_precision()
    convolutions = getattr(torch.backends.mkldnn, "conv", None)  # since torch 2.9
    if convolutions is not None:
        convolutions.fp32_precision = "ieee"
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def load(profile: Profile, threads: int, device: str | None = None) -> TorchRuntime:
    """Load a profile's network.

    `threads` : process-wide, as torch's setting is
    `device` : "cpu" or "cuda"; None: a GPU where there is one
    Raises ModelError: the weights do not fit the network.
    """
    torch.set_num_threads(threads)
    network, _ = weights.load(profile.weights_path, profile.network, len(profile.labels))
    return TorchRuntime(network, profile.judged, device or ("cuda" if torch.cuda.is_available() else "cpu"))


def export(profile: Profile) -> None:
    """Write network.xml, network.bin and network.yaml into the profile's folder.

    Raises ModelError: the network cannot be turned into a graph, or the files cannot be written.
    """
    from cxr_node.model.half_constants import halve
    from cxr_node.model.openvino_runtime import VERSION, converted, ov

    network, _ = weights.load(profile.weights_path, profile.network, len(profile.labels))
    golden = TorchRuntime(network, profile.judged).infer(graph_file.golden_inputs(profile.input))
    served = Served(network.to(memory_format=torch.contiguous_format), profile.judged)
    side = profile.input.side_px
    film = (profile.input.pictures, side, side)
    example = torch.zeros(len(profile.input.views), *film)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the tracer's advice for who wrote the network
            graph = converted(served, example, [-1, *film])
        for output, name in zip(graph.outputs, OUTPUTS, strict=False):
            output.tensor.set_names({name})
        halve(graph, (value.numpy() for value in network.state_dict().values()))
        ov.save_model(graph, profile.folder / graph_file.GRAPH, compress_to_fp16=False)
    except (RuntimeError, OSError) as error:
        raise ModelError(f"{profile.folder}: the network cannot be exported: {error}") from error
    told = graph_file.Description(
        weights_sha256=profile.weights_sha256,
        sha256={name: sha256(profile.folder / name) for name in graph_file.FILES},
        made_by=f"torch {torch.__version__.partition('+')[0]}, OpenVINO {VERSION}",
        layer=network.layer,
        golden_logits=np.round(golden.logits[:, :, profile.judged].astype(float), 6).tolist(),
    )
    text = yaml.safe_dump(told.model_dump(), sort_keys=False, width=110, default_flow_style=None)
    (profile.folder / graph_file.DESCRIPTION).write_text(text, "utf-8")
