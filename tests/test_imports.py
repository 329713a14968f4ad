"""What may import what: the table of folders, no cycles, and no library loaded before it is needed."""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).parent.parent
ROOT_FOLDERS = ("api", "backends", "cli", "compiler", "passes", "planners", "rl_agent", "workloads", "tests")

# What the modules of a folder may import besides each other; the most specific row counts. `compiler/*.py` are the
# modules beside the stages. docs/architecture.md prints the same table.
MAY_IMPORT = {
    "compiler/*.py": (),
    "compiler/ir": ("compiler/*.py",),
    "compiler/frontends": ("compiler/*.py", "compiler/ir"),
    "compiler/analysis": ("compiler/*.py", "compiler/ir"),
    "compiler/hardware": ("compiler/*.py", "compiler/ir", "compiler/analysis"),
    "compiler/mapping": ("compiler/*.py", "compiler/ir", "compiler/analysis", "compiler/hardware"),
    "compiler/embedded": ("compiler/*.py",),
    "compiler/emulator": (
        "compiler/*.py", "compiler/ir", "compiler/frontends", "compiler/analysis", "compiler/hardware",
        "compiler/mapping",
    ),
    "compiler/report": (
        "compiler/*.py", "compiler/ir", "compiler/analysis", "compiler/hardware", "compiler/mapping",
        "compiler/emulator",
    ),
    "passes": ("compiler", "planners/fit", "planners/levels", "planners/contraction", "planners/pipeline", "planners/offsets"),
    "planners/offsets": ("compiler/*.py",),
    "planners/fit": ("compiler/*.py", "compiler/mapping", "planners/stays", "planners/ilp", "planners/planner"),
    "planners/levels": ("compiler/*.py",),
    "planners/contraction": ("compiler/*.py",),
    "planners/pipeline": ("compiler/*.py",),
    "planners/stays": ("compiler", "planners/offsets"),
    "planners": ("compiler",),
    "rl_agent": ("compiler", "planners/stays", "planners/planner", "planners/search"),
    "workloads": ("compiler/*.py",),
    "backends": ("compiler", "passes", "planners/fit", "planners/planner"),
    "api": ("compiler", "passes", "planners", "workloads", "backends", "cli"),
    "cli": ("api", "compiler", "passes", "planners", "rl_agent", "workloads", "backends"),
}  # fmt: skip

# What planners and the agent see: problems and plans, the types in them, hardware, and the emulator that scores.
PLANNERS_SEE = (
    "memplan.compiler.arrays_kernel",
    "memplan.compiler.by_reference",
    "memplan.compiler.cache",
    "memplan.compiler.child_process",
    "memplan.compiler.collection",
    "memplan.compiler.effort",
    "memplan.compiler.errors",
    "memplan.compiler.registry",
    "memplan.compiler.files",
    "memplan.compiler.html",
    "memplan.compiler.limits",
    "memplan.compiler.printable",
    "memplan.compiler.kernels",
    "memplan.compiler.lazy",
    "memplan.compiler.ir",
    "memplan.compiler.analysis.program",
    "memplan.compiler.hardware",
    "memplan.compiler.mapping",
    "memplan.compiler.emulator",
    "memplan.planners",
)

# How a problem is made does not concern planners.
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


@functools.cache
def imports(source: str, module: str = "memplan.x") -> list[tuple[int, str]]:
    """Returns `(line, name)` of all that a source imports, also within functions."""
    return list(_imports(source, module))


def _imports(source: str, module: str) -> Iterator[tuple[int, str]]:
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


def modules() -> dict[str, Path]:
    """Returns the files of the product by the names that they are imported by."""
    return {module_of(path): path for path in sources() if path.relative_to(ROOT).parts[0] != "tests"}


def imported(known: Mapping[str, Path]) -> Iterator[tuple[Path, int, Path]]:
    """Yields `(file, line, imported file)` for all imports within the product, those for type checkers included."""
    for module, path in known.items():
        for line, name in imports(path.read_text(), module):
            while name and name not in known:
                name = name.rpartition(".")[0]
            if name and name != module:
                yield path, line, known[name]


def covers(entry: str, path: Path) -> bool:
    """Whether a file is what an entry of the table names: a folder, the modules beside folders, or one module."""
    file = path.relative_to(ROOT)
    if entry.endswith("/*.py"):
        return str(file.parent) == entry.removesuffix("/*.py")
    return str(file).startswith(f"{entry}/") or str(file) == f"{entry}.py"


