"""Building a Graph instruction by instruction: names that are unique in the module, tuples, constants, parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np

from memplan.compiler.frontends.jaxpr_arrays import literal_text, numpy_dtype, physical, tuple_shape
from memplan.compiler.ir import Computation, Instruction, Shape, Source

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_]+")

_WITHOUT_EFFECT = frozenset({"get-tuple-element", "constant", "bitcast", "tuple"})

NOWHERE = Source()

Attributes = Sequence[tuple[str, str]]


class ModuleBuilder:
    """The computations of a Graph in the making.

    Attributes:
      computations: the finished ones by name, callees before callers.
      warnings: what the user should know, each once.
    """

    def __init__(self) -> None:
        self.computations: dict[str, Computation] = {}
        self.warnings: dict[str, None] = {}
        self._next_suffix: dict[str, int] = {}
        self._named: dict[Any, str] = {}

    def unique_name(self, base: str) -> str:
        """Returns a name made of `base` that no instruction and no computation has yet: `dot`, `dot.1`, `dot.2`."""
        base = _NOT_IN_A_NAME.sub("_", base).strip("_") or "value"
        base = base if base[0].isalpha() else f"_{base}"
        suffix = self._next_suffix.get(base, 0)
        self._next_suffix[base] = suffix + 1
        return f"{base}.{suffix}" if suffix else base

    def shared(self, key: Any, build: Callable[[], str]) -> str:
        """Returns the name of the computation known by `key`; `build` makes it when it is first asked for."""
        if key not in self._named:
            self._named[key] = build()
        return self._named[key]


class ComputationBuilder:
    """One computation in the making. Values are indices of instructions.

    Args:
      module: that it belongs to.
      name: wish for its name.
    """

    def __init__(self, module: ModuleBuilder, name: str):
        self.module = module
        self.name = module.unique_name(name)
        self._instructions: list[Instruction] = []
        self._num_parameters = 0
        self._scalars: dict[tuple[str, bytes], int] = {}
        self._elements: dict[tuple[int, int], int] = {}

    def emit(
        self,
        opcode: str,
        shape: Shape,
        operands: Sequence[int] = (),
        *,
        name: str = "",
        attributes: Attributes = (),
        called: Sequence[str] = (),
        payload: str = "",
        source: Source = NOWHERE,
        evaluate: Callable[..., Any] | None = None,
    ) -> int:
        """Appends an instruction, called after its opcode unless `name` wishes otherwise; returns its index."""
        self._instructions.append(
            Instruction(
                name=self.module.unique_name(name or opcode),
                opcode=opcode,
                shape=shape,
                operands=tuple(operands),
                called=tuple(called),
                attributes=tuple(attributes),
                payload=payload,
                source=source,
                evaluate=evaluate,
            )
        )
        return len(self._instructions) - 1

    def shape(self, value: int) -> Shape:
        return self._instructions[value].shape

    def parameter(self, shape: Shape, name: str = "parameter", source: Source = NOWHERE) -> int:
        """Appends the next parameter."""
        number = self._num_parameters
        self._num_parameters += 1
        return self.emit("parameter", shape, name=name, payload=str(number), source=source)

    def constant(self, value: Any, shape: Shape, name: str = "constant", source: Source = NOWHERE) -> int:
        """Appends a constant; a scalar that is there already is used again."""
        if shape.dims:
            is_small = shape.num_elements <= 10
            text = literal_text(np.asarray(physical(value))) if is_small else "{...}"
            return self.emit(
                "constant", shape, name=name, payload=text, source=source, evaluate=lambda: physical(value)
            )
        array = np.asarray(physical(value), numpy_dtype(shape.dtype))
        key = (shape.dtype, array.tobytes())
        if key not in self._scalars:
            self._scalars[key] = self.emit(
                "constant", shape, name=name, payload=literal_text(array), source=source, evaluate=lambda: array
            )
        return self._scalars[key]

    def index_constant(self, value: int) -> int:
        """Returns a constant of the type that loop counters and offsets have."""
        return self.constant(np.int32(value), Shape("s32"))

    def tuple(self, elements: Sequence[int], source: Source = NOWHERE) -> int:
        """Appends a tuple of values."""
        shape = tuple_shape([self.shape(element) for element in elements])
        return self.emit("tuple", shape, elements, source=source, evaluate=lambda *values: values)

    def element(self, value: int, index: int) -> int:
        """Returns an element of a tuple."""
        if self._instructions[value].opcode == "tuple":
            return self._instructions[value].operands[index]
        if (value, index) not in self._elements:
            self._elements[value, index] = self.emit(
                "get-tuple-element",
                self.shape(value).elements[index],
                (value,),
                attributes=(("index", str(index)),),
                evaluate=lambda values: values[index],
            )
        return self._elements[value, index]

    def elements(self, value: int) -> list[int]:
        """Returns all elements of a tuple."""
        return [self.element(value, index) for index in range(len(self.shape(value).elements))]

    def view(self, value: int, shape: Shape, source: Source = NOWHERE, attributes: Attributes = ()) -> int:
        """Appends a bitcast: the same bytes under another shape of as many elements of the same type."""
        dims = shape.dims
        return self.emit(
            "bitcast",
            shape,
            (value,),
            source=source,
            attributes=attributes,
            evaluate=lambda array: array.reshape(dims),
        )

    def finish(self, root: int) -> str:
        """Adds the computation to its module, without names for values that are not used; returns its name."""
        used = [False] * len(self._instructions)
        used[root] = True
        for i in range(len(self._instructions) - 1, -1, -1):
            instruction = self._instructions[i]
            if used[i] or instruction.opcode not in _WITHOUT_EFFECT:
                used[i] = True
                for operand in instruction.operands:
                    used[operand] = True
        new_index = list(accumulate(used, initial=0))
        kept = [
            replace(instruction, operands=tuple(new_index[operand] for operand in instruction.operands))
            for instruction, is_used in zip(self._instructions, used, strict=True)
            if is_used
        ]
        self.module.computations[self.name] = Computation(self.name, tuple(kept), new_index[root])
        return self.name

    def finish_with(self, results: Sequence[int]) -> str:
        """Adds the computation; its result is the one given, or a tuple of them. Returns its name."""
        return self.finish(results[0] if len(results) == 1 else self.tuple(results))

    def source_of(self, value: int) -> Instruction:
        """Returns the instruction that owns the memory of a value, behind views of it."""
        instruction = self._instructions[value]
        while instruction.opcode in ("bitcast", "reshape"):
            instruction = self._instructions[instruction.operands[0]]
        return instruction
