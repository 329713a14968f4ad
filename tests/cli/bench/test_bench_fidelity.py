"""`memplan bench fidelity`: pairs of dumps, in both directions."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memplan import workloads
from memplan.backends.tpu.compile import CompiledModule, CompileError, TpuCompiler
from memplan.backends.tpu.steering import SORT_ORDER
from memplan.cli.bench import fidelity as bench_fidelity
from memplan.cli.bench.fidelity import predicted_busy
from memplan.compiler.emulator.score import score
from memplan.compiler.frontends.reader import read
from memplan.compiler.hardware.target import load_target
from memplan.compiler.mapping.build import build

Run = Callable[..., Any]


@pytest.fixture
def few_dumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "dumps"
    folder.mkdir()
    for name in ("lstm.tpu-v5e", "neural_ode.tpu-v5e", "lstm.tpu-v4"):
        for variant in ("default", "slow"):
            shutil.copy(workloads.dumps_folder() / f"{name}.{variant}.hlo.txt.gz", folder)
    shutil.copy(workloads.dumps_folder() / "moe.tpu-v5e.default.hlo.txt.gz", folder)  # without its pair
    monkeypatch.setattr(workloads, "dumps_folder", lambda: folder)
    return folder


def test_rows_and_summary(run: Run, few_dumps: Path, tmp_path: Path) -> None:
    done = run("bench", "fidelity", "--json", tmp_path / "f.json")
    assert done.status == 0
    data = json.loads((tmp_path / "f.json").read_text())
    assert [(row["program"], row["target"], row["from"]) for row in data["rows"]] == [
        ("lstm", "tpu-v4", "default"), ("lstm", "tpu-v4", "slow"),
        ("lstm", "tpu-v5e", "default"), ("lstm", "tpu-v5e", "slow"),
        ("neural_ode", "tpu-v5e", "default"), ("neural_ode", "tpu-v5e", "slow"),
    ]  # fmt: skip
    assert set(data["summary"]) == {"tpu-v4", "tpu-v5e"}
    found = data["summary"]["tpu-v5e"]
    assert list(found["instructions"]) == ["default", "slow"]
    for direction in found["instructions"].values():
        assert direction["count"] > 25
        assert 0 <= direction["median"] <= direction["high"]
    errors = {
        (row["program"], row["from"]): abs(row["predicted"] / row["stated"] - 1)
        for row in data["rows"]
        if row["target"] == "tpu-v5e"
    }
    modules = found["modules"]
    assert modules["pairs"] == 2
    assert modules["worst"] == max(errors.values()) == errors[modules["worst_program"], modules["worst_from"]]
    assert modules["median"] in errors.values()
    for row in data["rows"]:
        assert row["predicted"] == pytest.approx(row["stated"], rel=0.5)
    lines = [line.split() for line in done.out.splitlines() if line]
    assert [line[0] for line in lines] == [
        "target", "tpu-v4", "tpu-v4", "tpu-v5e", "tpu-v5e",
        "target", "tpu-v4", "tpu-v5e",
    ]  # fmt: skip
    assert lines[3][1:5] == ["default", "to", "slow", str(found["instructions"]["default"]["count"])]


def test_directions_are_opposite(run: Run, few_dumps: Path, tmp_path: Path) -> None:
    """What leaves fast memory takes longer: no mix-up of the two would have these signs."""
    assert run("bench", "fidelity", "--targets", "tpu-v5e", "--json", tmp_path / "f.json").status == 0
    rows = json.loads((tmp_path / "f.json").read_text())["rows"]
    for default, slow in zip(rows[::2], rows[1::2], strict=True):
        assert default["stated"] > slow["stated"]  # of the module predicted: from default, that in slow memory
        assert default["predicted"] > slow["predicted"]


def test_a_choice_of_targets_and_markdown(run: Run, few_dumps: Path) -> None:
    lines = run("bench", "fidelity", "--targets", "tpu-v4", "--markdown").out.splitlines()
    assert [line.split("|")[1].strip() if line else "" for line in lines] == [
        "target", "---", "tpu-v4", "tpu-v4", "", "target", "---", "tpu-v4",
    ]  # fmt: skip


@pytest.mark.parametrize("program", ["lstm.tpu-v5e", "neural_ode.tpu-v5e", "mlp_mixer.tpu-v5e", "mlp_mixer.tpu-v6e"])
@pytest.mark.parametrize("variant", ["default", "slow"])
def test_a_module_predicts_itself(program: str, variant: str) -> None:
    target = load_target(program.split(".")[1])
    graph = read(workloads.dumps_folder() / f"{program}.{variant}.hlo.txt.gz")
    assert predicted_busy(graph, graph, target) == pytest.approx(score(graph, target).busy, rel=1e-3)


def test_prefetches_of_parts_are_left_out() -> None:
    target = load_target("tpu-v6e")
    graph = read(workloads.dumps_folder() / "mlp_mixer.tpu-v6e.default.hlo.txt.gz")
    problem = build(graph, target).problem
    given = problem.given
    assert given is not None
    starts = problem.access_start
    seconds = {"slice-start": 0.0, "other": 0.0}
    for t, operation in enumerate(problem.operations):
        spaces = [given.residencies[residency].space for residency in given.served[starts[t] : starts[t + 1]]]
        kind = operation.opcode if operation.opcode == "slice-start" else "other"
        seconds[kind] += operation.duration(spaces) * problem.runs_at(t)
    assert seconds["slice-start"] > 0.05 * seconds["other"]
    assert predicted_busy(graph, graph, target) == pytest.approx(seconds["other"], rel=1e-3)


class Compiled(TpuCompiler):
    """Has the dumps of one program."""

    def compile(self, module: bytes, topology: str, options: Any = None, order: Any = None) -> CompiledModule:
        if options and SORT_ORDER in options:
            raise CompileError("no such", "refused")
        variant = "slow" if options else "default"
        packed = (workloads.dumps_folder() / f"lstm.tpu-v5e.{variant}.hlo.txt.gz").read_bytes()
        return CompiledModule(gzip.decompress(packed).decode(), 0.0, cached=False)


def test_compiled_variants(run: Run, few_dumps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_fidelity, "TpuCompiler", Compiled)
    monkeypatch.setattr(bench_fidelity, "CHEAP", ("lstm",))
    done = run("bench", "fidelity", "--compile", "--targets", "tpu-v5e", "--json", tmp_path / "f.json")
    assert done.status == 0
    assert any("random 0: no such" in line for line in done.err.splitlines())
    rows = json.loads((tmp_path / "f.json").read_text())["rows"]
    compiled = [row for row in rows if row["program"] == "lstm, compiled"]
    # Two variants that place everything alike are not compared.
    assert [(row["from"], row["to"]) for row in compiled] == [
        ("default", "slow"), ("default", "no cross-program"), ("slow", "default"), ("no cross-program", "default"),
    ]  # fmt: skip
    dumped = {(row["from"], row["to"]): row["predicted"] for row in rows if row["program"] == "lstm"}
    for row in compiled:
        there, back = (name.replace("no cross-program", "slow") for name in (row["from"], row["to"]))
        assert row["predicted"] == pytest.approx(dumped[there, back])


def test_mistakes(run: Run, few_dumps: Path) -> None:
    assert "no pair of dumps is shipped for h200" in run("bench", "fidelity", "--targets", "h200").errors[0]
    assert run("bench", "fidelity", "--targets", "tpu-v9").status == 2
