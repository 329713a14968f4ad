"""A compiled module with what is read from it, a plan for it, and the compiler options that steer by the plan."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from memplan.backends.tpu.decisions import Placement
from memplan.backends.tpu.learning import Lesson
from memplan.backends.tpu.outcome import Candidate
from memplan.backends.tpu.steering import (
    LONG_STAYS,
    RANKINGS,
    SCOPED_LIMIT,
    SORT_ORDER,
    TENSORS,
    Site,
    nudged,
    ranked,
    sites,
    sort_order,
)
from memplan.compiler.emulator.timing import TimingEmulator, lower_bound_all_fast
from memplan.compiler.hardware.target import Target
from memplan.compiler.ir import Graph
from memplan.compiler.mapping.build import BuiltProblem, build
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem

# Index of the fast memory among the memories of a TPU.
FAST = 1

# A change that gains less than this part of the latency is not worth a demand or a nudge.
WORTH_IT = 2e-4

# The stays of a plan may last long: the compiler's own limit, in copies of the whole memory, is lifted.
_NO_LIMIT = "1000"


@dataclass(frozen=True)
class Steering:
    """A way to turn a plan into the order in which values compete.

    Attributes:
      name: for the names of candidates.
      ranking: one of `steering.RANKINGS`, for all that the plan has in fast memory; "" to move only what changes.
      long_stays: whether to lift the compiler's limit on how long a value may stay.
    """

    name: str
    ranking: str
    long_stays: bool


# Which one is best depends on the program; they are tried in this order.
STEERING = (
    Steering("size x time", "size x time", long_stays=True),
    Steering("nudged", "", long_stays=False),
    Steering("size x time, short stays", "size x time", long_stays=False),
    *(Steering(name, name, long_stays=True) for name in RANKINGS if name != "size x time"),
)


@dataclass(frozen=True)
class ScoredModule:
    """A candidate with what was read from its text.

    Attributes:
      candidate: the compile.
      graph: of its text.
      target: that it was compiled for.
      is_steered: whether it carries a plan.
    """

    candidate: Candidate
    graph: Graph
    target: Target
    is_steered: bool = False

    @cached_property
    def built(self) -> BuiltProblem:
        return build(self.graph, self.target)

    @cached_property
    def where(self) -> tuple[Site, ...]:
        """The sites of the accesses of its problem."""
        return sites(self.built)

    @cached_property
    def lesson(self) -> Lesson:
        return Lesson.of(self.graph, self.target)

    @property
    def placement(self) -> Placement:
        return self.lesson.placement

    @property
    def scoped_limit(self) -> int:
        """KiB of fast memory that instructions keep for themselves; 0 where they use another memory."""
        default = self.target.spaces[FAST].scoped_limit // 1024
        return int(self.candidate.options.get(SCOPED_LIMIT, default)) if default else 0

    @property
    def latency(self) -> float:
        assert self.candidate.score is not None
        return self.candidate.score.latency

    @cached_property
    def bound(self) -> float:
        """Seconds that no plan of this module beats by our model: no wait, and everything in fast memory."""
        problem = self.built.problem
        if problem.given is None:
            return 0.0
        room = TimingEmulator(problem).latency(problem.given) - lower_bound_all_fast(problem)
        return self.latency - max(room, 0.0)


@dataclass(frozen=True)
class PlannedModule:
    """A plan for one compiled module.

    Attributes:
      base: the module.
      problem, plan: what was planned, and the plan.
      latency: seconds that are predicted for the module with the plan.
      known: how many other modules taught something, and how many buffers were barred from fast memory.
    """

    base: ScoredModule
    problem: MappingProblem
    plan: Plan
    latency: float
    known: tuple[int, int]


def plannable(base: ScoredModule, problem: MappingProblem, dropped: Collection[str]) -> MappingProblem:
    """Returns the problem as the compiler will see it.

    The whole scoped limit is reserved, and buffers for which the compiler refused a demand are barred from fast memory.

    Args:
      base: the module.
      problem: of the module, with what other modules taught.
      dropped: names of the buffers whose demands were refused.
    """
    limit = base.scoped_limit * 1024
    operations = tuple(
        replace(
            operation,
            reserved=tuple(max(size, limit) if i == FAST else size for i, size in enumerate(operation.reserved)),
        )
        for operation in problem.operations
    )
    room = problem.spaces[FAST].capacity - limit
    buffers = tuple(
        replace(buffer, spaces=buffer.spaces[:1])
        if buffer.spaces[:1] == (0,)
        and buffer.initial_space in (None, 0)
        and buffer.final_space in (None, 0)
        and (buffer.size > room or buffer.name in dropped)
        else buffer
        for buffer in problem.buffers
    )
    # The compiler chooses which argument stays from run to run; a plan cannot name it.
    return replace(problem, operations=operations, buffers=buffers, cross_program_prefetches=0, given=None)


def steered(planned: PlannedModule, steering: Steering) -> dict[str, str]:
    """Returns the options that steer the compiler by a plan, in addition to those of its module."""
    problem, given = planned.problem, planned.base.built.problem.given
    last: list[int] = []
    if steering.ranking:
        first = ranked(problem, planned.plan, steering.ranking)
    else:
        assert given is not None
        first, last = nudged(problem, planned.plan, given, WORTH_IT * planned.base.latency)
    options = {SORT_ORDER: sort_order(problem, first, last)} if first or last else {}
    if options and steering.long_stays:
        options[LONG_STAYS] = _NO_LIMIT
    return options


def without_plan(options: Mapping[str, str]) -> dict[str, str]:
    """Returns compiler options without those that steer by a plan."""
    return {name: value for name, value in options.items() if name not in (SORT_ORDER, TENSORS, LONG_STAYS)}
