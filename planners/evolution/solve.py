"""The planner `evolution`: an evolutionary search over decisions such as those of the mallocGame.

It is the baseline of "Optimizing Memory Mapping Using Deep Reinforcement Learning" (Wang et al., 2023), as far as the
abstract describes it. An individual is a vector of decisions, one for each access, decoded in the order of the program
(`breeding_kernel.py`). Its fitness is the emulated latency. The search starts from random individuals. It is a
steady-state genetic algorithm with tournaments (Whitley, "The GENITOR algorithm", 1989; Goldberg and Deb, 1991),
crossover in time or gene by gene, and mutation of a few genes. Room is the sum of sizes; the best individuals of each
generation are packed, and the best plan that results is the answer. Several fast spaces are decided one after another.
"""

from __future__ import annotations

import contextlib
from copy import copy
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners import greedy, slow
from memplan.planners.evolution.breeding_kernel import NUM_ACTIONS, Population, decode, evolve
from memplan.planners.incumbent import Incumbent
from memplan.planners.planner import Budget, Planner
from memplan.planners.stays.assembly import Stay
from memplan.planners.stays.decisions import Decisions
from memplan.planners.stays.evaluation import in_one_piece, make_evaluation
from memplan.planners.stays.frame import Frame, fast_spaces
from memplan.planners.stays.kept import kept_choices
from memplan.planners.stays.placing import offsets_of, placed
from memplan.planners.stays.rules import Rules
from memplan.planners.stays.small_problem import small_problem
from memplan.planners.stays.tables import ITEM_ROW

# Children that are bred before the guard is asked.
_AT_ONCE = 16

# The children times the genes of each in all generations, by effort, and the most generations.
_WORK, _MOST_GENERATIONS = (2_000_000, 100_000_000, 1_000_000_000), (100, 3_000, 30_000)


@dataclass(frozen=True)
class EvolutionOptions:
    """How to evolve.

    Attributes:
      population: individuals.
      generations: as many children as individuals each, in each fast space; None for what the effort affords.
      tournament: of how many a parent is the best.
      crossover: probability that a child has two parents.
      mutation: genes that change in a child, on average.
      packed: how many of a generation are packed, the best first; their fitness is the latency of what finds room.
      moves: whether to rearrange the plan at the end.
    """

    population: int = 64
    generations: int | None = None
    tournament: int = 3
    crossover: float = 0.7
    mutation: float = 2.0
    packed: int = 8
    moves: bool = True


def solve_with(problem: MappingProblem, budget: Budget, options: EvolutionOptions) -> Plan:
    """Returns a plan that is never slower than everything at home.

    Raises:
      PlannerError: the buffers do not fit their homes.
    """
    evolution = _Evolution(problem, budget, options, slow.solve(problem, budget))
    with contextlib.suppress(KeyboardInterrupt):  # What was found until then is the answer.
        for space in fast_spaces(problem):
            evolution.run(space)
        if options.moves:
            evolution.best.finish()
    return evolution.best.plan


