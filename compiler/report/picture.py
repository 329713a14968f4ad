"""The picture of a plan: time × offset, one panel per memory space, XLA's plan above ours.

A rectangle is a residency: as wide as it lasts, as high as the buffer is large. Grey is what operations keep for
themselves, the line what is occupied in all, the dashed line the capacity. Below each panel of a fast memory stand the
copies, one lane per direction, and the waits for them.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from memplan.compiler.analysis.program import RegionKind
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.printable import printable
from memplan.compiler.report.axis import TimeAxis, offset_ceiling, time_axis
from memplan.compiler.report.buffers import BufferKind
from memplan.compiler.report.colors import COPY_COLORS, KIND_COLORS, KIND_LABELS, LIGHT_KINDS
from memplan.compiler.report.report import Contender, Report
from memplan.compiler.report.units import print_bytes, print_percent, print_seconds
from memplan.compiler.report.usage import buffer_kind

_RESERVED, _INK, _MUTED, _GRID, _STALL = "#D3D6DB", "#1F2328", "#6A7178", "#E9EBEE", "#D1344B"

# Inches.
_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 14.0, 1.05, 0.25, 1.0, 1.05
_FAST_HEIGHT, _SLOW_HEIGHT, _LANE, _TITLE, _GAP = 2.9, 1.9, 0.17, 0.30, 0.16

# More rectangles than this become pixels inside the SVG: a browser would choke on them as shapes.
_MOST_SHAPES = 20_000

# Characters of a name in a heading.
_LONGEST = 80

# A rectangle is labelled where it takes at least so much of its panel's width and height.
_LABEL_WIDTH, _LABEL_HEIGHT, _MOST_LABELS = 0.07, 0.06, 24


@dataclass(frozen=True)
class _Panel:
    """One space under one plan."""

    space: int
    contender: Contender
    axis: TimeAxis
    links: tuple[int, ...]

    @property
    def height(self) -> float:
        return _FAST_HEIGHT if self.space else _SLOW_HEIGHT

    @property
    def strip_height(self) -> float:
        return _LANE * (len(self.links) + 1) if self.links else 0.0


def picture_png(report: Report) -> bytes:
    """Returns the picture as a PNG."""
    return _save(draw(report), "png")


def picture_svg(report: Report) -> bytes:
    """Returns the picture as an SVG; the same report gives the same bytes."""
    return _save(draw(report), "svg")


def _save(figure: Any, file_format: str) -> bytes:
    buffer = io.BytesIO()
    metadata = {"Date": None} if file_format == "svg" else {}
    with texts_as_they_are():
        figure.savefig(buffer, format=file_format, metadata=metadata)
    return buffer.getvalue()


@contextmanager
def texts_as_they_are() -> Iterator[None]:
    """Makes matplotlib draw names as they are: no mathematics between dollars, no warning of a rare script.

    A file `matplotlibrc` of the current folder has no say: it could, for one, have LaTeX run.
    """
    import matplotlib

    settings = {"svg.hashsalt": "memplan", "svg.fonttype": "none", "text.parse_math": False}
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from", category=UserWarning)
        yield


def draw(report: Report) -> Any:
    """Returns the picture as a `matplotlib.figure.Figure`."""
    with texts_as_they_are():
        return _figure(report)


def _figure(report: Report) -> Any:
    from matplotlib.figure import Figure

    panels = list(_panels(report))
    heights = sum(panel.height + panel.strip_height + _TITLE + _GAP for panel in panels)
    total = _TOP + heights + _BOTTOM
    figure = Figure(figsize=(_WIDTH, total), dpi=120, facecolor="white")
    end = max(float(panel.axis.edges[-1]) for panel in panels) or 1.0
    scale, unit = _time_unit(end)
    top = total - _TOP
    for number, panel in enumerate(panels):
        top -= _TITLE
        axes = _axes(figure, top, panel.height)
        _draw_space(axes, report.problem, panel, end)
        _title(axes, report, panel)
        top -= panel.height
        lowest = axes
        if panel.links:
            lowest = _axes(figure, top, panel.strip_height)
            _draw_copies(lowest, report.problem, panel, end)
            top -= panel.strip_height
        _time_ticks(axes, lowest, end, scale, unit, labelled=number == len(panels) - 1)
        top -= _GAP
    _heading(figure, report, total)
    _legend(figure, report, panels, total)
    return figure


def _panels(report: Report) -> Iterator[_Panel]:
    """Yields the fast spaces under XLA's plan and under the report's, then the slow space under the report's."""
    problem = report.problem
    shown = report.shown
    axes = {id(contender): time_axis(problem, contender.timeline) for contender in shown}
    for space in range(1, len(problem.spaces)):
        links = tuple(i for i, link in enumerate(problem.links) if space in (link.source, link.destination))
        for contender in shown:
            yield _Panel(space, contender, axes[id(contender)], links)
    yield _Panel(0, report.subject, axes[id(report.subject)], ())


