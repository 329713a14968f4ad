"""The verifier of FitPlans: it executes the schedule, and shares no code with the planners.

| rule | what it demands |
|---|---|
| `runs` | every node runs, and more than once only if it can be repeated |
| `residency` | what a step reads is resident then: made before, and after a `Load` only once it is `Loaded` |
| `host` | what is loaded was stored before; `Stored` ends a `Store`, and `Loaded` a `Load`, of the same instance |
| `results` | every result is resident at the end |
| `limit` | no step needs more bytes than the limit |

All of it takes sorts and sums of arrays, and a loop over the transfers alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from memplan.planners.fit.plan import LOAD, LOADED, RUN, STORE, STORED, FitPlan, check_steps
from memplan.planners.fit.problem import FitProblem

Integers = NDArray[np.int64]

# The most values that a message about the limit names.
_NAMED = 5


@dataclass(frozen=True, slots=True)
class FitViolation:
    """One breach of one rule.

    Attributes:
      rule: its name, as listed in `verifier.py`.
      message: what is wrong, with names and steps.
      step: of the schedule; its length stands for the end; -1 where it is about none.
      value, node: that it is about; -1 where it is about none.
    """

    rule: str
    message: str
    step: int = -1
    value: int = -1
    node: int = -1


@dataclass(frozen=True)
class FitCheck:
    """What the execution of a plan shows. The figures hold if there are no violations.

    Attributes:
      violations: all breaches of rules.
      bytes: `[steps]` bytes that each step needs: what is resident, with the outputs and the workspace of a run.
      peak: the most of them.
      repeated_seconds: of all runs beyond the first of each node.
      stall_seconds: that `Stored` and `Loaded` wait.
      instance_value, instance_start, instance_end: `[instances]` the value, the step that makes it (0 for an argument)
        and the last step at which it is resident.
      shared: `(step, value)` of an output in the memory of an input, and the bytes that they share.
    """

    violations: tuple[FitViolation, ...]
    bytes: Integers
    peak: int
    repeated_seconds: float
    stall_seconds: float
    instance_value: Integers
    instance_start: Integers
    instance_end: Integers
    shared: Mapping[tuple[int, int], int]

    @property
    def added_seconds(self) -> float:
        """What the plan costs."""
        return self.repeated_seconds + self.stall_seconds

    @property
    def peak_step(self) -> int:
        """The first step at the peak; 0 if there are no steps."""
        return int(np.argmax(self.bytes)) if len(self.bytes) else 0

    def standing(self, problem: FitProblem, step: int) -> list[tuple[int, int]]:
        """Returns the values that are resident at a step, as `(value, bytes)`, the largest first.

        The bytes, and the workspace of a node that runs then, add up to `bytes[step]`. An output in the memory of an
        input takes what it is larger.
        """
        here = self.instance_value[(self.instance_start <= step) & (step <= self.instance_end)].tolist()
        sizes = ((value, problem.values[value].size - self.shared.get((step, value), 0)) for value in here)
        return sorted(sizes, key=lambda entry: (-entry[1], entry[0]))


def verify_fit(problem: FitProblem, plan: FitPlan, limit: int | None = None) -> FitCheck:
    """Executes a plan of a sound problem; raises PlanError if a step names no node or value of it.

    Args:
      problem: that passes `FitProblem.check`.
      plan: its schedule is read; what it says about itself is not.
      limit: bytes; None for none.
    """
    check_steps(plan, len(problem.values), len(problem.nodes))
    execution = _Execution(problem, plan)
    violations = [*execution.faults()]
    needed = execution.bytes_needed()
    if limit is not None:
        violations += execution.over(limit, needed)
    return FitCheck(
        violations=tuple(violations),
        bytes=needed,
        peak=int(needed.max(initial=0)),
        repeated_seconds=execution.repeated_seconds,
        stall_seconds=execution.stall_seconds(),
        instance_value=execution.value,
        instance_start=execution.start,
        instance_end=execution.end,
        shared=execution.shared,
    )


class _Execution:
    """A schedule as events: at position 2k step k reads values, at 2k + 1 it makes values.

    Attributes:
      event_value, event_position, event_instance: `[events]` in the order in which they were written down.
      value, start, end: `[instances]`.
    """

    def __init__(self, problem: FitProblem, plan: FitPlan):
        self.problem, self.t = problem, problem.tables
        self.kinds, self.which = plan.arrays
        self.num_steps = len(self.kinds)
        self.runs = np.flatnonzero(self.kinds == RUN)
        self.run_nodes = self.which[self.runs]
        self._write_events()
        self._group()

    def _write_events(self) -> None:
        t, n = self.t, self.num_steps
        self.read_run, self.read_value = _expanded(t.input_start, t.inputs, self.run_nodes)
        made_run, made_value = _expanded(t.output_start, t.outputs, self.run_nodes)
        transfers = [np.flatnonzero(self.kinds == kind) for kind in (STORE, STORED, LOADED)]
        transfer = np.concatenate(transfers)
        loads = np.flatnonzero(self.kinds == LOAD)
        arguments, results = np.flatnonzero(t.producer < 0), np.flatnonzero(t.is_result)
        # What runs read comes first, so that `in_place` finds its instances by position.
        parts = [
            (self.read_value, 2 * self.runs[self.read_run]),
            (self.which[transfer], 2 * transfer),
            (results, np.full(len(results), 2 * n)),
            (arguments, np.full(len(arguments), -1)),
            (made_value, 2 * self.runs[made_run] + 1),
            (self.which[loads], 2 * loads + 1),
        ]
        self.event_value = np.concatenate([values for values, _ in parts])
        self.event_position = np.concatenate([positions for _, positions in parts])
        self.num_reads = len(self.event_value) - len(arguments) - len(made_value) - len(loads)
        self.made_first = len(self.event_value) - len(made_value) - len(loads)

    def _group(self) -> None:
        """Finds the instance of each event: the last one of its value that was made before."""
        order = np.lexsort((self.event_position, self.event_value))
        is_making = np.zeros(len(order), np.bool_)
        is_making[self.num_reads :] = True
        sorted_making = is_making[order]
        instance = np.cumsum(sorted_making) - 1
        makings = order[sorted_making]
        self.value = self.event_value[makings]
        self.is_loaded = self.event_position[makings] >= 0
        self.is_loaded &= (
            self.kinds[np.maximum(self.event_position[makings] // 2, 0)] == LOAD if self.num_steps else False
        )
        self.start = np.maximum(self.event_position[makings] // 2, 0)
        # A read before the value is first made has no instance.
        known = (
            (instance >= 0) & (self.value[np.maximum(instance, 0)] == self.event_value[order])
            if len(makings)
            else (np.zeros(len(order), np.bool_))
        )
        self.event_instance = np.full(len(order), -1, np.int64)
        self.event_instance[order[known]] = instance[known]
        self.end = self.start.copy()
        last = np.minimum(self.event_position // 2, self.num_steps - 1)
        has = self.event_instance >= 0
        np.maximum.at(self.end, self.event_instance[has], last[has])
        self.end[self.t.stays[self.value]] = self.num_steps - 1

    @cached_property
    def repeated_seconds(self) -> float:
        """Seconds of all runs beyond the first of each node."""
        beyond = np.maximum(np.bincount(self.run_nodes, minlength=len(self.problem.nodes)) - 1, 0)
        return float(beyond @ self.t.seconds) if len(beyond) else 0.0

    def bytes_needed(self) -> Integers:
        """Returns the bytes of each step, `[steps]`."""
        change = np.zeros(self.num_steps + 1, np.int64)
        if self.num_steps:
            np.add.at(change, self.start, self.t.size[self.value])
            np.add.at(change, self.end + 1, -self.t.size[self.value])
        needed = np.cumsum(change)[: self.num_steps]
        needed[self.runs] += self.t.workspace[self.run_nodes]
        for (step, _), size in self.shared.items():
            needed[step] -= size
        return needed

    @cached_property
    def shared(self) -> dict[tuple[int, int], int]:
        """The bytes that outputs share with inputs that die, by step and output."""
        t = self.t
        saved: dict[tuple[int, int], int] = {}
        if not len(t.pair_output) or not len(self.runs):
            return saved
        num_values = len(self.problem.values)
        instance_of = self.event_instance[: len(self.read_value)]
        dies = np.zeros(len(self.read_value), np.bool_)
        has = instance_of >= 0
        dies[has] = self.end[instance_of[has]] == self.runs[self.read_run[has]]
        dies &= ~t.stays[self.read_value]
        # A result that dies at the last step is there at the end as well.
        ends = self.event_instance[self.num_reads - int(t.is_result.sum()) : self.num_reads]
        kept = np.isin(instance_of, ends[ends >= 0])
        dies &= ~kept
        free = set((self.read_run * num_values + self.read_value)[dies].tolist())
        counts = np.diff(t.pair_start)[self.run_nodes]
        for run in np.flatnonzero(counts).tolist():
            node = self.run_nodes[run]
            filled = set[int]()
            for pair in range(t.pair_start[node], t.pair_start[node + 1]):
                output, key = int(t.pair_output[pair]), run * num_values + int(t.pair_input[pair])
                if output not in filled and key in free:
                    filled.add(output)
                    free.remove(key)
                    saved[int(self.runs[run]), output] = int(min(t.size[output], t.size[t.pair_input[pair]]))
        return saved

    def stall_seconds(self) -> float:
        """Returns the seconds that the computation waits for transfers."""
        host, t = self.problem.host, self.t
        if host is None:
            return 0.0
        seconds = np.zeros(self.num_steps)
        seconds[self.runs] = t.seconds[self.run_nodes]
        computed = np.concatenate([[0.0], np.cumsum(seconds)])
        waited, idle, done = 0.0, {STORE: 0.0, LOAD: 0.0}, dict[tuple[int, int], float]()
        rate = {STORE: host.to_host, LOAD: host.from_host}
        for step in np.flatnonzero(self.kinds != RUN).tolist():
            kind, value = int(self.kinds[step]), int(self.which[step])
            now = float(computed[step]) + waited
            if kind in rate:
                started = max(now, idle[kind])
                idle[kind] = done[kind, value] = started + host.latency + int(t.size[value]) / rate[kind]
            else:
                waited += max(0.0, done.get((STORE if kind == STORED else LOAD, value), 0.0) - now)
        return waited

    def faults(self) -> Iterator[FitViolation]:
        """Yields all violations but those of the limit."""
        yield from self._faults_of_runs()
        yield from self._missing()
        yield from self._faults_of_transfers()

    def _faults_of_runs(self) -> Iterator[FitViolation]:
        nodes = self.problem.nodes
        count = np.bincount(self.run_nodes, minlength=len(nodes))
        for node in np.flatnonzero(count == 0).tolist():
            yield FitViolation("runs", f"node {node} ({nodes[node].name}) never runs", node=node)
        for node in np.flatnonzero((count > 1) & ~self.t.can_repeat).tolist():
            step = int(self.runs[self.run_nodes == node][1])
            message = f"node {node} ({nodes[node].name}) runs again at step {step}, and cannot be repeated"
            yield FitViolation("runs", message, step, node=node)

    def _missing(self) -> Iterator[FitViolation]:
        for event in np.flatnonzero(self.event_instance < 0).tolist():
            step, value = int(self.event_position[event]) // 2, int(self.event_value[event])
            name = self.problem.values[value].name
            if step == self.num_steps:
                yield FitViolation("results", f"the result {value} ({name}) is never made", step, value)
            else:
                message = f"value {value} ({name}) is not resident at step {step}, where it is read"
                yield FitViolation("residency", message, step, value)

    def _faults_of_transfers(self) -> Iterator[FitViolation]:
        """Yields transfers without a beginning or an end, and reads before a load is done."""
        instance_at = dict(zip(self._transfer_steps.tolist(), self._transfer_instances.tolist(), strict=True))
        storing, on_host, arriving = dict[int, int](), set[int](), dict[int, int]()
        loaded_at = np.full(len(self.value), -1, np.int64)
        for step in np.flatnonzero(self.kinds != RUN).tolist():
            kind, value = int(self.kinds[step]), int(self.which[step])
            name = f"value {value} ({self.problem.values[value].name})"
            fault = ""
            if not self.t.can_offload[value]:
                fault = f"{name} cannot be moved to the host"
            elif kind == STORE:
                fault = f"{name} is stored before its last store is done" if value in storing else ""
                storing[value] = instance_at[step]
            elif kind == STORED:
                same = value in storing and storing[value] == instance_at[step]
                fault = "" if same else f"no store of this instance of {name} has started"
                storing.pop(value, None)
                on_host.add(value)
            elif kind == LOAD:
                fault = "" if value in on_host else f"{name} is not on the host"
                fault = f"{name} is loaded before its last load is done" if value in arriving else fault
                arriving[value] = step
            else:
                instance = instance_at[step]
                same = value in arriving and self.is_loaded[instance] and self.start[instance] == arriving[value]
                fault = "" if same else f"no load of this instance of {name} has started"
                arriving.pop(value, None)
                if same:
                    loaded_at[instance] = step
            if fault:
                yield FitViolation("host", f"step {step}: {fault}", step, value)
        for value in (*storing, *arriving):
            yield FitViolation("host", f"a transfer of {self._name(value)} never ends", self.num_steps, value)
        yield from self._early_reads(loaded_at)

    def _early_reads(self, loaded_at: Integers) -> Iterator[FitViolation]:
        instance, position = self.event_instance[: self.num_reads], self.event_position[: self.num_reads]
        has = instance >= 0
        waits = np.zeros(self.num_reads, np.bool_)
        waits[has] = self.is_loaded[instance[has]]
        arrival = np.where(loaded_at < 0, self.num_steps + 1, loaded_at)
        for event in np.flatnonzero(waits):
            if position[event] // 2 < arrival[instance[event]]:
                value, step = int(self.event_value[event]), int(position[event]) // 2
                yield FitViolation("residency", f"step {step} reads {self._name(value)} before it is back", step, value)

    @cached_property
    def _transfer_steps(self) -> Integers:
        first = len(self.read_value)
        return self.event_position[first : self.num_reads - int(self.t.is_result.sum())] // 2

    @cached_property
    def _transfer_instances(self) -> Integers:
        first = len(self.read_value)
        return self.event_instance[first : self.num_reads - int(self.t.is_result.sum())]

    def over(self, limit: int, needed: Integers) -> Iterator[FitViolation]:
        """Yields the first step over the limit, with what stands there."""
        for step in np.flatnonzero(needed > limit)[:1].tolist():
            here = self.value[(self.start <= step) & (step <= self.end)]
            largest = here[np.argsort(-self.t.size[here], kind="stable")][:_NAMED].tolist()
            names = ", ".join(f"{self.problem.values[v].name} ({self.problem.values[v].size:,})" for v in largest)
            count = int((needed > limit).sum())
            message = f"step {step} needs {int(needed[step]):,} bytes, and the limit is {limit:,}"
            message += f" ({count:,} such steps); resident, the largest first: {names}"
            yield FitViolation("limit", message, step)

    def _name(self, value: int) -> str:
        return f"value {value} ({self.problem.values[value].name})"


def _expanded(start: Integers, entries: Integers, rows: Integers) -> tuple[Integers, Integers]:
    """Returns, for the ranges of some rows, the position in `rows` and the entry, one after another."""
    lengths = (start[1:] - start[:-1])[rows] if len(rows) else np.empty(0, np.int64)
    owner = np.repeat(np.arange(len(rows), dtype=np.int64), lengths)
    within = np.arange(len(owner), dtype=np.int64) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return owner, entries[start[rows[owner]] + within] if len(owner) else np.empty(0, np.int64)
