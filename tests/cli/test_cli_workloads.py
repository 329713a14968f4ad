"""`memplan workloads`: what is listed, and how large it is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from memplan.cli.workloads import sizes_of
from memplan.workloads import Workload, names, workload
from memplan.workloads.registry import Built

Run = Callable[..., Any]


@pytest.fixture
def two_products(registries: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Workload:
    """Registers a workload of which all sizes are known; the registry holds no other, and the cache nothing."""
    from memplan.workloads import registry

    monkeypatch.setattr(registry._registry, "_items", {})
    monkeypatch.setenv("MEMPLAN_CACHE", str(tmp_path))

    @workload("two products in a loop", family="graph", source="a test", kind="training", donate_argnums=(1,))
    def two_products(tiny: bool = False) -> Built:
        def step(params: jax.Array, x: jax.Array) -> jax.Array:
            return jax.lax.fori_loop(0, 2, lambda _, x: x @ params, x)

        return step, (jax.ShapeDtypeStruct((8, 8), jnp.float32), jax.ShapeDtypeStruct((4, 8), jnp.float32))

    return two_products


def test_sizes(two_products: Workload) -> None:
    sizes = sizes_of(two_products)
    assert sizes["parameters"] == 64
    # The products, and the counter of the loop.
    assert 2 * 2 * 4 * 8 * 8 <= sizes["flops"] <= 2 * 2 * 4 * 8 * 8 + 10
    assert 2 * 4 * (64 + 2 * 32) <= sizes["bytes"] <= 2 * 4 * (64 + 2 * 32) + 100


def test_filters_and_json(run_unprepared: Run, two_products: Workload) -> None:
    rows = json.loads(run_unprepared("workloads", "--sizes", "--json").out)
    assert [row["name"] for row in rows] == names() == ["two_products"]
    assert rows[0]["split"] == "held-out"
    assert rows[0]["source"] == "a test"
    assert rows[0]["parameters"] == 64
    assert json.loads(run_unprepared("workloads", "--json", "--kind", "inference").out) == []
    assert json.loads(run_unprepared("workloads", "--json", "--split", "development").out) == []
    listed = run_unprepared("workloads", "--family", "graph", "--kind", "training").out
    assert "two_products" in listed
    assert "flops" not in listed
    assert "flops" in run_unprepared("workloads", "--sizes").out
    assert "no workload is of family 'x'; families: graph" in run_unprepared("workloads", "--family", "x").errors[0]


def test_a_plain_list_traces_nothing(run_unprepared: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workload, "build", property(lambda _: pytest.fail("it is not needed")), raising=False)
    rows = json.loads(run_unprepared("workloads", "--json").out)
    assert [row["name"] for row in rows] == names()
    assert set(rows[0]) == {"name", "description", "family", "kind", "split", "source"}


def test_the_sizes_of_built_in_workloads_are_kept(
    run_unprepared: Run, registries: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from memplan.cli import workloads as command

    monkeypatch.setenv("MEMPLAN_CACHE", str(tmp_path))
    first = run_unprepared("workloads", "--family", "state-space", "--kind", "inference", "--sizes", "--json").out
    monkeypatch.setattr(command, "sizes_of", lambda _: pytest.fail("it is in the cache"))
    assert (
        run_unprepared("workloads", "--family", "state-space", "--kind", "inference", "--sizes", "--json").out == first
    )
