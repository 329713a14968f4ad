"""Random JAX functions whose control flow needs copies: loops of one array, swapped and constant carries, idle branches.

Every function takes a number and two arrays and returns arrays. It computes with whole arrays only: a scalar beside an
array is broadcast by `jax.jit` and not by `memplan.trace`, which has nothing to do with control flow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

SIZE = 2048  # of an array, in elements

Pick = Callable[[int, int], int]
Step = Callable[[Any, tuple[Any, ...]], tuple[Any, ...]]  # from a number and arrays to as many arrays


def random_function(pick: Pick, depth: int = 2) -> Callable[[Any, Any, Any], tuple[Any, ...]]:
    """Returns a function of a number below 4 and two arrays.

    Args:
      pick: returns a number between two, both included. All choices are made before the function is called.
      depth: how deep loops and conditionals nest.
    """
    width = pick(1, 3)
    start = [pick(0, 3) for _ in range(width)]
    body = _steps(pick, width, depth)
    results = [*range(width), *(pick(0, width - 1) for _ in range(pick(0, 1)))]  # all, so that no carry is dead

    def function(n: Any, x: Any, y: Any) -> tuple[Any, ...]:
        constant = jnp.asarray(range(SIZE), jnp.float32)
        given = (x, y, constant, x + y)
        carried = body(n, tuple(given[i] for i in start))
        return tuple(carried[i] for i in results)

    return function


def _steps(pick: Pick, width: int, depth: int) -> Step:
    steps = [_step(pick, width, depth) for _ in range(pick(1, 3))]

    def run(n: Any, arrays: tuple[Any, ...]) -> tuple[Any, ...]:
        for step in steps:
            arrays = step(n, arrays)
        return arrays

    return run


def _step(pick: Pick, width: int, depth: int) -> Step:
    kinds = [_compute, _permute, _constant] + ([_counted, _until, _switch] if depth else [])
    return kinds[pick(0, len(kinds) - 1)](pick, width, depth)


def _compute(pick: Pick, width: int, depth: int) -> Step:
    target, a, b = (pick(0, width - 1) for _ in range(3))
    operation = (jnp.add, jnp.maximum, jnp.subtract)[pick(0, 2)]
    return lambda n, arrays: _replaced(arrays, target, operation(arrays[a], arrays[b]))


def _permute(pick: Pick, width: int, depth: int) -> Step:
    """Swaps carries, or gives one twice."""
    sources = [pick(0, width - 1) for _ in range(width)]
    return lambda n, arrays: tuple(arrays[i] for i in sources)


def _constant(pick: Pick, width: int, depth: int) -> Step:
    target = pick(0, width - 1)
    return lambda n, arrays: _replaced(arrays, target, jnp.asarray(range(SIZE), jnp.float32))


def _counted(pick: Pick, width: int, depth: int) -> Step:
    trips, inner = pick(1, 4), _steps(pick, width, depth - 1)

    def run(n: Any, arrays: tuple[Any, ...]) -> tuple[Any, ...]:
        return lax.fori_loop(0, trips, lambda _, carried: inner(n, carried), arrays)

    return run


def _until(pick: Pick, width: int, depth: int) -> Step:
    """A loop that carries one array and no counter."""
    target = pick(0, width - 1)

    def run(n: Any, arrays: tuple[Any, ...]) -> tuple[Any, ...]:
        one = jnp.asarray([1.0] * SIZE, jnp.float32)
        left = lax.while_loop(lambda v: v[0] < 4.0, lambda v: jnp.maximum(v, -v) + one, arrays[target])
        return _replaced(arrays, target, left)

    return run


def _switch(pick: Pick, width: int, depth: int) -> Step:
    """A conditional, one branch of which may return what it was given."""
    branches: list[Step] = [_steps(pick, width, depth - 1) for _ in range(pick(1, 2))]
    branches.insert(pick(0, len(branches)), lambda n, arrays: arrays)

    def run(n: Any, arrays: tuple[Any, ...]) -> tuple[Any, ...]:
        made = [lambda carried, branch=branch: branch(n, carried) for branch in branches]
        return lax.switch(n % len(branches), made, arrays)

    return run


def _replaced(arrays: Sequence[Any], target: int, array: Any) -> tuple[Any, ...]:
    return (*arrays[:target], array, *arrays[target + 1 :])
