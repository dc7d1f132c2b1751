"""One message: what is secret stays secret, and `check` says whether a way to people works."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cxr_node.cli.node import app
from cxr_node.config import loader
from cxr_node.errors import ConfigError, DeliveryError
from cxr_node.web import services
from cxr_node.web.monitoring import announce
from tests.processes import configured, free_port
from tests.web.sinks import MailServer, WebHook

RUNNER = CliRunner()


def said(folder: Path, *arguments: str, to: list[Path] | None = None, **sections: object) -> list[dict[str, object]]:
    """What `check` says of alerts."""
    alerts = {"to": [str(file) for file in to or []]}
    config = configured(folder, "node", free_port(), alerts=alerts, **({"web": {}} | sections))
    done = RUNNER.invoke(app, ["check", "--json", "--config", str(config), *arguments])
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [line for line in lines if "alert" in line["subject"]]


def test_check_names_each_way_and_a_test_alert_arrives(tmp_path: Path) -> None:
    with MailServer(tmp_path, "mail") as mail, WebHook(tmp_path) as hook:
        lines = said(tmp_path, "--send-test-alert", to=[mail.file, hook.file])
        assert all(line["ok"] for line in lines), lines
        assert [str(line["sentence"]).partition(": ")[2] for line in lines] == [
            *("read by the owner only, sends by mailto", "the message was taken"),
            *("read by the owner only, sends by json", "the message was taken"),
        ]
        for sink in (mail, hook):
            assert sink.taken == [sink.taken[0]]
            assert "test\nA test of the alerts. Nothing is wrong." in sink.taken[0]


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        ("json://127.0.0.1/a", 0o640, "others may read this URL with a password (mode 0640); chmod 0600"),
        ("nonsense://pa55w0rd", 0o600, "Apprise does not understand the URL"),
        ("json://127.0.0.1/a\njson://127.0.0.1/b\n", 0o600, "holds 2 lines; write one Apprise URL"),
        ("", 0o600, "holds 0 lines"),
    ],
)
def test_check_says_what_is_wrong_with_a_file(tmp_path: Path, content: str, mode: int, words: str) -> None:
    file = tmp_path / "alerts.url"
    file.write_text(content)
    file.chmod(mode)
    (line,) = said(tmp_path, to=[file])
    assert not line["ok"]
    assert words in str(line["sentence"])
    assert "pa55w0rd" not in str(line)
    assert line["fault"] == "file"


def test_check_says_where_a_file_or_a_credential_is_missing(tmp_path: Path) -> None:
    lines = said(tmp_path, to=[tmp_path / "nowhere", Path("credential:alerts")])
    assert ["No such file" in str(lines[0]["sentence"]), "LoadCredential=alerts" in str(lines[1]["sentence"])] == [
        True,
        True,
    ]


def test_without_apprise_check_and_the_page_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announce, "find_spec", lambda name: None if name == "apprise" else find_spec(name))
    hook = WebHook(tmp_path)
    (line,) = said(tmp_path, to=[hook.file])
    assert (line["ok"], line["fault"]) == (False, "file")
    assert line["sentence"] == "alerts.to: needs apprise: pip install 'cxr-node[alerts]'"
    settings = loader.load(tmp_path / "node.yaml")
    with pytest.raises(ConfigError, match=r"alerts\.to: needs apprise"):
        services.assembled(settings)
    assert [each["ok"] for each in said(tmp_path)] == [True], "who wants no alerts needs none of it"


def test_a_server_that_is_down_is_no_fault_of_a_file(tmp_path: Path) -> None:
    hook = WebHook(tmp_path)
    line = said(tmp_path, "--send-test-alert", to=[hook.file])[-1]
    assert (line["ok"], line["fault"]) == (False, "world")
    assert "pa55w0rd" not in str(line)


def test_check_says_that_nobody_watches_or_nobody_is_told(tmp_path: Path) -> None:
    (silent,) = said(tmp_path)
    assert silent["warning"]
    assert "alerts.to: is empty" in str(silent["sentence"])
    hook = WebHook(tmp_path)
    alone, _ = said(tmp_path, to=[hook.file], web=None)
    assert "no process watches" in str(alone["sentence"])
    assert not list(announce.readings(loader.parse({"spool": {"path": "x"}}), test=False))


def test_what_a_library_says_of_a_failure_holds_no_password(tmp_path: Path) -> None:
    with pytest.raises(DeliveryError) as raised:
        announce.send(f"json://user:pa55w0rd@127.0.0.1:{free_port()}/secret-path", "title", "body")
    assert str(raised.value)
    assert "pa55w0rd" not in str(raised.value)
    assert "secret-path" not in str(raised.value)


def test_words_are_scrubbed_of_every_part_of_a_url() -> None:
    url = "mailtos://somebody:pa55w0rd@mail.example.org/?to=ops@example.org"
    words = f"cannot send {url}: pa55w0rd refused for somebody at mail.example.org"
    assert announce._scrubbed(words, url) == "cannot send …: … refused for … at …"
