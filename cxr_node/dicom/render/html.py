"""Results as files that a person can open without a viewer: the report as HTML, the picture as PNG.

Made of the objects that were sent. No patient data: these files lie beside the objects, and travel more easily.
"""

from __future__ import annotations

import html
import io

from PIL import Image
from pydicom import Dataset, dcmread

from cxr_node.dicom.words import codes
from cxr_node.domain import Radiograph

_VERDICT_FIRST = codes.DCM.Impression.value


def report_html(content: bytes) -> str:
    """Render a report as an HTML fragment.

    `content` : Part 10 file of a structured report whose containers hold text (TID 2000)
    Returns one `article` element with a heading, a section per container, and the impression as its lead; escaped.
    """
    document = dcmread(io.BytesIO(content))
    sections = [item for item in document.ContentSequence if item.ValueType == "CONTAINER"]
    parts = [f"<h2>{_name(document)}</h2>", *(_section(item) for item in sections)]
    flags = f"{document.get('PreliminaryFlag', '')}, {document.get('VerificationFlag', '')}".lower()
    parts.append(f"<footer>{html.escape(flags)}</footer>")
    return '<article class="report">\n' + "\n".join(parts) + "\n</article>\n"


def picture_png(content: bytes) -> bytes:
    """Turn a heat map picture into PNG.

    `content` : Part 10 file of an uncompressed RGB secondary capture, 8 bits, color by pixel
    """
    dataset = dcmread(io.BytesIO(content))
    size = (int(dataset.Columns), int(dataset.Rows))
    picture = Image.frombytes("RGB", size, dataset.PixelData[: 3 * size[0] * size[1]])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)  # a third of the time, and a fifth more bytes
    return buffer.getvalue()


def document_pdf(content: bytes) -> bytes:
    """Take the page out of its DICOM object.

    Parameters
    ----------
    content : Part 10 file of an Encapsulated PDF that states the length of its document
    """
    dataset = dcmread(io.BytesIO(content))
    page: bytes = dataset.EncapsulatedDocument[: int(dataset.EncapsulatedDocumentLength)]
    return page


def radiograph_png(shown: Radiograph, longest_px: int) -> bytes:
    """Draw the radiograph as it was judged, reduced to `longest_px` on its longer side where it is larger."""
    picture = Image.fromarray((shown.pixels * 255.0).round().astype("uint8"))
    picture.thumbnail((longest_px, longest_px))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _section(container: Dataset) -> str:
    texts = [item for item in container.get("ContentSequence", ()) if item.ValueType == "TEXT"]
    if any(item.ConceptNameCodeSequence[0].CodeValue == _VERDICT_FIRST for item in texts):
        body = "\n".join(f'<p class="impression"><strong>{_text(item)}</strong></p>' for item in texts)
    else:
        body = "<ul>\n" + "\n".join(f"<li>{_text(item)}</li>" for item in texts) + "\n</ul>"
    return f"<section>\n<h3>{_name(container)}</h3>\n{body}\n</section>"


def _name(item: Dataset) -> str:
    return html.escape(str(item.ConceptNameCodeSequence[0].CodeMeaning))


def _text(item: Dataset) -> str:
    return html.escape(str(item.TextValue))
