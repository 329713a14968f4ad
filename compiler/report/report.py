"""The Report: everything that is said of a plan, computed once. Tables, pictures, traces and JSON only show it.

Several mappings of the same problem are set side by side, all scored by the same emulator: nothing in fast memory,
what the dump's compiler decided, and the plan that the report is about. The bound is what none of them can beat: the
best that a planner proved and wrote into its plan, or else the latency when every access is served by its fastest
memory and nothing has to fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from memplan.compiler.collection import collection_paused
from memplan.compiler.emulator.timing import Timeline, TimingEmulator
from memplan.compiler.html import html_table
from memplan.compiler.ir import Source
from memplan.compiler.mapping.plan import BEFORE, Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.report.buffers import BufferDescription, GroupBy, labels_of
from memplan.compiler.report.costs import BufferCosts, buffer_costs
from memplan.compiler.report.description import ProgramDescription, describe_problem
from memplan.compiler.report.reasons import BufferStory, StoryTeller
from memplan.compiler.report.units import print_bytes, print_percent, print_seconds
from memplan.compiler.report.usage import Usage, usage

MOST_COSTLY = 10

# Bounds that differ by less are the same.
_ROUNDING = 1.0 + 1e-9


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
class StoryGroup:
    """Buffers that are alike, as those of layers that repeat: of one operation, shape and kind.

    Attributes:
      label: the operation, or the name of an argument, with `*` for the numbers of layers.
      buffers: indices, the most costly first.
      lost, waited, saved: seconds per run of all of them, see `BufferCosts`.
      story: of the most costly one.
    """

    label: str
    buffers: tuple[int, ...]
    lost: float
    waited: float
    saved: float
    story: BufferStory


@dataclass(frozen=True)
class Report:
    """A plan and what it is worth.

    Attributes:
      problem: what was planned.
      contenders: mappings to compare, the plan of the report last.
      bound: seconds that no plan beats.
      bound_by: the planner that proved it; None if it is the latency without capacities.
      bound_checked: seconds; as much of the bound as holds without the word of an integer solver.
      buffers: `[num_buffers]` what a person may know of each: shape, source line, group.
      sources: `[n]` where each operation comes from in the user's program.
      costs: what each buffer costs under the plan.
      stories: the buffers that cost most, most costly first, and why they are where they are.
      groups: the same of groups of buffers that are alike.
    """

    problem: MappingProblem
    contenders: tuple[Contender, ...]
    bound: float
    bound_by: str | None
    bound_checked: float
    buffers: tuple[BufferDescription, ...]
    sources: tuple[Source, ...]
    costs: BufferCosts
    stories: tuple[BufferStory, ...]
    groups: tuple[StoryGroup, ...]

    @property
    def subject(self) -> Contender:
        """The plan that the report is about."""
        return self.contenders[-1]

    @property
    def shown(self) -> tuple[Contender, ...]:
        """The plans of pictures: the compiler's own, if it has one, and the subject."""
        xla = self.contender("xla")
        return (self.subject,) if xla is None or xla is self.subject else (xla, self.subject)

    @property
    def bound_origin(self) -> str:
        """What the bound is, in a sentence."""
        if self.bound_by is None:
            return "The bound is the latency with all memories large enough."
        if self.bound_checked >= self.bound:
            return f"The bound was proven by {self.bound_by}, and the proof was checked exactly."
        share = 100 * (1 - self.bound_checked / self.bound)
        return (
            f"The bound was proven by {self.bound_by}. All but {share:.2g} % of it was checked exactly; "
            "the rest is the word of an integer solver."
        )

    @property
    def stopped(self) -> str | None:
        """What cut the planner short; None if nothing did."""
        said = self.subject.plan.info.get("stopped")
        return None if said is None else str(said)

    def contender(self, planner: str) -> Contender | None:
        """Returns the first contender whose plan some planner made; None if there is none."""
        return next((contender for contender in self.contenders if contender.plan.planner == planner), None)

    def _repr_html_(self) -> str:
        problem = self.problem
        numbers = [
            "latency",
            "gap to bound",
            "waiting",
            "copies",
            "copied",
            *(f"peak {s.name}" for s in problem.spaces),
        ]
        rows = []
        for each in self.contenders:
            times = print_seconds(each.latency), print_percent(each.gap), print_seconds(each.timeline.stalled)
            peaks = (print_bytes(used.peak) for used in each.usage)
            rows.append([each.label, *times, f"{each.copies:,.0f}", print_bytes(each.copied_bytes), *peaks])
        rows.append(["bound that no plan beats", print_seconds(self.bound), *[""] * (len(numbers) - 1)])
        title = f"{problem.name} on {problem.target}: {problem.end:,} operations, {len(problem.buffers):,} buffers"
        remarks = [*problem.notes, self.bound_origin]
        mappings = html_table(title, {"": "left"} | dict.fromkeys(numbers, "right"), rows, remarks)
        columns = {"what costs most": "left", "count": "right", "bytes of each": "right", "shape": "left"}
        columns |= {"line": "left", "costs": "right", "saves": "right", "why": "left"}
        costly = []
        for group in self.groups:
            described, story = self.buffers[group.story.buffer], group.story
            costs, saves = print_seconds(group.lost + group.waited), print_seconds(group.saved)
            size = f"{len(group.buffers):,}", print_bytes(story.size)
            facts = described.shape, described.source
            costly.append([group.label, *size, *facts, costs, saves, " ".join(story.reasons)])
        return f"{mappings}\n{html_table('', columns, costly)}" if costly else mappings


