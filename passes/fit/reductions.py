"""What reductions need beside operand and result on the CPU.

XLA's CPU compiler reduces a dimension of more than 32 elements in two steps, windows of 32 first
(xla/hlo/transforms/simplifiers/tree_reduction_rewriter.cc), and fuses nothing into the first one. An operand that would
be computed within the reduction has a buffer then. A product of two vectors becomes a product of their elements and a
reduction, and needs the same.
"""

from __future__ import annotations

import math
from typing import Any

from jax.extend.core import Literal

from memplan.passes.fit.groups import EquationGroup
from memplan.passes.fit.kinds import Kind, bytes_of, is_product_of_vectors, kind_of

_WINDOW = 32
_REDUCTIONS = frozenset(
    {"reduce_and", "reduce_max", "reduce_min", "reduce_or", "reduce_prod", "reduce_sum", "reduce_xor"}
)


def reduction_workspace(jaxpr: Any, group: EquationGroup) -> int:
    """Returns the bytes that a group needs for a reduction while it runs; 0 if it is none."""
    root = jaxpr.eqns[group.root]
    if is_product_of_vectors(root):
        return _in_windows(root.invars[0].aval.shape, range(root.invars[0].aval.ndim), root.outvars[0].aval, True)
    if root.primitive.name not in _REDUCTIONS or isinstance(root.invars[0], Literal):
        return 0
    operand = root.invars[0]
    return _in_windows(operand.aval.shape, root.params["axes"], operand.aval, _is_computed(jaxpr, group, operand))


def _in_windows(shape: tuple[int, ...], axes: Any, aval: Any, is_computed: bool) -> int:
    """Returns the bytes of the windows' results, and of the operand if it is computed; 0 if no axis is that long."""
    if all(shape[axis] <= _WINDOW for axis in axes):
        return 0
    windows = math.prod(-(-size // _WINDOW) if axis in axes else size for axis, size in enumerate(shape))
    elements = math.prod(aval.shape)
    item = bytes_of(aval) // elements if elements else 0
    return item * (windows + (math.prod(shape) if is_computed else 0))


def _is_computed(jaxpr: Any, group: EquationGroup, variable: Any) -> bool:
    """Whether a group computes a variable for itself, and does not only read it in other dimensions."""
    made = {written: jaxpr.eqns[place] for place in group.members[:-1] for written in jaxpr.eqns[place].outvars}
    while variable in made and kind_of(made[variable]) is Kind.VIEW:
        variable = made[variable].invars[0]
        if isinstance(variable, Literal):
            return True
    return variable in made
