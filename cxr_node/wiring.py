"""The configured profiles, and the classifiers that they make on this machine. Both are loaded when they are needed."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import TYPE_CHECKING

from cxr_node import __version__, process_setup, resources
from cxr_node.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from cxr_node.config.schema import Config
    from cxr_node.domain import Examination, Radiograph, Target
    from cxr_node.model.predictor import ProfilePredictor
    from cxr_node.model.profile import Profile
    from cxr_node.model.runtime import Company
    from cxr_node.node.ledger.ledger import Ledger
    from cxr_node.node.ledger.promotions import Promotion, Rivals
    from cxr_node.pipeline import Classifier, Predictor


def profiles(config: Config) -> list[Profile]:
    """Read the configured profiles.

    Raises
    ------
    ConfigError : one of them does not exist, or is not as it was released: the operator's to mend.
    """
    from cxr_node.model import profile, site_calibration

    names = (config.model.profile, *config.model.others)
    try:
        released = [profile.load(resources.profile_folder(name)) for name in names]
        return site_calibration.applied(released, config.model.site_calibrations)
    except ModelError as error:
        raise ConfigError(str(error)) from error


def candidate(config: Config) -> Profile | None:
    """Read the candidate; None: the configuration names none.

    Raises
    ------
    ConfigError : it cannot be read, is the live one, or judges another finding.
    """
    from cxr_node.model import profile

    if config.model.candidate is None:
        return None
    try:
        found = profile.load(resources.profile_folder(config.model.candidate))
        live = profile.load(resources.profile_folder(config.model.profile))
    except (ConfigError, ModelError) as error:
        raise ConfigError(f"model.candidate: {error}") from error
    if identity_sha256(found) == identity_sha256(live):
        raise ConfigError(f"model.candidate: {found.name} has the weights and the thresholds of model.profile")
    if found.target != live.target:
        raise ConfigError(f"model.candidate: {found.name} judges another finding than model.profile")
    return found


def identity_sha256(profile: Profile) -> str:
    """Digest of what a profile answers by: its weights, version and thresholds."""
    told = (profile.name, profile.version, profile.weights_sha256, profile.operating_point)
    return sha256(repr(told).encode()).hexdigest()


def agreed_sha256(config: Config) -> str:
    """Digest of rules and profiles that all machines of a node must have in common; equal whichever of two is live."""
    from cxr_node.model import profile

    def read(name: str) -> str:
        try:
            return identity_sha256(profile.load(resources.profile_folder(name)))
        except (ConfigError, ModelError):
            return name

    rivals = [config.model.profile, *([config.model.candidate] if config.model.candidate is not None else [])]
    told = (sorted(map(read, rivals)), [read(name) for name in config.model.others])
    return sha256(repr((__version__, config.admission.model_dump_json(), told)).encode()).hexdigest()


def rivals(config: Config) -> Rivals | None:
    """The two profiles of which one is live; None: there is no candidate.

    Raises
    ------
    ConfigError : as `candidate`.
    """
    from cxr_node.node.ledger.promotions import Rivals

    found = candidate(config)
    if found is None or config.model.candidate is None:
        return None
    return Rivals(
        profile=config.model.profile, candidate=config.model.candidate, candidate_sha256=identity_sha256(found)
    )


def promotion(config: Config, ledger: Ledger) -> Promotion | None:
    """Whether the candidate is live; a candidate that cannot be read is not."""
    from cxr_node.node.ledger import promotions

    with contextlib.suppress(ConfigError):
        named = rivals(config)
        return None if named is None else promotions.current(ledger, named)
    return None


def with_live_profile(config: Config, ledger: Ledger) -> Config:
    """The configuration as it answers now: where the candidate was promoted, the two have changed places."""
    if promotion(config, ledger) is None:
        return config
    swapped = {"profile": config.model.candidate, "candidate": config.model.profile}
    return config.model_copy(update={"model": config.model.model_copy(update=swapped)})


def targets(config: Config) -> dict[str, Target]:
    """What each configured profile judges, by the profile's name; a profile that cannot be read is left out.

    For views of the ledger, which must show what happened whatever became of the profiles.
    """
    from cxr_node.model import profile

    found = {}
    beside = [] if config.model.candidate is None else [config.model.candidate]
    for name in (config.model.profile, *config.model.others, *beside):
        with contextlib.suppress(ConfigError, ModelError):
            described = profile.described_in(resources.profile_folder(name))
            found[described.name] = described.named_target
    return found


def ledger(config: Config) -> Ledger:
    """Open the ledger of a node that has run.

    Raises
    ------
    ConfigError : there is none yet, or it cannot be used.
    ResourceError : its server does not answer.
    """
    from cxr_node.node.ledger.ledger import Ledger

    return Ledger.of_node(config, must_exist=True)


def predictor(
    profile: Profile, config: Config, *, for_one: bool = False, company: Company | None = None
) -> ProfilePredictor:
    """Load one profile's network, as the worker does; `for_one` answer with a shorter test.

    Raises
    ------
    ModelError : it does not work here.
    """
    from cxr_node.model.predictor import load_predictor

    process_setup.keep_freed()
    return load_predictor(profile, config.model.threads, config.model.runtime, for_one=for_one, company=company)


def _shared(loaded: ProfilePredictor) -> Predictor:
    """For any number of threads."""
    from cxr_node.model.predictor import BatchingPredictor

    return loaded if loaded.is_shared else BatchingPredictor(loaded)


def classifier(config: Config, company: Company | None = None) -> Classifier:
    """Load whoever answers: one predictor, or a panel of several. Threads may share it.

    Parameters
    ----------
    company : which images are in hand; None: nobody counts them

    Raises
    ------
    ConfigError, ModelError : as above.
    """
    from cxr_node import pipeline

    found = profiles(config)
    with ThreadPoolExecutor(len(found), "profile") as threads:  # half of it is one core's work
        loaded = list(threads.map(lambda each: _shared(predictor(each, config, company=company)), found))
    return pipeline.ProfileRouter(tuple(loaded)) if len(loaded) > 1 else loaded[0]


def on_demand(config: Config, *, for_one: bool = False) -> Classifier:
    """As `classifier`, but a network is loaded when the first radiograph of its patients comes, or never.

    Raises
    ------
    ConfigError : as above; ModelError comes with the first answer.
    """
    from cxr_node import pipeline

    loaded = [_OnDemand(each, config, for_one=for_one) for each in profiles(config)]
    return pipeline.ProfileRouter(tuple(loaded)) if len(loaded) > 1 else loaded[0]


class _OnDemand:
    """A predictor that is loaded when it is asked; threads may share it."""

    def __init__(self, profile: Profile, config: Config, *, for_one: bool) -> None:
        self._profile, self._config, self._for_one = profile, config, for_one
        self._loading = threading.Lock()
        self._loaded: Predictor | None = None

    @property
    def profile(self) -> Profile:
        """Whose it is."""
        return self._profile

    @property
    def batch(self) -> int:
        """How many at once pay."""
        return self._predictor().batch

    def examine(self, radiograph: Radiograph) -> Examination:
        """Predict and explain one radiograph."""
        return self._predictor().examine(radiograph)

    def _predictor(self) -> Predictor:
        with self._loading:
            if self._loaded is None:
                self._loaded = _shared(predictor(self._profile, self._config, for_one=self._for_one))
            return self._loaded
