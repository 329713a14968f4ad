"""What the rows of `memplan bench fit` come to: for each step and limit, the cheapest baseline that fits, and ours.

The cost of a program is its time over the default's, less one: estimated cycles on a TPU, measured time on the CPU.
Costs are compared as (ours + 1 %) ÷ (the baseline's + 1 %), each at least 0 before the percent of the default's time is
added. So a cost of zero has a ratio, and differences far below a percent count for little.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from memplan.cli.bench.fit_methods import DEFAULT, OURS
from memplan.compiler.report.units import print_bytes

Row = dict[str, Any]

# What is added to every cost before two are divided.
FLOOR = 0.01

# By how much costs that were measured on the CPU may differ and count as the same.
NOISE = 0.03

# A step counts as cheap under a limit where it costs less than this.
CHEAP = 0.15


@dataclass(frozen=True)
class Cell:
    """One step under one limit.

    Attributes:
      step: its name.
      limit: of temporaries, in percent of the default's.
      baseline: the cheapest baseline that fits; "" if none does.
      baseline_cost: its cost.
      cost: ours; None where ours does not fit.
      reason: why the cell is lost; "" if it is not.
    """

    step: str
    limit: int
    baseline: str
    baseline_cost: float | None
    cost: float | None
    reason: str

    @property
    def ratio(self) -> float | None:
        """Our cost over the baseline's, as the module says; None where one of them does not fit."""
        if self.cost is None or self.baseline_cost is None:
            return None
        return (max(self.cost, 0.0) + FLOOR) / (max(self.baseline_cost, 0.0) + FLOOR)


def allowed(temporaries: int, limit: int) -> int:
    """Returns the bytes that a limit in percent of the default's temporaries stands for."""
    return temporaries * limit // 100


def cost(row: Row) -> float | None:
    """Returns the added time of a row, as a part of the default's; None where no time is known."""
    return None if row.get("ratio") is None else row["ratio"] - 1.0


def cells(rows: Sequence[Row], limits: Iterable[int]) -> list[Cell]:
    """Returns the cells of all steps that have a default, limits from large to small."""
    found = []
    for step in dict.fromkeys(row["step"] for row in rows):
        of_step = [row for row in rows if row["step"] == step]
        default = next((row for row in of_step if row["method"] == DEFAULT and "error" not in row), None)
        if default is not None:
            found += [_cell(step, of_step, default, limit) for limit in sorted(limits, reverse=True)]
    return found


def _cell(step: str, rows: Sequence[Row], default: Row, limit: int) -> Cell:
    room = allowed(default["temporaries"], limit)
    of_limit = [row for row in rows if row["limit"] in (None, limit)]
    fitting = [row for row in of_limit if "error" not in row and cost(row) is not None and row["temporaries"] <= room]
    best = min((row for row in fitting if row["method"] != OURS), key=lambda row: row["ratio"], default=None)
    ours = next((row for row in fitting if row["method"] == OURS), None)
    tried = next((row for row in of_limit if row["method"] == OURS), None)
    reason = "" if tried is None else _lost(best, ours, tried, room)
    return Cell(
        step,
        limit,
        "" if best is None else best["method"],
        None if best is None else cost(best),
        None if ours is None else cost(ours),
        reason,
    )


def _lost(best: Row | None, ours: Row | None, tried: Row, room: int) -> str:
    """Returns why a baseline is better than ours; "" if none is."""
    if best is None:
        return ""
    if ours is None:
        if "error" in tried:
            return str(tried["error"]).partition("\n")[0]
        return f"{print_bytes(tried['temporaries'])} of temporaries, {print_bytes(room)} allowed"
    noise = NOISE if "seconds" in ours else 0.0
    if ours["ratio"] <= best["ratio"] + noise:
        return ""
    return f"costs {percent(cost(ours))}, {best['method']} {percent(cost(best))}"


