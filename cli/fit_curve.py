"""How `memplan fit --curve` shows limits and costs: a table, JSON, and a picture."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from memplan.backends.fit.curve import FitCurve
from memplan.compiler.errors import MemplanError
from memplan.compiler.files import write_atomically
from memplan.compiler.printable import printable
from memplan.compiler.report.picture import texts_as_they_are
from memplan.compiler.report.units import print_bytes, print_seconds, ratio


def curve_table(curve: FitCurve) -> Table:
    """Returns the table of all points, the program as given first."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("limit", "stated", "predicted", "added time", "of the step"):
        table.add_column(column, justify="right", no_wrap=True)
    default = "more than there is" if curve.default is None else print_bytes(curve.default.total)
    table.add_row("none", default, "", "0 s", "0.0 %")
    for point in curve.points:
        table.add_row(
            print_bytes(point.limit),
            print_bytes(point.stated),
            "" if point.predicted is None else print_bytes(point.predicted),
            print_seconds(point.added_seconds),
            f"{100 * _share(curve, point.added_seconds):.1f} %",
        )
    return table


def curve_json(program: str, curve: FitCurve) -> dict[str, Any]:
    """Returns the curve as JSON: times in seconds, sizes in bytes."""
    cannot = curve.cannot
    return {
        "program": program,
        "target": curve.target,
        "interface": curve.interface,
        "default": None if curve.default is None else {**asdict(curve.default), "total": curve.default.total},
        "seconds": curve.seconds,
        "points": [asdict(point) for point in curve.points],
        "missed": None if cannot is None else {"limit": cannot.limit, "least": cannot.least, "proven": cannot.proven},
        "attempts": [asdict(attempt) for attempt in curve.attempts],
    }


def draw_curve(program: str, curve: FitCurve, path: Path) -> None:
    """Writes a picture: added time, as a part of the step, against the bytes that the compiler states.

    Raises:
      MemplanError: it cannot be written, or matplotlib does not know the format.
    """
    content = io.BytesIO()
    kind = path.suffix.removeprefix(".").lower() or "png"
    try:
        with texts_as_they_are():
            metadata = {"Date": None} if kind == "svg" else None
            _figure(program, curve).savefig(content, dpi=120, format=kind, metadata=metadata)
    except ValueError as error:
        raise MemplanError(f"cannot write {path}: {error}") from None
    write_atomically(path, content.getvalue())


def _figure(program: str, curve: FitCurve) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    compiled = [a for a in curve.attempts if a.stated is not None and not a.refused]
    largest = max([curve.interface, *(a.stated or 0 for a in compiled), *(point.limit for point in curve.points)])
    unit, name = next(
        ((1024**power, letter) for power, letter in ((3, "GiB"), (2, "MiB"), (1, "KiB")) if largest >= 1024**power),
        (1, "B"),
    )
    percent = [100 * _share(curve, attempt.added_seconds) for attempt in compiled]
    axes.plot([(a.stated or 0) / unit for a in compiled], percent, "o", color="0.75", markersize=4, label="compiled")
    best = [(point.stated / unit, 100 * _share(curve, point.added_seconds)) for point in curve.points]
    if curve.default is not None:
        best.insert(0, (curve.default.total / unit, 0.0))
    axes.step(
        [x for x, _ in best], [y for _, y in best], "o-", where="pre", color="C0", label="cheapest within a limit"
    )
    axes.axvline(curve.interface / unit, color="0.5", linestyle=":", linewidth=1, label="arguments and results")
    axes.set_xlim(left=0)
    axes.set_xlabel(f"{name} stated by the compiler")
    axes.set_ylabel("added time by the model, % of the step")
    axes.set_title(printable(f"{program} on {curve.target}"), fontsize=9, parse_math=False)
    axes.legend(fontsize=7)
    return figure


def _share(curve: FitCurve, seconds: float) -> float:
    return ratio(seconds, curve.seconds) if seconds else 0.0
