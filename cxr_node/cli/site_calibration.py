"""`cxr-node calibrate --from-agreement`: fit a site's own thresholds, show what they would have changed, write them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from cxr_node import resources
from cxr_node.cli.app import out, say_json
from cxr_node.cli.ledger import member, moment_since, opened, parsed
from cxr_node.config.schema import Config
from cxr_node.errors import DataError, ModelError

if TYPE_CHECKING:
    from datetime import datetime

    from cxr_node.assurance.agreement import Figures
    from cxr_node.assurance.site_effect import Effect, Labelled, Scored
    from cxr_node.model.profile import GuaranteeFile, Profile
    from cxr_node.model.site_calibration import SiteCalibrationFile
    from cxr_node.training.calibrate.guarantee import Wish

SHOWN_DAYS = 90
DEFAULT_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a user asks of the thresholds; None: as the profile promises, the prevalence as the reports have it."""

    ppv: float | None
    npv: float | None
    confidence: float | None
    prevalence: float | None

    def wish(self, promised: GuaranteeFile | None, measured: float) -> Wish:
        """Complete it. Raises DataError: nobody says which predictive values."""
        from cxr_node.training.calibrate.guarantee import Wish

        ppv, npv = self.ppv or (promised and promised.ppv), self.npv or (promised and promised.npv)
        if not ppv or not npv:
            raise DataError("say which predictive values the site wants: --ppv and --npv")
        confidence = self.confidence or (promised.confidence if promised else DEFAULT_CONFIDENCE)
        return Wish(ppv=ppv, npv=npv, confidence=confidence, prevalence=self.prevalence or measured)


def run(
    name: str, wanted: Wanted, out_file: Path | None, period: tuple[str, str], settings: Config, *, as_json: bool
) -> None:
    """Fit, show, and write where a file is named. Raises DataError: there is too little to promise anything on."""
    from cxr_node.assurance import agreement, site_effect
    from cxr_node.model import profile
    from cxr_node.node.ledger import readings

    since, by = period
    whose = parsed(lambda word: member(agreement.By, word), by, "--by") or agreement.By.REPORTS
    try:
        loaded = profile.load(resources.profile_folder(name))
        scored = _scored(loaded, settings)
    except ModelError as error:
        raise DataError(str(error)) from error
    with opened(settings) as ledger:
        now = ledger.now()
        begin = moment_since(since, now)
        found = agreement.cases(ledger, begin, by=whose)
        recent = now - timedelta(days=SHOWN_DAYS)
        studies = readings.answered(ledger, recent)
        lately = agreement.cases(ledger, recent, by=whose)
    rows = site_effect.labelled(found, scored)
    made = _fitted(loaded, rows, wanted, (begin, now))
    would = site_effect.effect(studies, lately, scored, _judge(made))
    if out_file is not None:
        _write(out_file, made)
    if as_json:
        say_json({"calibration": made.model_dump(mode="json"), "others": rows.others, "effect": would.as_json()})
        return
    _show(made, rows, would)
    if out_file is None:
        out.print("nothing is written: --out FILE writes it", markup=False)
    else:
        out.print(
            f"written: {out_file}; it is switched on by, in node.yaml, and a restart of the worker:", markup=False
        )
        out.print(f"  model: {{site_calibrations: [{out_file.absolute()}]}}", markup=False)


def _scored(loaded: Profile, settings: Config) -> Scored:
    """Answers of the release as it is, and under the site calibration that is configured now."""
    from cxr_node.assurance.site_effect import Scored
    from cxr_node.model import site_calibration
    from cxr_node.model.profile import read

    versions = {loaded.version: (1.0, 0.0)}
    for path in settings.model.site_calibrations:
        site = read(path, site_calibration.SiteCalibrationFile)
        if site.profile == loaded.name:
            versions[site_calibration.site_version(site.version, path)] = site.slope, site.intercept
    return Scored(loaded.name, versions)


