"""Bone along each ray: ribs, spine, shoulder girdle.

Knows no soft tissue but the wall that the ribs follow, and no grey value. Path lengths of solid bone, cm.
"""

from __future__ import annotations

import numpy as np

from tools.phantom.canvas import Canvas, Plane, Points, step
from tools.phantom.child import Child
from tools.phantom.thorax import chest_wall

RIB_PAIRS = 11
RIB_SPACING = 1.30
VERTEBRA = 1.36
"""Height of a vertebral body and its disc."""
POINTS = 1500
"""Along one bone: several to a pixel."""


def bone(child: Child, canvas: Canvas) -> Plane:
    """Thickness of all bone."""
    return ribs(child, canvas) + spine(child, canvas) + shoulders(child, canvas)


def ribs(child: Child, canvas: Canvas) -> Plane:
    """Pairs of hoops: from the spine backwards, round the side, and forwards down to where the cartilage begins."""
    chance = child.chance("ribs")
    first = 2.9 + chance.uniform(-0.2, 0.2)
    hoops = []
    for pair in range(RIB_PAIRS):
        level = first + pair * RIB_SPACING + chance.normal(0.0, 0.03)
        for side in (-1, 1):
            drop = (2.4 + 0.70 * pair - 0.035 * pair**2) * chance.uniform(0.95, 1.05)
            hoops.append(_hoop(child, pair, side, level, drop))
    return 0.55 * canvas.tubes(hoops, 0.28, 0.62)


def _hoop(child: Child, pair: int, side: int, level: float, drop: float) -> tuple[Points, Plane]:
    around = np.linspace(0.0, np.deg2rad(152.0 - 5.0 * max(0, pair - 6)), POINTS)  # 0 at the spine, 90 at the side
    reach = float(chest_wall(np.array(level + 0.3 * drop), child)) + 0.12
    x = side * (1.0 + (reach - 1.0) * np.sin(around) ** 0.9)
    y = level + drop * (1.0 - np.cos(around)) / 2.0 - (0.45 - 0.03 * pair) * np.sin(2.0 * around)
    z = 4.6 * np.cos(around)
    length = np.sqrt(np.gradient(x) ** 2 + np.gradient(y) ** 2 + np.gradient(z) ** 2)
    fading = np.clip((around[-1] - around) / 0.2, 0.0, 1.0) * np.where(around > 1.7, 0.75, 1.0)
    return np.column_stack([x, y]), length * fading


def spine(child: Child, canvas: Canvas) -> Plane:
    """Vertebral bodies with end plates, pedicles, transverse and spinous processes."""
    chance = child.chance("spine")
    x = canvas.x - 0.12 * np.sin(canvas.y / 6.0 + chance.uniform(0.0, 6.0))
    # Each vertebra is a little other than the next one: its end plates are uneven, its edges soft.
    uneven = 0.05 * canvas.noise(chance, 0.35)
    height = (canvas.y + chance.uniform(0.0, VERTEBRA) + 0.04 * np.cos(2.5 * x)) % VERTEBRA
    beside, middle = np.abs(x), np.abs(height - VERTEBRA / 2) + uneven
    half_width = 0.88 + 0.015 * canvas.y + 0.30 * middle**2
    inside, across = step(0.52 - middle, 0.05), step(half_width - beside, 0.06)
    plates = _line(middle - 0.50, 0.07) * across
    sides = _line(beside - half_width + 0.06, 0.07) * inside
    rings = _line(np.hypot((beside - 0.66) / 0.19, (height - 0.50) / 0.26) - 1.0, 0.30)
    transverse = _line(height - 0.50, 0.20) * step(1.55 - beside, 0.09)
    spinous = _line(x, 0.14) * _line(height - 1.0, 0.25)
    solid = across * (0.22 + 0.15 * inside) + 0.13 * (plates + sides + rings + transverse + spinous)
    return solid * (1.0 + 0.05 * canvas.noise(chance, 0.08))


def shoulders(child: Child, canvas: Canvas) -> Plane:
    """Collar bones, shoulder blades and raised upper arms."""
    chance = child.chance("shoulders")
    lift = chance.uniform(-0.5, 0.5)
    along = np.linspace(0.0, 1.0, POINTS)
    whole = np.zeros(canvas.shape)
    for side in (-1, 1):
        bow = 0.27 * np.sin(2.0 * np.pi * along)
        collar = np.column_stack([side * (1.0 + 5.6 * along), 3.3 - (2.0 + lift) * along**0.9 + bow])
        upper_arm = np.column_stack([side * (8.3 + 5.0 * along), 1.9 - (2.2 + lift) * along])
        whole += 1.1 * canvas.tubes([(collar, np.full(POINTS, 6.2 / POINTS))], 0.33, 0.55)
        whole += 1.4 * canvas.tubes([(upper_arm, np.full(POINTS, 5.4 / POINTS))], 0.58, 0.55)
        whole += canvas.ellipsoid((side * 7.75, 2.1), (0.75, 0.6), 0.8, side * -25.0)  # its growing end
        place = (side * (7.7 + chance.uniform(-0.2, 0.3)), 5.0)
        blade = canvas.ellipsoid(place, (1.35, 3.0), 1.0, side * 24.0)
        whole += 0.14 * np.clip(3.0 * blade, 0.0, 1.0) + 0.05 * _line(blade - 0.3, 0.2)
    return whole


def _line(distance: Plane, width: float) -> Plane:
    shade: Plane = np.exp(-((distance / width) ** 2))
    return shade
