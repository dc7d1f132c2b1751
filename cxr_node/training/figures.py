"""A figure of some images and its 95 % interval as metrics.json keeps it; the bootstrap is `bootstrap`'s."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cxr_node.training import bootstrap

Figure = dict[str, float]
"""value, low, high; not numbers where there is no image."""
Groups = NDArray[np.str_]


def mean(values: Sequence[float] | NDArray[np.float64], groups: Groups) -> Figure:
    """Mean over images; `groups` names the patient of each."""
    return bootstrap.mean(np.asarray(values, dtype=np.float64), groups).as_json()


def share(hits: Sequence[bool] | NDArray[np.bool_], groups: Groups) -> Figure:
    """Share of hits; see `bootstrap.bracket` for none and all."""
    return bootstrap.share(np.asarray(hits, dtype=np.bool_), groups).as_json()


def known(figures: dict[str, Figure]) -> dict[str, Figure]:
    """Leave out what the images do not define."""
    return {name: one for name, one in figures.items() if np.isfinite(list(one.values())).all()}