def row_of(path: Path) -> str:
    return max((row for row in MAY_IMPORT if covers(row, path)), key=lambda row: (row.count("/"), row))


def test_every_folder_imports_what_the_table_allows() -> None:
    found = []
    for path, line, other in imported(modules()):
        row = row_of(path)
        if not any(covers(entry, other) for entry in (row, *MAY_IMPORT[row])):
            found.append(f"{path.relative_to(ROOT)}:{line}: {other.relative_to(ROOT)}")
    assert not found, "\n".join(found)


def test_the_table_allows_nothing_that_nobody_imports() -> None:
    used = {
        (row_of(path), entry)
        for path, _, other in imported(modules())
        for entry in MAY_IMPORT[row_of(path)]
        if covers(entry, other)
    }
    assert {(row, entry) for row, entries in MAY_IMPORT.items() for entry in entries} == used


def test_the_table_is_the_one_that_is_documented() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    table = text.partition("| folder | may import |\n|---|---|\n")[2].partition("\n\n")[0]
    documented = {}
    for line in table.splitlines():
        row, entries = line.strip("| ").split(" | ")
        documented[row.strip("`")] = tuple(re.findall(r"`([^`]+)`", entries))
    assert documented == MAY_IMPORT


def test_imports_make_no_cycle() -> None:
    """Neither those within functions, nor those for type checkers."""
    graph = nx.DiGraph(
        (str(path.relative_to(ROOT)), str(other.relative_to(ROOT))) for path, _, other in imported(modules())
    )
    assert [sorted(part) for part in nx.strongly_connected_components(graph) if len(part) > 1] == []


def test_modules_with_an_underscore_stay_within_their_package() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {other.relative_to(ROOT)}"
        for path, line, other in imported(modules())
        if re.match(r"_(?!_)", other.name) and other.parent != path.parent
    ]
    assert not found, "\n".join(found)


def test_no_import_by_a_folder_of_the_repository() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sources()
        for line, name in imports(path.read_text(), str(path))
        if name.split(".")[0] in (*ROOT_FOLDERS,)
    ]
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


HEAVY = {"jax", "jaxlib", "numpy", "numba", "matplotlib", "ortools", "highspy", "networkx", "scipy"}


def test_importing_memplan_is_cheap() -> None:
    assert "memplan" in loaded_by("import memplan")
    assert not loaded_by("import memplan; memplan.MemplanError; memplan.__version__") & HEAVY


PACK = "import memplan; memplan.pack([memplan.Block(4, 0, 3), memplan.Block(4, 2, 9), memplan.Block(8, 3, 5)], 12)"


def test_a_packing_that_first_fit_finds_loads_numpy_alone() -> None:
    """A program that embeds the packer does not wait for compilers and solvers that it does not need."""
    loaded = loaded_by(PACK)
    assert loaded & (HEAVY | {"pandas", "typer", "rich"}) == {"numpy"}
    assert not loaded_by("import memplan; memplan.Block; memplan.Packing; memplan.Instance") & (HEAVY - {"numpy"})


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["plan", "--help"], ["bench", "--help"]])
def test_help_is_cheap(arguments: list[str]) -> None:
    loaded = loaded_by(f"from memplan.cli.main import main; main({arguments!r})")
    assert "typer" in loaded
    assert not loaded & HEAVY


DUMP = sorted((ROOT / "workloads/dumps").glob("*.gz"))[0]
INSTANCE = ROOT / "workloads/packing"


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", str(DUMP), "--target", "tpu-v5e", "--planner", "slow"],
        ["pack", str(sorted(INSTANCE.glob("*.csv"))[0]), "--time-limit", "1"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_planning_a_dump_and_packing_need_neither_jax_nor_matplotlib(arguments: list[str]) -> None:
    """A performance engineer's machine may have none that works, and they take long to load."""
    loaded = loaded_by(f"from memplan.cli.main import main; main({arguments!r})")
    assert "numpy" in loaded
    assert not loaded & {"jax", "jaxlib", "matplotlib", "networkx"}


def test_the_library_reads_and_plans_a_dump_without_jax() -> None:
    loaded = loaded_by(f"import memplan; g = memplan.read({str(DUMP)!r}); memplan.plan(g, 'tpu-v5e', planner='slow')")
    assert "numpy" in loaded
    assert "jax" not in loaded
