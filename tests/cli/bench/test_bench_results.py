"""Result files of benches: a run goes on where it was cut off, and rows of other versions or settings are refused."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import memplan
from memplan import pipeline
from memplan.cli.bench.results import Results, write_bench
from memplan.cli.signals import interrupts
from memplan.compiler.errors import MemplanError

Run = Callable[..., Any]


def count(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"rows": len(rows)}


def opened(path: Path | None, resume: bool, **setting: Any) -> Results:
    return Results("mapping", path, setting, count, resume)


@pytest.fixture(autouse=True)
def _no_signal_came() -> Iterator[None]:
    with interrupts():
        yield


def test_rows_are_written_as_they_come(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    results = opened(path, False, effort="fast")
    results.add([{"dump": "a", "planner": "slow"}, {"dump": "a", "planner": "xla"}])
    written = json.loads(path.read_text())
    assert written["made_with"]["memplan"] == memplan.__version__
    assert written["made_with"]["effort"] == "fast"
    assert (len(written["rows"]), written["summary"]) == (2, {"rows": 2})
    resumed = opened(path, True, effort="fast")
    assert resumed.has(dump="a", planner="xla")
    assert not resumed.has(dump="b")
    resumed.add([{"dump": "b", "planner": "slow"}])
    assert json.loads(path.read_text())["rows"] == [*results.rows, {"dump": "b", "planner": "slow"}]


def test_rows_that_an_interrupt_cut_short_are_none(tmp_path: Path) -> None:
    """A planner that is interrupted returns its best plan so far, as if nothing had happened."""
    path = tmp_path / "rows.json"
    results = opened(path, False)
    results.add([{"dump": "a"}])

    def planned() -> Iterator[dict[str, Any]]:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        yield {"dump": "b"}

    with pytest.raises(KeyboardInterrupt):
        results.add(planned())
    assert json.loads(path.read_text())["rows"] == results.rows == [{"dump": "a"}]


def test_a_file_that_is_not_there_yet_is_begun(tmp_path: Path) -> None:
    results = opened(tmp_path / "rows.json", True)
    results.add([{"dump": "a"}])
    assert (tmp_path / "rows.json").exists()


def test_without_resume_a_file_is_begun_again(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    opened(path, False).add([{"dump": "a"}])
    opened(path, False).add([{"dump": "b"}])
    assert json.loads(path.read_text())["rows"] == [{"dump": "b"}]


def test_rows_of_another_setting_or_version_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    opened(path, False, effort="fast").add([{"dump": "a"}])
    with pytest.raises(MemplanError, match="made with other effort: leave out --resume"):
        opened(path, True, effort="high")
    content = json.loads(path.read_text())
    content["made_with"]["sources"] = "0"
    path.write_text(json.dumps(content))
    with pytest.raises(MemplanError, match="made with other sources"):
        opened(path, True, effort="fast")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "1", '{"bench": "mapping"}', '{"bench": "mapping", "made_with": [], "rows": []}', "[" * 10**5,
     '{"bench": "mapping", "made_with": {}, "rows": [1]}', '{"bench": "packing", "made_with": {}, "rows": []}'],
)  # fmt: skip
def test_other_files_are_refused_and_left_alone(text: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(MemplanError, match="holds no results of `memplan bench mapping`"):
        opened(path, True)
    assert path.read_text() == text


def test_resume_needs_a_file() -> None:
    with pytest.raises(MemplanError, match="--json"):
        opened(None, True)


def test_benches_of_one_go_state_their_version(tmp_path: Path) -> None:
    write_bench(tmp_path / "rows.json", "jit", [{"seconds": 1}], {})
    written = json.loads((tmp_path / "rows.json").read_text())
    assert (written["bench"], written["rows"], written["summary"]) == ("jit", [{"seconds": 1}], {})
    assert set(written["made_with"]) == {"memplan", "sources"}
    write_bench(None, "jit", [], {})


def test_mapping_goes_on_where_it_was_cut_off(
    run: Run, dump: Path, module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted at the second dump, it plans that one alone when it is called again."""
    planned: list[str] = []
    plan = pipeline.plan

    def counted(problem: Any, **options: Any) -> Any:
        if not any(name == problem.name for name in planned) and len(set(planned)) == 1 and interrupting:
            raise KeyboardInterrupt
        planned.append(problem.name)
        return plan(problem, **options)

    monkeypatch.setattr(pipeline, "plan", counted)
    file = tmp_path / "rows.json"
    command = ("bench", "mapping", "--dumps", dump, "--dumps", module, "--planners", "slow,xla", "--json", file)
    interrupting = True
    assert run(*command).status == 130
    assert len(json.loads(file.read_text())["rows"]) == 2
    interrupting, first = False, set(planned)
    planned.clear()
    assert run(*command, "--resume").status == 0
    assert not first & set(planned)
    assert [row["dump"] for row in json.loads(file.read_text())["rows"]] == ["lstm.tpu-v5e.default"] * 2 + ["step"] * 2
    assert run(*command, "--resume", "--effort", "fast").status == 2
