"""How other processes are started: what they import, and when they end."""

from __future__ import annotations

import ast
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from memplan.compiler import child_process

ROOT = Path(__file__).parent.parent.parent

# Prints what it and a process of its own import from.
PATHS = """
import subprocess, sys

def main(arguments):
    print(sys.path)
    sys.stdout.flush()
    subprocess.run([sys.executable, "-c", "import sys; print(sys.path)"], check=True)
"""

# Writes its number and sleeps in native code that never releases Python's global lock, or does.
SLEEPER = """
import ctypes, os, sys, time

def main(arguments):
    sys.stdout.write(f"{os.getpid()}\\n")
    sys.stdout.flush()
    if arguments == ["holding the lock"]:
        ctypes.PyDLL(None).sleep(1000)
    time.sleep(1000)
"""

PARENT = """
import sys, threading, time
from memplan.compiler import child_process

def start():
    process = child_process.start("sleeper", *sys.argv[2:])
    sys.stdout.write(process.stdout.readline().decode())
    sys.stdout.flush()

if sys.argv[1] == "main":
    start()
else:
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    print("the thread has ended", flush=True)
time.sleep(1000)
"""


def is_running(process: int) -> bool:
    """Whether a process is there, and not one that only waits to be reaped."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of PYTHONPATH with children in it."""
    (tmp_path / "paths.py").write_text(PATHS)
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(
    ("thread", "arguments"), [("main", ["holding the lock"]), ("main", []), ("another", [])], ids=str
)
def test_a_child_ends_when_its_parent_is_killed(modules: Path, thread: str, arguments: list[str]) -> None:
    command = [sys.executable, "-c", PARENT, thread, *arguments]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        if thread == "another":
            parent.stdout.readline()
        assert is_running(child), "it ended with the thread that started it"
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        deadline = time.monotonic() + 60.0
        while is_running(child) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not is_running(child)


def test_a_child_and_its_own_children_import_nothing_from_the_current_folder(
    modules: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path_factory.mktemp("here")
    monkeypatch.chdir(here)
    done = child_process.run("paths")
    assert (done.returncode, done.stderr) == (0, b"")
    paths = [ast.literal_eval(line) for line in done.stdout.decode().splitlines()]
    assert len(paths) == 2
    for path in paths:
        assert str(modules) in path
        assert not {"", ".", str(here)} & set(path)


def test_what_a_child_says_and_how_it_ends_is_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "echo.py").write_text(
        "import os, sys\n"
        "def main(arguments):\n"
        "    sys.stdout.buffer.write(sys.stdin.buffer.read())\n"
        "    print(arguments, os.environ['HERE'], os.getsid(0) == os.getpid(), file=sys.stderr)\n"
        "    return 3\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("HERE", "yes")
    done = child_process.run("echo", "a", "-b", input=b"text")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"text", b"['a', '-b'] yes True\n")


def test_a_child_that_takes_too_long_is_ended(modules: Path) -> None:
    started: list[subprocess.Popen[bytes]] = []
    make = child_process.start

    def remembered(*arguments: str, **options: int) -> subprocess.Popen[bytes]:
        started.append(make(*arguments, **options))
        return started[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(child_process, "start", remembered)
        with pytest.raises(subprocess.TimeoutExpired):
            child_process.run("sleeper", timeout=0.1)
    assert started[0].returncode == -signal.SIGKILL


def test_a_child_whose_parent_is_gone_ends_at_once() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    command = [sys.executable, "-P", "-m", child_process.__name__, str(gone.pid), "looks", "sleeper"]
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


# What starts a process, by module; None for the whole module.
STARTERS = {
    "subprocess": {"Popen", "run", "call", "check_call", "check_output", "getoutput", "getstatusoutput"},
    "os": {"fork", "forkpty", "system", "popen", "posix_spawn", "posix_spawnp"},
    "pty": None,
    "multiprocessing": None,
    "asyncio": {"create_subprocess_exec", "create_subprocess_shell"},
    "concurrent.futures": {"ProcessPoolExecutor"},
}


def starts(source: str) -> Iterator[int]:
    """Yields the lines that start a process, or import what does."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called = ast.unparse(node.func)
            module, _, name = called.rpartition(".")
            known = STARTERS.get(module, set())
            if known is None or name in known or (module == "os" and name.startswith(("exec", "spawn"))):
                yield node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module in STARTERS:
            known = STARTERS[node.module]
            if known is None or any(alias.name in known or alias.name == "*" for alias in node.names):
                yield node.lineno
        elif isinstance(node, ast.Import):
            for alias in node.names:
                whole = STARTERS.get(alias.name.partition(".")[0], set()) is None
                if whole or (alias.asname and alias.name in STARTERS):
                    yield node.lineno


@pytest.mark.parametrize(
    "line",
    [
        "subprocess.run(['a'])", "os.execvp('a', [])", "os.fork()", "import multiprocessing as m",
        "from multiprocessing import pool", "from subprocess import Popen", "import subprocess as s",
        "from concurrent.futures import ProcessPoolExecutor", "multiprocessing.Pool()", "import multiprocessing.pool",
    ],
)  # fmt: skip
def test_the_search_for_starts_finds_them(line: str) -> None:
    assert list(starts(line)) == [1]
    assert list(starts("import subprocess, os\nfrom concurrent.futures import Future\nos.getpid()")) == []


def test_only_one_place_starts_processes() -> None:
    folders = ("api", "backends", "cli", "compiler", "passes", "planners", "rl_agent", "workloads", "scripts")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    sources = {
        path: text
        for path in files
        if path.suffix == ".py" or path.read_bytes()[:32].startswith(b"#!/usr/bin/env python")
        if (text := path.read_text())
    }
    assert ROOT / "scripts" / "make_dumps" in sources
    found = {str(path.relative_to(ROOT)): lines for path, text in sources.items() if (lines := list(starts(text)))}
    # The script starts itself, a file and no module; external_program.py is what a child runs to become a program.
    assert set(found) == {"compiler/child_process.py", "compiler/external_program.py", "scripts/make_dumps"}
    assert len(found["compiler/child_process.py"]) == len(found["scripts/make_dumps"]) == 1
    assert '[sys.executable, "-P", __file__' in (ROOT / "scripts" / "make_dumps").read_text()
