"""NetworkLevels: the levels that parts of a real network can have, and the program that a choice of them gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from memplan.passes.levels.distortion import Distortion
from memplan.planners.levels.problem import LayerLevels


@dataclass(frozen=True)
class NetworkLevels:
    """Levels of a network.

    Attributes:
      layers: what has a level; costs are bytes, and errors those of the model.
      what: what the bytes are of, such as "parameters".
      before: bytes of all as given.
      inputs: the arguments of the program after its parameters.
      rewrite: takes a choice, one index of a level for each layer, and returns a program and what it takes in the place
        of the parameters.
      distortion: says what a choice does to the results.
    """

    layers: tuple[LayerLevels, ...]
    what: str
    before: int
    inputs: tuple[Any, ...]
    rewrite: Callable[[tuple[int, ...]], tuple[Callable[..., Any], Any]]
    distortion: Distortion

    def measured(self, choice: tuple[int, ...]) -> float:
        """Returns the error of running the program of a choice, measured as the model's is."""
        program, params = self.rewrite(choice)
        return self.distortion.measured(jax.jit(program)(params, *self.inputs))
