"""One thing removed or changed anywhere: the check notices, or it is in the lists below and says why not."""

from __future__ import annotations

import io
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread

from cxr_node.dicom.verify import check
from cxr_node.domain import Artifact, ResultKind
from tests import builders
from tests.dicom.contexts import CASES, context
from tests.dicom.mutations import Mutation, broken, every, items, made

SOURCE = ("source", builders.part10(builders.radiograph()))
IN_ONE_PLACE = frozenset({"SOPInstanceUID", "SeriesInstanceUID"})
"""Of files alone: nothing refers to an SR, nor says in which series it must be."""


@cache
def results(case: str) -> tuple[dict[ResultKind, Artifact], check.Context]:
    of = context(case, max_heatmap_px=1024)
    return made(of), of


@cache
def document(case: str, kind: ResultKind) -> Dataset:
    return dcmread(io.BytesIO(results(case)[0][kind].content))


@cache
def mutations(case: str, kind: ResultKind) -> list[Mutation]:
    needed = ("SOPClassUID", "SOPInstanceUID")  # a Part 10 file cannot be written without
    return [each for each in every(document(case, kind)) if not (each.removes and str(each)[1:] in needed)]


@st.composite
def broken_sets(draw: st.DrawFn) -> tuple[str, Mutation, ResultKind]:
    case = draw(st.sampled_from(sorted(CASES)))
    kind = draw(st.sampled_from((ResultKind.REPORT, ResultKind.MEASUREMENTS, ResultKind.HEATMAP)))
    return case, draw(st.sampled_from(mutations(case, kind))), kind


def with_one_broken(case: str, act: object, kind: ResultKind) -> list[Artifact]:
    artifacts = results(case)[0]
    return [broken(each, act) if each.kind is kind else each for each in artifacts.values()]  # type: ignore[arg-type]


@settings(max_examples=150, deadline=None)
@given(broken_sets())
def test_before_it_is_sent_any_change_anywhere_is_noticed(drawn: tuple[str, Mutation, ResultKind]) -> None:
    case, act, kind = drawn
    assert check.check_made(with_one_broken(case, act, kind), results(case)[1]), str(act)


@settings(max_examples=150, deadline=None)
@given(broken_sets())
def test_of_files_with_their_source_all_but_what_stands_in_one_place_is_noticed(
    drawn: tuple[str, Mutation, ResultKind],
) -> None:
    case, act, kind = drawn
    contents = [(str(each.kind), each.content) for each in with_one_broken(case, act, kind)]
    noticed = bool(check.check_files([*contents, SOURCE]).flaws)
    assert noticed or stands_alone(act, document(case, kind)), str(act)


def stands_alone(act: Mutation, of: Dataset) -> bool:
    """Whether no other field follows from this one, nor it from any other."""
    if act.removes:
        return False
    if len(act.path) == 0:
        return act.keywords[0] in IN_ONE_PLACE
    node = of
    for tag, index in act.path:
        node = node[tag].value[index]
    concept = node.ConceptNameCodeSequence[0].CodeMeaning if "ConceptNameCodeSequence" in node else ""
    if concept == "Tracking Unique Identifier":
        return act.keywords[-1] == "UID"
    return concept == "Algorithm Parameters" and "sha256" in str(node.get("TextValue", ""))


TREES = [
    pytest.param(case, kind, act, id=f"{case}-{kind}-{act.__name__}")
    for case in ("pneumonia", "views")
    for kind in (ResultKind.REPORT, ResultKind.MEASUREMENTS)
    for act in items(document(case, kind))
]


@pytest.mark.parametrize(("case", "kind", "act"), TREES)
def test_every_content_item_removed_doubled_or_moved_is_noticed(case: str, kind: ResultKind, act: object) -> None:
    broken_set = with_one_broken(case, act, kind)
    if [each.content for each in broken_set] == [each.content for each in results(case)[0].values()]:
        pytest.skip("the last of several moved to its own place")
    assert check.check_made(broken_set, results(case)[1])


@settings(max_examples=100, deadline=None)
@given(
    kind=st.sampled_from((ResultKind.REPORT, ResultKind.MEASUREMENTS)),
    place=st.floats(0, 1, exclude_max=True),
    garbage=st.binary(min_size=1, max_size=12),
)
def test_garbage_in_a_file_is_a_flaw_or_nothing_but_never_a_crash(
    kind: ResultKind, place: float, garbage: bytes
) -> None:
    content = results("pneumonia")[0][kind].content
    start = 132 + int(place * (len(content) - 132))
    spoilt = content[:start] + garbage + content[start + len(garbage) :]
    checked = check.check_files([("spoilt", spoilt), SOURCE])
    assert checked.results + len(checked.flaws) + len(checked.ignored) + checked.sources >= 1
