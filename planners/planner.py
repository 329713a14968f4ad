"""What a planner is, and where planners are registered.

A planner is one module of this package with a `Planner` at its top, the module `solve` of a package within it, an entry
point of the group `memplan.planners`, or what `register` is called with:

>>> import memplan.planners.planner as planners
>>> planners.get("slow").description
'Everything in the slow memory: what all other plans are compared with.'
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from memplan.compiler.errors import PlannerError
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.registry import Registry

# Makes the plans where nobody named another.
DEFAULT_PLANNER = "auto"


def _tell_nobody(plan: Plan) -> None:
    """Does nothing."""


@dataclass(frozen=True)
class Budget:
    """What a planner may spend, and whom it tells of what it finds.

    A planner that searches returns the best plan so far when the user interrupts it (KeyboardInterrupt), if it has one.

    Attributes:
      seconds: of wall-clock time; a planner that needs less returns earlier.
      seed: of whatever it draws at random. The same problem and seed give the same plan, as long as the time suffices.
      on_plan: called with each valid plan that is better than those before, as soon as it is found.
    """

    seconds: float = 60.0
    seed: int = 0
    on_plan: Callable[[Plan], None] = _tell_nobody


@dataclass(frozen=True)
class Planner:
    """A method to answer a MappingProblem.

    Attributes:
      name: as in `memplan plan --planner NAME`.
      description: one line.
      solve: returns a valid plan; raises PlannerError if it cannot, with what the user can do.
      needs: libraries that memplan itself does without, by the names that they are imported by.
    """

    name: str
    description: str
    solve: Callable[[MappingProblem, Budget], Plan]
    needs: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        """Returns the libraries that it needs and that are not installed."""
        return [name for name in self.needs if find_spec(name) is None]


def num_cores() -> int:
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_registry: Registry[Planner] = Registry("planner", "memplan.planners", Planner, PlannerError, entry="solve")
get = _registry.get
names = _registry.names
register = _registry.register
