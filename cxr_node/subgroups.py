"""Among whom an image is counted where the answers of a site are measured."""

from __future__ import annotations

from dataclasses import dataclass

from cxr_node.domain import View

AGE_BANDS = (0, 1, 3, 6, 18, 40, 60, 80)
"""First years of the bands in which the answers of a site are counted; a band is no identifier, an age may be."""


def age_band(age_years: float) -> str:
    """The band of an age, as "6 to 17", "0" or "80 and more"."""
    after = [band for band in AGE_BANDS if band > age_years]
    first = max((band for band in AGE_BANDS if band <= age_years), default=0)
    if not after:
        return f"{first} and more"
    return str(first) if after[0] - first == 1 else f"{first} to {after[0] - 1}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subgroup:
    """Among whom an image is counted where the answers of a site are measured; nothing of it names the patient."""

    view: View
    age_band: str | None
    """None: the header does not tell the age."""
