"""How often a loop runs, where the program says it.

XLA on CPU and GPU states `known_trip_count` in the loop's `backend_config`. A module compiled for TPU does not, so it
is inferred from what the loop does to its induction variable:

    init = constant(0)                     body:  i' = i + 1            condition:  i < limit
    while(tuple(init, x, limit))                  tuple(i', x', limit)

Every scalar integer is followed, as `carried element + constant`, through tuples, copies, bitcasts, fusions and calls;
the count is the first iteration whose comparison fails. (XLA does the same in WhileLoopAnalysis, for fewer forms.)
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from memplan.compiler.ir.graph import Computation, Graph, Instruction
from memplan.compiler.ir.shape import BITS_PER_ELEMENT

# What XLA's memory space assignment assumes of a loop whose trip count is unknown
# (memory_space_assignment/cost_analysis.h, `xla_tpu_memory_space_assignment_while_execution_count`).
ASSUMED_TRIP_COUNT = 5.0

# Real loops take some dozens of steps; nested calls made to double the work at every level are given up.
_MAX_STEPS = 20_000
_MAX_DEPTH = 200
# JSON, JSON in a quoted string, and text proto: {"known_trip_count":{"n":"12"}}, {"n":12}, known_trip_count { n: 12 }.
_KNOWN = re.compile(r"known_trip_count[\\\"]*\s*+:?\s*+\{\s*[\\\"]*n[\\\"]*\s*:\s*[\\\"]*(\d{1,18})(?!\d)")

Path = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Linear:
    """A scalar integer: an element of the loop's carried tuple plus a constant.

    Attributes:
      path: tuple index of the element; None for a constant.
      constant: what is added to it.
    """

    path: Path | None
    constant: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """A truth value: `left direction right`, the direction being LT, LE, GT, GE, EQ or NE."""

    left: Linear
    right: Linear
    direction: str


Value = Linear | Comparison | None
Environment = Callable[[int, Path], Value]


def trip_count(graph: Graph, instruction: Instruction, caller: Computation) -> tuple[float, bool]:
    """Returns how often the body of a `while` in `caller` runs, and whether the program says so.

    Where it does not, the count is `ASSUMED_TRIP_COUNT`.
    """
    stated = _KNOWN.search(instruction.attribute("backend_config"))
    if stated:
        return float(stated.group(1)), True
    count = _inferred(graph, instruction, caller)
    return (ASSUMED_TRIP_COUNT, False) if count is None else (float(count), True)


def _inferred(graph: Graph, instruction: Instruction, caller: Computation) -> int | None:
    evaluator = _Evaluator(graph)

    def carried(_: int, path: Path) -> Value:
        return Linear(path, 0)

    condition = graph.called(instruction, "condition")
    comparison = evaluator.value(condition, condition.root, (), carried)
    if not isinstance(comparison, Comparison):
        return None
    body = graph.called(instruction, "body")

    def progression(side: Linear) -> tuple[int, int] | None:
        """Returns a side's value in the first iteration, and what each iteration adds to it."""
        if side.path is None:
            return side.constant, 0
        after = evaluator.value(body, body.root, side.path, carried)
        before = evaluator.value(caller, instruction.operands[0], side.path, lambda _, path: None)
        if not isinstance(after, Linear) or after.path != side.path:
            return None
        if not isinstance(before, Linear) or before.path is not None:
            return None
        return before.constant + side.constant, after.constant

    left, right = progression(comparison.left), progression(comparison.right)
    if left is None or right is None:
        return None
    return _first_failure(left[0] - right[0], left[1] - right[1], comparison.direction)


