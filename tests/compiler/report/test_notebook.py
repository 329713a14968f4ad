"""What a notebook shows of a plan, a report and a peak: tables in which names are text."""

from dataclasses import replace
from html.parser import HTMLParser

import pytest

from memplan.compiler.frontends import parse_hlo
from memplan.compiler.hardware.target import load_target
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.report.buffers import GroupBy
from memplan.compiler.report.peak import Peak, find_peak
from memplan.compiler.report.report import Report, make_report

EVIL = "</td></table><script>alert(1)</script><img src=x onerror='alert(1)'>\x1b[2J\u202e&amp;"
ELEMENTS = {"div", "strong", "table", "thead", "tbody", "tr", "th", "td", "p"}

STEP = """HloModule step, is_scheduled=true
ENTRY e {
  x = f32[262144] parameter(0), metadata={op_name="x"}
  big = f32[1048576] custom-call(x), custom_call_target="big", metadata={op_name="jit(f)/big" source_file="m.py" source_line=4}
  ROOT step = f32[262144] custom-call(big), custom_call_target="step", metadata={op_name="jit(f)/sub" source_file="m.py" source_line=7}
}
"""


class Page(HTMLParser):
    """The texts of a display; fails at an element or attribute that is not one of a table, or is not closed."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag in ELEMENTS
        assert all(name == "style" and value in ("text-align: left", "text-align: right") for name, value in attributes)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def peak_of(text: str) -> Peak:
    return find_peak(parse_hlo(text), load_target("tpu-v5e"), by=GroupBy.LINE, limit=2**20)


def test_a_peak_says_what_stands_there_and_whether_it_fits() -> None:
    texts = Page(peak_of(STEP)._repr_html_()).texts
    assert "step on tpu-v5e" in texts
    place = texts.index("m.py:4")
    assert texts[place - 2 : place] == ["4.00 MiB", "66.7 %"]
    assert "f32[1048576]" in texts
    assert "The program needs 6.00 MiB of 1.00 MiB: it does not fit, by 5.00 MiB." in texts


def test_a_report_has_its_plans_and_what_costs_most(report: Report) -> None:
    texts = Page(report._repr_html_()).texts
    assert {"all in hbm", "by-hand", "bound that no plan beats", "5.70 s", "what costs most"} <= {*texts}
    assert report.groups[0].label in texts


def test_a_plan_has_its_spaces(plan: Plan) -> None:
    texts = Page(plan._repr_html_()).texts
    assert texts[0] == "tiny on test-chip, planned by by-hand: 1 copies"
    cells = [text for text in texts if text.strip()][1:]
    assert cells == ["space", "buffers", "residencies", "0", "4", "4", "1", "2", "2", "seconds: 0.5"]


@pytest.mark.parametrize("shown", ["plan", "report", "peak"])
def test_hostile_names_are_text(shown: str, plan: Plan, report: Report) -> None:
    if shown == "plan":
        html = replace(plan, name=EVIL, target=EVIL, planner=EVIL, info={EVIL: EVIL, "much": ["x"]})._repr_html_()
    elif shown == "report":
        problem = report.problem
        spaces = tuple(replace(space, name=f"{EVIL}{number}") for number, space in enumerate(problem.spaces))
        buffers = tuple(replace(buffer, name=f"{EVIL}{number}") for number, buffer in enumerate(problem.buffers))
        problem = replace(problem, name=EVIL, target=EVIL, notes=(EVIL,), spaces=spaces, buffers=buffers)
        html = make_report(problem, replace(plan, problem=problem.fingerprint, planner=EVIL))._repr_html_()
    else:
        found = peak_of(STEP)
        groups = tuple(replace(group, label=EVIL) for group in found.main.groups)
        main = replace(found.main, name=EVIL, operation=EVIL, groups=groups)
        html = replace(found, program=EVIL, target=EVIL, notes=(EVIL,), memories=(main,))._repr_html_()
    texts = Page(html).texts
    shown_text = EVIL.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
    assert any(text.startswith(shown_text) for text in texts)
    assert not any(character in html for character in "\x1b\u202e")
