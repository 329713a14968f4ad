"""The Report: everything that is said of a plan, computed once. Tables, pictures, traces and JSON only show it.

Several mappings of the same problem are set side by side, all scored by the same emulator: nothing in fast memory,
what the dump's compiler decided, and the plan that the report is about. The bound is what none of them can beat: the
latency when every access is served by its fastest memory and nothing has to fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memplan.compiler.emulator.timing import Timeline, TimingEmulator
from memplan.compiler.mapping.plan import BEFORE, Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.report.costs import BufferCosts, buffer_costs
from memplan.compiler.report.reasons import BufferStory, StoryTeller
from memplan.compiler.report.usage import Usage, usage

MOST_COSTLY = 10


@dataclass(frozen=True)
class Contender:
    """One mapping, scored.

    Attributes:
      label: such as "all in hbm".
      plan: the mapping.
      timeline: what the emulator says of it.
      usage: `[num_spaces]`.
      copies: how many copies one run of the program makes, iterations of loops and chances of branches counted.
      copied_bytes: bytes that they move.
      gap: latency over the bound, minus one.
    """

    label: str
    plan: Plan
    timeline: Timeline
    usage: tuple[Usage, ...]
    copies: float
    copied_bytes: float
    gap: float

    @property
    def latency(self) -> float:
        """Seconds of one run of the program."""
        return self.timeline.latency


@dataclass(frozen=True)
class Report:
    """A plan and what it is worth.

    Attributes:
      problem: what was planned.
      contenders: mappings to compare, the plan of the report last.
      bound: seconds that no plan beats.
      costs: what each buffer costs under the plan.
      stories: the buffers that cost most, most costly first, and why they are where they are.
    """

    problem: MappingProblem
    contenders: tuple[Contender, ...]
    bound: float
    costs: BufferCosts
    stories: tuple[BufferStory, ...]

    @property
    def subject(self) -> Contender:
        """The plan that the report is about."""
        return self.contenders[-1]

    def contender(self, planner: str) -> Contender | None:
        """Returns the first contender whose plan some planner made; None if there is none."""
        return next((contender for contender in self.contenders if contender.plan.planner == planner), None)


def make_report(problem: MappingProblem, plan: Plan, others: Sequence[tuple[str, Plan]] = ()) -> Report:
    """Scores a plan beside others.

    Args:
      problem: that all of them answer. The plans must be valid: what an invalid plan is worth has no meaning.
      plan: what the report is about.
      others: `(label, plan)` of what it is compared with.
    """
    emulator = TimingEmulator(problem)
    bound = emulator.lower_bound()
    contenders = tuple(
        _score(emulator, label, contender, bound) for label, contender in (*others, (plan.planner, plan))
    )
    subject = contenders[-1]
    costs = buffer_costs(problem, plan, subject.timeline)
    teller = StoryTeller(problem, plan, subject.timeline, subject.usage, costs)
    stories = tuple(teller.tell(buffer) for buffer in costs.most_costly(MOST_COSTLY))
    return Report(problem, contenders, bound, costs, stories)


def _score(emulator: TimingEmulator, label: str, plan: Plan, bound: float) -> Contender:
    problem, timeline = emulator.problem, emulator.emulate(plan)
    copies = sum(problem.runs_at(copy.start) for copy in plan.copies if copy.start != BEFORE)
    return Contender(
        label=label,
        plan=plan,
        timeline=timeline,
        usage=usage(problem, plan),
        copies=copies,
        copied_bytes=float(timeline.bytes_moved.sum()),
        gap=timeline.latency / bound - 1 if bound > 0 else 0.0,
    )
