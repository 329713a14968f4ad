"""What the processor of a target can do: rates of its units, in operations per second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from memplan.compiler.ir.shape import BITS_PER_ELEMENT


@dataclass(frozen=True)
class Compute:
    """What the processor can do.

    Attributes:
      matrix_flops: operations per second of the matrix units by data type of the inputs; a multiply-add counts two.
      matrix_efficiency: part of that which large matrix products reach.
      matrix_unit: rows and columns of one matrix unit: sizes are rounded up to them; (1, 1) where there is none.
      vector_flops: elementwise operations per second.
      transcendental_rate: exponentials, logarithms, sines and the like per second.
      f32_passes: passes that a product of f32 takes at precision `high` and `highest`; 1 where it is not stated.
      launch_seconds: what starting any instruction costs.
      exposed: for each of `KINDS`, the part of the arithmetic behind which no data is moved: 1 where data and
        arithmetic take turns, less where they overlap.
      overlap: whether data moves while arithmetic goes on, in an instruction whose duration no compiler states.
    """

    matrix_flops: Mapping[str, float]
    matrix_efficiency: float
    matrix_unit: tuple[int, int]
    vector_flops: float
    transcendental_rate: float
    f32_passes: Mapping[str, int]
    launch_seconds: float
    exposed: Mapping[str, float]
    overlap: bool = True

    def matrix_peak(self, dtype: str) -> float:
        """Returns the operations per second of the matrix units for a data type.

        A type that they lack is converted to the narrowest wider one of its kind, integer or not; if there is none, the
        vector unit computes it.
        """
        if dtype in self.matrix_flops:
            return self.matrix_flops[dtype]
        bits = BITS_PER_ELEMENT.get(dtype, 32)
        wider = [
            name
            for name in self.matrix_flops
            if BITS_PER_ELEMENT[name] >= bits and _is_integer(name) == _is_integer(dtype)
        ]
        if not wider:
            return self.vector_flops
        return self.matrix_flops[min(wider, key=lambda name: (BITS_PER_ELEMENT[name], -self.matrix_flops[name]))]

    def passes(self, dtype: str, precision: str) -> int:
        """Returns how often a product of a data type is computed to reach a precision."""
        return self.f32_passes.get(precision, 1) if dtype == "f32" else 1


def _is_integer(dtype: str) -> bool:
    return dtype[0] in "su" or dtype == "pred"
