"""The daily phantom: a drawn chest goes the whole way of the running node, and its answer is the one that is expected.

It comes by C-STORE as any radiograph does, is kept, judged and explained, and settled in the ledger; it goes to no
destination, for its study is known to be that of the phantom. Its Study Instance UID says so, not the name of the
caller, which any device could bear by mistake. It is counted as an image, and never as a film (`drift`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from cxr_node.assurance import phantom_record
from cxr_node.assurance.phantom_record import Answer
from cxr_node.config.network import Address
from cxr_node.config.schema import Config
from cxr_node.dicom import from_picture
from cxr_node.domain import CONSTANCY_CALLER, CONSTANCY_STUDY
from cxr_node.errors import DataError, DeliveryError, ResourceError
from cxr_node.model.profile import Profile
from cxr_node.node.ledger import queries
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.queries import InstanceRow
from cxr_node.node.ledger.states import InstanceState
from cxr_node.node.spool.part import nanoseconds
from cxr_node.resources import DRAWN
from cxr_node.tools import send

PICTURE = "opacity-1.jpg"
LARGEST_DIFFERENCE = 1e-4
"""Of the probability: two ways of computing in float32 differ by 2e-6 (`model.predictor`)."""
EXPECTED: dict[str, tuple[str, float | None]] = {
    "5851b75e3a87231914889cd16b0205ae66c4fe85b860b8bc255f31b0caf675ea": ("PNEUMONIA", 0.98276),
    "2123c5257e85c1997aa0ed1b6449a6b291be7dead4ef39cd0bc2ff3f4f2b50e2": ("UNCERTAIN", 0.904514),
}
"""By calibration.yaml as shipped, which names its weights: the verdict on the phantom, and its probability. Of others,
and under a site's own calibration, the first answer is expected."""
_LOOK_EVERY_S = 0.1


def check(config: Config, ledger: Ledger, profiles: list[Profile], timeout_s: float) -> list[Answer]:
    """Send a phantom for each profile, wait for its answer, and compare; what came of it is kept for the metrics.

    Raises
    ------
    DataError : the node takes TLS alone.
    """
    if config.listen.tls is not None:
        raise DataError("the node listens with TLS: constancy sends without; give it a listener on loopback")
    known = {each.answerer: each for each in phantom_record.last(config.spool.path)}
    answers = [_check(config, ledger, each, known, timeout_s) for each in profiles]
    phantom_record.keep(config.spool.path, answers)
    return answers


def _check(
    config: Config, ledger: Ledger, profile: Profile, known: dict[tuple[str, str], Answer], timeout_s: float
) -> Answer:
    begun_at, started = datetime.now(UTC), time.monotonic()
    uid = f"2.25.{nanoseconds(begun_at)}{int(profile.weights_sha256[:8], 16)}"
    row, fault = None, ""
    try:
        _send(config, phantom(profile, uid), uid)
        row = _settled(lambda: queries.trace(ledger, uid), started + timeout_s)
        fault = "it was not settled in time" if row is None else ""
    except (DeliveryError, ResourceError) as error:
        fault = str(error)
    verdict, probability = ("", None) if row is None else (row.verdict or row.state.value, row.probability)
    name = f"{profile.name} {profile.version}"
    expected = None if profile.site else EXPECTED.get(profile.calibration_sha256)
    before = known.get((name, profile.calibration_sha256))
    if expected is None and before is not None and before.expected_verdict:
        expected = before.expected_verdict, before.expected_probability
    expected = expected or (verdict, probability)
    return Answer(
        profile=name,
        weights_sha256=profile.weights_sha256,
        calibration_sha256=profile.calibration_sha256,
        at=begun_at.isoformat(),
        verdict=verdict,
        probability=probability,
        expected_verdict=expected[0],
        expected_probability=expected[1],
        took_s=round(time.monotonic() - started, 2),
        fault=fault or _difference((verdict, probability), expected),
    )


def phantom(profile: Profile, sop_instance_uid: str) -> bytes:
    """The drawn chest of a patient in the middle of a profile's population."""
    youngest, oldest = profile.population.age_years
    return from_picture.wrap(
        DRAWN / PICTURE,
        SOPInstanceUID=sop_instance_uid,
        SeriesInstanceUID=f"{CONSTANCY_STUDY}.1",
        StudyInstanceUID=CONSTANCY_STUDY,
        PatientName="Phantom^Constancy",
        PatientID="CXR_CONSTANCY",
        PatientAge=f"{int((youngest + min(oldest, 90)) / 2):03d}Y",
        ViewPosition="AP",
    )


def _send(config: Config, content: bytes, uid: str) -> None:
    host = "127.0.0.1" if config.listen.host in ("0.0.0.0", "::", "") else config.listen.host  # noqa: S104
    address = Address(ae_title=config.listen.ae_title, host=host, port=config.listen.port)
    file = config.spool.path / "run" / f"{uid}.dcm"
    sent: list[send.Sent] = []
    try:
        file.write_bytes(content)
        send.store([file], sent.append, address, CONSTANCY_CALLER)
    except OSError as error:
        raise ResourceError(f"{file.parent}: {error.strerror}") from error
    finally:
        file.unlink(missing_ok=True)
    for each in sent:
        if not each.ok:
            raise DeliveryError(f"the node did not take it: {each.sentence}", permanent=True)


def _settled(look: Callable[[], list[queries.Story]], until: float) -> InstanceRow | None:
    while True:
        found = look()
        if found and found[0].instance.state not in (InstanceState.RECEIVED, InstanceState.REPORTED):
            return found[0].instance
        if time.monotonic() > until:
            return None
        time.sleep(_LOOK_EVERY_S)


def _difference(found: tuple[str, float | None], expected: tuple[str, float | None]) -> str:
    if found[0] != expected[0]:
        return f"it says {found[0]}, expected {expected[0]}"
    if (found[1] is None) is not (expected[1] is None):
        return "one of both has no probability"
    if found[1] is not None and expected[1] is not None and abs(found[1] - expected[1]) > LARGEST_DIFFERENCE:
        return f"its probability differs by {abs(found[1] - expected[1]):.2g}"
    return ""
