"""`memplan compile` and `memplan bench tpu`, on a compiler that answers at once, and once on the real one."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from fake_compiler import FakeCompiler, program, refusal

from memplan.backends.jit.planning import TpuProgram
from memplan.backends.tpu import optimize as optimizer
from memplan.backends.tpu.compile import CompileError
from memplan.backends.tpu.steering import SCOPED_LIMIT, SORT_ORDER
from memplan.cli.bench import tpu as bench_tpu
from memplan.cli.compile import DECISIONS, MODULES
from memplan.cli.programs import Program
from memplan.compiler.effort import Effort
from memplan.compiler.errors import MemplanError
from memplan.compiler.hardware.target import load_target
from memplan.compiler.report.files import FILES

Run = Callable[..., Any]

SOURCE = """
import jax, jax.numpy as jnp
def tiny():
    return (lambda x: jnp.tanh(x @ x) @ x), (jax.ShapeDtypeStruct((512, 512), jnp.bfloat16),)
"""


def obedient(options: Any) -> str:
    return program("abc" if SORT_ORDER in options else "")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCompiler:
    compiler = FakeCompiler(obedient)
    monkeypatch.setattr(optimizer, "TpuCompiler", lambda: compiler)
    monkeypatch.setattr(bench_tpu, "TpuCompiler", lambda: compiler)
    return compiler


def test_default_against_ours(run: Run, fake: FakeCompiler) -> None:
    done = run("compile", "lstm", "--effort", "fast")
    assert done.status == 0
    first = done.out.splitlines()[0]
    assert first.startswith("lstm on tpu-v5e: XLA's default 240,000 cycles, ours ")
    assert "% faster" in first
    assert "plan, size x time" in done.out
    assert "7 decisions of the plan differ from the default: 7 obeyed" in done.out


def test_several_devices(run: Run, fake: FakeCompiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = SOURCE + (
        "def halves(mesh):\n"
        "    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))\n"
        "    return jnp.tanh, (jax.ShapeDtypeStruct((512, 512), jnp.bfloat16, sharding=sharding),)\n"
    )
    (tmp_path / "sharded_of_mine.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    done = run("compile", "sharded_of_mine:halves", "--mesh", "data=8", "--compile-budget", "1")
    assert done.out.startswith("sharded_of_mine:halves (one partition, on v5e:2x4) on tpu-v5e: XLA's default ")
    assert fake.places == [("v5e:2x4", ())]
    assert "error: sharded_of_mine:tiny has no shardings" in run("compile", "sharded_of_mine:tiny", "--mesh", "2x2").err


def test_nothing_better(run: Run, fake: FakeCompiler) -> None:
    fake.answer = lambda options: program()
    done = run("compile", "lstm", "--compile-budget", "1")
    assert "(× 1.0000, nothing beat it)" in done.out
    assert len(fake.requests) == 1


NOTHING = """
HloModule jit_nothing, is_scheduled=true

