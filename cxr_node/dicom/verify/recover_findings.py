"""Numbers and findings of one answer, recovered from its result objects; the rest is `recover`'s."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from cxr_node.dicom.verify.facts import Document
from cxr_node.dicom.verify.plain import items, text
from cxr_node.dicom.verify.tree import Item, walk
from cxr_node.dicom.words import coded_findings, wording, zones
from cxr_node.dicom.words.rounding import exact_percent, percent_text
from cxr_node.domain import (
    PNEUMONIA,
    OperatingPoint,
    Scale,
)

_CERTAINTY = re.compile(r"[Cc]ertainty(?: of [\w -]+?)?:? ((?:below |above )?[\d.]*\d %)")


_SCORE = re.compile(r"[Ss]core(?: of [\w -]+?)?:? (\d[\d.e-]*\d|\d)")


_THRESHOLDS = re.compile(r"[Rr]uled out below ([\d.e-]+)( %)?, reported from ([\d.e-]*\d)")


_HIGHEST = re.compile(r"Highest of (\d+) findings\b.*:")


_NOT_STATED = re.compile(r"The other (\d+) findings: not stated\.")


_PLACE = re.compile(r"\d\. (.+) ([\d.e-]+)")


_SCORES_SAID = (wording.SCORES.strip(), "a score is not a probability")


_CERTAINTY_OF_FINDING = "111012"


_GROUP, _COMMENT, _TRACKING_UID = "125007", "121106", "112040"


_LOOKED = re.compile(r"Where the network looked: (.+)\.")


def scale(documents: list[Document], texts: list[str]) -> Scale:
    """Tell what the numbers are: scores where they are said or coded to be, or a picture's title has no percent."""
    said = any(words in line for line in texts for words in _SCORES_SAID)
    if not texts:
        said = not any("%" in text(document.dataset, "SeriesDescription") for document in documents)
    return Scale.SCORE if said or any(_numbers(documents, coded_findings.SCORE.value)) else Scale.PROBABILITY


def thresholds(texts: list[str]) -> tuple[float, float] | None:
    """Both thresholds as the report's line has them, as fractions."""
    found = next((match for line in texts if (match := _THRESHOLDS.search(line))), None)
    if found is None:
        return None
    divisor = 100 if found[2] else 1
    low, high = (_number(found[group]) for group in (1, 3))
    return round(low / divisor, 12), round(high / divisor, 12)


def stated(documents: list[Document], texts: list[str], of: Scale) -> tuple[list[str], list[str]]:
    """Every number of the judged finding: those that are coded, and those that people read, as they read them."""
    concept = coded_findings.SCORE.value if of is Scale.SCORE else _CERTAINTY_OF_FINDING
    pattern = _SCORE if of is Scale.SCORE else _CERTAINTY
    coded = [str(item.value[0]) for item in _numbers(documents, concept) if item.relation == "CONTAINS"]
    return coded, [found[1] for line in texts if (found := pattern.search(line))]


def number(coded: list[str], read: list[str], point: OperatingPoint) -> float | None:
    """Probability or score that agrees with most of what is stated; None where nothing is.

    A coded number is rounded itself, so what rounds to it is tried too: people's numbers were not made of it.
    """
    if point.scale is Scale.SCORE:
        counted = Counter(coded + read).most_common(1)
        return _number(counted[0][0]) if counted else None
    exact = [_number(value) for value in coded]
    candidates = [round(value / 100, 12) for number in coded for value in _near(number)]
    candidates += [value for words in dict.fromkeys(read) for value in _read_as(words, point)]

    def agreeing(value: float) -> int:
        return exact.count(exact_percent(value, point)) + sum(percent_text(value, point) == words for words in read)

    return max(candidates, key=agreeing, default=None)


def _near(number: str) -> list[float]:
    """Give the number, and others that round to it at its last digit: close to it, and at both ends."""
    value, half = _number(number), 0.5 * 10.0 ** -len(number.partition(".")[2])
    return [value, *(min(max(value + part * half, 0.0), 100.0) for part in (-0.02, 0.02, -0.9, 0.9))]


