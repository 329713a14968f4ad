"""The entry `embedded`: from a JAX function to a planned EmbeddedProgram."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from memplan.compiler.effort import Effort
from memplan.compiler.embedded.plan import EmbeddedPlan
from memplan.compiler.embedded.program import EmbeddedProgram, StorageKind
from memplan.compiler.errors import MemplanError, one_line
from memplan.passes.embedded.flat import ArgumentRole
from memplan.passes.embedded.lower import lower
from memplan.passes.schedule import schedule


def embedded(
    fun: Callable[..., Any],
    *args: Any,
    state_argnums: int | Iterable[int] = (),
    constant_argnums: int | Iterable[int] = (),
    fuse: bool = True,
    in_place: bool = True,
    reorder: bool = True,
    effort: Effort | str = Effort.NORMAL,
    seed: int = 0,
    name: str = "program",
) -> EmbeddedPlan:
    """Plans a function for one static arena, as `memplan export-c` writes it.

    >>> import jax.numpy as jnp
    >>> plan = embedded(lambda w, x: (w - 0.1 * x, (w * x).sum()), jnp.ones(8), jnp.ones(8), state_argnums=0)
    >>> plan.peak, plan.arena, plan.bound
    (68, 68, 68)

    Args:
      fun: of JAX. It returns the new values of the states first, each in the form of its argument.
      *args: its arguments, pytrees of arrays or of `jax.ShapeDtypeStruct`.
      state_argnums: arguments that are kept from run to run and updated in place. Arrays in them that are returned as
        they are lie in flash.
      constant_argnums: arguments that never change and lie in flash.
      fuse: whether equations may become part of other steps; otherwise each is a step.
      in_place: whether a step may write over what it reads, and new states over old ones.
      reorder: whether the steps may run in another order than that of the program.
      effort: how much work to do on order and layout.
      seed: of what is drawn at random.
      name: of the program.

    Raises:
      MemplanError: the function does not trace, an equation has no C code (named with its source line), or the results
        do not begin with the new states.
    """
    program = embedded_program(fun, args, state_argnums, constant_argnums, fuse=fuse, in_place=in_place, name=name)
    return schedule(program, reorder, Effort(effort), seed)


def embedded_program(
    fun: Callable[..., Any],
    args: tuple[Any, ...],
    state_argnums: int | Iterable[int] = (),
    constant_argnums: int | Iterable[int] = (),
    *,
    fuse: bool = True,
    in_place: bool = True,
    name: str = "program",
) -> EmbeddedProgram:
    """Returns the steps of a function; arguments and errors are those of `embedded`."""
    states, constants = _numbers("state", state_argnums, args), _numbers("constant", constant_argnums, args)
    if states & constants:
        raise MemplanError(f"argument {min(states & constants)} cannot be both a state and a constant")
    try:
        closed = jax.make_jaxpr(fun)(*args)
    except Exception as error:
        raise MemplanError(f"{name} does not trace: {one_line(error)}") from error
    roles = []
    names = argument_names(args)
    for number, argument in enumerate(args):
        kind = (
            StorageKind.STATE
            if number in states
            else StorageKind.CONSTANT
            if number in constants
            else StorageKind.INPUT
        )
        for label, leaf in zip(names[number], jax.tree_util.tree_leaves(argument), strict=True):
            roles.append(ArgumentRole(kind, label, None if kind is StorageKind.INPUT else _value(leaf)))
    return lower(closed, roles, name, fuse, in_place)


def argument_names(args: tuple[Any, ...]) -> list[list[str]]:
    """Returns the names of the arrays in each argument, all different."""
    return [
        [f"argument_{number}{jax.tree_util.keystr(path)}" for path, _ in jax.tree_util.tree_leaves_with_path(argument)]
        for number, argument in enumerate(args)
    ]


def _numbers(what: str, given: int | Iterable[int], args: tuple[Any, ...]) -> set[int]:
    numbers = {given} if isinstance(given, int) else set(given)
    for number in numbers:
        if not 0 <= number < len(args):
            raise MemplanError(f"{what} argument {number} is none of the {len(args)} arguments, which begin at 0")
    return numbers


def _value(leaf: Any) -> np.ndarray:
    """Returns the value of an array; zeros for one of which only shape and dtype are known."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)
    return np.asarray(leaf, jax.dtypes.canonicalize_dtype(np.asarray(leaf).dtype))
