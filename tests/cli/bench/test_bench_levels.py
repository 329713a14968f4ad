"""`memplan bench levels`, on problems that take no time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from memplan.cli.bench.level_methods import (
    BUDGETS,
    COLUMNS,
    TOKENS,
    forward,
    method_cells,
    method_rows,
    trained_network,
)
from memplan.cli.main import main
from memplan.passes.levels.network import METHODS


def test_every_kind_has_a_row_and_is_proven(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "levels.json"
    assert main(["bench", "levels", "--sizes", "20", "--levels", "4", "--json", str(file)]) == 0
    assert capsys.readouterr().out.count("optimal") >= 4
    rows = json.loads(file.read_text())["rows"]
    assert [row["kind"] for row in rows] == ["random", "bits", "noisy", "subset"]
    assert all(row["gap"] <= 1e-9 for row in rows)
    assert all(row["uniform"] is None or row["uniform"] >= 0 for row in rows)


def test_the_mix_is_compared_at_the_bytes_of_uniform_choices() -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    params = {
        name: jax.random.normal(key, (16, 16)) * scale
        for name, key, scale in zip("abc", keys, (0.1, 1, 9), strict=True)
    }

    def fun(params: Any, x: jax.Array) -> jax.Array:
        return x @ params["a"] + x @ params["b"] + x @ params["c"]

    rows = list(method_rows("mixed-precision", (fun, (params, jnp.eye(16)))))
    assert [row["uniform"] for row in rows] == ["4 bits", "2 bits"]
    assert [row["budget"] for row in rows] == [3 * (128 + 64), 3 * (64 + 64)]
    assert rows[0]["measured"] < rows[0]["uniform_measured"]
    assert all(row["is_optimal"] and len(method_cells(row)) == len(COLUMNS) for row in rows)


def test_the_network_of_the_methods_has_something_for_each() -> None:
    params, tokens = jax.eval_shape(lambda: trained_network(steps=2, batch=3)[1])
    assert jax.eval_shape(forward, params, tokens).shape == (*tokens.shape, TOKENS)
    assert set(BUDGETS) == set(METHODS)
