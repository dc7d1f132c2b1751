"""What a radiologist says on the page of an answer: a reading of its own, kept apart from those of reports.

Nobody is shown what others said, and one word of one reader counts: the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cxr_node.assurance.report_rules import Said
from cxr_node.domain import PNEUMONIA, Target, Verdict
from cxr_node.errors import DataError
from cxr_node.node.ledger import readings
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.queries import Story
from cxr_node.node.ledger.readings import PAGE, Kept, Reading
from cxr_node.web.identity.person import Person
from cxr_node.web.services import Services

_READER_CHARS = 64
_AGREES = {
    Verdict.POSITIVE: ("Agree: {}", "Disagree: no {}"),
    Verdict.NEGATIVE: ("Disagree: {}", "Agree: no {}"),
    Verdict.INDETERMINATE: ("There is {}", "There is no {}"),
}
"""Of each answer: how a button says that the finding is there, and that it is not."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """Buttons by what they send, and what this reader said before."""

    buttons: Sequence[tuple[Said, str]]
    before: str | None


def of_study(ledger: Ledger, stories: Sequence[Story], person: Person, target: Target | None) -> Opinion | None:
    """What a reader may say of a study; None where none of it was analysed."""
    words = [Verdict.of_word(each.instance.verdict) for each in stories if each.instance.verdict is not None]
    answers = [word for word in words if word is not Verdict.REJECTED]
    if not answers:
        return None
    finding = (target or PNEUMONIA).finding
    there, not_there = (words.format(finding) for words in _AGREES[Verdict.worst(answers)])
    said = readings.said_of(ledger, [stories[0].instance.study_instance_uid])
    mine = [each for some in said.values() for each in some if (each.source, each.reader) == (PAGE, _name(person))]
    buttons = ((Said.PRESENT, there), (Said.ABSENT, not_there), (Said.NOT_STATED, "Cannot say"))
    return Opinion(buttons, mine[0].said if mine else None)


def said_by(found: Services, person: Person, host: str, number: int, said: Said) -> str:
    """Keep a reader's word on the study of an image: first it is in the audit trail."""
    ledger = found.ledger()
    study = readings.studies_with(ledger, [number]).get(number)
    if study is None:
        raise DataError("the ledger has no such image any more")
    found.people.changed(person.name, f"says of the study of image #{number}: {said}", host)
    reading = Reading(
        study_instance_uid=study, source=PAGE, reader=_name(person), said=said, rule="page", said_at=ledger.now()
    )
    kept = readings.keep(ledger, reading)
    instead = " in place of what you said before" if kept is Kept.SUPERSEDES else ""
    return f"Image #{number}: your word on its study is kept{instead}: {said}."


def _name(person: Person) -> str:
    return person.name[:_READER_CHARS]
