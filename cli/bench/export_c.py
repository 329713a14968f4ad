"""`memplan bench export-c`: int8 networks as C, compiled, measured and run here and on an emulated Cortex-M7.

Arena and steps are those of our plan. Code and flash are stated by arm-none-eabi-size, instructions by qemu, and
milliseconds by the clock of this machine. Every program's results are compared with JAX's, on both machines; the bench
fails if they differ by more than docs/export_c.md allows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from memplan.cli.arguments import EffortName, JsonFile, Markdown
from memplan.cli.bench.mcu import ALL, NETWORKS, Networks, Row, Stripes, rows_of
from memplan.cli.bench.results import write_bench
from memplan.cli.bench.rows import chosen_names, markdown_of, print_rows
from memplan.cli.outputs import check_file
from memplan.cli.programs import prepare_jax
from memplan.compiler.effort import Effort
from memplan.compiler.errors import MemplanError

if TYPE_CHECKING:
    from memplan.cli.bench.mcu_programs import McuProgram

_FOR_SIZES = ("arm-none-eabi-gcc", "arm-none-eabi-size")
_FOR_BOARD = (*_FOR_SIZES, "qemu-system-arm")
_COLUMNS = ("network", "program", "steps", "arena", "code", "flash", "instructions", "milliseconds")
_TEXT = _COLUMNS[:2]


def command(
    networks: Networks = ALL,
    stripes: Stripes = 32,
    effort: EffortName = Effort.NORMAL,
    markdown: Markdown = False,
    json_file: JsonFile = None,
) -> None:
    """Code, flash and time of int8 networks as C, run here and on an emulated Cortex-M7.

    Needs gcc; what needs arm-none-eabi-gcc or qemu-system-arm stays empty where these are not installed.
    """
    from memplan.backends.c.toolchain import is_installed

    check_file(json_file)
    names = chosen_names(networks, "--networks", NETWORKS)
    if not is_installed("gcc"):
        raise MemplanError("bench export-c needs gcc, which is not installed")
    prepare_jax()
    from memplan.cli.bench.mcu_programs import exported_programs

    rows = rows_of(names, lambda name: exported_programs(name, stripes), row_of, effort)
    print_rows(_COLUMNS, [_cells(row) for row in rows], _TEXT, markdown=markdown)
    write_bench(json_file, "export-c", rows, summarize(rows))


def row_of(program: McuProgram, effort: Effort) -> Row:
    """Exports, compiles and runs a program; raises MemplanError if its results are not those of JAX."""
    from memplan.backends.c import toolchain
    from memplan.backends.c.export import export_c

    made = program.given_to(export_c, effort=effort, name=f"{program.network}, {program.name}")
    row: Row = {
        "network": program.network,
        "program": program.name,
        "steps": len(made.plan.order),
        "arena": made.plan.arena,
        "code": None,
        "flash": None,
        "instructions": None,
        "kernel_instructions": None,
    }
    with tempfile.TemporaryDirectory() as name:
        folder, scratch = Path(name, "c"), Path(name)
        made.write(folder)
        seconds = toolchain.step_seconds(toolchain.compiled_test(folder, scratch))
        if all(map(toolchain.is_installed, _FOR_SIZES)):
            sizes = toolchain.cortex_m7_sizes(folder, scratch)
            row |= {"code": sizes.code, "flash": sizes.text + sizes.data}
        if all(map(toolchain.is_installed, _FOR_BOARD)):
            counts = toolchain.step_instructions(toolchain.run_on_board(folder, scratch))
            row["instructions"] = sum(count for _, count in counts)
            row["kernel_instructions"] = _by_kernel(counts)
    row["seconds"] = sum(each for _, each in seconds)
    row["kernel_seconds"] = _by_kernel(seconds)
    return row


def _by_kernel(steps: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Returns the sum for each function, whose name is the first word of its steps' names."""
    found: dict[str, float] = {}
    for name, number in steps:
        function = name.split()[0]
        found[function] = found.get(function, 0) + number
    return found


def _cells(row: Row) -> list[str]:
    def number(name: str, unit: float, text: str) -> str:
        return "" if row[name] is None else text.format(row[name] / unit)

    return [
        row["network"],
        row["program"],
        f"{row['steps']}",
        number("arena", 1024, "{:,.1f} KiB"),
        number("code", 1024, "{:,.1f} KiB"),
        number("flash", 1024, "{:,.1f} KiB"),
        number("instructions", 1e6, "{:,.1f} M"),
        number("seconds", 1e-3, "{:,.1f}"),
    ]


def markdown_table(rows: Sequence[Row]) -> str:
    """Returns the table of all rows in Markdown."""
    return markdown_of(_COLUMNS, [_cells(row) for row in rows], _TEXT)


def summarize(rows: Sequence[Row]) -> Row:
    """Returns the largest arena and flash of all programs."""
    flash = [row["flash"] for row in rows if row["flash"] is not None]
    return {"largest_arena": max(row["arena"] for row in rows), "largest_flash": max(flash, default=None)}
