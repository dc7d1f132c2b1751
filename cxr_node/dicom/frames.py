"""The picture with and without its map, to page between: Multi-frame True Color Secondary Capture, two frames.

The words round the radiograph are the same in both, so that neither can be read without the verdict. Only where there
is a map to take away.

Clauses: PS3.3 A.8.5 Multi-frame True Color SC Image IOD, C.7.6.6 Multi-frame, C.8.6.3 SC Multi-frame Image,
C.8.6.4 SC Multi-frame Vector.
"""

from __future__ import annotations

from pydicom.tag import Tag

from cxr_node.dicom import capture, picture
from cxr_node.dicom.result import Context, finish
from cxr_node.domain import Artifact, ResultKind


def build_frames(context: Context) -> Artifact | None:
    """Make both frames of one radiograph; None where no map is shown."""
    if not context.shows_map:
        return None
    radiograph, finding, max_px = context.radiograph, context.finding, context.settings.max_heatmap_px
    bare, mapped = (
        picture.draw(radiograph, finding, max_px, shows_map=True, looked=context.looked, bare=bare)
        for bare in (True, False)
    )
    dataset = capture.describe(context, ResultKind.FRAMES)
    dataset.NumberOfFrames = 2
    dataset.FrameIncrementPointer = Tag("PageNumberVector")
    dataset.PageNumberVector = [1, 2]
    capture.fill(dataset, bare, mapped)
    return finish(context, ResultKind.FRAMES, dataset)
