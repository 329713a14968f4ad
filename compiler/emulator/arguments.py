"""The arguments that a program is run with: pytrees as the traced function takes them, arrays as the Graph does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from memplan.compiler.errors import GraphError
from memplan.compiler.frontends.jaxpr_arrays import numpy_dtype, physical
from memplan.compiler.ir import Graph


def flat_arguments(graph: Graph, args: Sequence[Any]) -> list[np.ndarray[Any, Any]]:
    """Returns the program's arguments as numpy arrays, one per parameter.

    Args:
      graph: traced from JAX.
      args: pytrees whose leaves are the program's parameters in order: jax or numpy arrays, random keys, or Python
        numbers where the parameter is a scalar.

    Raises:
      GraphError: their number, a shape or a type is not the program's.
    """
    entry = graph.entry_computation
    leaves = jax.tree.leaves(args)
    parameters = [entry.instructions[i] for i in entry.parameters]
    if len(leaves) != len(parameters):
        raise GraphError(f"{graph.name} takes {len(parameters)} arrays, found {len(leaves)} in the arguments")
    arrays = []
    for leaf, parameter in zip(leaves, parameters, strict=True):
        array = np.asarray(physical(leaf))
        dtype = numpy_dtype(parameter.shape.dtype)
        if not array.shape and isinstance(leaf, bool | int | float | complex):
            array = array.astype(dtype)
        if array.shape != parameter.shape.dims or array.dtype != dtype:
            raise GraphError(
                f"argument {parameter.name} of {graph.name} must be {parameter.shape}, found {array.dtype}"
                f"[{','.join(map(str, array.shape))}]"
            )
        arrays.append(array)
    return arrays
