"""Commands of the page: `web` runs it, `user` says who may see it; registered by `cli`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from cxr_node.cli.app import (
    DEFAULT_CONFIG,
    ConfigFile,
    answers_errors,
    app,
    begin_serving,
    command,
    err,
    load_config,
    out,
)
from cxr_node.errors import ConfigError

if TYPE_CHECKING:
    from cxr_node.config.schema import Config
    from cxr_node.web.identity.users import UserFile
    from cxr_node.web.services import MakeDoor

_NICE = 10
"""Where cores are few, the page waits for receive, work and deliver, and its child that tries files with it."""
users = typer.Typer(help="Users and API keys of the page: add, key, remove, list.", no_args_is_help=True)
app.add_typer(users, name="user")


class RoleName(StrEnum):
    """`web.users.Role` in the words of the command line, which needs no Argon2 to read them."""

    VIEWER = "viewer"
    READER = "reader"
    OPERATOR = "operator"


class ScopeName(StrEnum):
    """`web.users.Scope`, likewise."""

    PREDICT = "predict"
    STATS = "stats"
    METRICS = "metrics"


@command()
def web(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Run the page alone: queue, studies, quality, a place to try files, API, metrics, alerts."""
    from cxr_node.node.process import supervisor

    with supervisor.held():
        settings = load_config(config)
    stop = supervisor.stop_event()
    begin_serving(settings, "web")
    os.nice(_NICE)
    from cxr_node.web import server as room

    with supervisor.Presence(settings.spool.path, "web") as present, _door(settings) as make_door:
        room.run(settings, stop, present, make_door)


@contextmanager
def _door(settings: Config) -> Iterator[MakeDoor | None]:
    """What opens the door for STOW-RS, of the receiver's own tools; None where nobody stores over HTTP."""
    if settings.web is None or settings.web.stow is None:
        yield None
        return
    from cxr_node.dicom.pixels import probe

    offered = probe.Question()
    probe.leave_out()
    from cxr_node.dicom.read import header
    from cxr_node.node.audit import recorder
    from cxr_node.web.stow.door import Door, Tools

    with recorder.recording(settings, "web") as record:
        tools = Tools(inspect=header.identify, transfer_syntaxes=offered.answer(), audit=record)
        yield partial(Door, tools=tools)


@users.command()
@answers_errors
def add(
    name: Annotated[str, typer.Argument(help="How the person logs in.")],
    role: Annotated[
        RoleName,
        typer.Option(
            help="viewer looks and tries files; reader also says if an answer is right; operator also retries."
        ),
    ],
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Add a user, or give one another role and password; sessions under the old password end."""
    from cxr_node.web.identity.users import Role

    file = _file(config)
    if password_stdin:
        password = sys.stdin.readline().rstrip("\n")
    else:
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    file.add(name, Role(role), password)
    out.print(f"{name} may log in as {role}", markup=False)


@users.command()
@answers_errors
def key(
    name: Annotated[str, typer.Argument(help="Which program it is for.")],
    scope: Annotated[list[ScopeName], typer.Option(help="What it may do; several times for several.")],
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Make an API key for a program, and print it: it is shown only now."""
    from cxr_node.web.identity.users import Scope

    made = _file(config).add_key(name, tuple(Scope(each) for each in scope))
    err.print(f"Key of {name}; send it as `Authorization: Bearer KEY`:", markup=False)
    print(made)


@users.command()
@answers_errors
def remove(name: Annotated[str, typer.Argument(help="User or key.")], config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Remove a user or a key; their sessions end with the next request."""
    _file(config).remove(name)
    out.print(f"{name} is removed", markup=False)


@users.command(name="list")
@answers_errors
def list_users(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """List users with their roles, and keys with their scopes."""
    file = _file(config)
    table = Table("name", "what", "may")
    for user in file.users():
        table.add_row(user.name, "user", user.role)
    for each in file.api_keys():
        table.add_row(each.name, "key", ", ".join(each.scopes))
    out.print(table)


def _file(config: ConfigFile) -> UserFile:
    from cxr_node.web.identity.users import UserFile

    section = load_config(config).web
    if section is None or section.users is None:
        raise ConfigError(f"{config}: web.users names no file; write `web: {{users: FILE}}`")
    return UserFile(section.users)


__all__ = ["web"]
