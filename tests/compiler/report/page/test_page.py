"""The page in a real browser. Without Chromium, these tests are skipped: see `chromium.py` for how it is found."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chromium import find_chromium, opened_chromium, wait_until_drawn

from memplan.compiler.ir import Source
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.report import page as page_package
from memplan.compiler.report.description import ProgramDescription
from memplan.compiler.report.page.html import page_html
from memplan.compiler.report.report import Report, make_report
from memplan.compiler.report.units import print_bytes, print_percent, print_seconds

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium (apt-get install chromium, or set MEMPLAN_CHROMIUM to one)"
)

Open = Callable[..., Any]
X, W, A, S, R = range(5)

EVIL = '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=1">\x1b[2J\u202e${alert(1)}'


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    assert CHROMIUM is not None
    with opened_chromium(CHROMIUM) as browser:
        yield browser


@pytest.fixture(scope="module")
def both(problem: MappingProblem, plan: Plan, slow_plan: Plan) -> Report:
    """The plan by hand beside one that has everything in slow memory."""
    return make_report(problem, plan, [("XLA's own plan", replace(slow_plan, planner="xla"))])


@pytest.fixture(scope="module")
def file(both: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page_html(both), encoding="utf-8")
    return path


@pytest.fixture
def opened(browser: Any, file: Path) -> Iterator[Open]:
    """Opens the page; at the end of a test, nothing may have gone wrong in it or left the file."""
    wrong: list[str] = []
    contexts = []

    def open_page(fragment: str = "", path: Path = file, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1300, "height": 800}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: request.url.startswith("file:") or wrong.append(request.url))
        page.goto(path.as_uri() + (f"#{fragment}" if fragment else ""))
        wait_until_drawn(page)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def settled(page: Any) -> None:
    """Waits until what was asked for is drawn and stands in the fragment."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    page.evaluate("memplanPage.writeFragment()")


def at(page: Any, panel: int, seconds: float, offset: float) -> tuple[float, float]:
    """Returns the pixel of a time and an offset in the first picture of a panel that shows everything."""
    place = page.evaluate(
        """(number) => {
          const { left, right, pictures, stage } = memplanPage.panels[number];
          const box = stage.getBoundingClientRect();
          return { left: box.left + left, right: box.left + right, top: box.top + pictures[0].top, bottom: box.top + pictures[0].bottom };
        }""",
        panel,
    )
    # XLA's plan, all in slow memory, is the longer one: 9.4 s. The fast memory has 100 bytes, and 3 % of air above.
    x = place["left"] + seconds / 9.4 * (place["right"] - place["left"])
    y = place["bottom"] - offset / 103 * (place["bottom"] - place["top"])
    return x, y


def rows(page: Any) -> list[str]:
    names: list[str] = page.locator("#rows .row .name").all_inner_texts()
    return names


def state(page: Any) -> dict[str, str]:
    settled(page)
    return dict(part.split("=") for part in page.evaluate("location.hash.slice(1)").split("&") if part)


def test_it_shows_the_plan(opened: Open) -> None:
    page = opened()
    assert page.title() == "tiny on test-chip · memplan"
    assert "5.70 s" in page.inner_text("#tiles")
    assert "39.4 % less than XLA's own plan" in page.inner_text("#tiles")
    assert page.locator(".panel:visible h2").all_inner_texts() == ["XLA's own plan · vmem", "by-hand · vmem"]
    kinds = page.locator("#kinds button:visible").all_inner_texts()
    assert [re.sub(r"\s+", " ", kind).strip() for kind in kinds] == ["argument (2)", "result (1)", "temporary (2)"]
    assert page.evaluate("memplanPage.model.extent.time") == pytest.approx(9.4)


def test_a_memory_that_overflows_is_shown_first(opened: Open, both: Report, tmp_path: Path) -> None:
    slow, *fast = both.problem.spaces
    small = replace(both.problem, spaces=(replace(slow, capacity=100), *fast))
    path = tmp_path / "small.html"
    path.write_text(page_html(replace(both, problem=small)), encoding="utf-8")
    page = opened(path=path)
    assert page.locator(".panel:visible h2").all_inner_texts() == ["XLA's own plan · hbm", "by-hand · hbm"]


