"""A site's own calibration of a profile: thresholds, and a probability that holds there, beside those of the release.

It is laid over the profile's calibrated probability p: sigmoid(slope * logit(p) + intercept) is compared with the
thresholds of the site. Spread and distance are judged as before, on the profile's own scale, so what it sets aside is
set aside at the site too. The file is bound to weights and calibration by their digests, and the version tells of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import yaml
from pydantic import Field, model_validator

from cxr_node.domain import Scale
from cxr_node.errors import ModelError
from cxr_node.model.profile import GuaranteeFile, Profile, Strict, read, sha256

FORMAT = 1
_MARK_DIGITS = 8
_EDGE = 1e-12
"""A probability nearer to 0 or 1 counts as so far from it: its logit would be infinite."""
_HIGHEST = 700.0
"""Beyond, exp would overflow."""


class SiteCalibrationFile(Strict):
    """What `cxr-node calibrate --from-agreement` writes."""

    format: int = FORMAT
    profile: str
    version: str
    weights_sha256: str
    calibration_sha256: str
    """Of the profile's calibration.yaml, which made the probabilities that this was fitted on."""
    method: str
    fitted_on: str
    slope: float = Field(gt=0.0)
    intercept: float
    report_at: float = Field(ge=0.0, le=1.0)
    rule_out_below: float = Field(ge=0.0, le=1.0)
    guarantee: GuaranteeFile

    @model_validator(mode="after")
    def _can_be_used(self) -> SiteCalibrationFile:
        if self.format != FORMAT:
            raise ValueError(f"it is of format {self.format}; this version reads format {FORMAT}")
        if self.rule_out_below > self.report_at:
            raise ValueError("rule_out_below must not be more than report_at")
        return self


def applied(profiles: Iterable[Profile], files: Iterable[Path]) -> list[Profile]:
    """Lay each file over the profile that it names.

    Raises ModelError: a file cannot be read, is of other weights or another calibration, or of no configured profile.
    """
    laid: dict[str, tuple[SiteCalibrationFile, Path]] = {}
    there = list(profiles)
    for path in files:
        site = read(path, SiteCalibrationFile)
        if site.profile not in {profile.name for profile in there}:
            raise ModelError(f"{path} is of the profile {site.profile}, which is not configured")
        if site.profile in laid:
            raise ModelError(f"{path} is the second site calibration of {site.profile}")
        laid[site.profile] = site, path
    return [_over(each, *laid[each.name]) if each.name in laid else each for each in there]


def _over(profile: Profile, site: SiteCalibrationFile, path: Path) -> Profile:
    bound = (profile.version, profile.weights_sha256, profile.calibration_sha256)
    if bound != (site.version, site.weights_sha256, site.calibration_sha256):
        raise ModelError(
            f"{path} was fitted on another release of {profile.name}: it names version {site.version}, weights "
            f"{site.weights_sha256[:12]} and calibration {site.calibration_sha256[:12]}. Run cxr-node calibrate again."
        )
    if profile.operating_point.scale is Scale.SCORE:
        raise ModelError(f"{path}: {profile.name} answers with scores, which no calibration can be laid over")
    point = replace(profile.operating_point, name="site", report_at=site.report_at, rule_out_below=site.rule_out_below)
    return replace(
        profile,
        version=site_version(profile.version, path),
        operating_point=point,
        calibration=f"{site.method}, fitted on {site.fitted_on}; over: {profile.calibration}",
        site=(site.slope, site.intercept),
    )


def at_site(probability: float, slope: float, intercept: float) -> float:
    """What a profile's calibrated probability becomes at the site; with 1 / slope, -intercept / slope: the way back."""
    inside = min(max(probability, _EDGE), 1.0 - _EDGE)
    raised = slope * math.log(inside / (1.0 - inside)) + intercept
    return 1.0 / (1.0 + math.exp(-raised)) if raised > -_HIGHEST else 0.0


def site_version(version: str, path: Path) -> str:
    """The version that results and the ledger state under a site calibration."""
    return f"{version}+site.{sha256(path)[:_MARK_DIGITS]}"


def write(path: Path, content: SiteCalibrationFile) -> None:
    """Write a file. Raises ModelError: it cannot be written."""
    text = yaml.safe_dump(content.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise ModelError(f"{path} cannot be written: {error.strerror}") from error
