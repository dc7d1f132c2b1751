"""The key `results.triage`: by what the worklist of another system may find an answer (docs/triage.md).

The node orders nothing itself. There is no mark for a negative: what is sorted down waits without a limit, and a mark
that says so would be read as "normal". Imports no room.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, model_validator

from cxr_node.config.section import Section

MAX_MARK_CHARS = 16
"""With it the longest name of a series still has its verdict and "(research)" within 64 characters."""
_MARK = re.compile(rf"[A-Za-z0-9](?:[A-Za-z0-9 !#+*._-]{{0,{MAX_MARK_CHARS - 2}}}[A-Za-z0-9!#+*])?")
_READS_NEGATIVE = re.compile(
    r"\b(?:no|non|not|none|neg|negative|normal|nad|clear|clean|absent|free|without|excluded|ruled?|healthy|fine|ok|okay"
    r"|unremarkable|benign|low|lowest|routine|done|final|verified|0)\b",
    re.IGNORECASE,
)
"""Words by which a film is put aside, or taken for read."""
_READS_POSITIVE = re.compile(
    r"\b(?:pos|positive|pneumonia|opacity|suspected|present|found|detected|finding|findings|abnormal|critical|urgent|stat)\b",
    re.IGNORECASE,
)


def _mark(text: str) -> str:
    if not _MARK.fullmatch(text):
        raise ValueError(f"{text!r} is no mark: 1 to {MAX_MARK_CHARS} letters, digits and blanks, such as AI FLAG")
    if found := _READS_NEGATIVE.search(text):
        raise ValueError(f"{text!r} may be read as negative, or as read: {found[0]!r}")
    return text


def _of_no_answer(text: str) -> str:
    if found := _READS_POSITIVE.search(text):
        raise ValueError(f"{text!r} may be read as positive: {found[0]!r}; UNCERTAIN is no answer")
    return text


Mark = Annotated[str, AfterValidator(_mark)]


class KeyObjectTitle(StrEnum):
    """Document titles of a key object (PS3.16 CID 7010) that fit a mark of an algorithm."""

    OF_INTEREST = "of-interest"
    FOR_REFERRING_PROVIDER = "for-referring-provider"
    FOR_PEER_REVIEW = "for-peer-review"
    FOR_RESEARCH = "for-research"


class Triage(Section):
    """Marks of an answer; each is off by default, and a rejected image has none."""

    positive: Mark | None = None
    """Before the names of the series of a positive answer."""
    uncertain: Annotated[Mark, AfterValidator(_of_no_answer)] | None = None
    """Before those of UNCERTAIN: somebody has to look, and nobody knows for what."""
    key_object_title: KeyObjectTitle = KeyObjectTitle.OF_INTEREST
    """Of the key object, which is made of positives alone, for destinations whose `send` has it."""
    hl7_priority: Literal["A", "S"] | None = None
    """OBR-5 and TQ1-9 of the message about a positive: as soon as possible, or stat (tables 0027 and 0485)."""

    @model_validator(mode="after")
    def _a_rule_tells_them_apart(self) -> Self:
        both = [each.casefold() for each in (self.positive, self.uncertain) if each is not None]
        if len(both) > 1 and (both[0] in both[1] or both[1] in both[0]):
            raise ValueError("positive and uncertain: a rule that looks for one mark would find the other, too")
        return self
