"""Result objects with one thing wrong: every attribute at every depth removed or changed, every item of a tree."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

from pydicom import Dataset, dcmread
from pydicom.datadict import keyword_for_tag
from pydicom.tag import BaseTag

from cxr_node import pipeline
from cxr_node.dicom.results import basic_text_sr, measurement_sr, secondary_capture
from cxr_node.dicom.results.context import Context
from cxr_node.dicom.results.encoder import to_part10
from cxr_node.outcome import Artifact
from cxr_node.result_kinds import DICOM_KINDS, ResultKind
from tests import builders
from tests.dicom.contexts import context, in_both_lungs

BUILD = {
    ResultKind.REPORT: basic_text_sr.build,
    ResultKind.MEASUREMENTS: measurement_sr.build,
    ResultKind.HEATMAP: secondary_capture.build,
}
SOURCE = ("source", builders.part10(builders.radiograph()))
Change = Callable[[Dataset], None]
_OTHER = {"DA": "19990101", "TM": "010101.000001", "DT": "19990101010101.000001+0000", "AS": "077Y", "CS": "ISO_IR 144"}
Path = tuple[tuple[BaseTag, int], ...]
"""Sequences and items on the way down from the data set."""


@dataclass(frozen=True)
class Mutation:
    """One attribute, at one place, removed or changed."""

    path: Path
    tag: BaseTag
    removes: bool

    def __str__(self) -> str:
        steps = [f"{_keyword(tag)}[{index}]" for tag, index in self.path]
        return f"{'-' if self.removes else '~'}{'.'.join([*steps, _keyword(self.tag)])}"

    @property
    def keywords(self) -> tuple[str, ...]:
        return (*(_keyword(tag) for tag, _ in self.path), _keyword(self.tag))

    def __call__(self, dataset: Dataset) -> None:
        for tag, index in self.path:
            dataset = dataset[tag].value[index]
        if self.removes:
            del dataset[self.tag]
        else:
            change(dataset, self.tag)


def change(dataset: Dataset, tag: BaseTag) -> None:
    """Give an attribute another value of its VR; drop the last item of a sequence, or put one in."""
    element = dataset[tag]
    value, last = element.value, str(element.value or "")[-1:]
    if element.VR == "SQ":
        element.value = list(value)[:-1] if value else [Dataset()]
    elif element.VR in _OTHER:
        other = _OTHER[element.VR]
        element.value = [other, *list(value)[1:]] if element.VM > 1 else other
    elif element.VR in ("US", "IS", "DS"):
        element.value = type(value)(int(value) + 1) if value not in (None, "") else 1
    elif element.VR == "FL":
        element.value = [value[0] + 7.0, *value[1:]]
    elif element.VR == "OB":
        element.value = value[:-2]
    elif element.VR == "UI":
        element.value = f"{value[:-1]}{'1' if last != '1' else '2'}"
    elif element.VM > 1:
        element.value = [f"{value[0]}X", *list(value)[1:]]
    else:
        element.value = f"{str(value or '')[:-1]}{'X' if last != 'X' else 'Y'}"


def every(dataset: Dataset, path: Path = ()) -> Iterator[Mutation]:
    """Every attribute of a data set and its sequences, removed and changed."""
    for element in dataset:
        for removes in (True, False):
            yield Mutation(path, element.tag, removes)
        if element.VR == "SQ":
            for index, item in enumerate(element.value):
                yield from every(item, (*path, (element.tag, index)))


def items(dataset: Dataset) -> Iterator[Callable[[Dataset], None]]:
    """Every content item: removed, written twice, and moved to the end."""
    count = sum(1 for _ in _parents(dataset))
    for number in range(count):
        for act in (_remove, _double, _move):
            yield _at(number, act)


def made(of: Context) -> dict[ResultKind, Artifact]:
    """The three results as far as they are made, with no alternatives."""
    built = {kind: build(of) for kind, build in BUILD.items()}
    return {kind: replace(each, alternatives=()) for kind, each in built.items() if each is not None}


@cache
def results(case: str) -> tuple[dict[ResultKind, Artifact], Context]:
    """Those three of one case, small, and what they were made of; not to be changed."""
    of = context(case, max_heatmap_px=1024)
    return made(of), of


def every_kind(of: Context) -> list[Artifact]:
    of = replace(of, kinds=frozenset(DICOM_KINDS))
    built = (build(of) for build in pipeline.BUILDERS.values())
    return [artifact for artifact in built if artifact is not None]


@cache
def of_both_lungs() -> tuple[list[Artifact], Context]:
    of = replace(in_both_lungs(context(max_heatmap_px=1024)), kinds=frozenset(DICOM_KINDS))
    return every_kind(of), of


def broken(artifact: Artifact, act: Change) -> Artifact:
    """A result after something was done to its data set; the file meta information follows its UIDs."""
    dataset = dcmread(io.BytesIO(artifact.content))
    act(dataset)
    meta = dataset.file_meta
    dataset.setdefault("SOPClassUID", meta.MediaStorageSOPClassUID)
    dataset.setdefault("SOPInstanceUID", meta.MediaStorageSOPInstanceUID)
    return replace(artifact, content=to_part10(dataset))


def _parents(dataset: Dataset) -> Iterator[tuple[Dataset, int]]:
    for index, item in enumerate(dataset.get("ContentSequence", ())):
        yield dataset, index
        yield from _parents(item)


def _at(number: int, act: Callable[[Dataset, int], None]) -> Change:
    def mutate(dataset: Dataset) -> None:
        parent, index = list(_parents(dataset))[number]
        act(parent, index)

    mutate.__name__ = f"{act.__name__}_{number}"
    return mutate


def _remove(parent: Dataset, index: int) -> None:
    del parent.ContentSequence[index]
    if not parent.ContentSequence:
        del parent.ContentSequence


def _double(parent: Dataset, index: int) -> None:
    parent.ContentSequence.insert(index, parent.ContentSequence[index])


def _move(parent: Dataset, index: int) -> None:
    """To the end, or to the front where it is the last; an only child becomes its own twin."""
    children = list(parent.ContentSequence)
    item = children.pop(index)
    children = [*children, item] if index < len(children) else [item, *children]
    parent.ContentSequence = children if len(children) > 1 else [item, item]


def _keyword(tag: BaseTag) -> str:
    return keyword_for_tag(tag) or str(tag)
