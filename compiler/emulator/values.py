"""The value emulator: a program run on byte arrays, one per memory, with every tensor where the plan says.

A plan is right if the numbers are. Buffers live at their offsets, copies are made at the times of their start and done,
loops iterate, branches are taken. What a plan does not promise is not there:

    a residency that begins or ends         its bytes are poisoned
    a copy's destination until its done     poisoned; and for good, if the source changed meanwhile
    what an operation keeps for itself      poisoned when it begins

So a plan that lets two buffers overlap, reads too early, or reads what is no longer true gives other numbers than JAX.
It shares no code with the verifier, which looks at the same rules without the numbers.
"""

from __future__ import annotations

import bisect
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memplan.compiler.analysis.program import FlatProgram, RegionKind
from memplan.compiler.emulator.arguments import flat_arguments
from memplan.compiler.emulator.value_actions import (
    Action,
    Actions,
    ArrayPlace,
    Bytes,
    array_of,
    bytes_of,
    check_plan,
    compute,
    make_copies,
)
from memplan.compiler.errors import GraphError, PlanError
from memplan.compiler.ir import Shape
from memplan.compiler.mapping.build import BuiltProblem
from memplan.compiler.mapping.plan import BEFORE, Plan
from memplan.compiler.mapping.times import COPY_PLACE

# Every byte of memory that holds nothing: not a number as a float of any width, -1 as an integer.
POISON = 0xFF


def execute(
    built: BuiltProblem, plan: Plan, *args: Any, max_iterations: int = sys.maxsize
) -> list[np.ndarray[Any, Any]]:
    """Runs a program under a plan; returns its results, flat, as numpy arrays (random keys as their integers).

    A plan that expects arguments to be left in a fast memory by the previous run is run twice, and the second run finds
    there what the first one left.

    Args:
      built: the problem, made of a Graph that was traced from JAX.
      plan: for this problem. It need not be valid.
      *args: the arguments of the traced function, without static ones.
      max_iterations: of a loop whose trip count the program does not state; under a wrong plan it may never end.

    Raises:
      PlanError: the plan is for another problem, names what does not exist, or lets a loop run on.
      GraphError: the Graph cannot be evaluated, or the arguments are not those of the program.
    """
    if plan.problem != built.problem.fingerprint:
        raise PlanError(f"the plan of {plan.name!r} was made for another problem than {built.problem.name!r}")
    check_plan(built, plan)
    arguments = flat_arguments(built.program.graph, args)
    run = _Run(built, plan, arguments, max_iterations)
    results = run.run()
    if any(copy.start == BEFORE for copy in plan.copies):
        results = run.run(is_first=False)
    return results


