"""A document about several images, taken apart: what it says of each of them, and what of the study.

An item speaks of the image that it leads to, or whose number its line begins with; a line without a number speaks of
all analysed images. Knows nothing of how reports are made but that. PS3.16 TID 1500, TID 2000.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from cxr_node.dicom.verify.claims import Document
from cxr_node.dicom.verify.plain import Plain, code, content_items, items, reference, text
from cxr_node.dicom.words import coded_findings, codes, study_wording
from cxr_node.result_kinds import ResultKind

_PICTURE_OF = frozenset({"121200", "130401"})  # Illustration of ROI, Visual Explanation
_FINDING, _PREVIOUS = codes.DCM.Finding.value, codes.DCM.PreviousFinding.value
_OF_IMAGES = frozenset({"272394005", "limitation", coded_findings.SCORE.value})
_NOT_ANALYSED = "not analysed - "
Named = tuple[str, str]
"""SOP Class and SOP Instance UID of an image."""


@dataclass(slots=True)
class Parts:
    """What a document says, by what it is about.

    lines : of each image listed: number, image, and what its line says, in order
    library : images of the image library
    """

    study: Document
    views: dict[Named, Document] = field(default_factory=dict)
    lines: list[tuple[int | None, Named, str]] = field(default_factory=list)
    previous: list[tuple[Named, str]] = field(default_factory=list)
    summary_of: list[Named] = field(default_factory=list)
    library: list[Named] = field(default_factory=list)
    is_clear: bool = True
    """Every item is about one image, or about none."""


def is_of_study(document: Document) -> bool:
    """Whether a document lists images by number."""
    if document.kind not in (ResultKind.REPORT, ResultKind.MEASUREMENTS):
        return False
    found = take_apart(document)
    return bool(found.lines or found.previous) or len(found.views) > 1


def take_apart(document: Document) -> Parts:
    """Sort the content of a report or of measurements by what it is about."""
    found = Parts(study=document)
    piles = _Piles()
    for path, item in _leaves(document.dataset, ()):
        _sort(path, item, found, piles)
    numbers = {image: number for number, image, _ in found.lines}
    for number, item in piles.of_all:
        for image, its in piles.of_image.items():
            if number is None or numbers.get(image) == number:
                its.append(item)
        found.is_clear &= number is None or number in numbers.values()
    found.study = replace(document, content=tuple(content_items({"ContentSequence": list(piles.of_study)})))
    bare = replace(document.parsed, dataset={}, meta={})
    for image, its in piles.of_image.items():
        content = tuple(content_items({"ContentSequence": list(its)}))
        found.views[image] = Document(document.name, document.kind, bare, content)
    return found


@dataclass(slots=True)
class _Piles:
    """Items while they are sorted; those of all images with the number of one, where they have it."""

    of_study: list[Plain] = field(default_factory=list)
    of_image: dict[Named, list[Plain]] = field(default_factory=lambda: defaultdict(list))
    of_all: list[tuple[int | None, Plain]] = field(default_factory=list)


def _sort(path: tuple[str, ...], item: Plain, found: Parts, piles: _Piles) -> None:
    concept, images = code(item, "ConceptNameCodeSequence")[0], list(_images(item))
    said = text(item, "TextValue")
    if said and images and concept in (_FINDING, _PREVIOUS):
        _sort_line(concept, images, item, found, piles)
    elif "Image Library" in path:
        found.library += images
        if items(item, "ContentSequence") and images:
            piles.of_image[images[0]].append(item)
    elif "Imaging Measurements" in path or concept == coded_findings.SCORED.value:
        found.is_clear &= len(set(images)) == 1
        for image in set(images):
            piles.of_image[image].append(item)
    elif said and concept in _OF_IMAGES:
        number, line = study_wording.numbered(said)
        piles.of_all.append((number, item | {"TextValue": line}))
    else:
        found.summary_of += images if said else []
        piles.of_study.append({key: item[key] for key in item if key != "ContentSequence"} if images else item)


def _sort_line(concept: str, images: list[Named], item: Plain, found: Parts, piles: _Piles) -> None:
    """Line of one image, or of an earlier one."""
    said = text(item, "TextValue")
    if concept == _PREVIOUS:
        found.previous.append((images[0], said))
        return
    number, line = study_wording.numbered(said)
    found.lines.append((number, images[0], line))
    found.is_clear &= len(images) == 1 and number is not None
    if not line.startswith(_NOT_ANALYSED):
        piles.of_image[images[0]].append(item | {"TextValue": line})


def _leaves(plain: Plain, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Plain]]:
    """Items that are no headings, with the headings above them; a measurement group is one item."""
    for item in items(plain, "ContentSequence"):
        name = code(item, "ConceptNameCodeSequence")
        if text(item, "ValueType") == "CONTAINER" and name[0] != codes.DCM.MeasurementGroup.value:
            yield from _leaves(item, (*path, name[2]))
        else:
            yield path, item


def _images(item: Plain) -> Iterator[Named]:
    """Images that an item leads to, but for pictures made of them."""
    if text(item, "ValueType") == "IMAGE" and code(item, "ConceptNameCodeSequence")[0] not in _PICTURE_OF:
        for each in items(item, "ReferencedSOPSequence"):
            yield reference(each)
    for below in items(item, "ContentSequence"):
        yield from _images(below)
