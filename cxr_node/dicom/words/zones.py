"""Side and zone of regions in words, said only as where the network looked, and only as far as they are known.

Which side of the patient a side of the picture is, Patient Orientation tells (PS3.3 C.7.6.1.1.1); without it, but with
PA or AP, the film is taken to hang as films do, and the words say so. On less, no side of the patient is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

from cxr_node.dicom.read.header import Source
from cxr_node.dicom.words import wording
from cxr_node.domain import AbstainReason, Decision, Place, Region, Verdict, View

PREFIX = "Areas the network looked at: "
ASSUMED = " (sides assumed from standard hanging)"
_LEGEND_GRAY = "Gray: where the network looked."
_GRAY_LIMITS = "No answer is based on it. Not the outline of a lesion."
_NOT_STATED = "No heat map is shown: there is no answer to explain."
_UNPAIRED = {Place.BETWEEN: "between the lungs", Place.OUTSIDE: "outside the lungs"}


class Sides(Enum):
    """How the picture's sides are the patient's."""

    FACING = auto()  # the patient's right is the picture's left, as radiographs hang
    MIRRORED = auto()
    ASSUMED = auto()  # as FACING, by custom
    UNKNOWN = auto()


def sides(source: Source) -> Sides:
    """Read the sides off the header; UNKNOWN where it does not tell them, or contradicts itself."""
    directions = [part.strip().upper() for part in source.text("PatientOrientation").split("\\")]
    if any(directions):
        row, column = [*directions, ""][:2]  # where columns and rows grow to
        if len(directions) != 2 or column[:1] != "F":
            return Sides.UNKNOWN
        return {"L": Sides.FACING, "R": Sides.MIRRORED}.get(row[:1], Sides.UNKNOWN)
    one_lung = {source.text(keyword).upper() for keyword in ("Laterality", "ImageLaterality")} & {"L", "R"}
    return Sides.UNKNOWN if source.view is View.UNKNOWN or one_lung else Sides.ASSUMED


def named(region: Region, of: Sides) -> str:
    """Name the place of a region, "right upper and middle zones"; "" where it is not known."""
    if region.place is None:
        return ""
    if region.place in _UNPAIRED:
        return _UNPAIRED[region.place]
    zones = " and ".join(str(zone) for zone in region.zones)
    if len(region.zones) > 2:
        zones = f"{region.zones[0]} to {region.zones[-1]}"
    zones = f"{zones} zone{'s' if len(region.zones) > 1 else ''}".strip()
    left = region.place is Place.PICTURE_LEFT
    if of is Sides.UNKNOWN:
        return f"{zones} on the {'left' if left else 'right'} of the picture"
    return f"{'left' if left is (of is Sides.MIRRORED) else 'right'} {zones}"


def of_region(place: str) -> str:
    """Say of one region where it lies."""
    return f"Where the network looked: {place}."


def sentence(regions: Sequence[Region], of: Sides) -> str:
    """Say where the network looked; "" where that is not known, or nothing stands out."""
    names = list(dict.fromkeys(named(region, of) for region in regions))
    if not names or "" in names:
        return ""
    told = of is Sides.ASSUMED and any(region.place not in _UNPAIRED for region in regions)
    return joined(names, ASSUMED if told else "")


def joined(names: Sequence[str], remark: str = "") -> str:
    """Make one sentence of the places of regions."""
    return f"{PREFIX}{', '.join(dict.fromkeys(names))}{remark}."


def names_in(looked: str) -> list[str]:
    """Take the places out of a sentence again; places that are alike stand in it once."""
    return looked.removeprefix(PREFIX).removesuffix(".").removesuffix(ASSUMED).split(", ")


def lines(looked: str, decision: Decision) -> list[str]:
    """Lines of a report on where the network looked: the places, or that a doubt of the image shows no map."""
    if decision.abstain_reason not in (None, AbstainReason.BETWEEN_THRESHOLDS):
        return [no_map(decision)]
    return [looked] if looked else []


def no_map(decision: Decision) -> str:
    """Say why there is no map."""
    return wording.NO_MAP if decision.abstain_reason in (None, AbstainReason.BETWEEN_THRESHOLDS) else _NOT_STATED


def legend(decision: Decision) -> tuple[str, ...]:
    """Say what the colors of the map mean, or its gray, in lines; the first stands beside them."""
    return (_LEGEND_GRAY, _GRAY_LIMITS) if is_gray(decision) else (wording.LOOKED,)


def is_gray(decision: Decision) -> bool:
    """Whether the map is drawn without color: where no answer rests on it."""
    return decision.verdict is Verdict.INDETERMINATE


def caption(decision: Decision) -> str:
    """Say under a printed map what it shows."""
    return f"{_LEGEND_GRAY} No answer is based on it." if is_gray(decision) else wording.MAP_CAPTION
