"""Dimensions whose size a program leaves open: nothing can be planned until they are stated."""

from __future__ import annotations

from memplan.compiler.errors import GraphError
from memplan.compiler.ir.graph import Graph


def check_sizes(graph: Graph) -> None:
    """Raises GraphError, naming the value and how to state its size, if a value of a Graph has an unknown size."""
    for computation, instruction in graph.instructions():
        if not instruction.shape.has_unknown_size:
            continue
        names = open_dimensions(graph)
        by = " ".join(f"--dim {name}=N" for name in names) or "a bound in the program, such as f32[<=16]"
        python = f", or in Python by memplan.read(…, dims={{{', '.join(f'{name!r}: N' for name in names)}}})"
        place = f"{graph.file or graph.name}: {computation.name}/{instruction.name}"
        raise GraphError(
            f"{place} is {instruction.shape!s:.100}, which has a dimension of unknown size: state it by {by}"
            f"{python if names else ''}"
        )


def open_dimensions(graph: Graph) -> list[str]:
    """Returns the names of the entry's dimensions of unknown size: `argN.D` is dimension D of argument N."""
    entry = graph.entry_computation
    shapes = [entry.instructions[i].shape for i in entry.parameters]
    return [f"arg{number}.{i}" for number, shape in enumerate(shapes) for i, dim in enumerate(shape.dims) if dim < 0]