@collection_paused()
def make_report(
    problem: MappingProblem,
    plan: Plan,
    others: Sequence[tuple[str, Plan]] = (),
    description: ProgramDescription | None = None,
) -> Report:
    """Scores a plan beside others.

    Args:
      problem: that all of them answer. The plans must be valid: what an invalid plan is worth has no meaning.
      plan: what the report is about.
      others: `(label, plan)` of what it is compared with.
      description: what `describe` says of the program; None where only the problem is known.
    """
    emulator = TimingEmulator(problem)
    every = (*others, (plan.planner, plan))
    bound, bound_by, bound_checked = _best_bound(emulator, [contender for _, contender in every])
    contenders = tuple(_score(emulator, label, contender, bound) for label, contender in every)
    subject = contenders[-1]
    costs = buffer_costs(problem, plan, subject.timeline)
    teller = StoryTeller(problem, plan, subject.timeline, subject.usage, costs)
    stories = tuple(teller.tell(buffer) for buffer in costs.most_costly(MOST_COSTLY))
    known = describe_problem(problem) if description is None else description
    groups = tuple(_groups(teller, known.buffers, costs))
    return Report(
        problem, contenders, bound, bound_by, bound_checked, known.buffers, known.sources, costs, stories, groups
    )


def _groups(teller: StoryTeller, buffers: Sequence[BufferDescription], costs: BufferCosts) -> Iterator[StoryGroup]:
    """Yields the groups of buffers that cost most."""
    members: dict[tuple[str, str, str], list[int]] = {}
    labels = labels_of(buffers, GroupBy.OP)
    for number in costs.most_costly(len(buffers)):
        described = buffers[number]
        label = labels[number] if described.op_name else described.name
        members.setdefault((label, described.shape, described.kind), []).append(number)
    total = costs.lost + costs.waited
    ordered = sorted(members.items(), key=lambda item: -sum(total[number] for number in item[1]))
    for (label, _, _), numbers in ordered[:MOST_COSTLY]:
        lost, waited, saved = (float(each[numbers].sum()) for each in (costs.lost, costs.waited, costs.saved))
        yield StoryGroup(label, tuple(numbers), lost, waited, saved, teller.tell(numbers[0]))


def _best_bound(emulator: TimingEmulator, plans: Sequence[Plan]) -> tuple[float, str | None, float]:
    """Returns the best bound that plans state, the planner that proved it, and as much of it as was checked exactly.

    The planner is None if the bound is that of no capacity.

    A plan file may state anything: a bound that one of the plans beats is not believed.
    """
    best, proven_by = emulator.lower_bound(), None
    checked = best
    fastest = min(emulator.latency(plan) for plan in plans)
    for plan in plans:
        stated = plan.info.get("bound")
        if isinstance(stated, float) and best * _ROUNDING < stated <= fastest * _ROUNDING:
            best, proven_by = stated, str(plan.info.get("bound_by", plan.planner))
            also = plan.info.get("bound_checked")
            checked = max(checked, also) if isinstance(also, float) else checked
    best = min(best, fastest)
    return best, proven_by, min(checked, best)


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
