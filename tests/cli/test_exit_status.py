"""Each exit status means one thing, and the documentation and the help say the same."""

import errno
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memplan.cli import targets
from memplan.cli.exit_status import ExitStatus
from memplan.compiler import cache

Run = Callable[..., Any]


def test_the_documentation_has_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "exit_status.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", page, re.MULTILINE)
    assert rows == [(str(int(status)), status.meaning) for status in ExitStatus]


def test_the_help_has_the_table(run: Run) -> None:
    lines = [line.strip() for line in run("--help").out.splitlines()]
    for status in ExitStatus:
        assert f"{int(status)}  {status.meaning}" in lines


@pytest.fixture
def crashing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[BaseException], None]:
    """Makes `memplan targets` raise."""
    monkeypatch.setenv("MEMPLAN_CACHE", str(tmp_path / "cache"))

    def crash(error: BaseException) -> None:
        def command() -> None:
            raise error

        monkeypatch.setattr(targets, "command", command)

    return crash


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("it broke\nbadly \x1b[2J"), EOFError(), BrokenPipeError(32, "Broken pipe"), OSError(5, "no"),
        AssertionError(), RecursionError("deep"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    ],
    ids=repr,
)  # fmt: skip
def test_a_bug_names_the_file_to_report(
    run: Run, crashing: Callable[[Any], None], tmp_path: Path, error: BaseException
) -> None:
    crashing(error)
    done = run("targets")
    assert (done.status, done.out) == (ExitStatus.CRASHED, "")
    (line,) = done.err.splitlines()
    assert line.startswith(f"memplan: bug: {type(error).__name__}")
    (file,) = (tmp_path / "cache").iterdir()
    assert str(file) in line
    assert "\x1b" not in line + file.read_text()
    assert "Traceback (most recent call last)" in file.read_text()
    assert file.read_text().startswith("memplan targets\n")
    assert file.stat().st_mode & 0o077 == 0


def test_a_bug_where_the_cache_cannot_be_written(
    run: Run, crashing: Callable[[Any], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("MEMPLAN_CACHE", str(tmp_path / "file"))
    crashing(ValueError("first"))
    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
        done = run("targets")
    (file,) = (tmp_path / "temporary").iterdir()
    assert (done.status, str(file) in done.err) == (ExitStatus.CRASHED, True)

    crashing(ValueError("second"))
    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "gettempdir", _no_folder)
        done = run("targets")
    assert done.status == ExitStatus.CRASHED
    place = f"{__file__}, line {_line_of('raise error')}"
    assert done.err == f"memplan: bug: ValueError: second in {place} (please report it; no file could be written)\n"


def _no_folder() -> str:
    raise FileNotFoundError(2, "No usable temporary directory found")


def _line_of(text: str) -> int:
    lines = Path(__file__).read_text().splitlines()
    return 1 + next(number for number, line in enumerate(lines) if line.strip() == text)


def test_interruptions_and_too_little_memory(run: Run, crashing: Callable[[Any], None]) -> None:
    crashing(KeyboardInterrupt())
    assert (done := run("targets")).status == ExitStatus.INTERRUPTED
    assert done.err == "memplan: interrupted\n"
    for error in (
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ImportError("libortools.so.9: failed to map segment from shared object"),
    ):
        crashing(error)
        assert (done := run("targets")).status == ExitStatus.FAILED
        assert done.err == "memplan: error: memory ran out\n"


def test_too_little_memory_may_stand_behind_another_error(run: Run, crashing: Callable[[Any], None]) -> None:
    """Libraries hide what the linker says behind errors of their own."""
    hidden = OSError("Could not find the library")
    hidden.__context__ = OSError("lib.so: failed to map segment from shared object")
    crashing(hidden)
    assert run("targets").status == ExitStatus.FAILED
    crashing(OSError("Could not find the library"))
    assert run("targets").status == ExitStatus.CRASHED


# ---- standard output and standard error that cannot take what is written

_FULL = "/dev/full"


# Without a buffer, nothing is left to be written when the interpreter exits.
_BUFFERED = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}


def _finished(arguments: list[str], **streams: Any) -> tuple[int, str]:
    command = [sys.executable, "-m", "memplan", *arguments]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, env=_BUFFERED, **streams)
    return done.returncode, done.stderr


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["targets"], ["bench"], ["plan", "--help"]])
def test_a_full_disk_behind_standard_output(arguments: list[str]) -> None:
    with open(_FULL, "w") as full:
        status, said = _finished(arguments, stdout=full)
    assert status == ExitStatus.FAILED
    assert said == "memplan: error: cannot write to standard output: No space left on device\n"


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["targets"], ["plan", "--help"]])
def test_a_pipe_that_nobody_reads(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    assert _finished(arguments, stdout=writing) == (ExitStatus.READER_GONE, "")
    os.close(writing)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_standard_streams_that_are_closed(closed: str, tmp_path: Path) -> None:
    command = f"'{sys.executable}' -m memplan plan missing {closed}; echo $?"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == f"{ExitStatus.FAILED.value}\n"
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []


def test_standard_error_that_nobody_reads() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "memplan", "plan", "missing"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=writing, env=_BUFFERED)
    os.close(writing)
    assert (done.returncode, done.stdout) == (ExitStatus.FAILED, b"")


def test_the_cache_folder_is_where_crashes_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MEMPLAN_CACHE", str(tmp_path))
    assert cache.cache_folder() == tmp_path
