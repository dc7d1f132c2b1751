"""The page as a DICOM object: Encapsulated PDF (PS3.3 A.45.1, C.24.1, C.24.2, C.8.6.1).

The one result with burned-in identifiers: paper leaves the archive, and a page without them is nobody's or the wrong
one's. They are printed only where they can be read for certain.
"""

from __future__ import annotations

import io

from pydicom import Dataset, dcmread
from pydicom.charset import python_encoding

from cxr_node.dicom.render import pdf_page
from cxr_node.dicom.results import copied_attributes
from cxr_node.dicom.results.basic_text_sr import TITLE
from cxr_node.dicom.results.context import PRODUCT, Context, finish, start
from cxr_node.dicom.results.sr_items import coded, reference
from cxr_node.dicom.words import codes, wording
from cxr_node.outcome import Artifact
from cxr_node.result_kinds import ResultKind

_IDENTIFIERS = {
    "Patient": "PatientName",
    "Patient ID": "PatientID",
    "Born": "PatientBirthDate",
    "Study date": "StudyDate",
    "Accession": "AccessionNumber",
}
_ENCODINGS = {
    declared: python_encoding[declared]
    for declared in (
        "ISO_IR 100", "ISO_IR 101", "ISO_IR 109", "ISO_IR 110", "ISO_IR 126", "ISO_IR 144", "ISO_IR 148", "ISO_IR 192",
    )
}  # fmt: skip
"""Character sets that say of every byte what it is, and whose letters stand one after the other, left to right."""
_ESCAPE = b"\x1b"


def build(context: Context) -> Artifact:
    """Make the page of one radiograph."""
    ref = context.source.ref
    dataset = start(context, ResultKind.PDF)
    dataset.ConversionType = "WSD"
    dataset.AcquisitionDateTime = ""
    dataset.BurnedInAnnotation = "YES"
    dataset.RecognizableVisualFeatures = "NO"
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.DocumentTitle = wording.PAGE_TITLE
    dataset.ConceptNameCodeSequence = [coded(TITLE)]
    source = reference(ref.sop_class_uid, ref.sop_instance_uid)
    source.PurposeOfReferenceCodeSequence = [coded(codes.DCM.SourceImageForImageProcessingOperation)]
    dataset.SourceInstanceSequence = [source]
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    drawn = pdf_page.draw(_sheet(context))
    dataset.EncapsulatedDocumentLength = len(drawn)
    dataset.add_new("EncapsulatedDocument", "OB", drawn + b"\0" * (len(drawn) % 2))
    return finish(context, ResultKind.PDF, dataset)


def document(content: bytes) -> bytes:
    """Take the PDF out of an object of ours, without padding."""
    dataset = dcmread(io.BytesIO(content))
    pages: bytes = dataset.EncapsulatedDocument
    return pages[: dataset.EncapsulatedDocumentLength]


def _sheet(context: Context) -> pdf_page.Sheet:
    header = context.source.dataset
    return pdf_page.Sheet(
        radiograph=context.radiograph,
        finding=context.finding,
        identifiers={name: _legible(header, keyword) for name, keyword in _IDENTIFIERS.items()},
        source_uid=context.source.ref.sop_instance_uid,
        moment=context.moment,
        product=PRODUCT,
        shows_map=context.shows_map,
        looked=context.looked,
    )


def _legible(header: Dataset, keyword: str) -> str | None:
    """Value for print, "" where empty; None where its characters are not known for certain.

    Of a name the alphabetic group. Code extensions (PS3.5 6.1.2.5) and undeclared 8-bit bytes are not guessed.
    """
    raw = copied_attributes.raw_text(header, keyword).split(b"=")[0]
    declared = (
        copied_attributes.raw_text(header, "SpecificCharacterSet").decode("ascii", "replace").split("\\")[0].strip()
    )
    if _ESCAPE in raw:
        return None
    try:
        text = raw.decode(_ENCODINGS.get(declared, "ascii"))
    except UnicodeDecodeError:
        return None
    if keyword.endswith("Date") and len(text) == 8:  # DA, PS3.5 6.2
        text = f"{text[:4]}-{text[4:6]}-{text[6:]}"
    parts = text.split("^") if keyword == "PatientName" else [text]
    shown = ", ".join(part.strip() for part in parts if part.strip())
    return shown if pdf_page.is_printable(shown) else None
