"""`scripts/run_benchmarks`: every command line is one that `memplan` takes, and what cells make gets to its place."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer

from memplan.cell_processes import sharing_cores
from memplan.cells import CellFolder, CellOutcome
from memplan.cli.bench import benchmarks as module
from memplan.cli.bench.benchmarks import WORK, Benchmarks, places, run_bench
from memplan.cli.bench.pictures import draw_pictures
from memplan.cli.bench.run_benchmarks import application
from memplan.cli.bench.tables import DUMPS, TABLES, BenchTable, table_named
from memplan.cli.exit_status import ExitStatus
from memplan.cli.main import application as memplan_application
from memplan.cli.main import main
from memplan.compiler.errors import MemplanError

ROOT = Path(__file__).parents[3]
LEVELS = BenchTable("levels", ("levels", "--sizes", "5", "--levels", "3", "--markdown"), alone=True)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_command_lines_are_understood(table: BenchTable) -> None:
    parts = table.parts()
    assert len({label for label, _ in parts}) == len(parts) > 0
    for _, more in (parts[0], parts[-1]):
        arguments = [*table.arguments, *more]
        group: Any = typer.main.get_command(memplan_application(["bench", *arguments]))
        if arguments[0] != "plan":
            group = group.commands["bench"]
        group.commands[arguments[0]].make_context(arguments[0], arguments[1:])
        for text in arguments:
            if text.startswith(DUMPS):
                assert (ROOT / "workloads" / "dumps" / text.removeprefix(f"{DUMPS}/")).is_file()
    if len(parts) > 1:
        table.merged([{"results": {"rows": []}, "markdown": ""}] * 1)
        imported = __import__(f"memplan.cli.bench.{table.module}", fromlist=["x"])
        assert callable(getattr(imported, table.summarize))
        assert callable(getattr(imported, table.markdown))


def test_places_in_pages_are_of_tables() -> None:
    found = [name for page in sorted((ROOT / "docs").glob("*.md")) for name in places(page.read_text())]
    assert len(found) == len(set(found)) > 10
    assert set(found) <= {table.name for table in TABLES}
    begun = sum(page.read_text().count("<!-- table ") for page in (ROOT / "docs").glob("*.md"))
    assert begun == len(found)


def test_an_empty_place_ends_where_it_does() -> None:
    place = "<!-- table {} -->\n{}\n<!-- end -->\n"
    for table in ("", "\n", "\n\n| a |\n"):
        assert places(place.format("a", table) + place.format("b", "| b |")) == ["a", "b"]


def docs_of(folder: Path) -> Path:
    docs = folder / "docs"
    docs.mkdir()
    (docs / "page.md").write_text("before\n\n<!-- table levels -->\n\n| old |\n\n<!-- end -->\n\nafter\n")
    return docs


def test_a_table_is_made_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "table_named", lambda name: {"levels": LEVELS}[name])
    docs, told = docs_of(tmp_path), list[tuple[str, CellOutcome]]()
    made = Benchmarks([LEVELS], tmp_path / "cells")
    assert made.left(LEVELS).estimate(docs) is None
    made.run(lambda number: sharing_cores(WORK, number, 1), lambda name, outcome: told.append((name, outcome)))
    assert [(name, outcome.error) for name, outcome in told] == [("levels/all", "")]
    assert {path.name for path in made.write(docs)} == {"levels.json", "page.md"}
    assert json.loads((docs / "results" / "levels.json").read_text())["bench"] == "levels"
    page = (docs / "page.md").read_text()
    assert page.startswith("before\n\n<!-- table levels -->\n\n| problem | layers |")
    assert page.endswith("|\n\n<!-- end -->\n\nafter\n")
    again = Benchmarks([LEVELS], tmp_path / "cells")
    assert again.left(LEVELS).cells == ()
    assert again.left(LEVELS).estimate(docs) == 0
    assert again.write(docs) == []
    monkeypatch.setattr(module, "sources", lambda: "other")
    with pytest.raises(MemplanError, match="was made with other sources"):
        Benchmarks([LEVELS], tmp_path / "cells").left(LEVELS)
    assert len(Benchmarks([LEVELS], tmp_path / "cells", restart=True).left(LEVELS).cells) == 1


def test_a_bench_that_fails_says_why() -> None:
    with pytest.raises(MemplanError, match=r"memplan: error: --sizes x: 'x' is not a number"):
        run_bench({"arguments": ["levels", "--sizes", "x"]})


def test_cells_are_merged() -> None:
    table = table_named("memory_peak")
    assert table is not None
    row = json.loads((ROOT / "docs" / "results" / "memory_peak.json").read_text())["rows"]
    cells = [{"results": {"bench": "memory", "rows": [one]}, "markdown": ""} for one in row]
    results, text = table.merged(cells)
    assert results["rows"] == row
    assert len(text.splitlines()) == len(row) + 2
    mapping = table_named("mapping_fast")
    assert mapping is not None
    rows = json.loads((ROOT / "docs" / "results" / "mapping_fast.json").read_text())["rows"]
    rows = [{"failed": {}, "bound_checked": row["bound"], **row} for row in rows]  # of a version without these
    _, text = mapping.merged([{"results": {"rows": rows[:4]}, "markdown": ""}, {"results": {"rows": rows[4:]}}])
    lines = text.splitlines()
    assert not any(".slow |" in line for line in lines)
    assert lines[-1].startswith("| geometric mean")


def test_pictures(tmp_path: Path) -> None:
    rows = json.loads((ROOT / "docs" / "results" / "mapping_normal.json").read_text())["rows"][:12]
    compiled = {"target": "tpu-v5e", "predictions": [[1e-3, 1.1e-3], [2e-3, 1.9e-3]]}
    found = {"mapping_normal": ({"rows": rows}, ""), "tpu": ({"rows": [compiled]}, "")}
    files = draw_pictures(found, tmp_path / "images")
    assert [file.name for file in files] == ["improvement.png", "predicted.png"]
    for file in files:
        assert file.read_bytes().startswith(b"\x89PNG")
    assert draw_pictures({}, tmp_path / "none") == []
    assert not (tmp_path / "none").exists()


def test_list_and_mistakes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "cells"), "--docs", str(ROOT / "docs")]
    assert main(["--list", *out], build=application) == ExitStatus.DONE
    lines = capfd.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines[1:]} == {table.name for table in TABLES}
    assert not (tmp_path / "cells").exists()
    assert main(["--only", "nothing", *out], build=application) == ExitStatus.FAILED
    assert "--only nothing: no such table; there are: mapping_normal, " in capfd.readouterr().err


@pytest.mark.slow
def test_the_script(tmp_path: Path) -> None:
    docs = docs_of(tmp_path)
    command = [ROOT / "scripts" / "run_benchmarks", "--only", "levels", "--out", tmp_path / "cells", "--docs", docs]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert CellFolder(tmp_path / "cells" / "levels", {}).find("all") is not None
    assert "| random |" in (docs / "page.md").read_text()
