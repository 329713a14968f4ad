"""Levels of the weights of a network: each is one of the forms of its method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memplan.compiler.errors import MemplanError
from memplan.passes.levels.bonds import bond_sizes
from memplan.passes.levels.codebooks import codebook_sizes
from memplan.passes.levels.distortion import Distortion
from memplan.passes.levels.encodings import Encode, bit_widths, low_ranks
from memplan.passes.levels.network_levels import NetworkLevels
from memplan.passes.levels.program import bytes_of, with_encoded
from memplan.planners.levels.problem import LayerLevels, Level

WEIGHT_METHODS: dict[str, Encode] = {
    "low-rank": low_ranks,
    "mixed-precision": bit_widths,
    "codebooks": codebook_sizes,
    "bonds": bond_sizes,
}


def weight_levels(fun: Callable[..., Any], args: tuple[Any, ...], method: str) -> NetworkLevels:
    """Returns the levels of each array of the first argument; one that the method leaves alone has one.

    Args:
      fun: the program.
      args: arrays.
      method: a key of `WEIGHT_METHODS`.

    Raises:
      MemplanError: no weight can be compressed, or the results have no error to measure.
    """
    params, *inputs = args
    paths, tree = jax.tree_util.tree_flatten_with_path(params)
    leaves = [leaf for _, leaf in paths]
    distortion = Distortion(lambda arrays: fun(tree.unflatten(arrays), *inputs), leaves)
    options = [list(WEIGHT_METHODS[method](leaf)) for leaf in leaves]
    if all(len(each) == 1 for each in options):
        raise MemplanError(f"{method} finds no weight to compress among {len(leaves)} parameters")
    layers = []
    for place, ((path, leaf), each) in enumerate(zip(paths, options, strict=True)):
        levels = []
        for number, (level, encoded) in enumerate(each):
            error = (
                0.0
                if number == 0
                else distortion.model(place, jnp.asarray(np.asarray(encoded.dense()) - np.asarray(leaf)))
            )
            levels.append(Level(level, bytes_of(encoded), error))
        layers.append(LayerLevels(jax.tree_util.keystr(path), tuple(levels)))
    program = with_encoded(fun)

    def rewrite(choice: tuple[int, ...]) -> tuple[Callable[..., Any], Any]:
        chosen = [each[index][1] for each, index in zip(options, choice, strict=True)]
        return program, jax.tree.map(jnp.asarray, tree.unflatten(chosen))

    return NetworkLevels(tuple(layers), "parameters", bytes_of(params), tuple(inputs), rewrite, distortion)
