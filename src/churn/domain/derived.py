"""Registers the functions of features.py as derived features."""

from collections.abc import Callable
from dataclasses import dataclass

from churn.domain.kinds import Array, Columns, Kind, NullAs, check_null_as

Derivation = Callable[[Columns], Array]
"""The raw columns → the feature's value for each row."""


@dataclass(frozen=True)
class Feature:
    """One input of the model: a raw column of the contract, or a derived one."""

    name: str
    kind: Kind
    description: str
    null_as: NullAs = None
    derive: Derivation | None = None


DERIVED: dict[str, Feature] = {}


def feature(kind: Kind, *, null_as: NullAs = None) -> Callable[[Derivation], Derivation]:
    """Register the decorated function as a derived feature of that kind; `null_as` is what its nulls mean, as a column's."""

    def register(function: Derivation) -> Derivation:
        name = function.__name__
        check_null_as(f"features.py: {name}", kind, null_as)
        DERIVED[name] = Feature(name, kind, str(function.__doc__), null_as, function)
        return function

    return register
