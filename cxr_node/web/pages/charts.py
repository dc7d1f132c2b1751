"""Charts as inline SVG: stacked columns, and lines with the interval around them. No script, no style attribute.

Colors are classes of the style sheet (`part-0` to `part-5`), so a chart follows light and dark. A chart is one picture
to a screen reader, with a title and a description; the numbers stand in the table behind it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 720, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 8, 10, 30
_INNER_W, _INNER_H = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
_LABELS = 8
"""As many words as fit below the axis."""
_NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Point:
    """A value, and the interval around it where there is one."""

    value: float
    low: float | None = None
    high: float | None = None


def columns(title: str, description: str, labels: Sequence[str], parts: Mapping[str, Sequence[float]]) -> Markup:
    """One column for each label, its parts upon each other.

    Parameters
    ----------
    parts : by name, from the bottom up; one number for each label
    """
    sums = [sum(column) for column in zip(*parts.values(), strict=True)]
    top = _round_up(max(sums, default=0.0))
    step = _INNER_W / max(1, len(labels))
    drawn: list[Markup] = []
    base = [0.0] * len(labels)
    for number, values in enumerate(parts.values()):
        for place, value in enumerate(values):
            if value > 0:
                height, y = _INNER_H * value / top, _y(base[place] + value, top)
                drawn.append(_rect(number, _LEFT + step * (place + 0.1), y, step * 0.8, height))
                base[place] += value
    body = Markup("").join([*_axis(top, _plain, whole=True), *_below(labels, step), *drawn])
    return _picture(title, description, body)


def lines(
    title: str,
    description: str,
    labels: Sequence[str],
    parts: Mapping[str, Sequence[Point | None]],
    written: Callable[[float], str],
) -> Markup:
    """One line for each part, with its interval; a gap where there is no value.

    Parameters
    ----------
    written : how a value reads on the axis
    """
    ends = [each.high if each.high is not None else each.value for part in parts.values() for each in part if each]
    top = _round_up(max(ends, default=0.0))
    step = _INNER_W / max(1, len(labels))
    drawn: list[Markup] = []
    for number, values in enumerate(parts.values()):
        for run in _runs(values):
            drawn += _line(number, [(_LEFT + step * (place + 0.5), point) for place, point in run], top)
    body = Markup("").join([*_axis(top, written), *_below(labels, step), *drawn])
    return _picture(title, description, body)


def _runs(values: Sequence[Point | None]) -> Iterator[list[tuple[int, Point]]]:
    """What lies between gaps."""
    run: list[tuple[int, Point]] = []
    for place, point in enumerate(values):
        if point is not None:
            run.append((place, point))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _line(number: int, run: Sequence[tuple[float, Point]], top: float) -> Iterator[Markup]:
    around = [(x, point.low, point.high) for x, point in run if point.low is not None and point.high is not None]
    if len(around) > 1:
        over = [f"{x:.1f},{_y(high, top):.1f}" for x, _, high in around]
        under = [f"{x:.1f},{_y(low, top):.1f}" for x, low, _ in reversed(around)]
        yield Markup('<polygon class="around part-{}" points="{}"/>').format(number, " ".join([*over, *under]))
    elif around:
        x, low, high = around[0]
        yield Markup('<line class="whisker part-{}" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(
            number, x, x, _y(low, top), _y(high, top)
        )
    points = " ".join(f"{x:.1f},{_y(point.value, top):.1f}" for x, point in run)
    yield Markup('<polyline class="line part-{}" points="{}"/>').format(number, points)
    for x, point in run:
        yield Markup('<circle class="dot part-{}" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(
            number, x, _y(point.value, top)
        )


def _y(value: float, top: float) -> float:
    return _TOP + _INNER_H * (1.0 - min(value, top) / top)


def _rect(number: int, x: float, y: float, width: float, height: float) -> Markup:
    return Markup('<rect class="part-{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
        number, x, y, width, height
    )


def _axis(top: float, written: Callable[[float], str], *, whole: bool = False) -> Iterator[Markup]:
    """Rules at round numbers: four or five, fewer where they count single images."""
    steps = next((steps for steps in (5, 4, 2) if top / steps >= whole and _is_round(top / steps)), 1)
    for number in range(steps + 1):
        share = number / steps
        y = _TOP + _INNER_H * (1.0 - share)
        yield Markup('<line class="rule" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(_LEFT, WIDTH - _RIGHT, y, y)
        yield Markup('<text class="tick end" x="{}" y="{:.1f}">{}</text>').format(
            _LEFT - 6, y + 4, written(top * share)
        )


def _below(labels: Sequence[str], step: float) -> Iterator[Markup]:
    every = max(1, -(-len(labels) // _LABELS))
    for place in range(0, len(labels), every):
        x = _LEFT + step * (place + 0.5)
        yield Markup('<text class="tick middle" x="{:.1f}" y="{}">{}</text>').format(x, HEIGHT - 8, labels[place])


def _picture(title: str, description: str, body: Markup) -> Markup:
    number = next(_NUMBERS)
    return Markup(
        '<svg class="chart" role="img" viewBox="0 0 {} {}" aria-labelledby="chart-{}-title chart-{}-words">'
        '<title id="chart-{}-title">{}</title><desc id="chart-{}-words">{}</desc>{}</svg>'
    ).format(WIDTH, HEIGHT, number, number, number, title, number, description, body)


def _is_round(value: float) -> bool:
    """One digit, and zeros around it."""
    return float(f"{value:.0e}") == float(f"{value:.6e}")


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 5, 8, 10 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 1.0
    while power * 10 <= value:
        power *= 10
    while power > value:
        power /= 10
    return next(power * each for each in (1, 2, 4, 5, 8, 10) if power * each >= value * (1 - 1e-9))


def _plain(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:.2g}"
