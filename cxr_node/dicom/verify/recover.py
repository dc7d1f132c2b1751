"""One answer recovered from its result objects, for whoever has nothing but the files.

Each fact is what most places state, so that the one place that says otherwise is blamed. Numbers come from codes
where there are codes, else from the sentences that `wording` writes. Judges nothing.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from cxr_node.dicom.read.header import Source
from cxr_node.dicom.verify import single_field
from cxr_node.dicom.verify.facts import Document, Facts, equipment, modality, procedure, software
from cxr_node.dicom.verify.plain import Plain, code, items, text
from cxr_node.dicom.verify.recover_findings import (
    number,
    others,
    regions,
    scale,
    stated,
    thresholds,
    tracking_uids,
    where,
)
from cxr_node.dicom.verify.tree import Item, walk
from cxr_node.dicom.words import names, wording
from cxr_node.domain import (
    PNEUMONIA,
    AbstainReason,
    Decision,
    Finding,
    Heatmap,
    ModelIdentity,
    OperatingPoint,
    Prediction,
    Radiograph,
    ResultKind,
    Verdict,
    View,
)

_PERCENT = re.compile(r" ([<>]?[\d.]+)% ")
_MODEL = re.compile(r"Model (.*) (\S+), weights ([0-9a-f]{12}), (cxr_node \S+)\.")
_VIEW = re.compile(r"Projection: (PA|AP)\.")
_SERIES = {
    ResultKind.HEATMAP: re.compile(r"Heat map .*: series (\d+)\."),
    ResultKind.MEASUREMENTS: re.compile(r"Region \(coded\): series (\d+)\."),
}
_PARAMETERS = "111002"
_LIMITATION = "limitation"
_SIZE = ("110910", "110911")  # Pixel Data Rows, Columns
_SIZES = tuple(("NUM", concept) for concept in _SIZE)
_ILLUSTRATIONS = frozenset({"121200", "130401"})
_GRAD_CAM = "130403"
_WIDEST = OperatingPoint(
    name="recovered", label=PNEUMONIA.finding, report_at=1.0, rule_out_below=0.0, max_spread=1.0, max_distance=1.0
)
_THRESHOLDS_THAT_HOLD = {
    Verdict.POSITIVE: (0.0, 0.0), Verdict.NEGATIVE: (1.0, 1.0), Verdict.INDETERMINATE: (0.0, 1.0),
}  # fmt: skip
_UNSEEN = np.empty((0, 0), np.float32)
_JUDGED = PNEUMONIA.finding


def recover(documents: list[Document], source: Source | None) -> Facts | None:
    """Take what most places state; None where no field of any document states a verdict."""
    verdict = _verdict(documents)
    if verdict is None:
        return None
    texts = [str(item.value) for item in _walk(documents) if item.value_type == "TEXT"]
    ours = [equipment(document.dataset) for document in documents]
    model_name, version = _most(ours, "ManufacturerModelName"), _most(ours, "SoftwareVersions")
    view = View(found[1]) if (found := _first(_VIEW, texts)) else View.UNKNOWN
    picture = next((document for document in documents if document.kind is ResultKind.HEATMAP), None)
    shows_map = _shows_map(documents, texts, picture)
    places, looked = where(documents, texts)
    finding = _finding(verdict, documents, texts, _identity(verdict, documents, texts, (model_name, version)))
    unremarked = Radiograph(pixels=_UNSEEN, pixel_aspect=1.0, pixel_sha256="", view=source.view if source else view)
    size = (source.integer("Rows"), source.integer("Columns")) if source else _size(documents)
    return Facts(
        finding=finding,
        radiograph=replace(unremarked, remarks=_remarks(documents, finding, unremarked)),
        shows_map=shows_map,
        refers_to_map=shows_map,
        series_numbers=_series_numbers(documents, texts),
        product=_common(software(document.dataset)[0] for document in documents),
        manufacturer=_most(ours, "Manufacturer"),
        model_name=model_name,
        algorithm_version=version,
        serial_number=_most(ours, "DeviceSerialNumber"),
        device_uid=_most(ours, "DeviceUID"),
        source=source_of(documents) if source is None else (source.ref.sop_class_uid, source.ref.sop_instance_uid),
        picture=_picture(documents, picture),
        knows_source=source is not None,
        size_px=size,
        modality=modality(source) if source else None,
        procedure=procedure(source) if source else None,
        has_region=verdict is Verdict.POSITIVE and any(item.value_type == "SCOORD" for item in _walk(documents)),
        outlines=None,
        groups=regions(documents),
        places=places,
        looked=looked,
        tracking_uids=tracking_uids(documents),
        moment=_most(ours, "ContributionDateTime"),
        offset=None,
        is_exact=False,
    )  # fmt: skip


def source_of(documents: list[Document]) -> tuple[str, str]:
    """SOP Class and Instance UID of the image that most references name as the source."""
    found = []
    for document in documents:
        found += [item.value for item in walk(document.root) if item.value_type == "IMAGE" and _is_source(item)]
        for each in _named_sources(document.dataset):
            found.append((text(each, "ReferencedSOPClassUID"), text(each, "ReferencedSOPInstanceUID")))
    return Counter(found).most_common(1)[0][0] if found else ("", "")


def _named_sources(dataset: Plain) -> Iterator[Plain]:
    """References that objects without a content tree make to the image they were made from."""
    yield from items(dataset, "SourceImageSequence")
    yield from items(dataset, "SourceInstanceSequence")
    for series in items(dataset, "ReferencedSeriesSequence"):
        yield from items(series, "ReferencedImageSequence")
        yield from items(series, "ReferencedInstanceSequence")


def _is_source(item: Item) -> bool:
    return item.name[0] not in _ILLUSTRATIONS


def _verdict(documents: list[Document]) -> Verdict | None:
    votes: Counter[Verdict] = Counter()
    for document in documents:
        for reading in (*single_field.of_header(document.dataset), *single_field.of_content(document.root)):
            if reading.is_statement and len(reading.says) == 1:
                votes.update(reading.says)
    return votes.most_common(1)[0][0] if votes else None


def _identity(verdict: Verdict, documents: list[Document], texts: list[str], named: tuple[str, str]) -> ModelIdentity:
    """From the coded parameters; what they do not give, from the report's lines."""
    told = _parameters(documents)
    model = _first(_MODEL, texts)
    model_name, version = named
    low, high = thresholds(texts) or _THRESHOLDS_THAT_HOLD[verdict]  # a picture alone
    low = _number_or_none(told.get("threshold.rule_out", "")) or low
    high = _number_or_none(told.get("threshold.report", "")) or high
    low, high = sorted((min(max(low, 0.0), 1.0), min(max(high, 0.0), 1.0)))
    return ModelIdentity(
        profile=model[1] if model else model_name.removeprefix("cxr_node "),
        version=model[2] if model else version.partition("+sha256:")[0],
        weights_sha256=told.get("weights.sha256") or version.rpartition(":")[2],
        config_sha256=told.get("config.sha256", ""),
        operating_point=replace(
            _WIDEST,
            rule_out_below=low,
            report_at=high,
            scale=scale(documents, texts),
            max_spread=_number_or_none(told.get("spread.limit", "")) or _WIDEST.max_spread,
            max_distance=None if _is_unmeasured(told, texts) else _limit(told, _WIDEST.max_distance),
        ),
        calibration=told.get("calibration", ""),
    )


