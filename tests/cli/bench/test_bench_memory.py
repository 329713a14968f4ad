"""`memplan bench memory`: our packing against XLA's, on modules that XLA compiles here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memplan.cli.bench import memory as bench_memory
from memplan.compiler.effort import Effort

Run = Callable[..., Any]

PROGRAMS = """
import jax, jax.numpy as jnp

def wide():
    def fun(x):
        branches = [jnp.sin(x * i).reshape(-1)[:, None] * jnp.ones((1, 8)) for i in range(6)]
        return sum((jnp.cumsum(branch, 0).sum(0) for branch in branches), jnp.zeros(8))
    return fun, (jax.ShapeDtypeStruct((64, 256), jnp.float32),)

def broken():
    return (lambda x: jnp.dot(x, x)), (jax.ShapeDtypeStruct((64, 256), jnp.float32),)
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory_programs.py").write_text(PROGRAMS)
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_rows_and_summary(run: Run, programs: None, tmp_path: Path) -> None:
    done = run("bench", "memory", "--workloads", "memory_programs:wide,lstm", "--effort", "fast", "--json", "m.json")
    assert done.status == 0
    data = json.loads((tmp_path / "m.json").read_text())
    rows = {(row["workload"], row["order"]): row for row in data["rows"]}
    assert list(rows) == [(w, o) for w in ("memory_programs:wide", "lstm") for o in ("xla", "memplan")]
    for row in rows.values():
        assert row["load"] <= row["memplan"] <= row["xla"]
        assert row["ratio"] == row["memplan"] / row["xla"]
    wide = [rows["memory_programs:wide", order] for order in ("xla", "memplan")]
    assert wide[1]["memplan"] < 0.6 * wide[0]["xla"]
    assert data["summary"]["xla"]["modules"] == 2
    assert data["summary"]["xla"]["more"] == 0
    assert data["summary"]["both"]["mean_ratio"] < 0.9
    assert [line.split()[0] for line in done.out.splitlines() if line][:3] == [
        "workload", "memory_programs:wide", "memory_programs:wide",
    ]  # fmt: skip


def test_markdown(run: Run, programs: None) -> None:
    lines = run("bench", "memory", "--workloads", "memory_programs:wide", "--markdown").out.splitlines()
    assert [line.split("|")[1].strip() for line in lines] == [
        "workload", "---", "memory_programs:wide", "geometric mean",
    ]  # fmt: skip


def test_the_peak_is_told_beside_what_xla_assigns(run: Run, programs: None, tmp_path: Path) -> None:
    done = run("bench", "memory", "--workloads", "memory_programs:wide", "--peak", "--json", "p.json")
    (row,) = json.loads((tmp_path / "p.json").read_text())["rows"]
    assert row["sum_of_lines"] == row["peak"]
    assert abs(row["xla"] - row["explained"]) <= 64
    assert f"{row['peak']:,}" in done.out
    assert run("bench", "memory", "--workloads", "memory_programs:broken", "--peak").status == 2


def test_what_does_not_compile_is_told_and_left_out(run: Run, programs: None) -> None:
    done = run("bench", "memory", "--workloads", "memory_programs:broken")
    assert done.status == 2
    assert "memory_programs:broken, xla's order: it does not compile: TypeError" in done.err
    assert "no program could be compiled" in done.errors[0]


def test_takeovers_share_one_block() -> None:
    import jax
    import jax.numpy as jnp

    from memplan.backends.cpu import compile_for_cpu

    def chain(x: jax.Array) -> jax.Array:
        for _ in range(3):
            x = jnp.sort(jnp.cumsum(x, 0), 0)
        return x.sum(0)

    module = compile_for_cpu(chain, (jax.ShapeDtypeStruct((512, 256), jnp.float32),))
    row = bench_memory.measured(module, Effort.FAST)
    assert row["memplan"] <= row["xla"]
    assert row["memplan"] == pytest.approx(row["load"], rel=1e-3)
