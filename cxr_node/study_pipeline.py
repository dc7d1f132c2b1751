"""The report of a study: put its images and what was said of them together, build, check.

As `pipeline`: no I/O, no clock, no randomness; and no pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from itertools import groupby

import numpy as np

from cxr_node import times
from cxr_node.config.schema import Config
from cxr_node.dicom.read import header
from cxr_node.dicom.results import (
    basic_text_sr,
    key_object,
    measurement_sr,
    not_analysed_note,
)
from cxr_node.dicom.results.context import Context
from cxr_node.dicom.results.study import Study, in_order, place
from cxr_node.dicom.verify import check
from cxr_node.domain import (
    Radiograph,
)
from cxr_node.errors import InstanceError
from cxr_node.messages import check as messages_check
from cxr_node.messages import fhir_bundle, oru
from cxr_node.outcome import (
    Artifact,
    Rejected,
    StudyCase,
    StudyImage,
    StudyReport,
)
from cxr_node.result_kinds import ReportPer, ResultKind

STUDY_BUILDERS: Mapping[ResultKind, Callable[[Study], Artifact | None]] = {
    ResultKind.REPORT: basic_text_sr.build,
    ResultKind.MEASUREMENTS: measurement_sr.build,
    ResultKind.KEY_OBJECT: key_object.build,
    ResultKind.HL7: oru.build,
    ResultKind.FHIR: fhir_bundle.build,
}
"""Those that a study has one of; the others are made of each image."""
WITHOUT_AN_ANSWER = frozenset({ResultKind.REPORT, ResultKind.HL7, ResultKind.FHIR})
"""Those that say so where no image of a study was analysed."""


def report_study(case: StudyCase, config: Config, kinds: frozenset[ResultKind] | None = None) -> StudyReport | None:
    """Make the report of a study: no pixels, no clock; the same images give the same bytes, in whichever order.

    Parameters
    ----------
    case : its images, each once or several times; of several versions of an image the newest counts
    config : only `results` and what the destinations want of a study are read
    kinds : None: what the destinations want of a study

    Returns
    -------
    None where there is nothing to say: no chest radiograph was looked at.

    Raises UnsoundResultError: our own check refuses it; nothing of it may leave the house.
    """
    kinds = config.kinds(ReportPer.STUDY) if kinds is None else kinds
    images = in_order(_context_of(*each, config, kinds) for each in _newest(case.images))
    known = {each.source.ref.sop_instance_uid for each in images}
    others = tuple({each.sop_instance_uid: each for each in case.others if each.sop_instance_uid not in known}.values())
    head = images[0] if images else _unanswered(case, config)
    if head is None:
        return None
    priors = _priors(case.priors, config, kinds)
    study = Study(head=head, images=images, others=others, earlier=case.earlier_reports, priors=priors)
    wanted = kinds if images else kinds & WITHOUT_AN_ANSWER
    made = (build(study) for kind, build in STUDY_BUILDERS.items() if kind in wanted)
    artifacts = tuple(artifact for artifact in made if artifact is not None)
    check.require_sound_study(artifacts, study)
    messages_check.require_sound(artifacts, study)
    return StudyReport(verdict=study.verdict, artifacts=artifacts)


def _context_of(image: StudyImage, source: header.Source, config: Config, kinds: frozenset[ResultKind]) -> Context:
    """Put an image and what was said of it together again; nothing of a report is made of its pixels."""
    told = image.judgement
    unseen = Radiograph(
        pixels=np.broadcast_to(np.float32(0), (told.rows, told.columns)),
        pixel_aspect=told.pixel_aspect,
        view=told.view,
        remarks=told.remarks,
        cautions=told.cautions,
        voi=told.voi,
        pixel_digest=told.pixel_digest,
    )
    return Context(
        source=source,
        radiograph=unseen,
        finding=told.finding,
        origin=image.origin,
        settings=config.results,
        kinds=kinds,
        zone=times.zone(config.results.time_zone),
        per=ReportPer.STUDY,
        made=told.results,
        page=image.page,
        header_sha256=told.header_sha256,
    )


def _newest(images: Iterable[StudyImage]) -> list[tuple[StudyImage, header.Source]]:
    """Of each SOP Instance its newest version, as it came first: a copy in another transfer syntax is no version.

    Raises
    ------
    InstanceError : a file cannot be read any more.
    """
    chosen: dict[str, tuple[StudyImage, header.Source]] = {}
    versions: set[tuple[str, str, str]] = set()
    for image in _as_they_came(images):
        source = header.read(image.content)
        if isinstance(source, Rejected):
            raise InstanceError(source.sentence)
        uid = source.ref.sop_instance_uid
        version = uid, image.judgement.pixel_digest, image.judgement.header_sha256
        if version not in versions:
            versions.add(version)
            chosen[uid] = image, source
    return list(chosen.values())


def _as_they_came(images: Iterable[StudyImage]) -> Iterator[StudyImage]:
    """Sort them by their receipt; only of equal moments the content, of which a digest takes long, decides."""
    by_moment = groupby(sorted(images, key=_moment), key=_moment)
    for several in (list(group) for _, group in by_moment):
        yield from several if len(several) == 1 else sorted(several, key=lambda each: sha256(each.content).digest())


def _moment(image: StudyImage) -> datetime:
    return image.origin.received_at


def _priors(images: Sequence[StudyImage], config: Config, kinds: frozenset[ResultKind]) -> tuple[Context, ...]:
    """Earlier radiographs, the newest study first."""
    found = in_order(_context_of(*each, config, kinds) for each in _newest(images))
    return tuple(sorted(found, key=lambda each: each.source.text("StudyDate"), reverse=True))


def _unanswered(case: StudyCase, config: Config) -> Context | None:
    """What the admission rules say of a study of which no image was analysed; None where none of it was looked at."""
    reasons = {each.sop_instance_uid: each.reason for each in case.others}
    if not ({None} | not_analysed_note.LOOKED_AT) & set(reasons.values()):
        return None
    found = []
    for content, origin in case.unanswered:
        source = header.read(content)
        if not isinstance(source, Rejected) and source.ref.sop_instance_uid in reasons:
            found.append((source, origin))
    if not found:
        return None
    last = max((origin for _, origin in found), key=lambda origin: origin.received_at)
    source = min((source for source, _ in found), key=place)
    because = f"no image of the study was analysed: {', '.join(sorted({str(each) for each in reasons.values()}))}"
    return not_analysed_note.context_of(
        source, because, last, config.results, config.answer_sha256, per=ReportPer.STUDY
    )