def _axes(figure: Any, top: float, height: float) -> Any:
    """Returns new axes whose upper edge is `top` inches above the figure's lower edge."""
    total = figure.get_figheight()
    return figure.add_axes((_LEFT / _WIDTH, (top - height) / total, (_WIDTH - _LEFT - _RIGHT) / _WIDTH, height / total))


# ---- one panel


def _draw_space(axes: Any, problem: MappingProblem, panel: _Panel, end: float) -> None:
    from matplotlib.collections import PolyCollection

    space, plan = panel.space, panel.contender.plan
    used = panel.contender.usage[space]
    capacity = problem.spaces[space].capacity
    ceiling = offset_ceiling(capacity, used.height)
    edges = panel.axis.edges

    here = [r for r in plan.residencies if r.space == space]
    left = edges[np.array([r.start for r in here], np.int64)]
    right = edges[np.array([r.end for r in here], np.int64)]
    low = np.array([r.offset for r in here], np.float64)
    high = low + np.array([problem.buffers[r.buffer].size for r in here], np.float64)
    shapes = np.stack([left, low, left, high, right, high, right, low], axis=-1).reshape(-1, 4, 2)
    # A white rim separates neighbours, but would eat up what is thin.
    is_thin = np.minimum((right - left) / end * _WIDTH, (high - low) / ceiling * panel.height) < 0.03
    axes.add_collection(
        PolyCollection(
            list(shapes),
            facecolors=_colors(problem, [r.buffer for r in here]),
            edgecolors="white",
            linewidths=np.where(is_thin, 0.0, 0.5),
            rasterized=len(here) > _MOST_SHAPES,
        )
    )
    if np.any(used.reserved):
        axes.fill_between(edges[:-1], used.reserved, step="post", color=_RESERVED, linewidth=0)
    total = used.live + used.reserved
    axes.step(edges, np.append(total, total[-1]), where="post", color=_INK, linewidth=0.9)
    if capacity <= ceiling:
        axes.axhline(capacity, color=_STALL, linewidth=1.0, linestyle=(0, (5, 3)))
    _label_rectangles(axes, problem, here, left, right, low, high, end, ceiling)
    _frame(axes, end)
    axes.set_ylim(0, ceiling)
    _byte_ticks(axes, ceiling, capacity)
    _mark_loops(axes, problem, edges, end)


def _colors(problem: MappingProblem, buffers: list[int]) -> np.ndarray:
    """Returns `[num_buffers, 3]` the color of each buffer's kind, in one of many tints, so that neighbours differ."""
    from matplotlib.colors import to_rgb

    colors = np.array([to_rgb(KIND_COLORS[BufferKind(buffer_kind(problem, buffer))]) for buffer in buffers]).reshape(
        -1, 3
    )
    # The golden ratio spreads consecutive numbers.
    tint = 0.28 * (np.array(buffers, np.float64) * 0.6180339887 % 1.0)[:, None]
    return colors * (1 - tint) + tint


