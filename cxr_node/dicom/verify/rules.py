"""What `verify` may find, each with a stable code and a sentence: scripts and tests name the codes.

No sentence and no place holds a value of a patient, so a flaw may end in a log line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class Rule(StrEnum):
    """What a result must keep; grouped as the checks are."""

    sentence: str

    def __new__(cls, code: str, sentence: str) -> Rule:
        """Make a code that knows its sentence."""
        rule = str.__new__(cls, code)
        rule._value_, rule.sentence = code, sentence
        return rule

    # The object
    UNREADABLE = "unreadable", "The file is not readable as DICOM."
    SECOND_READER = "second-reader", "highdicom, an independent reader, cannot read the object."
    FILE_META = "file-meta", "File meta information is missing or contradicts the data set (PS3.10 7.1)."
    SOP_CLASS = "sop-class", "The SOP class is none that this result may have."
    UID = "uid", "A UID is missing, ill-formed (PS3.5 9.1) or used twice."
    SERIES_SHARED = "series-shared", "Two results share a series; viewers show the first SR of a series only."
    RESULT_TWICE = "result-twice", "One algorithm gives two results of one kind for one image."
    ALTERNATIVE = "alternative", "The same result in another SOP class differs in more than class and UID."
    ATTRIBUTE = "attribute", "An attribute is missing, not allowed, or not what it must be."
    STATUS = "status", "The result must be COMPLETE, UNVERIFIED, PRELIMINARY and RESEARCH (PS3.3 C.17.2)."
    EQUIPMENT = "equipment", "Equipment is not stated, or not the same everywhere (IHE RAD AIR 6.5.3.1)."
    CONTENT_TIME = "content-time", "Content date, time and contribution do not agree, or differ between results."
    PATIENT_AND_STUDY = (
        "patient-and-study",
        "Patient, study or character set differ from the source or between results.",
    )
    REQUEST = "request", "The references to the order differ from the source or between results."
    SOURCE = "source", "A reference to the source names another image."
    EVIDENCE = "evidence", "Evidence must list the source, the picture and every image referred to (PS3.3 C.17.2.1)."
    PREDECESSOR = "predecessor", "A document that is replaced must be of the same study and SOP class (PS3.3 C.17.2)."
    PIXELS = "pixels", "Image attributes and pixel data do not agree (PS3.3 C.7.6.3)."
    # What is said
    ILLUSTRATION = "illustration", "A reference to the picture names another image."
    LIBRARY = "library", "The size of the image differs from the source or between results."
    TRACKING = "tracking", "Tracking identifier and UID are missing or not those of the finding (TID 1410)."
    ALGORITHM = "algorithm", "The algorithm is not identified, or not the same everywhere (TID 4019)."
    THRESHOLD = "threshold", "The thresholds are missing or not the same everywhere."
    CERTAINTY = (
        "certainty",
        "The certainty is missing, stated where none may be, not in percent, or not the same everywhere.",
    )
    SCORES = "scores", "The scored findings are missing, not in the order of their numbers, or not coded as such."
    REGION = "region", "The region is not one closed line on its source image, or not that of the answer."
    SUMMARY = "summary", "The sentence of the verdict is missing or not that of the coded answer."
    # What is understood
    VERDICT = "verdict", "The results of one image do not agree on a verdict, or state none."
    DECISION = "decision", "The verdict is not what certainty and thresholds give."
    DESCRIPTION = (
        "description",
        "The series description does not begin with the verdict, or is not that of the coded answer.",
    )
    READS_NEGATIVE = "reads-negative", "Read alone, this field says that the finding is absent."
    READS_POSITIVE = "reads-positive", "Read alone, this field says that the finding is present."


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """One rule that one result breaks.

    `document` : name of the file, or kind of the result
    `where` : attribute, or the name of a content item; "" where it is the whole object
    """

    rule: Rule
    document: str
    where: str = ""

    @property
    def sentence(self) -> str:
        """The rule, for people."""
        return self.rule.sentence

    def __str__(self) -> str:
        place = f" [{self.where}]" if self.where else ""
        return f"{self.document}: {self.rule}: {self.sentence}{place}"


Report: TypeAlias = Callable[[Rule, str], None]
"""Takes a broken rule and the place where it is broken."""
