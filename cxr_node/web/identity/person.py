"""Who asks, once a session or this machine has said so."""

from __future__ import annotations

from dataclasses import dataclass

from cxr_node.web.identity.users import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who asks."""

    name: str
    role: Role
    csrf: str
    is_known: bool = True
    """False for whoever is at this machine, where there are no users."""

    @property
    def may_operate(self) -> bool:
        """Whether the buttons are theirs."""
        return self.role is Role.OPERATOR

    @property
    def may_say(self) -> bool:
        """Whether their word on a study counts: a radiologist's, by name; an operator's is nobody's reading."""
        return self.role is Role.READER
