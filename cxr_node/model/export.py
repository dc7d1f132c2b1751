"""Write a profile's network as a graph that serves without torch, and torch's own answers beside it.

The only module that needs torch and OpenVINO at once.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
import yaml

from cxr_node.errors import ModelError
from cxr_node.model import graph_file, weights
from cxr_node.model.openvino_runtime import VERSION, ov
from cxr_node.model.preprocess import VIEW_NAMES
from cxr_node.model.profile import Profile, sha256
from cxr_node.model.torch_runtime import OUTPUTS, Served, TorchRuntime


def export(profile: Profile) -> None:
    """Write network.xml, network.bin and network.yaml into the profile's folder.

    Raises
    ------
    ModelError : the network cannot be turned into a graph, or the files cannot be written
    """
    network, _ = weights.load(profile.weights_path, profile.network, len(profile.labels))
    golden = TorchRuntime(network, profile.judged).infer(graph_file.golden_inputs(profile.input))
    served = Served(network.to(memory_format=torch.contiguous_format), profile.judged)
    size = profile.input.size_px
    example = torch.zeros(len(VIEW_NAMES), 1, size, size)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the tracer's advice for who wrote the network
            graph = ov.convert_model(served, example_input=example, input=[-1, 1, size, size])
        for output, name in zip(graph.outputs, OUTPUTS, strict=False):
            output.tensor.set_names({name})
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
