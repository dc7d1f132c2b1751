"""Table of contents: read, admit, decode, examine, decide, report - in that order.

Part 10 bytes in, Outcome out. No I/O, no clock, no randomness: the same bytes, weights and configuration
give the same UIDs and the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from typing import Protocol

import numpy as np

from cxr_node import __version__, heatmap, times
from cxr_node.config.schema import Admission, Config
from cxr_node.dicom.part10 import quiet
from cxr_node.dicom.pixels import pixels
from cxr_node.dicom.read import admission, header
from cxr_node.dicom.results import (
    basic_text_sr,
    copied_attributes,
    key_object,
    measurement_sr,
    not_analysed_note,
    presentation_state,
    secondary_capture,
    segmentation,
)
from cxr_node.dicom.results.context import Context, stated_number
from cxr_node.dicom.verify import check
from cxr_node.domain import (
    NO_PRECEDENT,
    Examination,
    Finding,
    Measurement,
    ModelIdentity,
    Origin,
    Precedent,
    Radiograph,
    Reason,
    Verdict,
)
from cxr_node.errors import UndecodableError
from cxr_node.model.decision import decide
from cxr_node.model.profile import Profile
from cxr_node.outcome import (
    Answer,
    Artifact,
    Judgement,
    NotAnalysed,
    Outcome,
    Rejected,
    Reported,
)
from cxr_node.result_kinds import OF_ONE_IMAGE, ReportPer, ResultKind
from cxr_node.subgroups import Subgroup, age_band


def _page(context: Context) -> Artifact | None:
    from cxr_node.dicom.results import encapsulated_pdf  # fpdf2 and its fonts take 0.3 s

    return encapsulated_pdf.build(context)


BUILDERS: Mapping[ResultKind, Callable[[Context], Artifact | None]] = {
    ResultKind.REPORT: basic_text_sr.build,
    ResultKind.MEASUREMENTS: measurement_sr.build,
    ResultKind.HEATMAP: secondary_capture.build,
    ResultKind.PRESENTATION_STATE: presentation_state.build,
    ResultKind.SEGMENTATION: segmentation.build,
    ResultKind.FRAMES: secondary_capture.build_frames,
    ResultKind.KEY_OBJECT: key_object.build,
    ResultKind.PDF: _page,
}
"""Makers of the result objects, in the order in which they are made; None where one does not apply."""


class Predictor(Protocol):
    """What the pipeline needs of a classifier; `model.predictor` is the real one."""

    @property
    def profile(self) -> Profile:
        """Whose weights, population and operating point these are."""
        ...

    @property
    def batch(self) -> int:
        """How many radiographs it examines at once where several threads ask; 1 where that does not pay."""
        ...

    def examine(self, radiograph: Radiograph) -> Examination:
        """Predict and explain one radiograph."""
        ...


@dataclass(frozen=True, slots=True)
class ProfileRouter:
    """Several classifiers, each for a population of its own; the patient's age chooses.

    The first whose ages include the patient's answers; the first of all where the age is unknown or outside all of
    them, for the admission rules decide what happens then.
    """

    predictors: tuple[Predictor, ...]

    @property
    def profile(self) -> Profile:
        """The first one's."""
        return self.predictors[0].profile

    @property
    def batch(self) -> int:
        """The largest of theirs."""
        return max(predictor.batch for predictor in self.predictors)

    def for_age(self, age_years: float | None) -> Predictor:
        """Choose who answers for a patient of this age."""

        def covers(predictor: Predictor) -> bool:
            youngest, oldest = predictor.profile.population.age_years
            return age_years is not None and youngest <= math.floor(age_years) <= oldest

        return next((each for each in self.predictors if covers(each)), self.predictors[0])


Classifier = Predictor | ProfileRouter
During = Callable[[str], AbstractContextManager[object]]
"""Entered around each stage, by its name: for whoever measures, since the pipeline knows no clock."""


def unmeasured(_stage: str) -> AbstractContextManager[object]:
    """Measure nothing."""
    return nullcontext()


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """An analysed radiograph, before it is put into result objects."""

    source: header.Source
    radiograph: Radiograph
    finding: Finding
    measurement: Measurement | None = None

    @cached_property
    def header_sha256(self) -> str:
        """Of what the results carry over from the header, each of them; it takes longer than a report does."""
        return copied_attributes.header_sha256(self.source, self.radiograph)


def process(
    content: bytes,
    origin: Origin,
    classifier: Classifier,
    config: Config,
    precedent: Precedent = NO_PRECEDENT,
    during: During = unmeasured,
) -> Outcome:
    """Judge one received SOP Instance and make its result objects.

    Parameters
    ----------
    content : DICOM Part 10 file
    origin : who sent it and when; the results' content time is `origin.received_at`
    classifier : who answers, or several of whom the patient's age chooses one
    config : only `admission`, `results` and what the destinations want are read
    precedent : what is already known of its study and series
    during : entered around read, decode, examine and explain

    Raises
    ------
    ModelError : the classifier failed; the instance is not to blame.
    UnsoundResultError : the results break our own rules; a bug, and none of them is handed on.
    """
    analysis = judge(content, classifier, config, precedent, during)
    if isinstance(analysis, Rejected):
        return with_note(analysis, content, origin, config, precedent)
    with during("explain"):
        return report(analysis, origin, config, precedent)


