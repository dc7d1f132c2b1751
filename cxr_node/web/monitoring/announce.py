"""One message to one Apprise URL, by a program of its own: this module run with `-m`, the message on stdin.

So a server that hangs delays nothing, a library that crashes ends nothing else, and the 20 MiB that Apprise takes are
given back. What comes back is one line that never holds the URL, for it may hold a password.
"""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from cxr_node.config import permissions
from cxr_node.config.schema import Config
from cxr_node.diagnose.thresholds import CheckResult, Fault, change, stop, well
from cxr_node.errors import ConfigError, DeliveryError

TIMEOUT_S = 30.0
"""Of one message, all servers' answers included."""
_NOUN = "URL with a password"


def url_in(file: Path) -> str:
    """Read the one URL of a file that only the node may read.

    Raises
    ------
    ConfigError : there is no such file or credential, others may read it, or it holds not one line.
    """
    place = permissions.private_key(file, _NOUN)
    try:
        lines = [line.strip() for line in place.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {getattr(error, 'strerror', 'no UTF-8')}") from error
    if len(lines) != 1:
        raise ConfigError(f"{file}: holds {len(lines)} lines; write one Apprise URL, as mailtos://user:password@host")
    return lines[0]


def require_sender(config: Config) -> None:
    """See that what sends alerts is installed, where there are ways to send them.

    Raises
    ------
    ConfigError : it is not.
    """
    if config.alerts.to and find_spec("apprise") is None:
        raise ConfigError("alerts.to: needs apprise: pip install 'cxr-node[alerts]'")


class Message:
    """One message on its way; shorter than a pipe holds (64 KiB), so that no write waits for its reader."""

    def __init__(self, url: str, title: str, body: str) -> None:
        words = (sys.executable, "-m", __name__)
        self._child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        pipe, self._child.stdin = self._child.stdin, None
        if pipe is not None:
            with suppress(BrokenPipeError), pipe:  # its exit status says that it died
                pipe.write(json.dumps({"url": url, "title": title, "body": body}).encode())

    def result(self, timeout_s: float = 0.0) -> str | None:
        """None while it is on its way; "" once it was taken, else why not, in words without the URL."""
        try:
            self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        said, _ = self._child.communicate()
        if self._child.returncode == 0:
            return ""
        return " ".join(said.decode("utf-8", "replace").split())[:300] or f"ended with {self._child.returncode}"

    def kill(self) -> None:
        """Give it up."""
        self._child.kill()
        self._child.communicate()


def send(url: str, title: str, body: str) -> None:
    """Send one message, and wait for that; without a body, only see whether Apprise understands the URL.

    Raises
    ------
    DeliveryError : it was not taken.
    """
    message = Message(url, title, body)
    said = message.result(TIMEOUT_S)
    if said is None:
        message.kill()
        said = f"no answer within {TIMEOUT_S:.0f} s"
    if said:
        raise DeliveryError(said, permanent=False)


def readings(config: Config, *, test: bool) -> Iterator[CheckResult]:
    """Look at the ways to people, for `check`; a `test` sends each of them a message."""
    if config.web is None and config.alerts.to:
        yield change("alerts", "web: is null: no process watches the node; write `web: {}`")
    if config.web is not None and not config.alerts.to:
        yield change("alerts", "alerts.to: is empty: what is wrong stands on the page alone; name a file with a URL")
    try:
        require_sender(config)
    except ConfigError as error:
        yield stop("alerts", str(error))
        return
    for file in config.alerts.to:
        try:
            yield from _tried(file, f"cxr-node {config.results.installation_id}: test", test=test)
        except ConfigError as error:
            yield stop("alerts", str(error))


def _tried(file: Path, title: str, *, test: bool) -> Iterator[CheckResult]:
    url = url_in(file)
    try:
        send(url, "", "")
    except DeliveryError as error:
        raise ConfigError(f"{file}: {error}") from error
    yield well("alerts", f"{file}: read by the owner only, sends by {url.partition(':')[0]}")
    if test:
        try:
            send(url, title, "A test of the alerts. Nothing is wrong.")
            yield well("test alert", f"{file}: the message was taken")
        except DeliveryError as error:
            yield stop("test alert", f"{file}: {error}", fault=Fault.WORLD)


def main() -> int:
    """Send what stands on stdin; 0 where it was taken, else 1 and why on stdout."""
    from apprise import Apprise  # 20 MiB, in this process alone

    asked = json.load(sys.stdin)
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]  # a whole class for it
    logging.getLogger("apprise").addHandler(handler)
    service = Apprise()
    if not service.add(asked["url"]):
        print("Apprise does not understand the URL")
        return 1
    if not asked["body"] or service.notify(title=asked["title"], body=asked["body"]):
        return 0
    print(_scrubbed("; ".join(lines) or "the service did not take it", asked["url"]))
    return 1


def _scrubbed(words: str, url: str) -> str:
    """Take out whatever may be secret: the URL and its parts."""
    for part in sorted({url, *re.split(r"[:/@?&=]+", url.partition(":")[2])}, key=len, reverse=True):
        if len(part) > 3:  # shorter ones are words of any sentence
            words = words.replace(part, "…")
    return words


if __name__ == "__main__":
    sys.exit(main())
