"""The DICOM conformance statement, written from the tables that the node runs on (PS3.2 Annex A layout).

Contexts, statuses, templates and attributes are read off the code and off result objects of a built-in drawn
radiograph; only sentences stand in the template. `docs/conformance.md` is compared with it byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, get_args

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from cxr_node import __version__, domain, pipeline, resources, study_pipeline
from cxr_node.config import loader
from cxr_node.config.destinations import STANDARD_KINDS, Hl7CharacterSet, Hl7Destination
from cxr_node.config.page import Stow, StowSender
from cxr_node.config.schema import Config
from cxr_node.dicom import from_picture, part10
from cxr_node.dicom.pixels import codecs, compress
from cxr_node.dicom.read import admission
from cxr_node.dicom.results import key_object, statement
from cxr_node.domain import (
    NO_BORDER,
    Examination,
    Heatmap,
    Origin,
    Place,
    Prediction,
    Radiograph,
    Region,
    ResultRef,
    Verdict,
    Zone,
)
from cxr_node.model import profile
from cxr_node.model.profile import Profile
from cxr_node.node.commitment import scu
from cxr_node.node.deliver import (
    dicomweb,
    dicomweb_answers,
    http_exchange,
    mllp,
    seen_again,
    storage_scu,
    ups_rs,
    worklist_loop,
)
from cxr_node.node.ledger import commitments, ripening
from cxr_node.node.network import association, failure_reasons, file_meta, pictures, statuses, tls
from cxr_node.node.network.statuses import Action
from cxr_node.node.priors import query, retrieve
from cxr_node.node.receive import listener, server, storage_scp
from cxr_node.node.receive.acse import Rejection
from cxr_node.node.worklists import ups_scu, workitem
from cxr_node.node.worklists.workitem import Said
from cxr_node.outcome import Artifact, Rejected, StudyCase, StudyImage
from cxr_node.result_kinds import DICOM_KINDS, SHAPES, ResultKind
from cxr_node.tools.drawn import BUILT_IN

SOURCE = BUILT_IN / "opacity-1.jpg"
VERIFICATION = "1.2.840.10008.1.1"
COMPRESSED = (pictures.JPEG, pictures.JPEG_LS, pictures.RLE)
"""Of pictures, as a whole installation proposes them by default."""
ATTRIBUTES = {"PatientAge": "003Y", "ViewPosition": "AP"}
OTHER_ATTRIBUTES = {
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1",
    "Modality": "CR",
    "LossyImageCompression": "00",
    "BodyPartExamined": "THORAX",
    "PatientOrientation": "L\\F",
    "ImageLaterality": "",
}
"""Of a second source: a value that it changes is not the same for every radiograph."""
SEVERAL, NOT_ONE = "several images", "no image analysed"
"""Cases that are no verdict: an image of each with a lateral, a prior and an earlier report; and a lateral alone."""
_EARLIER = {"StudyInstanceUID": "2.25.8", "StudyDate": "20240101", "StudyTime": "120000"}
_AT = datetime(2025, 1, 1, 12, tzinfo=UTC)
_SENDER = Origin(calling_ae_title="MODALITY", peer_host="127.0.0.1", received_at=_AT)
_DESTINATION = {
    "name": "pacs",
    "address": "PACS@127.0.0.1:104",
    "send": [kind.value for kind in DICOM_KINDS],
    "commitment_wait_h": 24,
}

_CONFIG: dict[str, Any] = {
    "spool": {"path": "/var/lib/cxr-node"},
    "destinations": [_DESTINATION],
    "priors": {"from": "pacs"},
    "worklists": [{"name": "orders", "address": "RIS@127.0.0.1:104", "workitem_code": "CXR-AI^99RIS^Chest AI"}],
    "results": {"time_zone": "UTC"},  # not the zone of the machine that writes the statement
}

ANSWERS = {
    statuses.SUCCESS: (
        "Success",
        "The bytes and their ledger row are on stable storage.",
        "Nothing: the node answers for it.",
    ),
    statuses.OUT_OF_RESOURCES: (
        "Refused: Out of Resources",
        "Free disk space is below the watermark, the object is larger than the limit, or it could not be stored.",
        "Send again later; an object above the limit gets the same answer.",
    ),
    statuses.MISMATCH: (
        "Error: Data Set does not match SOP Class",
        "SOP class or SOP Instance UID of the data set, the command and the presentation context differ.",
        "Mend the object.",
    ),
    statuses.CANNOT_UNDERSTAND: (
        "Error: Cannot understand",
        "There is no data set, or its header cannot be read.",
        "Mend the object.",
    ),
    statuses.INVALID_INSTANCE: (
        "Failure: Invalid SOP Instance",
        "The Affected SOP Instance UID is not a UID.",
        "Mend the object.",
    ),
}
"""Meaning, cause here, and what a sender should do, of every status that the Storage SCP answers."""
WEB_ANSWERS = {
    failure_reasons.CLASS_NOT_SUPPORTED: (
        "Referenced SOP Class not supported",
        "The SOP class is none of those in 4.2.1.3.",
        "Send it elsewhere.",
    ),
    failure_reasons.SYNTAX_NOT_SUPPORTED: (
        "Referenced Transfer Syntax not supported",
        "The transfer syntax is none of those in 4.2.1.3.",
        "Transcode it, for example to Explicit VR Little Endian.",
    ),
}
"""Likewise, of the Failure Reasons that only STOW-RS has."""
REPORT_ANSWERS = {
    statuses.SUCCESS: ("Success", "The report is in the ledger; also if it came before."),
    scu.NO_SUCH_EVENT_TYPE: ("No such event type", "The Event Type ID is neither 1 nor 2."),
    scu.INVALID_ARGUMENT: (
        "Invalid argument value",
        "The Transaction UID is missing, or this peer was never asked under it.",
    ),
    scu.RESOURCE_LIMITATION: ("Resource limitation", "The ledger cannot be written now: report again later."),
}
"""Meaning, and cause here, of every status that is answered to an N-EVENT-REPORT."""
REJECTIONS = {
    Rejection.CALLED_AE_TITLE: "called AE title not recognized: it is not ours",
    Rejection.CALLING_AE_TITLE: "calling AE title not recognized: no configured peer, or another host or certificate",
    Rejection.LOCAL_LIMIT: (
        "local limit exceeded: as many associations as configured are open, in all or of one host; or the node stops"
    ),
}
FATES = {
    Action.DELIVERED: "The delivery is settled.",
    Action.RETRY: "Tried again later with the same bytes.",
    Action.REFUSED: "DEAD at once: the same bytes would get the same answer. `cxr-node retry` revives it.",
}
UPS_FATES = {
    Said.REFUSED: (
        f"The item is read: if it has not ended, the same is asked again, {worklist_loop.MAX_REFUSALS} times in all; "
        "then it is passed over, or canceled."
    ),
    Said.NOT_OURS: "It is another performer's, and left alone.",
    Said.GONE: "It is left alone.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """A predictor that answers what a verdict needs: the statement is about objects, not about a radiograph."""

    profile: Profile
    probability: float
    distance: float = 0.0
    batch: int = 1

    def examine(self, radiograph: Radiograph) -> Examination:
        """Answer with a square region in the middle of the picture."""
        rows, columns = radiograph.pixels.shape
        top, bottom, left, right = rows // 4, rows // 2, columns // 4, columns // 2
        cells = np.zeros((4, 4), np.float32)
        cells[1, 1] = 1.0
        corners = ((left, top), (right, top), (right, bottom), (left, bottom), (left, top))
        outline = tuple((float(column), float(row)) for column, row in corners)
        region = Region(
            outline=outline, peak=(columns * 3 / 8, rows * 3 / 8), weight=1.0, place=Place.PICTURE_LEFT,
            zones=(Zone.MIDDLE,),
        )  # fmt: skip
        prediction = Prediction(
            probability=dict.fromkeys(self.profile.answered, self.probability), spread=0.0, distance=self.distance
        )
        label = self.profile.operating_point.label
        return Examination(
            prediction=prediction,
            heatmap=Heatmap(cells=cells, border=NO_BORDER, regions=(region,), label=label, layer="stated"),
        )


def write() -> str:
    """Write the statement as Markdown; the same code and bundled files give the same text."""
    environment = Environment(
        loader=PackageLoader("cxr_node", "templates"),
        autoescape=False,  # noqa: S701 - Markdown of our own words, never a page with somebody's input
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["hex"] = lambda value: f"0x{value:04X}"
    environment.filters["name"] = statement.name
    return environment.get_template("conformance.md").render(_facts())


def _facts() -> dict[str, Any]:
    config = loader.parse(_CONFIG)
    syntaxes = codecs.transfer_syntaxes()
    documents = _documents(config)
    others = _documents(config, **OTHER_ATTRIBUTES)
    results = [_result(kind, made, others.get(kind, {})) for kind, made in documents.items()]
    produced = sorted({sop_class for result in results for sop_class in result["sop_classes"]})
    return {
        "version": __version__,
        "config": config,
        "standard_kinds": {kind.value for kind in STANDARD_KINDS},
        "syntaxes": syntaxes,
        "received": sorted(
            server.supported([each.uid for each in syntaxes]), key=lambda uid: [*map(int, uid.split("."))]
        ),
        "radiographs": list(domain.STORAGE),
        "analysed": admission.SOP_CLASSES,
        "modalities": admission.MODALITIES,
        "verification": VERIFICATION,
        "positive": _profile(config).target.word(Verdict.POSITIVE),
        "produced": produced,
        "first_classes": storage_scu.SOP_CLASSES,
        "jpeg_quality": compress.QUALITY,
        "proposed": _by_class(storage_scu.proposed({*storage_scu.SOP_CLASSES, *produced}, COMPRESSED)),
        "answers": ANSWERS,
        "rejections": [(rejection.value, REJECTIONS[rejection]) for rejection in Rejection],
        "delivered": [(_masked(row), row.words, FATES[row.action], row.clause) for row in statuses.TABLE],
        "results": results,
        "carried": statement.carried(),
        "identity": {
            "results": (part10.IMPLEMENTATION_CLASS_UID, part10.IMPLEMENTATION_VERSION_NAME),
            "network": (file_meta.IMPLEMENTATION_CLASS_UID, file_meta.IMPLEMENTATION_VERSION_NAME),
        },
        "commitment": {
            "sop_class": scu.SOP_CLASS,
            "sop_instance": scu.SOP_INSTANCE,
            "syntaxes": scu.SYNTAXES,
            "answers": REPORT_ANSWERS,
            "never": scu.NEVER,
            "hopeless": commitments.HOPELESS,
            "asks": commitments.MAX_ASKS,
            "batch": commitments.BATCH,
            "longest_kib": storage_scp.MAX_INFORMATION_BYTES // 1024,
        },
        "web": {
            "accept": dicomweb.ACCEPT,
            "statuses": [(status, words, FATES[_fate(status)]) for status, words in dicomweb_answers.WORDS.items()],
            "longest_kib": http_exchange.MAX_ANSWER_BYTES // 1024,
            "first_s": seen_again.FIRST_S,
            "longest_s": seen_again.LONGEST_S,
            "asks": commitments.MAX_ASKS,
        },
        "stow": {
            "defaults": Stow(senders=(StowSender(name="SENDER", certificate=("any",)),)),
            "reasons": _reasons(),
            "meta_kib": file_meta.MAX_BYTES // 1024,
        },
        "hl7": {
            "character_sets": [each.value for each in Hl7CharacterSet],
            "processing_ids": get_args(Hl7Destination.model_fields["processing_id"].annotation),
            "longest_kib": mllp.MAX_ANSWER_BYTES // 1024,
        },
        "fhir": {"resources": _resources(config)},
        "titles": [f'({title.value}, DCM, "{title.meaning}")' for title in key_object.TITLES.values()],
        "study": config.study,
        "urgent_quiet_s": ripening.URGENT_QUIET_S,
        "priors": {
            "defaults": config.priors,
            "find": retrieve.FIND,
            "retrieve": retrieve.GET,
            "classes": query.SOP_CLASSES,
            "syntaxes": (association.EXPLICIT, association.IMPLICIT),
            "answers": retrieve.MAX_ANSWERS,
        },
        "ups": {
            "pull": ups_scu.PULL,
            "push": ups_scu.PUSH,
            "syntaxes": (association.EXPLICIT, association.IMPLICIT),
            "defaults": config.worklists[0],
            "answers": ups_scu.MAX_ANSWERS,
            "read": workitem.READ,
            "images": workitem.MAX_IMAGES,
            "classes": workitem.RADIOGRAPHS,
            "reasons": workitem.REASONS,
            "statuses": ups_scu.STATUSES,
            "fates": UPS_FATES,
            "json": ups_rs.JSON,
            "rs_answers": ups_rs.MAX_ANSWERS,
            "rs_refused": ups_rs.REFUSED,
            "ways": ups_rs.TRANSACTION,
        },
        "limits": {
            "artim_s": listener.ARTIM_S,
            "handshake_s": listener.HANDSHAKE_S,
            "grace_s": server.GRACE_S,
            "max_pdu_bytes": association.MAX_PDU_BYTES,
            "ciphers": tls.CIPHERS,
        },
    }


def _reasons() -> dict[int, tuple[str, str, str]]:
    """What a STOW-RS response says of an instance that was not stored."""
    failures = {status: words for status, words in ANSWERS.items() if failure_reasons.reason(status) == status}
    return {status: words for status, words in failures.items() if status != statuses.SUCCESS} | WEB_ANSWERS


def _resources(config: Config) -> list[str]:
    """Kinds of resources in the Bundle of a study, in their order."""
    of = _profile(config)
    image, _ = _image(Stated(profile=of, probability=of.operating_point.report_at), config, ATTRIBUTES, 1)
    made = study_pipeline.report_study(StudyCase(images=(image,)), config, frozenset({ResultKind.FHIR}))
    if made is None:
        raise ValueError("there is nothing to say of the built-in radiograph")
    entries = json.loads(made.artifacts[0].content)["entry"]
    return [entry["resource"]["resourceType"] for entry in entries]


def _profile(config: Config) -> Profile:
    return profile.load(resources.profile_folder(config.model.profile))


def _documents(config: Config, **attributes: str) -> dict[ResultKind, dict[str, Artifact]]:
    """Result objects of studies of one image with every verdict, and of one of several, by kind, then by case."""
    of = _profile(config)
    point = of.operating_point
    between = (point.rule_out_below + point.report_at) / 2
    cases = {
        of.target.word(Verdict.POSITIVE): Stated(profile=of, probability=(point.report_at + 1) / 2),
        "NORMAL": Stated(profile=of, probability=point.rule_out_below / 2),
        "UNCERTAIN": Stated(profile=of, probability=between),
        "UNCERTAIN (no certainty)": Stated(profile=of, probability=between, distance=2 * (point.max_distance or 1.0)),
    }
    told = ATTRIBUTES | attributes
    found: dict[ResultKind, dict[str, Artifact]] = {}

    def keep(case: str, *artifacts: Artifact) -> None:
        for artifact in artifacts:
            found.setdefault(artifact.kind, {})[case] = artifact

    images = []
    for number, (case, predictor) in enumerate(cases.items(), 1):
        image, pictures = _image(predictor, config, told | {"InstanceNumber": str(number)}, number)
        images.append(image)
        keep(case, *_report(StudyCase(images=(image,)), config), *pictures)
    content, lateral = _lateral(config, told)
    keep("REJECTED", *lateral.artifacts)
    listed = () if lateral.listed is None else (lateral.listed,)
    prior, _ = _image(cases["NORMAL"], config, told | _EARLIER, len(cases) + 1)
    several = StudyCase(
        images=tuple(images),
        others=listed,
        priors=(prior,),
        earlier_reports=(_refs(_report(StudyCase(images=(images[0],)), config)),),
    )
    keep(SEVERAL, *_report(several, config))
    keep(NOT_ONE, *_report(StudyCase(images=(), others=listed, unanswered=((content, _SENDER),)), config))
    return dict(sorted(found.items(), key=lambda item: SHAPES[item[0]].series_number))


def _image(
    predictor: Stated, config: Config, attributes: Mapping[str, str], number: int
) -> tuple[StudyImage, tuple[Artifact, ...]]:
    """Judge an image of the one study; with its pictures."""
    content = from_picture.wrap(SOURCE, **{"SOPInstanceUID": f"2.25.{number}", **attributes})
    outcome = pipeline.process(content, _SENDER, predictor, config)
    if isinstance(outcome, Rejected) or outcome.judgement is None:
        raise ValueError("the built-in radiograph was not analysed")
    return StudyImage(content=content, origin=_SENDER, judgement=outcome.judgement), outcome.pictures


def _lateral(config: Config, attributes: dict[str, str]) -> tuple[bytes, Rejected]:
    predictor = Stated(profile=_profile(config), probability=0.0)
    content = from_picture.wrap(SOURCE, **attributes | {"ViewPosition": "LL", "SOPInstanceUID": "2.25.9"})
    outcome = pipeline.process(content, _SENDER, predictor, config)
    if not isinstance(outcome, Rejected):
        raise ValueError("a lateral radiograph was analysed")
    return content, outcome


def _report(case: StudyCase, config: Config) -> tuple[Artifact, ...]:
    made = study_pipeline.report_study(case, config)
    if made is None:
        raise ValueError("there is nothing to say of the built-in radiograph")
    return made.artifacts


def _refs(artifacts: Iterable[Artifact]) -> tuple[ResultRef, ...]:
    return tuple(each.ref for each in artifacts)


def _result(kind: ResultKind, made: Mapping[str, Artifact], others: Mapping[str, Artifact]) -> dict[str, Any]:
    shape, first = SHAPES[kind], next(iter(made.values()))
    documents = {case: artifact.content for case, artifact in made.items()}
    more = {f"{case}, another source": artifact.content for case, artifact in others.items()}
    return {
        "kind": kind.value,
        "standard": kind in STANDARD_KINDS,
        "sop_classes": [artifact.sop_class_uid for artifact in (first, *first.alternatives)],
        "series_number": shape.series_number,
        "modality": shape.modality or "of the source",
        "verdicts": ", ".join(documents),
        "tree": statement.content_tree(documents) if shape.modality in ("SR", "KO") else (),
        "attributes": statement.generated(documents | more),
    }


def _by_class(proposed: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for sop_class, syntax in proposed:
        found.setdefault(sop_class, []).append(syntax)
    return found


def _fate(status: int) -> Action:
    return Action.REFUSED if status in dicomweb_answers.REFUSED else Action.RETRY


def _masked(row: statuses.StatusRule) -> str:
    """Status with x for the digits that do not matter: 0xA7xx."""
    digits = zip(f"{row.value:04X}", f"{row.mask:04X}", strict=True)
    return "0x" + "".join(digit if mask == "F" else "x" for digit, mask in digits)
