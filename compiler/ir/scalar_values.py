"""What a scalar is: a constant, or how it follows from an element that a loop carries.

A value is followed back to what defines it, through tuples, copies, conversions, fusions, calls, branches, loops, and
arithmetic. Floating-point numbers are followed as far as they are integers that their type represents exactly.

    int          a constant; a truth value is 0 or 1
    Linear       factor * element + constant, where `element` is part of the tuple that a loop carries
    Comparison   a truth value that compares two of these
    Both         a truth value that is true where several comparisons are
    None         not known before the program runs
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from memplan.compiler.ir.graph import Computation, Graph, Instruction
from memplan.compiler.ir.integers import (
    ARITHMETIC,
    COMPARISONS,
    computed,
    exactly,
    is_exact,
    is_integer,
    kept,
    range_of,
)
from memplan.compiler.ir.shape import Shape

# Real loops take some dozens of steps; nested calls made to double the work at every level are given up.
_MAX_STEPS = 20_000
_MAX_DEPTH = 100

Path = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Linear:
    """`factor * element + constant`, exact as long as the element is in `[low, high]`, where no step of it overflows.

    Attributes:
      path: tuple index of the element in what the loop carries.
      factor, constant: what it is multiplied by, and what is added.
      low, high: bounds of the element.
    """

    path: Path
    factor: int
    constant: int
    low: int
    high: int

    def is_element(self, path: Path) -> bool:
        """Tells whether this is a carried element as it is."""
        return (self.path, self.factor, self.constant) == (path, 1, 0)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A truth value: `left direction right`, the direction being one of `COMPARISONS`."""

    left: int | Linear
    right: int | Linear
    direction: str


@dataclass(frozen=True, slots=True)
class Both:
    """A truth value: whether all parts are true."""

    parts: tuple[Comparison, ...]


Value = int | Linear | Comparison | Both | None
Environment = Callable[[int, Path], Value]
# Tells what a loop leaves in an element: (instruction, its computation, path, environment) to a value.
AfterLoop = Callable[[Instruction, Computation, Path, Environment], Value]

OPPOSITE = {"LT": "GE", "GE": "LT", "GT": "LE", "LE": "GT", "EQ": "NE", "NE": "EQ"}

# Opcodes whose single element is their operand's.
_SAME_ELEMENT = frozenset({"bitcast", "reshape", "broadcast", "transpose", "reverse", "slice"})
_SAME_VALUE = frozenset({"copy", "opt-barrier", "optimization-barrier", "domain"})


def carried_element(path: Path, shape: Shape) -> Value:
    """Returns the element of a loop's tuple at `path` as a value; None where it is no scalar number."""
    if not _is_scalar(shape) or not is_exact(shape.dtype):
        return None
    return Linear(path, 1, 0, *range_of(shape.dtype))


def nothing_known(_number: int, _path: Path) -> Value:
    """The environment of a computation whose parameters are not known."""
    return None