ENTRY main {
  a = f32[4]{0} parameter(0)
  ROOT t = () tuple()
}
"""


def test_a_program_without_results(run: Run, fake: FakeCompiler, tmp_path: Path) -> None:
    fake.answer = lambda options: NOTHING
    done = run("compile", "lstm", "--effort", "fast", "--report", tmp_path / "report")
    assert done.status == 0
    assert "XLA's default 0 cycles, ours 0 (× 1.0000, nothing beat it)" in done.out
    assert json.loads(run("compile", "lstm", "--effort", "fast", "--json").out)["ratio"] == 1.0
    (row,) = [bench_tpu.row_of("nothing", optimizer.optimize(b"", load_target("tpu-v5e")))]
    assert bench_tpu.summarize([row])["all"]["mean_ratio"] == 1.0


def test_an_error_is_short_in_the_table_and_whole_in_the_json(run: Run, fake: FakeCompiler) -> None:
    error = "no room " * 40

    def answer(options: Any) -> str:
        if SCOPED_LIMIT in options:
            raise refusal(error)
        return program()

    fake.answer = answer
    lines = run("compile", "lstm", "--effort", "fast").out.splitlines()
    (told,) = [line for line in lines if line.startswith("scoped limit 32768 KiB")]
    assert told.endswith("…")
    candidates = json.loads(run("compile", "lstm", "--effort", "fast", "--json").out)["candidates"]
    assert error in next(c["error"] for c in candidates if c["name"] == "scoped limit 32768 KiB")


def test_files(run: Run, fake: FakeCompiler, tmp_path: Path) -> None:
    done = run(
        "compile", "lstm", "--effort", "fast", "--report", tmp_path / "report", "--out", tmp_path / "ours.hlo.txt.gz"
    )
    assert done.status == 0
    assert {path.name for path in (tmp_path / "report").iterdir()} == {*FILES, *MODULES, *DECISIONS}
    ours = gzip.decompress((tmp_path / "ours.hlo.txt.gz").read_bytes()).decode()
    assert ours == program("abc")
    default = gzip.decompress((tmp_path / "report" / MODULES[0]).read_bytes()).decode()
    assert default == program()
    decisions = json.loads((tmp_path / "report" / DECISIONS[1]).read_text())
    assert len(decisions) == 7
    lines = (tmp_path / "report" / DECISIONS[0]).read_text().splitlines()
    assert "obeyed: a result, a, 4.00 MiB: wanted fast, found fast" in lines


def test_json(run: Run, fake: FakeCompiler) -> None:
    data = json.loads(run("compile", "lstm", "--effort", "fast", "--json").out)
    assert data["target"] == "tpu-v5e"
    assert data["ratio"] < 1
    assert data["candidates"][0]["name"] == "default"
    assert data["candidates"][0]["cycles"] == pytest.approx(240_000)
    assert {decision["state"] for decision in data["decisions"]} == {"obeyed"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lsmt"], "no workload is called 'lsmt'"),
        (["lstm", "--target", "h200"], "no compiler carries out plans for h200, only for tpu-7x"),
        (["lstm", "--target", "tpu-v9"], "tpu-v9"),
        (["lstm", "--planner", "best"], "no planner is called 'best'"),
        (["lstm", "--compile-budget", "0"], "a compile budget must be at least 1, not 0"),
        (["lstm", "--time-limit", "0"], "a time limit must be a positive number of seconds, not 0.0"),
        (["lstm", "--out", "/nowhere/at/all.txt"], "there is no folder /nowhere/at"),
        (["no_such_module:f"], "there is no module no_such_module"),
    ],
)
def test_mistakes(run: Run, fake: FakeCompiler, arguments: list[str], message: str) -> None:
    done = run("compile", *arguments)
    assert done.status == 2
    (error,) = done.errors
    assert message in error
    assert fake.requests == []


def test_a_compile_that_fails_is_one_line(run: Run, fake: FakeCompiler) -> None:
    def answer(options: Any) -> str:
        raise CompileError("the TPU compiler is not installed: pip install 'memplan[tpu]'", "missing")

    fake.answer = answer
    done = run("compile", "lstm")
    assert (done.status, done.out) == (2, "")
    assert done.errors == ["memplan: error: the TPU compiler is not installed: pip install 'memplan[tpu]'"]


def test_bench(run: Run, fake: FakeCompiler, tmp_path: Path) -> None:
    file = tmp_path / "tpu.json"
    arguments = ("--workloads", "lstm,neural_ode", "--targets", "tpu-v5e,tpu-v5p", "--effort", "fast")
    done = run("bench", "tpu", *arguments, "--json", file)
    assert done.status == 0
    data = json.loads(file.read_text())
    pairs = [(row["workload"], row["target"]) for row in data["rows"]]
    assert pairs == [(w, t) for w in ("lstm", "neural_ode") for t in ("tpu-v5e", "tpu-v5p")]
    summary = data["summary"]
    assert summary["all"]["programs"] == 4
    assert summary["tpu-v5e"]["better"] == 2
    assert summary["tpu-v5e"]["mean_ratio"] == pytest.approx(data["rows"][0]["ratio"])
    assert summary["all"]["worst_ratio"] <= 1.0
    assert summary["all"]["median_prediction_error"] >= 0.0
    table = run("bench", "tpu", *arguments, "--markdown").out.splitlines()
    assert table[0] == (
        "| workload | tpu-v5e, plan alone | tpu-v5e, everything on | tpu-v5p, plan alone | tpu-v5p, everything on |"
    )
    assert table[-1].startswith("| geometric mean | **0.")
    # No pass changes these two.
    assert [row["everything"] for row in data["rows"]] == [row["ratio"] for row in data["rows"]]


def test_bench_goes_on_after_a_failure(run: Run, fake: FakeCompiler, tmp_path: Path) -> None:
    def answer(options: Any) -> str:
        if len(fake.requests) == 1:
            raise CompileError("this jax cannot print the module", "unprintable")
        return obedient(options)

    fake.answer = answer
    done = run(
        "bench",
        "tpu",
        "--workloads",
        "lstm,neural_ode",
        "--targets",
        "tpu-v5e",
        "--effort",
        "fast",
        "--json",
        tmp_path / "f",
    )
    assert done.status == 0
    first, second = json.loads((tmp_path / "f").read_text())["rows"]
    assert first["error"] == "this jax cannot print the module"
    assert second["ratio"] < 1
    assert "| lstm | – | – |" in bench_tpu.markdown_table([first, second]).splitlines()


def test_bench_goes_on_after_a_workload_that_does_not_lower(
    run: Run, fake: FakeCompiler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def lower(found: Any) -> bytes:
        if found.name == "lstm":
            raise MemplanError("lstm does not trace")
        return b""

    monkeypatch.setattr(bench_tpu, "lower_for_tpu", lower)
    arguments = ("--workloads", "lstm,neural_ode", "--targets", "tpu-v5e,tpu-v5p", "--effort", "fast")
    done = run("bench", "tpu", *arguments, "--json", tmp_path / "f")
    assert done.status == 0
    rows = json.loads((tmp_path / "f").read_text())["rows"]
    assert [row.get("error", "") for row in rows] == ["lstm does not trace"] * 2 + [""] * 2


def test_an_interrupted_bench_keeps_its_rows(run: Run, fake: FakeCompiler, tmp_path: Path) -> None:
    arguments = ("--targets", "tpu-v5e,tpu-v5p", "--compile-budget", "1", "--json", tmp_path / "f")

    def answer(options: Any) -> str:
        if len(fake.requests) == 2:
            raise KeyboardInterrupt
        return program()

    fake.answer = answer
    done = run("bench", "tpu", "--workloads", "lstm", *arguments)
    assert done.status == 130
    assert "memplan: lstm for tpu-v5e: 1.0000 of the default, by default" in done.err
    data = json.loads((tmp_path / "f").read_text())
    assert [row["target"] for row in data["rows"]] == ["tpu-v5e"]
    assert data["summary"]["all"]["programs"] == 1


def test_summary() -> None:
    def row(workload: str, ratio: float, *predictions: float) -> dict[str, Any]:
        pairs = [[prediction, 1.0] for prediction in predictions]
        return {"workload": workload, "target": "tpu-v4", "ratio": ratio, "predictions": pairs}

    failed = {"workload": "c", "target": "tpu-v4", "error": "no", "seconds": 1.0}
    rows = [row("a", 0.5, 1.01, 0.97), row("b", 1.0, 1.1, 1.2), failed]
    summary = bench_tpu.summarize(rows)["tpu-v4"]
    assert (summary["programs"], summary["better"]) == (2, 1)
    assert summary["mean_ratio"] == pytest.approx(0.5**0.5)
    assert (summary["best_ratio"], summary["worst_ratio"]) == (0.5, 1.0)
    assert summary["median_prediction_error"] == pytest.approx((0.03 + 0.1) / 2)
    assert summary["high_prediction_error"] == pytest.approx(0.2)
    many = bench_tpu.summarize([row("a", 1.0, *(1 + i / 100 for i in range(1, 101)))])["all"]
    assert many["high_prediction_error"] == pytest.approx(0.95)
    assert bench_tpu.summarize([failed])["all"]["mean_ratio"] is None


def test_everything_on_is_beside_the_default_of_the_program_as_given(fake: FakeCompiler) -> None:
    """A transform becomes products, and the program of those is planned."""
    given = Program("f", lambda x: jnp.fft.irfft(jnp.fft.rfft(x) ** 2), (jax.ShapeDtypeStruct((8, 8192), jnp.float32),))
    rewritten, passes = bench_tpu.after_passes(given)
    assert rewritten is not None
    assert passes == ("fft_to_matmul",)
    search = bench_tpu.Search("greedy", 2, Effort.FAST, None, fake)
    target = load_target("tpu-v5e")
    fake.answer = lambda options: program(cycles=60_000)
    row = search.row("f", TpuProgram(b"given"), target)
    fake.answer = lambda options: program(cycles=30_000)
    row |= search.everything(row, rewritten, passes, target)
    assert (row["ratio"], row["everything"]) == (1.0, 0.5)
    assert bench_tpu.summarize([row])["all"]["mean_everything"] == pytest.approx(0.5)
    unchanged = Program("g", jnp.tanh, given.args)
    assert bench_tpu.after_passes(unchanged) == (None, ())

    def refused(options: Any) -> str:
        raise CompileError("the TPU compiler refused: no", "refused")

    fake.answer = refused
    fallen = search.everything(row, rewritten, passes, target)
    assert (fallen["everything"], fallen["everything_best"]) == (1.0, "the TPU compiler refused: no")


def test_a_sweep_of_single_options_beside_the_search(run: Run, fake: FakeCompiler, tmp_path: Path) -> None:
    fake.answer = lambda options: program(cycles=50_000 if options.get(SCOPED_LIMIT) == "8192" else 60_000)
    arguments = ("--workloads", "lstm", "--targets", "tpu-v5e", "--effort", "fast", "--compile-budget", "3")
    done = run("bench", "tpu", *arguments, "--sweep", "--json", tmp_path / "f")
    (row,) = json.loads((tmp_path / "f").read_text())["rows"]
    assert row["compiles"] == 3
    assert row["sweep"] == row["ratio"] == pytest.approx(5 / 6)
    assert " sweep " in done.out.splitlines()[0]
    assert " sweep " not in run("bench", "tpu", *arguments).out.splitlines()[0]


def test_the_table_cuts_no_figure(run: Run, fake: FakeCompiler) -> None:
    lines = run("bench", "tpu", "--workloads", "transformer_scan_train", "--effort", "fast").out.splitlines()
    assert lines[0].split()[-4:] == ["compiles", "obeyed", "predicted", "seconds"]
    assert not any("…" in line for line in lines)
    assert any(line.startswith("all ") for line in lines)


@pytest.mark.slow
def test_bench_leaves_accelerators_alone(tmp_path: Path) -> None:
    script = (
        "from memplan.cli.bench.tpu import optimizer\n"
        "from memplan.cli.main import main\n"
        "from memplan.compiler.errors import MemplanError\n"
        "def optimize(*_, **__): raise MemplanError('stop')\n"
        "optimizer.optimize = optimize\n"
        "main(['bench', 'tpu', '--workloads', 'lstm', '--targets', 'tpu-v5e'])\n"
        "import jax; print(jax.config.jax_platforms)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == "cpu"


def test_bench_without_a_compiler_ends_at_once(run: Run, fake: FakeCompiler) -> None:
    def answer(options: Any) -> str:
        raise CompileError("the TPU compiler is not installed: pip install 'memplan[tpu]'", "missing")

    fake.answer = answer
    done = run("bench", "tpu", "--workloads", "lstm,neural_ode")
    assert done.status == 2
    assert done.errors == ["memplan: error: the TPU compiler is not installed: pip install 'memplan[tpu]'"]
    assert len(fake.requests) == 1


def test_mistakes_of_the_bench(run: Run, fake: FakeCompiler) -> None:
    assert "no workload is called 'x'" in run("bench", "tpu", "--workloads", "x").errors[0]
    assert "no planner is called 'x'" in run("bench", "tpu", "--planner", "x").errors[0]
    assert "--targets ,: it names nothing" in run("bench", "tpu", "--targets", ",").errors[0]
    assert "--workloads : it names nothing" in run("bench", "tpu", "--workloads", "").errors[0]
    assert "no compiler carries out plans" in run("bench", "tpu", "--targets", "mcu-256kb").errors[0]


@pytest.mark.tpu
def test_for_real(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny_program.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEMPLAN_CACHE", str(tmp_path / "cache"))
    data = json.loads(run("compile", "tiny_program:tiny", "--compile-budget", "2", "--json").out)
    assert data["ratio"] <= 1.0
    assert data["candidates"][0]["error"] == ""