def _parameters(documents: list[Document]) -> dict[str, str]:
    """Algorithm Parameters of the measurements, "name=value"."""
    return dict(
        str(item.value).partition("=")[::2] for item in _named(documents, _PARAMETERS) if item.value_type == "TEXT"
    )


def _is_unmeasured(told: Mapping[str, str], texts: list[str]) -> bool:
    """Whether the model does not know its training images: the report says so, the measurements have no distance."""
    return wording.UNMEASURED in texts or (bool(told) and not {"distance", "distance.limit"} & told.keys())


def _finding(verdict: Verdict, documents: list[Document], texts: list[str], identity: ModelIdentity) -> Finding:
    """Rebuild the answer from its numbers; of a number that is rounded for people, one that is read so."""
    point, told = identity.operating_point, _parameters(documents)
    coded, read = stated(documents, texts, point.scale)
    if not texts:
        titles = [text(document.dataset, "SeriesDescription") for document in documents]
        read = [_of_title(found[1]) for title in titles if (found := _PERCENT.search(title))]
    doubt = _doubt(texts, bool(coded or read)) if verdict is Verdict.INDETERMINATE else None
    scored = others(documents, texts)
    probability = number(coded, read, point)
    if probability is None:
        probability = scored.get(_JUDGED, 0.5)
    return Finding(
        prediction=Prediction(
            probability=scored | {_JUDGED: probability},
            spread=_limit(told, float(doubt is AbstainReason.VIEWS_DISAGREE), "spread") or 0.0,
            distance=_limit(told, math.inf, "distance"),
        ),
        decision=Decision(verdict=verdict, doubt=doubt),
        heatmap=Heatmap(cells=_UNSEEN, border=(0.0, 0.0), regions=(), label=_JUDGED, layer=""),
        identity=identity,
    )


