"""Problems of random programs: each program traced, fused by memplan's own passes, and given a target of its own.

    random_program(seed) ── trace, clean up, fuse ──► Graph ── target with drawn rates ──► problem
                                                     capacity that over-subscribes the fast memory as drawn ──► problem

A target is one of memplan's with other figures: the rates and latency of its memories and links are drawn within the
factors below, and so is how much fast memory a fused group may keep, which decides how far the program is fused. Then
the capacity of the fast memory follows from the problem itself.

No compiler takes part, so a problem depends on its seed and on memplan's and JAX's versions alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from memplan.compiler.hardware.target import Target, load_target
from memplan.compiler.ir.memory_order import scheduled
from memplan.compiler.mapping.build import build_problem, memory_links, memory_spaces
from memplan.compiler.mapping.problem import MappingProblem
from memplan.passes.base import GraphContext
from memplan.passes.graph.fusion import fusion_memories
from memplan.passes.graph_manager import DEFAULT, chosen_graph_passes, run_graph_passes

if TYPE_CHECKING:
    from memplan.workloads import Workload

__all__ = ["RandomProblem", "random_problem"]

# What targets are made from: chips whose compiler plans a fast memory.
BASES = ("tpu-v4", "tpu-v5e", "tpu-v5p", "tpu-v6e")

# How often the buffers that want the fast memory would fill it, at the moment when most do.
OVERSUBSCRIPTION = (1.5, 8.0)

# By what figures of the base are multiplied, at the least and at the most.
SLOW_BANDWIDTH, FAST_BANDWIDTH, LINK_SHARE, LATENCY = (0.08, 0.4), (0.5, 2.0), (0.5, 1.0), (0.25, 4.0)

# Bytes of fast memory that a fused group may keep.
TILES = tuple(1 << power for power in range(14, 20))

# Operations of a problem; a program that makes fewer or more is drawn again.
OPERATIONS = (100, 2000)


@dataclass(frozen=True)
class RandomProblem:
    """A problem and what it was made of.

    Attributes:
      program: the workload that was traced.
      target: that it is planned for.
      problem: what planners see.
      oversubscription: of the target's fast memory, see `oversubscription`.
      structure: digest of the problem without names and without the target's figures. Problems with the same digest are
        of programs that differ in names alone.
    """

    program: Workload
    target: Target
    problem: MappingProblem
    oversubscription: float
    structure: str


def random_problem(seed: int, family: str | None = None) -> RandomProblem:
    """Returns the problem of a seed.

    Args:
      seed: of the program and of the target.
      family: of the program, one of `memplan.workloads.random_programs.FAMILIES`; None draws one.

    Raises:
      MemplanError: the seed is negative, or there is no such family.
    """
    from memplan.workloads.random_programs import random_program

    program = random_program(seed, family)
    draw = random.Random(f"memplan target {seed} {family}")
    target = drawn_target(draw, f"{program.name}.target")
    wanted = _between(draw, OVERSUBSCRIPTION)
    return problem_of(program, target, wanted)


def drawn_target(draw: random.Random, name: str) -> Target:
    """Returns a target made from one of `BASES`, with the capacity of its base."""
    base = load_target(draw.choice(BASES))
    slow, fast = fusion_memories(base)  # type: ignore[misc]
    slow_factor, fast_factor, share, latency = (
        _between(draw, factors) for factors in (SLOW_BANDWIDTH, FAST_BANDWIDTH, LINK_SHARE, LATENCY)
    )
    spaces = list(base.spaces)
    for index, factor in ((slow, slow_factor), (fast, fast_factor)):
        space = spaces[index]
        spaces[index] = replace(space, peak_bandwidth=space.peak_bandwidth * factor, bandwidth=space.bandwidth * factor)
    spaces[fast] = replace(spaces[fast], scoped_limit=draw.choice(TILES))
    links = tuple(
        replace(
            link,
            peak_bandwidth=link.peak_bandwidth * slow_factor * share,
            bandwidth=link.bandwidth * slow_factor * share,
            latency=link.latency * latency,
        )
        for link in base.links
    )
    description = f"made from {base.name}: no hardware is like it"
    return replace(base, name=name, description=description, spaces=tuple(spaces), links=links, file="")


def problem_of(program: Workload, target: Target, wanted: float) -> RandomProblem:
    """Returns a program's problem on a target whose fast memory is made small enough to be contended.

    Args:
      program: to be traced.
      target: its fast memory is of any size.
      wanted: how often the fast memory is to be over-subscribed. What the sizes of the buffers allow comes near it.
    """
    from memplan.compiler.frontends.jaxpr import trace

    fun, args = program.build()
    traced = trace(fun, *args, donate_argnums=program.donate_argnums)
    passes = chosen_graph_passes(DEFAULT)
    fused = run_graph_passes(traced, passes, GraphContext(target, fast_share=0.0)).graph
    problem = replace(build_problem(scheduled(fused), target), name=program.name)
    _, fast = fusion_memories(target)  # type: ignore[misc]
    capacity = capacity_for(problem, fast, wanted)
    space = target.spaces[fast]
    spaces = list(target.spaces)
    spaces[fast] = replace(space, size=capacity + space.system_reserved)
    target = replace(target, spaces=tuple(spaces))
    problem = replace(problem, spaces=memory_spaces(target), links=memory_links(target))
    return RandomProblem(program, target, problem, oversubscription(problem, fast), structure(problem))


def capacity_for(problem: MappingProblem, fast: int, wanted: float) -> int:
    """Returns the capacity of a space at which `oversubscription` is nearest to what is wanted, in bytes."""
    demand = _Demand(problem, fast)
    largest = max(float(demand.peak(math.inf)), 1.0)
    # A buffer that is larger than the memory does not count, so the ratio jumps at the sizes of buffers.
    rooms = {largest / 2 ** (step / 8) for step in range(8 * 8)}
    rooms |= {float(size) for size in demand.sizes}
    rooms |= {demand.peak(room) / wanted for room in rooms}
    alignment = problem.spaces[fast].alignment
    sized = sorted({max(1, math.ceil(room / alignment)) * alignment for room in rooms})
    best = min(sized, key=lambda room: (abs(math.log(max(demand.peak(room), 1) / room / wanted)), -room))
    return best + demand.reserved


def oversubscription(problem: MappingProblem, fast: int = 1) -> float:
    """Returns how often the buffers that want a space would fill what operations leave of it, at the worst moment.

    A buffer wants it if it fits, may lie there, and some access to it is faster there; from its first access to its
    last one.
    """
    demand = _Demand(problem, fast)
    room = problem.spaces[fast].capacity - demand.reserved
    return demand.peak(room) / room if room > 0 else math.inf


class _Demand:
    """The buffers that want a space.

    Attributes:
      sizes: `[number] int64` of the buffers that want it.
      reserved: the most bytes that an operation keeps there.
    """

    def __init__(self, problem: MappingProblem, fast: int):
        wanting = [
            (buffer.size, problem.accesses[numbers[0]][0], problem.accesses[numbers[-1]][0] + 1)
            for buffer, numbers in zip(problem.buffers, problem.accesses_of, strict=True)
            if numbers and fast in buffer.spaces and any(_gains(problem.accesses[i][1].cost, fast) for i in numbers)
        ]
        table = np.array(wanting, np.int64).reshape(-1, 3)
        self.sizes, self._starts, self._ends = table[:, 0], table[:, 1], table[:, 2]
        self._length = problem.end + 1
        self.reserved = max((operation.reserved[fast] for operation in problem.operations), default=0)

    def peak(self, room: float) -> int:
        """Returns the most bytes that are wanted at once by buffers of at most `room` bytes."""
        fits = self.sizes <= room
        change = np.zeros(self._length + 1, np.int64)
        np.add.at(change, self._starts[fits], self.sizes[fits])
        np.subtract.at(change, self._ends[fits], self.sizes[fits])
        return int(np.cumsum(change).max())


def _gains(cost: tuple[float, ...], fast: int) -> bool:
    return cost[fast] < cost[0]


def structure(problem: MappingProblem) -> str:
    """Returns the digest of a problem without names, rates and capacities."""
    parts = [
        [[region.kind.value, region.start, region.end, region.parent, region.trip_count] for region in problem.regions],
        [
            [operation.opcode, operation.region, [[a.buffer, a.kind.value, a.bytes] for a in operation.accesses]]
            for operation in problem.operations
        ],
        [[b.size, b.start, b.end, b.initial_space, b.final_space, b.persistent] for b in problem.buffers],
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def is_of_size(problem: MappingProblem) -> bool:
    """Returns whether a problem has as many operations as `OPERATIONS` says."""
    return OPERATIONS[0] <= problem.end <= OPERATIONS[1]


def _between(draw: random.Random, factors: tuple[float, float]) -> float:
    """Draws a number between two, evenly in its logarithm."""
    return math.exp(draw.uniform(math.log(factors[0]), math.log(factors[1])))
