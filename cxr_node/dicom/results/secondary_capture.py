"""The picture as a DICOM object: Secondary Capture, RGB, uncompressed; the one result that every viewer shows.

Color in compressed captures fails in some. No Pixel Spacing and no View Position, for neither is true of it. Modality
is that of the radiograph: over OT, OHIF lays a player. PS3.3 A.8.1, C.8.6.1, C.7.6.1, C.12.4 Derivation.
"""

from __future__ import annotations

from PIL import Image
from pydicom import Dataset
from pydicom.tag import Tag

from cxr_node.dicom.render import picture
from cxr_node.dicom.results import copied_attributes
from cxr_node.dicom.results.context import Context, finish, start
from cxr_node.dicom.results.sr_items import coded, reference
from cxr_node.dicom.words import codes
from cxr_node.outcome import Artifact
from cxr_node.result_kinds import ResultKind


def build_frames(context: Context) -> Artifact | None:
    """Make both frames of one radiograph; None where no map is shown."""
    if not context.shows_map:
        return None
    radiograph, finding, max_px = context.radiograph, context.finding, context.settings.max_heatmap_px
    looked, place = context.looked, context.place
    bare, mapped = (
        picture.draw(radiograph, finding, max_px, shows_map=True, looked=looked, place=place, bare=bare)
        for bare in (True, False)
    )
    dataset = describe(context, ResultKind.FRAMES)
    dataset.NumberOfFrames = 2
    dataset.FrameIncrementPointer = Tag("PageNumberVector")
    dataset.PageNumberVector = [1, 2]
    fill(dataset, bare, mapped)
    return finish(context, ResultKind.FRAMES, dataset)


def build(context: Context) -> Artifact | None:
    """Make the picture of one radiograph; None where a negative has none."""
    if not context.has_picture:
        return None
    drawn = picture.draw(
        context.radiograph,
        context.finding,
        context.settings.max_heatmap_px,
        shows_map=context.shows_map,
        looked=context.looked,
        place=context.place,
    )
    dataset = describe(context, ResultKind.HEATMAP)
    fill(dataset, drawn)
    return finish(context, ResultKind.HEATMAP, dataset)


def describe(context: Context, kind: ResultKind) -> Dataset:
    """All that is said of a picture, without its pixels."""
    dataset = start(context, kind)
    dataset.update(copied_attributes.patient_orientation(context.source.dataset))
    dataset.BodyPartExamined = "CHEST"
    dataset.ConversionType = "WSD"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.BurnedInAnnotation = "YES"
    dataset.RecognizableVisualFeatures = "NO"
    dataset.LossyImageCompression = lossy(context)
    _derive(dataset, context)
    return dataset


def _derive(dataset: Dataset, context: Context) -> None:
    ref = context.source.ref
    source = reference(ref.sop_class_uid, ref.sop_instance_uid)
    source.PurposeOfReferenceCodeSequence = [coded(codes.DCM.SourceImageForImageProcessingOperation)]
    dataset.SourceImageSequence = [source]
    if context.shows_map:
        finding, layer = context.finding.target.finding, context.finding.heatmap.layer
        dataset.DerivationDescription = f"Grad-CAM for {finding} at {layer}, overlaid on the source image"
        dataset.DerivationCodeSequence = [coded(codes.DCM.GradientWeightedClassActivation)]
    else:
        dataset.DerivationDescription = "Source image with the verdict of an algorithm outside it"


def fill(dataset: Dataset, *frames: Image.Image) -> None:
    """Image Pixel module (PS3.3 C.7.6.3); frames are of one size."""
    dataset.SamplesPerPixel = 3
    dataset.PhotometricInterpretation = "RGB"
    dataset.PlanarConfiguration = 0
    dataset.Columns, dataset.Rows = frames[0].size
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    stored = b"".join(frame.tobytes() for frame in frames)
    dataset.add_new("PixelData", "OB", stored + b"\0" * (len(stored) % 2))


def lossy(context: Context) -> str:
    """Lossy Image Compression of the source."""
    return copied_attributes.lossy(context.source.dataset, context.source.ref.transfer_syntax_uid)
