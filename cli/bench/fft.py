"""`memplan bench fft`: long convolutions as matrix products, beside those by XLA's own Fourier transforms.

On a TPU both are compiled by the production compiler and scored as `memplan bench tpu` scores programs: by the
compiler's estimates, with what it does not estimate costed by our model. Errors are of a few signals, computed here in
the arithmetic that the TPU would use, against a convolution in double precision. The compiler estimates nothing of the
fused kernel (`kernel="pallas"`): of it there is what it takes of on-chip memory, as compiled, and what it moves and
computes, by its own form. On a CPU programs run, here.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from memplan.cli.arguments import JsonFile, Markdown
from memplan.cli.bench.results import write_bench
from memplan.cli.bench.rows import markdown_of, positive_integers, print_rows, table_of
from memplan.cli.console import Stages, show, write
from memplan.cli.outputs import check_file
from memplan.cli.programs import Program, lower_for_tpu, prepare_jax
from memplan.compiler.errors import MemplanError

Row = dict[str, Any]

# Name to what `fft_conv` is called with.
FORMS: dict[str, Literal["highest", "default"]] = {"default": "default", "highest": "highest"}

# Signals and filters whose errors are measured.
_SIGNALS = (2, 3)


def command(
    lengths: Annotated[str, typer.Option(metavar="N,N,…", help="Samples of the signals.")] = "1024,4096,8192,32768",
    target: Annotated[str, typer.Option("--target", "-t", metavar="T", help="A TPU, or cpu.")] = "tpu-v5e",
    batch: Annotated[int, typer.Option(metavar="N", help="Signals for each filter.")] = 4,
    channels: Annotated[int, typer.Option(metavar="N", help="Filters.")] = 128,
    markdown: Markdown = False,
    json_file: JsonFile = None,
) -> None:
    """Cycles of long convolutions as matrix products.

    Beside those by XLA's own Fourier transforms, both compiled by the production compiler; needs libtpu, no TPU. On a
    CPU both run, and are timed.
    """
    check_file(json_file)
    sizes = positive_integers(lengths, "--lengths")
    for name, value in (("--batch", batch), ("--channels", channels)):
        if value < 1:
            raise MemplanError(f"{name} {value}: must be at least 1")
    prepare_jax()
    if target == "cpu":
        _on_cpu(sizes, batch, channels, markdown, json_file)
        return
    from memplan.backends.tpu.compile import TpuCompiler, no_compiler
    from memplan.backends.tpu.devices import TOPOLOGY_OF_TARGET
    from memplan.compiler.hardware.target import load_target

    described = load_target(target)
    if described.name not in TOPOLOGY_OF_TARGET:
        raise MemplanError(no_compiler(described.name))
    rows: list[Row] = []
    with Stages(total=len(sizes)) as stages, TpuCompiler() as compiler:
        for size in sizes:
            with stages.stage(f"{size:,} samples"):
                compiled = functools.partial(_compiled, compiler, described.name, size, batch, channels)
                row = _row(size, batch, channels, described, compiled)
                row["kernel"] = _kernel(size, batch, channels, compiled)
                rows.append(row)
    summary = {name: min(row["xla"] / row[name] for row in rows) for name in FORMS}
    print_rows(_COLUMNS, [_cells(row) for row in rows], markdown=markdown)
    of_kernel = [cells for row in rows for cells in _kernel_cells(row)]
    if of_kernel and markdown:
        write("\n" + markdown_of(_KERNEL_COLUMNS, of_kernel, _KERNEL_COLUMNS[1:2]))
    elif of_kernel:
        show(lambda terminal: terminal.print(table_of(_KERNEL_COLUMNS, of_kernel, _KERNEL_COLUMNS[1:2])))
    write_bench(json_file, "fft", rows, {"least_gain": summary})


def by_xla(u: Any, k: Any) -> Any:
    """The convolution by XLA's own transforms."""
    import jax.numpy as jnp

    n = u.shape[-1]
    return jnp.fft.irfft(jnp.fft.rfft(u, 2 * n) * jnp.fft.rfft(k, 2 * n), 2 * n)[..., :n]


def _row(size: int, batch: int, channels: int, target: Any, compiled: Callable[[Callable[..., Any]], str]) -> Row:
    from memplan.compiler.emulator.score import score
    from memplan.compiler.frontends import parse_hlo
    from memplan.passes.fft.convolution import fft_conv

    def cycles(fun: Callable[..., Any]) -> float:
        return float(score(parse_hlo(compiled(fun)), target).cycles)

    row: Row = {"samples": size, "batch": batch, "channels": channels, "target": target.name, "xla": cycles(by_xla)}
    for name, precision in FORMS.items():
        fun: Any = functools.partial(fft_conv, precision=precision)
        row[name] = cycles(fun)
    row["errors"] = errors(size)
    return row


def _compiled(compiler: Any, target: str, size: int, batch: int, channels: int, fun: Callable[..., Any]) -> str:
    """Returns the module that the production compiler makes of a convolution."""
    from memplan.backends.tpu.devices import TOPOLOGY_OF_TARGET

    module = lower_for_tpu(Program(f"a convolution of {size:,} samples", fun, _shapes(size, batch, channels)))
    return str(compiler.compile(module, TOPOLOGY_OF_TARGET[target]).text)


def _shapes(size: int, batch: int, channels: int) -> tuple[Any, Any]:
    import jax
    import jax.numpy as jnp

    u = jax.ShapeDtypeStruct((batch, channels, size), jnp.float32)
    return u, jax.ShapeDtypeStruct((channels, size), jnp.float32)


