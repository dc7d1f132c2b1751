"""The program: `cxr-node`, and `python -m cxr_node`."""

from __future__ import annotations

import sys

from typer.main import get_command_name
from typer.models import CommandInfo

from cxr_node.cli.node import app


def main() -> None:
    """Run it. Of the commands only the one that is named is made ready: that of all takes 0.05 s."""
    named = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    if wanted := [each for each in app.registered_commands if _name(each) == named]:
        app.registered_commands = wanted
    app()


def _name(registered: CommandInfo) -> str | None:
    function = registered.callback
    return registered.name or (None if function is None else get_command_name(function.__name__))


if __name__ == "__main__":
    main()
