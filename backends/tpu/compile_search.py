"""The search of `optimize`: what is compiled, in which order, and what is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from memplan.backends import order_hook
from memplan.backends.tpu.compile import CompileError, TpuCompiler
from memplan.backends.tpu.decisions import decisions
from memplan.backends.tpu.devices import TpuSlice, slice_of
from memplan.backends.tpu.learning import learned
from memplan.backends.tpu.outcome import WORTH_A_COMPILE, BufferDecision, Candidate, Outcome
from memplan.backends.tpu.planned import (
    FAST,
    STEERING,
    WORTH_IT,
    PlannedModule,
    ScoredModule,
    Steering,
    plannable,
    steered,
    without_plan,
)
from memplan.backends.tpu.refusals import named_by, reason
from memplan.backends.tpu.scoped_limit import next_limit
from memplan.backends.tpu.steering import COPY_SPEED, CROSS_PROGRAM, SCOPED_LIMIT, TENSORS, Rule, demands, gain
from memplan.compiler.emulator.score import score
from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.errors import PlannerError
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.hardware.target import Target
from memplan.compiler.report.description import describe
from memplan.planners import planner as planners
from memplan.planners.planner import Budget

# The factor of the bandwidth that the compiler assumes for copies, where it is to believe in faster ones.
_FASTER = "2"

# A smaller relative difference is rounding.
_TIE = 1e-9

# The most refusals of demands; they come early in a compile and are cheap beside a whole one.
_MOST_REFUSALS = 40


class CompileSearch:
    """One call of `optimize`.

    Attributes:
      candidates: all compiles so far, and `compiled` those that succeeded.
      default, best: the compiler's own module, and the best one so far.
      unsteered: the best module so far that carries no plan.
      latest: the last plan that was made.
      planned: the plan that led to the best module that carries one, and that module.
      dropped: by the name of a buffer, why the compiler refused the demands for it.
      adopted: options that paid, and are part of all that follows.
      limits: scoped limits that were tried without a plan, in KiB, and their latencies.
    """

    def __init__(
        self,
        module: bytes,
        target: Target,
        planner: str,
        compile_budget: int,
        budget: Budget,
        compiler: TpuCompiler,
        options: dict[str, str],
        interrupted: Callable[[], bool] | None,
        on: TpuSlice | None = None,
    ):
        self.module, self.target, self.compiler, self.user_options = module, target, compiler, options
        self.interrupted = interrupted
        self.slice = on or slice_of(target.name, 1)
        self.planner = planners.get(planner)
        self.compile_budget, self.budget = compile_budget, budget
        self.candidates: list[Candidate] = []
        self.compiled: list[ScoredModule] = []
        self.dropped: dict[str, str] = {}
        self.adopted: dict[str, str] = {}
        self.latest: PlannedModule | None = None
        self.planned: tuple[PlannedModule, ScoredModule] | None = None

    def run(self) -> Outcome:
        """Tries one candidate after the other, and keeps what is better."""
        first = self._compile("default", {})
        assert first is not None, "the default is compiled, or an error raised"
        self.default = self.best = self.unsteered = first
        self.limits = {first.scoped_limit: first.latency}
        try:
            self._try_all()
        except KeyboardInterrupt:
            if self.interrupted is None:
                raise
        return self._outcome()

    def _try_all(self) -> None:
        """Tries single options first, then plans for the best module, and the two in turn.

        Options come in the order in which a sweep of them would try them.
        """
        if self.default.bound > WORTH_A_COMPILE * self.default.latency:
            return
        self._try_scoped()
        self._try_scoped()
        self._try_without_cross_program()
        if self.unsteered is not self.default:
            self._try_scoped()
        self._try_plan(STEERING[0], self.unsteered)
        self._try_faster_copies()
        self._try_plan(STEERING[1], self.unsteered)
        self._try_demands()
        self._try_order()
        self._try_scoped()
        self._try_plan(STEERING[0], self.unsteered)
        self._try_scoped()
        tried = 0
        while not self._spent() and tried != len(self.candidates):
            tried = len(self.candidates)
            for steering in STEERING:
                self._try_plan(steering, self._base_of_best())

    def _try_without_cross_program(self) -> None:
        if CROSS_PROGRAM in self.user_options or "cross_program_prefetch_index" not in self.best.candidate.text:
            return
        done = self._compile("no cross-program prefetch", {CROSS_PROGRAM: "0"})
        self._keep(done)
        if done is not None and self.unsteered is done:
            # Beside it, other scoped limits may be better than those that were.
            self.limits = {done.scoped_limit: done.latency}

    def _try_scoped(self) -> None:
        """Tries another scoped limit, without a plan, since the names of instructions may change."""
        if SCOPED_LIMIT in self.user_options or not self.default.scoped_limit or self._spent():
            return
        limit = next_limit(self.limits, self.target.spaces[FAST].capacity // 1024)
        if limit is None:
            return
        options = {**without_plan(self.unsteered.candidate.options), **self.adopted, SCOPED_LIMIT: str(limit)}
        done = self._compile(f"scoped limit {limit} KiB", options)
        self.limits[limit] = math.inf if done is None else done.latency
        self._keep(done)

    def _try_faster_copies(self) -> None:
        """Tries the best so far with a higher bandwidth of copies; what follows keeps it if it pays."""
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

    def _try_plan(self, steering: Steering, base: ScoredModule) -> None:
        """Plans a module that carries no plan, and steers the compiler by the plan."""
        if self._spent():
            return
        planned = self._plan(base)
        if planned is None or planned.latency > WORTH_A_COMPILE * self.best.latency:
            return
        options = {**without_plan(base.candidate.options), **self.adopted, **steered(planned, steering)}
        if CROSS_PROGRAM not in self.user_options:
            options[CROSS_PROGRAM] = "0"
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
            scheduled = self.compiler.before_assignment(self.module, self.slice.topology, options, self.slice.devices)
        except CompileError:
            return
        order = order_hook.memory_order(parse_hlo(scheduled.text))
        if order:
            self._keep(self._compile("least memory order", options, order=order))

    def _try_demands(self) -> None:
        """Demands what the plan wants and the compiler does not do; drops the demands that it refuses."""
        if self._spent() or self.planned is None:
            return
        planned, done = self.planned
        if planned.latency > WORTH_A_COMPILE * self.best.latency:
            return
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

    def _missing(self, planned: PlannedModule, done: ScoredModule) -> list[Rule]:
        """Returns demands, by gain, for the buffers that the plan has in fast memory and the compiled module does
        not."""
        where = planned.base.where
        missed: dict[int, None] = {}
        for number, site in enumerate(where):
            found = done.placement.of(site)
            if planned.plan.residencies[planned.plan.served[number]].space and found and found.space <= 0:
                missed[planned.problem.accesses[number][1].buffer] = None
        gains = {buffer: gain(planned.problem, planned.plan, buffer) for buffer in missed}
        worth = [b for b in sorted(gains, key=lambda b: -gains[b]) if gains[b] > WORTH_IT * self.best.latency]
        names = [operation.name if operation.opcode != "point" else "" for operation in planned.problem.operations]
        return demands(planned.problem, planned.plan, where, worth, names)

    def _without_refused(self, rules: Sequence[Rule], planned: PlannedModule, message: str) -> list[Rule]:
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
            self.dropped[buffers[buffer].name] = reason(message)
        return [rule for rule in rules if rule.buffer not in hit]

    def _plan(self, base: ScoredModule) -> PlannedModule | None:
        """Returns a plan for a compiled module; None if the planner finds none."""
        others = [done for done in self.compiled if done is not base and done.scoped_limit == base.scoped_limit]
        known = len(others), len(self.dropped)
        if self.latest is not None and self.latest.base is base and self.latest.known == known:
            return self.latest
        model = learned(base.built.problem, base.where, [done.lesson for done in others])
        problem = plannable(base, model, self.dropped)
        try:
            plan = self.planner.plan(problem, self.budget)
        except PlannerError:
            return None
        # The latency by the module's own estimates, and what the plan changes by our model.
        emulator = TimingEmulator(model)
        given = model.given
        assert given is not None
        latency = base.latency + emulator.latency(plan) - emulator.latency(given)
        self.latest = PlannedModule(base, problem, plan, latency, known)
        return self.latest

    def _compile(
        self,
        name: str,
        options: Mapping[str, str],
        predicted: float | None = None,
        is_steered: bool = False,
        refusable: bool = False,
        order: order_hook.Orders | None = None,
    ) -> ScoredModule | None:
        """Compiles and scores a candidate; None if the budget is spent, the same was compiled before, or it fails.

        Raises:
          CompileError: the default failed, or `refusable` is set and the compiler refused.
        """
        chosen = {**options, **self.user_options}
        if self._spent() or any((other.options, other.order) == (chosen, order) for other in self.candidates):
            return None
        try:
            compiled = self.compiler.compile(self.module, self.slice.topology, chosen, order, self.slice.devices)
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
        done = ScoredModule(candidate, graph, self.target, is_steered)
        self.compiled.append(done)
        return done

    def _keep(self, done: ScoredModule | None) -> None:
        """Makes a candidate the best one, and the one to plan next, if it is better than these."""
        if done is None:
            return
        if not done.is_steered and done.latency < (1.0 - _TIE) * self.unsteered.latency:
            self.unsteered = done
        if self._is_better(done):
            self.best = done

    def _base_of_best(self) -> ScoredModule:
        """Returns the module that carries no plan and led to the best."""
        if self.planned is not None and self.planned[1] is self.best:
            return self.planned[0].base
        return self.unsteered

    def _is_better(self, done: ScoredModule) -> bool:
        return done.latency < (1.0 - _TIE) * self.best.latency

    def _spent(self) -> bool:
        # A planner that is interrupted returns its best plan, and says nothing.
        if self.candidates and self.interrupted is not None and self.interrupted():
            return True
        return len(self.candidates) >= self.compile_budget

    def _outcome(self) -> Outcome:
        problem = self.best.built.problem
        # A module states no offsets: the planner that reads it back finds some.
        plan = planners.get("xla").solve(problem, self.budget)
        return Outcome(
            target=self.target.name,
            default=self.default.candidate,
            best=self.best.candidate,
            candidates=tuple(self.candidates),
            decisions=self._decisions(),
            bound=self.default.bound,
            problem=problem,
            plan=plan,
            description=describe(self.best.built),
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
