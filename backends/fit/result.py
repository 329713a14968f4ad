"""What `fit` returns: a program that fits, by the word of the compiler, and what was decided for each tensor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from memplan.backends.fit.compilers import StatedMemory
from memplan.backends.fit.standing import BY
from memplan.compiler.errors import MemplanError
from memplan.compiler.report.standing import MemoryPeak
from memplan.compiler.report.standing_tables import memory_text
from memplan.compiler.report.units import print_bytes, print_seconds
from memplan.passes.fit.program import FitProgram
from memplan.passes.fit.scan_pairs import Residual
from memplan.planners.fit.plan import FitPlan, Load, Run, Store


@dataclass(frozen=True)
class TensorDecision:
    """What was decided for one tensor.

    Attributes:
      name: the primitive that makes it, with the number of its node, or the name of an argument.
      origin: line of the user's program; "" if it is not known.
      shape: as a person reads it.
      size: bytes.
      decision: "kept", "computed again", "moved to the host", "stacked" or "computed again in the loop".
      reason: why, in a few words.
    """

    name: str
    origin: str
    shape: str
    size: int
    decision: str
    reason: str


@dataclass(frozen=True)
class FitAttempt:
    """One compile.

    Attributes:
      name: what was compiled.
      predicted: bytes that the program was expected to need; None for the default.
      stated: bytes that the compiler stated; None if it refused and did not say.
      added_seconds: what the model says it takes beyond the default.
      refused: why the compiler refused it; "" if it did not.
    """

    name: str
    predicted: int | None
    stated: int | None
    added_seconds: float
    refused: str = ""


@dataclass(frozen=True)
class FitResult:
    """A program that fits into a limit.

    Attributes:
      limit: bytes that arguments, results and temporaries may take together.
      target: what it was compiled for: "cpu", or the name of a target.
      memory: what the compiler states for it.
      default: what the compiler states for the program as it was given; None if it was refused for lack of memory.
      predicted: bytes that it was expected to need; None for the default, for which nothing was predicted.
      seconds: what the model says the program as given takes.
      added_seconds: what the model says this one takes beyond that; below 0 if it takes less.
      bound_seconds: what any program within the limit takes beyond that at least, by the model; None if it was not
        looked for.
      decisions: for each tensor that could be dropped, the largest first; none for the default.
      attempts: all compiles, in order.
      closed: the program, a `jax.extend.core.ClosedJaxpr`.
      plan: that it runs by; None for the default.
      executable: a `jax.stages.Compiled` that takes the flat arguments; None if it cannot run on this machine.
      trees: pytrees of the arguments and of the result.
    """

    limit: int
    target: str
    memory: StatedMemory
    default: StatedMemory | None
    predicted: int | None
    seconds: float
    added_seconds: float
    bound_seconds: float | None
    decisions: tuple[TensorDecision, ...]
    attempts: tuple[FitAttempt, ...]
    closed: Any = field(repr=False)
    plan: FitPlan | None = field(repr=False)
    executable: Any = field(repr=False)
    trees: tuple[Any, Any] = field(repr=False)

    @property
    def is_default(self) -> bool:
        """Whether the program fits as it was given."""
        return self.plan is None

    def __call__(self, *args: Any) -> Any:
        """Runs the program with the arguments of the function that it was made of, without its static ones.

        Raises:
          MemplanError: it was compiled for another machine, or the arguments have another structure.
        """
        import jax

        if self.executable is None:
            raise MemplanError(f"this program was compiled for {self.target}: it cannot run here")
        leaves, tree = jax.tree.flatten((args, {}))
        if tree != self.trees[0]:
            raise MemplanError(f"the arguments are {tree}, and those that the program was compiled for {self.trees[0]}")
        return jax.tree.unflatten(self.trees[1], self.executable(*leaves))

    def summary(self) -> str:
        """Returns the result in a few lines."""
        default = "more than there is" if self.default is None else print_bytes(self.default.total)
        lines = [f"needs {print_bytes(self.memory.total)} of {print_bytes(self.limit)}; as given it needs {default}"]
        if not self.is_default:
            lines.append(f"{self._change(self.added_seconds)} by the model")
            if self.bound_seconds is not None:
                verb, _, amount = self._change(self.bound_seconds).partition(" ")
                least = "at least" if verb == "adds" else "at most"
                lines.append(f"any program within the limit {verb} {least} {amount}")
        return "\n".join(lines)

    def _change(self, seconds: float) -> str:
        verb = "adds" if seconds >= 0 else "saves"
        share = f", {abs(seconds) / self.seconds:.1%} of the step" if self.seconds else ""
        return f"{verb} {print_seconds(abs(seconds))}{share}"


class CannotFitError(MemplanError):
    """No program within the limit was found.

    Attributes:
      limit: that was asked for, bytes.
      proven: bytes that any plan needs, by the model; 0 if nothing is proven, or if a compiled program needs less.
      least: bytes of the smallest program that was compiled, as the compiler stated them; None if it stated none.
      standing: what stands at the peak of that program's plan, by the model; None if none was compiled.
      attempts: all compiles.
      is_interface: whether the arguments and results need more than the limit by themselves. Then nothing was compiled,
        `proven` is what they need, and `standing` lists them.
      summary: all of that in a line.
    """

    def __init__(
        self,
        limit: int,
        proven: int,
        least: int | None,
        standing: MemoryPeak | None,
        attempts: tuple[FitAttempt, ...],
        is_interface: bool = False,
    ):
        if least is not None and least < proven:
            proven = 0  # The compiler has shown that the model is wrong here.
        self.limit, self.proven, self.least = limit, proven, least
        self.standing, self.attempts, self.is_interface = standing, attempts, is_interface
        if is_interface:
            parts = [f"nothing fits into {print_bytes(limit)}"]
            parts.append(f"the arguments and results alone need {print_bytes(proven)}, and no plan can change that")
        else:
            parts = [f"nothing was found that fits into {print_bytes(limit)}"]
            if least is not None:
                parts.append(f"the smallest program that was compiled needs {print_bytes(least)}")
            if proven:
                parts.append(f"by the model, no plan can need less than {print_bytes(proven)}")
        self.summary = "; ".join(parts)
        super().__init__("\n".join([self.summary, *([] if standing is None else [memory_text(standing, BY)])]))

    def __reduce__(self) -> Any:
        values = (self.limit, self.proven, self.least, self.standing, self.attempts, self.is_interface)
        return CannotFitError, values


def decisions_of(program: FitProgram, plan: FitPlan, residuals: tuple[Residual, ...]) -> tuple[TensorDecision, ...]:
    """Returns what a plan decides for each value that a node makes, and what the scans stack."""
    found = [*_of_residuals(residuals), *_of_values(program, plan)]
    return tuple(sorted(found, key=lambda decision: (decision.decision == "kept", -decision.size)))


def _of_residuals(residuals: tuple[Residual, ...]) -> Iterator[TensorDecision]:
    for residual in residuals:
        kept = residual.is_stacked
        decision = "stacked" if kept else "computed again in the loop"
        reason = "other values follow from it" if kept else "it follows from what is stacked or there anyway"
        yield TensorDecision(residual.name, residual.origin, residual.shape, residual.size, decision, reason)


def _of_values(program: FitProgram, plan: FitPlan) -> Iterator[TensorDecision]:
    problem = program.problem
    runs = [0] * len(problem.nodes)
    moved = set()
    for step in plan.steps:
        if isinstance(step, Run):
            runs[step.node] += 1
        elif isinstance(step, Store | Load):
            moved.add(step.value)
    for number, value in enumerate(problem.values):
        if value.size == 0 or (value.producer is None and number not in moved):
            continue
        decision, reason = "kept", "a result" if value.is_result else "it is needed, or cheaper to keep"
        if number in moved:
            decision, reason = "moved to the host", "the copies take less time than computing it again"
        elif value.producer is not None:
            node, count = problem.nodes[value.producer], runs[value.producer]
            if count > 1:
                times = "once more" if count == 2 else f"{count - 1} times more"
                decision, reason = "computed again", f"{times}, {print_seconds(node.seconds)} each"
            elif not node.can_repeat:
                reason = "it has an effect, or may not be repeated"
        yield TensorDecision(value.name, value.origin, value.shape, value.size, decision, reason)
