"""The lines of a C function that are written for a step, with its numbers apart from its text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from memplan.backends.c.sums import is_range
from memplan.compiler.embedded.affine import AffineIndex, LoopIndex, Quotient
from memplan.compiler.embedded.expressions import Condition, Divisible, Within

# What stands in a text for number k of it.
MARK = "\0{}\0"


@dataclass
class KernelText:
    """A step in C.

    Attributes:
      lines: of the body, with marks for numbers.
      numbers: what the marks stand for: ints, or floats as `(value, "float")`.
      parameters: the pointers that it takes, as `(type, name)`.
      buffers: the buffer of each pointer; None for the workspace.
      functions: of the library for sums, that it calls.
    """

    lines: list[str] = field(default_factory=list)
    numbers: list[int | float] = field(default_factory=list)
    parameters: list[tuple[str, str]] = field(default_factory=list)
    buffers: list[int | None] = field(default_factory=list)
    functions: set[str] = field(default_factory=set)


class KernelLines:
    """Lines, blocks and indices.

    Attributes:
      text: that is written.
      depth: of the block that is open.
      names: of expressions that are known in each open block, by their identities.
      starts: what stands for a loop before its iterations, by its number.
    """

    def __init__(self) -> None:
        self.text = KernelText()
        self.depth = 1
        self.names: list[dict[int, str]] = [{}]
        self.starts: dict[int, str] = {}
        self._count = 0

    def line(self, text: str) -> None:
        self.text.lines.append("    " * self.depth + text)

    def open(self, text: str) -> None:
        self.line(text + " {")
        self.depth += 1
        self.names.append({})

    def close(self) -> None:
        self.names.pop()
        self.depth -= 1
        self.line("}")

    def close_to(self, depth: int) -> None:
        while self.depth > depth:
            self.close()

    def number(self, value: int) -> str:
        """Returns the mark of a number; small ones shape the code and are written out."""
        if value in (0, 1):
            return str(value)
        self.text.numbers.append(value)
        return MARK.format(len(self.text.numbers) - 1)

    def argument(self, value: int) -> str:
        """Returns the mark of a number that is the argument of a call, and shapes no code whatever it is."""
        self.text.numbers.append(value)
        return MARK.format(len(self.text.numbers) - 1)

    def fresh(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count}"

    def index(self, index: AffineIndex) -> str:
        parts = []
        for atom, coefficient in index.terms:
            if isinstance(atom, LoopIndex):
                text = self.starts.get(atom.number, f"i{atom.number}")
            else:
                sign = "/" if isinstance(atom, Quotient) else "%"
                text = f"({self.index(atom.dividend)}) {sign} {self.number(atom.divisor)}"
                text = f"({text})"
            sign = "-" if coefficient == -1 else ""
            parts.append(f"{sign}{text}" if coefficient in (1, -1) else f"{text} * {self.number(coefficient)}")
        if index.constant or not parts:
            parts.append(self.number(index.constant))
        return " + ".join(parts)

    def condition(self, condition: Condition) -> str:
        """Returns the text of a condition, without sides that always hold."""
        index = self.index(condition.index)
        if isinstance(condition, Divisible):
            return f"({index}) % {self.number(condition.divisor)} == 0"
        low, high = condition.index.bounds
        parts = []
        if low < condition.low:
            parts.append(f"{index} >= {self.number(condition.low)}")
        if high >= condition.high:
            parts.append(f"{index} < {self.number(condition.high)}")
        return " && ".join(parts)

    def range_of(self, loop: LoopIndex, conditions: Sequence[Condition]) -> tuple[str, str, list[Condition]]:
        """Returns where a loop begins and ends so that a condition on its range holds, and the other conditions."""
        extent = self.number(loop.extent)
        first, end, rest = "0", extent, []
        for condition in conditions:
            if not is_range(condition, loop) or first != "0" or end != extent:
                rest.append(condition)
                continue
            assert isinstance(condition, Within)
            outside = condition.index - AffineIndex(0, ((loop, 1),))
            low, high = condition.index.bounds
            if low < condition.low:
                first = self.fresh("first")
                self.line(f"const int32_t {first} = larger({self.index(outside * -1 + condition.low)}, 0);")
            if high >= condition.high:
                end = self.fresh("end")
                self.line(f"const int32_t {end} = smaller({self.index(outside * -1 + condition.high)}, {extent});")
        return first, end, rest
