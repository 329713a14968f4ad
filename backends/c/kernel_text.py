"""One step as the body of a C function, with its numbers apart from its text.

Steps whose texts are equal share a function, and what differs are its arguments (`kernels.py`). Numbers that shape the
code, 0 and 1, are part of the text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from memplan.backends.c.kernel_lines import MARK, KernelLines, KernelText
from memplan.backends.c.operators import TYPES, combined, constant_text, convert_text, neutral, operation_text
from memplan.backends.c.sum_functions import has_zero
from memplan.backends.c.sums import LibrarySum, library_sums, placed
from memplan.backends.c.value_ranges import ValueRanges, clamped
from memplan.compiler.embedded.affine import AffineIndex, LoopIndex
from memplan.compiler.embedded.expressions import (
    Condition,
    Constant,
    Element,
    Expression,
    Guarded,
    Position,
    Reduction,
    children,
    walk,
)
from memplan.compiler.embedded.products import RESULTS_AT_ONCE, Factor, unguarded
from memplan.compiler.embedded.program import EmbeddedProgram, InPlaceWay, LoopNest


def kernel_text(program: EmbeddedProgram, step: LoopNest, way: InPlaceWay | None) -> KernelText:
    """Returns the text of a step that writes in place in the given way."""
    return _KernelWriter(program, step, way).write()


class _KernelWriter(KernelLines):
    def __init__(self, program: EmbeddedProgram, step: LoopNest, way: InPlaceWay | None):
        super().__init__()
        self.program, self.step, self.way = program, step, way
        self.pointer: dict[int, str] = {}
        self.ranges = ValueRanges()
        self.shared: set[int] = set()

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
        depth = self.depth
        if self.way is not None and self.way.width > 1:
            self._parts(order[1:], (order[0], *self._block_loop(order[0])))
        elif self.way is not None and self.way.workspace:
            for k in order[:outer]:
                self._loop(k, self.way.is_descending)
            self._parts(order[outer:])
        else:
            is_descending = self.way is not None and self.way.is_descending
            for k in order[:-1]:
                self._loop(k, is_descending and k in order[:outer])
            if order:
                self._last_loop(order[-1], is_descending and len(order) == outer)
            self._stores()
        self.close_to(depth)
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

    def _last_loop(self, k: int, is_descending: bool = False) -> None:
        """Opens the innermost loop, in blocks if the library computes several of its iterations at once."""
        sums = {} if is_descending else self._library_sums(k)
        if sums:
            self._loop_within(k, *self._block_loop(k), sums)
        else:
            self._loop(k, is_descending)

    def _library_sums(self, k: int) -> dict[int, tuple[LibrarySum, ...]]:
        """Returns the reductions of which the library computes several iterations of a loop at once."""
        found = {}
        for each in self._unconditional():
            calls = library_sums(each, k) if self.ranges.fits(each) else ()
            if calls and calls[0].block is not None:
                found[id(each)] = calls
        return found

    def _block_loop(self, k: int) -> tuple[str, str]:
        """Opens a loop over blocks of iterations, and returns the start and the end of a block."""
        start, end, extent = self.fresh("start"), self.fresh("end"), self.number(self.step.loops[k])
        self.open(f"for (int32_t {start} = 0; {start} < {extent}; {start} += {RESULTS_AT_ONCE})")
        self.line(f"const int32_t {end} = smaller({start} + {RESULTS_AT_ONCE}, {extent});")
        return start, end

    def _loop_within(self, k: int, start: str, end: str, sums: Mapping[int, Sequence[LibrarySum]]) -> None:
        """Writes the sums of a block, as `_library_sums` returns them, and opens the loop over its iterations."""
        self.starts[k] = start
        for key, calls in sums.items():
            name = self._called(calls, f"{end} - {start}")
            self.names[-1][key] = f"{name}[i{k} - {start}]"
        del self.starts[k]
        self.open(f"for (int32_t i{k} = {start}; i{k} < {end}; i{k}++)")

    def _unconditional(self) -> Iterator[Reduction]:
        """Yields the reductions that every iteration computes, and that do not lie in one another."""
        stack: list[Expression] = [store.value for store in reversed(self.step.stores)]
        seen: set[int] = set()
        while stack:
            each = stack.pop()
            if id(each) in seen:
                continue
            seen.add(id(each))
            if isinstance(each, Reduction):
                yield each
            elif not isinstance(each, Guarded):
                stack.extend(reversed(children(each)))

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

    def _parts(self, inner: Sequence[int], block: tuple[int, str, str] | None = None) -> None:
        """Writes a part of the result to the workspace, and then all of it in place.

        Args:
          inner: the loops of a part.
          block: a loop inside of these of which a part has some iterations, and where they start and end.
        """
        assert self.way is not None
        counter = self.fresh("c")
        self.line(f"int32_t {counter} = 0;")
        depth = self.depth
        for k in inner if block is not None else inner[:-1]:
            self._loop(k)
        if block is not None:
            self._loop_within(*block, self._library_sums(block[0]))
        else:
            self._last_loop(inner[-1])
        values = [(store, self.value(store.value)) for store in self.step.stores]
        values = [(store, self._named(store.value.dtype, value)) for store, value in values]
        for number, (store, value) in enumerate(values):
            if number == self.way.store:
                self.line(f"part[{counter}++] = {value};")
            else:
                self._store(store.buffer, self.index(store.index), value)
        self.close_to(depth)
        self._copy_part(inner, counter, block)

    def _copy_part(self, inner: Sequence[int], counter: str, block: tuple[int, str, str] | None) -> None:
        """Writes a part from the workspace to its place."""
        assert self.way is not None
        store = self.step.stores[self.way.store]
        depth = self.depth
        if block is None and _is_contiguous(store.index, inner, self.step.loops):
            place = self.index(store.index.without(inner))
            self.line(f"memcpy({self.pointer[store.buffer]} + {place}, part, (size_t){counter} * sizeof *part);")
            return
        self.line(f"{counter} = 0;")
        for k in inner:
            self._loop(k)
        if block is not None:
            k, first, end = block
            self.open(f"for (int32_t i{k} = {first}; i{k} < {end}; i{k}++)")
        self._store(store.buffer, self.index(store.index), f"part[{counter}++]")
        self.close_to(depth)

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
        if expression.name == "convert" and (limits := clamped(expression)) is not None:
            return self._clamped(expression.dtype, *limits)
        operands = [self.value(operand) for operand in expression.operands]
        dtypes = [operand.dtype for operand in expression.operands]
        is_exact = self.ranges.fits(expression)
        return operation_text(expression.name, operands, dtypes, expression.dtype, is_exact)

    def _clamped(self, dtype: str, value: Expression, low: int, high: int) -> str:
        ends = ", ".join(self.argument(end) if abs(end) > 1 else constant_text(end, "int32") for end in (low, high))
        return f"({TYPES[dtype]})f32_to_int({self.value(value)}, {ends})"

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

    # ---- reductions

    def _reduction(self, expression: Reduction) -> str:
        if expression.combine in ("argmax", "argmin"):
            return self._arg_reduction(expression)
        calls = library_sums(expression, None) if self.ranges.fits(expression) else ()
        if calls:
            name = self._called(calls, "1")
            self.names[-1][id(expression)] = name
            return name
        name = self.fresh("a")
        self.line(f"{TYPES[expression.dtype]} {name} = {neutral(expression.combine, expression.dtype)};")
        body, conditions = unguarded(expression)
        by_loop = placed(conditions, expression.loops)
        depth = self.depth
        self._skipping(by_loop.get(-1, []))
        for number, loop in enumerate(expression.loops):
            self._reduction_loop(loop, by_loop.get(number, []))
        value = self.value(body)
        text = combined(expression.combine, name, value, expression.dtype, self.ranges.fits(expression))
        self.line(f"{name} = {text};")
        self.close_to(depth)
        self.names[-1][id(expression)] = name
        return name

    def _called(self, calls: Sequence[LibrarySum], count: str) -> str:
        """Writes sums of products as calls of the library, and returns the variable that holds them."""
        name = self.fresh("a")
        kind, zero = ("int32_t", "0") if calls[0].dtype == "int32" else ("float", "0.0f")
        zeros = ", ".join([zero] * RESULTS_AT_ONCE)
        is_one = count == "1"
        self.line(f"{kind} {name} = {zero};" if is_one else f"{kind} {name}[{RESULTS_AT_ONCE}] = {{{zeros}}};")
        for call in calls:
            self._call(call, f"&{name}" if is_one else name, count)
        return name

    def _call(self, which: LibrarySum, sums: str, count: str) -> None:
        self.text.functions.add(which.function)
        depth = self.depth
        self._skipping(which.conditions.get(-1, []))
        for number, loop in enumerate(which.outer):
            self._reduction_loop(loop, which.conditions.get(number, []))
        firsts, counts = [], []
        inside = [which.columns] if which.rows is None else [which.rows, which.columns]
        for number, loop in enumerate(inside, len(which.outer)):
            first, end, _ = self.range_of(loop, which.conditions.get(number, []))
            firsts.append((loop, first))
            counts.append(end if first == "0" else f"{end} - {first}")
        arguments = [sums, count]
        for factor in (which.x, which.w):
            arguments += self._operand(which, factor, firsts)
        if which.joined is not None:
            extent = self.number(which.joined.extent)
            counts[-1] = f"({counts[-1]}) * {extent}" if " " in counts[-1] else f"{counts[-1]} * {extent}"
        if which.is_window and which.rows is None:
            counts.insert(0, "1")
        self.line(f"{which.function}({', '.join([*arguments, *counts])});")
        self.close_to(depth)

    def _operand(self, which: LibrarySum, factor: Factor, firsts: Sequence[tuple[LoopIndex, str]]) -> list[str]:
        """Returns the arguments for one operand: its pointer, zero point and strides."""
        index, is_x = factor.element.index, factor is which.x
        inner = {loop.number for loop in (which.rows, which.columns, which.joined) if loop is not None}
        base = index.without(inner)
        parts = [self.index(base)] if base.terms or base.constant else []
        for loop, first in firsts:
            if first != "0" and index.coefficient(loop.number):
                parts.append(f"{first} * {self.number(index.coefficient(loop.number))}")
        arguments = [" + ".join([self.pointer[factor.element.buffer], *parts])]
        if is_x and has_zero(factor.element.dtype):
            arguments.append(self.argument(factor.zero))
        if which.is_window:
            arguments.append(self.argument(index.coefficient(which.rows.number) if which.rows is not None else 0))
        elif not is_x:
            arguments.append(self.argument(index.coefficient(which.block) if which.block is not None else 0))
        step = index.coefficient((which.joined or which.columns).number)
        return [*arguments, self.number(step)]

    def _skipping(self, conditions: Sequence[Condition]) -> None:
        if conditions:
            self.open(f"if ({' && '.join(self.condition(each) for each in conditions)})")

    def _reduction_loop(self, loop: LoopIndex, conditions: Sequence[Condition]) -> None:
        """Opens a loop over the iterations for which conditions hold, whose last loop it is."""
        name = f"i{loop.number}"
        first, end, rest = self.range_of(loop, conditions)
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


def _is_contiguous(index: AffineIndex, loops: Sequence[int], extents: Sequence[int]) -> bool:
    """Whether loops run through memory element by element."""
    size = 1
    for k in reversed(loops):
        if index.coefficient(k) != size:
            return False
        size *= extents[k]
    return index.is_linear
