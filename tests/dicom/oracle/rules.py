"""What the oracle finds: the codes of the check, and those of rows and attributes that only the tests look at."""

from __future__ import annotations

from enum import StrEnum


class OracleRule(StrEnum):
    """A rule that an object breaks."""

    ATTRIBUTE = "attribute"
    EQUIPMENT = "equipment"
    SOURCE = "source"
    PIXELS = "pixels"
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
