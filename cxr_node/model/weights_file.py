"""weights.safetensors: what its keys mean, and the part of it that serving needs beside the network.

Knows no torch. Keys: `network.<parameter>` (matrices as fp16, or as they came; vectors as fp32) and
`distance.<statistic>` (fp32, see `model.ood_distance.fit`; none where the training images are not known). Nothing is
unpickled.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from cxr_node.errors import ModelError

Floats = NDArray[np.float32]

NETWORK, DISTANCE = "network.", "distance."
STATISTICS = frozenset({"mean", "axes", "variance", "residual_variance", "scale"})
"""What `model.ood_distance.fit` yields."""
LEARNED = "learned"
"""A further statistic, where the network has learned to know outsiders."""


def statistics(path: Path) -> dict[str, Floats]:
    """Read the statistics of the training features; {} where there are none.

    Raises ModelError: the file cannot be read, or holds what is neither network nor statistics.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            if strange := sorted(name for name in names if not name.startswith((NETWORK, DISTANCE))):
                raise ModelError(f"{path}: tensor {strange[0]!r} is neither {NETWORK}* nor {DISTANCE}*")
            stats = {
                name.removeprefix(DISTANCE): np.asarray(file.get_tensor(name), dtype=np.float32)
                for name in names
                if name.startswith(DISTANCE)
            }
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if stats and stats.keys() - {LEARNED} != STATISTICS:
        raise ModelError(f"{path}: {DISTANCE}* must be {sorted(STATISTICS)} or nothing, found {sorted(stats)}")
    return stats
