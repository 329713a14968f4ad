import struct
import xml.etree.ElementTree

import matplotlib.collections
import numpy as np
import pytest

from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.report.picture import KIND_COLORS, draw, picture_png, picture_svg
from memplan.compiler.report.report import Report, make_report


def rectangles(axes: object) -> list[np.ndarray]:
    """Returns `[left, bottom, right, top]` of every polygon of the first collection of rectangles."""
    found = [c for c in axes.collections if isinstance(c, matplotlib.collections.PolyCollection)]  # type: ignore[attr-defined]
    boxes = [path.vertices for path in found[0].get_paths()]
    return [np.array([*box.min(axis=0), *box.max(axis=0)]) for box in boxes]


def test_rectangles_are_residencies(report: Report) -> None:
    fast = draw(report).axes[0]
    a, w = rectangles(fast)
    # a: from the start to the end of exp, above what add keeps; w: from exp's end to the end of the loop.
    assert a == pytest.approx([0.0, 30, 1.58, 90])
    assert w == pytest.approx([1.58, 20, 3.5, 100])


def test_panels_are_the_memories(report: Report) -> None:
    texts = [text.get_text() for axes in draw(report).axes for text in axes.texts]
    assert "vmem, by-hand" in texts
    assert "hbm, by-hand" in texts
    assert "loop × 4" in texts


def test_the_compilers_plan_stands_above(problem: MappingProblem, plan: Plan, slow_plan: Plan) -> None:
    import dataclasses

    xla = dataclasses.replace(slow_plan, planner="xla")
    figure = draw(make_report(problem, plan, [("XLA's own plan", xla)]))
    titles = {text.get_text(): axes for axes in figure.axes for text in axes.texts}
    above, below = titles["vmem, XLA's own plan"], titles["vmem, by-hand"]
    assert above.get_position().y0 > below.get_position().y1
    assert above.get_xlim() == below.get_xlim() == pytest.approx((0, 9.4))


def test_png(report: Report) -> None:
    data = picture_png(report)
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert width == 1680
    assert 600 < height < 3000


def test_svg_is_xml_with_text_and_the_same_every_time(report: Report) -> None:
    data = picture_svg(report)
    root = xml.etree.ElementTree.fromstring(data)
    text = "".join(root.itertext())
    assert "tiny on test-chip" in text
    assert KIND_COLORS["temporary"].lower().encode() in data
    assert picture_svg(report) == data
