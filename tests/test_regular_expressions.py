"""Regular expressions mean the same in every Python that memplan supports, and fail in linear time.

CPython before 3.11.5 matches possessive groups wrongly (gh-106052, gh-100061), so the project has none.
"""

import hashlib
import json
import os
import re
import re._constants as sre  # type: ignore[import-untyped]
import re._parser as sre_parser  # type: ignore[import-untyped]
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from backtracking import Matcher, is_single, subtrees
from expressions import ROOT, Expression, expressions, pumped, texts
from thorough import examples

from memplan.compiler.frontends.reader import read
from memplan.compiler.ir.printer import print_graph

EXPRESSIONS = {f"{e.place} {i}": e for i, e in enumerate(expressions())}
# Those that read programs, which anybody may have written.
READERS = {key: e for key, e in EXPRESSIONS.items() if key.startswith(("compiler/frontends", "compiler/ir"))}


def unsound(pattern: str | bytes, flags: int = 0) -> bool:
    """Tells whether something possessive or atomic is more than one character wide."""
    nodes = subtrees(sre_parser.parse(pattern, flags))
    return any(
        operator is sre.ATOMIC_GROUP or (operator is sre.POSSESSIVE_REPEAT and not is_single(arguments[2]))
        for operator, arguments in nodes
    )


@pytest.mark.parametrize(
    ("pattern", "is_unsound"),
    [
        (r'"[^"\\]*+(?:\\.[^"\\]*+)*"', False),
        (r"\s++%?+\d{1,3}+.*+", False),
        (r"(?:\s++|//[^\n]*+)*+", True),
        (r"x(?:ab)?+", True),
        (r"(a)*+", True),
        (r"(?>a|b)", True),
        (r"y|(?=x(z(?:ab)++))", True),
    ],
)
def test_what_is_unsound(pattern: str, is_unsound: bool) -> None:
    assert unsound(pattern) == is_unsound


def test_expressions_are_found() -> None:
    patterns = {e.pattern for e in EXPRESSIONS.values()}
    from memplan.compiler.frontends import hlo_lexical, hlo_statement, stablehlo

    assert {hlo_statement._HEAD.pattern, hlo_lexical._BARE.pattern, stablehlo._TEXT.pattern} <= patterns
    assert any(key.startswith("scripts/") for key in EXPRESSIONS)


@pytest.mark.parametrize("key", EXPRESSIONS)
def test_nothing_wider_than_a_character_is_possessive(key: str) -> None:
    assert not unsound(EXPRESSIONS[key].pattern, EXPRESSIONS[key].flags)


def spans(expression: Expression, text: str | bytes) -> tuple[tuple[int, int], ...] | None:
    return Matcher(expression.pattern, expression.flags).match(text)


@pytest.mark.parametrize("key", EXPRESSIONS)
def test_matches_are_those_of_a_plain_matcher(key: str) -> None:
    expression = EXPRESSIONS[key]
    compiled = re.compile(expression.pattern, expression.flags)
    for text in texts(expression, examples(20, 50), seed=1):
        match = compiled.match(text)
        assert (match and match.regs) == spans(expression, text), text


@pytest.mark.parametrize("key", READERS)
def test_giving_back_a_group_changes_no_match(key: str) -> None:
    """Greedy groups are used where possessive ones are meant, so both must match the same."""
    expression = READERS[key]
    for text in texts(expression, examples(30, 100), seed=2):
        possessive = Matcher(expression.pattern, expression.flags, gives_back=False)
        assert possessive.match(text) == spans(expression, text), text


def steps(expression: Expression, text: str | bytes) -> int:
    matcher = Matcher(expression.pattern, expression.flags, limit=1000 * (len(text) + 10))
    matcher.match(text)
    return matcher.steps


def growth(expression: Expression, number: int) -> float:
    """Returns by what the work grows where a text does twice: 2 if it is linear, 4 if it is quadratic."""
    found = 0.0
    for few, more, most in pumped(expression, number, (8, 16, 32), seed=3):
        first, second, third = (steps(expression, text) for text in (few, more, most))
        found = max(found, (third - second) / max(second - first, 1))
    return found


