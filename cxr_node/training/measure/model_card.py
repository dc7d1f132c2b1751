"""MODEL_CARD.md, written from profile.yaml, calibration.yaml and metrics.json, never by hand.

Knows no torch and measures nothing: what the three files do not say, the card does not say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cxr_node.config import strict_yaml
from cxr_node.model.profile import Margins, Shown
from cxr_node.training.measure.metrics import RATE_NAMES

NAME = "MODEL_CARD.md"
Section = Mapping[str, Any]
SHOWN_RATES = (
    "auc", "balanced_accuracy_at_0.5", "sensitivity_at_0.5", "specificity_at_0.5", "answered", "accuracy_of_answered",
    "sensitivity_of_answered", "specificity_of_answered", "positive_predictive_value", "negative_predictive_value",
    "calibration_error", "brier",
)  # fmt: skip
"""What a card needs; all others are in metrics.json."""
HEATMAP_RATES = {
    "inside_chest": "of positives inside the chest in",
    "energy_on_marks": "energy on pasted letters and wires",
    "opacity_found": "peak in an opacity drawn into a normal lung in",
    "deletion_gain": "deletion curve below chance by",
}


def write(folder: Path) -> None:
    """Write the card of a profile folder whose three files exist."""
    described = strict_yaml.load((folder / "profile.yaml").read_text("utf-8"))
    calibrated = strict_yaml.load((folder / "calibration.yaml").read_text("utf-8"))
    measured = json.loads((folder / "metrics.json").read_text("utf-8"))
    sections = [
        _head(described),
        _training(measured),
        _calibration(calibrated),
        *([_predicted(measured["predicted"], measured.get("blind", {}))] if measured.get("predicted") else []),
        *([_blind(measured["blind"], measured.get("predicted", {}))] if measured.get("blind") else []),
        *[_evaluation(name, one) for name, one in measured.get("evaluations", {}).items()],
        _list("Limits", measured["recipe"]["profile"]["limits"]),
        _list("What was tried, and why it is so", measured["recipe"]["profile"]["tried"]),
    ]
    (folder / NAME).write_text("\n\n".join(sections) + "\n", "utf-8")


def _head(described: Section) -> str:
    youngest, oldest = described["population"]["age_years"]
    rows = {
        "Answers": ", ".join(described["labels"]),
        "Network": f"{described['network']['architecture']}, {_input(described['input'])}",
        "Population": f"{youngest:g} to {oldest:g} years. {described['population']['description'].strip()}",
        "Licence": described["licence"],
        "Citation": described["citation"].strip(),
        "Weights": f"sha256 `{described['sha256']['weights.safetensors']}`",
    }
    lines = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return (
        f"# {described['name']} {described['version']}\n\n"
        "For research only: not a medical device, not for diagnosis. Written by `cxr-node train`, `calibrate` and "
        f"`evaluate`; not edited by hand.\n\n| | |\n|---|---|\n{lines}"
    )


def _input(spec: Section) -> str:
    views = spec.get("views", [*Shown])
    said = [
        f"{spec['size_px']} px, {spec['border']:.0%} of each side cut",
        f"and in its shape at {spec['shape_px']} px" if spec.get("shape_px") else "",
        "margins of one gray cut" if spec.get("margins") == Margins.CUT else "",
        f"shown {', '.join(views)}" if len(views) < len(Shown) else "",
    ]
    return "; ".join(filter(None, said))


def _training(measured: Section) -> str:
    training = measured["training"]
    counts = "\n".join(
        f"| {part} | {one['images']} | {one['positives']} | {one['patients']} |"
        for part, one in training["parts"].items()
    )
    return (
        f"## Data\n\nTrained on `{training['data']}` for {training['epochs']} epochs of "
        f"{training['images_per_epoch']} images. No patient is in two parts; exact copies are one patient.\n\n"
        f"| part | images | positive | patients |\n|---|---|---|---|\n{counts}"
    )


def _calibration(calibrated: Section) -> str:
    point = calibrated["operating_point"]
    return (
        f"## Calibration and verdicts\n\n{calibrated['method']}; fitted on {calibrated['fitted_on']}.\n\n"
        f"| verdict | when |\n|---|---|\n"
        f"| {point['label']} | probability of {point['report_at']:.3f} or more |\n"
        f"| NORMAL | probability below {point['rule_out_below']:.3f}{_nearer(point)} |\n"
        f"| UNCERTAIN | between; or views differ by more than {point['max_spread']:.3f}; "
        f"or distance from the training data above {point['max_distance']:g} "
        "(beyond 1 lie one or two per cent of its own population) |" + _guarantee(calibrated.get("guarantee"))
    )


def _nearer(point: Section) -> str:
    nearer = point.get("rule_out_max_distance")
    return "" if nearer is None else f", and distance from the training data of {nearer:g} at most"


def _guarantee(promised: Section | None) -> str:
    if promised is None:
        return ""
    return (
        f"\n\nPromise, for patients drawn like these at a prevalence of {promised['prevalence']:g}: positive "
        f"predictive value of at least {promised['ppv']:g} and negative of at least {promised['npv']:g}, together "
        f"with a confidence of {promised['confidence']:g} ({promised['method']}; {promised['positive_patients']} "
        f"positive and {promised['negative_patients']} negative patients). Patients of another hospital are not drawn "
        "like these."
    )


def _predicted(predicted: Section, blind: Section) -> str:
    """Figures stated before anybody could measure them, and what the first blind measurement found."""
    found: Section = next((one["rates"] for one in blind.values()), {})
    rows = "\n".join(
        f"| {RATE_NAMES.get(name, name)} | {_figure(one)} "
        f"| {_figure(one.get('measured') or found.get(name))} | {one['how']} |"
        for name, one in predicted.items()
    )
    return (
        "## Predicted for data that nobody here has seen\n\nStated before they were measured, with 95 % intervals.\n\n"
        f"| figure | predicted | measured since | how it was predicted |\n|---|---|---|---|\n{rows}"
    )


def _blind(blind: Section, predicted: Section) -> str:
    """What a third party measured, and by how much the card was wrong."""
    names = [name for name in SHOWN_RATES if any(name in one["rates"] for one in blind.values())]
    rows = "\n".join(
        f"| {RATE_NAMES[name]} | "
        + " | ".join(_figure(one["rates"][name]) if name in one["rates"] else "" for one in blind.values())
        + " |"
        for name in names
    )
    head = " | ".join(f"{name}, {one['images']} images" for name, one in blind.items())
    said = " ".join(f"{name.capitalize()}: {one['what']}. {one['note']}".strip() for name, one in blind.items())
    first, rates = next((name, one["rates"]) for name, one in blind.items())
    wrong = "; ".join(
        f"{RATE_NAMES[name]} {one['value']:.3f}, measured {rates[name]['value']:.3f} "
        f"({rates[name]['value'] - one['value']:+.3f})"
        for name, one in predicted.items()
        if name in rates
    )
    return (
        "## Measured blind\n\nBy a third party, with these weights and thresholds. No intervals were given.\n\n"
        f"| | {head} |\n|{'---|' * (len(blind) + 1)}\n{rows}\n\n{said}"
        + (f"\n\n**The card was wrong.** Predicted, and found on the {first}: {wrong}." if wrong else "")
    )


def _evaluation(name: str, one: Section) -> str:
    rates = "\n".join(
        f"| {RATE_NAMES[key]} | {_figure(one['rates'][key])} |" for key in SHOWN_RATES if key in one["rates"]
    )
    verdicts = "; ".join(
        f"{truth}: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        for truth, counts in one["verdicts"].items()
        if counts
    )
    lines = [f"Verdicts, {verdicts}.", *_by_subgroup(one), *_under_stress(one)]
    return (
        f"## Measured: {name}\n\n{one['images']} images of {one['patients']} patients, {one['positives']} positive. "
        f"95 % intervals, bootstrapped over patients.\n\n| | |\n|---|---|\n{rates}\n"
        f"| unlike the training data | {one['beyond_max_distance']:.1%} |\n\n" + "\n\n".join(lines)
    )


def _by_subgroup(one: Section) -> Iterator[str]:
    """One line for each column: AUC where both classes are there, else what was answered rightly."""
    for column, values in one.get("subgroups", {}).items():
        said = [
            f"{value} ({group['images']}): {label} {_figure(group['rates'][key])}"
            for value, group in values.items()
            for key, label in (("auc", "AUC"), ("accuracy_of_answered", "right answers"))
            if key in group["rates"] and (key == "auc" or "auc" not in group["rates"])
        ]
        yield f"By {column}: " + "; ".join(said) + "."


def _under_stress(one: Section) -> Iterator[str]:
    if again := one.get("reencoding"):
        yield (
            f"Stored another way ({again['images']} images in {len(again['variants'])} ways): the probability moves "
            f"by {_figure(again['move'])} at the 95th percentile, by {again['largest']:.3f} at most; "
            f"{again['changes']} of {again['answers']} verdicts change, {again['flips']} to the opposite."
        )
    if edges := one.get("padding"):
        yield (
            f"The film's edges moved ({edges['images']} films in {len(edges['variants'])} ways): the mean logit moves "
            f"by {_figure(edges['move'])} at most; {edges['changes']} of {edges['answers']} verdicts change, "
            f"{edges['flips']} to the opposite."
        )
    if outsiders := one.get("outsiders"):
        kinds = "; ".join(f"{kind}: {_figure(figures['refused'])}" for kind, figures in outsiders["kinds"].items())
        yield f"Refused or UNCERTAIN of what it was not made for: {_figure(outsiders['all']['refused'])} ({kinds})."
    rates = one.get("heatmaps", {}).get("rates", {})
    told = [f"{said} {_figure(rates[name])}" for name, said in HEATMAP_RATES.items() if name in rates]
    if told:
        yield "Heat maps: " + "; ".join(told) + "."
    boxes = one.get("boxes", {})
    if found := boxes.get("rates", {}).get("peak_in_box_of_called"):
        yield f"Peak of the heat map in a radiologist's box, of {boxes['called']} positives called: {_figure(found)}."


def _figure(rate: Mapping[str, float] | None) -> str:
    return "not yet" if rate is None else figure(rate)


def figure(rate: Mapping[str, float]) -> str:
    """Value, and its interval where there is one."""
    return f"{rate['value']:.3f}" + (f" ({rate['low']:.3f} to {rate['high']:.3f})" if "low" in rate else "")


def _list(title: str, lines: list[str]) -> str:
    return f"## {title}\n\n" + "\n".join(f"- {line.strip()}" for line in lines)
