"""The entry `export_c`: from a JAX function to C files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from memplan.backends.c.source import c_files
from memplan.compiler.effort import Effort
from memplan.compiler.embedded.plan import EmbeddedPlan
from memplan.compiler.errors import MemplanError
from memplan.compiler.files import make_folder, write_files
from memplan.passes.embedded.entry import argument_names, embedded


class ArenaTooSmallError(MemplanError):
    """No arena within the budget was found.

    Attributes:
      arena, bound, budget: bytes: of the smallest arena found, of the proven minimum, and given.
    """

    def __init__(self, name: str, plan: EmbeddedPlan, budget: int):
        self.arena, self.bound, self.budget = plan.arena, plan.bound, budget
        if self.bound > budget:
            what = f"no arena below {self.bound:,} bytes is possible for these steps (proven)"
        else:
            what = (
                f"the smallest arena found takes {self.arena:,} bytes, and at least {self.bound:,} are needed (proven)"
            )
        super().__init__(f"{name} does not fit into {budget:,} bytes: {what}")


@dataclass(frozen=True)
class CExport:
    """A program as C.

    Attributes:
      plan: what runs when and lies where.
      files: text by path.
    """

    plan: EmbeddedPlan
    files: Mapping[str, str]

    def write(self, folder: str | Path) -> None:
        """Writes all files, or none of them."""
        make_folder(folder)
        for path in {Path(folder, name).parent for name in self.files}:
            make_folder(path)
        write_files({Path(folder, name): text for name, text in self.files.items()})


def export_c(
    fun: Callable[..., Any],
    *args: Any,
    state_argnums: int | Iterable[int] = (),
    constant_argnums: int | Iterable[int] = (),
    budget: int | None = None,
    reorder: bool = True,
    effort: Effort | str = Effort.NORMAL,
    seed: int = 0,
    name: str = "program",
) -> CExport:
    """Returns a function as C99 with one static arena, with a test that compares one run with JAX's.

    Args:
      fun, state_argnums, constant_argnums, reorder, effort, name: as for `memplan.embedded`.
      *args: its arguments, pytrees of arrays or of `jax.ShapeDtypeStruct`. What is no array is drawn at random.
      budget: bytes that the arena may have; None for any number.
      seed: of what is drawn at random.

    Raises:
      MemplanError: as `memplan.embedded`.
      ArenaTooSmallError: it needs more than the budget.
    """
    states, constants = _set(state_argnums), _set(constant_argnums)
    drawn = tuple(_drawn(argument, seed + number) for number, argument in enumerate(args))
    plan = embedded(
        fun,
        *drawn,
        state_argnums=states,
        constant_argnums=constants,
        reorder=reorder,
        effort=effort,
        seed=seed,
        name=name,
    )
    if budget is not None and plan.arena > budget:
        raise ArenaTooSmallError(name, plan, budget)
    stored = [
        leaf
        for number, argument in enumerate(drawn)
        if number not in states and number not in constants
        for leaf in jax.tree_util.tree_leaves(argument)
    ]
    found = [np.asarray(leaf) for leaf in jax.tree_util.tree_leaves(jax.jit(fun)(*drawn))]
    names = [name for number, group in enumerate(argument_names(drawn)) if number in states for name in group]
    after = dict(zip(names, found, strict=False))
    expected = [after[plan.program.buffers[b].name] for b in plan.program.states] + found[len(names) :]
    return CExport(plan, c_files(plan, stored, expected))


def _set(argnums: int | Iterable[int]) -> set[int]:
    return {argnums} if isinstance(argnums, int) else set(argnums)


def _drawn(argument: Any, seed: int) -> Any:
    """Returns an argument with random numbers where only the shape is known: small ones, and positive floats."""
    random = np.random.default_rng(seed)

    def of(leaf: Any) -> np.ndarray:
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return np.asarray(leaf, jax.dtypes.canonicalize_dtype(np.asarray(leaf).dtype))
        if np.issubdtype(leaf.dtype, np.floating):
            return random.uniform(0.01, 1.0, leaf.shape).astype(leaf.dtype)
        if leaf.dtype == np.bool_:
            return random.integers(0, 2, leaf.shape).astype(np.bool_)
        low = 0 if np.issubdtype(leaf.dtype, np.unsignedinteger) or leaf.dtype == np.int32 else -127
        return random.integers(low, 2 if leaf.dtype == np.int32 else 127, leaf.shape).astype(leaf.dtype)

    return jax.tree_util.tree_map(of, argument)
