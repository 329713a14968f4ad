import base64
import gzip
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

from bench import packed_report

from memplan.compiler.report import page
from memplan.compiler.report.page.data import page_data
from memplan.compiler.report.page.html import SCRIPTS, page_html
from memplan.compiler.report.report import Report, make_report

FOLDER = Path(page.__file__).parent


def digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_the_page_holds_the_data(report: Report) -> None:
    text = page_html(report)
    packed = re.search(r'<script type="application/gzip;base64" id="data">([^<]*)</script>', text)
    assert packed is not None
    assert json.loads(gzip.decompress(base64.b64decode(packed[1]))) == page_data(report)
    assert page_html(report) == text


def test_the_policy_allows_our_script_and_style_alone(report: Report) -> None:
    text = page_html(report)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    script = re.search(r'<script type="module">(.*?)</script>', text, re.DOTALL)
    assert policy is not None
    assert style is not None
    assert script is not None
    assert set(policy[1].split("; ")) == {
        "default-src 'none'", f"script-src 'sha256-{digest(script[1])}'", f"style-src 'sha256-{digest(style[1])}'",
        "base-uri 'none'", "form-action 'none'",
    }  # fmt: skip
    assert text.index("Content-Security-Policy") < text.index("<style>")


def test_every_script_of_the_folder_is_in_the_page() -> None:
    assert sorted(path.name for path in FOLDER.glob("*.js")) == sorted(SCRIPTS)


def test_no_name_is_markup(report: Report) -> None:
    evil = "</script><script>alert(1)</script>{{SCRIPT}}<!--"
    problem = replace(report.problem, name=evil, operations=(replace(report.problem.operations[0], name=evil), *report.problem.operations[1:]))  # fmt: skip
    text = page_html(make_report(problem, replace(report.subject.plan, problem=problem.fingerprint)))
    assert "alert" not in text
    assert text.count("</script>") == page_html(report).count("</script>") == 2


def test_ten_thousand_buffers_are_less_than_three_mebibytes() -> None:
    """Measured on a tenth of them: the part that is not data is there once."""
    small, tenth = (len(page_html(packed_report(count))) for count in (0, 1000))
    assert small + 10 * (tenth - small) < 3 << 20
