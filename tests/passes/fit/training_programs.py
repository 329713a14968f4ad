"""Small training steps, and plans for them that a test can make without a planner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import jaxpr_as_fun

from memplan.planners.fit.plan import FitError, FitPlan, Run
from memplan.planners.fit.problem import FitProblem
from memplan.planners.fit.verifier import verify_fit


def array(*shape: int, seed: int = 0) -> Any:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape) * 0.3, jnp.float32)


def _block(x: Any, weights: Any) -> Any:
    first, second = weights
    return x + jnp.tanh(jax.nn.gelu(x @ first) @ second)


def mlp(layers: int = 4, batch: int = 64, width: int = 32) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """A step of gradient descent on residual blocks that are written one after another."""

    def step(params: Any, x: Any) -> Any:
        def loss(params: Any) -> Any:
            y = x
            for weights in params:
                y = _block(y, weights)
            return jnp.mean(y * y)

        value, gradients = jax.value_and_grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients), value

    params = [(array(width, 4 * width, seed=k), array(4 * width, width, seed=k + 50)) for k in range(layers)]
    return step, (params, array(batch, width, seed=99))


def scanned(
    layers: int = 4, batch: int = 64, width: int = 32, reverse: bool = False
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The same with the layers stacked, and a constant scale that all of them read."""

    def step(params: Any, x: Any, scale: Any) -> Any:
        def loss(params: Any) -> Any:
            y, _ = lax.scan(lambda y, w: (_block(y * scale, w), None), x, params, reverse=reverse)
            return jnp.mean(y * y)

        value, gradients = jax.value_and_grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients), value

    params = (array(layers, width, 4 * width), array(layers, 4 * width, width, seed=1))
    return step, (params, array(batch, width, seed=2), array(width, seed=3))


def traced(step: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return jax.make_jaxpr(step)(*args)


def values(closed: Any, args: tuple[Any, ...]) -> list[Any]:
    """Returns the results of a program that runs one equation after another; keys as the integers under them.

    What a compiler rounds depends on what it fuses, on the processor as well.
    """
    return [np.asarray(result) for result in jaxpr_as_fun(closed)(*jax.tree.leaves(args))]


def equal(ours: list[Any], theirs: list[Any]) -> bool:
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(ours, theirs, strict=True))


def close(ours: list[Any], theirs: list[Any]) -> bool:
    """Tells whether results are equal but for how the compiler rounds what it fuses otherwise."""
    return all(np.allclose(a, b, rtol=2e-5, atol=2e-6) for a, b in zip(ours, theirs, strict=True))


def recomputing(problem: FitProblem, keep: Callable[[int], bool], turn: int | None = None) -> FitPlan:
    """Returns a plan that keeps across a node only some of the values made before it, and computes the others again.

    Args:
      problem: to plan.
      keep: whether a value is kept.
      turn: number of the node; the middle of the program by default.
    """
    count = len(problem.nodes)
    turn = count // 2 if turn is None else turn
    steps = [Run(node) for node in range(turn)]
    before = {value for node in range(turn) for value in problem.nodes[node].outputs}
    there = {number for number, value in enumerate(problem.values) if value.producer is None or value.is_result}
    early = {value for node in problem.nodes[:turn] for value in node.inputs}
    there |= {value for value in before if keep(value) or value not in early}
    there |= {value for node in problem.nodes[:turn] if not node.can_repeat for value in node.outputs}

    def bring(value: int) -> None:
        producer = problem.values[value].producer
        if value in there or producer is None:
            return
        for read in problem.nodes[producer].inputs:
            bring(read)
        steps.append(Run(producer))
        there.update(problem.nodes[producer].outputs)

    for node in range(turn, count):
        for read in problem.nodes[node].inputs:
            bring(read)
        steps.append(Run(node))
        there.update(problem.nodes[node].outputs)
    return FitPlan(tuple(steps))


def threshold_planner(problem: FitProblem, limit: int) -> FitPlan:
    """A planner for tests: across one node it keeps the values that cost most for their bytes, as many as fit.

    Raises:
      FitError: even without any of them the peak is above the limit.
    """
    written = FitPlan(tuple(Run(node) for node in range(len(problem.nodes))))
    check = verify_fit(problem, written)
    turn = check.peak_step
    seconds = [0.0 if value.producer is None else problem.nodes[value.producer].seconds for value in problem.values]
    worth = [time / max(value.size, 1) for time, value in zip(seconds, problem.values, strict=True)]
    least = FitPlan(written.steps, check.peak)
    for threshold in (-1.0, *sorted(set(worth))):
        if least.peak <= limit:
            break
        steps = recomputing(problem, lambda value, t=threshold: worth[value] > t, turn).steps  # type: ignore[misc]
        check = verify_fit(problem, FitPlan(steps))
        if check.peak < least.peak:
            least = FitPlan(steps, check.peak, check.added_seconds)
    if least.peak > limit:
        standing = tuple(check.standing(problem, check.peak_step))
        raise FitError("nothing fits", limit, 1, least, standing)
    return least
