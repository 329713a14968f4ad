"""What reductions need while they run on the CPU."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from training_programs import array

from memplan.compiler.hardware.target import load_target
from memplan.passes.fit.program import program_of


def workspaces(fun: Any, *args: Any, platform: str = "cpu") -> list[int]:
    made = program_of(jax.make_jaxpr(fun)(*args), load_target("generic"), platform=platform)
    return [node.workspace for node in made.problem.nodes]


def test_a_long_dimension_is_reduced_in_windows_and_what_is_computed_for_it_has_a_buffer() -> None:
    x = array(64, 8)
    assert workspaces(lambda x: (x * 2).sum(0), x) == [4 * (64 * 8 + 2 * 8)]
    assert workspaces(lambda x: x.sum(0), x) == [4 * 2 * 8]
    assert workspaces(lambda x: x.reshape(-1).max(), x) == [4 * 16]
    assert workspaces(lambda x: (x * 2).reshape(-1).max(), x) == [4 * (512 + 16)]


@pytest.mark.parametrize("fun", [lambda x: (x * 2).sum(1), lambda x: (x[:32] * 2).sum(0), lambda x: jnp.argmax(x, 0)])
def test_short_dimensions_and_reductions_of_pairs_run_in_one_step(fun: Any) -> None:
    assert workspaces(fun, array(64, 8)) == [0]


def test_a_product_of_vectors_is_a_product_of_elements_and_a_reduction() -> None:
    assert workspaces(jnp.vdot, array(32, 32), array(32, 32)) == [4 * (1024 + 32)]
    assert workspaces(jnp.vdot, array(32), array(32)) == [0]


def test_other_compilers_reduce_in_one_step() -> None:
    assert workspaces(lambda x: (x * 2).sum(0), array(64, 8), platform="tpu") == [0]
