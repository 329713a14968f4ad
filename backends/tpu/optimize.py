"""Planning on the real compiler: candidates are compiled, scored by one emulator, and the best is taken.

What may be decided for a module, in the order in which it is tried:

    default              as the compiler does it; always there, so the result is never worse
    no cross-program     no argument stays in fast memory from run to run: frees its place for others
    scoped limit         what an instruction may keep for itself, against what is left to tensors: both are decided
                         together, as a larger window makes some instructions faster and leaves less room
    faster copies        how fast the compiler believes copies to be: with more faith it prefetches more, and the
                         score says whether anybody has to wait
    plan                 a planner's mapping of the best module so far; the compiler is steered by it (`steering.py`)
                         through the order in which values compete for the fast memory: all that the plan has there,
                         ranked in several ways, or only what gains or loses by it
    demands              what the compiler still does otherwise than the plan, demanded; what it refuses is dropped, and
                         the buffer is barred from fast memory when the rest is planned again
    order                of execution that keeps the least memory alive, where a JAX is installed that can set one, and
                         the compiler's own keeps more

Each compile teaches: the next plan is made from the estimates of all modules so far that have the same instructions
(`learning.py`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property

from memplan.backends import order_hook
from memplan.backends.tpu.compile import TOPOLOGY_OF_TARGET, CompileError, TpuCompiler, no_compiler
from memplan.backends.tpu.decisions import Placement, decisions
from memplan.backends.tpu.learning import Lesson, learned
from memplan.backends.tpu.outcome import BufferDecision, Candidate, Outcome
from memplan.backends.tpu.steering import (
    RANKINGS,
    SORT_ORDER,
    TENSORS,
    Rule,
    Site,
    demands,
    gain,
    nudged,
    ranked,
    sites,
    sort_order,
)
from memplan.compiler.emulator.score import score
from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.errors import MemplanError, PlannerError
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.hardware.target import Target
from memplan.compiler.ir import Graph
from memplan.compiler.mapping.build import BuiltProblem, build
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners import planner as planners
from memplan.planners.planner import DEFAULT_PLANNER, Budget

CROSS_PROGRAM = "xla_msa_max_cross_program_prefetches"
SCOPED_LIMIT = "xla_tpu_scoped_vmem_limit_kib"
COPY_SPEED = "xla_tpu_async_copy_bandwidth_scaling_factor"
LONG_STAYS = "xla_msa_max_overlap_to_mem_size_async_copy_ratio"

# Index of the fast memory among a TPU's.
_FAST = 1

# A plan's stays may last long: the compiler's own limit, in copies of the whole memory, is lifted.
_NO_LIMIT = "1000"
_FASTER = "2"

# A plan that is foretold to take longer than the best so far by this factor is not compiled.
_NOT_WORTH_A_COMPILE = 1.01

# What differs by less is rounding.
_TIE = 1e-9

# Refusals come early in a compile, and are cheap beside a whole one.
_MOST_REFUSALS = 40
# What gains less than this part of the latency is not demanded, and no reason to nudge.
_WORTH_IT = 2e-4

_OPERAND = re.compile(r"instruction '([^']+)' operand (\d+)")
_DEFINED = re.compile(r"(?:defining instruction '|value defined at |for defining instruction ')([^\s']+)")


def optimize(
    module: bytes,
    target: Target,
    *,
    planner: str = DEFAULT_PLANNER,
    compile_budget: int = 8,
    time_limit: float = 60.0,
    compiler: TpuCompiler | None = None,
    options: Mapping[str, str] | None = None,
) -> Outcome:
    """Returns the best of several compiles of a module, the compiler's default among them.

    Args:
      module: StableHLO as MLIR bytecode.
      target: a TPU for which there is a compiler.
      planner: name of what makes the plans.
      compile_budget: how many compiles may be made, refused ones aside, which end early.
      time_limit: seconds that the planner may search, over all plans.
      compiler: keeps its worker for other calls; one for this call only if None.
      options: the user's own compiler options, part of every candidate; what they set is not varied.

    Raises:
      MemplanError: there is no compiler for the target, the planner is not known, or the budget is below 1.
      CompileError: not even the default can be compiled.
    """
    check(target, planner, compile_budget, time_limit)
    with TpuCompiler() if compiler is None else nullcontext(compiler) as used:
        return _CompileSearch(module, target, planner, compile_budget, time_limit, used, dict(options or {})).run()


def check(target: Target, planner: str, compile_budget: int, time_limit: float) -> None:
    """Raises MemplanError for what `optimize` cannot be asked for."""
    if target.name not in TOPOLOGY_OF_TARGET:
        raise MemplanError(no_compiler(target.name))
    if compile_budget < 1:
        raise MemplanError(f"a compile budget must be at least 1, not {compile_budget}")
    if not (time_limit > 0 and math.isfinite(time_limit)):
        raise MemplanError(f"a time limit must be a positive number of seconds, not {time_limit}")
    planners.get(planner)


@dataclass(frozen=True)
class Steering:
    """A way to turn a plan into the order in which values compete.

    Attributes:
      name: of it.
      ranking: one of `steering.RANKINGS`, of all that the plan has in fast memory; "" to nudge only what changes.
      long_stays: whether to lift the compiler's limit on how long a value may stay.
    """

    name: str
    ranking: str
    long_stays: bool


# Which is best depends on the program: the first are tried first.
STEERING = (
    Steering("size x time", "size x time", long_stays=True),
    Steering("nudged", "", long_stays=False),
    Steering("size x time, short stays", "size x time", long_stays=False),
    *(Steering(name, name, long_stays=True) for name in RANKINGS if name != "size x time"),
)


@dataclass(frozen=True)
class _Compiled:
    """A candidate with what was read from its text."""

    candidate: Candidate
    graph: Graph
    target: Target
    is_steered: bool = False

    @cached_property
    def built(self) -> BuiltProblem:
        return build(self.graph, self.target)

    @cached_property
    def where(self) -> tuple[Site, ...]:
        """Sites of the accesses of its problem."""
        return sites(self.built)

    @cached_property
    def lesson(self) -> Lesson:
        return Lesson.of(self.graph, self.target)

    @property
    def placement(self) -> Placement:
        return self.lesson.placement

    @property
    def scoped_limit(self) -> int:
        """KiB of fast memory that instructions keep for themselves; 0 where that is another memory."""
        default = self.target.spaces[_FAST].scoped_limit // 1024
        return int(self.candidate.options.get(SCOPED_LIMIT, default)) if default else 0

    @property
    def latency(self) -> float:
        assert self.candidate.score is not None
        return self.candidate.score.latency


@dataclass(frozen=True)
class _Planned:
    """A plan for one compiled module.

    Attributes:
      base: the module.
      problem, plan: what was planned, and the answer.
      latency: seconds that are predicted for the module with the plan.
      known: from how many other modules was learned, and how many buffers were barred from fast memory.
    """

    base: _Compiled
    problem: MappingProblem
    plan: Plan
    latency: float
    known: tuple[int, int]


class _CompileSearch:
    """One call of `optimize`."""

    def __init__(
        self,
        module: bytes,
        target: Target,
        planner: str,
        compile_budget: int,
        time_limit: float,
        compiler: TpuCompiler,
        options: dict[str, str],
    ):
        self.module, self.target, self.compiler, self.user_options = module, target, compiler, options
        self.planner = planners.get(planner)
        self.compile_budget, self.seconds_per_plan = compile_budget, max(0.5, time_limit / 4)
        self.candidates: list[Candidate] = []
        self.compiled: list[_Compiled] = []
        self.dropped: dict[str, str] = {}  # name of a buffer, and why the compiler refused what was demanded of it
        self.adopted: dict[str, str] = {}  # options that paid and are part of all that follows
        self.latest: _Planned | None = None
        self.planned: tuple[_Planned, _Compiled] | None = None

    def run(self) -> Outcome:
        """Tries one thing after the other, and keeps what is better."""
        first = self._compile("default", {})
        assert first is not None, "the default is compiled, or an error raised"
        self.default = self.best = self.unsteered = first
        self._try_without_cross_program()
        self._try_scoped(2)
        self._try_plan(STEERING[0], self.unsteered)
        self._try_faster_copies()
        self._try_plan(STEERING[1], self.unsteered)
        self._try_scoped(3 if self.unsteered.scoped_limit > first.scoped_limit else 1.5)
        self._try_plan(STEERING[0], self.unsteered)
        self._try_demands()
        self._try_order()
        tried = 0
        while not self._spent() and tried != len(self.candidates):
            tried = len(self.candidates)
            for steering in STEERING:
                self._try_plan(steering, self._base_of_best())
        return self._outcome()

    # ---- what can be tried

    def _try_without_cross_program(self) -> None:
        if CROSS_PROGRAM not in self.user_options and "cross_program_prefetch_index" in self.best.candidate.text:
            self._keep(self._compile("no cross-program prefetch", {CROSS_PROGRAM: "0"}))

    def _try_scoped(self, factor: float) -> None:
        """Tries another limit of what instructions keep for themselves; without a plan, as other names result."""
        if SCOPED_LIMIT in self.user_options or not self.default.scoped_limit:
            return
        limit = int(self.default.scoped_limit * factor)
        if limit * 1024 >= self.target.spaces[_FAST].capacity:
            return
        options = {**_without_plan(self.unsteered.candidate.options), **self.adopted, SCOPED_LIMIT: str(limit)}
        self._keep(self._compile(f"scoped limit {limit} KiB", options))

    def _try_faster_copies(self) -> None:
        """Tries the best so far with copies that are believed to be faster; what follows keeps it if it pays."""
        if COPY_SPEED in self.user_options:
            return
        best, options = self.best, {**self.best.candidate.options, COPY_SPEED: _FASTER}
        name = f"{best.candidate.name}, faster copies"
        done = self._compile(name, options, best.candidate.predicted, best.is_steered, order=best.candidate.order)
        if done is not None and self._is_better(done):
            self.adopted[COPY_SPEED] = _FASTER
            if self.planned is not None and self.planned[1] is best:
                self.planned = self.planned[0], done
        self._keep(done)

    def _try_plan(self, steering: Steering, base: _Compiled) -> None:
        """Plans a module that carries no plan, and steers the compiler by the plan."""
        if self._spent():
            return
        planned = self._plan(base)
        if planned is None or planned.latency > _NOT_WORTH_A_COMPILE * self.best.latency:
            return
        options = self._steered(planned, steering)
        done = self._compile(
            f"plan, {steering.name}", options, planned.latency, is_steered=True, order=base.candidate.order
        )
        if done is not None:
            self.planned = (planned, done) if self.planned is None or self._is_better(done) else self.planned
        self._keep(done)

    def _try_order(self) -> None:
        """Tries the order that keeps the least memory alive, if it is not the compiler's own."""
        if self._spent() or not order_hook.is_supported("tpu"):
            return
        base = self._base_of_best()
        options = base.candidate.options
        try:
            scheduled = self.compiler.before_assignment(self.module, TOPOLOGY_OF_TARGET[self.target.name], options)
        except CompileError:
            return
        order = order_hook.memory_order(parse_hlo(scheduled.text))
        if order:
            self._keep(self._compile("least memory order", options, order=order))

    def _try_demands(self) -> None:
        """Demands what the plan wants and the compiler does not do; drops what it refuses."""
        if self._spent() or self.planned is None:
            return
        planned, done = self.planned
        rules = self._missing(planned, done)
        options = dict(done.candidate.options)
        for _ in range(_MOST_REFUSALS):
            if not rules:
                return
            options[TENSORS] = " ".join(rule.text for rule in rules)
            try:
                demanded = self._compile(
                    "plan, demanded",
                    options,
                    planned.latency,
                    is_steered=True,
                    refusable=True,
                    order=done.candidate.order,
                )
            except CompileError as error:
                kept = self._without_refused(rules, planned, str(error))
                if len(kept) == len(rules):
                    return
                rules = kept
                continue
            if demanded is not None and self._is_better(demanded):
                self.planned = (planned, demanded)
            self._keep(demanded)
            return

    def _missing(self, planned: _Planned, done: _Compiled) -> list[Rule]:
        """Returns demands for the buffers that the plan has in fast memory and the compiled module has not, by gain."""
        where = planned.base.where
        missed: dict[int, None] = {}
        for number, site in enumerate(where):
            found = done.placement.of(site)
            if planned.plan.residencies[planned.plan.served[number]].space and found and found.space <= 0:
                missed[planned.problem.accesses[number][1].buffer] = None
        gains = {buffer: gain(planned.problem, planned.plan, buffer) for buffer in missed}
        worth = [b for b in sorted(gains, key=lambda b: -gains[b]) if gains[b] > _WORTH_IT * self.best.latency]
        names = [operation.name if operation.opcode != "point" else "" for operation in planned.problem.operations]
        return demands(planned.problem, planned.plan, where, worth, names)

    def _without_refused(self, rules: Sequence[Rule], planned: _Planned, message: str) -> list[Rule]:
        """Returns the rules without those of the buffer that the compiler's message names."""
        operand, defined = named_by(message)
        buffers = planned.problem.buffers
        hit = {rule.buffer for rule in rules if (rule.site.instruction, rule.site.operand) == operand} or {
            rule.buffer
            for rule in rules
            if rule.site.instruction == defined
            or any(value.partition("{")[0] == defined for value in buffers[rule.buffer].values)
        }
        for buffer in hit:
            self.dropped[buffers[buffer].name] = _reason(message)
        return [rule for rule in rules if rule.buffer not in hit]

    # ---- planning and compiling

    def _plan(self, base: _Compiled) -> _Planned | None:
        """Returns a plan for a compiled module; None if the planner finds none."""
        others = [done for done in self.compiled if done is not base and done.scoped_limit == base.scoped_limit]
        known = len(others), len(self.dropped)
        if self.latest is not None and self.latest.base is base and self.latest.known == known:
            return self.latest
        model = learned(base.built.problem, base.where, [done.lesson for done in others])
        problem = self._plannable(base, model)
        try:
            plan = self.planner.solve(problem, Budget(seconds=self.seconds_per_plan))
        except PlannerError:
            return None
        # What the plan changes by our model, from what the module takes by its own estimates.
        emulator = TimingEmulator(model)
        given = model.given
        assert given is not None
        latency = base.latency + emulator.latency(plan) - emulator.latency(given)
        self.latest = _Planned(base, problem, plan, latency, known)
        return self.latest

    def _plannable(self, base: _Compiled, problem: MappingProblem) -> MappingProblem:
        """Returns the problem as the compiler will see it: its whole scoped limit is off-limits, and so are buffers of
        which it refused what was demanded.
        """
        limit = base.scoped_limit * 1024
        operations = tuple(
            replace(
                operation,
                reserved=tuple(max(size, limit) if i == _FAST else size for i, size in enumerate(operation.reserved)),
            )
            for operation in problem.operations
        )
        room = problem.spaces[_FAST].capacity - limit
        buffers = tuple(
            replace(buffer, spaces=buffer.spaces[:1])
            if buffer.spaces[:1] == (0,)
            and buffer.initial_space in (None, 0)
            and buffer.final_space in (None, 0)
            and (buffer.size > room or buffer.name in self.dropped)
            else buffer
            for buffer in problem.buffers
        )
        # Which argument stays from run to run is the compiler's choice: a plan cannot name it.
        return replace(problem, operations=operations, buffers=buffers, cross_program_prefetches=0, given=None)

    def _steered(self, planned: _Planned, steering: Steering) -> dict[str, str]:
        """Returns the options that steer the compiler by a plan."""
        problem, given = planned.problem, planned.base.built.problem.given
        last: list[int] = []
        if steering.ranking:
            first = ranked(problem, planned.plan, steering.ranking)
        else:
            assert given is not None
            first, last = nudged(problem, planned.plan, given, _WORTH_IT * planned.base.latency)
        steered = {SORT_ORDER: sort_order(problem, first, last)} if first or last else {}
        if steered and steering.long_stays:
            steered[LONG_STAYS] = _NO_LIMIT
        if CROSS_PROGRAM not in self.user_options:
            steered[CROSS_PROGRAM] = "0"
        return {**_without_plan(planned.base.candidate.options), **self.adopted, **steered}

    def _compile(
        self,
        name: str,
        options: Mapping[str, str],
        predicted: float | None = None,
        is_steered: bool = False,
        refusable: bool = False,
        order: order_hook.Orders | None = None,
    ) -> _Compiled | None:
        """Compiles and scores a candidate; None if the budget is spent, the same was compiled before, or it fails.

        Raises:
          CompileError: the default failed, or `refusable` is set and the compiler refused.
        """
        chosen = {**options, **self.user_options}
        if self._spent() or any((other.options, other.order) == (chosen, order) for other in self.candidates):
            return None
        try:
            compiled = self.compiler.compile(self.module, TOPOLOGY_OF_TARGET[self.target.name], chosen, order)
        except CompileError as error:
            if not self.candidates or (refusable and error.reason == "refused"):
                raise
            self.candidates.append(Candidate(name, chosen, "", None, str(error), 0.0, predicted, order))
            return None
        graph = parse_hlo(compiled.text)
        candidate = Candidate(
            name, chosen, compiled.text, score(graph, self.target), "", compiled.seconds, predicted, order
        )
        self.candidates.append(candidate)
        done = _Compiled(candidate, graph, self.target, is_steered)
        self.compiled.append(done)
        return done

    def _keep(self, done: _Compiled | None) -> None:
        """Makes a candidate the best, and the one to plan next, if it is."""
        if done is None:
            return
        if not done.is_steered and done.latency < (1.0 - _TIE) * self.unsteered.latency:
            self.unsteered = done
        if self._is_better(done):
            self.best = done

    def _base_of_best(self) -> _Compiled:
        """Returns the module that carries no plan and led to the best."""
        if self.planned is not None and self.planned[1] is self.best:
            return self.planned[0].base
        return self.unsteered

    def _is_better(self, done: _Compiled) -> bool:
        return done.latency < (1.0 - _TIE) * self.best.latency

    def _spent(self) -> bool:
        return len(self.candidates) >= self.compile_budget

    # ---- the result

    def _outcome(self) -> Outcome:
        problem = self.best.built.problem
        # A module does not say at which offsets its values lie: the planner that reads it back finds some.
        plan = planners.get("xla").solve(problem, Budget(seconds=self.seconds_per_plan))
        return Outcome(
            target=self.target.name,
            default=self.default.candidate,
            best=self.best.candidate,
            candidates=tuple(self.candidates),
            decisions=self._decisions(),
            problem=problem,
            plan=plan,
        )

    def _decisions(self) -> tuple[BufferDecision, ...]:
        if self.planned is None:
            return ()
        planned, done = self.planned
        dropped = {
            number: self.dropped[buffer.name]
            for number, buffer in enumerate(planned.problem.buffers)
            if buffer.name in self.dropped
        }
        return decisions(
            planned.problem,
            planned.plan,
            planned.base.where,
            planned.base.placement,
            done.placement,
            dropped,
        )


def _without_plan(options: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in options.items() if name not in (SORT_ORDER, TENSORS, LONG_STAYS)}


def named_by(message: str) -> tuple[tuple[str, int] | None, str]:
    """Returns the use, as instruction and operand, and the defining instruction that a refusal names.

    >>> named_by("override failed for instruction 'c' operand 1, shape f32[8], defining instruction 'b': Out of room")
    (('c', 1), 'b')
    >>> named_by("The value defined at b {1} requires allocation in the alternate memory")
    (None, 'b')
    """
    operand, defined = _OPERAND.search(message), _DEFINED.search(message)
    return (operand[1], int(operand[2])) if operand else None, defined[1] if defined else ""


def _reason(message: str) -> str:
    """Returns what a refusal says, without the names around it.

    >>> _reason("strict override failed for instruction 'a' operand 1, defining instruction 'b': Out of room")
    'Out of room'
    """
    return message.rpartition("': ")[2] if "': " in message else message.rpartition(": ")[2]
