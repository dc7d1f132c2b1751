"""The oracle of report, measurements and picture: rows and attributes written down a second time, from the standard.

The run-time check (`cxr_node.dicom.verify`) says whether a result is this patient's, says one thing, and refers to what
is there. The oracle says whether it is built as its templates ask, which only a change of the builders can alter.
"""

from __future__ import annotations

from collections.abc import Sequence

from cxr_node.dicom.results.context import Context
from cxr_node.dicom.verify.plain import read
from cxr_node.outcome import Artifact
from cxr_node.result_kinds import ResultKind
from tests.dicom.oracle import header, rows
from tests.dicom.oracle.facts import Facts
from tests.dicom.oracle.rules import OracleRule
from tests.dicom.oracle.tree import compare, tree

_ROWS = {ResultKind.REPORT: rows.report, ResultKind.MEASUREMENTS: rows.measurements}


def flaws(artifacts: Sequence[Artifact], context: Context) -> list[tuple[OracleRule, str]]:
    """Rules that the results of one image break, and where; other kinds than the three are passed over."""
    found: list[tuple[OracleRule, str]] = []
    facts = Facts(context)
    for artifact in artifacts:
        if artifact.kind not in _ROWS and artifact.kind is not ResultKind.HEATMAP:
            continue

        def report(rule: OracleRule, where: str) -> None:
            found.append((rule, where))

        parsed = read(artifact.content)
        header.check(artifact.kind, parsed, facts, report)
        if artifact.kind in _ROWS:
            root, row = tree(parsed.dataset), _ROWS[artifact.kind](facts)
            if root.value_type != "CONTAINER" or root.name[:2] != row.key[2:]:
                report(OracleRule.TITLE, "ConceptNameCodeSequence")
            else:
                compare(root, row, report)
    return found
