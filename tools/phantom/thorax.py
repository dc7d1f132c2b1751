"""Soft tissue and air along each ray: trunk, lungs, heart, vessels, consolidations, gas in the belly.

Knows no bone and no grey value. Path lengths in cm.
"""

from __future__ import annotations

import numpy as np

from tools.phantom.canvas import Canvas, Plane, Points, soften, step
from tools.phantom.child import Child, Opacity

HALF_WIDTH = 8.1
"""Of the thoracic cavity, from the spine to the wall."""
SMALLEST_VESSEL = 0.028


def soft_tissue(child: Child, canvas: Canvas) -> Plane:
    """Thickness of all that absorbs like water."""
    air = lungs(child, canvas)
    inflated = np.clip(air / 4.0, 0.0, 1.0)
    tissue = trunk(child, canvas) - 0.86 * air + 1.3 * child.vessels * vessels(child, canvas) * inflated
    return np.clip(tissue, 0.0, None)


def chest_wall(y: Plane, child: Child) -> Plane:
    """Half width of the thoracic cavity at each height: a bell, open below."""
    half_width = HALF_WIDTH * child.chest
    above = np.clip((12.6 - y) / 10.3, 0.0, 1.0)
    return half_width * np.sqrt(np.clip(1.0 - above**2.5, 0.0, None)) + 0.06 * np.clip(y - 12.6, 0.0, None)


def lungs(child: Child, canvas: Canvas) -> Plane:
    """Thickness of air: the cavity above both domes, less what fills it."""
    chance = child.chance("lungs")
    wall = np.maximum(chest_wall(canvas.y, child), 0.1)
    flat = np.sqrt(np.clip(1.0 - (canvas.x / wall) ** 2, 0.0, None))
    heart = mediastinum(child, canvas)
    depth = 4.9 * np.clip(wall / HALF_WIDTH, 0.0, 1.2) ** 0.7 * flat  # from the middle to the back
    air = np.zeros(canvas.shape)
    for side, dome in ((-1, 12.6), (1, 13.2)):
        outwards = side * canvas.x
        fall = np.where(outwards > 3.6, 2.7, 1.35) * ((outwards - 3.6) / 4.3) ** 2
        below = canvas.y - (dome + child.breath_cm + chance.uniform(-0.3, 0.3)) - fall
        recess = np.clip(depth - 5.2 * np.sqrt(np.clip(below / 2.9, 0.0, None)), 0.0, None)  # lung behind the dome
        above = step(-below, 0.05)
        border = chance.uniform(1.35, 1.65) + 0.12 * np.sin(0.5 * canvas.y + chance.uniform(0.0, 3.0))
        beside = 0.12 * step(outwards - 0.7, 0.15) + 0.88 * step(outwards - border, 0.12)
        beside_heart = np.clip(2.0 * depth - heart, 0.24 * depth, None)
        air += beside * (above * beside_heart + (1.0 - above) * recess)
    return air * (1.0 - consolidation(child, canvas))


def mediastinum(child: Child, canvas: Canvas) -> Plane:
    """Thickness of heart, great vessels and the roots of the lungs."""
    chance = child.chance("heart")
    size, low = child.heart * chance.uniform(0.97, 1.03), 10.4 + 0.5 * child.breath_cm
    left = canvas.ellipsoid((1.25, low), (4.1 * size, 3.1 * size), 10.5, chance.uniform(38.0, 48.0))
    right = canvas.ellipsoid((-1.0, low + 0.1), (1.75 * size, 2.7 * size), 9.0, -8.0)
    arch = canvas.ellipsoid((1.2, 6.4), (1.25, 2.2), 5.0, -8.0)
    cava = canvas.ellipsoid((-1.1, 6.4), (1.15, 3.6), 4.0, 3.0)
    roots = canvas.ellipsoid((-2.5, 8.6), (0.9, 1.5), 1.6, -15.0) + canvas.ellipsoid((2.6, 8.1), (0.9, 1.3), 1.6, 20.0)
    return soften(np.maximum.reduce([left, right, arch, cava]), 0.09) + soften(roots, 0.2)


def consolidation(child: Child, canvas: Canvas) -> Plane:
    """Share of the air that fluid replaces, in [0, 0.97]."""
    cloudy = np.clip(1.0 + 0.35 * canvas.noise(child.chance("haze"), 1.2), 0.0, 2.0)
    clear = 1.0 - child.haze * cloudy
    for number, one in enumerate(child.opacities):
        clear = clear * (1.0 - _filled(one, canvas, child.chance(f"opacity {number}")))
    return np.clip(1.0 - clear, 0.0, 0.97)