def _read_as(words: str, point: OperatingPoint) -> list[float]:
    """Probabilities that people read so; at least one, for whoever wrote it may have broken the rules."""
    said = _number(words.removeprefix("below ").removeprefix("above ").removesuffix(" %")) / 100
    tried = (
        said,
        point.rule_out_below,
        point.report_at,
        *(limit - 1e-6 for limit in _limits(said, point)),
        0.001,
        0.999,
    )
    fitting = [value for value in tried if 0 <= value <= 1 and percent_text(value, point) == words]
    return fitting or [min(max(said, 0.0), 1.0)]


def _limits(said: float, point: OperatingPoint) -> tuple[float, float, float]:
    return said, point.rule_out_below, point.report_at


def others(documents: list[Document], texts: list[str]) -> dict[str, float]:
    """Label and score of each of several findings, the highest first; empty where one was judged alone."""
    coded = [
        item for item in _items(documents) if item.name[0] == coded_findings.SCORED.value and item.value_type == "CODE"
    ]
    if coded:
        return {coded_findings.label_of(*item.value): _of_children(item) for item in coded}
    known = {found[1]: _number(found[2]) for line in texts if (found := _PLACE.fullmatch(line))}
    counts = [int(found[1]) for line in texts if (found := _HIGHEST.fullmatch(line))]
    counts += [int(found[1]) + 1 for line in texts if (found := _NOT_STATED.fullmatch(line))]
    missing = max(counts, default=0) - len(known.keys() | {PNEUMONIA.finding})
    return known | {f"not listed {place}": 0.0 for place in range(missing)}


def regions(documents: list[Document]) -> int:
    """How many regions most objects have that have any; at least one."""
    counted = Counter(
        count
        for document in documents
        for count in (
            sum(item.value_type == "SCOORD" for item in walk(document.root)),
            len(items(document.dataset, "SegmentSequence")),
            sum(
                len(items(annotation, "GraphicObjectSequence"))
                for annotation in items(document.dataset, "GraphicAnnotationSequence")
            ),
        )
        if count
    )
    return counted.most_common(1)[0][0] if counted else 1


def where(documents: list[Document], texts: list[str]) -> tuple[tuple[str, ...] | None, str]:
    """Tell where each region lies, in words, and the sentence that says so; None and "" where that is not known.

    Where the groups of the measurements and the sentence of the report say different things, the groups are right
    unless the sentence has a place for each of them.
    """
    told = next((line for line in texts if line.startswith(zones.PREFIX)), "")
    of_groups = _places(documents)
    if not told:
        return of_groups, zones.joined(of_groups) if of_groups and all(of_groups) else ""
    names = zones.names_in(told)
    if of_groups is None or list(dict.fromkeys(of_groups)) == names:
        return of_groups, told
    return (tuple(names), told) if len(names) == len(of_groups) else (of_groups, zones.joined(of_groups))


def _places(documents: list[Document]) -> tuple[str, ...] | None:
    """Places as the groups of the first measurements have them; None where there are none."""
    for document in documents:
        groups = [item for item in walk(document.root) if item.name[0] == _GROUP]
        if groups:
            return tuple(_place(group) for group in groups)
    return None


def _place(group: Item) -> str:
    told = [str(child.value) for child in group.children if child.name[0] == _COMMENT]
    found = _LOOKED.fullmatch(told[0]) if told else None
    return found[1] if found else ""


def tracking_uids(documents: list[Document]) -> tuple[str, ...] | None:
    """By region, as most objects have them; None where none has any."""
    counted: Counter[tuple[str, ...]] = Counter()
    for document in documents:
        in_tree = tuple(str(item.value) for item in walk(document.root) if item.name[0] == _TRACKING_UID)
        in_masks = tuple(text(segment, "TrackingUID") for segment in items(document.dataset, "SegmentSequence"))
        counted.update(each for each in (in_tree, in_masks) if each)
    return counted.most_common(1)[0][0] if counted else None


def _of_children(item: Item) -> float:
    values = [child.value[0] for child in item.children if child.value_type == "NUM"]
    return _number(values[0]) if values else 0.0


def _numbers(documents: list[Document], concept: str) -> Iterator[Item]:
    return (item for item in _items(documents) if item.name[0] == concept and item.value_type == "NUM")


def _items(documents: list[Document]) -> Iterator[Item]:
    for document in documents:
        yield from walk(document.root)


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return 0.0
