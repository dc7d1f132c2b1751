"""Where the network looked: Grad-CAM (Selvaraju et al. 2017), scaled, on the source pixel grid.

Knows no network (`Network.activation` makes the map), no file, no threshold of the classifier and no region
(`regions` makes them).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cxr_node.heatmap import spread

LEVELS = 256
"""Steps of a cell's weight: coarser than what the number of threads moves (1e-5), so that it moves no byte."""
SMALLEST_RISE = 1.0
"""In logits: what an image as warm everywhere as at its peak would add. Below it nothing stands out. On 250
radiographs, what was called NORMAL had at most 0.98 (median 0), what was called PNEUMONIA at least 4.4 (median 6)."""


def on_source_grid(
    active: NDArray[np.float32], shape: tuple[int, int], border: float | tuple[float, float]
) -> NDArray[np.float32]:
    """Spread an activation over the radiograph: `scaled`, then `heatmap.spread`; `border` as there, or one for both."""
    return spread(scaled(active), border if isinstance(border, tuple) else (border, border), shape)


def scaled(active: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale the peak of an activation to 1.

    Parameters
    ----------
    active : float32, shape (cells, cells) of the feature map, 0 or larger

    Returns
    -------
    float32, the same shape, range [0, 1]. All zeros where nothing raises the logit by `SMALLEST_RISE`.
    """
    peak = float(active.max())
    if peak * active.size < SMALLEST_RISE:
        return np.zeros_like(active, dtype=np.float32)
    stepped: NDArray[np.float32] = (np.round(active / peak * LEVELS) / LEVELS).astype(np.float32)
    return stepped
