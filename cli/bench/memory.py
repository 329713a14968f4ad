"""`memplan bench memory`: bytes that a program takes, by XLA's own buffer assignment on the CPU and by our packing.

Each workload is compiled twice, in XLA's order of execution and in ours (`ir/memory_order.py`). Both times XLA packs
its buffers, and we pack those of the same module: arguments, constants, results and what lies between. Ours share
memory where XLA's do: a result may take over an operand that nobody needs any more.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from memplan.backends import order_hook
from memplan.backends.cpu import compile_for_cpu
from memplan.backends.dumped import DumpedModule
from memplan.cli.arguments import EffortName, JsonFile, Markdown, WorkloadNames
from memplan.cli.bench.memory_peak import peak_row, peaks_markdown, peaks_table, summarize_peaks
from memplan.cli.bench.results import write_bench
from memplan.cli.bench.rows import table_of
from memplan.cli.console import Stages, note, show, write
from memplan.cli.outputs import check_file
from memplan.cli.programs import Program, find_program, prepare_jax
from memplan.compiler.analysis.flatten import flatten
from memplan.compiler.analysis.liveness import peak_memory
from memplan.compiler.analysis.program import FlatProgram
from memplan.compiler.analysis.takeover import Takeover, takeovers
from memplan.compiler.effort import Effort
from memplan.compiler.errors import MemplanError
from memplan.compiler.mapping.disjoint_sets import DisjointSets
from memplan.compiler.report.units import print_bytes, ratio
from memplan.planners.offsets.instance import Instance
from memplan.planners.offsets.pack import pack

# Offsets of XLA's buffers on the CPU are multiples of this (xla/backends/cpu/alignment.h).
ALIGNMENT = 64

# Of the tables of tuples, which XLA's assignment has as buffers.
_POINTER_BYTES = 8

ORDERS = ("xla", "memplan")

Row = dict[str, Any]


def command(
    workloads: WorkloadNames = None,
    effort: EffortName = Effort.NORMAL,
    peak: Annotated[
        bool, typer.Option("--peak", help="Compare what memplan peak states with XLA's assignment; nothing is packed.")
    ] = False,
    markdown: Markdown = False,
    json_file: JsonFile = None,
) -> None:
    """Bytes of programs on the CPU, by XLA's assignment and by ours.

    Each is compiled in XLA's order of execution and in ours, and packed by both.
    """
    check_file(json_file)
    prepare_jax()
    if workloads is None:
        from memplan import workloads as shipped

        names = shipped.dumped_names()
    else:
        names = [name.strip() for name in workloads.split(",")]
    programs = [find_program(name) for name in names]
    rows: list[Row] = []
    if peak:
        _peaks(programs, markdown, json_file)
        return
    with Stages(total=len(programs) * len(ORDERS)) as stages:
        for program in programs:
            for order in ORDERS:
                with stages.stage(f"{program.name}, {order}'s order"):
                    rows.extend(_rows(program, order, effort))
    if not rows:
        raise MemplanError("no program could be compiled")
    summary = summarize(rows)
    if markdown:
        write(markdown_table(rows))
    else:
        show(lambda terminal: terminal.print(_table(rows, summary)))
    write_bench(json_file, "memory", rows, summary)


def _peaks(programs: Sequence[Program], markdown: bool, json_file: Path | None) -> None:
    rows: list[Row] = []
    with Stages(total=len(programs)) as stages:
        for program in programs:
            with stages.stage(program.name):
                try:
                    rows.append(peak_row(program))
                except MemplanError as error:
                    note(f"{program.name}: {error}")
    if not rows:
        raise MemplanError("no program could be compiled")
    if markdown:
        write(peaks_markdown(rows))
    else:
        show(lambda terminal: terminal.print(peaks_table(rows)))
    write_bench(json_file, "memory", rows, summarize_peaks(rows))


def _rows(program: Program, order: str, effort: Effort) -> Iterator[Row]:
    rule = order_hook.memory_order if order == "memplan" else None
    if rule is not None and not order_hook.is_supported("cpu"):
        note("this JAX takes no order of ours (0.10.2 does): only XLA's is measured")
        return
    try:
        module = compile_for_cpu(program.fun, program.args, program.donate_argnums, rule)
    except MemplanError as error:
        note(f"{program.name}, {order}'s order: {error}")
        return
    yield {"workload": program.name, "order": order, **measured(module, effort)}


def measured(module: DumpedModule, effort: Effort) -> Row:
    """Returns bytes of a module: by XLA's assignment, by ours, and what is live at its peak."""
    program = flatten(module.graph, pointer_bytes=_POINTER_BYTES)
    arena = smallest(program, effort)
    return {
        "buffers": len(program.storages),
        "xla": module.assignment.total,
        "memplan": arena.total,
        "load": arena.load,
        "ratio": ratio(arena.total, module.assignment.total),
        "seconds": arena.seconds,
    }


@dataclass(frozen=True)
class Arena:
    """Memory for all buffers of a program.

    Attributes:
      total: bytes.
      load: bytes that are live at the peak; without packing nothing would be above it.
      seconds: that packing took.
    """

    total: int
    load: int
    seconds: float