def _label_rectangles(
    axes: Any,
    problem: MappingProblem,
    residencies: list[Any],
    left: np.ndarray,
    right: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    end: float,
    ceiling: float,
) -> None:
    """Writes names into the largest rectangles that have the room."""
    width, height = (right - left) / end, (high - low) / ceiling
    inches = axes.get_figure().get_figheight() * axes.get_position().height
    roomy = np.flatnonzero((width >= _LABEL_WIDTH) & (height * inches >= 0.17) & (height >= _LABEL_HEIGHT / 2))
    characters_per_width = (_WIDTH - _LEFT - _RIGHT) / 0.068
    for i in sorted(roomy, key=lambda i: -width[i] * height[i])[:_MOST_LABELS]:
        buffer = problem.buffers[residencies[i].buffer]
        name = printable(buffer.name)
        text = f"{name}  {print_bytes(buffer.size)}"
        if len(text) > width[i] * characters_per_width:
            text = name
        if len(text) <= width[i] * characters_per_width:
            axes.text(
                (left[i] + right[i]) / 2, (low[i] + high[i]) / 2, text,
                ha="center", va="center", fontsize=7.5, clip_on=True,
                color=_INK if buffer_kind(problem, residencies[i].buffer) in LIGHT_KINDS else "white",
            )  # fmt: skip


def _mark_loops(axes: Any, problem: MappingProblem, edges: np.ndarray, end: float) -> None:
    """Marks the outermost loops along the upper edge, with their trip counts."""
    transform = axes.get_xaxis_transform()
    for region in problem.regions:
        if region.kind is not RegionKind.LOOP or problem.regions[region.parent].kind is RegionKind.LOOP:
            continue
        left, right = float(edges[region.start]), float(edges[region.end])
        if right - left < 0.004 * end:
            continue
        axes.plot([left, right], [0.985, 0.985], transform=transform, color=_INK, linewidth=2.0, solid_capstyle="butt")
        if right - left > 0.05 * end:
            axes.text(
                (left + right) / 2, 0.962, f"loop × {region.trip_count:,.0f}", transform=transform,
                ha="center", va="top", fontsize=7.5, color=_INK,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.0},
            )  # fmt: skip


def _draw_copies(axes: Any, problem: MappingProblem, panel: _Panel, end: float) -> None:
    """Draws one lane per link that touches the space, and one of waits."""
    from matplotlib.collections import PolyCollection

    lanes = len(panel.links)
    plan, timeline, axis = panel.contender.plan, panel.contender.timeline, panel.axis
    for lane, number in enumerate(panel.links):
        link = problem.links[number]
        own = [
            i
            for i, copy in enumerate(plan.copies)
            if not np.isnan(timeline.end[i])
            and plan.residencies[copy.source].space == link.source
            and plan.residencies[copy.destination].space == link.destination
        ]
        begin, finish = (axis.at(moments[own]) for moments in (timeline.begin, timeline.end))
        _bars(axes, PolyCollection, begin, finish, lanes - lane, COPY_COLORS[number % len(COPY_COLORS)], end)
    edges, stalls = axis.edges[:-1], axis.stalls
    waiting = stalls > 0
    _bars(axes, PolyCollection, edges[waiting], (edges + stalls)[waiting], 0, _STALL, end)
    _frame(axes, end)
    axes.set_ylim(0, lanes + 1)
    spaces = [printable(space.name, limit=_LONGEST) for space in problem.spaces]
    names = [f"{spaces[problem.links[n].source]} → {spaces[problem.links[n].destination]}" for n in panel.links]
    axes.set_yticks([lanes - lane + 0.5 for lane in range(lanes)] + [0.5], [*names, "waits"], fontsize=7.5)
    axes.tick_params(axis="y", length=0, colors=_MUTED)


def _bars(axes: Any, collection: Any, left: np.ndarray, right: np.ndarray, lane: int, color: str, end: float) -> None:
    # Thin ones stay visible: at least half a pixel or so.
    right = np.maximum(right, left + end / 3000)
    low, high = np.full(len(left), lane + 0.14), np.full(len(left), lane + 0.86)
    shapes = np.stack([left, low, left, high, right, high, right, low], axis=-1).reshape(-1, 4, 2)
    axes.add_collection(
        collection(list(shapes), facecolors=color, edgecolors="none", rasterized=len(left) > _MOST_SHAPES)
    )


# ---- frames, ticks, words


