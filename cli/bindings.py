"""What a user states about a program on the command line: trip counts of loops, sizes of dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from memplan.compiler.errors import MemplanError


@dataclass(frozen=True)
class Bindings:
    """What the options `--trip-count` and `--dim` say.

    Attributes:
      trip_counts: name of a loop to how often it runs.
      dims: name of a dimension to its size.
    """

    trip_counts: dict[str, int] = field(default_factory=dict)
    dims: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def of(trip_counts: Sequence[str] | None, dims: Sequence[str] | None) -> Bindings:
        """Returns what the values of the options say; raises MemplanError for one that is not NAME=N."""
        return Bindings(bound("--trip-count", trip_counts or ()), bound("--dim", dims or ()))


def bound(option: str, values: Sequence[str]) -> dict[str, int]:
    """Returns the names and numbers of a repeated option.

    >>> bound("--dim", ["b=32", "n=8"])
    {'b': 32, 'n': 8}
    """
    found: dict[str, int] = {}
    for value in values:
        name, _, number = value.rpartition("=")
        if not name or not (number.isascii() and number.isdigit() and len(number) <= 18):
            raise MemplanError(f"{option} {value}: must be NAME=N, with a whole number N")
        if found.setdefault(name, int(number)) != int(number):
            raise MemplanError(f"{option} {value}: {name} is {found[name]} already")
    return found
