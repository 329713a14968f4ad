"""`memplan bench fft`: long convolutions as matrix products, beside those by XLA's own Fourier transforms, on a TPU.

Both are compiled by the production compiler and scored as `memplan bench tpu` scores programs: by the compiler's
estimates, with what it does not estimate costed by our model. Errors are of a few signals, computed here in the
arithmetic that the TPU would use, against a convolution in double precision.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from memplan.compiler.cli.bench_rows import markdown_of, positive_integers, table_of, write_bench
from memplan.compiler.cli.console import Stages, show, write
from memplan.compiler.cli.outputs import check_file
from memplan.compiler.cli.programs import Program, lower_for_tpu, prepare_jax
from memplan.compiler.errors import MemplanError

Row = dict[str, Any]

# Name to what `fft_conv` is called with.
FORMS: dict[str, Literal["highest", "default"]] = {"default": "default", "highest": "highest"}

# Signals and filters whose errors are measured.
_SIGNALS = (2, 3)


def command(lengths: str, target: str, batch: int, channels: int, markdown: bool, json_file: Path | None) -> None:
    """Compiles, prints the table, writes the rows."""
    check_file(json_file)
    sizes = positive_integers(lengths, "--lengths")
    for name, value in (("--batch", batch), ("--channels", channels)):
        if value < 1:
            raise MemplanError(f"{name} {value}: must be at least 1")
    prepare_jax()
    from memplan.compiler.backends.tpu.compile import TOPOLOGY_OF_TARGET, TpuCompiler, no_compiler
    from memplan.compiler.hardware.target import load_target

    described = load_target(target)
    if described.name not in TOPOLOGY_OF_TARGET:
        raise MemplanError(no_compiler(described.name))
    rows: list[Row] = []
    with Stages(total=len(sizes)) as stages, TpuCompiler() as compiler:
        for size in sizes:
            with stages.stage(f"{size:,} samples"):
                cycles = functools.partial(_cycles, compiler, described, size, batch, channels)
                rows.append(_row(size, batch, channels, described.name, cycles))
    summary = {name: min(row["xla"] / row[name] for row in rows) for name in FORMS}
    if markdown:
        write(markdown_table(rows))
    else:
        show(lambda terminal: terminal.print(table_of(_COLUMNS, [_cells(row) for row in rows])))
    write_bench(json_file, "fft", rows, {"least_gain": summary})


def by_xla(u: Any, k: Any) -> Any:
    """The convolution by XLA's own transforms."""
    import jax.numpy as jnp

    n = u.shape[-1]
    return jnp.fft.irfft(jnp.fft.rfft(u, 2 * n) * jnp.fft.rfft(k, 2 * n), 2 * n)[..., :n]


def _row(size: int, batch: int, channels: int, target: str, cycles: Callable[[Callable[..., Any]], float]) -> Row:
    from memplan.passes.fft.convolution import fft_conv

    row: Row = {"samples": size, "batch": batch, "channels": channels, "target": target, "xla": cycles(by_xla)}
    for name, precision in FORMS.items():
        fun: Any = functools.partial(fft_conv, precision=precision)
        row[name] = cycles(fun)
    row["errors"] = errors(size)
    return row


def _cycles(compiler: Any, target: Any, size: int, batch: int, channels: int, fun: Callable[..., Any]) -> float:
    import jax
    import jax.numpy as jnp

    from memplan.compiler.backends.tpu.compile import TOPOLOGY_OF_TARGET
    from memplan.compiler.emulator.score import score
    from memplan.compiler.frontends import parse_hlo

    u = jax.ShapeDtypeStruct((batch, channels, size), jnp.float32)
    k = jax.ShapeDtypeStruct((channels, size), jnp.float32)
    module = lower_for_tpu(Program(f"a convolution of {size:,} samples", fun, (u, k)))
    text = compiler.compile(module, TOPOLOGY_OF_TARGET[target.name]).text
    return float(score(parse_hlo(text), target).cycles)


def errors(size: int) -> dict[str, float]:
    """Returns the relative error of each form, in the Euclidean norm, and of JAX's own transforms here (`jnp.fft`)."""
    import jax
    import numpy as np

    from memplan.passes.fft.choice import TPU
    from memplan.passes.fft.convolution import convolve

    generator = np.random.default_rng(0)
    u = generator.standard_normal((*_SIGNALS, size)).astype(np.float32)
    k = generator.standard_normal((_SIGNALS[1], size)).astype(np.float32)
    wide = np.fft.rfft(u.astype(np.float64), 2 * size) * np.fft.rfft(k.astype(np.float64), 2 * size)
    wanted = np.fft.irfft(wide, 2 * size)[..., :size]
    found = {"jnp.fft": jax.jit(by_xla)(u, k)}
    for name, precision in FORMS.items():
        found[name] = jax.jit(functools.partial(convolve, precision=precision, machine=TPU))(u, k)
    return {name: float(np.linalg.norm(y - wanted) / np.linalg.norm(wanted)) for name, y in found.items()}


_COLUMNS = ("samples", "XLA", "default", "gain", "error", "highest", "gain", "error", "error of jnp.fft")


def _cells(row: Row) -> list[str]:
    cells = [f"{row['samples']:,}", f"{row['xla']:,.0f}"]
    for name in FORMS:
        cells += [f"{row[name]:,.0f}", f"{row['xla'] / row[name]:.2f}", f"{row['errors'][name]:.1e}"]
    return [*cells, f"{row['errors']['jnp.fft']:.1e}"]


def markdown_table(rows: Sequence[Row]) -> str:
    """Returns the table in Markdown: cycles, how many times fewer than XLA's they are, and relative errors."""
    return markdown_of(_COLUMNS, [_cells(row) for row in rows])
