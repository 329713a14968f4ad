"""Names are data: nothing of them controls a terminal, is read as markup, or breaks the format of a file."""

import csv
import io
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as xml
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jaxlib import _hlo

from memplan.compiler.errors import MemplanError
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.hardware import targets
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.printable import file_name, printable
from memplan.compiler.report.terminal import PlainConsole

Run = Callable[..., Any]

EVIL = '<script>x()</script>&"\x1b[2J\x1b]0;t\x07]]>\u202e\n/../.. [red]$x$|'
LENGTH = 64
TEXT = """HloModule {m}, is_scheduled=true
%{f} (p: f32[4096]) -> f32[4096] {{
  %{p} = f32[4096]{{0}} parameter(0)
  ROOT %{g} = f32[4096]{{0}} sine(%{p})
}}
ENTRY %{e} (x: f32[4096]) -> f32[4096] {{
  %{x} = f32[4096]{{0}} parameter(0)
  %{y} = f32[4096]{{0}} fusion(%{x}), kind=kLoop, calls=%{f}, metadata={{op_name="{o}" source_file="{s}" source_line=3}}
  %{z} = f32[4096]{{0}} cosine(%{y}), metadata={{op_name="{o}"}}
  ROOT %{r} = f32[4096]{{0}} add(%{z}, %{y})
}}
"""
LETTERS = "mfpgexyzros"


@pytest.fixture(scope="module")
def proto() -> bytes:
    """A program all of whose names are hostile."""
    text = TEXT.format(**{letter: letter * LENGTH for letter in LETTERS})
    found: bytes = _hlo.hlo_module_from_text(text).as_serialized_hlo_module_proto()
    for letter in LETTERS:
        evil = f"{EVIL}{letter}".encode()
        found = found.replace((letter * LENGTH).encode(), evil + b"-" * (LENGTH - len(evil)))
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose name is hostile and no UTF-8."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/[red]\xff\x1b[2J&\xe2\x80\xae"))
    path.mkdir()
    return path


@pytest.fixture
def program(folder: Path, proto: bytes) -> Path:
    path = folder / "program.pb"
    path.write_bytes(proto)
    return path


@pytest.fixture
def target(folder: Path) -> Path:
    """A target whose memories have hostile names."""
    text = (Path(targets.__file__).parent / "tpu-v5e.toml").read_text()
    for name in ("hbm", "vmem", "tpu-v5e"):
        text = text.replace(f'"{name}"', f'"[bold]{name}\\u001b[2J\\u202e<&\\n"')
    path = folder / "evil.toml"
    path.write_text(text)
    return path


def check_plain(text: str) -> None:
    """Checks that a text for people holds what is printable only."""
    odd = [line for line in text.splitlines() if not line.isprintable()]
    assert not odd
    assert "\x1b" not in text