def test_hover_tells_the_buffer_under_the_pointer(opened: Open) -> None:
    page = opened()
    page.mouse.move(*at(page, 1, 0.8, 60))  # a: from the start to 1.58 s, bytes 30 to 90
    tip = page.inner_text("#tip")
    assert tip.splitlines()[:2] == ["a", "60 B · temporary"]
    assert "3 accesses here" in tip
    page.mouse.move(*at(page, 1, 2.5, 60))  # w: from 1.58 s to 3.5 s, bytes 20 to 100
    assert page.inner_text("#tip").splitlines()[0] == "w"
    page.mouse.move(*at(page, 1, 5, 60))
    assert page.inner_text("#tip").splitlines()[0] == "out (t=7)"
    page.mouse.move(5, 5)
    assert page.locator("#tip").is_hidden()


@pytest.mark.parametrize("ratio", [1, 1.5])
def test_rectangles_have_their_places_and_colors(opened: Open, ratio: float) -> None:
    page = opened(device_scale_factor=ratio)
    colors = """(points) => {
      const { model, colors, panels: [, { base, ratio }] } = memplanPage;
      const box = base.getBoundingClientRect();
      const copy = new OffscreenCanvas(base.width, base.height).getContext("2d", { willReadFrequently: true });
      copy.drawImage(base, 0, 0);
      const at = ([x, y]) => `rgb(${[...copy.getImageData((x - box.left) * ratio, (y - box.top) * ratio, 1, 1).data].slice(0, 3)})`;
      const own = (name) => colors.buckets[model.bucket[model.buffers.name.indexOf(name)]];
      const names = { [own("a")]: "a", [own("w")]: "w", [colors.canvas.replaceAll(" ", "")]: "", [colors.dim.replaceAll(" ", "")]: "dim" };
      return points.map((point) => names[at(point)]);
    }"""
    # a: until 1.58 s, bytes 30 to 90. w: from then to 3.5 s, bytes 20 to 100.
    points = [at(page, 1, *place) for place in [(0.1, 86), (1.5, 86), (0.1, 94), (1.65, 24), (3.4, 94), (3.4, 24), (3.4, 14), (3.6, 94)]]  # fmt: skip
    assert page.evaluate(colors, points) == ["a", "a", "", "w", "w", "w", "", ""]
    page.fill("#search", "w")
    settled(page)
    assert page.evaluate(colors, points) == ["dim", "dim", "", "w", "w", "w", "", ""]


def test_click_selects_and_escape_drops(opened: Open) -> None:
    page = opened()
    page.mouse.click(*at(page, 1, 2.5, 60))
    assert page.inner_text("#details h2").strip() == "w"
    details = page.inner_text("#details")
    for words in ("80 B", "copy hbm → vmem", "by-hand", "vmem at 0x14", "operations wait"):
        assert words in details
    assert page.inner_text("#rows .row.selected .name").strip() == "w"
    page.keyboard.press("Escape")
    assert page.locator("#rows .row.selected").count() == 0


def test_a_row_of_the_table_selects_in_the_picture(opened: Open) -> None:
    page = opened()
    edge = at(page, 1, 0.8, 90)  # the upper edge of a
    painted = """([x, y]) => {
      const { overlay, ratio } = memplanPage.panels[1];
      const box = overlay.getBoundingClientRect();
      const copy = new OffscreenCanvas(3, 6).getContext("2d");
      copy.drawImage(overlay, 1 - (x - box.left) * ratio, 3 - (y - box.top) * ratio);
      return copy.getImageData(0, 0, 3, 6).data.some((value) => value > 0);
    }"""
    assert not page.evaluate(painted, edge)
    page.locator("#rows .row", has_text=re.compile(r"^a")).click()
    settled(page)
    assert page.evaluate(painted, edge)
    assert page.inner_text("#details h2").strip() == "a"


def test_the_table_is_sorted_by_the_chosen_column(opened: Open) -> None:
    page = opened()
    page.click("#columns >> text=Size")
    assert rows(page) == ["r", "w", "a", "x", "s"]
    page.click("#columns >> text=Size")
    assert rows(page) == ["s", "x", "a", "w", "r"]
    page.click("#columns >> text=Buffer")
    assert rows(page) == ["a", "r", "s", "w", "x"]
    assert page.locator("[aria-sort=ascending]").inner_text() == "Buffer ↑"


def test_search_finds(opened: Open) -> None:
    page = opened()
    page.keyboard.press("/")
    page.keyboard.type("w")
    assert rows(page) == ["w"]
    assert page.inner_text("#found") == "1 of 5 buffers, 80 B"
    page.keyboard.press("Enter")
    assert page.inner_text("#details h2").strip() == "w"
    page.click("#clear")
    assert len(rows(page)) == 5


