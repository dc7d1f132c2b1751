"""From path lengths to a film: absorption, scatter, quanta, grey values. Knows no anatomy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tools.phantom.canvas import Canvas, Plane, soften
from tools.phantom.child import Child
from tools.phantom.skeleton import bone
from tools.phantom.thorax import soft_tissue

ROWS, COLS = 832, 1024
MARGIN_PX = 32
"""Drawn around the film and cut off once the child lies turned on it."""
SOFT_PER_CM, BONE_PER_CM = 0.19, 0.42
"""Linear attenuation of water and of a child's bone at some 60 keV, 1/cm (NIST tables: 0.206 and about 0.5)."""
QUANTA = 20000
"""Counted in a pixel that nothing shades; the grain of a film of low dose."""


def radiograph(child: Child) -> NDArray[np.uint8]:
    """Draw one frontal chest radiograph.

    Returns
    -------
    uint8, shape (ROWS, COLS), brighter where more was absorbed; the same bytes for the same child
    """
    canvas = Canvas(ROWS + 2 * MARGIN_PX, COLS + 2 * MARGIN_PX)
    absorbed = SOFT_PER_CM * soft_tissue(child, canvas) + BONE_PER_CM * bone(child, canvas)
    absorbed *= 1.0 + 0.012 * canvas.noise(child.chance("texture"), 0.5)
    film = _developed(_counted(absorbed, child))
    turned = Image.fromarray(film).rotate(child.turn_deg, Image.Resampling.BICUBIC)
    cut = turned.crop((MARGIN_PX, MARGIN_PX, MARGIN_PX + COLS, MARGIN_PX + ROWS))
    return np.asarray(cut)


def _counted(absorbed: Plane, child: Child) -> Plane:
    """Beer and Lambert's law, focal blur, scattered radiation, Poisson's noise; the detector's own blur."""
    primary = soften(np.exp(-absorbed), 0.02)
    dose = primary + 0.35 * soften(primary, 2.0)
    return soften(child.chance("quanta").poisson(dose * QUANTA) / QUANTA, 0.015)


def _developed(counted: Plane) -> NDArray[np.uint8]:
    """Take the logarithm, lift edges and flatten the field as viewers' films are, spread over 8 bits."""
    shade = -np.log(np.clip(counted, 1e-4, None))
    shade += 0.3 * (shade - soften(shade, 0.35)) + 0.6 * (shade - soften(shade, 2.0))
    low, high = np.quantile(shade, [0.02, 0.995])
    grey: NDArray[np.uint8] = np.round(243.0 * np.clip((shade - low) / (high - low), 0.0, 1.0) ** 1.3).astype(np.uint8)
    return grey