def _kernel(size: int, batch: int, channels: int, compiled: Callable[[Callable[..., Any]], str]) -> dict[str, Row]:
    """Returns what the fused kernel takes, moves and computes with each precision; nothing if it is too long for it."""
    import jax.numpy as jnp

    from memplan.passes.fft.convolution import fft_conv
    from memplan.passes.fft.kernel import reason_against
    from memplan.passes.fft.kernel_form import kernel_form
    from memplan.passes.fft.steps import Arithmetic

    u, k = _shapes(size, batch, channels)
    rows: dict[str, Row] = {}
    if reason_against(u, k, None, None, False, "tpu"):
        return rows
    for name, precision in FORMS.items():
        arithmetic = Arithmetic.highest(jnp.float32) if precision == "highest" else Arithmetic.narrow()
        form = kernel_form(size, batch, channels, arithmetic, "tpu")
        fun: Any = functools.partial(fft_conv, precision=precision, kernel="pallas")
        (call,) = [line for line in compiled(fun).splitlines() if '"tpu_custom_call"' in line]
        found = re.search(r'"used_scoped_memory_configs":\[\{[^}]*"size":"(\d+)"', call)
        vmem = int(found[1]) if found else None
        rows[name] = {"vmem_bytes": vmem, "moved_bytes": form.traffic(), "flops": form.flops}
    return rows


# Programs run in turn, so many times and for so many seconds at least; the least time of each counts.
_RUNS, _LEAST_SECONDS = 7, 3.0


def _on_cpu(sizes: Sequence[int], batch: int, channels: int, markdown: bool, json_file: Path | None) -> None:
    """Runs programs with and without passes here, prints the table, writes the rows."""
    rows: list[Row] = []
    with Stages(total=len(sizes)) as stages:
        for size in sizes:
            with stages.stage(f"{size:,} samples"):
                rows.append(
                    {
                        "samples": size,
                        "batch": batch,
                        "channels": channels,
                        "target": "cpu",
                        **_seconds(size, batch, channels),
                    }
                )
    cells = [
        [
            f"{row['samples']:,}",
            *(f"{1e3 * row[name]:,.1f}" for name in _CPU_FORMS),
            f"{row['auto'] / row['xla']:.2f}",
            "yes" if row["unchanged"] else "no",
        ]
        for row in rows
    ]
    print_rows(_CPU_COLUMNS, cells, markdown=markdown)
    write_bench(json_file, "fft", rows, {"most_over_xla": max(row["auto"] / row["xla"] for row in rows)})


def _seconds(size: int, batch: int, channels: int) -> Row:
    """Returns the least time of XLA's form, of what `passes="auto"` makes of it, and of matrix products.

    And whether "auto" left the program as it was: then both times are of the same.
    """
    import jax
    import numpy as np

    from memplan.passes.base import Context
    from memplan.passes.fft.convolution import fft_conv
    from memplan.passes.manager import rewritten

    generator = np.random.default_rng(0)
    u, k = (generator.standard_normal(x.shape).astype(np.float32) for x in _shapes(size, batch, channels))
    operands = jax.device_put((u, k))
    programs: dict[str, Any] = {"xla": by_xla, "auto": rewritten(by_xla, "auto", Context("cpu")), "products": fft_conv}
    lowered = {name: jax.jit(fun).lower(*operands) for name, fun in programs.items()}
    compiled = {name: program.compile() for name, program in lowered.items()}
    least = dict.fromkeys(compiled, float("inf"))
    names = list(compiled)
    started, runs = time.perf_counter(), 0
    while runs < _RUNS or time.perf_counter() - started < _LEAST_SECONDS:
        runs += 1
        # Each is the first as often as the others: what ran before leaves its mark on caches.
        for number in range(len(names)):
            name = names[(runs + number) % len(names)]
            began = time.perf_counter()
            jax.block_until_ready(compiled[name](*operands))
            least[name] = min(least[name], time.perf_counter() - began)
    return {**least, "unchanged": lowered["auto"].as_text() == lowered["xla"].as_text()}


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
        found[name] = jax.jit(functools.partial(convolve, precision=precision, target=TPU))(u, k)
    return {name: float(np.linalg.norm(y - wanted) / np.linalg.norm(wanted)) for name, y in found.items()}


_CPU_FORMS = ("xla", "auto", "products")
_CPU_COLUMNS = ("samples", "XLA, ms", "auto, ms", "products, ms", "auto ÷ XLA", "unchanged")

_KERNEL_COLUMNS = ("samples", "kernel", "on-chip memory", "moved at least", "Gflop")


def _kernel_cells(row: Row) -> list[list[str]]:
    from memplan.compiler.report.units import print_bytes

    return [
        [
            f"{row['samples']:,}",
            name,
            print_bytes(of["vmem_bytes"]) if of["vmem_bytes"] is not None else "not told",
            print_bytes(of["moved_bytes"]),
            f"{of['flops'] / 1e9:,.2f}",
        ]
        for name, of in row["kernel"].items()
    ]


_COLUMNS = ("samples", "XLA", "default", "gain", "error", "highest", "gain", "error", "error of jnp.fft")


def _cells(row: Row) -> list[str]:
    cells = [f"{row['samples']:,}", f"{row['xla']:,.0f}"]
    for name in FORMS:
        cells += [f"{row[name]:,.0f}", f"{row['xla'] / row[name]:.2f}", f"{row['errors'][name]:.1e}"]
    return [*cells, f"{row['errors']['jnp.fft']:.1e}"]


def markdown_table(rows: Sequence[Row]) -> str:
    """Returns the table in Markdown: cycles, how many times fewer than XLA's they are, and relative errors."""
    return markdown_of(_COLUMNS, [_cells(row) for row in rows])