def _fitted(loaded: Profile, rows: Labelled, wanted: Wanted, period: tuple[datetime, datetime]) -> SiteCalibrationFile:
    import numpy as np

    from cxr_node.model import profile
    from cxr_node.model.site_calibration import SiteCalibrationFile
    from cxr_node.training.calibrate import guarantee, site

    if not rows.probability:
        raise DataError(f"no study with a stated word was answered by {loaded.name} {loaded.version} in this period")
    studies = dict(zip(rows.groups, rows.positive, strict=True))
    promised = profile.read(loaded.folder / "calibration.yaml", profile.CalibrationFile).guarantee
    wish = wanted.wish(promised, sum(studies.values()) / len(studies))
    patients = guarantee.Patients(
        probability=np.array(rows.probability),
        positive=np.array(rows.positive),
        answerable=np.array(rows.answerable),
        groups=np.array(rows.groups),
    )
    done = site.fit(patients, wish, loaded.operating_point.label)
    first, last = (f"{moment:%Y-%m-%d}" for moment in period)
    return SiteCalibrationFile(
        profile=loaded.name,
        version=loaded.version,
        weights_sha256=loaded.weights_sha256,
        calibration_sha256=loaded.calibration_sha256,
        method=f"{site.METHOD}, for a prevalence of {wish.prevalence:.3g}",
        fitted_on=f"{len(rows.probability)} images of {len(studies)} studies with a stated reading, {first} to {last}",
        slope=done.slope,
        intercept=done.intercept,
        report_at=done.kept.report_at,
        rule_out_below=done.kept.rule_out_below,
        guarantee=profile.GuaranteeFile(
            **asdict(wish),
            positive_patients=done.kept.positives,
            negative_patients=done.kept.negatives,
            method=f"{guarantee.METHOD}; here a study",
        ),
    )


def _judge(made: SiteCalibrationFile) -> Any:
    from cxr_node.domain import Verdict
    from cxr_node.model.site_calibration import at_site

    def judge(probability: float) -> Verdict:
        there = at_site(probability, made.slope, made.intercept)
        if there >= made.report_at:
            return Verdict.POSITIVE
        return Verdict.NEGATIVE if there < made.rule_out_below else Verdict.INDETERMINATE

    return judge


def _write(path: Path, made: SiteCalibrationFile) -> None:
    from cxr_node.model import site_calibration

    try:
        site_calibration.write(path, made)
    except ModelError as error:
        raise DataError(str(error)) from error


def _show(made: SiteCalibrationFile, rows: Labelled, would: Effect) -> None:
    kept = made.guarantee
    out.print(f"{made.profile} {made.version}: fitted on {made.fitted_on}", markup=False)
    if rows.others:
        out.print(f"{rows.others} studies left out: another profile or version answered")
    out.print(
        f"promise: PPV at least {kept.ppv:g} and NPV at least {kept.npv:g}, with confidence {kept.confidence:g}, at a "
        f"prevalence of {kept.prevalence:.3g}, for studies like these ({kept.positive_patients} with, "
        f"{kept.negative_patients} without)",
        markup=False,
    )
    out.print(
        f"reported from {made.report_at:.4f}, ruled out below {made.rule_out_below:.4f}, of the site's probability"
    )
    out.print(_cross(would))
    out.print(_compared(would.before, would.after))


def _cross(would: Effect) -> Table:
    from cxr_node.assurance.site_effect import VERDICTS

    title = (
        f"last {SHOWN_DAYS} days: {would.changed} of {sum(would.images.values())} images would be answered otherwise"
    )
    table = Table("was", *(f"would be {each.name}" for each in VERDICTS), title=title, title_justify="left")
    for was in VERDICTS:
        table.add_row(was.name, *(str(would.images.get((was, now), 0)) for now in VERDICTS))
    return table


def _compared(before: Figures, after: Figures) -> Table:
    from cxr_node.assurance.agreement import SHARES

    title = "agreement of these days: on studies that it was fitted on, what is to come is flattered"
    table = Table("figure", "was", "would be", title=title, title_justify="left")
    for name, words in SHARES.items():
        if name != "prevalence":
            table.add_row(words, str(getattr(before, name)), str(getattr(after, name)))
    return table