class _Run:
    """One run of a program, or several in the same memory.

    Time here is the problem's, which counts operations. Steps of the flattened program that are no operations come
    between them: `_entries` has both in order, as `(place, step or -1, operation or -1, whether it is copies after the
    step)`.
    """

    def __init__(self, built: BuiltProblem, plan: Plan, arguments: Sequence[np.ndarray[Any, Any]], max_iterations: int):
        self._built, self._plan, self._max_iterations = built, plan, max_iterations
        self._arguments = arguments
        self._actions = Actions(built, plan)
        problem, program = built.problem, built.program

        times = built.times
        entries = [(float(step), step, times.operation_of.get(step, -1), False) for step in range(len(program.steps))]
        entries += [(times.places[n], -1, n, False) for n, step in enumerate(times.steps) if step < 0]
        for step in dict.fromkeys(copy.time for copy in program.copies):
            entries.append((step + COPY_PLACE, step, times.copying_of.get(step, -1), True))
        self._entries = sorted(entries)
        self._places = [place for place, *_ in self._entries]
        self._opening: dict[int, list[int]] = {}
        self._branches: dict[int, list[int]] = {}
        self._loops: dict[int, _Loop] = {}
        for number, region in enumerate(program.regions):
            if region.kind in (RegionKind.LOOP, RegionKind.BRANCH):
                self._opening.setdefault(self._entry(region.start), []).append(number)
            if region.kind is RegionKind.BRANCH:
                self._branches.setdefault(region.owner, []).append(number)

        sizes = [0] * len(problem.spaces)
        self._size = [problem.buffers[r.buffer].size for r in plan.residencies]
        for r, size in zip(plan.residencies, self._size, strict=True):
            sizes[r.space] = max(sizes[r.space], r.offset + size)
        self._memory = [np.full(size, POISON, np.uint8) for size in sizes]
        self._private: dict[int, Bytes] = {
            storage: np.full(program.storages[storage].size, POISON, np.uint8)
            for storage, buffer in enumerate(built.buffer_of_storage)
            if buffer < 0
        }

        self._starting: dict[int, list[int]] = {}
        self._ending: dict[int, list[int]] = {}
        self._residencies_of: list[list[int]] = [[] for _ in problem.buffers]
        for number, r in enumerate(plan.residencies):
            self._starting.setdefault(r.start, []).append(number)
            self._ending.setdefault(r.end, []).append(number)
            self._residencies_of[r.buffer].append(number)
        self._issued: dict[int, list[int]] = {}
        self._awaited: dict[int, list[int]] = {}
        for number, copy in enumerate(plan.copies):
            if copy.start != BEFORE:
                self._issued.setdefault(copy.start, []).append(number)
                self._awaited.setdefault(copy.done, []).append(number)

        self._jumps: dict[tuple[int, int], list[int]] = {}
        self._time = 0
        self._in_flight: dict[int, Bytes] = {}
        self._clock = 0
        self._filled = [0] * len(plan.residencies)  # when it was last written, in ticks of `_clock`; 0: poisoned since

    def run(self, is_first: bool = True) -> list[np.ndarray[Any, Any]]:
        """Runs the program once and returns its results."""
        self._begin(is_first)
        self._walk(0, len(self._entries), 0)
        self._moment(self._built.problem.end)
        return self._results()

    # -- Memory --------------------------------------------------------------------------------------------------------

    def _bytes(self, residency: int) -> Bytes:
        r = self._plan.residencies[residency]
        return self._memory[r.space][r.offset : r.offset + self._size[residency]]

    def _poison(self, residency: int) -> None:
        self._bytes(residency)[:] = POISON
        self._filled[residency] = 0

    def _fill(self, residency: int, data: Bytes) -> None:
        self._bytes(residency)[: len(data)] = data
        self._clock += 1
        self._filled[residency] = self._clock

    def _read(self, place: ArrayPlace) -> Bytes:
        return self._private[place.storage] if place.residency < 0 else self._bytes(place.residency)

    def _write(self, place: ArrayPlace, data: Bytes) -> None:
        if place.residency < 0:
            self._private[place.storage][: len(data)] = data
        else:
            self._fill(place.residency, data)

    def _latest(self, buffer: int, residencies: Sequence[int]) -> int:
        """Returns the residency that was filled last: in a valid plan, it holds the buffer's value."""
        if not residencies:
            raise PlanError(f"{self._built.problem.buffers[buffer].name} is nowhere at time {self._time}")
        return max(residencies, key=lambda r: self._filled[r])

    def _storage_bytes(self, storage: int) -> Bytes:
        """Returns the bytes of a storage, wherever they are now."""
        buffer = self._built.buffer_of_storage[storage]
        if buffer < 0:
            return self._private[storage]
        alive = [
            r
            for r in self._residencies_of[buffer]
            if self._plan.residencies[r].start <= self._time < self._plan.residencies[r].end
        ]
        return self._bytes(self._latest(buffer, alive))

    # -- Begin and end -------------------------------------------------------------------------------------------------

    def _begin(self, is_first: bool) -> None:
        """Puts arguments and constants in place; all else is poisoned but what the previous run left on purpose."""
        left = {
            copy.destination: self._bytes(copy.destination).copy() for copy in self._plan.copies if copy.start == BEFORE
        }
        for memory in (*self._memory, *self._private.values()):
            memory[:] = POISON
        self._filled = [0] * len(self._plan.residencies)
        self._in_flight.clear()
        self._time = 0
        for storage, data in self._initial_content():
            buffer = self._built.buffer_of_storage[storage]
            if buffer < 0:
                self._private[storage][: len(data)] = data
                continue
            space = self._built.problem.buffers[buffer].initial_space
            for residency in self._residencies_of[buffer]:
                r = self._plan.residencies[residency]
                if r.start == 0 and r.space == space:
                    self._fill(residency, data)
        for copy in self._plan.copies:
            if copy.start == BEFORE:
                source = self._bytes(copy.source)
                self._fill(copy.destination, source.copy() if is_first else left[copy.destination])

    def _initial_content(self) -> list[tuple[int, Bytes]]:
        """Returns the bytes of the arguments and constants, by storage."""
        graph = self._built.program.graph
        constants = {i.name: i for _, i in graph.instructions() if i.opcode == "constant"}
        content = []
        for number, storage in enumerate(self._built.program.storages):
            for parameter, path in storage.parameters:
                if path:
                    raise GraphError(
                        f"parameter {parameter} is a tuple; only programs that memplan.trace made can be executed"
                    )
                content.append((number, np.ascontiguousarray(self._arguments[parameter]).reshape(-1).view(np.uint8)))
            if storage.is_constant:
                constant = next(constants[name] for name in storage.values if name in constants)
                if constant.evaluate is None:
                    raise GraphError(
                        f"{constant.name}: its value is not known; only programs that memplan.trace made hold it"
                    )
                content.append((number, bytes_of(constant.evaluate(), constant.shape)))
        return content

    def _results(self) -> list[np.ndarray[Any, Any]]:
        program, problem = self._built.program, self._built.problem
        storage_of = {path: number for number, s in enumerate(program.storages) for path in s.result_indices}
        results = []
        for path, shape in program.graph.entry_computation.root_instruction.shape.leaves():
            if not shape.is_array:
                continue
            storage = storage_of[path]
            buffer = self._built.buffer_of_storage[storage]
            if buffer < 0:
                results.append(array_of(self._private[storage], shape))
                continue
            expected = problem.buffers[buffer]
            there = []
            for number in self._residencies_of[buffer]:
                r = self._plan.residencies[number]
                is_known = not expected.ends_at_home or r.start == expected.start
                if r.space == expected.final_space and r.end == problem.end + 1 and is_known:
                    there.append(number)
            results.append(array_of(self._bytes(self._latest(buffer, there)), shape))
        return results

    # -- Time ----------------------------------------------------------------------------------------------------------

    def _moment(self, time: int) -> None:
        """Comes to a time: awaits copies, ends and begins residencies, issues copies."""
        copies = self._plan.copies
        for number in self._awaited.get(time, ()):
            if number in self._in_flight:
                self._arrive(number)
        if time == self._time + 1:
            changed = [*self._ending.get(time, ()), *self._starting.get(time, ())]
        elif time != self._time:
            changed = self._jump(self._time, time)
        else:
            changed = []
        for residency in changed:
            self._poison(residency)
        self._time = time
        for number in self._issued.get(time, ()):
            self._in_flight[number] = self._bytes(copies[number].source).copy()
            self._poison(copies[number].destination)
            if copies[number].done == time:
                self._arrive(number)

    def _arrive(self, number: int) -> None:
        """Fills a copy's destination with what its source held all the time since the start."""
        copy = self._plan.copies[number]
        sent = self._in_flight.pop(number)
        if np.array_equal(sent, self._bytes(copy.source)):
            self._fill(copy.destination, sent)
        else:
            self._poison(copy.destination)

    def _jump(self, origin: int, time: int) -> list[int]:
        """Returns the residencies that exist at one of two times and not at the other, those that end first."""
        if (origin, time) not in self._jumps:
            gone, new = [], []
            for number, r in enumerate(self._plan.residencies):
                was, is_there = r.start <= origin < r.end, r.start <= time < r.end
                if was and not is_there:
                    gone.append(number)
                elif is_there and not was:
                    new.append(number)
            self._jumps[origin, time] = gone + new
        return self._jumps[origin, time]

    # -- Control flow --------------------------------------------------------------------------------------------------

    def _entry(self, step: float) -> int:
        """Returns the first entry at or after a step."""
        return bisect.bisect_left(self._places, step)

    def _walk(self, low: int, high: int, region: int) -> None:
        """Runs the entries `[low, high)`, all within one execution of a region."""
        entry = low
        while entry < high:
            inner = next((r for r in self._opening.get(entry, ()) if r > region), None)
            if inner is None:
                self._visit(entry)
                entry += 1
                continue
            owner = self._built.program.regions[inner].owner
            if self._built.program.regions[inner].kind is RegionKind.LOOP:
                self._loop(inner)
            else:
                self._conditional(owner)
            entry = self._entry(owner)

    def _visit(self, entry: int) -> None:
        _, step, operation, is_copying = self._entries[entry]
        if operation >= 0:
            self._moment(operation)
            for memory, reserved in zip(self._memory, self._built.problem.operations[operation].reserved, strict=True):
                memory[:reserved] = POISON
        if is_copying:
            make_copies(self._actions.copies(step), self._read, self._write)
            return
        action: Action | None = self._actions.of(step) if step >= 0 else None
        if action is not None:
            compute(action, self._read, self._write)

    def _loop(self, number: int) -> None:
        if number not in self._loops:
            self._loops[number] = _find_loop(self._built.program, number)
        loop = self._loops[number]
        start, middle, end = (self._entry(step) for step in (loop.start, loop.body, loop.end))
        region = self._built.program.regions[number]
        limit = round(region.trip_count) if region.known else self._max_iterations
        for _ in range(limit + 1):
            self._walk(start, middle, number)
            if not array_of(self._storage_bytes(loop.predicate), loop.predicate_shape):
                return
            self._walk(middle, end, number)
        name = self._built.program.steps[region.owner].instruction.name
        raise PlanError(f"the loop {name} does not end after {limit} iterations")

    def _conditional(self, owner: int) -> None:
        """Runs one branch of the conditional whose own step is `owner`."""
        program = self._built.program
        instruction = program.steps[owner].instruction
        computation = program.graph.computations[program.steps[owner].computation]
        shape = computation.instructions[instruction.operands[0]].shape
        index = array_of(self._storage_bytes(self._actions.operand_storage(owner, 0)), shape)
        branches = self._branches[owner]
        taken = branches[chosen_branch(index, shape, len(branches))]
        region = program.regions[taken]
        self._walk(self._entry(region.start), self._entry(region.end), taken)


