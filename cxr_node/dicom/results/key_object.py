"""The mark on an image that somebody should look at: Key Object Selection, for a positive only.

It is read as "look here", so there is none for a negative or where the algorithm abstains. TID 2010 gives the images no
purpose of reference: highdicom's is taken out, and the language of the text put in.
PS3.3 A.35.4, C.17.6; PS3.16 TID 2010, TID 1002, TID 1004, CID 7010.
"""

from __future__ import annotations

from cxr_node.config.triage import KeyObjectTitle
from cxr_node.dicom.results import copied_attributes, encoder, highdicom_adapter, sr_items
from cxr_node.dicom.results.basic_text_sr import ENGLISH
from cxr_node.dicom.results.context import PRODUCT, Context, finish, start
from cxr_node.dicom.results.sr_items import Relation
from cxr_node.dicom.results.study import Study, about
from cxr_node.dicom.words import codes
from cxr_node.domain import Verdict
from cxr_node.outcome import Artifact
from cxr_node.result_kinds import ResultKind

TITLES = {
    KeyObjectTitle.OF_INTEREST: codes.DCM.OfInterest,
    KeyObjectTitle.FOR_REFERRING_PROVIDER: codes.DCM.ForReferringProvider,
    KeyObjectTitle.FOR_PEER_REVIEW: codes.DCM.ForPeerReview,
    KeyObjectTitle.FOR_RESEARCH: codes.DCM.ForResearch,
}


def build(of: Context | Study) -> Artifact | None:
    """Mark every positive radiograph, each before its picture where there is one; None unless one is positive."""
    study = about(of)
    if study.verdict is not Verdict.POSITIVE:
        return None
    import highdicom

    header, first = start(study, ResultKind.KEY_OBJECT), study.decisive
    images = []
    for image in study.images:
        if image.finding.decision.verdict is Verdict.POSITIVE:
            images.append(highdicom_adapter.source_image(image))
            images += [highdicom_adapter.picture(image)] if image.has_picture else []
    device = highdicom.sr.DeviceObserverIdentifyingAttributes(first.device_uid, f"{PRODUCT}, {first.model_name}")
    observer = highdicom.sr.ObserverContext(highdicom_adapter.concept(codes.DCM.Device), device)
    triage = first.settings.triage
    title = TITLES[KeyObjectTitle.OF_INTEREST if triage is None else triage.key_object_title]
    content = highdicom.ko.KeyObjectSelection(
        highdicom_adapter.concept(title), images, observer_device_context=observer, description=study.summary
    )
    built = highdicom.ko.KeyObjectSelectionDocument(images, content, **highdicom_adapter.arguments(header))
    dataset = highdicom_adapter.under(header, built)
    source = study.source
    if requests := copied_attributes.requests(source.dataset, source.ref.study_instance_uid):
        dataset.ReferencedRequestSequence = requests
    dataset.ContinuityOfContent = "SEPARATE"
    language = sr_items.code(Relation.HAS_CONCEPT_MOD, codes.DCM.LanguageOfContentItemAndDescendants, ENGLISH)
    children = dataset.ContentSequence
    for child in children:
        if child.ValueType == "IMAGE":
            del child.ConceptNameCodeSequence
    items = [language, *(encoder.item(encoder.to_bytes(child)) for child in children)]
    element = sr_items.encoded("ContentSequence", b"".join(items))
    dataset[element.tag] = element
    return finish(study, ResultKind.KEY_OBJECT, dataset)
