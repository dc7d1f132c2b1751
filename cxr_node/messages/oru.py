"""The report of a study as an unsolicited result: ORU^R01 of HL7 version 2.5.1, preliminary, never final.

Who sends it to whom, and in which character set, is the destination's (`node.deliver.mllp` fills those fields in); the
rest are the same bytes for every destination and at every repeat. OBX-5 and OBX-8 of a row alone must not read as
negative where nothing was answered: an UNCERTAIN is Undetermined with the flag IND.
HL7 2.5.1 chapters 2, 3, 4, 7; IHE RAD TF-2 4.128 (order and accession).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from datetime import datetime
from itertools import groupby

from cxr_node.dicom.results.identity import Code, Order, Patient, PersonName
from cxr_node.dicom.results.study import Study
from cxr_node.dicom.words.coded_findings import OWN_SCHEME
from cxr_node.dicom.words.wording import FOOTER
from cxr_node.domain import Verdict
from cxr_node.messages.answer import NO_ANSWER, Algorithm, Answer, Doubt, Line, Number, answer_of
from cxr_node.outcome import Artifact
from cxr_node.result_kinds import ResultKind

FLAGS = {Verdict.POSITIVE: "POS", Verdict.NEGATIVE: "NEG", Verdict.INDETERMINATE: "IND"}
"""OBX-8, in the words of HL7 table 0078 since version 2.7: of a negative never N (normal), of a doubt never nothing."""
CONTROL_ID_CHARS = 20
"""MSH-10, ST of 20."""
DOUBT = ("doubt", OWN_SCHEME, "Why there is no answer")
DIAGNOSTIC_REPORT = ("18748-4", "LN", "Diagnostic imaging report")
STUDY_UID = ("110180", "DCM", "Study Instance UID")
ALGORITHM_NAME = ("111001", "DCM", "Algorithm Name")
ALGORITHM_VERSION = ("111003", "DCM", "Algorithm Version")
ALGORITHM_PARAMETERS = ("111002", "DCM", "Algorithm Parameters")
_ESCAPES = str.maketrans({"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"})
_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_SEXES = {"M": "M", "F": "F", "O": "O"}
_MAX_ST_CHARS = 199


def build(study: Study) -> Artifact:
    """Make the message about a study."""
    answer = answer_of(study, ResultKind.HL7)
    return Artifact(
        kind=ResultKind.HL7,
        sop_class_uid="",
        sop_instance_uid=answer.uid,
        series_instance_uid=study.series_uid(ResultKind.HL7),
        content=encode(answer),
    )


def encode(answer: Answer) -> bytes:
    """Segments in UTF-8, each ended by a carriage return; MSH-3 to 6 are empty."""
    note = ("NTE", "1", "L", escaped(f"{FOOTER} Not verified by a physician."))
    timing = [_timing(answer)] if answer.priority else []
    segments = [_header(answer), _patient(answer.patient), *_request(answer), note, *timing, *_observations(answer)]
    return "".join(f"{'|'.join(segment).rstrip('|')}\r" for segment in segments).encode()


def control_id(uid: str) -> str:
    """MSH-10: the same for the same message, however often it is sent."""
    return base64.b32encode(hashlib.sha256(uid.encode()).digest()).decode("ascii")[:CONTROL_ID_CHARS]


def escaped(text: str) -> str:
    """A value without delimiters; a line break becomes that of formatted text, other control characters a blank."""
    parts = _LINE_BREAK.split(text)
    return "\\.br\\".join(_CONTROL.sub(" ", part).translate(_ESCAPES) for part in parts)


def coded(code: Code, other: Code | None = None) -> str:
    """CE: identifier, text, scheme; `other` is the same in another scheme."""
    both = (code, other or ("", "", ""))
    return _components(*(part for value, scheme, meaning in both for part in (value, meaning, scheme)))


def _components(*values: str) -> str:
    return "^".join(escaped(value) for value in values).rstrip("^")


def _header(answer: Answer) -> tuple[str, ...]:
    """MSH; the separator is its first field, so that what follows counts from two."""
    return (
        "MSH", "^~\\&", "", "", "", "", stamp(answer.at), "", "ORU^R01^ORU_R01", control_id(answer.uid), "P", "2.5.1",
        "", "", "", "", "", "UNICODE UTF-8",
    )  # fmt: skip


def _patient(patient: Patient) -> tuple[str, ...]:
    authority = "&".join(escaped(part) for part in (patient.issuer, *patient.issuer_universal)).rstrip("&")
    identifier = f"{escaped(patient.identifier)}^^^{authority}^PI" if patient.identifier else ""
    names = "~".join(_name(name) for name in patient.names) or _components("", "", "", "", "", "", "U")
    return "PID", "1", "", identifier, "", names, "", patient.birth_date, _SEXES.get(patient.sex, "U")


def _name(name: PersonName) -> str:
    """XPN; its prefix stands behind its suffix. L: the legal name, as far as anybody knows."""
    family, given, middle, prefix, suffix = name.parts
    return _components(family, given, middle, suffix, prefix, "", "L", name.representation)


def _request(answer: Answer) -> Iterator[tuple[str, ...]]:
    """ORC and OBR: without a number of the filler the accession number, and without that the study's UID is it."""
    order = answer.order
    placer = escaped(order.placer_number)
    filler = escaped(order.filler_number or order.accession_number or answer.study_instance_uid)
    yield "ORC", "RE", placer, filler
    fields = {
        1: "1", 2: placer, 3: filler, 4: _service(order), 5: answer.priority, 7: _studied_at(order),
        18: escaped(order.accession_number), 19: escaped(order.procedure_id), 22: stamp(answer.at), 24: "RAD", 25: "P",
    }  # fmt: skip
    yield "OBR", *(fields.get(number, "") for number in range(1, max(fields) + 1))


