"""The configured profiles, and the classifiers that they make on this machine. Both are loaded when they are needed."""

from __future__ import annotations

import contextlib
import ctypes
from typing import TYPE_CHECKING

from cxr_node import shipped
from cxr_node.config import Config
from cxr_node.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from cxr_node.model.predictor import ProfilePredictor
    from cxr_node.model.profile import Profile
    from cxr_node.pipeline import Classifier

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT_BYTES = 256 * 1024 * 1024
_LARGEST_BYTES = 32 * 1024 * 1024
"""The most that mallopt(3) takes: what is larger than this is asked of the system each time."""


def profiles(config: Config) -> list[Profile]:
    """Read the configured profiles.

    Raises
    ------
    ConfigError : one of them does not exist, or is not as it was released: the operator's to mend.
    """
    from cxr_node.model import profile

    names = (config.model.profile, *config.model.others)
    try:
        return [profile.load(shipped.profile_folder(name)) for name in names]
    except ModelError as error:
        raise ConfigError(str(error)) from error


def predictor(profile: Profile, config: Config) -> ProfilePredictor:
    """Load one profile's network, as the worker does.

    Raises
    ------
    ModelError : it does not work here.
    """
    from cxr_node.model.predictor import load_predictor

    keep_freed_memory()
    return load_predictor(profile, config.model.threads, config.model.runtime)


def keep_freed_memory() -> None:
    """Let the C library (glibc) keep what one image freed for the next one.

    By itself it gives tens of megabytes back to the system after every image, and to be given them again costs 4 to 10
    of 70 ms of CPU (measured: 1,700 to 4,300 page faults an image; 2 with this). The most that is held stays the same.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_BYTES)


def classifier(config: Config) -> Classifier:
    """Load whoever answers: one predictor, or a panel of several. Threads may share it.

    Raises
    ------
    ConfigError, ModelError : as above.
    """
    from cxr_node import pipeline
    from cxr_node.model.gathered import Gathered

    loaded = [Gathered(predictor(each, config)) for each in profiles(config)]
    return pipeline.Panel(tuple(loaded)) if len(loaded) > 1 else loaded[0]
