"""Linear and integer programs, held in arrays, with bounds that do not depend on a solver's tolerances.

The objective value of a solver is right only up to its tolerances. Its dual values y give a bound that holds for any y
(weak duality; Neumaier and Shcherbina, "Safe bounds in linear and mixed-integer linear programming", 2004). With rows
`low <= A x <= high` and boxed columns,

    c x  =  y A x + (c - y A) x  >=  sum of y's best row side  +  sum of each column's least (c - y A) x.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# A generous relative allowance for rounding in the sums of a bound.
_ROUNDING = 1e-11


@dataclass(frozen=True)
class Affine:
    """A constant plus a sum of columns times coefficients."""

    constant: float = 0.0
    terms: tuple[tuple[int, float], ...] = ()

    def __add__(self, other: Affine) -> Affine:
        return Affine(self.constant + other.constant, self.terms + other.terms)

    def __sub__(self, other: Affine) -> Affine:
        return self + other.scaled(-1.0)

    def scaled(self, factor: float) -> Affine:
        """Returns it multiplied by a number."""
        return Affine(self.constant * factor, tuple((column, factor * value) for column, value in self.terms))

    def value(self, solution: Floats) -> float:
        """Returns its value at `solution`, `[num_columns]`."""
        return self.constant + sum(value * float(solution[column]) for column, value in self.terms)


ZERO, ONE = Affine(0.0), Affine(1.0)


def column(number: int) -> Affine:
    """Returns one column by itself."""
    return Affine(0.0, ((number, 1.0),))


def add_up(terms: Iterable[Affine]) -> Affine:
    """Returns the sum of some terms."""
    constant, parts = 0.0, list[tuple[int, float]]()
    for term in terms:
        constant += term.constant
        parts += term.terms
    return Affine(constant, tuple(parts))


class LinearProgram:
    """The program "minimize `costs @ x` subject to rows and boxes" while it is being written.

    The boxes of all columns are finite, so that every dual solution gives a bound.

    Attributes:
      positions: half-open, of the time that the columns added next are about (see `tree.py`).
      spans: by column, the positions that it is about.
    """

    def __init__(self) -> None:
        self.low: list[float] = []
        self.high: list[float] = []
        self.cost: list[float] = []
        self.is_integer: list[bool] = []
        self.positions = (0, 0)
        self.spans: list[tuple[int, int]] = []
        self.row_low: list[float] = []
        self.row_high: list[float] = []
        self._rows: list[int] = []
        self._columns: list[int] = []
        self._values: list[float] = []
        self.constant = 0.0

    def add_column(self, low: float, high: float, cost: float = 0.0, is_integer: bool = False) -> int:
        """Adds a column; returns its number."""
        self.low.append(low)
        self.high.append(high)
        self.cost.append(cost)
        self.is_integer.append(is_integer)
        self.spans.append(self.positions)
        return len(self.low) - 1

    def binary(self) -> Affine:
        """Adds a column that is 0 or 1."""
        return column(self.add_column(0.0, 1.0, is_integer=True))

    def fraction(self) -> Affine:
        """Adds a column between 0 and 1."""
        return column(self.add_column(0.0, 1.0))

    def at_most(self, terms: Affine, limit: float = 0.0) -> None:
        """Requires `terms <= limit`."""
        self._add_row(terms, -np.inf, limit)

    def equal(self, terms: Affine, value: float = 0.0) -> None:
        """Requires `terms == value`."""
        self._add_row(terms, value, value)

    def _add_row(self, terms: Affine, low: float, high: float) -> None:
        row = len(self.row_low)
        self.row_low.append(low - terms.constant)
        self.row_high.append(high - terms.constant)
        for number, value in terms.terms:
            self._rows.append(row)
            self._columns.append(number)
            self._values.append(value)

    def finished(self) -> Rows:
        """Returns the program as arrays."""
        rows, columns = np.array(self._rows, np.int64), np.array(self._columns, np.int64)
        keys, where = np.unique(rows * max(1, len(self.low)) + columns, return_inverse=True)
        values = np.bincount(where, np.array(self._values, np.float64), minlength=len(keys))
        keys, values = keys[values != 0.0], values[values != 0.0]
        return Rows(
            low=np.array(self.low, np.float64),
            high=np.array(self.high, np.float64),
            cost=np.array(self.cost, np.float64),
            is_integer=np.array(self.is_integer, np.bool_),
            row_low=np.array(self.row_low, np.float64),
            row_high=np.array(self.row_high, np.float64),
            rows=keys // max(1, len(self.low)),
            columns=keys % max(1, len(self.low)),
            values=values,
            constant=self.constant,
        )


@dataclass(frozen=True)
class Rows:
    """A program: minimize `constant + cost @ x`, `row_low <= A x <= row_high`, `low <= x <= high`.

    Attributes:
      low, high, cost: `[num_columns]`, finite.
      is_integer: `[num_columns]`.
      row_low, row_high: `[num_rows]`.
      rows, columns, values: `[num_entries]` of A, ordered by row, then column, each once.
      constant: of the objective.
    """

    low: Floats
    high: Floats
    cost: Floats
    is_integer: NDArray[np.bool_]
    row_low: Floats
    row_high: Floats
    rows: Integers
    columns: Integers
    values: Floats
    constant: float

    def with_rows(self, rows: Sequence[tuple[Integers, Floats, float]]) -> Rows:
        """Returns the program with rows `values @ x[columns] <= limit` added, given as `(columns, values, limit)`.

        The columns of each row are ascending.
        """
        first = len(self.row_low)
        lengths = [len(columns) for columns, _, _ in rows]
        numbers = np.repeat(np.arange(first, first + len(rows), dtype=np.int64), lengths)
        return replace(
            self,
            row_low=np.concatenate([self.row_low, np.full(len(rows), -np.inf)]),
            row_high=np.concatenate([self.row_high, [limit for _, _, limit in rows]]),
            rows=np.concatenate([self.rows, numbers]),
            columns=np.concatenate([self.columns, *(columns for columns, _, _ in rows)]),
            values=np.concatenate([self.values, *(values for _, values, _ in rows)]),
        )

    def safe_bound(self, duals: Floats) -> float:
        """Returns a lower bound of `constant + cost @ x`, which holds for any `duals`, `[num_rows]`."""
        # A row without a limit on one side admits no dual value of that sign.
        duals = np.where((duals > 0.0) & ~np.isfinite(self.row_low), 0.0, duals)
        duals = np.where((duals < 0.0) & ~np.isfinite(self.row_high), 0.0, duals)
        reduced = self.cost - np.bincount(self.columns, self.values * duals[self.rows], minlength=len(self.cost))
        side = np.where(duals > 0.0, self.row_low, self.row_high)
        of_rows = duals * np.where(duals != 0.0, side, 0.0)
        of_columns = np.minimum(reduced * self.low, reduced * self.high)
        terms = np.concatenate([of_rows, of_columns])
        scale = np.bincount(self.columns, np.abs(self.values * duals[self.rows]), minlength=len(self.cost))
        error = float(np.abs(terms).sum() + scale @ np.maximum(np.abs(self.low), np.abs(self.high)))
        return self.constant + float(terms.sum()) - _ROUNDING * error
