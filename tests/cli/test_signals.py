"""Ctrl-C, SIGTERM and SIGHUP: what a command does with the first, with the second, and without a terminal."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memplan.cli.exit_status import ExitStatus
from memplan.cli.signals import interrupted, interrupts

STATUSES = {
    signal.SIGINT: ExitStatus.INTERRUPTED,
    signal.SIGTERM: ExitStatus.TERMINATED,
    signal.SIGHUP: ExitStatus.HUNG_UP,
}

# The command, with two planners that wait for a signal: one has a plan by then, the other has none.
PROGRAM = """
import sys, time
from memplan import Planner, register_planner
from memplan.cli.main import main
from memplan.planners import greedy

def wait():
    print("waiting", file=sys.stderr, flush=True)
    while True:
        time.sleep(0.01)

def patient(problem, budget):
    plan = greedy.solve(problem, budget)
    try:
        wait()
    except KeyboardInterrupt:
        if sys.argv[-1] == "--json":
            return plan
        wait()

register_planner(Planner("patient", "Has a plan.", patient))
register_planner(Planner("hasty", "Has no plan.", lambda problem, budget: wait()))
sys.exit(main(sys.argv[1:]))
"""


def start(module: Path, planner: str, out: Path, *options: str, **streams: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable, "-c", PROGRAM, "plan", str(module), "--target", "tpu-v5e", "--planner", planner,
            "--out", str(out), *options,
        ],
        text=True, **streams,
    )  # fmt: skip


def wait_for(lines: Any, word: str) -> None:
    for line in lines:
        if word in line:
            return
    raise AssertionError(f"it ended before it was {word}")


@pytest.mark.parametrize("number", STATUSES)
def test_the_best_plan_so_far_is_written(module: Path, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "plan.json"
    process = start(module, "patient", out, "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(process.stderr, "waiting")
    process.send_signal(number)
    printed, _ = process.communicate(timeout=100)
    assert process.returncode == ExitStatus.DONE
    assert json.loads(printed)
    assert out.exists()


@pytest.mark.parametrize("number", STATUSES)
def test_without_a_plan_the_status_is_that_of_the_signal(module: Path, tmp_path: Path, number: signal.Signals) -> None:
    process = start(module, "hasty", tmp_path / "plan.json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(process.stderr, "waiting")
    process.send_signal(number)
    assert process.communicate(timeout=100) == ("", "memplan: interrupted\n")
    assert process.returncode == STATUSES[number]
    assert sorted(tmp_path.iterdir()) == [module]


def test_a_second_signal_ends_what_the_first_left_to_do(module: Path, tmp_path: Path) -> None:
    process = start(module, "patient", tmp_path / "plan.json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for number in (signal.SIGTERM, signal.SIGINT):
        wait_for(process.stderr, "waiting")
        process.send_signal(number)
    assert process.communicate(timeout=100) == ("", "memplan: interrupted\n")
    assert process.returncode == ExitStatus.TERMINATED
    assert sorted(tmp_path.iterdir()) == [module]


def test_a_terminal_that_is_closed(module: Path, tmp_path: Path) -> None:
    """The plan is written all the same, and what would be printed is lost."""
    out = tmp_path / "plan.json"
    command = [sys.executable, "-c", PROGRAM, "plan", str(module), "--target", "tpu-v5e", "--planner", "patient"]
    process, terminal = pty.fork()
    if process == 0:
        os.execv(sys.executable, [*command, "--out", str(out), "--json"])
    with open(terminal, errors="replace", closefd=False) as lines:
        wait_for(lines, "waiting")
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == ExitStatus.DONE
    assert out.exists()


def test_what_was_ignored_stays_ignored(module: Path, tmp_path: Path) -> None:
    """As `nohup` does for SIGHUP, and a shell for Ctrl-C of what runs in the background."""
    process = start(
        module, "hasty", tmp_path / "plan.json", stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )  # fmt: skip
    wait_for(process.stderr, "waiting")
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=100)
    assert process.returncode == ExitStatus.TERMINATED


def test_handlers_are_as_before_afterwards(run: Callable[..., Any]) -> None:
    before = [signal.getsignal(number) for number in STATUSES]
    assert run("targets").status == 0
    assert [signal.getsignal(number) for number in STATUSES] == before
    with interrupts():
        assert not interrupted()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert interrupted()
    assert [signal.getsignal(number) for number in STATUSES] == before


def test_another_thread_leaves_signals_alone() -> None:
    before = [signal.getsignal(number) for number in STATUSES]
    found: list[Any] = []

    def look() -> None:
        with interrupts():
            found.extend(signal.getsignal(number) for number in STATUSES)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == before


@pytest.mark.slow
def test_warnings_of_caches_are_notes(tmp_path: Path, module: Path) -> None:
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "memplan", "plan", str(module), "--target", "tpu-v5e", "--planner", "slow"],
        env={**os.environ, "MEMPLAN_CACHE": str(tmp_path / "file" / "cache")}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr.count("memplan: warning: there is no cache in") == 1
    assert "CacheWarning" not in done.stderr
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file", module]
