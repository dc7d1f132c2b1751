"""Which runtimes may compute a profile's network on this machine, the quickest first."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from cxr_node.domain import RuntimeKind
from cxr_node.errors import ModelError
from cxr_node.model import graph_file
from cxr_node.model.profile import Profile
from cxr_node.model.runtime import Runtime


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