def chosen_branch(index: Any, shape: Shape, num_branches: int) -> int:
    """Returns the number of the branch that a conditional takes: the first for true, the last for an index outside."""
    value = int(np.asarray(index))
    if shape.dtype == "pred":
        return 0 if value else 1
    return value if 0 <= value < num_branches else num_branches - 1


@dataclass(frozen=True, slots=True)
class _Loop:
    """Where the parts of a loop are.

    Attributes:
      start, body, end: steps: the condition is `[start, body)`, the body `[body, end)`.
      predicate: storage of the condition's result.
      predicate_shape: of the condition's result.
    """

    start: int
    body: int
    end: int
    predicate: int
    predicate_shape: Shape


def _find_loop(program: FlatProgram, number: int) -> _Loop:
    region = program.regions[number]
    owner = program.steps[region.owner].instruction
    condition, body = program.graph.called(owner, "condition"), program.graph.called(owner, "body")
    times = range(region.start, region.end)
    first = next(t for t in times if program.steps[t].computation == body.name)
    root = next(
        t for t in times if (program.steps[t].computation, program.steps[t].index) == (condition.name, condition.root)
    )
    name = condition.root_instruction.name
    predicate = next(
        i
        for i, storage in enumerate(program.storages)
        if name in storage.values and storage.start <= root < storage.end
    )
    return _Loop(region.start, first, region.end, predicate, condition.root_instruction.shape)
