"""What computes a network: one small interface, and the choice of who implements it on this machine.

Knows no pixels and no calibration, and loads no runtime before it is wanted. torch is the reference, and the only one
that trains; OpenVINO is what a CPU serves with, from the graph that `torch_runtime.export` wrote into the profile
folder, so that serving needs no torch.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cxr_node.domain import RuntimeKind
from cxr_node.errors import ModelError
from cxr_node.model import graph_file
from cxr_node.model.profile import Profile

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkOutput:
    """What the network yields for the views of some images, before any calibration.

    Attributes
    ----------
    logits : float32, shape (images, views, labels)
    activation : float32, shape (images, rows, cols), of the plain view: Grad-CAM of the judged label, 0 or larger
    signature : float32, shape (images, channels), of the plain view: what `distance` measures
    strangeness : float32, shape (images,), of the plain view, where the network has learned to know outsiders
    """

    logits: Floats
    activation: Floats
    signature: Floats
    strangeness: Floats | None


class Runtime(Protocol):
    """A network on this machine. Not for two threads at once."""

    @property
    def name(self) -> str:
        """Who computes, and how exactly; for logs and benchmarks."""
        ...

    @property
    def layer(self) -> str:
        """Which layer of the network the heat map is of."""
        ...

    @property
    def batch(self) -> int:
        """How many images at once pay."""
        ...

    def infer(self, shown: Floats) -> NetworkOutput:
        """Pass all views of some images through the network, once.

        Parameters
        ----------
        shown : float32, shape (images, views, 1, size_px, size_px); the first view is the image itself

        Raises
        ------
        ModelError : the network failed.
        """
        ...


def candidates(profile: Profile, wanted: RuntimeKind, threads: int) -> Iterator[Runtime]:
    """Make what may serve a profile here, the quickest first; who uses them tries each on golden inputs.

    Parameters
    ----------
    wanted : AUTO tries CUDA, OpenVINO, torch; each in float32, whatever shorter numbers the processor multiplies
    threads : of one call

    Raises
    ------
    ModelError : what is wanted is not installed, or the profile has no exported graph for it
    """
    if wanted is RuntimeKind.TORCH:
        yield _torch(profile, threads)
        return
    if wanted is RuntimeKind.AUTO and torch_installed() and Path("/dev/nvidiactl").exists():
        yield _torch(profile, threads)
    if graph_file.there(profile):
        from cxr_node.model.openvino_runtime import OpenVINORuntime

        yield OpenVINORuntime(profile, threads)
    elif wanted is not RuntimeKind.AUTO or not torch_installed():
        raise ModelError(
            f"{profile.folder} holds no exported network. `cxr-node export {profile.folder}` makes one where torch "
            "is installed (pip install 'cxr-node[torch]')."
        )
    if wanted is RuntimeKind.AUTO and torch_installed():
        yield _torch(profile, threads)


def torch_installed() -> bool:
    """Tell whether torch could be imported, without paying for it."""
    return importlib.util.find_spec("torch") is not None


def _torch(profile: Profile, threads: int) -> Runtime:
    if not torch_installed():
        raise ModelError("the runtime torch is not installed: pip install 'cxr-node[torch]'")
    # Before torch is loaded: on busy cores, threads that spin while they wait made one image take 1.9 s, not 0.08 s.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from cxr_node.model.torch_runtime import load

    return load(profile, threads)
