"""What the process `deliver` needs of other rooms to fetch images: who reads a header, and the door they come in by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cxr_node.config.destinations import DicomDestination
from cxr_node.domain import InstanceRef, Priority
from cxr_node.node.deliver.fetching import Fetching
from cxr_node.node.deliver.input_images import InputTools, Keep
from cxr_node.node.deliver.loop import DeliveryContext
from cxr_node.node.deliver.prior_loop import PriorTools
from cxr_node.node.priors.query import Wanted
from cxr_node.node.priors.retrieve import Fetched
from cxr_node.node.receive.receiver import Inspect, Receiver, StoreRequest


def tools(transfer_syntaxes: Sequence[str]) -> Fetching:
    """All of it. `transfer_syntaxes` : that can be decoded, the preferred first."""
    return Fetching(
        priors=PriorTools(wanted=wanted, transfer_syntaxes=transfer_syntaxes),
        inputs=InputTools(door=door, transfer_syntaxes=transfer_syntaxes),
    )


def door(context: DeliveryContext, inspect: Inspect | None = None) -> Keep:
    """Keep what is fetched as what is sent is kept; the archive is its sender. `inspect` : the header check."""
    receiver = Receiver(context.config, inspect or _identify, context.spool, lambda: context.ledger, context.audit)

    def keep(fetched: Fetched, source: DicomDestination, priority: Priority) -> None:
        request = StoreRequest(
            sop_class_uid=fetched.ref.sop_class_uid,
            sop_instance_uid=fetched.ref.sop_instance_uid,
            transfer_syntax_uid="",
            calling_ae_title=source.ae_title,
            peer_host=source.host,
            priority=priority,
        )
        receiver.finish(request, fetched.part)

    return keep


def _identify(path: Path) -> InstanceRef:
    from cxr_node.dicom.read import header

    return header.identify(path)


def wanted(content: bytes) -> Wanted | None:
    """Whose earlier radiographs belong beside an image; None: it cannot be read."""
    from cxr_node.dicom.read import header
    from cxr_node.outcome import Rejected

    source = header.read(content)
    if isinstance(source, Rejected):
        return None
    return Wanted(
        patient_id=source.text("PatientID"),
        issuer=source.text("IssuerOfPatientID"),
        birth_date=source.text("PatientBirthDate"),
        study_instance_uid=source.ref.study_instance_uid,
        study_date=source.text("StudyDate"),
        study_time=source.text("StudyTime"),
    )
