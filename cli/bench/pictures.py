"""Pictures of the tables of the documentation: improvement per dump, predicted against compiled, memory maps."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memplan.compiler.files import make_folder, write_atomically
from memplan.compiler.printable import printable
from memplan.compiler.report.picture import texts_as_they_are

Rows = Sequence[Mapping[str, Any]]


def draw_pictures(complete: Mapping[str, tuple[Mapping[str, Any], str]], folder: Path) -> list[Path]:
    """Writes the pictures of tables that lack nothing, and returns their files.

    Args:
      complete: result file and Markdown by the name of the table.
      folder: is made if it is not there.
    """
    drawn: dict[str, bytes] = {}
    if "mapping_normal" in complete:
        drawn["improvement.png"] = improvement(complete["mapping_normal"][0]["rows"])
    compiled = [row for name in ("tpu", "tpu_all") if name in complete for row in complete[name][0]["rows"]]
    if any(row.get("predictions") for row in compiled):
        drawn["predicted.png"] = predicted(compiled)
    if "maps" in complete:
        for row in complete["maps"][0]["rows"]:
            drawn[f"map_{row['name']}.png"] = base64.b64decode(row["picture"])
    if drawn:
        make_folder(folder, "pictures")
    for name, content in drawn.items():
        write_atomically(folder / name, content)
    return [folder / name for name in drawn]


def no_summary(rows: Rows) -> dict[str, Any]:
    """Returns the summary of memory maps, which have none."""
    return {}


def no_table(rows: Rows) -> str:
    """Returns the table of memory maps, which are pictures alone."""
    return ""


def improvement(rows: Rows) -> bytes:
    """Returns a PNG with a bar for each dump: the latency of `auto` over that of XLA's own plan."""
    from matplotlib.figure import Figure

    found = {row["dump"].removesuffix(".default"): row["ratio_to_xla"] for row in rows if row["planner"] == "auto"}
    bars = sorted((ratio, name) for name, ratio in found.items() if ratio is not None)
    figure = Figure(figsize=(7.0, 1.0 + 0.16 * len(bars)), layout="constrained")
    axis = figure.subplots()
    names = [printable(name) for _, name in bars]
    axis.barh(names, [ratio for ratio, _ in bars], color=["C0" if ratio < 1 else "0.7" for ratio, _ in bars])
    axis.axvline(1.0, color="0.3", linewidth=1)
    axis.set_xlabel("latency ÷ that of XLA's own plan", fontsize=8)
    axis.tick_params(labelsize=6)
    axis.margins(y=0.01)
    return _png(figure)


def predicted(rows: Rows) -> bytes:
    """Returns a PNG with a point for each plan that XLA:TPU compiled: its latency, and the one predicted before."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5, 4.2), layout="constrained")
    axis = figure.subplots()
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        points.setdefault(row["target"], []).extend((before, after) for before, after in row.get("predictions", ()))
    for target, pairs in points.items():
        if pairs:
            axis.scatter([1e3 * p for p, _ in pairs], [1e3 * c for _, c in pairs], s=8, label=printable(target))
    low, high = (edge(value for pairs in points.values() for pair in pairs for value in pair) for edge in (min, max))
    axis.plot([1e3 * low, 1e3 * high], [1e3 * low, 1e3 * high], color="0.6", linewidth=1)
    axis.set(xscale="log", yscale="log")
    axis.set_xlabel("predicted latency, ms", fontsize=8)
    axis.set_ylabel("latency of the compiled module, ms", fontsize=8)
    axis.legend(fontsize=7)
    return _png(figure)


def _png(figure: Any) -> bytes:
    content = io.BytesIO()
    with texts_as_they_are():
        figure.savefig(content, dpi=110, format="png", metadata={"Software": None})
    return content.getvalue()
