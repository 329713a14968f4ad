"""What all commands have in common."""

import importlib
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memplan import __version__
from memplan.cli.bench.main import BENCHES
from memplan.cli.main import COMMANDS

Run = Callable[..., Any]


def test_version(run: Run) -> None:
    assert (done := run("--version")).status == 0
    assert done.out == f"memplan {__version__}\n"


@pytest.mark.parametrize(
    "command", [[], ["plan"], ["verify"], ["show"], ["targets"], ["planners"], ["bench"], ["bench", "parse"]]
)
def test_help(run: Run, command: list[str]) -> None:
    done = run(*command, "--help")
    assert (done.status, done.err) == (0, "")
    assert "Usage: memplan" in done.out


@pytest.mark.parametrize(("package", "summaries"), [("memplan.cli", COMMANDS), ("memplan.cli.bench", BENCHES)])
def test_each_command_is_in_the_file_of_its_name_and_says_there_what_the_list_says(
    package: str, summaries: dict[str, str]
) -> None:
    for name, summary in summaries.items():
        command = importlib.import_module(f"{package}.{name.replace('-', '_')}").command
        assert command.__doc__.splitlines()[0] == summary, name


def test_the_help_lists_all_commands_whatever_else_is_asked(run: Run) -> None:
    for name, summary in COMMANDS.items():
        assert name in run("--help").out
        assert summary[:40] in " ".join(run("--help").out.split())
    assert all(name in run("bench", "--help").out for name in BENCHES)


def test_help_names_every_option(run: Run) -> None:
    out = run("plan", "--help").out
    for option in ("--target", "--planner", "--time-limit", "--out", "--report", "--json"):
        assert option in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan"],
        ["plan", "a", "b"],
        ["plan", "a", "--time-limit", "soon"],
        ["plan", "a", "--no-such-option"],
        ["nonsense"],
        ["bench", "nonsense"],
        ["verify", "a"],
    ],
)
def test_a_wrong_command_line_is_one_message(run: Run, arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.status == 2
    assert done.out == ""
    assert len(done.err.splitlines()) == 1
    assert done.errors


def test_no_arguments_show_the_help(run: Run) -> None:
    done = run()
    assert (done.status, done.err) == (0, "")
    assert "Usage: memplan" in done.out
    assert "bench" in done.out
    assert "mapping" in run("bench").out


def test_planners_and_targets_are_listed(run: Run) -> None:
    done = run("planners")
    assert (done.status, done.err) == (0, "")
    for planner in ("slow", "xla", "greedy"):
        assert f"\n{planner} " in done.out
    done = run("targets")
    assert (done.status, done.err) == (0, "")
    for target in ("tpu-v4", "tpu-v5e", "h200", "generic"):
        assert f"\n{target} " in done.out


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "memplan", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"memplan {__version__}\n")


def test_interrupt_from_the_keyboard(tmp_path: Path) -> None:
    """Ctrl-C while a dump is read: standard input that does not end keeps the command waiting."""
    program = "import sys; from memplan.cli.main import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "plan", "-", "--planner", "slow", "--out", str(tmp_path / "plan.json")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(" " * 2**20)  # more than a pipe holds: returns when the command reads
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130  # before the end of its input, which would be an error of its own
    out, err = process.communicate()
    assert (out, err.strip()) == ("", "memplan: interrupted")
    assert not (tmp_path / "plan.json").exists()


def test_a_reader_that_goes_away(dump: Path) -> None:
    program = "import sys; from memplan.cli.main import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "plan", str(dump), "--planner", "slow", "--target", "tpu-v5e"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 141
