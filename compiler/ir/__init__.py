"""The Graph: programs as instructions over shaped values. Read `shape.py`, then `graph.py`."""

from memplan.compiler.ir.graph import Alias, Computation, Graph, Instruction, Source
from memplan.compiler.ir.shape import Layout, Shape

__all__ = ["Alias", "Computation", "Graph", "Instruction", "Layout", "Shape", "Source"]
