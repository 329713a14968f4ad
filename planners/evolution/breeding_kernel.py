"""Decoding and breeding for `evolution`. Compiled by numba.

A gene says what becomes of one item of a chain (`chains.py`): an access, or a loop or conditional as a whole. Genes are
decoded in the order of the program, under the rules by which all planners take runs (`runs_kernel.py`). A use and the
following ones that keep the buffer are decided at once, because a value in fast memory need not come home before a use
that finds it there. What is not possible then is dropped.

    DROP   the access is served at home
    COPY   a copy brings the buffer in for it, if it arrives in time
    WAIT   the same, and the operation may wait for it
    KEEP   it stays from its use before, or is produced in fast memory
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.arrays_kernel import copy_to
from memplan.compiler.by_reference import by_reference
from memplan.compiler.kernels import entry, internal
from memplan.planners.stays.booking_kernel import refresh
from memplan.planners.stays.evaluation import Evaluation
from memplan.planners.stays.evaluation_kernel import latency_of_tables
from memplan.planners.stays.random_kernel import below, uniform
from memplan.planners.stays.rules import CHANNEL_PRICE, TRIES
from memplan.planners.stays.runs_kernel import try_run
from memplan.planners.stays.tables import NONE, StayTables

DROP, COPY, WAIT, KEEP = range(4)
NUM_ACTIONS = 4


class Population(NamedTuple):
    """All individuals, and what they are decoded with. The last gene is the choice of the argument that is kept.

    Attributes:
      genes: `[population, num_items + 1] uint8`.
      fitness: `[population]` seconds.
      order: `[num_items]` items in the order of the program, a loop before what is inside of it.
      position: `[num_items + 1]` of each gene in that order: what crossover cuts.
      empty: `[num_kept, size]` what the tables hold when nothing is decided, by the kept argument.
      now: `[size]` what the tables hold.
      stay: `[1]` ITEM_ROW, scratch.
      random: `[1] uint64`.
    """

    genes: NDArray[np.uint8]
    fitness: NDArray[np.float64]
    order: NDArray[np.int64]
    position: NDArray[np.int64]
    empty: NDArray[np.int64]
    now: NDArray[np.int64]
    stay: NDArray[np.void]
    random: NDArray[np.uint64]


by_reference(Population)


@entry
def decode(s: StayTables, e: Evaluation, p: Population, genes: np.ndarray) -> float:
    """Decides as the genes say; returns the seconds of the program."""
    copy_to(p.now, p.empty[genes[len(p.order)]])
    refresh(s)
    for place in range(len(p.order)):
        number = p.order[place]
        action, item = genes[number], s.items[number]
        if action == DROP or item.run != NONE:
            continue
        chain = s.chains[item.chain]
        if action == KEEP and item.reads and (number > chain.first or chain.buffer != s.facts[0].kept_buffer):
            continue  # Nothing to be kept is there.
        last = number
        while last + 1 < chain.last and genes[last + 1] == KEEP:
            last += 1
        # A run that is not possible is shortened, from its last use on.
        while last >= number:
            if try_run(s, number, last, CHANNEL_PRICE, TRIES, 1.0 if action == WAIT else 0.0, p.stay[0]):
                break
            last -= 1
    return latency_of_tables(s, e)


@internal
def _tournament(fitness: np.ndarray, size: int, random: np.ndarray) -> int:
    """Returns the best of some individuals drawn at random."""
    best = below(random, len(fitness))
    for _ in range(size - 1):
        other = below(random, len(fitness))
        if fitness[other] < fitness[best]:
            best = other
    return best


@internal
def _breed(p: Population, tournament: int, crossover: float, mutation: float, child: np.ndarray) -> None:
    """Writes a child; see `evolve`."""
    num_genes, random = len(child), p.random
    copy_to(child, p.genes[_tournament(p.fitness, tournament, random)])
    if uniform(random) < crossover:
        other = p.genes[_tournament(p.fitness, tournament, random)]
        by_time = uniform(random) < 0.5
        a, b = below(random, num_genes + 1), below(random, num_genes + 1)
        for number in range(num_genes):
            if by_time:
                takes = min(a, b) <= p.position[number] < max(a, b)
            else:
                takes = uniform(random) < 0.5
            if takes:
                child[number] = other[number]
    for number in range(num_genes - 1):
        if uniform(random) * num_genes < mutation:
            child[number] = below(random, NUM_ACTIONS)
    if uniform(random) * num_genes < mutation:
        child[num_genes - 1] = below(random, len(p.empty))


@entry
def evolve(
    s: StayTables, e: Evaluation, p: Population, children: int, tournament: int, crossover: float, mutation: float
) -> None:
    """Breeds some children, each of which takes the place of the worst of a few if it is not worse (steady state).

    Args:
      s: tables whose decisions lie in `p.now`.
      e: what their latency is computed with.
      p: the population, which changes.
      children: how many.
      tournament: of how many individuals each parent is the best, and the one that a child replaces the worst.
      crossover: probability of two parents; half of these are cut in time, half gene by gene.
      mutation: how many genes change, on average.
    """
    child = np.zeros(p.genes.shape[1], np.uint8)
    for _ in range(children):
        _breed(p, tournament, crossover, mutation, child)
        seconds = decode(s, e, p, child)
        worst = below(p.random, len(p.fitness))
        for _ in range(tournament - 1):
            other = below(p.random, len(p.fitness))
            if p.fitness[other] > p.fitness[worst]:
                worst = other
        is_twin = False
        for other in range(len(p.fitness)):
            if p.fitness[other] == seconds and (p.genes[other] == child).all():
                is_twin = True
        if seconds <= p.fitness[worst] and not is_twin:
            copy_to(p.genes[worst], child)
            p.fitness[worst] = seconds
