"""The programs that `memplan bench fit` compares: compiled for the CPU or ahead of time for a TPU, and run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Protocol

import numpy as np

from memplan.backends.tpu.compile import TOPOLOGY_OF_TARGET, TpuCompiler
from memplan.cli.programs import Program, lower_for_tpu
from memplan.compiler.emulator.score import score
from memplan.compiler.errors import MemplanError
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.hardware.target import Target


@dataclass(frozen=True)
class Compiled:
    """What a compiler states about a program.

    Attributes:
      temporaries: bytes that the program needs besides its arguments and results.
      interface: bytes of arguments and results, those that share memory counted once.
      host: bytes of temporaries in host memory.
      flops: floating-point operations, the body of a loop counted once; None where the compiler does not state them.
      cycles: estimated, by `score`; None on the CPU.
      run: calls the program; None where it cannot run here.
    """

    temporaries: int
    interface: int
    host: int = 0
    flops: float | None = None
    cycles: float | None = None
    run: Callable[..., Any] | None = None

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
            lines = str(error).strip().splitlines() or [""]
            raise MemplanError(f"it does not compile: {type(error).__name__}: {lines[0]}") from error
        return stated(compiled)


def stated(compiled: Any) -> Compiled:
    """Returns what XLA states about a `jax.stages.Compiled` for the CPU."""
    memory = compiled.memory_analysis()
    costs = compiled.cost_analysis() or {}
    interface = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return Compiled(memory.temp_size_in_bytes, interface, flops=costs.get("flops"), run=compiled)


class AheadOfTime:
    """XLA:TPU without a TPU."""

    def __init__(self, target: Target, compiler: TpuCompiler):
        self._target, self._compiler = target, compiler

    def compile(self, program: Program, options: Mapping[str, str]) -> Compiled:
        module = lower_for_tpu(program)
        compiled = self._compiler.compile(module, TOPOLOGY_OF_TARGET[self._target.name], options)
        memory = compiled.memory
        if memory is None:
            raise MemplanError("this compiler states no sizes")
        return Compiled(
            temporaries=memory["temp_size_in_bytes"],
            interface=memory["argument_size_in_bytes"] + memory["output_size_in_bytes"] - memory["alias_size_in_bytes"],
            host=memory.get("host_temp_size_in_bytes", 0),
            cycles=score(parse_hlo(compiled.text), self._target).cycles,
        )


@dataclass(frozen=True)
class Measured:
    """A program that ran.

    Attributes:
      seconds: of a call, the median.
      ratio: time of a call over that of the default in the same round, the median.
      difference: the largest difference from a result of the default, over the largest value of that result.
    """

    seconds: float
    ratio: float
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
    order = list(programs)
    for number in range(rounds):
        # Each begins a round once: the one after another finds the machine as that left it.
        turn = number % len(order)
        for key in order[turn:] + order[:turn]:
            fresh = _fresh(given)
            begin = time.perf_counter()
            jax.block_until_ready(programs[key](*fresh))
            seconds[key].append(time.perf_counter() - begin)
    return {
        key: Measured(
            seconds=median(taken),
            ratio=median(mine / its for mine, its in zip(taken, seconds[default], strict=True)),
            difference=difference(results[key], results[default]),
        )
        for key, taken in seconds.items()
    }


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
