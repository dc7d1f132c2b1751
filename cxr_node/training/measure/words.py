"""How an evaluation looks in a terminal: goals first, then figures. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from cxr_node.domain import Verdict

Section = Mapping[str, Any]
MARKS = {
    "yes": ("✓ yes", "green"),
    "likely": ("~ likely", ""),
    "unlikely": ("~ unlikely", "yellow"),
    "no": ("✕ no", "bold red"),
}
"""Whether a goal is reached: all of the interval, the value, one end of the interval, nothing of it."""
RATE_NAMES = {
    "auc": "AUC (area under the ROC curve)",
    "auprc": "AUPRC (average precision)",
    "accuracy_at_0.5": "accuracy at 0.5",
    "balanced_accuracy_at_0.5": "balanced accuracy at 0.5",
    "sensitivity_at_0.5": "sensitivity at 0.5",
    "specificity_at_0.5": "specificity at 0.5",
    "positive_predictive_value_at_0.5": "positive predictive value at 0.5",
    "negative_predictive_value_at_0.5": "negative predictive value at 0.5",
    "f1_at_0.5": "F1 at 0.5",
    "answered": "answered (not UNCERTAIN)",
    "answered_of_positives": "answered, of positives",
    "answered_of_negatives": "answered, of negatives",
    "accuracy_of_answered": "accuracy of the answers",
    "balanced_accuracy_of_answered": "balanced accuracy of the answers",
    "sensitivity_of_answered": "sensitivity of the answers",
    "specificity_of_answered": "specificity of the answers",
    "positive_predictive_value": "positive predictive value of the answers",
    "negative_predictive_value": "negative predictive value of the answers",
    "f1_of_answered": "F1 of the answers",
    "calibration_error": "expected calibration error (15 bins)",
    "brier": "Brier score",
    "log_loss": "log loss (nats)",
    "risk_coverage_area": "area under risk-coverage (AURC)",
}
SUBGROUP_NAMES = {
    "auc": "AUC",
    "sensitivity_at_0.5": "sensitivity at 0.5",
    "specificity_at_0.5": "specificity at 0.5",
    "answered": "answered",
    "accuracy_of_answered": "right answers",
}


def evaluation(measured: Section) -> Group:
    """Goals, figures, verdicts, subgroups, re-encoding, outsiders."""
    external = measured.get("external")
    parts: list[Any] = [_head(measured), _goals(measured), _compared(measured) if external else _rates(measured)]
    parts += [_verdicts(one) for one in (measured, external) if one]
    parts += [table for one in (measured, external) if one for table in _subgroups(one)]
    if "reencoding" in measured:
        parts.append(_reencoding(measured["reencoding"]))
    if "outsiders" in measured:
        parts.append(_outsiders(measured["outsiders"]))
    if "heatmaps" in measured:
        parts.append(_heatmaps(measured["heatmaps"]))
    parts.append(Text("Research use only. Intervals: 95 %, bootstrapped over patients."))
    return Group(*parts)


def interval(rate: Mapping[str, float], *, signed: bool = False) -> str:
    """Value and interval in one cell."""
    form = "+.3f" if signed else ".3f"
    return f"{rate['value']:{form}} ({rate['low']:{form}} to {rate['high']:{form}})"


def _head(measured: Section) -> Text:
    return Text(
        f"{measured['name']}: {measured['images']} images of {measured['patients']} patients, "
        f"{measured['positives']} positive",
        "bold",
    )


def _goals(measured: Section) -> Table:
    table = Table("question", "figure", "goal", "reached", title="can it be trusted?", title_justify="left")
    for goal in measured["goals"]:
        bar = f"{'at least' if goal['at_least'] else 'at most'} {goal['bar']:g}"
        table.add_row(goal["question"], f"{goal['goal']}\n{interval(goal)}", bar, Text(*MARKS[goal["met"]]))
    return table


def _rates(measured: Section) -> Table:
    table = Table("figure", "value (95 % interval)", title="figures", title_justify="left")
    for name, rate in measured["rates"].items():
        table.add_row(RATE_NAMES.get(name, name), interval(rate))
    return table


def _compared(measured: Section) -> Table:
    external = measured["external"]
    table = Table("figure", title="side by side", title_justify="left")
    for heading in (measured["name"], external["name"], "difference"):
        table.add_column(heading)
    for name, rate in measured["rates"].items():
        if name in external["rates"]:
            cells = (interval(rate), interval(external["rates"][name]))
            table.add_row(RATE_NAMES.get(name, name), *cells, interval(measured["compared"][name], signed=True))
    return table


def _verdicts(measured: Section) -> Table:
    table = Table("truth", title=f"verdicts: {measured['name']}", title_justify="left")
    common = (Verdict.NEGATIVE.value, Verdict.INDETERMINATE.value)
    said = {word for counts in measured["verdicts"].values() for word in counts}
    words = (*sorted(said - set(common)), *common)
    for verdict in words:
        table.add_column(verdict, justify="right")
    for truth, counts in measured["verdicts"].items():
        table.add_row(truth, *(str(counts.get(verdict, 0)) for verdict in words))
    return table


def _subgroups(measured: Section) -> Iterator[Table]:
    for column, values in measured["subgroups"].items():
        table = Table(column, "images (positive)", title=f"by {column}: {measured['name']}", title_justify="left")
        for heading in SUBGROUP_NAMES.values():
            table.add_column(heading)
        for value, one in values.items():
            cells = (interval(one["rates"][name]) if name in one["rates"] else "-" for name in SUBGROUP_NAMES)
            table.add_row(Text(value), f"{one['images']} ({one['positives']})", *cells)
        yield table


def _reencoding(measured: Section) -> Table:
    title = f"the same {measured['images']} images stored another way: change of the probability"
    table = Table("stored as", title=title, title_justify="left")
    for heading in ("95th percentile", "largest", "other verdict", "opposite verdict"):
        table.add_column(heading, justify="right")
    for name, one in {**measured["variants"], "all": measured}.items():
        counts = (f"{one[count]} of {one['answers']}" for count in ("changes", "flips"))
        table.add_row(name, interval(one["move"]), f"{one['largest']:.3f}", *counts)
    return table


def _outsiders(measured: Section) -> Table:
    table = Table("what", "images", "refused or UNCERTAIN", title="images it was not made for", title_justify="left")
    for name, one in {**measured["kinds"], "all": measured["all"]}.items():
        table.add_row(name, str(one["images"]), interval(one["refused"]))
    return table


def _heatmaps(measured: Section) -> Table:
    """Figures by their keys: the page says each in a sentence."""
    table = Table("heat maps", "value (95 % interval)", title="do the heat maps mean anything?", title_justify="left")
    for name, rate in measured["rates"].items():
        table.add_row(name.replace("_", " "), interval(rate))
    return table
