"""`memplan bench memory --peak`: the peak that `memplan peak` states, beside what XLA assigns to the same module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from memplan.backends.cpu import compile_for_cpu
from memplan.cli.bench.rows import markdown_of, table_of
from memplan.cli.programs import Program
from memplan.compiler.hardware.guess import ANY_TARGET
from memplan.compiler.hardware.target import load_target
from memplan.compiler.report.buffers import GroupBy
from memplan.compiler.report.peak import find_peak
from memplan.compiler.report.stated import statement_of
from memplan.compiler.report.units import print_bytes, ratio

Row = dict[str, Any]

# Of the tables of tuples, which XLA's assignment has as buffers.
_POINTER_BYTES = 8

COLUMNS = ("workload", "buffers", "lines", "sum of the lines", "peak", "XLA's", "ratio", "idle", "not explained")


def peak_row(program: Program) -> Row:
    """Returns what stands at the peak of a program that XLA compiles for the CPU, and what XLA assigns to it.

    `explained` is what XLA's total is by our account: the peak, what XLA's blocks hold nothing in then, and less what
    of the peak lies in no block.

    Raises:
      MemplanError: it does not compile.
    """
    module = compile_for_cpu(program.fun, program.args, program.donate_argnums)
    statement = statement_of(module.assignment)
    peak = find_peak(
        module.graph, load_target(ANY_TARGET), by=GroupBy.LINE, statement=statement, pointer_bytes=_POINTER_BYTES
    )
    assert peak.statement is not None
    main, idle = peak.main, peak.statement.idle or 0
    return {
        "workload": program.name,
        "buffers": sum(len(group.buffers) for group in main.groups),
        "lines": len(main.groups),
        "sum_of_lines": sum(group.bytes for group in main.groups) + main.reserved,
        "peak": main.bytes,
        "xla": peak.statement.total,
        "ratio": ratio(main.bytes, peak.statement.total),
        "idle": idle,
        "explained": main.bytes + idle - peak.statement.uncounted,
    }


def summarize_peaks(rows: Sequence[Row]) -> Row:
    """Returns how many modules there are, whether the lines add up in all, and the extremes of the differences."""
    return {
        "modules": len(rows),
        "lines_add_up": sum(row["sum_of_lines"] == row["peak"] for row in rows),
        "within_1_percent": sum(abs(row["ratio"] - 1) <= 0.01 for row in rows),
        "least_ratio": min(row["ratio"] for row in rows),
        "most_not_explained": max(abs(row["xla"] - row["explained"]) for row in rows),
    }


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row["workload"],
        f"{row['buffers']:,}",
        f"{row['lines']:,}",
        f"{row['sum_of_lines']:,}",
        f"{row['peak']:,}",
        f"{row['xla']:,}",
        f"{row['ratio']:.4f}",
        print_bytes(row["idle"]),
        f"{row['xla'] - row['explained']:,} B",
    )


def peaks_table(rows: Sequence[Row]) -> Table:
    """Returns the table of all rows for a terminal."""
    return table_of(COLUMNS, [_cells(row) for row in rows], COLUMNS[:1])


def peaks_markdown(rows: Sequence[Row]) -> str:
    """Returns the same table in Markdown."""
    return markdown_of(COLUMNS, [_cells(row) for row in rows], COLUMNS[:1])