def smallest(program: FlatProgram, effort: Effort) -> Arena:
    """Returns the smallest arena that was found.

    What takes over what is a choice: all that is possible, only where both are of one size, or nothing. Whether results
    lie among the others or apart is one too; arguments and constants, which last, always lie apart.
    """
    possible = takeovers(program)
    storages = program.storages
    alike = [taken for taken in possible if storages[taken.operand].size == storages[taken.result].size]
    choices = [possible, tuple(alike), ()] if possible else [()]
    load = peak_memory(program, use_holes=True, takeovers=possible)
    variants = [(chosen, apart) for apart in (False, True) for chosen in choices]
    best: Arena | None = None
    seconds = 0.0
    for chosen, apart in variants:
        arena = _arena(program, chosen, apart, effort)
        seconds += arena.seconds
        if best is None or arena.total < best.total:
            best = arena
        if best.total <= arena.load:
            break  # No packing of these buffers is smaller.
    assert best is not None
    return Arena(best.total, load, seconds)


def _arena(program: FlatProgram, chosen: Sequence[Takeover], results_apart: bool, effort: Effort) -> Arena:
    end = len(program.steps) + 1
    groups = DisjointSets(len(program.storages))
    for taken in chosen:
        groups.join(taken.result, taken.operand)
    members: dict[int, list[int]] = {}
    for number in range(len(program.storages)):
        members.setdefault(groups.find(number), []).append(number)
    apart = 0
    blocks: list[tuple[int, int, int, list[tuple[int, int]]]] = []
    for group in members.values():
        own = [program.storages[number] for number in group]
        size, start, last = max(s.size for s in own), min(s.start for s in own), max(s.end for s in own)
        if size == 0:
            continue
        if last >= end and (start <= 0 or results_apart):
            apart += size
            continue
        used = np.zeros(last - start, np.bool_)
        for storage in own:
            used[storage.start - start : storage.end - start] = True
            # What another one of the group needs meanwhile is no hole.
            for low, high in storage.holes if len(own) == 1 else ():
                used[low - start : high - start] = False
        edges = np.flatnonzero(np.diff(np.concatenate([[True], used, [True]]))) + start
        gaps = [(int(low), int(high)) for low, high in zip(edges[0::2], edges[1::2], strict=True)]
        blocks.append((start, last, size, gaps))
    if not blocks:
        return Arena(apart, apart, 0.0)
    lower, upper, size_of, gaps_of = zip(*blocks, strict=True)
    packing = pack(Instance.of(lower, upper, size_of, [ALIGNMENT] * len(blocks), gaps=gaps_of), effort=effort)
    return Arena(apart + packing.height, apart + packing.maximum_load, packing.seconds)


def summarize(rows: Sequence[Row]) -> Row:
    """Returns, for each order, how many modules there are, in how many of them we take more, and the mean ratio."""
    summary: Row = {}
    for order in dict.fromkeys(row["order"] for row in rows):
        ratios = [row["ratio"] for row in rows if row["order"] == order]
        summary[order] = {
            "modules": len(ratios),
            "more": sum(value > 1.0 for value in ratios),
            "mean_ratio": statistics.geometric_mean(ratios),
        }
    by_workload: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_workload.setdefault(row["workload"], {})[row["order"]] = row
    both = [found for found in by_workload.values() if set(found) == set(ORDERS)]
    if both:
        summary["both"] = {
            "workloads": len(both),
            "mean_ratio": statistics.geometric_mean(
                ratio(found["memplan"]["memplan"], found["xla"]["xla"]) for found in both
            ),
        }
    return summary


_COLUMNS = ("workload", "order", "buffers", "XLA's", "ours", "load", "ratio", "seconds")


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row["workload"],
        row["order"],
        f"{row['buffers']:,}",
        print_bytes(row["xla"]),
        print_bytes(row["memplan"]),
        print_bytes(row["load"]),
        f"{row['ratio']:.4f}",
        f"{row['seconds']:.2f}",
    )


def _table(rows: Sequence[Row], summary: Row) -> Table:
    table = table_of(_COLUMNS, [_cells(row) for row in rows], _COLUMNS[:2])
    table.add_section()
    for order, found in summary.items():
        if order in ORDERS:
            name = f"mean of {found['modules']}"
            table.add_row(name, order, "", "", "", "", f"{found['mean_ratio']:.4f}", "", style="bold")
    if "both" in summary:
        both = f"{summary['both']['mean_ratio']:.4f}"
        table.add_row("our order and packing to XLA's", "", "", "", "", "", both, "", style="bold")
    return table


def markdown_table(rows: Sequence[Row]) -> str:
    """Returns a table with a row for each workload: XLA's bytes, and ours in its order and in our own."""
    lines = [
        "| workload | XLA | ours, XLA's order | XLA, our order | ours, our order |",
        "|---|---:|---:|---:|---:|",
    ]
    for workload in dict.fromkeys(row["workload"] for row in rows):
        found = {row["order"]: row for row in rows if row["workload"] == workload}
        first = found.get("xla") or next(iter(found.values()))
        cells = [
            f"{print_bytes(size := found[order][who])} ({ratio(size, first['xla']):.3f})" if order in found else "–"
            for order, who in (("xla", "memplan"), ("memplan", "xla"), ("memplan", "memplan"))
        ]
        lines.append(f"| {workload} | {print_bytes(first['xla'])} | {' | '.join(cells)} |")
    both = summarize(rows).get("both")
    if both:
        lines.append(f"| geometric mean | | | | {both['mean_ratio']:.3f} |")
    return "\n".join(lines)
