"""No process that a command started is left when the command is killed, and no entry of a cache is half-written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from memplan import workloads
from memplan.backends.tpu.compile import _decoded
from memplan.compiler.cache import Cache, cache_folder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

PROGRAM = """
import jax

def tiny():
    return (lambda x: x @ x), (jax.ShapeDtypeStruct((256, 256), "float32"),)
"""


def running(mark: str) -> dict[int, str]:
    """Returns the command lines of all processes that have a mark in their environment, by their numbers."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # It has ended.
            continue
    return found


def wait_until(mark: str, word: str, command: subprocess.Popen[str]) -> None:
    """Waits until a process with the word in its command line runs."""
    while not any(word in line for line in running(mark).values()):
        assert command.poll() is None, f"it ended before {word} ran"
        time.sleep(0.02)


def start(folder: Path, mark: str, *arguments: str) -> subprocess.Popen[str]:
    compiled = cache_folder()
    assert compiled is not None
    (folder / "cache").mkdir(exist_ok=True)
    if not (folder / "cache" / "kernels").exists():
        (folder / "cache" / "kernels").symlink_to(compiled / "kernels")
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "memplan", *arguments],
        env={**os.environ, "MARK": mark, "MEMPLAN_CACHE": str(folder / "cache")}, cwd=folder,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def assert_all_end(mark: str) -> None:
    deadline = time.monotonic() + 60.0
    while (left := running(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == {}


AUTO, ILP = ("auto", "auto.member", "lstm.tpu-v5e.default"), ("ilp", "integer_solver", "moe.tpu-v5e.slow")


# The command has one handler for the three signals that it can catch.
@pytest.mark.parametrize(
    ("planner", "child", "dump", "number"),
    [
        (*AUTO, signal.SIGTERM),
        (*ILP, signal.SIGKILL),
        *(
            pytest.param(*AUTO, number, marks=pytest.mark.slow)
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGKILL)
        ),
        *(
            pytest.param(*ILP, number, marks=pytest.mark.slow)
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
        ),
    ],
)
def test_planners_in_other_processes(
    tmp_path: Path, dump: str, prepared: None, planner: str, child: str, number: signal.Signals
) -> None:
    mark, file = str(uuid.uuid4()), workloads.dumps_folder() / f"{dump}.hlo.txt.gz"
    command = start(tmp_path, mark, "plan", str(file), "--planner", planner, "--time-limit", "300")
    wait_until(mark, child, command)
    command.send_signal(number)
    command.communicate(timeout=100)
    assert_all_end(mark)
    assert command.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 0)


@pytest.mark.tpu
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.slow
def test_the_compiler(tmp_path: Path, prepared: None, number: signal.Signals) -> None:
    """What is killed leaves no lock behind, and the next one finds or makes whole entries."""
    (tmp_path / "program_of_mine.py").write_text(PROGRAM)
    arguments = ("compile", "program_of_mine:tiny", "--compile-budget", "2", "--planner", "greedy")
    mark = str(uuid.uuid4())
    command = start(tmp_path, mark, *arguments)
    wait_until(mark, "tpu.worker", command)
    command.send_signal(number)
    _, said = command.communicate(timeout=100)
    assert_all_end(mark)
    if number == signal.SIGTERM:
        assert command.returncode in (0, 143), said
        assert "Traceback" not in said
    again = start(tmp_path, mark, *arguments)
    _, said = again.communicate(timeout=300)
    assert (again.returncode, said) == (0, "")
    cache = Cache(tmp_path / "cache")
    entries = list((tmp_path / "cache").glob("*.gz"))
    assert entries
    assert all(cache.load(path.name, _decoded) for path in entries)


@pytest.mark.tpu
@pytest.mark.slow
def test_several_commands_on_one_cache(tmp_path: Path, prepared: None) -> None:
    (tmp_path / "program_of_mine.py").write_text(PROGRAM)
    arguments = ("compile", "program_of_mine:tiny", "--compile-budget", "1", "--planner", "greedy")
    commands = [start(tmp_path, "", *arguments) for _ in range(2)]
    assert [(command.communicate(timeout=300)[1], command.returncode) for command in commands] == [("", 0)] * 2
    assert len(list((tmp_path / "cache").glob("*.gz"))) == 1
