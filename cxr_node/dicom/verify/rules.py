"""What `verify` may find, each with a stable code and a sentence; no check is here.

The codes are a contract: scripts and tests name them. No sentence and no place holds a value of a patient, so a
flaw may end in a log line.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Rule(StrEnum):
    """What a result must keep; grouped as the checks are."""

    # The object
    UNREADABLE = "unreadable"
    FILE_META = "file-meta"
    SOP_CLASS = "sop-class"
    UID = "uid"
    SERIES_SHARED = "series-shared"
    RESULT_TWICE = "result-twice"
    ALTERNATIVE = "alternative"
    ATTRIBUTE = "attribute"
    STATUS = "status"
    EQUIPMENT = "equipment"
    CONTENT_TIME = "content-time"
    PATIENT_AND_STUDY = "patient-and-study"
    REQUEST = "request"
    SOURCE = "source"
    EVIDENCE = "evidence"
    PREDECESSOR = "predecessor"
    PIXELS = "pixels"
    # The content tree
    TITLE = "title"
    TEMPLATE = "template"
    CONTINUITY = "continuity"
    CODE_MEANING = "code-meaning"
    ROW_UNEXPECTED = "row-unexpected"
    ROW_ORDER = "row-order"
    SECTION = "section"
    LANGUAGE = "language"
    OBSERVER = "observer"
    PROCEDURE = "procedure"
    LIBRARY = "library"
    TRACKING = "tracking"
    ALGORITHM = "algorithm"
    THRESHOLD = "threshold"
    CERTAINTY = "certainty"
    PRESENCE = "presence"
    PROCESSING = "processing"
    FINDING = "finding"
    REGION = "region"
    ILLUSTRATION = "illustration"
    SUMMARY = "summary"
    SCORES = "scores"
    REPORT_LINE = "report-line"
    # What is understood
    VERDICT = "verdict"
    DECISION = "decision"
    DESCRIPTION = "description"
    READS_NEGATIVE = "reads-negative"
    READS_POSITIVE = "reads-positive"


SENTENCES = {
    Rule.UNREADABLE: "The file is not readable as DICOM.",
    Rule.FILE_META: "File meta information is missing or contradicts the data set (PS3.10 7.1).",
    Rule.SOP_CLASS: "The SOP class is none that this result may have.",
    Rule.UID: "A UID is missing, ill-formed (PS3.5 9.1) or used twice.",
    Rule.SERIES_SHARED: "Two results share a series; viewers show the first SR of a series only.",
    Rule.RESULT_TWICE: "One algorithm gives two results of one kind for one image.",
    Rule.ALTERNATIVE: "The same result in another SOP class differs in more than class and UID.",
    Rule.ATTRIBUTE: "An attribute is missing, not allowed, or not what it must be.",
    Rule.STATUS: "The result must be COMPLETE, UNVERIFIED, PRELIMINARY and RESEARCH (PS3.3 C.17.2).",
    Rule.EQUIPMENT: "Equipment is not stated, or not the same everywhere (IHE RAD AIR 6.5.3.1).",
    Rule.CONTENT_TIME: "Content date, time and contribution do not agree, or differ between results.",
    Rule.PATIENT_AND_STUDY: "Patient, study or character set differ from the source or between results.",
    Rule.REQUEST: "The references to the order differ from the source or between results.",
    Rule.SOURCE: "A reference to the source names another image.",
    Rule.EVIDENCE: "Evidence must list the source, the picture and every image referred to (PS3.3 C.17.2.1).",
    Rule.PREDECESSOR: "A document that is replaced must be of the same study and SOP class (PS3.3 C.17.2).",
    Rule.PIXELS: "Image attributes and pixel data are not those of an uncompressed color picture (PS3.3 C.7.6.3).",
    Rule.TITLE: "The document's title is not that of its template.",
    Rule.TEMPLATE: "Content Template Sequence is missing or names another template (PS3.3 C.17.3).",
    Rule.CONTINUITY: "A container is not SEPARATE; viewers lose its headings.",
    Rule.CODE_MEANING: "A code does not have its meaning.",
    Rule.ROW_UNEXPECTED: "There is a content item that the template does not have.",
    Rule.ROW_ORDER: "Content items are not in the order of the template.",
    Rule.SECTION: "A section of the document is missing (TID 2000, TID 1500).",
    Rule.LANGUAGE: "The language is not stated (TID 1204).",
    Rule.OBSERVER: "The observer, a device with UID and name, is not stated in full (TID 1002, TID 1004).",
    Rule.PROCEDURE: "The procedure reported is missing or not the source's (TID 1500).",
    Rule.LIBRARY: "The image library does not describe the source (TID 1601, TID 1602).",
    Rule.TRACKING: "Tracking identifier and UID are missing or not those of the finding (TID 1410).",
    Rule.ALGORITHM: "The algorithm is not identified, or not the same everywhere (TID 4019).",
    Rule.THRESHOLD: "The thresholds are missing or not the same everywhere.",
    Rule.CERTAINTY: "The certainty is missing, stated where none may be, not in percent, or not the same everywhere.",
    Rule.PRESENCE: "Presence of the finding is missing or not that of the verdict (CID 240).",
    Rule.PROCESSING: "The processing summary is not that of the verdict; UNCERTAIN has none (CID 6047).",
    Rule.FINDING: "Finding is the target of a positive verdict, and stands with no other.",
    Rule.REGION: "The region is not one closed line on its source image, or not that of the answer.",
    Rule.ILLUSTRATION: "The references to the picture are missing, wrong, or made though it shows no map.",
    Rule.SUMMARY: "The sentence of the verdict is missing or not that of the coded answer.",
    Rule.SCORES: "The scored findings are missing, not in the order of their numbers, or not coded as such.",
    Rule.REPORT_LINE: "A line of the report is missing or not that of the coded answer.",
    Rule.VERDICT: "The results of one image do not agree on a verdict, or state none.",
    Rule.DECISION: "The verdict is not what certainty and thresholds give.",
    Rule.DESCRIPTION: "The series description does not begin with the verdict, or is not that of the coded answer.",
    Rule.READS_NEGATIVE: "Read alone, this field says that the finding is absent.",
    Rule.READS_POSITIVE: "Read alone, this field says that the finding is present.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """One rule that one result breaks.

    Attributes
    ----------
    document : name of the file, or kind of the result
    where : attribute, or path of content items by their meanings; "" where it is the whole object
    """

    rule: Rule
    document: str
    where: str = ""

    @property
    def sentence(self) -> str:
        """The rule, for people."""
        return SENTENCES[self.rule]

    def __str__(self) -> str:
        place = f" [{self.where}]" if self.where else ""
        return f"{self.document}: {self.rule}: {self.sentence}{place}"
