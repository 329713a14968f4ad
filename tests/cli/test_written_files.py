"""Commands and `memplan.jit` write what they were told and into the cache, and nowhere else."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from memplan.compiler.cache import cache_folder

# Runs a program under a hook that lists every path that is opened for writing, made, renamed or removed.
_WATCHED = """
import os, sys
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def watch(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        changes = bool(isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
        paths = [path] if changes and isinstance(path, (str, bytes)) else []
    elif event in ("os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.truncate", "os.utime"):
        paths = arguments[:1]
    elif event in ("os.rename", "os.link", "os.symlink"):
        paths = arguments[:2]
    else:
        return
    for path in paths:
        if not isinstance(path, int):
            os.write(log, os.path.abspath(os.fsencode(path)) + b"\\n")
sys.addaudithook(watch)
"""
_COMMAND = _WATCHED + "from memplan.cli.main import main\nsys.exit(main(sys.argv[2:]))\n"
_JIT = (
    _WATCHED
    + """
import jax.numpy as jnp
import memplan
step = memplan.jit(lambda x, w: jnp.tanh(x @ w) @ w)
x = jnp.ones((64, 64))
print(step(x, x).sum(), step.plan(x, x).plan.target)
"""
)

Run = Callable[..., None]


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Returns size and time of all files below a folder."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
        if not path.is_dir()
    }


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a program with folders of its own, and checks that it wrote below `wanted` and into the cache only."""
    folders = {name: tmp_path / name for name in ("home", "temporary", "current", "cache")}
    for folder in folders.values():
        folder.mkdir()
    (folders["current"] / "mine").write_text("mine")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "MPL", "MEMPLAN_"))}
    compiled = cache_folder()
    assert compiled is not None
    (compiled / "kernels").mkdir(exist_ok=True)
    (folders["cache"] / "kernels").symlink_to(compiled / "kernels")  # Compiling them all would take a minute.
    environment = {
        **kept,
        "HOME": str(folders["home"]),
        "TMPDIR": str(folders["temporary"]),
        "MEMPLAN_CACHE": str(folders["cache"]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }

    def check(program: str, arguments: Sequence[object], wanted: Sequence[Path] = (), status: int = 0) -> None:
        log = tmp_path / "log"
        log.unlink(missing_ok=True)
        before = {name: state_of(folders[name]) for name in ("home", "temporary", "current")}
        done = subprocess.run(
            [sys.executable, "-c", program, str(log), *map(str, arguments)],
            cwd=folders["current"], env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        assert before == {name: state_of(folders[name]) for name in before}
        allowed = [folders["cache"], folders["temporary"], *wanted, Path("/dev/null")]
        for line in set(log.read_text().splitlines()):
            path = Path(line)
            is_staged = path.name.startswith(".memplan-") and any(path.parent == each.parent for each in wanted)
            assert is_staged or any(path.is_relative_to(each) for each in allowed), line

    return check


@pytest.mark.slow
def test_plan(run: Run, module: Path, tmp_path: Path) -> None:
    plan, report = tmp_path / "out" / "plan.json", tmp_path / "out" / "report"
    plan.parent.mkdir()
    given = [module, "--target", "tpu-v5e"]
    run(_COMMAND, ["plan", *given, "--planner", "slow", "--out", plan, "--report", report], [plan, report])
    assert sorted(os.listdir(plan.parent)) == ["plan.json", "report"]
    run(_COMMAND, ["verify", plan, *given])
    run(_COMMAND, ["show", plan, *given])


@pytest.mark.slow  # it compiles kernels into a cache of its own
def test_pack(run: Run, tmp_path: Path) -> None:
    blocks, out = tmp_path / "blocks.csv", tmp_path / "offsets.csv"
    blocks.write_text("id,lower,upper,size\na,0,3,4\nb,1,5,4\n")
    run(_COMMAND, ["pack", blocks, "--out", out], [out])
    run(_COMMAND, ["pack", blocks])


@pytest.mark.slow
def test_lists_and_mistakes(run: Run) -> None:
    run(_COMMAND, ["targets"])
    run(_COMMAND, ["planners"])
    run(_COMMAND, ["plan", "missing"], status=2)


@pytest.mark.slow
def test_jit(run: Run) -> None:
    run(_JIT, [])