def _filled(one: Opacity, canvas: Canvas, chance: np.random.Generator) -> Plane:
    ragged = 0.16 * canvas.noise(chance, 0.9) + 0.07 * canvas.noise(chance, 0.35)
    reach = np.hypot((canvas.x - one.x) / one.width, (canvas.y - one.y) / one.height) - ragged
    islands = 1.0 + one.patchy * (0.35 * canvas.noise(chance, 0.6) + 0.15 * canvas.noise(chance, 0.16))
    return np.clip(one.fill * step(1.0 - reach, 0.22) * np.clip(islands, 0.0, 1.4), 0.0, 0.97)


def trunk(child: Child, canvas: Canvas) -> Plane:
    """Thickness of trunk, neck, chin and raised arms, less windpipe and gas."""
    chance = child.chance("trunk")
    skin = HALF_WIDTH * child.chest + chance.uniform(0.9, 1.3) + 0.10 * np.clip(canvas.y - 9.0, -4.0, None)
    chest = 12.0 * np.sqrt(np.clip(1.0 - np.abs(canvas.x / skin) ** 3.2, 0.0, None)) * step(canvas.y - 3.4, 0.9)
    lift = chance.uniform(-0.8, 0.8)
    arms = [canvas.capsule((side * 4.2, 3.9), (side * 12.5, 0.6 + lift), 3.0) for side in (-1, 1)]
    neck = canvas.capsule((0.0, 6.0), (0.0, -8.0), 3.3)
    chin = canvas.capsule((-0.9, -2.3), (0.9, -2.3), chance.uniform(2.6, 3.3))
    # A cubic mean joins the parts without seams, and adds little where one is much the thickest.
    whole = np.cbrt(sum((part**3 for part in (*arms, neck, chin)), chest**3))
    windpipe = canvas.capsule((0.15, -2.0), (0.1, 6.4), 0.42)
    return soften(whole, 0.12) - 0.9 * soften(windpipe, 0.05) - belly_gas(child, canvas)


def belly_gas(child: Child, canvas: Canvas) -> Plane:
    """Thickness of gas in the stomach under the left dome, and in the bowel."""
    chance = child.chance("belly")
    place = (4.6 + chance.uniform(-0.6, 0.6), 16.0 + chance.uniform(-0.2, 0.6))
    gas = canvas.ellipsoid(place, (1.5, 0.95), 3.0, chance.uniform(-30.0, 10.0))
    for _ in range(4):
        place = (chance.uniform(1.5, 6.5), chance.uniform(16.4, 18.0))
        half_axes = (chance.uniform(0.5, 1.1), chance.uniform(0.4, 0.7))
        gas = np.maximum(gas, canvas.ellipsoid(place, half_axes, chance.uniform(1.0, 2.2), chance.uniform(0.0, 180.0)))
    return soften(gas, 0.07)


def vessels(child: Child, canvas: Canvas) -> Plane:
    """Thickness of the lung vessels: trees that fork from the roots outwards."""
    chance = child.chance("vessels")
    branches: dict[float, list[tuple[Points, Plane]]] = {0.20: [], 0.13: [], 0.08: [], 0.05: []}

    def grow(start: Points, heading: float, radius: float, length: float) -> None:
        if radius < SMALLEST_VESSEL:
            return
        pieces = max(4, int(length / 0.02))
        course = heading + np.cumsum(chance.normal(0.0, 0.03, pieces))
        points = start + np.cumsum(np.column_stack([np.cos(course), np.sin(course)]) * length / pieces, axis=0)
        nearest = min(branches, key=lambda size: abs(size - radius))
        branches[nearest].append((points, np.full(pieces, length / pieces)))
        for turn in (chance.uniform(0.1, 0.45), -chance.uniform(0.1, 0.45)):
            grow(
                points[-1], course[-1] + turn, radius * chance.uniform(0.70, 0.86), length * chance.uniform(0.72, 0.98)
            )

    for side in (-1, 1):
        for angle in np.linspace(-1.35, 1.35, 8):
            heading = angle if side > 0 else np.pi - angle
            start = np.array([side * 2.2, 8.4 + 0.6 * np.sin(angle)])
            grow(start, heading + chance.normal(0.0, 0.1), chance.uniform(0.13, 0.19), chance.uniform(1.2, 1.7))
    return sum((canvas.tubes(found, size, 0.0) for size, found in branches.items()), np.zeros(canvas.shape))
