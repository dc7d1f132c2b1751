"""The API: what it answers to files of every kind, to whom, and what describes it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from cxr_node import wiring
from cxr_node.node.process import supervisor
from cxr_node.tools import classify
from cxr_node.web.identity.users import Scope
from tests import builders
from tests.patience import NODE_S
from tests.web.asking import CANARY, DICOM, JPEG, LATERAL, png, post
from tests.web.site import Site, opened

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    limits = {"per_minute": 1000, "max_file_mib": 2, "max_files": 5}
    with opened(tmp_path_factory.mktemp("api"), web={"try": limits}) as site:
        yield site


@pytest.fixture
def program(site: Site) -> Iterator[httpx.Client]:
    key = site.key(Scope.PREDICT, Scope.STATS)
    with httpx.Client(base_url=site.address, timeout=NODE_S, headers={"Authorization": f"Bearer {key}"}) as client:
        yield client


def test_a_file_gets_the_answer_that_the_command_gives(site: Site, program: httpx.Client, tmp_path: Path) -> None:
    files = {"one.dcm": DICOM, "two.png": png(), "three.jpg": JPEG, "four.dcm": LATERAL}
    paths = [tmp_path / name for name in files]
    for path in paths:
        path.write_bytes(files[path.name])
    classifier = wiring.classifier(site.config)
    for answer in classify.judge(paths, classifier, site.config, objects=False):
        told = post(program, files[answer.path.name])
        assert told.status_code == 200
        assert {"path": str(answer.path)} | told.json() == answer.as_json(classifier.profile.name)


def test_rejected_is_an_answer(program: httpx.Client) -> None:
    told = post(program, LATERAL)
    assert told.status_code == 200
    assert (told.json()["verdict"], told.json()["reason"]) == ("REJECTED", "view-not-frontal")


def test_an_explanation_is_the_nodes_own_picture(site: Site, program: httpx.Client) -> None:
    told = post(program, JPEG, params={"explain": "true"}).json()
    assert told["verdict"] == "PNEUMONIA"
    with Image.open(io.BytesIO(base64.b64decode(told["heatmap_png"]))) as picture:
        assert picture.mode == "RGB"
        assert max(picture.size) == pytest.approx(site.config.results.max_heatmap_px, rel=0.01)
    assert "heatmap_png" not in post(program, LATERAL, params={"explain": "true"}).json()
    by_form = program.post("/api/v1/predict", files={"file": ("x", JPEG)}, data={"explain": "true"})
    assert by_form.json() == told


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"no radiograph", 415, "file-type"),
        (b"", 415, "file-type"),
        (b"GIF89a" + bytes(200), 415, "file-type"),
        (bytes(128) + b"DICM" + b"rubbish" * 50, 422, "unreadable"),
        (DICOM[:-5000], 422, "unreadable"),
        (JPEG[:300], 422, "unreadable"),
        (b"\x89PNG\r\n\x1a\n" + bytes(500), 422, "unreadable"),
        (bytes(128) + b"DICM" + bytes(2 * MIB), 413, "too-large"),
    ],
    ids=["text", "empty", "gif", "rubbish", "cut dicom", "cut jpeg", "broken png", "large"],
)
def test_what_is_no_radiograph_is_a_problem(program: httpx.Client, content: bytes, status: int, code: str) -> None:
    told = post(program, content)
    assert (told.status_code, told.json()["code"]) == (status, code)
    assert told.headers["content-type"] == "application/problem+json"
    assert told.json()["status"] == status and told.json()["detail"]


HEAD = b"--x\r\nContent-Disposition: form-data; name="


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        HEAD + b'"file"; ',
        HEAD + b'"file"; filename="a"\r\n\r\n' + JPEG,
        HEAD + b'"other"; filename="a"\r\n\r\nabc\r\n--x--\r\n',
        HEAD + b'"explain"\r\n\r\n' + b"y" * 50_000 + b"\r\n--x--\r\n",
        HEAD + b'"explain"\r\n\r\ntrue\r\n--x--\r\n',
        b"--x\r\nX: " + b"y" * 100_000 + b"\r\n\r\n\r\n--x--\r\n",
    ],
    ids=["empty", "nonsense", "cut head", "cut file", "other field", "long field", "no file", "long header"],
)
def test_a_form_that_is_none_is_a_problem(program: httpx.Client, content: bytes) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    told = program.post("/api/v1/predict", headers=headers, content=content)
    assert (told.status_code, told.json()["code"]) == (422, "malformed")
    assert told.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data", "multipart/form-data; boundary="])
def test_what_is_no_form_is_a_problem(program: httpx.Client, kind: str) -> None:
    told = program.post("/api/v1/predict", headers={"content-type": kind}, content=b"{}")
    assert (told.status_code, told.json()["code"]) == (415, "media-type")


def test_a_batch_answers_each_file_in_its_order(program: httpx.Client) -> None:
    contents = [LATERAL, b"no radiograph", JPEG, bytes(128) + b"DICM" + bytes(2 * MIB), DICOM[:-5000]]
    told = program.post("/api/v1/predict/batch", files=[("files", ("x", content)) for content in contents])
    assert told.status_code == 200
    results = told.json()["results"]
    verdicts = [each["prediction"]["verdict"] if each["prediction"] else each["problem"]["code"] for each in results]
    assert verdicts == ["REJECTED", "file-type", "PNEUMONIA", "too-large", "unreadable"]
    many = program.post("/api/v1/predict/batch", files=[("files", ("x", LATERAL))] * 6)
    assert (many.status_code, many.json()["code"]) == (422, "too-many-files")


def test_a_key_opens_what_its_scopes_say(site: Site, program: httpx.Client) -> None:
    with httpx.Client(base_url=site.address, timeout=NODE_S) as stranger:
        assert post(stranger, LATERAL).status_code == 401
        assert post(stranger, LATERAL, headers={"Authorization": "Bearer made-up"}).json()["code"] == "key"
        stats = {"Authorization": f"Bearer {site.users.add_key('statistician', (Scope.STATS,))}"}
        assert post(stranger, LATERAL, headers=stats).json()["code"] == "scope"
        assert stranger.get("/api/v1/stats", headers=stats).status_code == 200
        assert stranger.get("/api/v1/model/info").status_code == 401
    assert site.viewer().get("/api/v1/model/info").status_code == 200
    assert site.viewer().post("/api/v1/predict", files={"file": ("x", LATERAL)}).json()["code"] == "origin"


def test_too_many_files_a_minute_wait(tmp_path: Path) -> None:
    with opened(tmp_path, users=False, web={"try": {"per_minute": 3}}) as site:
        visitor = site.visitor()
        assert [post(visitor, b"x").status_code for _ in range(3)] == [415] * 3
        refused = post(visitor, b"x")
        assert (refused.status_code, refused.json()["code"]) == (429, "too-many")
        assert 0 < int(refused.headers["retry-after"]) <= 60


def test_try_can_be_off(tmp_path: Path) -> None:
    with opened(tmp_path, users=False, web={"try": {"enabled": False}}) as site:
        visitor = site.visitor()
        assert post(visitor, LATERAL).json()["code"] == "off"
        assert visitor.get("/try").status_code == 404
        assert "/try" not in visitor.get("/").text


def test_the_classifier_is_told_to_the_byte(site: Site, program: httpx.Client) -> None:
    told = program.get("/api/v1/model/info").json()["profiles"]
    loaded = wiring.profiles(site.config)
    for one, profile in zip(told, loaded, strict=True):
        assert one["sha256"]["weights.safetensors"] == profile.weights_sha256
        assert one["thresholds"]["report_at"] == profile.operating_point.report_at
        assert one["thresholds"]["rule_out_max_distance"] == profile.operating_point.rule_out_max_distance
    assert [(one["finding"], one["age_years"]) for one in told] == [("pneumonia", [1, 5]), ("pneumonia", [18, 120])]


def test_figures_come_with_their_intervals(site: Site, program: httpx.Client) -> None:
    told = program.get("/api/v1/stats").json()
    for measured, loaded in zip(told["profiles"], wiring.profiles(site.config), strict=True):
        metrics = json.loads((loaded.folder / "metrics.json").read_text())
        for name, said in metrics["evaluations"].items():
            assert measured["evaluations"][name]["rates"] == said["rates"]
        assert set(measured["blind"]) == set(metrics["blind"])
    assert told["node"]["images"]["REPORTED"] == 0 and told["node"]["verdicts"] == {}
    assert all(isinstance(number, int) for number in told["tried"].values())


def test_health_says_what_does_not_run(site: Site) -> None:
    with httpx.Client(base_url=site.address, timeout=NODE_S) as anybody:
        assert anybody.get("/health/live").json() == {"status": "Healthy", "checks": []}
        told = anybody.get("/health/ready")
        assert (told.status_code, told.json()["status"]) == (503, "Unhealthy")
        checks = {each["check"]: each["result"] for each in told.json()["checks"]}
        assert checks == {"ledger": "Healthy", "spool": "Healthy", "weights": "Healthy"} | dict.fromkeys(
            supervisor.ROLES, "Unhealthy"
        )
        assert "work does not run" in told.text
        elsewhere = anybody.get("/health/ready", headers={"x-forwarded-for": "192.0.2.7"})
        assert elsewhere.status_code == 503 and "does not run" not in elsewhere.text
        presences = [supervisor.Presence(site.spool, role) for role in supervisor.ROLES]
        for presence in presences:
            presence.ready()
        assert anybody.get("/health/ready").status_code == 200
        presences[0].stopping()
        told = anybody.get("/health/ready")
        assert (told.status_code, told.json()["checks"][3]) == (
            503,
            {"check": "receive", "result": "Unhealthy", "detail": "receive stops"},
        )
        for presence in presences:
            presence.close()


def test_a_load_balancer_asks_about_the_receiver_alone(site: Site) -> None:
    def asked() -> tuple[int, dict[str, str]]:
        told = httpx.get(f"{site.address}/health/ready/receive", timeout=NODE_S)
        return told.status_code, {each["check"]: each["result"] for each in told.json()["checks"]}

    well = {"ledger": "Healthy", "spool": "Healthy"}
    assert asked() == (503, well | {"receive": "Unhealthy"})
    with supervisor.Presence(site.spool, "receive") as present:
        present.ready()
        assert asked() == (200, well | {"receive": "Healthy"})  # work and deliver do not run
        present.stopping()
        assert asked() == (503, well | {"receive": "Unhealthy"})


def test_the_page_of_the_api_describes_all_of_it(site: Site) -> None:
    with httpx.Client(base_url=site.address, timeout=NODE_S) as anybody:
        document, page = anybody.get("/api/v1/openapi.json").json(), anybody.get("/api/v1/").text
    assert {"/api/v1/predict", "/api/v1/predict/batch", "/api/v1/model/info", "/api/v1/stats"} <= set(document["paths"])
    for path in document["paths"]:
        assert path in page
    for scheme in ("http://", "https://"):
        assert page.count(scheme) == page.count(f"{scheme}127.0.0.1"), "nothing comes from elsewhere"
    assert "-F file=@chest.dcm" in page and "calibrated" in page


def test_no_patient_is_named(site: Site, program: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    named = builders.part10(builders.radiograph(3, **CANARY))
    contents = [named, named[:-5000], named[:2000], named.replace(b"DX", b"\xff\xfe", 1), named[200:]]
    said = []
    with caplog.at_level("DEBUG", logger="cxr_node"):
        for content in contents:
            one = {"file": ("Zimtschnecke_Kim.dcm", content, "image/ZIMT-4711")}
            said.append(program.post("/api/v1/predict", files=one, params={"q": "Zimtschnecke"}))
            said.append(program.post("/api/v1/Zimtschnecke", files=one))
            said.append(program.post("/api/v1/predict/batch", files=[("ZIMT-4711", one["file"])]))
            said.append(program.post("/api/v1/predict/batch", files=[("files", one["file"])]))
    assert {answer.status_code for answer in said} == {200, 404, 413, 415, 422}
    told = "".join(f"{answer.headers}{answer.text}" for answer in said) + caplog.text + site.audited()
    assert "Zimt" not in told and "ZIMT" not in told