def summarize(rows: Sequence[Row], limits: Iterable[int]) -> Row:
    """Returns counts of cells, the mean ratio of costs, and the cells that are lost."""
    found = cells(rows, limits)
    ours = [row for row in rows if row["method"] == OURS]
    ratios = [cell.ratio for cell in found if cell.ratio is not None]
    errors = [
        abs(row["predicted"] / row["first_stated"] - 1) for row in ours if row.get("predicted") and row["first_stated"]
    ]
    return {
        "steps": len({cell.step for cell in found}),
        "cells": len(found),
        "baseline_fits": sum(cell.baseline_cost is not None for cell in found),
        "fits": sum(cell.cost is not None for cell in found),
        "fits_alone": sum(cell.cost is not None and cell.baseline_cost is None for cell in found),
        "lost": [asdict(cell) for cell in found if cell.reason],
        # Of our cost over that of the cheapest baseline, where both fit.
        "mean_ratio": statistics.geometric_mean(ratios) if ratios else None,
        "above": sum(_is_above(row, rows) for row in ours),
        # Per limit, the steps that ours fits for less than 15 % more time.
        "cheap": {
            str(limit): sum(cell.limit == limit and cell.cost is not None and cell.cost < CHEAP for cell in found)
            for limit in sorted(limits, reverse=True)
        },
        "cheap_by_model": {
            str(limit): sum(row["limit"] == limit and row.get("model_cost", CHEAP) < CHEAP for row in ours)
            for limit in sorted(limits, reverse=True)
        },
        "same_program": _noise(rows),
        "median_prediction_error": statistics.median(errors) if errors else None,
        "worst_difference": max((row["difference"] for row in rows if row.get("difference") is not None), default=None),
    }


def _is_above(row: Row, rows: Sequence[Row]) -> bool:
    """Whether a program needs more than its limit, although it came back as one that fits."""
    default = next((each for each in rows if each["step"] == row["step"] and each["method"] == DEFAULT), row)
    return "error" not in row and row["temporaries"] > allowed(default["temporaries"], row["limit"])


def _noise(rows: Sequence[Row]) -> tuple[float, float] | None:
    """Returns the least and the largest measured time, over the default's, of baselines that need as much memory.

    The compiler took most of them for the same program, so that they show what a measurement is worth.
    """
    defaults = {row["step"]: row for row in rows if row["method"] == DEFAULT and "error" not in row}
    same = [
        row["ratio"]
        for row in rows
        if "seconds" in row
        and row["method"] not in (DEFAULT, OURS)
        and row["temporaries"] == defaults[row["step"]]["temporaries"]
    ]
    return (min(same), max(same)) if same else None


# Columns of both tables that are no numbers.
TEXT_COLUMNS = frozenset({"step", "method", "cheapest baseline", "lost because"})

PROGRAM_COLUMNS = ("step", "method", "limit", "temporaries", "of default", "peak", "GFLOP", "cycles", "time", "cost")


def program_lines(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Returns the lines of the table of programs, for `rows.table_of`."""
    defaults = {row["step"]: row for row in rows if row["method"] == DEFAULT and "error" not in row}
    lines = []
    for row in rows:
        limit = "" if row["limit"] is None else f"{row['limit']} %"
        if "error" in row:
            lines.append((row["step"], row["method"], limit, "–", *[""] * 6))
            continue
        part = row["temporaries"] / max(defaults[row["step"]]["temporaries"], 1)
        lines.append(
            (
                row["step"],
                row["method"],
                limit,
                print_bytes(row["temporaries"]),
                f"{part * 100:.1f} %",
                print_bytes(row["peak"]),
                "" if row["flops"] is None else f"{row['flops'] / 1e9:.2f}",
                "" if row["cycles"] is None else f"{row['cycles']:,.0f}",
                f"{row['seconds'] * 1e3:.1f} ms" if "seconds" in row else "",
                percent(cost(row)),
            )
        )
    return lines


CELL_COLUMNS = ("step", "limit", "cheapest baseline", "its cost", "our cost", "ratio", "lost because")


def cell_lines(found: Sequence[Cell]) -> list[tuple[str, ...]]:
    """Returns the lines of the table of cells, for `rows.table_of`."""
    return [
        (
            cell.step,
            f"{cell.limit} %",
            cell.baseline or "none fits",
            percent(cell.baseline_cost),
            percent(cell.cost),
            "" if cell.ratio is None else f"{cell.ratio:.2f}",
            cell.reason,
        )
        for cell in found
    ]


def percent(part: float | None) -> str:
    """Returns a cost as text; "–" for None."""
    return "–" if part is None else f"{part * 100:+.1f} %"
