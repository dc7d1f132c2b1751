"""How worklists and their items look in a terminal. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from rich.table import Table
from rich.text import Text

from cxr_node.node.ledger.status import clock
from cxr_node.node.ledger.work_items import WorkItemRow, WorkState
from cxr_node.node.ledger.worklist_status import WorklistStatus


def lines(seen: Mapping[str, WorklistStatus], now: datetime) -> list[Text]:
    """One for each worklist: its address, its items by state, and since when it does not answer."""
    return [_line(name, each, now) for name, each in seen.items()]


def _line(name: str, seen: WorklistStatus, now: datetime) -> Text:
    told = ", ".join(f"{number} {state}" for state, number in seen.items.items() if number) or "no item yet"
    if seen.address is None:
        return Text(f"worklist {name} is not configured, and nobody ends its items: {told}", "bold red")
    line = Text(f"worklist {name} ({seen.address}): {told}")
    if seen.down_since is not None:
        line.append(f"; has been down since {clock(seen.down_since, now)}: {seen.last_error}", "bold red")
    return line


def items(rows: Iterable[WorkItemRow]) -> Table:
    """What became of work items, each with the UIDs by which its manager knows it."""
    table = Table(show_header=False, box=None)
    for row in rows:
        said = f"{row.state} of worklist {row.worklist}, {row.updated_at:%Y-%m-%d %H:%M:%S} UTC"
        said += f"; {row.reason}" if row.reason else ""
        said += f"; {row.detail}" if row.detail and row.state is not WorkState.COMPLETED else ""
        table.add_row(
            "work item", Text(f"{row.workitem_uid}\n{said}\ntransaction {row.transaction_uid}", overflow="fold")
        )
    return table
