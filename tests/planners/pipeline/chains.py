"""Chains of layers, and their best split by enumeration and simulation."""

from __future__ import annotations

import itertools
import random
from typing import Any

from memplan.planners.pipeline import PipelineLayer, PipelinePlan, PipelineProblem
from memplan.planners.pipeline.verifier import simulate


def drawn_chain(layers: int, seed: int, **options: Any) -> PipelineProblem:
    """Returns a problem of layers at random, of times that floats hold exactly."""
    draw = random.Random(seed)
    chain = tuple(
        PipelineLayer(
            f"layer {number}",
            draw.randint(1, 9) / 4,
            draw.randint(1, 18) / 4,
            draw.randint(1, 50),
            draw.randint(1, 20),
            draw.randint(1, 8),
        )
        for number in range(layers)
    )
    return PipelineProblem(chain, first=3, **options)


def enumerated(problem: PipelineProblem) -> tuple[float, int] | None:
    """Returns the least time of a step within the limit, and the bytes of its fullest device; None if nothing fits."""
    count, pieces = len(problem.layers), problem.stages * problem.chunks
    best = None
    for cuts in itertools.combinations(range(1, count), pieces - 1):
        for recompute in itertools.product((False, True) if problem.recompute else (False,), repeat=pieces):
            time, memory = simulate(problem, PipelinePlan((*cuts, count), recompute, 0.0, (), 0.0, ""))
            if (problem.limit is None or max(memory) <= problem.limit) and (best is None or time < best[0]):
                best = time, max(memory)
    return best
