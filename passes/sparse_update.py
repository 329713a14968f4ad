"""Sparse update: a training step that updates some of its parameters only, and computes nothing for the others.

A step computes the gradients of all parameters. Once some of the new parameters are no results any more, what only they
needed is dead code: their gradients, the values that these kept from the forward pass, and everything of the backward
pass below the lowest layer that is still updated (Lin et al., "On-Device Training Under 256KB Memory", arXiv
2206.15472, section 2.2). A parameter in several parts, each a leaf, is updated in part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.interpreters.partial_eval import dce_jaxpr

from memplan.compiler.errors import MemplanError, one_line

__all__ = ["SparseStep", "merge", "sparse_update", "split"]


@dataclass(frozen=True)
class SparseStep:
    """A pruned training step.

    Attributes:
      fun: `fun(trained, frozen, *batch)` returns `(trained, *rest)`, as the step returns `(params, *rest)`.
      trained, frozen: shapes of its parameters, trees like those of the step with None where a leaf is in the other.
      updated: the tree of bools that says which is which.
      closed: the pruned program, whose arguments are the leaves of `trained`, `frozen` and the batch.
    """

    fun: Callable[..., Any]
    trained: Any
    frozen: Any
    updated: Any
    closed: ClosedJaxpr

    def split(self, params: Any) -> tuple[Any, Any]:
        """Returns the trained and the frozen ones of all parameters."""
        return split(params, self.updated)


def split(params: Any, updated: Any) -> tuple[Any, Any]:
    """Returns two trees like `params`: leaves for which `updated` is True, and the others; None for those left out."""
    return (
        jax.tree.map(lambda leaf, chosen: leaf if chosen else None, params, updated),
        jax.tree.map(lambda leaf, chosen: None if chosen else leaf, params, updated),
    )


def merge(trained: Any, frozen: Any) -> Any:
    """Returns the tree that was split into two."""
    return jax.tree.map(lambda a, b: b if a is None else a, trained, frozen, is_leaf=lambda leaf: leaf is None)


def sparse_update(step: Callable[..., Any], updated: Any, params: Any, *batch: Any) -> SparseStep:
    """Returns a training step that updates chosen parameters only.

    >>> import jax.numpy as jnp
    >>> def step(params, x):
    ...     loss, g = jax.value_and_grad(lambda p: (jnp.tanh(x @ p["in"]) @ p["out"]).sum())(params)
    ...     return jax.tree.map(lambda p, g: p - 0.1 * g, params, g), loss
    >>> params = {"in": jnp.ones((3, 4)), "out": jnp.ones(4)}
    >>> sparse = sparse_update(step, {"in": False, "out": True}, params, jnp.ones((2, 3)))
    >>> trained, loss = sparse.fun(*sparse.split(params), jnp.ones((2, 3)))
    >>> trained["in"] is None, trained["out"].shape
    (True, (4,))

    Args:
      step: `step(params, *batch)` returns new parameters, in a tree like `params`, and any other results.
      updated: a tree like `params` of bools.
      params, batch: arguments of the step, or their shapes.

    Raises:
      MemplanError: the trees differ, nothing is updated, or the step does not return parameters first.
    """
    _check(updated, params)
    trained, frozen = split(params, updated)

    def pruned(trained: Any, frozen: Any, *batch: Any) -> Any:
        results = step(merge(trained, frozen), *batch)
        if not isinstance(results, tuple) or not results:
            raise MemplanError(
                f"the step returns {type(results).__name__}, not a tuple that begins with new parameters"
            )
        structures = [jax.tree.structure(tree) for tree in (params, results[0])]
        if structures[0] != structures[1]:
            raise MemplanError(
                f"the first result of the step is {structures[1]}, not a tree like its parameters, {structures[0]}"
            )
        return split(results[0], updated)[0], *results[1:]

    arguments = (trained, frozen, *batch)
    try:
        closed, shapes = jax.make_jaxpr(pruned, return_shape=True)(*arguments)
    except MemplanError:
        raise
    except Exception as error:
        raise MemplanError(f"the training step does not trace: {one_line(error)}") from error
    jaxpr, _ = dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars), instantiate=True)
    closed = ClosedJaxpr(jaxpr, closed.consts)
    inside, tree = jax.tree.structure(arguments), jax.tree.structure(shapes)

    def fun(trained: Any, frozen: Any, *batch: Any) -> Any:
        given = jax.tree.structure((trained, frozen, *batch))
        if given != inside:
            raise MemplanError(f"the step was pruned for arguments {inside}, not {given}")
        return jax.tree.unflatten(tree, jaxpr_as_fun(closed)(*jax.tree.leaves((trained, frozen, *batch))))

    return SparseStep(fun, *split(jax.eval_shape(lambda: params), updated), updated, closed)


def _check(updated: Any, params: Any) -> None:
    structures = [jax.tree.structure(tree) for tree in (params, updated)]
    if structures[0] != structures[1]:
        raise MemplanError(
            f"the parameters are a tree {structures[0]}, and what is updated of them is another one, {structures[1]}"
        )
    chosen = jax.tree_util.tree_leaves_with_path(updated)
    for path, leaf in chosen:
        if not isinstance(leaf, bool):
            raise MemplanError(f"whether {jax.tree_util.keystr(path)} is updated is {leaf!r}: it must be True or False")
    if not any(leaf for _, leaf in chosen):
        raise MemplanError("the training step updates nothing: choose at least one parameter")
