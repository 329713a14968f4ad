"""How often a loop runs, by what its body and its condition compute.

What the condition compares is followed back to elements that the loop carries (`scalar_values`). Where each of them
grows by a constant, the count is the first iteration whose comparison fails. Otherwise the scalars of the loop are
computed, one iteration after another, for as long as that is cheap. (XLA does the same in WhileLoopAnalysis, for fewer
forms.)
"""

from __future__ import annotations

from dataclasses import dataclass

from memplan.compiler.ir.graph import Computation, Graph, Instruction
from memplan.compiler.ir.scalar_values import (
    Both,
    Comparison,
    Environment,
    Evaluator,
    Linear,
    Path,
    Value,
    carried_element,
    negated,
)

# The greatest count that a float states exactly. A loop that runs more often does not end while anyone waits.
MAX_TRIP_COUNT = 1 << 53

_ENDLESS = "its condition is always true"


class Loops:
    """The loops of a Graph, which an evaluator meets on its way, and what is known of parameters."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.evaluator = Evaluator(graph, self.after)
        self._environments: dict[str, Environment] = {}

    def after(self, instruction: Instruction, computation: Computation, path: Path, environment: Environment) -> Value:
        """Returns what a loop leaves in an element."""
        return CountedLoop(self, instruction, computation, environment).after(path)

    def environment(self, name: str) -> Environment:
        """Returns what the parameters of a computation are: constants, where all its callers agree."""
        if name not in self._environments:
            found: dict[tuple[int, Path], Value] = {}

            def parameter(number: int, path: Path) -> Value:
                if (number, path) not in found:
                    found[number, path] = None  # of a computation that calls itself
                    found[number, path] = self._parameter(name, number, path)
                return found[number, path]

            self._environments[name] = parameter
        return self._environments[name]

    def _parameter(self, name: str, number: int, path: Path) -> Value:
        if name == self.graph.entry:
            return None
        values = {self._argument(name, caller, index, number, path) for caller, index in self.graph.callers[name]}
        value = values.pop() if len(values) == 1 else None
        return value if isinstance(value, int) else None

    def _argument(self, name: str, caller: str, index: int, number: int, path: Path) -> Value:
        """Returns what one caller hands a parameter."""
        computation = self.graph.computations[caller]
        instruction, environment = computation.instructions[index], self.environment(caller)
        if instruction.opcode == "while":
            loop = CountedLoop(self, instruction, computation, environment)
            return loop.initial(path) if loop.is_invariant(path) else None
        if instruction.opcode == "conditional":
            branches = [i for i, called in enumerate(instruction.called, start=1) if called == name]
            operand = branches[0] if len(branches) == 1 else len(instruction.operands)
        elif instruction.opcode in ("call", "fusion"):
            operand = number
        else:
            return None
        if operand >= len(instruction.operands):
            return None
        return self.evaluator.value(computation, instruction.operands[operand], path, environment)


class _Untracked(Exception):
    """An element that is not among those that are computed in each iteration."""

    def __init__(self, path: Path):
        super().__init__(path)
        self.path = path


@dataclass(frozen=True, slots=True)
class _LinearValue:
    """An integer in iteration `k`: `start + k * step`, as long as the element that it follows keeps to its bounds.

    Attributes:
      first, growth: value of the element in iteration 0, and what each iteration adds to it.
      low, high: bounds of the element in every iteration whose condition is computed.
      low_before, high_before: bounds in every iteration whose body runs.
    """

    start: int
    step: int
    first: int = 0
    growth: int = 0
    low: int = 0
    high: int = 0
    low_before: int = 0
    high_before: int = 0

    def is_exact(self, count: int) -> bool:
        """Tells whether it holds up to the condition that ends the loop after `count` iterations."""
        last = self.first + count * self.growth
        if not all(self.low <= end <= self.high for end in (self.first, last)):
            return False
        before = self.first + max(count - 1, 0) * self.growth
        return count == 0 or all(self.low_before <= end <= self.high_before for end in (self.first, before))


class CountedLoop:
    """One `while` in one environment of its computation.

    Attributes:
      reason: why the count is not known, once `count` has returned None.
    """

    def __init__(self, loops: Loops, instruction: Instruction, caller: Computation, environment: Environment):
        self.evaluator, self.instruction, self.caller = loops.evaluator, instruction, caller
        self.outside = environment
        graph = loops.graph
        self.condition, self.body = graph.called(instruction, "condition"), graph.called(instruction, "body")
        self.reason = ""
        self._count: int | None = None
        self._is_counted = False
        self._simulated_count: int | None = None
        self._invariant: dict[Path, bool] = {}

    def initial(self, path: Path) -> Value:
        """Returns an element of what the loop is given."""
        return self.evaluator.value(self.caller, self.instruction.operands[0], path, self.outside)

    def is_invariant(self, path: Path) -> bool:
        """Tells whether the body hands an element on as it is."""
        if path not in self._invariant:
            value = self.evaluator.value(self.body, self.body.root, path, self._symbolic)
            self._invariant[path] = isinstance(value, Linear) and value.is_element(path)
        return self._invariant[path]

    def _symbolic(self, _: int, path: Path) -> Value:
        return carried_element(path, self.instruction.shape.at(path))

    def _carried(self, _: int, path: Path) -> Value:
        """Returns an element in some iteration: a constant if it is one in all of them."""
        if self.is_invariant(path):
            value = self.initial(path)
            if isinstance(value, int):
                return value
        return self._symbolic(0, path)

    def after(self, path: Path) -> Value:
        """Returns what the loop leaves in an element."""
        if self.is_invariant(path):
            return self.initial(path)
        count = self.count()
        if count is None:
            return None
        if count == 0:
            return self.initial(path)
        value = self.evaluator.value(self.body, self.body.root, path, self._carried)
        if isinstance(value, int):
            return value
        progress = self._progress(_element(path, value))
        if progress is not None and progress.is_exact(count):
            return progress.start + count * progress.step
        state = self._simulated(path)
        return state[path] if state is not None else None

    def count(self) -> int | None:
        """Returns how often the body runs; None if the program does not say."""
        if not self._is_counted:
            self._is_counted = True
            self._count = self._counted()
            if self._count is not None and self._count > MAX_TRIP_COUNT:
                self.reason = f"it would run {self._count} times"
                self._count = None
        return self._count

    def _counted(self) -> int | None:
        go = self.evaluator.value(self.condition, self.condition.root, (), self._carried)
        if isinstance(go, int):
            self.reason = _ENDLESS if go else ""
            return None if go else 0
        count = self._closed_form(go)
        if count is not None:
            return count
        self._simulated()
        if self._simulated_count is None and not self.reason:
            self.reason = self._why_not_simulated()
        return self._simulated_count

    def _why_not_simulated(self) -> str:
        unknown = self.evaluator.unknown
        if self.evaluator.is_exhausted or unknown is None:
            return "it is too long to be computed beforehand, or its counter overflows"
        return f"its condition depends on {unknown.name} ({unknown.opcode}), which is known only when the program runs"

    # --- where elements grow by constants ---

    def _closed_form(self, go: Value) -> int | None:
        """Returns the count where the condition compares integers that grow by constants."""
        if isinstance(go, Linear):
            go = Comparison(go, 0, "NE")
        if isinstance(go, Comparison):
            return self._of_flag(go) if _is_flag(go, self.instruction) else self._first_failure((go,))
        return self._first_failure(go.parts) if isinstance(go, Both) else None

    def _first_failure(self, comparisons: tuple[Comparison, ...]) -> int | None:
        """Returns the first iteration in which one of the comparisons is false."""
        sides: list[_LinearValue] = []
        failures: list[int] = []
        for comparison in comparisons:
            left, right = self._progress(comparison.left), self._progress(comparison.right)
            if left is None or right is None:
                return None
            sides += [left, right]
            failure = _first_failure(left.start - right.start, left.step - right.step, comparison.direction)
            if failure is not None:
                failures.append(failure)
        if not failures:
            if all(side.step == 0 for side in sides):
                self.reason = _ENDLESS
            return None
        count = min(failures)
        return count if all(side.is_exact(count) for side in sides) else None

    def _progress(self, side: int | Linear | None) -> _LinearValue | None:
        if side is None or isinstance(side, int):
            return None if side is None else _LinearValue(side, 0)
        first = self.initial(side.path)
        after = self.evaluator.value(self.body, self.body.root, side.path, self._carried)
        if not isinstance(first, int) or not isinstance(after, Linear) or (after.path, after.factor) != (side.path, 1):
            return None
        return _LinearValue(
            side.factor * first + side.constant, side.factor * after.constant, first, after.constant,
            side.low, side.high, after.low, after.high,
        )  # fmt: skip

    def _of_flag(self, go: Comparison) -> int | None:
        """Returns the count where the condition is a truth value that the body computes for the next iteration."""
        assert isinstance(go.left, Linear)
        first = self.initial(go.left.path)
        after = self.evaluator.value(self.body, self.body.root, go.left.path, self._carried)
        if not isinstance(first, int):
            return None
        if go.direction == "EQ":
            first, after = 1 - first, negated(after)
        if not first:
            return 0
        if isinstance(after, int):
            self.reason = _ENDLESS if after else ""
            return None if after else 1
        if isinstance(after, Comparison) and _is_flag(after, self.instruction):
            return None
        parts = (after,) if isinstance(after, Comparison) else after.parts if isinstance(after, Both) else ()
        failure = self._first_failure(parts) if parts else None
        return None if failure is None else failure + 1

    # --- where the scalars have to be computed ---

    def _simulated(self, path: Path | None = None) -> dict[Path, int] | None:
        """Computes the scalars that the condition depends on, and `path`, iteration by iteration.

        Returns the elements at the end, and keeps the count in `_simulated_count`; None if that is not known.
        """
        needed = [] if path is None else [path]
        while True:
            try:
                return self._run(needed)
            except _Untracked as error:
                needed.append(error.path)

    def _run(self, needed: list[Path]) -> dict[Path, int] | None:
        self._simulated_count = None
        values = {path: self.initial(path) for path in needed}
        count = 0
        seen: set[tuple[int, ...]] = set()
        while True:
            state = {path: value for path, value in values.items() if isinstance(value, int)}
            if len(state) < len(needed):
                return None

            def element(_: int, path: Path, state: dict[Path, int] = state) -> Value:
                if path not in state:
                    raise _Untracked(path)
                return state[path]

            go = self.evaluator.value(self.condition, self.condition.root, (), element)
            if not isinstance(go, int):
                return None
            if not go:
                self._simulated_count = count
                return state
            key = tuple(state.values())
            if key in seen:
                self.reason = _ENDLESS
                return None
            seen.add(key)
            values = {path: self.evaluator.value(self.body, self.body.root, path, element) for path in needed}
            count += 1


def _element(path: Path, value: Value) -> Linear | None:
    """Returns the element that the body gives at `path`, if it follows from itself; None otherwise."""
    if not isinstance(value, Linear) or (value.path, value.factor) != (path, 1):
        return None
    return Linear(path, 1, 0, value.low, value.high)


def _is_flag(go: Comparison, loop: Instruction) -> bool:
    """Tells whether a condition only asks for a truth value that the loop carries."""
    is_plain = isinstance(go.left, Linear) and go.right == 0 and go.direction in ("EQ", "NE")
    return is_plain and isinstance(go.left, Linear) and loop.shape.at(go.left.path).dtype == "pred"


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
