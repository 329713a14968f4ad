"""The entry: levels of a real network, the best choice of them, and the program with that choice.

Errors of several parts of the network are added; that is the model (`distortion.py`). What the program really does is
measured by running it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from memplan.compiler.effort import Effort
from memplan.compiler.errors import MemplanError
from memplan.passes.levels import attention_ranks
from memplan.passes.levels.attention_ranks import attention_levels
from memplan.passes.levels.network_levels import NetworkLevels
from memplan.passes.levels.weights import WEIGHT_METHODS, weight_levels
from memplan.planners.levels.baselines import uniform_choice, uniform_choices
from memplan.planners.levels.objective import solve_for_objective
from memplan.planners.levels.plan import LevelPlan
from memplan.planners.levels.problem import LevelProblem
from memplan.planners.levels.solve import solve_levels

Objective = Callable[[Callable[..., Any], Any, tuple[Any, ...]], float]

METHODS = (*WEIGHT_METHODS, attention_ranks.METHOD)


@dataclass(frozen=True)
class CompressedProgram:
    """A program with compressed weights, or with compressed keys and values.

    Attributes:
      fun: takes `params` and then what the program takes after its parameters.
      params: what `fun` takes in the place of the parameters.
      problem: the levels; what the method leaves alone has one.
      plan: the best choice by the model.
      measured: the error of running the program with it, measured as the model's is.
      uniform: the best choice of one level for all at the same budget; None if none is within it.
      uniform_measured: its error.
      what: what the bytes are of, such as "parameters".
      before: bytes of these as given.
      taken: the choice of `fun` and `params`: `uniform` if that measures less, otherwise `plan`.
      planned: what an objective says of the program, and of it as given; None if there was none.
    """

    fun: Callable[..., Any]
    params: Any
    problem: LevelProblem
    plan: LevelPlan
    measured: float
    uniform: LevelPlan | None
    uniform_measured: float | None
    what: str
    before: int
    taken: LevelPlan
    planned: tuple[float, float] | None = None

    @property
    def is_uniform(self) -> bool:
        """Whether the uniform choice is taken."""
        return self.taken is self.uniform

    @property
    def after(self) -> int:
        """Bytes now."""
        return int(self.problem.totals(self.taken.choice)[0])


def compress(
    fun: Callable[..., Any], *args: Any, method: str, budget: int, effort: Effort = Effort.NORMAL
) -> CompressedProgram:
    """Compresses a network to a budget of bytes, each part to its own level.

    Args:
      fun: a JAX function; it is run.
      args: arrays. The first is a tree of parameters.
      method: one of `METHODS`. `matryoshka-kv` compresses the keys and values of attention, the others the parameters.
      budget: bytes of all that is compressed together.
      effort: of the solver.

    Raises:
      MemplanError: the method is not known, an argument has no values, there is nothing to compress, the results are
        not finite, or no choice is within the budget (the message states the least).
    """
    return choose_levels(levels_of(fun, *args, method=method), budget, effort)


def levels_of(fun: Callable[..., Any], *args: Any, method: str) -> NetworkLevels:
    """Returns the levels that a method gives the parts of a network; arguments and errors are those of `compress`."""
    if method not in METHODS:
        raise MemplanError(f"no method is called {method!r}; known: {', '.join(METHODS)}")
    if not args or not jax.tree.leaves(args[0]):
        raise MemplanError("the program takes no parameters: its first argument must hold them")
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(args)):
        raise MemplanError("the arguments are shapes alone: levels are chosen by the values, so give arrays")
    args = jax.tree.map(jnp.asarray, args)
    return attention_levels(fun, args) if method == attention_ranks.METHOD else weight_levels(fun, args, method)


def choose_levels(levels: NetworkLevels, budget: int, effort: Effort = Effort.NORMAL) -> CompressedProgram:
    """Returns the program of the choice within a budget of bytes that has the least error, and of what it measures.

    Raises:
      MemplanError: no choice is within the budget.
    """
    problem = LevelProblem(levels.layers, budget)
    return _compressed(levels, problem, solve_levels(problem, effort), uniform_choice(problem))


def choose_for_objective(
    levels: NetworkLevels,
    budget: float,
    objective: Objective,
    evaluations: int = 60,
    at_least_the_bytes: bool = False,
) -> CompressedProgram:
    """Returns the program of the choice of least error that is found where an objective is within the budget.

    The choice is found by a heuristic (`solve_for_objective`), which the bytes lead.

    Args:
      levels: as from `levels_of`.
      budget: of what the objective returns.
      objective: takes a program, what it takes in the place of the parameters, and its other arguments; such as the
        peak or the latency of a plan of it.
      evaluations: how many choices are tried, besides the uniform ones.
      at_least_the_bytes: whether the objective of any choice is at least its bytes. Only then a bound is proven.

    Raises:
      MemplanError: no choice that was tried is within the budget; the message states the least.
    """

    def planned(choice: tuple[int, ...]) -> float:
        program, params = levels.rewrite(choice)
        return objective(program, params, levels.inputs)

    problem = LevelProblem(levels.layers, budget)
    reached = {plan.choice: planned(plan.choice) for plan in uniform_choices(problem)}
    plan = solve_for_objective(problem, planned, evaluations, at_least_the_bytes)
    within = [each for each in uniform_choices(problem) if reached[each.choice] <= budget]
    uniform = min(within, key=lambda each: each.error, default=None)
    found = _compressed(levels, problem, plan, uniform)
    as_given = tuple(0 for _ in levels.layers)
    return replace(found, planned=(planned(found.taken.choice), planned(as_given)))


def _compressed(
    levels: NetworkLevels, problem: LevelProblem, plan: LevelPlan, uniform: LevelPlan | None
) -> CompressedProgram:
    """Returns the program of what measures less, the plan or the uniform choice."""
    measured, uniform_measured, taken = levels.measured(plan.choice), None, plan
    if uniform is not None:
        uniform_measured = levels.measured(uniform.choice)
        # Where errors are large, the model may be wrong about which is better.
        taken = uniform if uniform_measured < measured else plan
    fun, params = levels.rewrite(taken.choice)
    return CompressedProgram(
        fun=fun,
        params=params,
        problem=problem,
        plan=plan,
        measured=measured,
        uniform=uniform,
        uniform_measured=uniform_measured,
        what=levels.what,
        before=levels.before,
        taken=taken,
    )
