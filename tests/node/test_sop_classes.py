"""`listen.sop_classes: radiographs` offers no context for what can be no radiograph; all others work as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pynetdicom import AE

from cxr_node import domain
from cxr_node.config.schema import SopClasses
from cxr_node.dicom.read import admission
from cxr_node.node.receive import server
from tests.node import receivers

EXPLICIT = "1.2.840.10008.1.2.1"
CT, MR, SR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.88.33"
VERIFICATION = "1.2.840.10008.1.1"


def test_whatever_may_be_judged_is_offered() -> None:
    assert set(admission.SOP_CLASSES) <= set(domain.STORAGE)
    offered = server.supported([EXPLICIT], SopClasses.RADIOGRAPHS)
    assert set(offered) == {VERIFICATION, *domain.STORAGE}
    everything = server.supported([EXPLICIT])
    assert set(offered) < set(everything)
    assert {CT, MR, SR} <= set(everything)


def accepted(tmp_path: Path, **listen: Any) -> set[str]:
    """SOP Classes that get a context on a real association that asks for images, reports and an echo."""
    wanted = (VERIFICATION, CT, MR, SR, *domain.STORAGE)
    with receivers.receiving(tmp_path, **listen) as receiving:
        entity = AE("ROUTER")
        for sop_class in wanted:
            entity.add_requested_context(sop_class, EXPLICIT)
        association = entity.associate("127.0.0.1", receiving.port, ae_title="CXR_NODE")
        assert association.is_established
        contexts = {str(context.abstract_syntax) for context in association.accepted_contexts}
        assert association.send_c_echo().Status == 0x0000
        association.release()
    return contexts


def test_ct_mr_and_sr_get_a_context_only_where_all_are_offered(tmp_path: Path) -> None:
    assert accepted(tmp_path / "a") == {VERIFICATION, CT, MR, SR, *domain.STORAGE}
    assert accepted(tmp_path / "b", sop_classes="radiographs") == {VERIFICATION, *domain.STORAGE}