def _first_failure(start: int, step: int, direction: str) -> int | None:
    """Returns the least `k >= 0` for which `start + k * step` compares to 0 as false; None if there is none."""
    if direction in ("GT", "GE"):
        return _first_failure(-start, -step, "LT" if direction == "GT" else "LE")
    if direction == "LE":
        return _first_failure(start - 1, step, "LT")
    if direction == "LT":
        if start >= 0:
            return 0
        return -(start // step) if step > 0 else None
    if direction == "EQ":
        if start != 0:
            return 0
        return 1 if step != 0 else None
    if direction == "NE":
        if start == 0:
            return 0
        if step == 0 or start % step != 0 or -start // step < 0:
            return None
        return -start // step
    return None


# Opcodes whose single result is their operand, as far as a scalar integer is concerned.
_TRANSPARENT = frozenset(
    {
        "copy", "copy-done", "bitcast", "reshape", "opt-barrier", "optimization-barrier", "convert", "broadcast",
        "transpose",
    }
)  # fmt: skip
_OPPOSITE = {"LT": "GE", "GE": "LT", "GT": "LE", "LE": "GT", "EQ": "NE", "NE": "EQ"}


class _Evaluator:
    """Follows values back to what defines them; remembers what it found in each environment."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.found: dict[tuple[str, int, Path, int], Value] = {}
        self.kept: list[Environment] = []  # keeps their ids from being used again
        self.budget = _MAX_STEPS

    def value(
        self, computation: Computation, index: int, path: Path, environment: Environment, depth: int = 0
    ) -> Value:
        """Returns what stands at tuple index `path` of an instruction's result; None if it cannot be said."""
        key = (computation.name, index, path, id(environment))
        if key not in self.found:
            self.budget -= 1
            if self.budget < 0:
                return None
            self.kept.append(environment)
            self.found[key] = None
            if depth < _MAX_DEPTH:
                self.found[key] = self._value(computation, index, path, environment, depth + 1)
        return self.found[key]

    def _value(self, computation: Computation, index: int, path: Path, environment: Environment, depth: int) -> Value:
        instruction = computation.instructions[index]
        opcode, operands = instruction.opcode, instruction.operands

        def operand(number: int, at: Path = ()) -> Value:
            return self.value(computation, operands[number], at, environment, depth)

        if opcode == "get-tuple-element":
            return operand(0, (int(instruction.attribute("index")), *path))
        if opcode == "parameter":
            return environment(instruction.parameter_number, path)
        if opcode == "tuple":
            return operand(path[0], path[1:]) if path and path[0] < len(operands) else None
        if opcode == "copy-start":  # (destination, source, context)
            return operand(0, path[1:]) if path and path[0] in (0, 1) else None
        if opcode in ("fusion", "call") and len(instruction.called) == 1:
            callee = self.graph.computations[instruction.called[0]]

            def argument(number: int, at: Path) -> Value:
                return operand(number, at) if number < len(operands) else None

            return self.value(callee, callee.root, path, argument, depth)
        if opcode == "while":
            return self._after_loop(instruction, computation, path, environment, depth)
        if opcode in ("copy", "copy-done", "opt-barrier", "optimization-barrier"):
            return operand(0, (0, *path) if opcode == "copy-done" else path)
        if path or instruction.shape.num_elements != 1:
            return None
        if opcode in _TRANSPARENT:
            return operand(0)
        if opcode == "not":
            value = operand(0)
            if isinstance(value, Comparison):
                return Comparison(value.left, value.right, _OPPOSITE[value.direction])
            return None
        if opcode == "constant":
            return _constant(instruction)
        if opcode in ("add", "subtract", "compare"):
            return _combined(instruction, operand(0), operand(1))
        return None

    def _after_loop(
        self, instruction: Instruction, computation: Computation, path: Path, environment: Environment, depth: int
    ) -> Value:
        """Returns what a loop leaves in an element: what it was before, if the body passes it through."""
        body = self.graph.called(instruction, "body")
        after = self.value(body, body.root, path, _carried_through, depth)
        if after == Linear(path, 0):
            return self.value(computation, instruction.operands[0], path, environment, depth)
        return None


def _carried_through(_: int, path: Path) -> Value:
    return Linear(path, 0)


def _constant(instruction: Instruction) -> Value:
    text = instruction.payload.strip().strip("{}").strip()
    is_integer = instruction.shape.dtype[0] in "su" and re.fullmatch(r"-?\d{1,20}", text) is not None
    return Linear(None, int(text)) if is_integer else None


def _combined(instruction: Instruction, left: Value, right: Value) -> Value:
    if not isinstance(left, Linear) or not isinstance(right, Linear):
        return None
    if instruction.opcode == "compare":
        direction = instruction.attribute("direction")
        return Comparison(left, right, direction) if direction in _OPPOSITE else None
    if instruction.opcode == "add":
        if left.path is not None and right.path is not None:
            return None
        path, constant = left.path if left.path is not None else right.path, left.constant + right.constant
    elif right.path is None:
        path, constant = left.path, left.constant - right.constant
    else:
        return None
    bits = BITS_PER_ELEMENT.get(instruction.shape.dtype, 0)
    if bits == 0:
        return None
    # Arithmetic is modulo 2^bits: adding 4294967295 to a u32 takes 1 from it.
    constant %= 1 << bits
    is_negative = constant >= 1 << (bits - 1) and (path is not None or instruction.shape.dtype.startswith("s"))
    return Linear(path, constant - (1 << bits) if is_negative else constant)
