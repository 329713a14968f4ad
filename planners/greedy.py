"""The planner `greedy`: XLA's memory space assignment, and what it leaves on the table.

As in XLA (`xla/service/memory_space_assignment`): buffers compete for the fast memory in the order of what they gain;
for each use a buffer is kept from its use before, or prefetched as late as its copy can still arrive in time, or read
where it is; what was written in fast memory and is wanted outside is evicted as early as possible; no copy may make
another late; one argument may stay in fast memory from run to run (cross-program prefetch); offsets are packed anew at
the end. Differences, each with its switch in `GreedyOptions`:

- What competes is not a buffer but the time between two of its uses, so that a buffer does not hold memory over a long
  time without use because it is precious elsewhere. XLA's own order is one of those tried (`orders`).
- Gains are what is still to be gained: an operation that is already bound by compute gains nothing more (`passes`).
- Copies use the time that operations really leave of the link, not all of it.
- Several orders are tried, and the emulator says which plan is best (`orders`); stays that make operations wait for
  longer than they gain are dropped (`drop_losses`).
- What finds no offset makes the memory look smaller around it when the search is repeated (`repacks`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners._assembly import Assembly, Stay, assemble
from memplan.planners._decisions import Decisions, Frame, Order
from memplan.planners.planner import Budget, Planner

Floats = NDArray[np.float64]

# Orders are tried while their number times the number of items stays below this.
_WORK = 250_000


@dataclass(frozen=True)
class GreedyOptions:
    """Techniques of the search. Each can be turned off, and the plan stays valid.

    Attributes:
      prefetch: whether values may be copied into fast memory. Without it, only what is produced there is there.
      evict: whether values that were written in fast memory may be copied home.
      keep_between_uses: whether a stay may serve more than one use.
      cross_program: whether an argument may stay in fast memory from one run of the program to the next.
      orders: in which orders stays compete; every one is tried on a small program, the first on a large one.
      passes: how often the search looks again at what is left, with the gains that are left.
      channel_price: seconds that a second of the link's time is worth, where a stay saves no time itself.
      tries: how many starts of a copy are looked at before it is given up.
      drop_losses: whether to drop stays whose copies make operations wait longer than they gain.
      repacks: how often to search again with less memory around what found no offset.
    """

    prefetch: bool = True
    evict: bool = True
    keep_between_uses: bool = True
    cross_program: bool = True
    orders: tuple[Order, ...] = (
        Order("density", channel_weight=0.3),
        Order("density", channel_weight=0.0),
        Order("density", channel_weight=2.0),
        Order("boundedness"),
        Order("saving"),
    )
    passes: int = 4
    channel_price: float = 0.2
    tries: int = 24
    drop_losses: bool = True
    repacks: int = 4


@dataclass(frozen=True)
class _Candidate:
    """A plan's decisions and what the emulator says of them."""

    latency: float
    stays: tuple[Stay, ...]


def solve_with(problem: MappingProblem, budget: Budget, options: GreedyOptions) -> Plan:
    """Returns a plan that is never slower than everything at home.

    Raises:
      PlannerError: the buffers do not fit their homes.
    """
    raise NotImplementedError