def _timing(answer: Answer) -> tuple[str, ...]:
    """TQ1-9, which takes the place of OBR-5 in 2.5; worklists were seen to read that still."""
    return "TQ1", "1", "", "", "", "", "", "", "", answer.priority


def _service(order: Order) -> str:
    if order.procedure is not None:
        return coded(order.procedure)
    return coded(DIAGNOSTIC_REPORT, ("", "", order.description))


def _studied_at(order: Order) -> str:
    is_whole = len(order.studied_at) >= len("YYYYMMDDHHMM")
    return order.studied_at + (order.utc_offset if is_whole else "")


def _observations(answer: Answer) -> Iterator[tuple[str, ...]]:
    rows = list(_rows(answer))
    for number, fields in enumerate(rows, 1):
        yield "OBX", str(number), *(fields.get(place, "") for place in range(2, 19))


def _rows(answer: Answer) -> Iterator[dict[int, str]]:
    """The verdict first, then what people read, then what it rests on."""
    yield _verdict(answer)
    for concept, lines in groupby(answer.lines, key=lambda line: line.concept):
        yield from _texts(answer, concept, list(lines))
    if answer.number is not None:
        yield _certainty(answer, answer.number)
    for doubt in answer.doubts:
        yield _doubt(answer, doubt)
    for number, algorithm in enumerate(answer.algorithms, 1):
        yield from _algorithm(answer, algorithm, str(number) if len(answer.algorithms) > 1 else "")
    yield _row(answer, "ST", STUDY_UID, escaped(answer.study_instance_uid))


def _verdict(answer: Answer) -> dict[int, str]:
    """Presence of the finding; X in OBX-11 where nothing was analysed, for then it cannot be obtained."""
    own = (answer.verdict.name, OWN_SCHEME, answer.words)
    status = "X" if answer.finding == NO_ANSWER else "P"
    return _row(answer, "CE", answer.finding, coded(answer.presence, own)) | {8: FLAGS[answer.verdict], 11: status}


def _certainty(answer: Answer, number: Number) -> dict[int, str]:
    """With the flag of the verdict, so that a small number beside a doubt is not taken for a no."""
    row = _row(answer, "NM", number.concept, number.value, str(number.image))
    return row | {6: coded(number.unit), 8: FLAGS[answer.verdict]}


def _doubt(answer: Answer, doubt: Doubt) -> dict[int, str]:
    return _row(answer, "CE", DOUBT, coded(doubt.code), str(doubt.image)) | {8: FLAGS[Verdict.INDETERMINATE]}


def _texts(answer: Answer, concept: Code, lines: list[Line]) -> Iterator[dict[int, str]]:
    """A row for each line that is about one image of several; else one row of formatted text (FT: TX may be short)."""
    if all(len(line.images) == 1 for line in lines) and len(answer.images) > 1:
        for line in lines:
            yield _row(answer, "FT", concept, escaped(line.text), str(line.images[0]))
    else:
        yield _row(answer, "FT", concept, escaped("\n".join(line.text for line in lines)))


def _algorithm(answer: Answer, algorithm: Algorithm, number: str) -> Iterator[dict[int, str]]:
    device = _components(algorithm.serial_number, "", algorithm.device_uid, "ISO")
    said = {ALGORITHM_NAME: [algorithm.name], ALGORITHM_VERSION: [algorithm.version]}
    if algorithm.parameters:
        said[ALGORITHM_PARAMETERS] = list(algorithm.parameters)
    for concept, values in said.items():
        kind = "FT" if max(map(len, values)) > _MAX_ST_CHARS else "ST"
        yield _row(answer, kind, concept, "~".join(map(escaped, values)), number) | {18: device}


def _row(answer: Answer, kind: str, concept: Code, value: str, image: str = "") -> dict[int, str]:
    """One OBX by the numbers of its fields; of several that are about one concept, OBX-4 names the image."""
    return {2: kind, 3: coded(concept), 4: image, 5: value, 11: "P", 14: stamp(answer.at)}


def stamp(moment: datetime) -> str:
    """TS, to the second, with its offset."""
    return f"{moment:%Y%m%d%H%M%S%z}"
