"""One step as the body of a C function, with its numbers apart from its text.

Steps whose texts are equal share a function, and what differs are its arguments (`kernels.py`). Numbers that shape the
code, 0 and 1, are part of the text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from memplan.backends.c.operators import TYPES, combined, constant_text, convert_text, neutral, operation_text
from memplan.backends.c.value_ranges import ValueRanges
from memplan.compiler.embedded.affine import AffineIndex, LoopIndex, Quotient
from memplan.compiler.embedded.expressions import (
    Condition,
    Constant,
    Divisible,
    Element,
    Expression,
    Guarded,
    Position,
    Reduction,
    Within,
    children,
    walk,
)
from memplan.compiler.embedded.program import EmbeddedProgram, InPlaceWay, LoopNest

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
    """

    lines: list[str] = field(default_factory=list)
    numbers: list[int | float] = field(default_factory=list)
    parameters: list[tuple[str, str]] = field(default_factory=list)
    buffers: list[int | None] = field(default_factory=list)


def kernel_text(program: EmbeddedProgram, step: LoopNest, way: InPlaceWay | None) -> KernelText:
    """Returns the text of a step that writes in place in the given way."""
    return _KernelWriter(program, step, way).write()


class _KernelWriter:
    def __init__(self, program: EmbeddedProgram, step: LoopNest, way: InPlaceWay | None):
        self.program, self.step, self.way = program, step, way
        self.text = KernelText()
        self.depth = 1
        self.pointer: dict[int, str] = {}
        self.ranges = ValueRanges()
        self.shared: set[int] = set()
        self.names: list[dict[int, str]] = [{}]
        self.count = 0

    # ---- text

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

    def number(self, value: int) -> str:
        """Returns the mark of a number; small ones shape the code and are written out."""
        if value in (0, 1):
            return str(value)
        self.text.numbers.append(value)
        return MARK.format(len(self.text.numbers) - 1)

    def fresh(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    # ---- the step

    def write(self) -> KernelText:
        for number, buffer in enumerate(self.step.reads):
            self._pointer(buffer, "const ", f"x{number}")
        for number, store in enumerate(self.step.stores):
            self._pointer(store.buffer, "", f"y{number}")
        if self.way is not None and self.way.workspace:
            self.text.parameters.append((f"{TYPES[self.step.stores[self.way.store].value.dtype]} *", "part"))
            self.text.buffers.append(None)
        self._count_uses()
        order = list(range(len(self.step.loops)))
        if self.way is not None and self.way.slices is not None:
            order.insert(0, order.pop(self.way.slices))
        outer = self.way.num_outer if self.way is not None else len(order)
        for k in order[:outer]:
            self._loop(k, self.way is not None and self.way.is_descending)
        if self.way is not None and self.way.workspace:
            self._parts(order[outer:])
        else:
            for k in order[outer:]:
                self._loop(k)
            self._stores()
            for _ in order[outer:]:
                self.close()
        for _ in order[:outer]:
            self.close()
        return self.text

    def _pointer(self, buffer: int, qualifier: str, name: str) -> None:
        """Names a pointer to a buffer; one that is read and written has one pointer."""
        if buffer in self.pointer:
            place = self.text.buffers.index(buffer)
            self.text.parameters[place] = (self._type(buffer), self.text.parameters[place][1])
            return
        self.pointer[buffer] = name
        self.text.parameters.append((qualifier + self._type(buffer), name))
        self.text.buffers.append(buffer)

    def _type(self, buffer: int) -> str:
        each = self.program.buffers[buffer]
        return "uint8_t *" if each.is_packed else f"{TYPES[each.dtype]} *"

    def _loop(self, k: int, is_descending: bool = False) -> None:
        extent = self.number(self.step.loops[k])
        if is_descending:
            self.open(f"for (int32_t i{k} = {extent} - 1; i{k} >= 0; i{k}--)")
        else:
            self.open(f"for (int32_t i{k} = 0; i{k} < {extent}; i{k}++)")

    def _stores(self) -> None:
        values = [(store, self.value(store.value)) for store in self.step.stores]
        if len(values) > 1:  # All values come before all stores: one may be written over what another reads.
            values = [(store, self._named(store.value.dtype, value)) for store, value in values]
        for store, value in values:
            self._store(store.buffer, self.index(store.index), value)

    def _store(self, buffer: int, index: str, value: str) -> None:
        pointer = self.pointer[buffer]
        if self.program.buffers[buffer].is_packed:
            self.line(f"put_bit({pointer}, {index}, {value});")
        else:
            self.line(f"{pointer}[{index}] = {value};")

    def _parts(self, inner: Sequence[int]) -> None:
        """Writes a part of the result to the workspace, and then all of it in place."""
        assert self.way is not None
        counter = self.fresh("c")
        self.line(f"int32_t {counter} = 0;")
        for k in inner:
            self._loop(k)
        values = [(store, self.value(store.value)) for store in self.step.stores]
        values = [(store, self._named(store.value.dtype, value)) for store, value in values]
        for number, (store, value) in enumerate(values):
            if number == self.way.store:
                self.line(f"part[{counter}++] = {value};")
            else:
                self._store(store.buffer, self.index(store.index), value)
        for _ in inner:
            self.close()
        self.line(f"{counter} = 0;")
        for k in inner:
            self._loop(k)
        store = self.step.stores[self.way.store]
        self._store(store.buffer, self.index(store.index), f"part[{counter}++]")
        for _ in inner:
            self.close()

    # ---- indices

    def index(self, index: AffineIndex) -> str:
        parts = []
        for atom, coefficient in index.terms:
            if isinstance(atom, LoopIndex):
                text = f"i{atom.number}"
            else:
                sign = "/" if isinstance(atom, Quotient) else "%"
                text = f"({self.index(atom.dividend)}) {sign} {self.number(atom.divisor)}"
                text = f"({text})"
            sign = "-" if coefficient == -1 else ""
            parts.append(f"{sign}{text}" if coefficient in (1, -1) else f"{text} * {self.number(coefficient)}")
        if index.constant or not parts:
            parts.append(self.number(index.constant))
        return " + ".join(parts)

    # ---- values

    def _count_uses(self) -> None:
        """Finds expressions that are used more than once, and are worth a name."""
        uses: dict[int, int] = {}
        for each in walk(*(store.value for store in self.step.stores)):
            for child in children(each):
                uses[id(child)] = uses.get(id(child), 0) + 1
        for store in self.step.stores:
            uses[id(store.value)] = uses.get(id(store.value), 0) + 1
        self.shared = {key for key, count in uses.items() if count > 1}

    def _known(self, expression: Expression) -> str | None:
        return next((names[id(expression)] for names in reversed(self.names) if id(expression) in names), None)

    def _named(self, dtype: str, value: str) -> str:
        if value.isidentifier():
            return value
        name = self.fresh("v")
        self.line(f"const {TYPES[dtype]} {name} = {value};")
        return name

    def value(self, expression: Expression) -> str:
        """Returns the text of a value; lines that it needs before it are written."""
        known = self._known(expression)
        if known is not None:
            return known
        text = self._text(expression)
        if id(expression) in self.shared and not isinstance(expression, Constant):
            text = self._named(expression.dtype, text)
            self.names[-1][id(expression)] = text
        return text

    def _text(self, expression: Expression) -> str:
        match expression:
            case Constant():
                return self._constant(expression)
            case Element():
                return self._element(expression)
            case Position():
                return convert_text("int32", expression.dtype, f"({self.index(expression.index)})")
            case Guarded():
                return self._guarded(expression)
            case Reduction():
                return self._reduction(expression)
        operands = [self.value(operand) for operand in expression.operands]
        dtypes = [operand.dtype for operand in expression.operands]
        is_exact = self.ranges.fits(expression)
        return operation_text(expression.name, operands, dtypes, expression.dtype, is_exact)

    def _constant(self, expression: Constant) -> str:
        value = expression.value
        if expression.dtype == "float32":
            if value == 0.0 or value == 1.0 or not math.isfinite(value):
                return constant_text(value, "float32")
            self.text.numbers.append(float(value))
            return MARK.format(len(self.text.numbers) - 1)
        if expression.dtype in ("bool", "uint32") or value == -(2**31):
            return constant_text(value, expression.dtype)
        return self.number(int(value))

    def _element(self, expression: Element) -> str:
        pointer, index = self.pointer[expression.buffer], self.index(expression.index)
        if self.program.buffers[expression.buffer].is_packed:
            return f"get_bit({pointer}, {index})"
        return f"{pointer}[{index}]"

    def _guarded(self, expression: Guarded) -> str:
        name = self.fresh("v")
        self.line(f"{TYPES[expression.dtype]} {name};")
        self.open(f"if ({' && '.join(self.condition(each) for each in expression.conditions)})")
        self.line(f"{name} = {self.value(expression.inside)};")
        self.close()
        self.open("else")
        self.line(f"{name} = {self.value(expression.outside)};")
        self.close()
        self.names[-1][id(expression)] = name
        return name

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

    # ---- reductions

    def _reduction(self, expression: Reduction) -> str:
        if expression.combine in ("argmax", "argmin"):
            return self._arg_reduction(expression)
        name = self.fresh("a")
        self.line(f"{TYPES[expression.dtype]} {name} = {neutral(expression.combine, expression.dtype)};")
        body: Expression = expression.body
        conditions: tuple[Condition, ...] = ()
        if isinstance(body, Guarded) and _is_neutral(body.outside, expression):
            conditions = body.conditions
            body = body.inside
        placed = _placed(conditions, expression.loops)
        self._skipping(placed.get(-1, []))
        for number, loop in enumerate(expression.loops):
            self._reduction_loop(loop, placed.get(number, []))
        value = self.value(body)
        text = combined(expression.combine, name, value, expression.dtype, self.ranges.fits(expression))
        self.line(f"{name} = {text};")
        for _ in expression.loops:
            self.close()
        if placed.get(-1):
            self.close()
        self.names[-1][id(expression)] = name
        return name

    def _skipping(self, conditions: Sequence[Condition]) -> None:
        if conditions:
            self.open(f"if ({' && '.join(self.condition(each) for each in conditions)})")

    def _reduction_loop(self, loop: LoopIndex, conditions: Sequence[Condition]) -> None:
        """Opens a loop over the iterations for which conditions hold, whose last loop it is."""
        name, extent = f"i{loop.number}", self.number(loop.extent)
        first, end, rest = "0", extent, []
        for condition in conditions:
            ranged = isinstance(condition, Within) and condition.index.is_linear
            coefficient = condition.index.coefficient(loop.number)
            if not ranged or coefficient != 1 or first != "0" or end != extent:
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
        self.open(f"for (int32_t {name} = {first}; {name} < {end}; {name}++)")
        if rest:
            self.line(f"if (!({' && '.join(self.condition(each) for each in rest)})) {{")
            self.line("    continue;")
            self.line("}")

    def _arg_reduction(self, expression: Reduction) -> str:
        (loop,) = expression.loops
        place, best = self.fresh("a"), self.fresh("v")
        dtype = expression.body.dtype
        self.line(f"{TYPES[expression.dtype]} {place} = 0;")
        self.line(f"{TYPES[dtype]} {best} = 0;")
        name = f"i{loop.number}"
        self.open(f"for (int32_t {name} = 0; {name} < {self.number(loop.extent)}; {name}++)")
        value = self._named(dtype, self.value(expression.body))
        sign = ">" if expression.combine == "argmax" else "<"
        test = f"{name} == 0 || {value} {sign} {best}"
        if dtype == "float32":  # The first one that is not a number is the greatest and the least.
            test = f"{name} == 0 || ({best} == {best} && !({value} {'<=' if sign == '>' else '>='} {best}))"
        self.open(f"if ({test})")
        self.line(f"{best} = {value};")
        self.line(f"{place} = ({TYPES[expression.dtype]}){name};")
        self.close()
        self.close()
        self.names[-1][id(expression)] = place
        return place


def _is_neutral(expression: Expression, reduction: Reduction) -> bool:
    return reduction.combine == "sum" and isinstance(expression, Constant) and expression.value == 0


def _placed(conditions: Sequence[Condition], loops: Sequence[LoopIndex]) -> dict[int, list[Condition]]:
    """Returns conditions by the innermost of a reduction's loops that they depend on; -1 for none of them."""
    found: dict[int, list[Condition]] = {}
    for condition in conditions:
        place = max((k for k, loop in enumerate(loops) if loop.number in condition.index.loops), default=-1)
        found.setdefault(place, []).append(condition)
    return found