class Evaluator:
    """Follows values back to what defines them; remembers what it found in each environment.

    Attributes:
      unknown: what the last value that was not found depends on: an instruction that is only known at run time.
    """

    def __init__(self, graph: Graph, after_loop: AfterLoop):
        self.graph, self.after_loop = graph, after_loop
        self.unknown: Instruction | None = None
        self._found: dict[tuple[str, int, Path, int], Value] = {}
        self._causes: dict[tuple[str, int, Path, int], Instruction | None] = {}  # of what was not found
        self._kept: list[Environment] = []  # keeps their ids from being used again
        self._budget = _MAX_STEPS
        self._depth = 0

    @property
    def is_exhausted(self) -> bool:
        """Whether the search was given up: what is not known may follow from the program all the same."""
        return self._budget < 0

    def value(self, computation: Computation, index: int, path: Path, environment: Environment) -> Value:
        """Returns what stands at tuple index `path` of an instruction's result; None if it cannot be said."""
        key = (computation.name, index, path, id(environment))
        if key in self._found:
            if self._found[key] is None:
                self.unknown = self._causes.get(key)
            return self._found[key]
        self._budget -= 1
        self.unknown = None
        if self._budget < 0 or self._depth == _MAX_DEPTH:
            return None
        self._kept.append(environment)
        self._found[key] = None
        self._depth += 1
        try:
            found = self._found[key] = self._value(computation, index, path, environment)
        finally:
            self._depth -= 1
        if found is None:
            self.unknown = self._causes[key] = self.unknown or computation.instructions[index]
        return found

    def _value(self, computation: Computation, index: int, path: Path, environment: Environment) -> Value:
        instruction = computation.instructions[index]
        opcode, operands = instruction.opcode, instruction.operands

        def operand(number: int, at: Path = ()) -> Value:
            return self.value(computation, operands[number], at, environment) if number < len(operands) else None

        if opcode == "get-tuple-element":
            return operand(0, (int(instruction.attribute("index")), *path))
        if opcode == "parameter":
            return environment(instruction.parameter_number, path)
        if opcode == "tuple":
            return operand(path[0], path[1:]) if path else None
        if opcode == "copy-start":  # (destination, source, context)
            return operand(0, path[1:]) if path and path[0] in (0, 1) else None
        if opcode == "copy-done":
            return operand(0, (0, *path))
        if opcode in _SAME_VALUE:
            return operand(0, path)
        if opcode in ("fusion", "call") and len(instruction.called) == 1:
            return self.result(instruction.called[0], path, operand)
        if opcode == "conditional":
            return self._taken(instruction, computation, path, operand)
        if opcode == "while":
            return self.after_loop(instruction, computation, path, environment)
        if opcode == "constant":
            return _constant(instruction, path)
        if path or not _is_scalar(instruction.shape):
            return None
        return _combined(instruction, computation, operand)

    def result(self, name: str, path: Path, environment: Environment) -> Value:
        """Returns what stands at a tuple index of a computation's result."""
        computation = self.graph.computations[name]
        return self.value(computation, computation.root, path, environment)

    def _taken(self, instruction: Instruction, computation: Computation, path: Path, operand: Environment) -> Value:
        """Returns the result of the branch that a conditional takes, where its predicate or index is a constant."""
        chosen, count = operand(0, ()), len(instruction.called)
        if not isinstance(chosen, int) or count == 0:
            return None
        if computation.instructions[instruction.operands[0]].shape.dtype == "pred":
            branch = 0 if chosen else 1
        else:
            branch = chosen if 0 <= chosen < count else count - 1
        if branch >= count:
            return None
        return self.result(instruction.called[branch], path, lambda _, at: operand(branch + 1, at))


def _is_scalar(shape: Shape) -> bool:
    return shape.is_array and shape.num_elements == 1 and not shape.dynamic


def _constant(instruction: Instruction, path: Path) -> Value:
    shape, text = instruction.shape, instruction.payload
    for i in path:
        parts = _tuple_parts(text)
        if not shape.is_tuple or i >= len(shape.elements) or len(parts) != len(shape.elements):
            return None
        shape, text = shape.elements[i], parts[i]
    if not _is_scalar(shape) or not is_exact(shape.dtype):
        return None
    text = re.sub(r"/\*.*?\*/", "", text).strip().strip("{} ")
    if shape.dtype == "pred":
        return {"true": 1, "1": 1, "false": 0, "0": 0}.get(text)
    return kept(int(text), shape.dtype) if re.fullmatch(r"-?\d{1,20}", text) else None


