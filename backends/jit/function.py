"""A function under `memplan.jit`: which jitted function serves a signature, decided when it is first called.

                     arguments of a new signature
                                  │  trace, lower: as jax.jit does, and from its own caches
      ┌───────────────────────────┼──────────────────────────────┐
in a trace                       CPU                        the TPU meant
      │                           │ compiled in the               │ optimize; the best few and the default are
      │                           │ order of least memory         │ compiled, run and timed
      ▼                           ▼                               ▼
 plain function             plain function           the function with the compiler options of the fastest
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import jax

from memplan.backends import compile_hook, order_hook
from memplan.backends.jit import fitting, machine, stages
from memplan.backends.jit.dispatch import Twin
from memplan.backends.jit.lowering import lower_for_tpu
from memplan.backends.jit.messages import log, one_line_of, say_once
from memplan.backends.jit.orders import can_order, compile_in_order, in_order_of, say_what_applies
from memplan.backends.jit.planning import (
    PlanResult,
    Settings,
    TpuProgram,
    beside_this_process,
    check_one_process,
    contenders,
    has_compiler,
    plan_jaxpr,
    plan_module,
    report_of,
)
from memplan.backends.jit.timing import Timer, median_seconds, wall_clock
from memplan.backends.tpu.outcome import Candidate, Outcome
from memplan.compiler.errors import MemplanError
from memplan.compiler.hardware.guess import ANY_TARGET
from memplan.compiler.hardware.target import Target, load_target
from memplan.passes.base import Context, PassReport
from memplan.passes.manager import PassOutcome, chosen, rewritten


@dataclass(frozen=True)
class Place:
    """Where a call belongs.

    Attributes:
      platform: of the device on which JAX would run it.
      target: that it is planned for; None if none was given and there is no TPU.
      is_here: whether that target is the device.
    """

    platform: str
    target: Target | None
    is_here: bool


@dataclass
class _Choice:
    """The function that serves one signature; None until a thread has chosen it."""

    function: Any = None
    lock: threading.RLock = field(default_factory=threading.RLock)


class Function:
    """What memplan knows of a function, for all signatures.

    Args:
      fun: the user's function.
      settings: of `memplan.jit`.
      jit_kwargs: for `jax.jit`.
      timer: times one run, where there is hardware.
    """

    def __init__(
        self, fun: Callable[..., Any], settings: Settings, jit_kwargs: Mapping[str, Any], timer: Timer = wall_clock
    ):
        self.fun, self.settings, self.timer = fun, settings, timer
        self.jit_kwargs = dict(jit_kwargs)
        # JAX's own functions run under the first; our dispatcher keeps their answers under the second.
        program = rewritten(fun, settings.passes, self._context) if chosen(settings.passes) else fun
        self.twin, self.dispatched = Twin(program), Twin(program)
        self.plain: Any = jax.jit(self.twin, **jit_kwargs)
        self._with_options: dict[str, Any] = {}
        # Keys: the jaxpr of a signature, which JAX keeps as long as the signature, and the shardings of the arguments.
        self._choices: WeakKeyDictionary[Any, dict[tuple[Any, ...], _Choice]] = WeakKeyDictionary()
        self._lock = threading.Lock()

    # Called by the dispatcher.

    def choose(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Returns the function, made by `jax.jit`, that serves a call."""
        leaves = jax.tree.leaves((args, kwargs))
        # Options and orders belong to whole programs: a part of a larger program is compiled with that.
        if not _is_outermost() or any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return self.plain
        traced = self.plain.trace(*args, **kwargs)
        shardings = tuple(leaf.sharding if isinstance(leaf, jax.Array) else None for leaf in leaves)
        with self._lock:
            choice = self._choices.setdefault(traced.jaxpr, {}).setdefault(shardings, _Choice())
        with choice.lock, compile_hook.untouched():
            if choice.function is None:
                choice.function = self._choose_first(traced, self._place(leaves), args, kwargs)
            return choice.function

    def _choose_first(self, traced: Any, place: Place, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if self.settings.memory_limit is not None:
            fitting.check_limited(place.platform, traced.fun_name)
            return fitting.fitted(self.plain, traced, self.settings, self.jit_kwargs, args, kwargs)
        if place.target is not None and not place.is_here:
            say_once(
                logging.WARNING,
                f"memplan.jit: {place.target.name} is not on this machine: functions run on {place.platform}",
            )
        elif place.target is not None:
            say_once(logging.INFO, f"memplan.jit on {place.target.name}: every signature is planned once")
            return self._choose_planned(traced, place.target, args, kwargs)
        say_what_applies(place.platform)
        if can_order(place.platform):
            self._compile_ordered(traced)
        return self.plain

    def _compile_ordered(self, traced: Any) -> None:
        """Leaves in JAX's caches an executable whose order of execution needs little memory."""
        try:
            lowered = traced.lower()
        except Exception:  # the call itself raises it again, as JAX does
            return
        compile_in_order(lowered.compile, traced.fun_name)

    def _choose_planned(self, traced: Any, target: Target, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Returns the fastest of the candidates; the plain function as the last resort."""
        name = traced.fun_name
        try:
            lowered = traced.lower()
        except Exception:  # the call itself raises it again, as JAX does
            return self.plain
        outcome = self._plan_here(lowered, target, name)
        if outcome is None:
            return self.plain
        ready = self._compile_candidates(outcome, name, can_run=not traced.jaxpr.effects, args=args, kwargs=kwargs)
        if not ready:
            return self.plain
        candidate, fastest = ready[0]
        how = f"{outcome.ratio:.3f} of the default's time by the compiler's estimates"
        if len(ready) > 1:
            try:
                seconds = self._run(traced, [function for _, function in ready], args, kwargs)
            except jax.errors.JaxRuntimeError as error:
                log.warning("memplan.jit: %s could not be timed: %s", name, one_line_of(error))
            else:
                best = min(range(len(ready)), key=seconds.__getitem__)
                candidate, fastest = ready[best]
                how = ", ".join(f"{c.name} {s * 1e3:.3f} ms" for (c, _), s in zip(ready, seconds, strict=True))
        log.info("memplan.jit: %s is compiled for %s as %r: %s", name, target.name, candidate.name, how)
        return fastest

    def _plan_here(
        self, lowered: Any, target: Target, name: str, options: Mapping[str, Any] | None = None
    ) -> Outcome | None:
        """Plans for the TPU of this machine; logs a warning and returns None if that fails."""
        try:
            check_one_process()
            with beside_this_process():
                return plan_module(TpuProgram.of(lowered, target), target, self.settings, options)
        except Exception as error:  # a job that runs with jax.jit must not end because it cannot be planned
            expected = isinstance(error, MemplanError | jax.errors.JaxRuntimeError)
            message = "memplan.jit: %s runs as by jax.jit, without a plan: %s"
            log.warning(message, name, one_line_of(error), exc_info=None if expected else error)
            return None

    def _compile_candidates(
        self, outcome: Outcome, name: str, can_run: bool, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> list[tuple[Candidate, Any]]:
        """Returns the candidates that compile, with their functions; only the first if they cannot be run."""
        ready = []
        for candidate in contenders(outcome):
            function = self.plain if candidate == outcome.default else self._with(candidate.options, candidate.order)
            try:
                with in_order_of(candidate):
                    function.lower(*args, **kwargs).compile()
            except (jax.errors.JaxRuntimeError, MemplanError) as error:
                log.warning("memplan.jit: %s is not compiled as %r: %s", name, candidate.name, one_line_of(error))
                continue
            ready.append((candidate, function))
            if not can_run:
                break
        return ready

    def _run(self, traced: Any, functions: list[Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[float]:
        donates = any(info.donated for info in jax.tree.leaves(traced.args_info))

        def arguments() -> tuple[tuple[Any, ...], dict[str, Any]]:
            if not donates:
                return args, dict(kwargs)
            copied: tuple[tuple[Any, ...], dict[str, Any]] = jax.tree.map(_copy, (args, dict(kwargs)))
            return copied

        return median_seconds(functions, arguments, self.timer)

    def _with(self, options: Mapping[str, Any], order: order_hook.Orders | None = None) -> Any:
        """Returns the function with compiler options and an order of ours; the caller's own options win."""
        merged = {**options, **self.settings.options}
        key = repr((sorted(merged.items()), order))
        if key not in self._with_options:
            # JAX's caches distinguish options but not orders, so each order has a function of its own.
            twin = Twin(self.fun) if order else self.twin
            self._with_options[key] = jax.jit(twin, **{**self.jit_kwargs, "compiler_options": merged})
        return self._with_options[key]

    # Called by the user.

    def trace(self, *args: Any, **kwargs: Any) -> stages.Traced:
        """See `jax.stages.Wrapped.trace`."""
        traced = self.plain.trace(*args, **kwargs)
        place = self._place(jax.tree.leaves((args, kwargs)))
        if self.settings.memory_limit is not None:
            return stages.Traced(traced, lambda traced: self._lower_to_fit(traced, place, args, kwargs))
        return stages.Traced(traced, lambda traced: self._lower(traced, place))

    def plan(self, *args: Any, **kwargs: Any) -> PlanResult:
        """Returns the plan for arguments of these shapes and types, and what it is worth."""
        leaves = jax.tree.leaves((args, kwargs))
        place = self._place(leaves)
        target = place.target or load_target(ANY_TARGET)
        traced = self.plain.trace(*args, **kwargs)
        if not has_compiler(target):
            return plan_jaxpr(traced, leaves, target, self.settings)
        with beside_this_process() if place.is_here else nullcontext():
            outcome = plan_module(TpuProgram.of(lower_for_tpu(traced), target), target, self.settings)
        return PlanResult(
            outcome.plan, outcome.problem, report_of(outcome.problem, outcome.plan, outcome.description), outcome
        )

    def passes(self, *args: Any, **kwargs: Any) -> tuple[PassReport, ...]:
        """Returns what each pass finds in the program of arguments of these shapes and types."""
        found: list[PassOutcome] = []
        retraced = rewritten(self.fun, self.settings.passes, self._context, found.append)
        jax.jit(retraced, **self.jit_kwargs).trace(*args, **kwargs)
        return found[-1].reports

    def _context(self) -> Context:
        target = self.settings.target
        platform = "tpu" if target is not None and has_compiler(target) else jax.default_backend()
        known: Any = platform if platform in ("tpu", "gpu", "cpu") else "gpu"
        return Context(known, self.settings.fft_precision)

    def clear_cache(self) -> None:
        """Forgets all signatures."""
        with self._lock:
            self._choices.clear()
            for function in (self.plain, *self._with_options.values()):
                function.clear_cache()

    def _lower_to_fit(self, traced: Any, place: Place, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Returns the program as given, whose `compile` gives one that fits."""
        fitting.check_limited(place.platform, traced.fun_name)

        def compile(_: Any, options: Mapping[str, Any], others: Mapping[str, Any]) -> Any:
            return self.choose(args, kwargs).lower(*args, **kwargs).compile(dict(options) or None, **others)

        return stages.Lowered(traced.lower(), compile)

    def _lower(self, traced: Any, place: Place) -> Any:
        target, name = place.target, traced.fun_name
        if target is None:
            say_what_applies(place.platform)
            if not can_order(place.platform):
                return traced.lower()
            return stages.Lowered(traced.lower(), lambda *given: self._compile_here_in_order(name, *given))
        if place.is_here:
            return stages.Lowered(traced.lower(), lambda *given: self._compile_here_by_plan(target, name, *given))
        lowered = lower_for_tpu(traced) if has_compiler(target) else traced.lower()
        return stages.Lowered(lowered, lambda *given: self._compile_elsewhere(target, *given))

    def _compile_here_in_order(
        self, name: str, lowered: Any, options: Mapping[str, Any], others: Mapping[str, Any]
    ) -> Any:
        return compile_in_order(lambda: lowered.compile(dict(options) or None, **others), name)

    def _compile_here_by_plan(
        self, target: Target, name: str, lowered: Any, options: Mapping[str, Any], others: Mapping[str, Any]
    ) -> Any:
        outcome = self._plan_here(lowered, target, name, options)
        if outcome is not None:
            try:
                with in_order_of(outcome.best):
                    return lowered.compile({**outcome.best.options, **self.settings.options, **options}, **others)
            except (jax.errors.JaxRuntimeError, MemplanError) as error:
                message = "memplan.jit: %s is not compiled as %r: %s"
                log.warning(message, name, outcome.best.name, one_line_of(error))
        return lowered.compile(dict(options) or None, **others)

    def _compile_elsewhere(
        self, target: Target, lowered: Any, options: Mapping[str, Any], others: Mapping[str, Any]
    ) -> stages.CompiledElsewhere:
        if others:
            raise MemplanError(f"compiling for {target.name} from elsewhere takes no {', '.join(others)}")
        program = TpuProgram.of(lowered, target)
        outcome = plan_module(program, target, self.settings, options)
        return stages.CompiledElsewhere(outcome, lowered, program)

    def _place(self, leaves: list[Any]) -> Place:
        """Returns where a call with these arguments belongs."""
        shardings = jax.tree.leaves([self.jit_kwargs.get("in_shardings"), self.jit_kwargs.get("out_shardings")])
        device = machine.device_of([*leaves, *shardings])
        wanted, found, is_here = self.settings.target, machine.target_of(device), machine.is_here(device)
        if wanted is None:
            return Place(device.platform, load_target(found) if found else None, is_here)
        if found and not is_here and found != wanted.name:
            raise MemplanError(f"the arguments' shardings are of {found}, the target is {wanted.name}")
        return Place(device.platform, wanted, is_here and found == wanted.name)


def _is_outermost() -> bool:
    """Whether JAX is tracing nothing now. There is no public name for that; `jax.jit` asks the same."""
    from jax._src import core

    return bool(core.trace_state_clean())


def _copy(leaf: Any) -> Any:
    return leaf.copy() if isinstance(leaf, jax.Array) else leaf