def check_json(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    assert text.isascii()
    check_plain(text)
    return json.loads(text, parse_constant=refuse)


def check_report(folder: Path) -> None:
    root = xml.fromstring((folder / "memory.svg").read_bytes())
    assert not list(root.iter("{http://www.w3.org/2000/svg}script"))
    assert any("<script>" in (text.text or "") for text in root.iter("{http://www.w3.org/2000/svg}text"))
    assert (folder / "memory.png").read_bytes().startswith(b"\x89PNG")
    check_plain((folder / "report.txt").read_text())
    events = check_json((folder / "trace.json").read_text())["traceEvents"]
    assert any(EVIL in event["name"] for event in events)
    check_json((folder / "report.json").read_text())


def test_plan_verify_show(run: Run, program: Path, target: Path, folder: Path) -> None:
    plan, report = folder / "plan.json", folder / "report"
    given = [program, "--target", target]
    done = run("plan", *given, "--planner", "greedy", "--out", plan, "--report", report)
    assert done.status == 0, done.err
    check_plain(done.out + done.err)
    assert "\\x1b[2J" in done.out
    assert "[bold]" in done.out
    check_report(report)
    check_json(run("plan", *given, "--effort", "fast", "--json").out)
    check_json(plan.read_text())

    for arguments in (["verify", plan, *given], ["show", plan, *given, "--report", report]):
        done = run(*arguments)
        assert done.status == 0, done.err
        check_plain(done.out + done.err)
    check_report(report)

    broken = json.loads(plan.read_text())
    broken["residencies"] = [
        [b, space, offset + 1, start, end] for b, space, offset, start, end in broken["residencies"]
    ]
    plan.write_text(json.dumps(broken))
    done = run("verify", plan, *given)
    assert done.status == 1, done.err
    check_plain(done.out + done.err)


def test_a_planner_with_a_hostile_name(run: Run, program: Path, target: Path, folder: Path) -> None:
    plan = folder / "plan.json"
    assert run("plan", program, "--target", target, "--planner", "slow", "--out", plan).status == 0
    changed = {**json.loads(plan.read_text()), "planner": EVIL, "info": {EVIL: EVIL}}
    plan.write_text(json.dumps(changed))
    assert Plan.load(plan).planner == EVIL
    done = run("show", plan, program, "--target", target, "--report", folder / "report")
    assert done.status == 0, done.err
    check_plain(done.out + done.err)
    check_report(folder / "report")
    assert check_json((folder / "report" / "report.json").read_text())["mappings"][-1]["planner"] == EVIL


def test_passes(run: Run, program: Path, target: Path, folder: Path) -> None:
    given = ["plan", program, "--target", target, "--planner", "slow", "--passes", "dead_code", "--print-after", "all"]
    done = run(*given)
    assert done.status == 0, done.err
    check_plain(done.out)
    check_plain(done.err.replace("\t", " "))
    printed = folder / "printed.hlo"
    assert run(*given, "--print-to", printed).status == 0
    check_plain(printed.read_text())
    assert len(parse_hlo(printed.read_text()).entry_computation.instructions) == 4
    assert run("plan", printed, "--target", target, "--planner", "slow").status == 0


@pytest.mark.parametrize("markdown", [False, True])
def test_bench(run: Run, program: Path, markdown: bool, folder: Path) -> None:
    rows = folder / "rows.json"
    done = run(
        "bench",
        "mapping",
        "--dumps",
        program,
        "--planners",
        "slow",
        "--json",
        rows,
        *(["--markdown"] if markdown else []),
    )
    assert done.status == 0, done.err
    check_plain(done.out + done.err)
    check_json(rows.read_text())


def test_pack(run: Run, folder: Path) -> None:
    """CSV has quotes for what would end a field; ids are printed where blocks do not fit."""
    blocks, out = folder / "blocks.csv", folder / "out.csv"
    ids = [EVIL + str(number) for number in range(3)] + ['a,"b"', "=1+1", " "]
    with blocks.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "lower", "upper", "size"])
        writer.writerows([name, 0, 3, 4] for name in ids)
    done = run("pack", blocks, "--out", out)
    assert done.status == 0, done.err
    check_plain(done.out + done.err)
    with out.open(newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == ids
    blocks.write_text("".join(blocks.read_text().partition('"a,""b"')[:1]))
    done = run("pack", blocks, "--capacity", 5)
    assert done.status == 1
    check_plain(done.out + done.err)
    assert "[red]" in done.out


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", EVIL], ["plan", "{program}", "--target", EVIL], ["plan", "{program}", "--planner", EVIL],
        ["plan", "{program}", "--passes", EVIL], ["verify", "{program}", "{program}"], ["pack", "{program}"],
        ["plan", "{program}", "--out", f"{EVIL}/x"], ["plan", "{program}", "--report", "{program}"], [EVIL], ["--" + EVIL],
        ["plan", "{program}", "--time-limit", EVIL], ["compile", EVIL], ["compile", f"os:{EVIL[:5]}"],
        ["plan", "{program}", "--target", "{program}"], ["bench", "mapping", "--dumps", EVIL],
    ],
)  # fmt: skip
def test_errors(run: Run, program: Path, arguments: list[str]) -> None:
    done = run(*(str(program) if argument == "{program}" else argument for argument in arguments))
    assert (done.status, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1
    check_plain(done.err)


def test_errors_of_the_library_are_plain() -> None:
    with pytest.raises(MemplanError) as caught:
        parse_hlo(f"HloModule m\nENTRY e {{ x = f32[8] parameter(0)\n ROOT y = f32[8] {EVIL}(x) }}")
    check_plain(str(caught.value))
    check_plain(str(MemplanError(EVIL)))


@pytest.mark.parametrize("name", ["PYTHONIOENCODING", "LC_ALL"])
@pytest.mark.slow
def test_a_locale_of_ascii(program: Path, target: Path, folder: Path, name: str) -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    if name == "PYTHONIOENCODING":
        environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    report = folder / "report"
    for arguments in (
        ["plan", program, "--target", target, "--planner", "slow", "--report", report, "--passes", "dead_code", "--print-after", "dead_code"],
        ["plan", folder / "µ\u202e"], ["planners"], ["targets"], ["bench", "mapping", "--help"], ["plan", "--help"],
    ):  # fmt: skip
        command = [sys.executable, "-m", "memplan", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, env=environment)
        assert done.returncode == (2 if str(arguments[-1]).endswith("\u202e") else 0), done.stderr
        check_plain(done.stdout.decode("ascii"))
        check_plain(done.stderr.decode("ascii").replace("\t", " "))
    check_report(report)


def test_our_own_signs_have_other_forms_in_ascii(module: Path) -> None:
    command = [sys.executable, "-m", "memplan", "plan", str(module), "--target", "tpu-v5e", "--planner", "slow"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert " us" in done.stdout
    assert "\\" not in done.stdout


def test_a_console_takes_texts_as_they_are() -> None:
    buffer = io.StringIO()
    console = PlainConsole(file=buffer, force_terminal=True, width=200, color_system="truecolor")
    console.print("[bold]a[/bold] :smile: \x1b[2J \u202e\x9b")
    assert buffer.getvalue() == "[bold]a[/bold] :smile: \\x1b[2J \\u202e\\x9b\n"


def test_printable() -> None:
    assert printable("a\nb", keep="\n") == "a\nb"
    assert printable("\ud800\x85\u2028\u2066\ufeff\t") == "\\ud800\\x85\\u2028\\u2066\\ufeff\\t"
    assert printable("ä → 日本 €") == "ä → 日本 €"
    assert printable(printable(EVIL)) == printable(EVIL)
    assert printable("x" * 100, limit=13) == "xxxxx … xxxxx"


@pytest.mark.parametrize("name", ["../../etc/passwd", "..", "", "a\0b", "x" * 1000, "/", ".hidden", "ä\n", "-rf"])
def test_names_of_files_stay_in_their_folder(name: str, tmp_path: Path) -> None:
    path = tmp_path / file_name(name, ".json")
    path.write_text("x")
    assert path.parent == tmp_path
    assert not path.name.startswith(".")