def _of_title(number: str) -> str:
    """As the report writes what a series description abbreviates."""
    return f"{number.replace('<', 'below ').replace('>', 'above ')} %"


def _limit(told: Mapping[str, str], otherwise: float | None, name: str = "distance.limit") -> float | None:
    try:
        return float(told[name])
    except (KeyError, ValueError):
        return otherwise


def _doubt(texts: list[str], is_stated: bool) -> AbstainReason:
    said = [doubt for doubt, words in names.ABSTAIN_REASONS.items() if any(words in line for line in texts)]
    return said[0] if said else AbstainReason.BETWEEN_THRESHOLDS if is_stated else AbstainReason.UNLIKE_TRAINING_DATA


def _remarks(documents: list[Document], finding: Finding, unremarked: Radiograph) -> tuple[str, ...]:
    """Limitations that only the source's header could tell: those that are not the same for every image."""
    fixed = wording.report_limitations(finding, unremarked, shows_map=True)
    lines = dict.fromkeys(str(item.value) for item in _named(documents, _LIMITATION))
    return tuple(line for line in lines if line not in fixed)


def _size(documents: list[Document]) -> tuple[int, int] | None:
    """Rows and columns of the source, as the image library has them."""
    stated = {item.name[0]: str(item.value[0]) for item in _walk(documents) if item.key[1:3] in _SIZES}
    rows, columns = (stated.get(concept, "") for concept in _SIZE)
    return (int(rows), int(columns)) if rows.isdigit() and columns.isdigit() else None


def _series_numbers(documents: list[Document], texts: list[str]) -> dict[ResultKind, int]:
    """Of the objects that are here; of others, what the report says of them."""
    numbers = {kind: int(found[1]) for kind, pattern in _SERIES.items() if (found := _first(pattern, texts))}
    for document in documents:
        number = text(document.dataset, "SeriesNumber").strip()
        if document.kind is not None and number.isdigit():
            numbers[document.kind] = int(number)
    return {ResultKind.HEATMAP: 0} | numbers


def _shows_map(documents: list[Document], texts: list[str], picture: Document | None) -> bool:
    if picture is not None:
        return code(picture.dataset, "DerivationCodeSequence")[0] == _GRAD_CAM
    if any(item.name[0] in _ILLUSTRATIONS for item in _walk(documents)):
        return True
    return _first(_SERIES[ResultKind.HEATMAP], texts) is not None


def _picture(documents: list[Document], picture: Document | None) -> tuple[str, str] | None:
    if picture is not None:
        return text(picture.dataset, "SOPClassUID"), text(picture.dataset, "SOPInstanceUID")
    shown = [item.value for item in _walk(documents) if item.name[0] in _ILLUSTRATIONS]
    return Counter(shown).most_common(1)[0][0] if shown else None


def _walk(documents: list[Document]) -> Iterator[Item]:
    for document in documents:
        yield from walk(document.root)


def _named(documents: list[Document], concept: str) -> list[Item]:
    return [item for item in _walk(documents) if item.name[0] == concept]


def _first(pattern: re.Pattern[str], texts: list[str]) -> re.Match[str] | None:
    return next((found for line in texts if (found := pattern.search(line))), None)


def _most(ours: list[Plain], keyword: str) -> str:
    return _common(text(item, keyword) for item in ours)


def _common(values: Iterable[str]) -> str:
    """Return the value that stands most often; "" is no value."""
    counted = Counter(value for value in values if value)
    return counted.most_common(1)[0][0] if counted else ""


def _number_or_none(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