def test_filters(opened: Open) -> None:
    page = opened()
    page.click("#kinds >> text=temporary")
    assert sorted(rows(page)) == ["r", "w", "x"]
    page.click("#clear")
    page.keyboard.press("k")  # The fast memory is fullest during add: a, and what add keeps for itself.
    assert rows(page) == ["a"]
    page.click("#clear")
    page.keyboard.press("v")
    assert sorted(rows(page)) == ["a", "w"]


def test_an_operation_is_linked_with_the_memory(opened: Open) -> None:
    page = opened()
    lane = page.evaluate("""() => {
      const panel = memplanPage.panels[1];
      const { top, left } = panel.stage.getBoundingClientRect();
      const lane = panel.lanes.find(({ kind }) => kind === "operations");
      return [left, top + (lane.top + lane.bottom) / 2];
    }""")
    x, _ = at(page, 1, 1.0, 0)
    page.mouse.click(x, lane[1])
    assert page.inner_text("#details h2") == "add"
    assert "860 ms" in page.inner_text("#details")
    page.click("#details >> text=What is in memory then")
    assert rows(page) == ["a"]
    assert state(page) == {"select": "operation.1", "at": "1"}


def test_a_link_reproduces_what_is_shown(opened: Open) -> None:
    page = opened()
    page.mouse.move(*at(page, 1, 2.5, 60))
    page.mouse.wheel(0, -400)
    page.keyboard.press("2")  # vmem is the only memory that is shown, so it stays.
    page.keyboard.press("1")
    page.keyboard.press("t")
    page.click("#kinds >> text=result")
    page.locator("#rows .row", has_text=re.compile(r"^w")).click()
    page.click("#columns >> text=Size")
    settled(page)
    picture = "memplanPage.panels.map(({ base, overlay }) => base.toDataURL() + overlay.toDataURL())"
    page.mouse.move(5, 5)
    settled(page)
    other = opened(page.evaluate("location.hash.slice(1)"))
    settled(other)
    assert state(other) == state(page)
    assert {"x", "memory", "theme", "hide", "select", "sort"} == set(state(page))
    assert other.evaluate(picture) == page.evaluate(picture)
    assert rows(other) == rows(page)


@pytest.mark.parametrize("fragment", ["x=9-2&select=buffer.77&memory=8&plan=-1&hide=x", "select=&sort=evil&at=1e9&theme=<b>", "%%%=&x", "x=NaN-NaN&least=-5&y1=0.5"])  # fmt: skip
def test_a_link_that_does_not_fit_shows_the_report_all_the_same(opened: Open, fragment: str) -> None:
    page = opened(fragment)
    assert state(page) == {}
    assert len(rows(page)) == 5


def test_keys_and_pointer_move_about(opened: Open) -> None:
    page = opened()
    page.keyboard.press("+")
    left, right = map(float, state(page)["x"].split("-"))
    assert (left + right) / 2 == pytest.approx(0.5)
    assert right - left == pytest.approx(1 / 1.4)
    page.keyboard.press("ArrowLeft")
    assert float(state(page)["x"].split("-")[0]) < left
    x, y = at(page, 1, 6, 50)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 200, y, steps=3)
    page.mouse.up()
    assert float(state(page)["x"].split("-")[0]) > left
    page.keyboard.press("0")
    page.keyboard.press("x")
    assert state(page) == {"axis": "operations"}


def test_light_and_dark(opened: Open) -> None:
    ground = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    light, dark = opened(color_scheme="light"), opened(color_scheme="dark")
    assert min(light.evaluate(ground)) > 200
    assert max(dark.evaluate(ground)) < 60
    dark.click("#theme")
    assert min(dark.evaluate(ground)) > 200
    assert state(dark) == {"theme": "light"}


def test_a_frame_draws_once_and_only_what_is_in_view(opened: Open) -> None:
    """Events come faster than frames: their number must not be the number of pictures."""
    page = opened()
    settled(page)
    everything = page.evaluate("memplanPage.stats.rectangles")
    drawn = page.evaluate("""async () => {
      const { stats } = memplanPage;
      const before = stats.pictures;
      for (let i = 0; i < 30; i += 1) memplanPage.zoom(0.8, 0.05);
      await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
      return stats.pictures - before;
    }""")
    assert drawn == 1
    assert page.evaluate("memplanPage.stats.rectangles") < everything
    before = page.evaluate("memplanPage.stats.pictures")
    page.mouse.move(*at(page, 1, 2.5, 60))
    settled(page)
    assert page.evaluate("memplanPage.stats.pictures") == before


