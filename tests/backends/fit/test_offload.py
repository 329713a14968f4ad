"""Values that are moved to the host of a TPU, by the word of its compiler."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from memplan.backends.fit.compilers import traced_of
from memplan.backends.fit.fit import fit
from memplan.backends.jit.lowering import lower_for_tpu
from memplan.backends.jit.planning import module_of
from memplan.backends.tpu.compile import TpuCompiler
from memplan.backends.tpu.devices import TOPOLOGY_OF_TARGET

MIB = 2**20


def step(w: Any, x: Any) -> Any:
    """Products that take longer to compute again than their results take to the host and back, beside the others."""

    def loss(x: Any) -> Any:
        y = x
        for _ in range(4):
            y, _ = lax.scan(lambda h, _: (h @ w, None), y, length=8)
            y = jnp.tanh(y)
        return jnp.sum(y * y)

    return jax.value_and_grad(loss)(x)


@pytest.mark.tpu
@pytest.mark.slow
def test_a_step_whose_values_are_dear_to_compute_moves_them_to_the_host() -> None:
    args = tuple(jax.ShapeDtypeStruct((rows, 4096), jnp.float32) for rows in (4096, 8192))
    result = fit(step, *args, limit="970MiB", target="tpu-v5e", effort="fast", compile_budget=3)
    assert result.default is not None
    assert result.default.total >= 1088 * MIB
    assert result.memory.total <= 970 * MIB
    moved = [each for each in result.decisions if each.decision == "moved to the host"]
    assert moved
    assert all(each.size == 128 * MIB for each in moved)
    assert not any(each.decision == "computed again" for each in result.decisions)
    assert result.added_seconds < 0.01 * result.seconds
    # The module that was compiled copies to the memory of the host, which is S(5), and back.
    compiler = TpuCompiler()
    try:
        lowered = lower_for_tpu(traced_of(result.closed, (False, False), "step"))
        compiled = compiler.compile(module_of(lowered), TOPOLOGY_OF_TARGET["tpu-v5e"])
    finally:
        compiler.close()
    copies = [line for line in compiled.text.splitlines() if " copy-start(" in line and "S(5)" in line]
    assert len(copies) == 2 * len(moved)
    assert compiled.memory is not None
    assert compiled.memory["host_temp_size_in_bytes"] == sum(each.size for each in moved)
