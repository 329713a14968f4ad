"""What a plain sweep of single options finds: the search must not be behind it at the same number of compiles."""

from __future__ import annotations

from memplan.backends.tpu.compile import CompileError, TpuCompiler
from memplan.backends.tpu.devices import TpuSlice, slice_of
from memplan.backends.tpu.planned import FAST
from memplan.backends.tpu.steering import COPY_SPEED, CROSS_PROGRAM, LONG_STAYS, SCOPED_LIMIT
from memplan.compiler.emulator.score import score
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.hardware.target import Target


def single_options(target: Target) -> list[dict[str, str]]:
    """Returns what a sweep compiles, the default first: scoped limits, cross-program prefetch, copies, long stays."""
    limit = target.spaces[FAST].scoped_limit // 1024
    limits = [{SCOPED_LIMIT: str(int(limit * factor))} for factor in (2, 0.5, 0.25, 1.5) if limit]
    others = [{CROSS_PROGRAM: "0"}, {COPY_SPEED: "2"}, {LONG_STAYS: "1000"}, {COPY_SPEED: "0.5"}]
    return [{}, *limits[:2], *others[:3], *limits[2:], *others[3:]]


def sweep(module: bytes, target: Target, compiles: int, compiler: TpuCompiler, on: TpuSlice | None = None) -> float:
    """Returns the lowest latency of the first few modules of a sweep, in seconds.

    Args:
      module: StableHLO as MLIR bytecode.
      target: a TPU for which there is a compiler.
      compiles: how many modules.
      compiler: compiles them, or has them on disk.
      on: the devices that run the program; None for one of the target.

    Raises:
      CompileError: the default cannot be compiled.
    """
    where = on or slice_of(target.name, 1)
    found: list[float] = []
    for options in single_options(target)[:compiles]:
        try:
            compiled = compiler.compile(module, where.topology, options, None, where.devices)
        except CompileError:
            if not options:
                raise
            continue
        found.append(score(parse_hlo(compiled.text), target).latency)
    return min(found)