def report(analysis: Analysis, origin: Origin, config: Config, precedent: Precedent = NO_PRECEDENT) -> Reported:
    """Make what the destinations want of an image alone, and what the report of its study needs of it.

    Raises
    ------
    UnsoundResultError : as `explain`.
    """
    for_study = config.kinds(ReportPer.STUDY)
    with quiet():  # once, not for each attribute that is read
        artifacts = explain(analysis, origin, config, precedent)
        pictures = explain(analysis, origin, config, kinds=for_study, per=ReportPer.STUDY)
        told = judgement(analysis, pictures) if for_study else None
    return Reported(
        finding=analysis.finding,
        artifacts=artifacts,
        pictures=pictures,
        judgement=told,
        subgroup=subgroup(analysis),
        answer=answer(analysis.finding),
        measurement=analysis.measurement,
    )


def subgroup(analysis: Analysis) -> Subgroup:
    """Among whom the ledger counts an analysed image."""
    age = analysis.source.age_years
    return Subgroup(view=analysis.radiograph.view, age_band=None if age is None else age_band(age))


def answer(finding: Finding) -> Answer:
    """Say what two profiles are compared by."""
    return Answer(
        profile=f"{finding.identity.profile} {finding.identity.version}",
        verdict=finding.target.word(finding.decision.verdict),
        abstain_reason=finding.decision.abstain_reason,
        score=finding.probability,
        distance=finding.prediction.distance,
        peak=heatmap.peak(finding.heatmap),
    )


def answer_beside(content: bytes, candidate: Predictor, config: Config) -> Answer:
    """Let a candidate judge an image that the live profile has answered; no result is made of it.

    Raises
    ------
    ModelError : it failed.
    """
    analysis = judge(content, candidate, config)
    if isinstance(analysis, Rejected):
        profile = candidate.profile
        named = f"{profile.name} {profile.version}"
        return Answer(profile=named, verdict=Verdict.REJECTED, reason=analysis.reason)
    return answer(analysis.finding)


def rules_sha256(classifier: Classifier, config: Config) -> str:
    """Digest of everything but the image that a refusal depends on: rules, and who could answer for which ages.

    With the version, which tells a site calibration: machines that share a ledger must answer by the same.
    """
    predictors = classifier.predictors if isinstance(classifier, ProfileRouter) else (classifier,)
    parts = [each.profile for each in predictors]
    profiles = [(each.weights_sha256, repr(each.population), each.version) for each in parts]
    return sha256(repr((__version__, config.admission.model_dump_json(), profiles)).encode()).hexdigest()


def judge(
    content: bytes,
    classifier: Classifier,
    config: Config,
    precedent: Precedent = NO_PRECEDENT,
    during: During = unmeasured,
) -> Analysis | Rejected:
    """Read, choose who answers, admit, decode, examine, decide."""
    with quiet():
        with during("read"):
            source = header.read(content)
        if isinstance(source, Rejected):
            return source
        predictor = classifier.for_age(source.age_years) if isinstance(classifier, ProfileRouter) else classifier
        radiograph = admit(source, predictor.profile, config.admission, precedent, during)
    if isinstance(radiograph, Rejected):
        return radiograph
    with during("examine"):
        examination = predictor.examine(radiograph)
    finding = conclude(examination, predictor.profile, config)
    return Analysis(source=source, radiograph=radiograph, finding=finding, measurement=examination.measurement)


def admit(
    source: header.Source, profile: Profile, rules: Admission, precedent: Precedent, during: During = unmeasured
) -> Rejected | Radiograph:
    """Check the header, then the pixels, and refuse what must not be judged."""
    refusal = admission.check_header(source, profile.population.age_years, rules, precedent)
    if refusal is not None:
        return refusal
    try:
        with during("decode"):
            radiograph = pixels.decode(source, rules)
    except UndecodableError as error:
        return Rejected(reason=Reason.UNREADABLE_PIXELS, sentence=str(error))
    ages = profile.population.age_years
    remarks = admission.remarks(source, ages, rules) + radiograph.remarks
    cautions = admission.cautions(source, ages, rules)
    return admission.check_pixels(radiograph) or replace(radiograph, remarks=remarks, cautions=cautions)


