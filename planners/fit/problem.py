"""The FitProblem: values with producers and sizes, nodes with times, and a host that values may be moved to.

A program has one memory with a limit. Its *nodes* run one after another; each reads values and produces values. An
argument is a value without a producer. A value is computed once in the program as given, but a plan may compute it
again, store it on the host and load it back, and run the nodes in another order (see `plan.py`).

Sizes are bytes, times seconds. Values and nodes are named by their indices in `FitProblem.values` and `.nodes`. The
decision model follows Checkmate (Jain et al., "Checkmate: breaking the memory wall with optimal tensor
rematerialization", 2020, arXiv 1910.02653), with transfers to the host beside recomputation.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from memplan.compiler.errors import PlanError
from memplan.compiler.mapping.documents import (
    boolean,
    check_fields,
    document_of,
    integer,
    number,
    optional,
    parse_json,
    record,
    row,
    rows,
    text,
)

SCHEMA = "memplan.fit_problem/1"

# Sums of sizes and times of real programs stay far below these, and no planner's arithmetic overflows.
MAX_BYTES = 2**60
MAX_SECONDS = 1e15

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class FitValue:
    """One value of the program.

    Attributes:
      name: for messages and reports.
      size: bytes.
      producer: index of the node that produces it; None for an argument.
      is_result: whether it must be resident when the program ends.
      is_donated: an argument whose memory may be reused after its last use; other arguments stay throughout.
      can_offload: whether it may be stored on the host.
      origin: the source line that it comes from; "" if it is not known.
      shape: as a person reads it, such as `f32[8,128]`.
    """

    name: str
    size: int
    producer: int | None = None
    is_result: bool = False
    is_donated: bool = False
    can_offload: bool = True
    origin: str = ""
    shape: str = ""


@dataclass(frozen=True, slots=True)
class FitNode:
    """One step of computation.

    Attributes:
      name: for messages and reports.
      inputs: the values that it reads, each once.
      outputs: the values that it produces, each once.
      seconds: how long one run takes.
      can_repeat: whether it may run more than once; False for effects and for custom calls that are not known.
      workspace: bytes that it needs while it runs, beside its inputs and outputs.
      in_place: pairs `(output, input)` that may share memory when the input dies at this node. The pairs are tried in
        their order, and each output and each input takes part in one pair at most.
      origin: the source line that it comes from; "" if it is not known.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    seconds: float
    can_repeat: bool = True
    workspace: int = 0
    in_place: tuple[tuple[int, int], ...] = ()
    origin: str = ""


@dataclass(frozen=True, slots=True)
class HostLink:
    """The link to the memory of the host: one channel in each direction, beside the computation.

    Attributes:
      to_host, from_host: bytes per second.
      latency: seconds that each transfer takes beside its bytes.
    """

    to_host: float
    from_host: float
    latency: float = 0.0


class FitTables(NamedTuple):
    """The problem in arrays, for loops over all of it. Ranges `x[start[i]:start[i + 1]]` belong to the index i.

    Attributes:
      size: `[values]` bytes.
      producer: `[values]` node; -1 for an argument.
      is_result: `[values]`.
      stays: `[values]` whether it is an argument that is not donated.
      can_offload: `[values]` whether it may be stored on the host and freed here: never if it stays, or without a host.
      seconds, workspace, can_repeat: `[nodes]`.
      input_start, inputs: the values that each node reads.
      output_start, outputs: the values that each node produces.
      use_start, uses: the nodes that read each value, ascending.
      pair_start, pair_output, pair_input: the values that each node may compute in place.
    """

    size: Integers
    producer: Integers
    is_result: Flags
    stays: Flags
    can_offload: Flags
    seconds: NDArray[np.float64]
    workspace: Integers
    can_repeat: Flags
    input_start: Integers
    inputs: Integers
    output_start: Integers
    outputs: Integers
    use_start: Integers
    uses: Integers
    pair_start: Integers
    pair_output: Integers
    pair_input: Integers


