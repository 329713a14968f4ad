"""Problems of levels, and their optimum by enumeration."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

from memplan.planners.levels import LayerLevels, Level, LevelProblem


def problem_of(rows: Sequence[Sequence[tuple[float, float]]], budget: float, limited: str = "cost") -> LevelProblem:
    """Returns the problem of rows of (cost, error)."""
    layers = tuple(
        LayerLevels(f"layer {i}", tuple(Level(f"level {j}", cost, error) for j, (cost, error) in enumerate(row)))
        for i, row in enumerate(rows)
    )
    return LevelProblem(layers, budget, limited)  # type: ignore[arg-type]


def enumerated(problem: LevelProblem) -> float | None:
    """Returns the least total within the budget; None if nothing is within it."""
    best = None
    for choice in itertools.product(*(range(len(layer.levels)) for layer in problem.layers)):
        cost, error = problem.totals(choice)
        spent, value = (cost, error) if problem.limited == "cost" else (error, cost)
        if spent <= problem.budget and (best is None or value < best):
            best = value
    return best


def drawn(layers: int, levels: int, kind: str, seed: int, share: float = 0.3) -> LevelProblem:
    """Returns a problem of a kind: `random` costs and errors, `bits` with convex errors, `noisy` ones, or `subset` sums."""
    draw = random.Random(seed)
    rows = []
    for _ in range(layers):
        size, scale = draw.randint(1_000, 100_000), draw.uniform(0.1, 10.0)
        row: list[tuple[float, float]] = []
        for level in range(levels):
            if kind == "random":
                row.append((draw.randint(0, 10**6), draw.random()))
            elif kind == "subset":
                cost = draw.randint(1, 1_000)
                row.append((cost, 1_000 - cost))
            else:
                noise = draw.uniform(0.5, 1.5) if kind == "noisy" else 1.0
                row.append((size * (level + 1) // levels, scale * 1.3**-level * noise))
        rows.append(row)
    least, most = (sum(choose(cost for cost, _ in row) for row in rows) for choose in (min, max))
    return problem_of(rows, int(least + share * (most - least)))