def with_note(rejected: Rejected, content: bytes, origin: Origin, config: Config, precedent: Precedent) -> Rejected:
    """Add how the report of its study lists it, and the note about it alone, where those may be made.

    Raises
    ------
    UnsoundResultError : our own check refuses the note.
    """
    if rejected.reason not in not_analysed_note.REASONS:
        return rejected
    source = header.read(content)
    if isinstance(source, Rejected) or not not_analysed_note.applies(source, rejected, precedent):
        return rejected
    rejected = replace(rejected, listed=not_analysed(source, rejected))
    if ResultKind.NOT_ANALYSED not in config.kinds(ReportPer.IMAGE) | config.kinds(ReportPer.STUDY):
        return rejected
    because = not_analysed_note.because(rejected)
    context = not_analysed_note.context_of(source, because, origin, config.results, config.answer_sha256)
    made = not_analysed_note.build(context, rejected)
    check.require_sound([made], context, rejected)
    return replace(rejected, artifacts=(made,))


def conclude(examination: Examination, profile: Profile, config: Config) -> Finding:
    """Judge what the predictor saw at the profile's operating point."""
    identity = ModelIdentity(
        profile=profile.name,
        version=profile.version,
        weights_sha256=profile.weights_sha256,
        config_sha256=config.answer_sha256,
        operating_point=profile.operating_point,
        calibration=profile.calibration,
        target=profile.target,
    )
    return Finding(
        prediction=examination.prediction,
        decision=decide(examination.prediction, profile.operating_point),
        heatmap=examination.heatmap,
        identity=identity,
    )


def explain(
    analysis: Analysis,
    origin: Origin,
    config: Config,
    precedent: Precedent = NO_PRECEDENT,
    kinds: frozenset[ResultKind] | None = None,
    per: ReportPer = ReportPer.IMAGE,
) -> tuple[Artifact, ...]:
    """Make the result objects that somebody wants; they name each other by UIDs that need no order of making.

    Parameters
    ----------
    kinds : None: what the destinations want of each image
    per : of a study only what each image has of its own is made; the rest follows in its report

    Raises
    ------
    UnsoundResultError : our own check refuses them; nothing of them may leave the house.
    """
    kinds = config.kinds(per) if kinds is None else kinds
    wanted = kinds if per is ReportPer.IMAGE else kinds & OF_ONE_IMAGE
    if not wanted:
        return ()
    context = Context(
        source=analysis.source,
        radiograph=analysis.radiograph,
        finding=analysis.finding,
        origin=origin,
        settings=config.results,
        kinds=kinds,
        precedent=precedent,
        zone=times.zone(config.results.time_zone),
        per=per,
        header_sha256=analysis.header_sha256,
    )
    made = (build(context) for kind, build in BUILDERS.items() if kind in wanted)
    artifacts = tuple(artifact for artifact in made if artifact is not None)
    check.require_sound(artifacts, context)
    return artifacts


def judgement(analysis: Analysis, pictures: tuple[Artifact, ...]) -> Judgement:
    """Keep what the report of the study needs of an image, without its pixels."""
    radiograph, finding = analysis.radiograph, analysis.finding
    rows, columns = radiograph.pixels.shape
    bare = replace(finding.heatmap, cells=np.empty((0, 0), np.float32))
    pages = [sha256(each.content).hexdigest() for each in pictures if each.kind is ResultKind.PDF]
    return Judgement(
        finding=replace(finding, heatmap=bare),
        rows=rows,
        columns=columns,
        pixel_aspect=radiograph.pixel_aspect,
        view=radiograph.view,
        remarks=radiograph.remarks,
        cautions=radiograph.cautions,
        pixel_digest=radiograph.pixel_digest,
        header_sha256=analysis.header_sha256,
        voi=radiograph.voi,
        results=tuple(each.ref for each in pictures),
        page_sha256=pages[0] if pages else None,
    )


def judge_prior(content: bytes, current: bytes, classifier: Classifier, config: Config) -> Judgement | Rejected:
    """Judge an earlier radiograph for the report of a study; no result is made of it alone.

    Parameters
    ----------
    content : what an archive sent as an earlier radiograph, with the header that it has there
    current : an image of the study

    Raises
    ------
    ModelError : the classifier failed; neither image is to blame.
    """
    source, of_study = header.read(content), header.read(current)
    if isinstance(source, Rejected):
        return source
    if isinstance(of_study, Rejected) or not admission.is_earlier(source, of_study):
        sentence = "It is no earlier radiograph of this patient."
        return Rejected(reason=Reason.IDENTITY_CONFLICT, sentence=sentence)
    analysis = judge(content, classifier, config)
    return analysis if isinstance(analysis, Rejected) else judgement(analysis, ())


def not_analysed(source: header.Source, rejected: Rejected) -> NotAnalysed:
    """How the report of its study lists an image that was refused."""
    series_number, instance_number = (stated_number(source, keyword) for keyword in ("SeriesNumber", "InstanceNumber"))
    return NotAnalysed(
        sop_class_uid=source.ref.sop_class_uid,
        sop_instance_uid=source.ref.sop_instance_uid,
        series_instance_uid=source.ref.series_instance_uid,
        series_number=series_number,
        instance_number=instance_number,
        reason=rejected.reason,
        sentence=rejected.sentence,
    )
