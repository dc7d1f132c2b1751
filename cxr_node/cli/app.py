"""What all commands share: the app, common options, and how errors are answered.

Exit codes: 0 well, 1 the command's work failed, 2 wrong use or data, 78 configuration (sysexits EX_CONFIG).
"""

from __future__ import annotations

import functools
import json
import logging
import sys
import warnings
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

import typer
import typer.core
from rich.console import Console

from cxr_node import __version__, process_setup
from cxr_node.errors import ConfigError, CxrNodeError, DataError, ForeignProfileError

if TYPE_CHECKING:
    from cxr_node.config.schema import Config

EX_CONFIG = 78
NEEDS_TORCH = "cxr-node: this command needs {name}, which is not installed: pip install 'cxr-node[torch]'"
_USERS = (DataError, ForeignProfileError)

ORDER = (
    *("demo", "doctor", "bench", "check", "serve", "receive", "work", "deliver", "web", "user", "status", "list"),
    *("counts", "trace", "retry", "set-aside", "now", "hold", "release", "forget", "resend", "rejudge", "admit"),
    *("shadow", "candidate", "promote", "erase", "rebuild"),
    *("agreement", "export-cases", "drift", "accept", "constancy", "replay", "export-log"),
    *("send", "classify", "verify", "conformance", "train", "evaluate", "compare", "calibrate", "import", "export"),
)
"""Of the commands in --help: the node first, then files, then how its classifier is made."""


class _InOrder(typer.core.TyperGroup):
    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # typer's own context
        return sorted(super().list_commands(ctx), key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


app = typer.Typer(
    cls=_InOrder,
    help="A DICOM node for chest-radiograph AI: receives, judges, explains, reports. Research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_UNBOUND = 10_000
"""Columns of a pipe: nothing is wrapped or cut for a program, nor for a person who copies a UID out of a file."""
out = Console(highlight=False, soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else _UNBOUND)
err = Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())

Params = ParamSpec("Params")
Result = TypeVar("Result")

ConfigFile = Annotated[
    Path,
    typer.Option("--config", "-c", envvar="CXR_NODE_CONFIG", help="Configuration file; every key: config/node.yaml."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")]


class Urgency(StrEnum):
    """`domain.Priority` in the words of the command line, which needs no numpy to read them."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


DEFAULT_CONFIG = Path("/etc/cxr-node/node.yaml")
"""Where the systemd units look."""


def answers_errors(command: Callable[Params, Result]) -> Callable[Params, Result]:
    """Print an expected error, one line each, and exit with its code; never a traceback."""

    @functools.wraps(command)
    def wrapped(*args: Params.args, **kwargs: Params.kwargs) -> Result:
        try:
            return command(*args, **kwargs)
        except CxrNodeError as error:
            for line in str(error).splitlines():
                err.print(f"cxr-node: {line}", markup=False)
            code = EX_CONFIG if isinstance(error, ConfigError) else 2 if isinstance(error, _USERS) else 1
            raise typer.Exit(code) from error
        except ModuleNotFoundError as error:
            if error.name not in ("torch", "torchvision", "matplotlib"):
                raise
            err.print(NEEDS_TORCH.format(name=error.name), markup=False, soft_wrap=True)
            raise typer.Exit(EX_CONFIG) from error
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    return wrapped


def command(name: str | None = None) -> Callable[[Callable[Params, Result]], Callable[Params, Result]]:
    """Register a command whose errors are answered."""

    def register(function: Callable[Params, Result]) -> Callable[Params, Result]:
        return app.command(name)(answers_errors(function))

    return register


def load_config(path: Path) -> Config:
    """Read the configuration, as `loader.load`; its schema takes longer to import than --help to print."""
    from cxr_node.config import loader

    return loader.load(path)


def config_of(content: dict[str, Any]) -> Config:
    """Check a configuration given as plain values, as `loader.parse`."""
    from cxr_node.config import loader

    return loader.parse(content)


def begin_serving(settings: Config, role: str) -> None:
    """Open the journal of a process that serves, count for `web`, and leave no memory on the disk after a crash."""
    from cxr_node.node.process import logs, metrics
    from cxr_node.node.spool.spool import make_folders

    logs.configure(form=settings.log.format, role=role)
    process_setup.leave_no_core()
    if role == "serve":
        metrics.clear(settings.spool.path)
    elif settings.web is not None:
        make_folders(settings.spool.path)
        senders = settings.web.stow.senders if settings.web.stow is not None else ()
        peers = {peer.ae_title for peer in settings.listen.peers} | {sender.name for sender in senders}
        metrics.begin(settings.spool.path, role, peers)


def say_json(value: Any) -> None:
    """One JSON object a line; past rich, which would wrap it and read brackets as markup."""
    print(json.dumps(value), flush=True)


def _silence_libraries(context: typer.Context) -> None:
    """Silence the logs and warnings of libraries, whatever levels and handlers they set.

    A command says what it found in its own words; a library may quote a patient's values. The services switch their
    journal on instead. Warnings that were made errors stay errors.
    """
    context.call_on_close(functools.partial(logging.disable, logging.root.manager.disable))
    logging.disable(logging.CRITICAL)
    context.call_on_close(functools.partial(setattr, warnings, "showwarning", warnings.showwarning))
    warnings.showwarning = lambda *_, **__: None


@app.callback(invoke_without_command=True)
def version(
    context: typer.Context, show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """A DICOM node for chest-radiograph AI. Research use only."""
    _silence_libraries(context)
    if show_version:
        out.print(f"cxr-node {__version__}")
        raise typer.Exit
