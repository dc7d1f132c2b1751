"""The check of a report about several images: each part against what it is about, and all of them together.

At run time against what the report was made of; of files alone against each other. The worst of its images is the
verdict of a study, and an image that is left out reads as negative.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from cxr_node.dicom.results import copied_attributes, measurement_sr
from cxr_node.dicom.results.context import Context, equipment
from cxr_node.dicom.results.study import Study, evidence, named
from cxr_node.dicom.verify import claims, objects, single_field
from cxr_node.dicom.verify.claims import EVIDENCE, Document
from cxr_node.dicom.verify.parts import Named, Parts, take_apart
from cxr_node.dicom.verify.plain import listed, plain
from cxr_node.dicom.verify.rules import Flaw, Report, Rule
from cxr_node.dicom.words import study_wording
from cxr_node.domain import Verdict
from cxr_node.outcome import NotAnalysed
from cxr_node.result_kinds import ResultKind

_OURS = "2.25."  # as pictures are named; so may be an image, of which it is not asked
_OTHER_EVIDENCE = "PertinentOtherEvidenceSequence"
_WORST_FIRST = (Verdict.POSITIVE, Verdict.INDETERMINATE, Verdict.NEGATIVE)
_THRESHOLDS = {
    ResultKind.REPORT: ("thresholds", "line"),
    ResultKind.MEASUREMENTS: ("threshold.rule_out", "threshold.report", "weights.sha256", "config.sha256", "tracking"),
}


def check_study(documents: Sequence[Document], study: Study, flaws: list[Flaw]) -> None:
    """Check the documents of a study against what they were made of."""
    expected = _of_study(study)
    images = {named(each)[1:]: each for each in study.images}
    listing = [_line(study, each) for each in study.listed]
    parts = {id(document): take_apart(document) for document in documents}
    for document in documents:
        report, its = objects.reporter(document.name, flaws), parts[id(document)]
        objects.check_object(document, report)
        _compare(its.study, list(claims.of_study(its.study)), expected, report)
        _check_said(its.study, study.verdict, expected.get("judged", ""), report)
        if document.kind in (ResultKind.REPORT, ResultKind.MEASUREMENTS):
            _check_images(document, its, study, listing, report)
            if set(its.views) != set(images):
                report(Rule.SOURCE, "images")
        else:
            _check_key_images(document, study, report)
    objects.check_uids(list(documents), study.source, flaws)
    for image, context in images.items():
        views = [its.views[image] for its in parts.values() if image in its.views]
        wanted = claims.from_context(context) | {"line": study_wording.finding_line(context.finding)}
        if not context.regions and any(each.regions for each in study.images):
            wanted["outlines"] = [claims.as_stored(measurement_sr.frame(context))]
        _check_views(views, wanted, context.finding.decision.verdict, flaws)


def check_files_of_study(documents: Sequence[Document], others: Sequence[Document], flaws: list[Flaw]) -> None:
    """Check the documents of a study against each other; `others` are pictures and other objects of its images."""
    parts = [(document, take_apart(document)) for document in documents]
    images = list(dict.fromkeys(image for _, its in parts for image in its.views))
    in_report = {line[1] for document, its in parts if document.kind is ResultKind.REPORT for line in its.lines}
    verdicts = []
    for image in images:
        views = [its.views[image] for _, its in parts if image in its.views]
        verdict = _voted(views)
        verdicts.append(verdict)
        _check_views(views, {}, verdict, flaws)
        for document, its in parts:
            if image not in its.views and document.kind is not ResultKind.KEY_OBJECT:
                objects.reporter(document.name, flaws)(Rule.SOURCE, "images")
    worst = next((each for each in _WORST_FIRST if each in verdicts), Verdict.INDETERMINATE)
    said = [(its.study, list(claims.of_study(its.study))) for _, its in parts]
    agreed = {**objects.agreed_on(said, {}), **claims.FIXED}
    judged = objects.judged([document for document, _ in parts])
    pictures = {objects.names(each)[2]: objects.names(each)[1] for each in others}
    for (document, its), (_, its_claims) in zip(parts, said, strict=True):
        report = objects.reporter(document.name, flaws)
        objects.check_object(document, report)
        _compare(its.study, its_claims, agreed, report)
        _check_said(its.study, worst, judged, report)
        _check_listed(document, its, in_report, pictures, report)
        if document.kind is ResultKind.REPORT:
            _check_numbering(document, its, in_report, report)
    objects.check_uids([document for document, _ in parts], None, flaws)


def _check_listed(
    document: Document, its: Parts, in_report: set[Named], pictures: Mapping[str, str], report: Report
) -> None:
    """Evidence and library have every image that the content leads to; `pictures` : series of each."""
    entries = listed(document.dataset, EVIDENCE)
    found = [claim for view in its.views.values() for claim in claims.of_view(view)]
    mentioned = (
        in_report | set(its.views) | set(its.library) | {each.value for each in found if each.about == "picture"}
    )
    if document.kind is ResultKind.KEY_OBJECT:
        mentioned = {item.value for item in document.content if item.value_type == "IMAGE"}
    misplaced = any(pictures.get(entry[3], entry[1]) != entry[1] for entry in entries)
    if misplaced or not mentioned <= {entry[2:] for entry in entries}:
        report(Rule.EVIDENCE, EVIDENCE)
    if not its.is_clear or (its.library and in_report and in_report != set(its.library)):
        report(Rule.LIBRARY, "Image Library")


def _check_numbering(document: Document, its: Parts, in_report: set[Named], report: Report) -> None:
    """Every image of the evidence has a line, and a number from 1; earlier ones stand elsewhere."""
    entries = listed(document.dataset, EVIDENCE)
    unlisted = {entry[2:] for entry in entries if not entry[3].startswith(_OURS)} - in_report
    numbers = [number for number, _, _ in its.lines]
    if unlisted or numbers != list(range(1, len(numbers) + 1)):
        report(Rule.SUMMARY, "Finding")
    elsewhere = {entry[2:] for entry in listed(document.dataset, _OTHER_EVIDENCE)}
    if {image for image, _ in its.previous} != elsewhere:
        report(Rule.EVIDENCE, _OTHER_EVIDENCE)


def _of_study(study: Study) -> dict[str, Any]:
    """What the part about the study must say."""
    study_uid, clock = study.source.ref.study_instance_uid, study.clock
    ours = study.devices[0].device_uid
    contributors = [plain(item) for item in equipment(study)]
    return claims.from_context(study.head) | {
        "offset": clock.offset,
        "contribution": clock.at.strftime("%Y%m%d%H%M%S.%f%z"),
        "moment": clock.at.strftime("%Y%m%d%H%M%S.%f"),
        "summary": study.summary,
        "judged": study.decisive.finding.target.finding,
        "other equipment": [each for each in contributors if each.get("DeviceUID") != ours],
        "evidence": sorted((study_uid, *member) for member in evidence(study)),
        **{
            f"description of {kind}": study.series_description(kind)
            for kind in (ResultKind.REPORT, ResultKind.MEASUREMENTS, ResultKind.KEY_OBJECT)
        },
        "right": True,
    }


def _line(study: Study, image: Context | NotAnalysed) -> tuple[int, Named, str]:
    of: Named = named(image)[1:]
    if isinstance(image, NotAnalysed):
        return study.numbers[of[1]], of, study_wording.not_analysed_line(image)
    return study.numbers[of[1]], of, study_wording.finding_line(image.finding)


def _check_images(
    document: Document, its: Parts, study: Study, listing: list[tuple[int, Named, str]], report: Report
) -> None:
    """Every image has its line, and stands in the library; the summary leads to what it is of."""
    every = [image for _, image, _ in listing]
    other = {each.sop_instance_uid for each in study.others}
    in_order = sorted(its.lines, key=lambda line: line[0] or 0)
    wanted = listing if document.kind is ResultKind.REPORT else [line for line in listing if line[1][1] in other]
    if in_order != wanted or not its.is_clear:
        report(Rule.SUMMARY, "Finding")
    has_region = any(image.regions for image in study.images)
    if document.kind is ResultKind.MEASUREMENTS and its.library != (every if has_region else []):
        report(Rule.LIBRARY, "Image Library")
    if document.kind is ResultKind.REPORT:
        if its.summary_of != [named(each)[1:] for each in study.images or study.others]:
            report(Rule.SOURCE, "Impression")
        before = [(named(each)[1:], _prior_line(each)) for each in study.priors]
        elsewhere = sorted((each.source.ref.study_instance_uid, *named(each)) for each in study.priors)
        if its.previous != before or sorted(listed(document.dataset, _OTHER_EVIDENCE)) != elsewhere:
            report(Rule.EVIDENCE, _OTHER_EVIDENCE)


def _prior_line(image: Context) -> str:
    day = copied_attributes.raw_text(image.source.dataset, "StudyDate").decode("ascii", "replace")
    return study_wording.prior_line(day, image.radiograph.view, image.finding)


def _check_key_images(document: Document, study: Study, report: Report) -> None:
    """A key object marks the positives alone, and their pictures."""
    marked = [item.value for item in document.content if item.value_type == "IMAGE"]
    wanted: list[Named] = []
    for image in study.images:
        if image.finding.decision.verdict is Verdict.POSITIVE:
            wanted.append(named(image)[1:])
            wanted += [(image.picture.sop_class_uid, image.picture.sop_instance_uid)] if image.has_picture else []
    if marked != wanted:
        report(Rule.SOURCE, "Key Object")


def _compare(document: Document, its: list[claims.Claim], agreed: Mapping[str, Any], report: Report) -> None:
    for claim in its:
        is_open = claim.about == "evidence" and document.kind is ResultKind.KEY_OBJECT  # of what it marks
        if not is_open and claim.about in agreed and claim.value != agreed[claim.about]:
            report(claim.rule, claim.where)
    if "summary" not in {claim.about for claim in its}:
        report(Rule.SUMMARY, "")


def _check_said(document: Document, verdict: Verdict, judged: str, report: Report) -> None:
    """No field about the study reads as another verdict, and one states it."""
    found = objects.statements(document, judged)
    single_field.contradictions(found, verdict, report)
    if not any(each.is_statement and each.says for each in found):
        report(Rule.VERDICT, "")


def _check_views(views: Sequence[Document], expected: Mapping[str, Any], verdict: Verdict, flaws: list[Flaw]) -> None:
    """What is said of one image in all documents: the same, and as much as must be said of it."""
    said = [(view, list(claims.of_view(view))) for view in views]
    agreed = {**objects.agreed_on(said, expected), **claims.FIXED, **expected}
    judged = agreed.get("judged") or objects.judged(list(views))
    for view, its in said:
        report = objects.reporter(view.name, flaws)
        for claim in its:
            if claim.value != agreed[claim.about]:
                report(claim.rule, claim.where)
        found = _statements(view, judged)
        single_field.contradictions(found, verdict, report)
        if not any(each.is_statement and each.says for each in found):
            report(Rule.VERDICT, "")
        missing = set(_THRESHOLDS.get(view.kind or ResultKind.HEATMAP, ())) - {claim.about for claim in its}
        for about in sorted(missing):
            report(Rule.THRESHOLD if about.startswith("threshold") else Rule.ALGORITHM, about)
    if views:
        objects.check_numbers(agreed, verdict, objects.reporter(views[0].name, flaws))


def _statements(view: Document, judged: str) -> list[single_field.FieldStatement]:
    """As everywhere; the line of an image states its verdict."""
    found = list(single_field.of_content(view.content, judged))
    for item in view.content:
        if item.value_type == "TEXT" and item.name[0] == "121071":
            found.append(single_field.FieldStatement(item.name[2], single_field.of_text(item.value, judged), True))
    return found


def _voted(views: Sequence[Document]) -> Verdict:
    votes: dict[Verdict, int] = defaultdict(int)
    judged = objects.judged(list(views))
    for view in views:
        for each in _statements(view, judged):
            if each.is_statement and len(each.says) == 1:
                votes[next(iter(each.says))] += 1
    return max(votes, key=lambda verdict: votes[verdict]) if votes else Verdict.INDETERMINATE