@pytest.mark.parametrize("key", READERS)
def test_work_grows_linearly(key: str) -> None:
    assert growth(READERS[key], examples(15, 40)) < 2.5


def test_more_than_linear_growth_is_seen() -> None:
    assert growth(Expression("", r"x\s*:?\s*\{"), 40) > 3
    with pytest.raises(OverflowError):
        growth(Expression("", r"\[(?:\s*\{\}\s*,?)*\]"), 40)


# --- under the oldest Python that memplan supports ---


def old_python() -> str | None:
    """Returns an interpreter that matches possessive groups wrongly, if one is installed."""
    folders = [*os.environ.get("PATH", "").split(os.pathsep), "/usr/bin", "/usr/local/bin"]
    for name in ("python3", "python3.11"):
        for folder in folders:
            path = shutil.which(name, path=folder)
            if path is None:
                continue
            done = subprocess.run(
                [path, "-c", "import sys; print(sys.version_info[:3])"], capture_output=True, text=True
            )
            if "(3, 11, 0)" <= done.stdout.strip() <= "(3, 11, 4)":
                return path
    return None


@pytest.fixture(scope="module")
def old() -> str:
    path = old_python()
    if path is None:
        pytest.skip("no Python 3.11.0 to 3.11.4 is installed")
    return path


def test_old_pythons_match_the_same(old: str) -> None:
    program = """if True:
        import json, re, sys
        wrong = []
        for pattern, flags, kind, cases in json.load(sys.stdin):
            compiled = re.compile(pattern.encode("latin-1") if kind == "bytes" else pattern, flags)
            for text, wanted in cases:
                match = compiled.match(text.encode("latin-1") if kind == "bytes" else text)
                if (match and [list(span) for span in match.regs]) != wanted:
                    wrong.append((pattern, text))
        print(json.dumps(wrong))
    """
    questions = []
    # That the interpreter is one of those at fault: this must come out wrong, and nothing else.
    faulty = Expression("", r"(?:\s++|/\*(?:[^*]++|\*(?!/))*+\*/|//[^\n]*+)*+")
    for expression in (*EXPRESSIONS.values(), faulty):
        plain = expression.pattern
        asked = ["/*index=5*/x"] if expression is faulty else texts(expression, examples(10, 30), seed=4)
        cases = [(t.decode("latin-1") if isinstance(t, bytes) else t, spans(expression, t)) for t in asked]
        text = plain.decode("latin-1") if isinstance(plain, bytes) else plain
        questions.append((text, expression.flags, type(plain).__name__, cases))
    done = subprocess.run([old, "-I", "-c", program], input=json.dumps(questions), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[faulty.pattern, "/*index=5*/x"]]


def test_old_pythons_read_the_same(old: str, tmp_path: Path) -> None:
    folders = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    (tmp_path / "memplan").mkdir()
    for file in (ROOT / folders["memplan"]).iterdir():
        (tmp_path / "memplan" / file.name).symlink_to(file)
    for package, folder in folders.items():
        if package != "memplan":
            (tmp_path / package.replace(".", "/")).symlink_to(ROOT / folder)
    dumps = sorted((ROOT / "workloads/dumps").glob("*.hlo.txt.gz"), key=lambda file: file.stat().st_size)[::16]
    dumps += sorted((ROOT / "tests/compiler/frontends/data").glob("*.txt.gz"))
    program = """if True:
        import hashlib, sys
        from memplan.compiler.frontends.reader import read
        from memplan.compiler.ir.printer import print_graph
        for file in sys.argv[1:]:
            graph = read(file)
            print(hashlib.sha256((print_graph(graph) + repr(graph)).encode()).hexdigest())
    """
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [old, "-c", program, *map(str, dumps)], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    graphs = [read(file) for file in dumps]
    wanted = [hashlib.sha256((print_graph(graph) + repr(graph)).encode()).hexdigest() for graph in graphs]
    assert done.stdout.split() == wanted
