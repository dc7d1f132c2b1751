"""Statements that are built once, and executed with other values each time.

To build a statement, and to find what it was compiled to, takes far longer than to execute it: of 1.4 ms for the claim
of an image 0.05 ms are left (measured). What an image passes through on its way is therefore written with these.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any, ParamSpec, TypeVar

import sqlalchemy as sa

_PREFIX = "given_"  # a column's own name is taken where a row is changed
_Values = ParamSpec("_Values")
_Statement = TypeVar("_Statement", bound=sa.Executable)


def value(name: str, column: sa.Column[Any] | None = None) -> Any:
    """Stand in a statement for what `given` gives with it; for a list, in `in_`.

    `column` : of whose type it is, where it is not compared with it.
    """
    return sa.bindparam(_PREFIX + name, type_=None if column is None else column.type)


def given(**values: Any) -> dict[str, Any]:
    """Give the values of a statement, by their names."""
    return {_PREFIX + name: each for name, each in values.items()}


def prepared(build: Callable[_Values, _Statement]) -> Callable[_Values, tuple[_Statement, dict[str, Any]]]:
    """Let a function that builds a statement of values return it with them: `connection.execute(*function(...))`.

    It is called once, with a stand-in for each value, so what it builds must be the same for all of them; None is
    compared by `is_`, and has no place here.
    """
    names = tuple(_PREFIX + name for name in inspect.signature(build).parameters)

    @cache
    def built() -> _Statement:
        build_of: Callable[..., _Statement] = build
        return build_of(*map(sa.bindparam, names))

    def with_values(*values: _Values.args, **_: _Values.kwargs) -> tuple[_Statement, dict[str, Any]]:
        return built(), dict(zip(names, values, strict=True))

    return with_values
