"""Which operands an instruction reads element by element, in the order in which it writes its result.

Such an operand and a result of the same form may be the same memory: each element is read before it is overwritten
(XLA, hlo_dataflow_analysis.cc, `CanShareOperandBufferWithUser`).
"""

from __future__ import annotations

from memplan.compiler.ir import Computation, Graph, Instruction, Shape

# HloInstruction::IsOpElementwise (xla/hlo/ir/hlo_instruction.cc).
ELEMENTWISE = {
    "abs", "acos", "acosh", "add", "and", "asin", "asinh", "atan2", "atanh", "bitcast-convert", "cbrt", "ceil",
    "clamp", "compare", "complex", "convert", "copy", "cosh", "cosine", "count-leading-zeros", "divide", "erf",
    "exponential", "exponential-minus-one", "floor", "imag", "is-finite", "log", "log-plus-one", "logistic", "map",
    "maximum", "minimum", "mulhi", "multiply", "negate", "not", "or", "popcnt", "power", "real", "reduce-precision",
    "remainder", "round-nearest-afz", "round-nearest-even", "rsqrt", "select", "shift-left", "shift-right-arithmetic",
    "shift-right-logical", "sign", "sine", "sinh", "sqrt", "stochastic-convert", "subtract", "tan", "tanh", "xor",
}  # fmt: skip


class Elementwise:
    """Which operands the instructions of one Graph read so; the body of a fusion is examined once."""

    def __init__(self, graph: Graph):
        self._graph = graph
        self._bodies: dict[str, tuple[bool, ...]] = {}

    def reads(self, instruction: Instruction, operand: int) -> bool:
        """Tells whether an operand is read element by element only."""
        opcode = instruction.opcode
        if opcode == "fusion":
            return self._parameters(instruction.called[0])[operand]
        if opcode in ("dynamic-update-slice", "scatter"):
            return operand == 0
        return opcode in ELEMENTWISE

    def may_share(self, instruction: Instruction, operand: int, shape: Shape, index: tuple[int, ...]) -> bool:
        """Tells whether an array of `shape` in an operand, and the result at a tuple index, may be one memory."""
        if not same_form(shape, instruction.shape.at(index)):
            return False
        if instruction.opcode == "sort":  # each operand is sorted where it stands
            return index in ((), (operand,))
        return self.reads(instruction, operand)

    def _parameters(self, name: str) -> tuple[bool, ...]:
        """Returns per parameter of a fusion's body whether everything that follows from it is elementwise."""
        known = self._bodies.get(name)
        if known is None:
            known = self._bodies[name] = self._look_into(self._graph.computations[name])
        return known

    def _look_into(self, body: Computation) -> tuple[bool, ...]:
        good = [True] * len(body.instructions)
        for i in reversed(range(len(body.instructions))):
            instruction = body.instructions[i]
            for number, operand in enumerate(instruction.operands):
                if not (good[i] and (instruction.opcode == "tuple" or self.reads(instruction, number))):
                    good[operand] = False
        return tuple(good[parameter] for parameter in body.parameters)


def same_form(a: Shape, b: Shape) -> bool:
    """Tells whether two arrays have the same type, dimensions, layout and tiles, in whatever memory they are.

    >>> same_form(Shape("f32", (2, 3)), Shape("f32", (2, 3)).with_memory_space(1))
    True
    """
    if a is b:
        return True
    if a.dtype != b.dtype or a.dims != b.dims:
        return False
    return _order(a) == _order(b)


def _order(shape: Shape) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...], int]:
    layout = shape.layout
    if layout is None:
        return tuple(reversed(range(len(shape.dims)))), (), 0
    return layout.minor_to_major, layout.tiles, layout.element_bits