@pytest.fixture(scope="module")
def hostile(both: Report) -> Report:
    """All that has a name has one that is markup, and one of ten thousand letters."""
    problem = both.problem
    problem = replace(
        problem,
        name=EVIL,
        target=EVIL,
        notes=(EVIL,),
        spaces=tuple(replace(space, name=f"{EVIL}{number}") for number, space in enumerate(problem.spaces)),
        operations=tuple(replace(operation, name=f"{EVIL}{t}", opcode=EVIL) for t, operation in enumerate(problem.operations)),
        buffers=(
            replace(problem.buffers[0], name="x" * 10_000, values=("x" * 10_000,)),
            *(replace(buffer, name=f"{EVIL}{i}", values=(EVIL, EVIL)) for i, buffer in enumerate(problem.buffers[1:], 1)),
        ),
    )  # fmt: skip
    plans = [replace(each.plan, problem=problem.fingerprint) for each in both.contenders]
    names = tuple(
        replace(each, name=buffer.name, op_name=EVIL, file=EVIL, line=1, group=EVIL, shape=EVIL, aliases=(EVIL,))
        for each, buffer in zip(both.buffers, problem.buffers, strict=True)
    )
    sources = (Source(EVIL, EVIL, 1),) * problem.end
    return make_report(problem, plans[-1], [(EVIL, plans[0])], ProgramDescription(names, sources))


def test_hostile_names_are_text(opened: Open, hostile: Report, tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    path.write_text(page_html(hostile), encoding="utf-8")
    page = opened(path=path)
    elements = "[...document.body.querySelectorAll('script, img, iframe, svg, style, link')].length"
    assert page.evaluate(elements) == 2  # Data and script of the page itself.
    for number in range(5):
        page.evaluate("(number) => memplanPage.reveal('buffer', number)", number)
        page.mouse.move(*at(page, 1, 0.8 + number / 2, 60))
    page.evaluate("memplanPage.reveal('operation', 1)")
    page.fill("#search", EVIL)
    settled(page)
    assert page.evaluate("globalThis.hacked") is None
    assert page.evaluate(elements) == 2
    assert "</script><script>" in page.inner_text("#program")
    assert "\\x1b[2J\\u202e" in page.inner_text("#program")
    again = opened(page.evaluate("location.hash.slice(1)"), path=path)
    assert again.evaluate("globalThis.hacked") is None


def test_the_policy_stops_what_is_not_ours(browser: Any, file: Path) -> None:
    """Were a name ever to become markup, its script would not run and nothing would be fetched."""
    page = browser.new_page()
    page.goto(file.as_uri())
    wait_until_drawn(page)
    page.evaluate("""() => {
      document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='globalThis.hacked = 1'>");
      const script = document.createElement("script");
      script.textContent = "globalThis.hacked = 2";
      document.body.append(script);
    }""")
    fetched = page.evaluate("fetch('data:text/plain,x').then(() => 'fetched', () => 'refused')")
    page.wait_for_timeout(50)
    assert page.evaluate("globalThis.hacked") is None
    assert fetched == "refused"
    page.close()


def test_figures_are_printed_as_in_the_other_parts_of_the_report(browser: Any) -> None:
    source = (Path(page_package.__file__).parent / "format.js").read_text()
    sizes = [0, 1, 999, 1000, 1023, 1024, 1536, 10**6, 134217728, 3 * 2**40 + 7, 2**52]
    seconds = [0, 1e-12, 4.2e-7, 9.9949e-7, 9.996e-7, 1e-6, 0.02731, 0.9994, 0.9996, 1.0, 12.345, 4321.0]
    ratios = [0, 0.0312, -0.5, 12.5, -0.0004, 0.0006]
    page = browser.new_page()
    printed = page.evaluate(
        f"([sizes, seconds, ratios]) => {{ {source}\n return [sizes.map(printBytes), seconds.map(printSeconds), ratios.map(printPercent)]; }}",
        [sizes, seconds, ratios],
    )
    page.close()
    assert printed == json.loads(json.dumps([[*map(print_bytes, sizes)], [*map(print_seconds, seconds)], [*map(print_percent, ratios)]]))  # fmt: skip
