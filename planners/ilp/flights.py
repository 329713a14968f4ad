"""Flight cuts: a copy holds all of its destination, and all of its source, while it must move.

A linear program lets a half of a copy take a half of the memory for a half of the time. An integer solution has all of
the copy in memory for all of its time, unless its channel is idle for longer. If a copy is *confined* to a part of its
window (`model.Flight`), it moves for `seconds` there, and the part offers `idle`, an expression of the model. With each
column of `idle` written by its distance from one of its bounds,

    seconds * confined  <=  idle  <=  base + slack        slack: nonnegative distances times positive coefficients

As `confined` is an integer of at most 1, the mixed-integer rounding of this row (Nemhauser and Wolsey, "A recursive
procedure to generate all cuts for 0-1 mixed integer programs", 1990) is valid too, if `seconds` is more than `base`:

    (seconds - base) * confined  <=  slack
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memplan.planners.ilp.linear import Rows
from memplan.planners.ilp.model import Flight, Relaxation

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# By how much a solution must break a cut that is added, whose coefficient of `confined` is 1.
_LEAST_BREACH = 1e-2

# Cuts are kept well scaled: `base` is at most this share of the copy's time, and what a column can add to `slack` is at
# least this share of the time that is left.
_MOST_OF_BASE, _LEAST_FACTOR = 0.99, 1e-5

# The share of all numbers of a cut by which it is weakened, far more than rounding can be.
_ROUNDING = 1e-11


@dataclass(frozen=True)
class FlightCut:
    """The cut `coefficients @ x[columns] <= limit`, with its proof.

    Attributes:
      flight: what is confined.
      base: of the idle time of its part, in units.
      columns, coefficients, limit: the row; columns are ascending.
      breach: by how much the solution that it was made for breaks it.
    """

    flight: Flight
    base: float
    columns: Integers
    coefficients: Floats
    limit: float
    breach: float


class FlightCuts:
    """Finds the flight cuts of a model that solutions break.

    Args:
      model: whose precision is `whole`.
      rows: its program.
    """

    def __init__(self, model: Relaxation, rows: Rows):
        self._model, self._rows = model, rows
        self._flights = [flight for flight in model.flights if flight.low < flight.high]
        size = 2 * model.problem.end + 2
        # By channel, `[num_positions]` how long it is idle.
        self._idle = {channel: [idle.get(position) for position in range(size)] for channel, idle in model.idle.items()}

    def separated(self, values: Floats, most: int) -> list[FlightCut]:
        """Returns the cuts that a solution, `[num_columns]`, breaks most, at most one for each copy and end."""
        found: dict[tuple[int, int], FlightCut] = {}
        elapsed = {
            channel: np.concatenate([[0.0], np.cumsum([0.0 if part is None else part.value(values) for part in parts])])
            for channel, parts in self._idle.items()
        }
        for flight in self._flights:
            confined, seconds = flight.confined.value(values), flight.seconds / self._model.unit
            offered = elapsed[flight.channel][flight.high] - elapsed[flight.channel][flight.low]
            # Where the part offers the time for all of the copy, or none of it is confined, nothing is broken.
            if confined < _LEAST_BREACH or offered >= seconds:
                continue
            cut = self.cut(flight, values)
            key = flight.confined.terms[0][0], flight.space
            least = found[key].breach if key in found else _LEAST_BREACH
            if cut is not None and cut.breach > least:
                found[key] = cut
        return sorted(found.values(), key=lambda cut: (-cut.breach, cut.flight.low, cut.columns.tolist()))[:most]

    def cut(self, flight: Flight, values: Floats) -> FlightCut | None:
        """Returns the cut of a flight; columns are written from the bounds that a solution is closer to.

        None if the flight takes hardly longer than `base`, or no longer.
        """
        unit, low, high = self._model.unit, self._rows.low, self._rows.high
        parts = [part for part in self._idle[flight.channel][flight.low : flight.high] if part is not None]
        terms = np.array([term for part in parts for term in part.terms], np.float64).reshape(-1, 2)
        columns, where = np.unique(terms[:, 0].astype(np.int64), return_inverse=True)
        factors = np.bincount(where, terms[:, 1], minlength=len(columns))
        at_low = values[columns] - low[columns] <= 0.5 * (high[columns] - low[columns])
        # Distances from a bound that make less of the time idle are left out.
        base = sum(part.constant for part in parts) + float(factors @ np.where(at_low, low[columns], high[columns]))
        left = flight.seconds / unit - base
        if base >= _MOST_OF_BASE * flight.seconds / unit:
            return None
        factors = np.where(at_low, factors, -factors)
        reach = factors * (high[columns] - low[columns])
        is_used = reach > _LEAST_FACTOR * left
        # What counts for too little to be a number of the row weakens it instead.
        dropped = float(reach[(reach > 0.0) & ~is_used].sum())
        columns, factors, at_low = columns[is_used], factors[is_used], at_low[is_used]
        signs, bounds = np.where(at_low, 1.0, -1.0), np.where(at_low, low[columns], high[columns])
        # left * confined - factors * distance <= dropped, where distance is x - low or high - x
        row = dict(zip(columns.tolist(), (-factors * signs / left).tolist(), strict=True))
        for number, factor in flight.confined.terms:
            row[number] = row.get(number, 0.0) + factor
        limit = (dropped - float(factors * signs @ bounds)) / left - flight.confined.constant
        limit += _ROUNDING * (1.0 + (abs(base) + float(np.abs(terms[:, 1]).sum())) / left)
        members = np.array(sorted(row), np.int64)
        coefficients = np.array([row[number] for number in members.tolist()])
        breach = float(coefficients @ values[members]) - limit
        return FlightCut(flight, base, members, coefficients, limit, breach)
