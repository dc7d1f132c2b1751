"""What was said of an image, as text for the ledger until its study is reported; nothing of it names the patient.

Numbers read back to the bit, so the report is the same, whoever makes it and whenever.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

from pydantic import TypeAdapter

from cxr_node.outcome import Judgement, NotAnalysed


class _Array:
    """Stands for the arrays of `domain`, which are not written down: it must not need numpy."""

    def __class_getitem__(cls, _: Any) -> Any:
        return Any


@cache
def _adapter(noun: Any) -> TypeAdapter[Any]:
    adapter: TypeAdapter[Any] = TypeAdapter(noun)
    adapter.rebuild(_types_namespace={"NDArray": _Array, "np": SimpleNamespace(float32=None)})
    return adapter


def dump(told: Judgement | NotAnalysed) -> str:
    """Write it down, without the cells of the map."""
    if isinstance(told, Judgement):
        bare: Any = replace(told.finding.heatmap, cells=None)  # type: ignore[arg-type]  # not written down
        told = replace(told, finding=replace(told.finding, heatmap=bare))
    noun: Any = type(told)
    return _adapter(noun).dump_json(told).decode()


def load_judgement(text: str) -> Judgement:
    """Read an analysed image's."""
    found: Judgement = _adapter(Judgement).validate_json(text.replace('"pixel_sha256":', '"pixel_digest":', 1))
    return found  # under the former name it waited for its report while the node was updated


def load_not_analysed(text: str) -> NotAnalysed:
    """Read that of an image that was not analysed."""
    found: NotAnalysed = _adapter(NotAnalysed).validate_json(text)
    return found
