"""Who may import whom: packages by their one name, a folder only the folders before it, planners no program."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOT_FOLDERS = ("api", "backends", "cli", "compiler", "passes", "planners", "rl_agent", "workloads", "tests")

# In the order in which they may build on each other; the files beside the folders first.
LAYERS = (
    "memplan.compiler.errors",
    "memplan.compiler.registry",
    "memplan.compiler.files",
    "memplan.compiler.kernels",
    "memplan.compiler.ir",
    "memplan.compiler.frontends",
    "memplan.compiler.analysis",
    "memplan.compiler.hardware",
    "memplan.compiler.mapping",
    "memplan.compiler.emulator",
    "memplan.compiler.report",
    "memplan.backends",
    "memplan.cli",
)

# What planners and the agent see: problems and plans, the types in them, hardware, and the emulator that scores.
PLANNERS_SEE = (
    "memplan.compiler.errors",
    "memplan.compiler.registry",
    "memplan.compiler.files",
    "memplan.compiler.kernels",
    "memplan.compiler.ir",
    "memplan.compiler.analysis.program",
    "memplan.compiler.hardware",
    "memplan.compiler.mapping",
    "memplan.compiler.emulator",
    "memplan.planners",
)

# A problem's own parts; its making is no business of planners.
PLANNERS_DO_NOT_SEE = (
    "memplan.compiler.mapping.build",
    "memplan.compiler.mapping.given",
    "memplan.compiler.mapping.given_copies",
)


def module_of(path: Path) -> str:
    """Returns the name by which a file of this repository is imported."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] == "api":
        parts = parts[1:]
    parts = ["memplan", *parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, module: str = "memplan.x") -> Iterator[tuple[int, str]]:
    """Yields `(line, name)` of all that a source imports, also within functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 or not module.startswith("memplan"), f"{module}:{node.lineno}: a relative import"
            for alias in node.names:
                # `from package import name`: the name may be a module, or something in the package.
                yield node.lineno, f"{node.module}.{alias.name}"


def sources() -> list[Path]:
    return sorted(path for folder in ROOT_FOLDERS for path in (ROOT / folder).rglob("*.py"))


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def layer_of(name: str) -> int:
    """Returns the layer of a module's name; -1 for what is in none."""
    return next((number for number, layer in enumerate(LAYERS) if is_within(name, layer)), -1)


def test_no_import_by_a_folder_of_the_repository() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sources()
        for line, name in imports(path.read_text(), str(path))
        if name.split(".")[0] in (*ROOT_FOLDERS,)
    ]
    assert not found, "\n".join(found)


def test_a_folder_imports_only_folders_before_it() -> None:
    found = []
    for path in (ROOT / "compiler").rglob("*.py"):
        module = module_of(path)
        own = layer_of(module)
        for line, name in imports(path.read_text(), module):
            if layer_of(name) > own >= 0:
                found.append(f"{path.relative_to(ROOT)}:{line}: {name}")
            # Only what comes last knows planners.
            if is_within(name, "memplan.planners") and own < layer_of("memplan.backends"):
                found.append(f"{path.relative_to(ROOT)}:{line}: {name}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("folder", ["planners", "rl_agent"])
def test_planners_see_the_problem_alone(folder: str) -> None:
    found = []
    for path in (ROOT / folder).rglob("*.py"):
        for line, name in imports(path.read_text(), module_of(path)):
            if not is_within(name, "memplan") or is_within(name, f"memplan.{folder}"):
                continue
            if not any(is_within(name, seen) for seen in PLANNERS_SEE) or any(
                is_within(name, hidden) for hidden in PLANNERS_DO_NOT_SEE
            ):
                found.append(f"{path.relative_to(ROOT)}:{line}: {name}")
    assert not found, "\n".join(found)


def test_the_verifier_shares_nothing_with_what_it_checks() -> None:
    for line, name in imports((ROOT / "compiler/mapping/verify.py").read_text(), "memplan.compiler.mapping.verify"):
        assert not is_within(name, "memplan.planners"), (line, name)
        assert not is_within(name, "memplan.compiler.emulator"), (line, name)


def loaded_by(statement: str) -> set[str]:
    """Returns the top-level packages that a fresh interpreter has loaded after a statement."""
    program = f"{statement}\nimport sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


HEAVY = {"jax", "jaxlib", "numpy", "numba", "matplotlib", "ortools", "networkx", "scipy"}


def test_importing_memplan_is_cheap() -> None:
    assert "memplan" in loaded_by("import memplan")
    assert not loaded_by("import memplan; memplan.MemplanError; memplan.__version__") & HEAVY


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["plan", "--help"], ["bench", "--help"]])
def test_help_is_cheap(arguments: list[str]) -> None:
    loaded = loaded_by(f"from memplan.cli.main import main; main({arguments!r})")
    assert "typer" in loaded
    assert not loaded & HEAVY


def test_reading_a_dump_needs_no_jax() -> None:
    """Nor does planning: a performance engineer's machine may have none that works."""
    dump = sorted((ROOT / "workloads/dumps").glob("*.gz"))[0]
    loaded = loaded_by(f"import memplan; g = memplan.read({str(dump)!r}); memplan.plan(g, 'tpu-v5e', planner='slow')")
    assert "jax" not in loaded