class _Evolution:
    """The best plan so far, and how it is improved."""

    def __init__(self, problem: MappingProblem, budget: Budget, options: EvolutionOptions, first: Plan):
        self.problem, self.budget, self.options = problem, budget, options
        self.emulator = TimingEmulator(problem)
        self.bound = self.emulator.lower_bound() * (1.0 + 1e-9)
        self.generator = np.random.default_rng(budget.seed)
        self.elsewhere: list[Stay] = []  # in the spaces that are decided already
        self.home_offsets: dict[int, int] = {}
        self.best = Incumbent(problem, budget, "evolution", first)

    def run(self, space: int) -> None:
        """Evolves decisions for one fast space; those of the spaces before stay as they are."""
        frame = Frame(self.problem, space, self.elsewhere)
        decisions = [Decisions(frame, Rules(), kept) for kept in kept_choices(frame)]
        best = self._packed(decisions[0])
        if len(frame.lows):
            best = self._evolved(frame, decisions, best)
        self.home_offsets |= best.home_offsets
        self.elsewhere += best.stays

    def _evolved(self, frame: Frame, decisions: list[Decisions], best: _PackedDecisions) -> _PackedDecisions:
        """Returns the best packed decisions that evolve from random ones."""
        options, guard = self.options, self.budget.guard
        generations = self._generations(frame) if options.generations is None else options.generations
        evaluation = make_evaluation(frame, self.emulator)
        tables, _, now = in_one_piece(decisions[0].tables)
        population = self._first_population(frame, decisions, now)
        for number, genes in enumerate(population.genes):
            population.fitness[number] = decode(tables, evaluation, population, genes)
            if guard.reached():
                break  # The fitness of the others stays infinite.
        done, tried = 0, set[bytes]()
        while True:
            for _ in range(options.packed):
                number = int(np.argmin(population.fitness))
                genes = population.genes[number]
                if population.fitness[number] >= best.latency or genes.tobytes() in tried:
                    break
                tried.add(genes.tobytes())
                decode(tables, evaluation, population, genes)
                trial = copy(decisions[genes[-1]])
                trial.tables = tables.copy()
                packed = self._packed(trial)
                population.fitness[number] = packed.latency
                best = packed if packed.latency < best.latency else best
            is_enough = done >= generations * options.population
            if is_enough or best.latency <= self.bound or guard.reached():
                return best
            for _ in range(0, options.population, _AT_ONCE):
                if not guard.reached():
                    rates = (options.tournament, options.crossover, options.mutation)
                    evolve(tables, evaluation, population, _AT_ONCE, *rates)
            done += options.population

    def _generations(self, frame: Frame) -> int:
        """Returns how many generations the effort affords."""
        genes = self.options.population * (len(frame.chains.chain) + self.problem.end)
        return max(1, min(self.budget.effort.of(*_MOST_GENERATIONS), self.budget.effort.of(*_WORK) // genes))

    def _first_population(self, frame: Frame, decisions: list[Decisions], now: NDArray[np.int64]) -> Population:
        """Returns individuals each of which draws its genes with probabilities of its own."""
        num_items, size = len(frame.chains.chain), self.options.population
        order = np.lexsort((np.arange(num_items), frame.chains.chain, frame.chains.start))
        position = np.full(num_items + 1, num_items)
        position[order] = np.arange(num_items)
        genes = np.zeros((size, num_items + 1), np.uint8)
        for number in range(size):
            shares = self.generator.dirichlet(np.full(NUM_ACTIONS, 0.5))
            genes[number, :num_items] = self.generator.choice(NUM_ACTIONS, num_items, p=shares)
        genes[:, num_items] = self.generator.integers(len(decisions), size=size)
        return Population(
            genes=genes,
            fitness=np.full(size, np.inf),
            order=order,
            position=position,
            empty=np.stack([in_one_piece(choice.tables)[2] for choice in decisions]),
            now=now,
            stay=np.zeros(1, ITEM_ROW),
            random=self.generator.integers(2**62, size=1).astype(np.uint64),
        )

    def _packed(self, decisions: Decisions) -> _PackedDecisions:
        """Packs decisions, drops what finds no place, and reports the plan if it is the best so far."""
        decisions, offsets, _ = placed(decisions, offsets_of(decisions))
        stays, home_offsets = decisions.stays(offsets), dict(zip(decisions.frame.homes, offsets.tolist(), strict=False))
        latency = self.emulator.latency_of(*decisions.arrays())
        if latency < self.best.latency:
            self.best.offer_stays([*self.elsewhere, *stays], self.home_offsets | home_offsets)
        return _PackedDecisions(latency, stays, home_offsets)


@dataclass(frozen=True)
class _PackedDecisions:
    """Decisions in one space that all have offsets."""

    latency: float
    stays: list[Stay]
    home_offsets: dict[int, int]


def solve(problem: MappingProblem, budget: Budget) -> Plan:
    """Returns the best plan of `solve_with` under the default options."""
    return solve_with(problem, budget, EvolutionOptions())


@cache
def prepare() -> None:
    """Compiles the kernels, or loads them."""
    greedy.prepare()
    solve_with(small_problem(), Budget(), EvolutionOptions(generations=10))


PLANNER = Planner(
    "evolution", "An evolutionary search over the moves of the mallocGame, from nothing.", solve, prepare=prepare
)
