"""What TensorFlow Lite for Microcontrollers (TFLM) keeps in its arena, when it is live, and where TFLM would put it.

TFLM counts a scope for the start of each subgraph and for each operator. A tensor lives from the scope in which it is
made, or 0 for inputs, to the last one that reads it, both included; outputs live to the end of their subgraph. Sources:
tensorflow/lite/micro/micro_allocation_info.cc and memory_planner/greedy_memory_planner.cc of
https://github.com/tensorflow/tflite-micro.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from memplan.compiler.errors import ParseError
from memplan.compiler.frontends.tflite_model import Subgraph, Tensor, TfliteModel, TfliteOperator

# Offsets and sizes in the arena are multiples of it.
ALIGNMENT = 16

# In a plan: TFLM shall find a place itself.
UNPLANNED = -1

# Which options of operators are numbers of subgraphs that they run.
_CALLS = {"CALL_ONCE": (0,), "IF": (0, 1), "WHILE": (0, 1)}

# So many operators are followed, those of called subgraphs each time that they are called.
_MOST_SCOPES = 1_000_000

# A tensor that nothing makes or reads has these scopes.
_NEVER = -1


@dataclass(frozen=True, slots=True)
class ArenaTensor:
    """A tensor that has a place in the arena.

    Attributes:
      index: among the tensors of all subgraphs, one subgraph after the other.
      subgraph: number of its subgraph.
      tensor: itself.
      size: bytes, rounded up to `ALIGNMENT`.
      first, last: scopes, both included.
    """

    index: int
    subgraph: int
    tensor: Tensor
    size: int
    first: int
    last: int


def arena_tensors(model: TfliteModel) -> tuple[ArenaTensor, ...]:
    """Returns the tensors that TFLM places in its arena, in the order in which it adds them.

    Constants stay in the file. Variables and their handles have memory of their own. What kernels ask for as scratch
    memory is not known.

    Raises:
      ParseError: subgraphs call each other without end, or a tensor that needs a place is of a type that is not known.
    """
    scopes = _Scopes(model)
    scopes.run(0, 0)
    found, base = [], 0
    for number, subgraph in enumerate(model.subgraphs):
        for tensor in subgraph.tensors:
            if tensor.is_constant or tensor.is_variable or tensor.is_resource:
                continue
            if not tensor.dtype:
                raise ParseError(f"subgraph {number}: {tensor} is of a type whose size is not known", model.file)
            if tensor.bytes:
                index = base + tensor.number
                size = -(-tensor.bytes // ALIGNMENT) * ALIGNMENT
                first, last = scopes.of.get(index, (_NEVER, _NEVER))
                found.append(ArenaTensor(index, number, tensor, size, first, last))
        base += len(subgraph.tensors)
    return tuple(found)


def num_tensors(model: TfliteModel) -> int:
    """Returns how many tensors all subgraphs have together."""
    return sum(len(subgraph.tensors) for subgraph in model.subgraphs)


class _Scopes:
    """Follows the operators of a model.

    Attributes:
      of: index of a tensor to its first and its last scope.
    """

    def __init__(self, model: TfliteModel):
        self.of: dict[int, tuple[int, int]] = {}
        self._model, self._scope = model, 0
        self._bases = [0]
        for subgraph in model.subgraphs:
            self._bases.append(self._bases[-1] + len(subgraph.tensors))

    def run(self, number: int, depth: int) -> None:
        """Follows a subgraph; `depth` is how many run around it."""
        model = self._model
        if not 0 <= number < len(model.subgraphs):
            raise ParseError(f"subgraph {number} is called; there are {len(model.subgraphs)}", model.file)
        if depth >= len(model.subgraphs):
            raise ParseError(f"subgraph {number} calls itself", model.file)
        subgraph, base = model.subgraphs[number], self._bases[number]
        for tensor in (*subgraph.inputs, *subgraph.outputs):
            self.of[base + tensor] = (self._scope, self._scope)
        for operator in subgraph.operators:
            self._operator(subgraph, base, operator, depth)
        for tensor in subgraph.outputs:
            self._use(base + tensor)

    def _operator(self, subgraph: Subgraph, base: int, operator: TfliteOperator, depth: int) -> None:
        self._scope += 1
        if self._scope > _MOST_SCOPES:
            raise ParseError(f"its subgraphs run more than {_MOST_SCOPES:,} operators", self._model.file)
        for tensor in operator.outputs:
            self.of[base + tensor] = (self._scope, self._scope)
        called = [operator.option(field, "i", -1) for field in _CALLS.get(operator.kind, ())]
        for number in called:
            self._scope += 1
            self.run(number, depth + 1)
        for tensor in (*operator.inputs, *operator.outputs):
            if tensor >= 0:
                self._use(base + tensor)

    def _use(self, index: int) -> None:
        self.of[index] = (self.of.get(index, (_NEVER, _NEVER))[0], self._scope)


def greedy_offsets(tensors: Sequence[ArenaTensor], planned: Mapping[int, int] | None = None) -> list[int]:
    """Returns the offsets that TFLM's `GreedyMemoryPlanner` gives.

    Tensors that are planned come first. Then the largest is placed, of equal ones that which was added last, at the
    bottom of the lowest gap between tensors of its time that holds it.

    Args:
      tensors: in the order in which TFLM adds them.
      planned: offsets by the index of the tensor; all others are open.
    """
    fixed = planned or {}
    offsets = [fixed.get(tensor.index, UNPLANNED) for tensor in tensors]
    placed = sorted((n for n, offset in enumerate(offsets) if offset >= 0), key=lambda n: offsets[n])
    is_open = [n for n in reversed(range(len(tensors))) if offsets[n] < 0]
    for n in sorted(is_open, key=lambda n: -tensors[n].size):
        own, candidate = tensors[n], 0
        for other in placed:
            if tensors[other].first > own.last or own.first > tensors[other].last:
                continue
            if offsets[other] - candidate >= own.size:
                break
            candidate = max(candidate, offsets[other] + tensors[other].size)
        offsets[n] = candidate
        bisect.insort(placed, n, key=lambda n: offsets[n])
    return offsets


def arena_size(tensors: Sequence[ArenaTensor], offsets: Sequence[int]) -> int:
    """Returns the bytes of the arena that offsets need."""
    return max((offset + tensor.size for tensor, offset in zip(tensors, offsets, strict=True)), default=0)
