"""Reads a configuration file: YAML that only trusted accounts may write, without secrets. Imports no room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cxr_node.config import consistency, loader, permissions, strict_yaml
from cxr_node.config.schema import Config
from cxr_node.errors import ConfigError


def load(path: Path) -> Config:
    """Read a configuration file.

    Raises
    ------
    ConfigError : with one line per mistake, each naming the file and the key's path.
    """
    return parse(loader.read(path), str(path))


def parse(content: dict[str, Any], source: str = "configuration") -> Config:
    """Check a configuration given as plain values.

    Raises
    ------
    ConfigError : with one line per mistake.
    """
    try:
        config = Config.model_validate(content)
    except ValidationError as error:
        raise ConfigError(
            [f"{source}: {strict_yaml.sentence(item, Config, content)}" for item in error.errors()]
        ) from error
    if refused := list(consistency.refused(config)):
        raise ConfigError([f"{source}: {sentence}" for sentence in refused])
    return config


def read(path: Path) -> dict[str, Any]:
    """Read a file as plain values.

    Raises
    ------
    ConfigError : it cannot be read, it has a duplicate key or a secret, or everyone may write it.
    """
    try:
        content = strict_yaml.load(permissions.unchanged_by_others(path).read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not YAML: it is not UTF-8") from error
    except strict_yaml.TwiceError as error:
        raise ConfigError([f"{path}: {sentence}" for sentence in error.sentences]) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not YAML: {_place(error)}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: is not a mapping; see config/node.yaml for every key")
    if secrets := list(permissions.exposed(content)):
        raise ConfigError([f"{path}: {sentence}" for sentence in secrets])
    return content


def _place(error: yaml.YAMLError) -> str:
    """Where the error is, without the lines around it: one may be a secret."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem or error.context}"
    return " ".join(str(error).split())
