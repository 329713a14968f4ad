"""`memplan bench sharded`, on a compiler that answers at once, and its programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import pytest

from memplan.backends.jit.lowering import lower_for_tpu
from memplan.backends.tpu.compile import CompiledModule, CompileError, TpuCompiler
from memplan.backends.tpu.devices import partitions_of
from memplan.cli.bench import sharded as bench_sharded
from memplan.workloads import sharded

Run = Callable[..., Any]

TEXT = """HloModule m, is_scheduled=true, num_partitions={partitions}
ENTRY e {{
  x = f32[1024,1024]{{1,0}} parameter(0)
  a = f32[1024,1024]{{1,0}} negate(x), backend_config={{"window_config":{{"estimated_cycles":"{cycles}"}}}}
  ROOT b = f32[1024,1024]{{1,0}} abs(a), backend_config={{"window_config":{{"estimated_cycles":"60000"}}}}
}}"""


class Compiler(TpuCompiler):
    """Answers at once: options are faster than none. It refuses programs for another slice than v5e:2x2."""

    def compile(self, module: bytes, topology: str, options: Any = None, order: Any = None, devices: Any = ()) -> Any:
        if topology != "v5e:2x2":
            raise CompileError(f"the TPU compiler refused: {topology}", "refused")
        return CompiledModule(TEXT.format(partitions=4, cycles=30_000 if options else 60_000), 0.5, cached=False)


@pytest.mark.parametrize("made", sharded.PROGRAMS, ids=lambda made: made.name)
def test_programs_are_divided_over_their_devices(made: sharded.ShardedProgram) -> None:
    fun, args = made.build(made.mesh(), tiny=True)
    traced = jax.jit(fun, donate_argnums=made.donate_argnums).trace(*args)
    assert partitions_of(lower_for_tpu(traced).compiler_ir("stablehlo")) == made.devices
    assert made.name.endswith("_train") == (made.donate_argnums == (0,))


def test_twenty_programs_of_two_four_and_eight_devices() -> None:
    assert len({made.name for made in sharded.PROGRAMS}) == 20
    assert {made.devices for made in sharded.PROGRAMS} == {2, 4, 8}


def test_rows_and_table(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench_sharded, "TpuCompiler", Compiler)
    file = tmp_path / "sharded.json"
    names = "attention_ring_2,attention_heads_4,transformer_fully_sharded_8"
    arguments = ("bench", "sharded", "--programs", names, "--planner", "greedy", "--effort", "fast", "--json", file)
    done = run(*arguments, "--markdown")
    assert done.status == 0
    two, four, eight = json.loads(file.read_text())["rows"]
    assert (two["devices"], four["devices"], eight["devices"]) == (2, 4, 8)
    assert two["ratio"] == four["ratio"] == 0.75
    assert eight["error"] == "the TPU compiler refused: v5e:2x4"
    lines = done.out.splitlines()
    assert lines[2].startswith("| attention_ring_2 | ring | 2 | tpu-v5e | 120,000 | 90,000 | 0.750 |")
    assert lines[-1] == (
        "Geometric means of the ratios: 2 devices 0.750 (1 of 1 better), 4 devices 0.750 (1 of 1 better), "
        "all 0.750 (2 of 2 better); the worst is 0.750."
    )
    assert run(*arguments, "--resume").status == 0
    assert len(json.loads(file.read_text())["rows"]) == 3


def test_mistakes(run: Run) -> None:
    assert "there is no 'lstm'" in run("bench", "sharded", "--programs", "lstm").err
    rows: list[Mapping[str, Any]] = []
    assert bench_sharded.summarize(rows)["all"]["programs"] == 0  # type: ignore[arg-type]
