"""From arithmetic to seconds: the roofline of a target's compute units.

Matrix units, vector units and the units for transcendental functions work side by side, so an instruction takes as long
as the busiest of them (Williams, Waterman and Patterson, Roofline, CACM 2009). `calibration.py` adds memory.
"""

from __future__ import annotations

from memplan.compiler.hardware.matrix_work import MatrixWork
from memplan.compiler.hardware.target import Target
from memplan.compiler.hardware.work import Work, WorkCounter
from memplan.compiler.ir import Computation, Graph, Instruction


def work(graph: Graph, computation: Computation, instruction: Instruction) -> Work:
    """Returns the arithmetic of one instruction. For many instructions of one Graph, keep a `WorkCounter`."""
    return WorkCounter(graph).of(computation, instruction)


def compute_seconds(work: Work, target: Target) -> float:
    """Returns how long a target's units need for some work when all data is at hand.

    >>> from memplan.compiler.hardware.target import load_target
    >>> compute_seconds(Work(flops=10e12), load_target("generic"))
    1.0
    """
    compute = target.compute
    return max(
        work.flops / compute.vector_flops,
        work.transcendentals / compute.transcendental_rate,
        sum(matrix_seconds(part, target) for part in work.matrix),
    )


def matrix_seconds(part: MatrixWork, target: Target) -> float:
    """Returns how long the matrix units need for a product.

    The length of the sums and the columns of the input that stays in the unit are padded to the unit's size. The input
    that pads less stays. Wide types that must be multiplied exactly take several passes, where a target says so.
    """
    compute = target.compute
    depth, width = compute.matrix_unit
    columns = min(_padding(part.columns, width), _padding(part.rows, width))
    padded = part.flops * _padding(part.contracted, depth) * columns
    peak = compute.matrix_peak(part.dtype) * compute.matrix_efficiency
    return padded * compute.passes(part.dtype, part.precision) / peak


def _padding(size: int, unit: int) -> float:
    """Returns by how much a size grows when it is rounded up to whole units."""
    return -(-size // unit) * unit / size if size > 0 else 1.0
