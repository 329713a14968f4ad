"""The programs that `memplan bench fit` compares: compiled for the CPU or ahead of time for a TPU, and run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, Protocol

import numpy as np

from memplan.backends.fit.compilers import memory_of
from memplan.backends.fit.fit import fit
from memplan.backends.fit.result import FitResult
from memplan.backends.tpu.compile import TpuCompiler
from memplan.backends.tpu.devices import TOPOLOGY_OF_TARGET
from memplan.cli.programs import Program, lowered_for_tpu
from memplan.compiler.emulator.score import score
from memplan.compiler.errors import MemplanError, one_line
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.hardware.target import Target
from memplan.compiler.report.units import ratio


@dataclass(frozen=True)
class Compiled:
    """What a compiler states about a program.

    Attributes:
      temporaries: bytes that the program needs besides its arguments and results.
      interface: bytes of arguments and results, those that share memory counted once.
      host: bytes of temporaries in host memory.
      flops: floating-point operations, the body of a loop counted once: of the compiled program on the CPU, and of the
        program that the compiler is given for a TPU; None where XLA does not state them.
      cycles: estimated, by `score`; None on the CPU.
      run: calls the program; None where it cannot run here.
      more: what else the row of the program has.
    """

    temporaries: int
    interface: int
    host: int = 0
    flops: float | None = None
    cycles: float | None = None
    run: Callable[..., Any] | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def peak(self) -> int:
        """Bytes of all together."""
        return self.temporaries + self.interface


class Compiler(Protocol):
    """Compiles programs for one target."""

    def compile(self, program: Program, options: Mapping[str, str]) -> Compiled:
        """Returns what the compiler makes of a program; raises MemplanError if it refuses."""
        ...


class CpuCompiler:
    """XLA on the CPU of this machine."""

    def compile(self, program: Program, options: Mapping[str, str]) -> Compiled:
        import jax

        try:
            jitted = jax.jit(program.fun, donate_argnums=program.donate_argnums)
            compiled = jitted.lower(*program.args).compile(compiler_options=dict(options))
        except Exception as error:
            raise MemplanError(f"it does not compile: {one_line(error)}") from error
        return stated(compiled)


def stated(compiled: Any) -> Compiled:
    """Returns what XLA states about a `jax.stages.Compiled` for the CPU."""
    stats = compiled.memory_analysis()
    memory = memory_of(lambda name: getattr(stats, name))
    costs = compiled.cost_analysis() or {}
    return Compiled(memory.temporaries, memory.interface, flops=costs.get("flops"), run=compiled)


class AheadOfTime:
    """XLA:TPU without a TPU."""

    def __init__(self, target: Target, compiler: TpuCompiler):
        self._target, self._compiler = target, compiler

    def compile(self, program: Program, options: Mapping[str, str]) -> Compiled:
        from memplan.backends.jit.planning import module_of

        lowered = lowered_for_tpu(program)
        module = module_of(lowered, program.name)
        compiled = self._compiler.compile(module, TOPOLOGY_OF_TARGET[self._target.name], options)
        sizes = compiled.memory
        if sizes is None:
            raise MemplanError("this compiler states no sizes")
        memory = memory_of(sizes.__getitem__)
        return Compiled(
            temporaries=memory.temporaries,
            interface=memory.interface,
            host=sizes.get("host_temp_size_in_bytes", 0),
            flops=(lowered.cost_analysis() or {}).get("flops"),
            cycles=score(parse_hlo(compiled.text), self._target).cycles,
        )


def fitted(program: Program, limit: int, target: Target | None, compiler: Compiler) -> Compiled:
    """Returns the program that `memplan.fit` makes of a program under a limit.

    Args:
      program: that is to fit.
      limit: bytes for arguments, results and temporaries.
      target: None for the CPU.
      compiler: of the target.

    Raises:
      MemplanError: nothing that fits was found.
    """
    result = fit(program.fun, *program.args, limit=limit, target=target, donate_argnums=program.donate_argnums)
    first = next((attempt for attempt in result.attempts if attempt.predicted is not None), None)
    more = {
        "predicted": None if first is None else first.predicted,
        "first_stated": None if first is None else first.stated,
        "compiles": len(result.attempts),
        "model_cost": ratio(result.added_seconds, result.seconds),
    }
    if target is not None:
        return replace(compiler.compile(_flat(program, result), {}), more=more)
    memory = result.memory
    costs: Mapping[str, float] = getattr(result.executable, "cost_analysis", dict)() or {}
    return Compiled(memory.temporaries, memory.interface, flops=costs.get("flops"), run=result, more=more)


def _flat(program: Program, result: FitResult) -> Program:
    """Returns the program that a result consists of, with its arguments as leaves."""
    import jax
    from jax.extend.core import jaxpr_as_fun

    inner = jaxpr_as_fun(result.closed)
    # Of each leaf, the argument that it belongs to.
    numbers = [number for number, arg in enumerate(program.args) for _ in jax.tree.leaves(arg)]
    donate_argnums = tuple(leaf for leaf, number in enumerate(numbers) if number in program.donate_argnums)

    def fun(*args: Any) -> Any:
        return inner(*args)

    fun.__name__ = program.name
    return Program(program.name, fun, tuple(jax.tree.leaves(program.args)), donate_argnums)


@dataclass(frozen=True)
class Measured:
    """A program that ran.

    Attributes:
      seconds: of a call, the median.
      ratio: time of a call over that of the default in the same round, the median.
      cpu_ratio: the same of the time that the processors spent on the calls.
      difference: the largest difference from a result of the default, over the largest value of that result.
    """

    seconds: float
    ratio: float
    cpu_ratio: float
    difference: float


def measure(
    programs: Mapping[int, Callable[..., Any]],
    default: int,
    args: tuple[Any, ...],
    rounds: int,
) -> dict[int, Measured]:
    """Runs programs in turn, in rounds, so that a machine that gets slower does so for all.

    Args:
      programs: functions of the same arguments.
      default: the key of the one that the others are compared with.
      args: shapes of the arguments; values are made up.
      rounds: how often each is timed.
    """
    import jax

    given = made_up(args)
    results = {key: jax.tree.map(np.asarray, run(*_fresh(given))) for key, run in programs.items()}
    seconds: dict[int, list[float]] = {key: [] for key in programs}
    spent: dict[int, list[float]] = {key: [] for key in programs}
    order = list(programs)
    for number in range(rounds):
        # Each begins a round once: the one after another finds the machine as that left it.
        turn = number % len(order)
        for key in order[turn:] + order[:turn]:
            fresh = _fresh(given)
            begin, begin_cpu = time.perf_counter(), time.process_time()
            jax.block_until_ready(programs[key](*fresh))
            seconds[key].append(time.perf_counter() - begin)
            spent[key].append(time.process_time() - begin_cpu)
    return {
        key: Measured(
            seconds=median(taken),
            ratio=_median_ratio(taken, seconds[default]),
            cpu_ratio=_median_ratio(spent[key], spent[default]),
            difference=difference(results[key], results[default]),
        )
        for key, taken in seconds.items()
    }


def _median_ratio(taken: Sequence[float], default: Sequence[float]) -> float:
    return median(ratio(mine, its) for mine, its in zip(taken, default, strict=True))


def made_up(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns arrays of the given shapes: small positive numbers, and small indices."""
    import jax

    random = np.random.default_rng(0)

    def array(leaf: Any) -> np.ndarray[Any, Any]:
        if np.issubdtype(leaf.dtype, np.integer):
            return random.integers(0, 8, leaf.shape).astype(leaf.dtype)
        return random.uniform(0.0, 0.1, leaf.shape).astype(np.float32).astype(leaf.dtype)

    return tuple(jax.tree.map(array, args))


def _fresh(given: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns copies on the device, which a call may use up."""
    import jax
    import jax.numpy as jnp

    return jax.block_until_ready(tuple(jax.tree.map(jnp.array, given)))


def difference(found: Any, expected: Any) -> float:
    """Returns the largest difference of two pytrees of arrays, relative to the largest value of each leaf."""
    import jax

    worst = 0.0
    for mine, its in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        mine, its = np.asarray(mine, np.float64), np.asarray(its, np.float64)
        scale = np.abs(its).max(initial=0.0)
        if scale == 0.0:
            scale = 1.0
        gap = np.abs(mine - its).max(initial=0.0) / scale
        worst = max(worst, float("inf") if np.isnan(gap) else float(gap))
    return worst