def _frame(axes: Any, end: float) -> None:
    axes.set_xlim(0, end)
    axes.set_facecolor("white")
    for spine in axes.spines.values():
        spine.set_color(_GRID)
    axes.set_axisbelow(True)
    axes.grid(axis="x", color=_GRID, linewidth=0.8)


def _byte_ticks(axes: Any, ceiling: float, capacity: int) -> None:
    step = 1
    while ceiling / step > 5:
        step *= 2
    values = [step * i for i in range(int(ceiling / step) + 1)]
    axes.set_yticks(values, ["0" if value == 0 else print_bytes(value) for value in values], fontsize=8)
    axes.tick_params(axis="y", length=0, colors=_MUTED)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)


def _time_unit(end: float) -> tuple[float, str]:
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if end >= scale:
            return scale, unit
    return 1e-9, "ns"


def _time_ticks(axes: Any, lowest: Any, end: float, scale: float, unit: str, labelled: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    ticks = [tick for tick in MaxNLocator(10).tick_values(0, end / scale) if tick <= end / scale * 1.0001]
    for each in {axes, lowest}:
        each.set_xticks([tick * scale for tick in ticks], [])
        each.tick_params(axis="x", length=0)
    if labelled:
        lowest.set_xticks([tick * scale for tick in ticks], [f"{tick:g}" for tick in ticks], fontsize=8)
        lowest.tick_params(axis="x", colors=_MUTED)
        lowest.set_xlabel(f"emulated time, {unit} (a loop is drawn once, as wide as all its iterations)", fontsize=9)


def _title(axes: Any, report: Report, panel: _Panel) -> None:
    problem, contender = report.problem, panel.contender
    space, used = problem.spaces[panel.space], contender.usage[panel.space]
    axes.text(
        0, 1.02, printable(f"{space.name}, {contender.label}", limit=_LONGEST), transform=axes.transAxes,
        fontsize=10.5, fontweight="bold", color=_INK, va="bottom",
    )  # fmt: skip
    facts = f"peak {print_bytes(used.peak)} of {print_bytes(space.capacity)}"
    if panel.space:
        waits = float(panel.axis.stalls.sum())
        facts = f"{print_seconds(contender.latency)}, of it {print_seconds(waits)} waiting · {facts}"
    axes.text(1, 1.02, facts, transform=axes.transAxes, fontsize=9, color=_MUTED, ha="right", va="bottom")


def _heading(figure: Any, report: Report, total: float) -> None:
    problem, subject = report.problem, report.subject
    left = _LEFT / _WIDTH
    heading = printable(f"{problem.name} on {problem.target}", limit=_LONGEST)
    figure.text(left, 1 - 0.42 / total, heading, fontsize=15, fontweight="bold", color=_INK)
    shown = (subject, *report.contenders[:-1])
    parts = [f"{printable(each.label, limit=_LONGEST)} {print_seconds(each.latency)}" for each in shown]
    parts.append(f"no plan beats {print_seconds(report.bound)} (gap {print_percent(subject.gap)})")
    figure.text(left, 1 - 0.72 / total, "   ·   ".join(parts), fontsize=10.5, color=_MUTED)


def _legend(figure: Any, report: Report, panels: list[_Panel], total: float) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    kinds = {buffer_kind(report.problem, r.buffer) for panel in panels for r in panel.contender.plan.residencies}
    labels = KIND_LABELS | {BufferKind.ARGUMENT: "argument or constant"}
    handles: list[Any] = [
        Patch(color=color, label=labels[kind]) for kind, color in KIND_COLORS.items() if kind in kinds
    ]
    handles += [
        Patch(color=_RESERVED, label="kept by operations for themselves"),
        Line2D([], [], color=_INK, linewidth=1.2, label="occupied in all"),
        Line2D([], [], color=_STALL, linewidth=1.2, linestyle=(0, (5, 3)), label="capacity"),
    ]
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(_LEFT / _WIDTH - 0.008, 0.12 / total), ncol=len(handles),
        frameon=False, fontsize=9, handlelength=1.4, columnspacing=1.6, labelcolor=_INK,
    )  # fmt: skip
