"""How fast the page of a large report is, in Chromium on this machine: `scripts/bench_page`.

It draws a packed fast memory under two plans, so that a frame has twice as many rectangles as the report has buffers.
Frames are counted by `requestAnimationFrame` while wheel events zoom in on the middle and out again, and while the view
moves: what is slowest is a frame of everything. On a busy machine the clock says little; the CPU time of all processes
of the browser stands beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from chromium import find_chromium, opened_chromium, wait_until_drawn

from memplan.compiler.mapping.contended import placement_problem
from memplan.compiler.report.page.html import page_html
from memplan.compiler.report.report import Report, make_report

_ZOOM = """
async ([count, zooms]) => {
  const stage = document.querySelector(".stage");
  const { left, top, width, height } = stage.getBoundingClientRect();
  const at = { clientX: left + width / 2, clientY: top + height / 3, bubbles: true, cancelable: true };
  const times = [];
  let before = await new Promise(requestAnimationFrame);
  for (let i = 0; i < count; i += 1) {
    const direction = zooms ? (i < count / 2 ? -1 : 1) : (i % 2 ? -0.2 : 0.2);
    stage.dispatchEvent(new WheelEvent("wheel", { ...at, deltaY: 120 * direction }));
    const now = await new Promise(requestAnimationFrame);
    times.push(now - before);
    before = now;
  }
  return times;
}
"""


def packed_report(num_buffers: int) -> Report:
    """Returns the report on a plan with about `num_buffers` buffers, nearly all of them in fast memory."""
    planted = placement_problem(num_buffers, ratio=1)
    plan = replace(planted.plan, planner="planted")
    return make_report(planted.problem, plan, [("XLA's own plan", replace(plan, planner="xla"))])


def cpu_of_browser() -> float:
    """Returns the CPU milliseconds of all processes below this one, as /proc of Linux has them; 0 elsewhere."""
    children: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # It ended meanwhile.
            fields = file.read_text().rpartition(")")[2].split()
            children[int(fields[1])].append((int(file.parent.name), int(fields[11]) + int(fields[12])))
    ticks, waiting = 0, [os.getpid()]
    while waiting:
        for process, used in children[waiting.pop()]:
            ticks += used
            waiting.append(process)
    return 1000 * ticks / os.sysconf("SC_CLK_TCK")


def measure(page: Any, url: str) -> dict[str, float]:
    """Opens a page and returns what it took, in milliseconds."""
    before = cpu_of_browser()
    page.goto(url)
    wait_until_drawn(page)
    opened = page.evaluate("performance.now()")
    result = {"rectangles": page.evaluate("memplanPage.stats.rectangles"), "open": opened}
    result["open, CPU"] = cpu_of_browser() - before
    for name, zooms in (("zoom", True), ("everything", False)):
        before = cpu_of_browser()
        times = page.evaluate(_ZOOM, [120, zooms])
        result[f"{name}, CPU of a frame"] = (cpu_of_browser() - before) / len(times)
        result[f"{name}, median frame"] = statistics.median(times)
        result[f"{name}, slowest of 20"] = sorted(times)[-len(times) // 20]
        result[f"{name}, frames per second"] = 1000 * len(times) / sum(times)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench_page", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--buffers", type=int, default=10_000, help="how many buffers the report has, about (10000)")
    options = parser.parse_args()
    path = find_chromium()
    if path is None:
        sys.exit("scripts/bench_page: there is no Chromium here (on Debian and Ubuntu: apt-get install chromium)")
    report = packed_report(options.buffers)
    began = time.process_time()
    text = page_html(report)
    print(f"buffers                    {len(report.problem.buffers):10,}")
    print(f"made in, CPU seconds       {time.process_time() - began:10.2f}")
    print(f"file, MiB                  {len(text.encode()) / 2**20:10.2f}")
    with tempfile.TemporaryDirectory() as folder, opened_chromium(path) as browser:
        file = Path(folder) / "report.html"
        file.write_text(text, encoding="utf-8")
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        for name, value in measure(page, file.as_uri()).items():
            print(f"{name:26} {value:10,.1f}")


if __name__ == "__main__":
    main()
