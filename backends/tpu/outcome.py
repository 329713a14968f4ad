"""The result of planning a module on the real compiler: every candidate that was compiled, and each decision.

The compiler's own default is always among the candidates, so the best is never worse than it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from memplan.compiler.emulator.score import Score
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.report.description import ProgramDescription
from memplan.compiler.report.units import ratio

# A compile takes seconds to minutes. A plan is compiled if its predicted latency is at most this part of the best so
# far, and a default whose bound is more than this part of its latency ends the search.
WORTH_A_COMPILE = 0.995


@dataclass(frozen=True)
class Candidate:
    """One compile of the module.

    Attributes:
      name: what was tried, such as `default`, `scoped 8192 KiB` or `plan`.
      options: compiler options of the compile, as for `jax.jit(..., compiler_options=...)`.
      text: the scheduled, optimized module; "" if the compile failed.
      score: of the compiled module; None if the compile failed.
      error: why the compile failed; "" if it did not.
      seconds: that the compile took, when it was done.
      predicted: seconds that our model gave the plan before it was compiled; None if no plan was injected.
      order: names of computations to those of their instructions, in the order of execution that was set before the
        compiler assigned memory (`order_hook.fixed_order`); None if the compiler's own was left.
    """

    name: str
    options: dict[str, str]
    text: str
    score: Score | None
    error: str
    seconds: float
    predicted: float | None = None
    order: Mapping[str, Sequence[str]] | None = None


@dataclass(frozen=True)
class BufferDecision:
    """One decision of a plan that differs from the compiler's default, and whether the compiler followed it.

    Attributes:
      instruction: name of the instruction.
      operand: number of its operand; -1 for its result.
      value: name of the value.
      size: bytes.
      wanted: `fast` (resident, or written there), `slow`, or `prefetch`.
      found: where the compiled module has it: `fast`, `slow`, `prefetch`, or `gone` if the instruction is not there.
      state: `obeyed`, `ignored`, or `dropped` (the compiler refused the demand, so it was removed from the plan).
      reason: of a dropped decision, what the compiler said; "" otherwise.
    """

    instruction: str
    operand: int
    value: str
    size: int
    wanted: str
    found: str
    state: str
    reason: str = ""


@dataclass(frozen=True)
class Outcome:
    """The result of `optimize`.

    Attributes:
      target: name of the target.
      default: the module as the compiler makes it by itself.
      best: the candidate with the lowest latency; `default` itself if nothing is better.
      candidates: all of them, in the order of their compiles; the first is `default`.
      decisions: of the plan that was injected last, each with its state; empty if none was injected.
      problem: the mapping problem of `best`.
      plan: the mapping that `best` really has, read back from its text. The offsets are ours: a module states none.
      description: what a person may know of the problem's buffers and operations; None if it is not known.
      bound: seconds of the default that no plan beats by our model: no wait, and everything in fast memory.
    """

    target: str
    default: Candidate
    best: Candidate
    candidates: tuple[Candidate, ...]
    decisions: tuple[BufferDecision, ...]
    problem: MappingProblem
    plan: Plan
    description: ProgramDescription | None = None
    bound: float = 0.0

    @property
    def is_at_bound(self) -> bool:
        """Whether the default is so near its bound that nothing else was compiled."""
        assert self.default.score is not None
        return len(self.candidates) == 1 and self.bound > WORTH_A_COMPILE * self.default.score.latency

    @property
    def ratio(self) -> float:
        """Latency of the best over that of the default; at most 1, and 1 where both are 0."""
        assert self.best.score is not None
        assert self.default.score is not None
        return ratio(self.best.score.latency, self.default.score.latency)