def _tuple_parts(text: str) -> list[str]:
    """Splits `( a, {b, c}, ( d ) )` at its commas; [] for what is no tuple."""
    text = text.strip()
    if not (text.startswith("(") and text.endswith(")")):
        return []
    parts, depth = [""], 0
    for character in text[1:-1]:
        depth += {"(": 1, "{": 1, ")": -1, "}": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _combined(instruction: Instruction, computation: Computation, operand: Environment) -> Value:
    """Returns the value of an instruction with a single element that computes it from those of its operands."""
    opcode, dtype = instruction.opcode, instruction.shape.dtype
    shapes = [computation.instructions[i].shape for i in instruction.operands]
    if not is_exact(dtype) or not shapes or not all(map(_is_scalar, shapes)):
        return None
    if opcode in _SAME_ELEMENT:
        return operand(0, ()) if shapes[0].dtype == dtype else None
    if opcode == "convert" or (opcode == "bitcast-convert" and is_integer(dtype) and is_integer(shapes[0].dtype)):
        return _converted(operand(0, ()), shapes[0].dtype, dtype) if is_exact(shapes[0].dtype) else None
    if opcode == "compare" and len(shapes) == 2:
        if not is_exact(shapes[0].dtype):
            return None
        return _compared(operand(0, ()), operand(1, ()), instruction.attribute("direction"))
    if opcode == "select" and len(shapes) == 3:
        chosen = operand(0, ())
        return operand(1 if chosen else 2, ()) if isinstance(chosen, int) else None
    if opcode not in ARITHMETIC:
        return None
    values = [operand(i, ()) for i in range(len(shapes))]
    constants = [value for value in values if isinstance(value, int)]
    if len(constants) == len(values):
        return computed(opcode, dtype, constants)
    if dtype == "pred":
        return _combined_truths(opcode, values)
    return _combined_linearly(opcode, dtype, values)


def _converted(value: Value, source: str, dtype: str) -> Value:
    if isinstance(value, int):
        return kept(value, dtype) if is_integer(source) else exactly(value, dtype)
    if dtype == "pred":
        return value if source == "pred" else _compared(value, 0, "NE")
    return _in_range(value, dtype) if isinstance(value, Linear) else None


def _compared(left: Value, right: Value, direction: str) -> Value:
    if direction not in COMPARISONS:
        return None
    if isinstance(left, int) and isinstance(right, int):
        return int(COMPARISONS[direction](left, right))
    if isinstance(left, int | Linear) and isinstance(right, int | Linear):
        return Comparison(left, right, direction)
    if isinstance(left, Comparison | Both) and isinstance(right, int) and direction in ("EQ", "NE"):
        return left if (direction == "EQ") == bool(right) else negated(left)
    return None


def negated(value: Value) -> Value:
    """Returns the opposite of a truth value."""
    if isinstance(value, int):
        return 1 - value
    if isinstance(value, Linear):
        return Comparison(value, 0, "EQ")
    return replace(value, direction=OPPOSITE[value.direction]) if isinstance(value, Comparison) else None


def _combined_truths(opcode: str, values: list[Value]) -> Value:
    if opcode == "not" and len(values) == 1:
        return negated(values[0])
    if opcode not in ("and", "or") or len(values) != 2:
        return None
    left, right = values
    for constant, other in ((left, right), (right, left)):
        if isinstance(constant, int):
            if opcode == "and":
                return other if constant else 0
            return 1 if constant else other
    if opcode == "or":
        return None
    parts: list[Comparison] = []
    for value in values:
        if isinstance(value, Linear):
            parts.append(Comparison(value, 0, "NE"))
        elif isinstance(value, Comparison):
            parts.append(value)
        elif isinstance(value, Both):
            parts.extend(value.parts)
        else:
            return None
    return Both(tuple(parts))


def _combined_linearly(opcode: str, dtype: str, values: list[Value]) -> Value:
    """Returns a sum, difference or multiple of linear values; None where it is not linear."""
    terms = [value for value in values if isinstance(value, int | Linear)]
    if len(terms) != len(values):
        return None
    if opcode == "negate" and len(terms) == 1:
        return _sum(dtype, [(-1, terms[0])])
    if opcode in ("add", "subtract") and len(terms) == 2:
        return _sum(dtype, [(1, terms[0]), (1 if opcode == "add" else -1, terms[1])])
    if opcode == "multiply" and len(terms) == 2:
        for factor, other in (terms, terms[::-1]):
            if isinstance(factor, int):
                return _sum(dtype, [(factor, other)])
    return None


def _sum(dtype: str, terms: list[tuple[int, int | Linear]]) -> Value:
    path: Path | None = None
    factor = constant = 0
    low, high = 0, 0
    for times, term in terms:
        if isinstance(term, int):
            constant += times * term
            continue
        if path is None:
            path, low, high = term.path, term.low, term.high
        elif path != term.path:
            return None
        low, high = max(low, term.low), min(high, term.high)
        factor += times * term.factor
        constant += times * term.constant
    if path is None or factor == 0:
        return kept(constant, dtype) if is_integer(dtype) else None
    if is_integer(dtype):
        # Arithmetic is modulo 2^bits: adding 4294967295 to a u32 takes 1 from it.
        least, greatest = range_of(dtype)
        modulus = greatest - least + 1
        constant = (constant + modulus // 2) % modulus - modulus // 2
    return _in_range(Linear(path, factor, constant, low, high), dtype)


def _in_range(value: Linear, dtype: str) -> Value:
    """Returns a value with bounds on its element that keep it within a type; None if no element does."""
    least, greatest = range_of(dtype)
    ends = sorted((end - value.constant) * value.factor for end in (least, greatest))
    square = value.factor * value.factor
    low, high = max(value.low, -(-ends[0] // square)), min(value.high, ends[1] // square)
    return replace(value, low=low, high=high) if low <= high else None
