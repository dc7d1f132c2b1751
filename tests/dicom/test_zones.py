"""Side and zone in words: the patient's side where the header tells it, the picture's where it does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cxr_node.dicom.words import zones
from cxr_node.dicom.words.zones import Sides
from cxr_node.domain import Place, Region, Zone
from tests import builders
from tests.dicom.contexts import CASES, Context, context, in_both_lungs

LINE = ((0.0, 0.0), (9.0, 0.0), (9.0, 9.0), (0.0, 0.0))


def region(place: Place | None, *covered: Zone) -> Region:
    return Region(outline=LINE, peak=(5.0, 2.0), weight=1.0, place=place, zones=covered)


def of(**header: Any) -> Context:
    return context(dataset=builders.radiograph(**header))


@pytest.mark.parametrize(
    ("header", "sides"),
    [
        ({"PatientOrientation": ["L", "F"]}, Sides.FACING),
        ({"PatientOrientation": ["R", "F"]}, Sides.MIRRORED),
        ({"PatientOrientation": ["LF", "FR"]}, Sides.FACING),
        ({"PatientOrientation": ["L", "H"]}, Sides.UNKNOWN),  # upside down
        ({"PatientOrientation": ["F", "L"]}, Sides.UNKNOWN),  # lying on its side
        ({"PatientOrientation": ["L"]}, Sides.UNKNOWN),
        ({"PatientOrientation": ["X", "F"]}, Sides.UNKNOWN),
        ({"PatientOrientation": None, "ViewPosition": "AP"}, Sides.ASSUMED),
        ({"PatientOrientation": "", "ViewPosition": "PA"}, Sides.ASSUMED),
        ({"PatientOrientation": None, "ViewPosition": "AP", "ImageLaterality": "R"}, Sides.UNKNOWN),
        (
            {"PatientOrientation": None, "ViewPosition": None, "ViewCodeSequence": None, "SeriesDescription": "Chest"},
            Sides.UNKNOWN,
        ),
    ],
)
def test_sides_are_what_the_header_tells(header: dict[str, Any], sides: Sides) -> None:
    assert zones.sides(of(**header).source) is sides


@pytest.mark.parametrize(
    ("place", "sides", "said"),
    [
        (Place.PICTURE_LEFT, Sides.FACING, "right upper zone"),
        (Place.PICTURE_RIGHT, Sides.FACING, "left upper zone"),
        (Place.PICTURE_LEFT, Sides.MIRRORED, "left upper zone"),
        (Place.PICTURE_RIGHT, Sides.MIRRORED, "right upper zone"),
        (Place.PICTURE_LEFT, Sides.ASSUMED, "right upper zone"),
        (Place.PICTURE_LEFT, Sides.UNKNOWN, "upper zone on the left of the picture"),
        (Place.PICTURE_RIGHT, Sides.UNKNOWN, "upper zone on the right of the picture"),
        (None, Sides.FACING, ""),
    ],
)
def test_a_side_is_the_patient_s_or_said_to_be_the_picture_s(place: Place | None, sides: Sides, said: str) -> None:
    assert zones.named(region(place, Zone.UPPER), sides) == said


def test_several_zones_and_places_make_one_sentence() -> None:
    whole = region(Place.PICTURE_LEFT, *Zone)
    two = region(Place.PICTURE_RIGHT, Zone.MIDDLE, Zone.LOWER)
    some = [whole, two, two, region(Place.BETWEEN), region(Place.OUTSIDE)]
    assert zones.sentence(some, Sides.FACING) == (
        "Areas the network looked at: right upper to lower zones, left middle and lower zones, between the lungs, "
        "outside the lungs."
    )
    assert zones.sentence([whole], Sides.ASSUMED).endswith("(sides assumed from standard hanging).")
    assert zones.sentence([region(Place.BETWEEN)], Sides.ASSUMED) == "Areas the network looked at: between the lungs."
    assert zones.sentence([whole, region(None)], Sides.FACING) == ""
    assert zones.sentence([], Sides.FACING) == ""


def test_only_a_pneumonia_says_where() -> None:
    assert in_both_lungs(context()).looked == (
        "Areas the network looked at: right lower zone, left upper and middle zones, outside the lungs."
    )
    for case in CASES:
        assert bool(context(case).looked) is (case == "pneumonia")


@pytest.mark.parametrize("case", CASES)
def test_a_map_is_shown_only_where_a_number_is_stated(case: str) -> None:
    shown = context(case).shows_map
    assert shown is (case in ("pneumonia", "between"))
    assert zones.is_gray(context(case).finding.decision) is (case not in ("pneumonia", "normal"))
    said = zones.lines("", context(case).finding.decision)
    assert said == (["No heat map is shown: there is no answer to explain."] if case in ("views", "unlike") else [])


def test_a_mirrored_film_names_the_other_side_everywhere() -> None:
    mirrored = of(PatientOrientation=["R", "F"])
    assert mirrored.places == ("left lower zone",)
    assert context().places == ("right lower zone",)
    assert replace(mirrored, finding=context("normal").finding).places == ()
