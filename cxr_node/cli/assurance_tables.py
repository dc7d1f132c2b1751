"""How the figures of `assurance` look in a terminal. Decides nothing."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from cxr_node.assurance.drift import Drift, Figure
from cxr_node.assurance.predictive import Predictive
from cxr_node.cli.ledger_tables import when


def drift(profile: str, seen: Drift) -> Group:
    """All figures of one profile, what has changed first."""
    head = Text(f"{profile}, {seen.films} films since the reference {seen.reference} ({when(seen.fixed_at)} UTC)")
    table = Table("figure", "sender", "test", "films", "now", "before", "p", "least change seen", "", box=None)
    for figure in sorted(seen.figures, key=lambda each: each.adjusted):
        table.add_row(*row(figure))
    said = Text("CHANGED: " + ", ".join(seen.changed) if seen.is_begun else "no change", "bold" * seen.is_begun)
    lines = [value(each) for each in seen.predictive]
    lines += [f"{seen.senders_left_out} senders with fewer films are left out"] if seen.senders_left_out else []
    return Group(head, said, table, *map(Text, lines))


def row(figure: Figure) -> tuple[str, ...]:
    """Its cells; the last says that it counts."""
    shares = figure.test.startswith("CUSUM")
    least = "none" if figure.least is None else f"{100 * figure.least:.1f} %" if shares else f"{figure.least:g} SD"
    return (
        figure.name,
        figure.sender or "all",
        figure.test,
        f"{figure.films} / {figure.reference_films}",
        _number(figure.now, shares),
        _number(figure.before, shares),
        f"{figure.adjusted:.2g}",
        least,
        (f"CHANGED since {when(figure.begun_at)}" if figure.begun_at else "CHANGED") if figure.is_drift else "",
    )


def _number(value: float | None, is_share: bool) -> str:
    return "-" if value is None else f"{100 * value:.1f} %" if is_share else f"{value:.2f}"


def value(told: Predictive) -> str:
    """Expected and measured, in one line."""
    said = f"{told.name}: expected "
    said += "-" if told.expected is None else f"{100 * told.expected:.1f} % ({told.expected_films} answers)"
    if told.measured is None or told.low is None or told.high is None:
        return f"{said}; nothing read"
    said += f"; measured {100 * told.measured:.1f} % ({100 * told.low:.1f} to {100 * told.high:.1f}), {told.read} read"
    if told.has_fallen:
        said += "; IT HAS FALLEN"
    return said + ("" if told.least is None else f"; a fall to {100 * told.least:.1f} % would have been seen")
