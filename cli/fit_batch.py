"""How `memplan fit --max-batch` shows the largest batch: a table of all compiles, and JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.table import Table

from memplan.backends.fit.batch import BatchResult
from memplan.compiler.report.units import print_bytes, print_seconds


def batches_table(result: BatchResult) -> Table:
    """Returns the table of all compiles."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("batch", justify="right", no_wrap=True)
    table.add_column("compile", no_wrap=True)
    for column in ("predicted", "stated", "added per sample"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    for attempt in result.attempts:
        each = attempt.compile
        table.add_row(
            f"{attempt.batch:,}",
            each.name,
            "" if each.predicted is None else print_bytes(each.predicted),
            "" if each.stated is None else print_bytes(each.stated),
            print_seconds(each.added_seconds / attempt.batch),
            "fits" if attempt.fits else "out of memory" if each.refused else "too much",
        )
    return table


def batch_json(fit: dict[str, Any], result: BatchResult) -> dict[str, Any]:
    """Returns the result as JSON: times in seconds, sizes in bytes.

    Args:
      fit: what `memplan fit --limit --json` says of the program for the largest batch. All of it is returned too, but
        for the attempts, which are those of all batches here.
      result: the largest batch.
    """
    return {
        **fit,
        "batch": result.batch,
        "as_given": {"batch": result.as_given, "needed": result.as_given_needs},
        "predicted_batch": result.predicted,
        "at_most": result.at_most,
        "refused": list(result.refused),
        "seconds_per_sample": result.seconds_per_sample,
        "added_seconds_per_sample": result.added_per_sample,
        "attempts": [
            {"batch": each.batch, "fits": each.fits, "is_planned": each.is_planned, **asdict(each.compile)}
            for each in result.attempts
        ],
    }
