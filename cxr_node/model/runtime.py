"""What computes a network: the interface of `torch_runtime` and `openvino_runtime`.

torch is the reference, and trains; OpenVINO serves on CPUs, from the graph that `torch_runtime.export` wrote.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

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


class Company:
    """How many images are in hand; entered around each.

    A network that takes all cores for one image gives the quickest answer, and one core for each of several images the
    most answers: less is lost to threads that wait for each other.
    """

    def __init__(self) -> None:
        self._lock, self._present = threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            self._present += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._present -= 1

    @property
    def is_alone(self) -> bool:
        """Whether no other image is in hand."""
        return self._present <= 1


class Runtime(Protocol):
    """A network on this machine. Not for two threads at once, unless `is_shared`."""

    @property
    def name(self) -> str:
        """Who computes, and how exactly; for logs and benchmarks."""

    @property
    def layer(self) -> str:
        """Which layer of the network the heat map is of."""

    @property
    def batch(self) -> int:
        """How many images at once pay."""

    @property
    def is_shared(self) -> bool:
        """Whether several threads may ask at once."""

    def infer(self, shown: Floats) -> NetworkOutput:
        """Pass all views of some images through the network, once.

        Parameters
        ----------
        shown : float32, shape (images, views, pictures, side_px, side_px); the first view is the image itself

        Raises ModelError: the network failed.
        """