@dataclass(frozen=True)
class FitProblem:
    """A program that is to fit into a memory limit.

    Attributes:
      values: all of them, arguments included.
      nodes: in the order of the program, in which each value is produced before it is read.
      host: the link to the host; None if nothing can be stored there.
      name: for messages.
    """

    values: tuple[FitValue, ...]
    nodes: tuple[FitNode, ...]
    host: HostLink | None = None
    name: str = "program"

    def check(self) -> None:
        """Raises PlanError, naming the place, if the parts of the problem do not fit together."""
        self._check_types(self.name)
        for place, message in self._faults():
            raise PlanError(f"{self.name}: {place}: {message}")

    @cached_property
    def tables(self) -> FitTables:
        """The problem in arrays. The problem must be sound (`check`)."""
        values, nodes = self.values, self.nodes
        producer = np.array([-1 if value.producer is None else value.producer for value in values], np.int64)
        stays = np.array([value.producer is None and not value.is_donated for value in values], np.bool_)
        movable = np.array([value.can_offload and self.host is not None for value in values], np.bool_)
        input_start, inputs = _ranges([node.inputs for node in nodes])
        output_start, outputs = _ranges([node.outputs for node in nodes])
        readers = np.repeat(np.arange(len(nodes), dtype=np.int64), np.diff(input_start))
        use_start = np.concatenate([[0], np.cumsum(np.bincount(inputs, minlength=len(values)))]).astype(np.int64)
        pair_start, pair_output = _ranges([[output for output, _ in node.in_place] for node in nodes])
        _, pair_input = _ranges([[read for _, read in node.in_place] for node in nodes])
        return FitTables(
            size=np.array([value.size for value in values], np.int64),
            producer=producer,
            is_result=np.array([value.is_result for value in values], np.bool_),
            stays=stays,
            can_offload=movable & ~stays,
            seconds=np.array([node.seconds for node in nodes], np.float64),
            workspace=np.array([node.workspace for node in nodes], np.int64),
            can_repeat=np.array([node.can_repeat for node in nodes], np.bool_),
            input_start=input_start,
            inputs=inputs,
            output_start=output_start,
            outputs=outputs,
            use_start=use_start,
            uses=readers[np.argsort(inputs, kind="stable")],
            pair_start=pair_start,
            pair_output=pair_output,
            pair_input=pair_input,
        )

    def to_json(self) -> str:
        """Returns the problem as JSON; `from_json` reads it back exactly."""
        return json.dumps(self._document())

    @staticmethod
    def from_json(content: str, file: str = "<string>") -> FitProblem:
        """Reads what `to_json` wrote; raises PlanError, naming the place, if it is malformed."""
        data = document_of(parse_json(content, file), "fit problem", SCHEMA, file)
        _check_document(data, file)
        problem = FitProblem(
            values=tuple(FitValue(*entry) for entry in data["values"]),
            nodes=tuple(
                FitNode(
                    **dict(
                        zip(FitNode.__slots__, entry, strict=True),
                        inputs=tuple(entry[1]),
                        outputs=tuple(entry[2]),
                        in_place=tuple((output, read) for output, read in entry[6]),
                    )
                )
                for entry in data["nodes"]
            ),
            host=None if data["host"] is None else HostLink(**data["host"]),
            name=data["name"],
        )
        for place, message in problem._faults():
            raise PlanError(f"{file}: {place}: {message}")
        return problem

    def _document(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "name": self.name,
            "host": None if self.host is None else asdict(self.host),
            "values": [[getattr(value, name) for name in FitValue.__slots__] for value in self.values],
            "nodes": [
                [
                    node.name,
                    list(node.inputs),
                    list(node.outputs),
                    node.seconds,
                    node.can_repeat,
                    node.workspace,
                    [list(pair) for pair in node.in_place],
                    node.origin,
                ]
                for node in self.nodes
            ],
        }

    def _check_types(self, file: str) -> None:
        _check_document(self._document(), file)

    def _faults(self) -> Iterator[tuple[str, str]]:
        """Yields `(place, message)` for all that contradicts itself; types and ranges are right."""
        made: dict[int, int] = {}
        for k, node in enumerate(self.nodes):
            place = f"nodes[{k}] ({node.name})"
            if len(set(node.inputs)) < len(node.inputs):
                yield place, "it lists an input twice"
            for value in node.inputs:
                producer = self.values[value].producer
                if producer is not None and not producer < k:
                    yield place, f"it reads {self._value(value)}, which node {producer} produces, not an earlier one"
            for value in node.outputs:
                if value in made:
                    yield place, f"it produces {self._value(value)}, which node {made[value]} produces too"
                made[value] = k
                if self.values[value].producer != k:
                    yield place, f"it produces {self._value(value)}, which names {self.values[value].producer}"
            for output, read in node.in_place:
                if output not in node.outputs or read not in node.inputs:
                    yield place, f"the in-place pair ({output}, {read}) is no output and input of it"
        total = 0
        for v, entry in enumerate(self.values):
            if entry.producer is not None and made.get(v) != entry.producer:
                yield f"values[{v}] ({entry.name})", f"node {entry.producer} does not produce it"
            if entry.is_donated and entry.producer is not None:
                yield f"values[{v}] ({entry.name})", "it is donated, but it is no argument"
            total += entry.size
        total += sum(node.workspace for node in self.nodes)
        if total > MAX_BYTES:
            yield "values", f"all sizes together are {total:,} bytes, more than {MAX_BYTES:,}"
        if not math.fsum(node.seconds for node in self.nodes) <= MAX_SECONDS:
            yield "nodes", f"all of them take more than {MAX_SECONDS:g} seconds"

    def _value(self, value: int) -> str:
        return f"value {value} ({self.values[value].name})"


def _ranges(lists: Sequence[Sequence[int]]) -> tuple[Integers, Integers]:
    """Returns lists in one array, and where each starts."""
    start = np.zeros(len(lists) + 1, np.int64)
    np.cumsum([len(entries) for entries in lists], out=start[1:])
    return start, np.array([entry for entries in lists for entry in entries], np.int64)


_rate = number(above=0.0)
_HOST = record(to_host=_rate, from_host=_rate, latency=number(at_least=0.0, at_most=MAX_SECONDS))


def _check_document(data: dict[str, Any], file: str) -> None:
    check_fields(data, file, name=text, host=optional(_HOST))
    check_fields(data, file, values=rows(lambda value: None), nodes=rows(lambda value: None))
    value, node, size = integer(0, len(data["values"])), integer(0, len(data["nodes"])), integer(0, MAX_BYTES)
    check_fields(
        data,
        file,
        values=rows(
            row(
                name=text,
                size=size,
                producer=optional(node),
                is_result=boolean,
                is_donated=boolean,
                can_offload=boolean,
                origin=text,
                shape=text,
            )
        ),
        nodes=rows(
            row(
                name=text,
                inputs=rows(value),
                outputs=rows(value),
                seconds=number(at_least=0.0, at_most=MAX_SECONDS),
                can_repeat=boolean,
                workspace=size,
                in_place=rows(row(output=value, input=value)),
                origin=text,
            )
        ),
    )
