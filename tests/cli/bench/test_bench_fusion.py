"""`memplan bench fusion` and `memplan bench passes`, on programs that take no time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from memplan import workloads
from memplan.cli.bench import fusion as bench_fusion
from memplan.cli.bench import passes as bench_passes
from memplan.compiler.effort import Effort
from memplan.compiler.errors import MemplanError
from memplan.compiler.frontends.reader import read
from memplan.compiler.hardware.target import load_target
from memplan.compiler.mapping.build import build_problem
from memplan.workloads import Workload, registry


@pytest.fixture
def tiny() -> Iterator[str]:
    def build() -> tuple[Any, tuple[Any, ...]]:
        x = jax.ShapeDtypeStruct((1024, 1024), jnp.float32)
        return lambda x, w: jnp.tanh(x @ w) * 2.0 + x, (x, x)

    workloads.register(Workload("tiny_layer", "one layer", build))
    yield "tiny_layer"
    registry._registry._items.pop("tiny_layer")


def test_traffic_is_what_is_read_and_written_in_slow_memory(tiny: str, tmp_path: Path) -> None:
    file = tmp_path / "fusion.json"
    bench_fusion.command(tiny, "tpu-v5e", "greedy", Effort.FAST, None, False, file)
    saved = json.loads(file.read_text())
    (row,) = saved["rows"]
    size = 4 << 20
    assert row["unfused"]["traffic"] == 10 * size + 4  # product 3, tanh 2, scaled by a scalar 2, sum 3
    assert row["fused"]["traffic"] == 3 * size
    assert row["groups"] == 1
    assert "xla" not in row
    assert row["fused"]["latency"] <= row["unfused"]["latency"]
    assert saved["summary"]["least_traffic_factor"] == pytest.approx(10 / 3)


def test_a_table_in_markdown(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    bench_fusion.command(tiny, "tpu-v5e", "greedy", Effort.FAST, None, True, None)
    assert "| tiny_layer | 1 | 0.04 | 0.01 | 3.3x |" in capsys.readouterr().out


def test_a_compiled_module_is_costed_as_ours_are(dump: Path) -> None:
    target = load_target("tpu-v5e")
    graph = read(dump)
    problem = build_problem(bench_fusion.without_estimates(graph), target)
    # By the roofline nothing is faster than its data allows, whatever the compiler said.
    for operation in problem.operations:
        for access in operation.accesses:
            assert access.cost[0] == pytest.approx(access.bytes / target.spaces[0].bandwidth)
    assert len(problem.operations) == len(build_problem(graph, target).operations)


@pytest.mark.parametrize(
    ("workload", "target", "planner"),
    [("nosuch", "tpu-v5e", "greedy"), ("tiny_layer", "nosuch", "greedy"), ("tiny_layer", "tpu-v5e", "nosuch")],
)
def test_unknown_names(tiny: str, workload: str, target: str, planner: str) -> None:
    with pytest.raises(MemplanError, match="nosuch"):
        bench_fusion.command(workload, target, planner, 5.0, False, None)


def test_every_pass_has_a_row_and_finds_something(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "passes.json"
    bench_passes.command("200", "tpu-v5e", 1, False, file)
    rows = json.loads(file.read_text())["rows"]
    assert {row["kind"] for row in rows} == {"jaxpr", "graph"}
    for kind in ("jaxpr", "graph"):
        found = {row["pass"]: row["found"] for row in rows if row["kind"] == kind}
        for name in ("inline", "constant_folding", "shape_cleanup", "common_subexpressions", "dead_code", "all"):
            assert name in found
        assert all(found[name] > 0 for name in ("inline", "constant_folding", "shape_cleanup", "common_subexpressions"))
        assert next(row["before"] for row in rows if row["kind"] == kind) >= 200
    assert "jaxpr of 200" in capsys.readouterr().out
