"""The blocks of a training step, and how a step is traced so that it recomputes them on the way back.

A model runs its blocks by `chain` or `scan`, and takes its gradient by `value_and_grad`. Each of them wraps what it
runs as the enclosing `recomputing` says. Outside of `recomputing` they add nothing to the program.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import reduce
from typing import Any

import jax
from jax import lax

from memplan.compiler.errors import MemplanError

Function = Callable[..., Any]

# What is recomputed as a whole: each block, √n consecutive blocks (Chen et al., "Training deep nets with sublinear
# memory cost", arXiv 1604.06174, section 4.1), or everything that the loss is computed from.
PARTS = ("block", "segment", "loss")


@dataclass(frozen=True)
class _Recomputation:
    part: str
    policy: Function | None

    def wrap(self, fun: Function, looped: bool = False) -> Function:
        # JAX advises against barriers in the body of a loop, where no subexpression is common to both passes.
        return jax.checkpoint(fun, policy=self.policy, prevent_cse=not looped)


_active: ContextVar[_Recomputation | None] = ContextVar("recomputation", default=None)


@contextmanager
def recomputing(part: str, policy: Function | None = None) -> Iterator[None]:
    """Within the context, steps are traced with `jax.checkpoint` around parts of them.

    Args:
      part: "block", "segment" or "loss".
      policy: what is kept nevertheless, one of `jax.checkpoint_policies`; None for nothing.

    Raises:
      MemplanError: there is no such part.
    """
    if part not in PARTS:
        raise MemplanError(f"a step has no part {part!r}; parts are {', '.join(PARTS)}")
    token = _active.set(_Recomputation(part, policy))
    try:
        yield
    finally:
        _active.reset(token)


def chain(blocks: Sequence[Callable[[Any], Any]], x: Any) -> Any:
    """Runs blocks one after another, each on the result of the one before.

    Args:
      blocks: functions of one pytree. Parameters are closed over.
      x: the pytree that the first block takes.
    """
    active = _active.get()
    if active is None or active.part == "loss":
        return _composed(blocks)(x)
    length = 1 if active.part == "block" else math.ceil(math.sqrt(len(blocks)))
    for start in range(0, len(blocks), length):
        x = active.wrap(_composed(blocks[start : start + length]))(x)
    return x


def _composed(blocks: Sequence[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    return lambda x: reduce(lambda value, block: block(value), blocks, x)


def scan(block: Callable[[Any, Any], tuple[Any, Any]], carry: Any, xs: Any) -> tuple[Any, Any]:
    """Runs a block in a loop, as `lax.scan(block, carry, xs)` does.

    Segments are runs of k iterations, where k is the least divisor of the trip count that is at least its root.
    """
    active = _active.get()
    if active is None or active.part == "loss":
        return lax.scan(block, carry, xs)
    if active.part == "block":
        return lax.scan(active.wrap(block, looped=True), carry, xs)
    count = len(jax.tree.leaves(xs)[0])
    length = next(k for k in range(1, count + 1) if count % k == 0 and k * k >= count)
    segment = active.wrap(lambda carry, xs: lax.scan(block, carry, xs), looped=True)
    grouped = jax.tree.map(lambda leaf: leaf.reshape(count // length, length, *leaf.shape[1:]), xs)
    carry, ys = lax.scan(segment, carry, grouped)
    return carry, jax.tree.map(lambda leaf: leaf.reshape(count, *leaf.shape[2:]), ys)


def value_and_grad(loss: Function, has_aux: bool = False) -> Function:
    """Returns `jax.value_and_grad` of a loss, with respect to its first argument."""
    active = _active.get()
    if active is not None and active.part == "loss":
        loss = active.wrap(loss)
    return jax.value_and_grad(loss, has_aux=has_aux)
