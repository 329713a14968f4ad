"""The FitPlan: an explicit schedule of runs and transfers.

    Run(node)       the node runs; its outputs become resident
    Store(value)    the value starts on its way to the host, and must stay until it is there
    Stored(value)   the computation waits until it is there; its room is free from here on, if nothing else reads it
    Load(value)     the value starts on its way back; its room is taken from here on
    Loaded(value)   the computation waits until it is back; it can be read from here on

An *instance* of a value lives from the `Run` or `Load` that makes it to its last use before the next `Run` or `Load`
that makes it; `Stored` and `Loaded` are uses. Nothing else says that a value leaves. Results live to the end, and
arguments that are not donated always. A node whose outputs were dropped may run again, and the order of runs need not
be the order of the program.

Transfers go through two channels beside the computation, one to the host and one from it, each first in, first out. A
transfer of b bytes takes `latency + b / rate` seconds from when it is issued and its channel is free. The added cost of
a plan is the seconds of all runs beyond the first of each node, plus the seconds that `Stored` and `Loaded` wait.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.errors import PlanError, PlannerError
from memplan.compiler.mapping.documents import (
    check_fields,
    document_of,
    fields,
    integer,
    number,
    one_of,
    parse_json,
    row,
    rows,
)

SCHEMA = "memplan.fit_plan/1"


@dataclass(frozen=True, slots=True)
class Run:
    """The node runs."""

    node: int


@dataclass(frozen=True, slots=True)
class Store:
    """The value starts on its way to the host."""

    value: int


@dataclass(frozen=True, slots=True)
class Stored:
    """The value is on the host."""

    value: int


@dataclass(frozen=True, slots=True)
class Load:
    """The value starts on its way back from the host."""

    value: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """The value is back from the host."""

    value: int


FitStep = Run | Store | Stored | Load | Loaded

# The kinds of steps, by their numbers in arrays.
KINDS: tuple[type[FitStep], ...] = (Run, Store, Stored, Load, Loaded)
RUN, STORE, STORED, LOAD, LOADED = range(5)
_NAMES = tuple(kind.__name__.lower() for kind in KINDS)


@dataclass(frozen=True)
class FitPlan:
    """A schedule, and what its planner says of it.

    Attributes:
      steps: the schedule.
      peak: the most bytes that are resident at once.
      cost: seconds that it adds to those of the program.
      bound: seconds that any plan within the same limit adds at least.
      info: what the planner notes beside these, as JSON values.
    """

    steps: tuple[FitStep, ...]
    peak: int = 0
    cost: float = 0.0
    bound: float = 0.0
    info: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The kind of each step (its position in `KINDS`), and its node or value, both `[steps]`."""
        number_of = {kind: number for number, kind in enumerate(KINDS)}
        kinds = np.array([number_of[type(step)] for step in self.steps], np.int64)
        which = np.array([step.node if isinstance(step, Run) else step.value for step in self.steps], np.int64)
        return kinds, which

    @property
    def order(self) -> list[int]:
        """The nodes in the order in which they first run."""
        return list(dict.fromkeys(step.node for step in self.steps if isinstance(step, Run)))

    def to_json(self) -> str:
        """Returns the plan as JSON; `from_json` reads it back exactly."""
        kinds, which = self.arrays
        return json.dumps(
            {
                "schema": SCHEMA,
                "peak": self.peak,
                "cost": self.cost,
                "bound": self.bound,
                "info": dict(self.info),
                "steps": [[_NAMES[kind], index] for kind, index in zip(kinds.tolist(), which.tolist(), strict=True)],
            }
        )

    @staticmethod
    def from_json(content: str, file: str = "<string>") -> FitPlan:
        """Reads what `to_json` wrote; raises PlanError, naming the place, if it is malformed."""
        data = document_of(parse_json(content, file), "fit plan", SCHEMA, file)
        seconds = number(at_least=0.0)
        check_fields(data, file, peak=integer(0), cost=seconds, bound=seconds, info=fields)
        check_fields(data, file, steps=rows(row(kind=one_of(_NAMES), index=integer(0))))
        steps = tuple(KINDS[_NAMES.index(kind)](index) for kind, index in data["steps"])
        return FitPlan(steps, data["peak"], data["cost"], data["bound"], data["info"])


def plan_of(kinds: NDArray[np.int64], which: NDArray[np.int64]) -> FitPlan:
    """Returns the plan whose `FitPlan.arrays` are these."""
    return FitPlan(tuple(KINDS[kind](index) for kind, index in zip(kinds.tolist(), which.tolist(), strict=True)))


class FitError(PlannerError):
    """No plan within the limit was found, or none exists.

    Attributes:
      limit: that was asked for, bytes.
      proven: the least peak that any plan can have, bytes, as far as it is proven.
      found: the least peak of a plan that was found, bytes.
      plan: that plan.
      standing: the values that are resident at its peak, the largest first, as `(value, bytes)`.
      is_impossible: whether it is proven that no plan fits.
    """

    def __init__(self, message: str, limit: int, proven: int, plan: FitPlan, standing: tuple[tuple[int, int], ...]):
        super().__init__(message)
        self.message, self.limit, self.proven, self.plan, self.standing = message, limit, proven, plan, standing
        self.found = plan.peak
        self.is_impossible = proven > limit

    def __reduce__(self) -> tuple[type[FitError], tuple[Any, ...]]:
        return FitError, (self.message, self.limit, self.proven, self.plan, self.standing)


def check_steps(plan: FitPlan, num_values: int, num_nodes: int) -> None:
    """Raises PlanError, naming the step, if a step names a node or value that the problem does not have."""
    kinds, which = plan.arrays
    count = np.where(kinds == RUN, num_nodes, num_values)
    for step in np.flatnonzero((which < 0) | (which >= count))[:1]:
        what = "node" if kinds[step] == RUN else "value"
        raise PlanError(f"steps[{step}]: there is no {what} {which[step]}")
