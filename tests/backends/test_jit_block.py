"""`memplan.planned`: what libraries jit by themselves is compiled with a plan."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from libtpu_process import run_with_libtpu
from order_programs import X, compiled, entry_order, temporaries

import memplan
from memplan.backends.jit import block, machine


def test_what_is_compiled_in_it_runs_in_the_order_of_least_memory() -> None:
    usual = compiled()
    with memplan.planned(least_bytes=0) as made:
        ours = compiled()
    assert temporaries(ours) < temporaries(usual) / 2
    np.testing.assert_allclose(ours(X), usual(X), rtol=1e-6)
    assert [program.name for program in made.programs] == ["jit_step"]
    assert str(made) == "jit_step on cpu: in the order of least memory"
    assert entry_order(compiled()) == entry_order(usual)


def test_only_large_programs_of_this_thread_are_planned() -> None:
    with memplan.planned(least_bytes=2 * X.nbytes) as made:
        jax.jit(lambda x: jnp.sin(x) * 3.0)(X)
        jax.jit(lambda x: (x[:, :32] * 3.0).sum())(X)
        other = threading.Thread(target=lambda: jax.jit(lambda x: jnp.cos(x) * 3.0)(X))
        other.start()
        other.join()
    assert len(made.programs) == 1
    assert made.small == 1


@pytest.mark.parametrize(
    ("dtype", "each"), [(jnp.float32, 4), (jnp.bfloat16, 2), (jnp.complex64, 8), (jnp.int8, 1), (jnp.bool_, 1)]
)
def test_bytes_are_those_of_arguments_and_results(dtype: Any, each: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    theirs = block._bytes_of
    monkeypatch.setattr(block, "_bytes_of", lambda request: seen.append(theirs(request)) or seen[-1])
    with memplan.planned():
        jax.jit(lambda x, y: (x, y)).lower(jnp.zeros((2, 4), dtype), jnp.zeros((), dtype)).compile()
    assert seen[-1] == 2 * 9 * each


def test_memplan_jit_within_it_plans_by_itself() -> None:
    with memplan.planned(least_bytes=0) as made:
        memplan.jit(lambda x: jnp.tanh(x) @ x)(X)
        memplan.jit(lambda x: jnp.tanh(x) @ x * 2.0).lower(X).compile()
    assert made.programs == []
    assert str(made) == "nothing was compiled: is it compiled already?"


def test_what_cannot_be_planned_is_compiled_as_by_jax(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: Any) -> Any:
        raise memplan.MemplanError("no compiler\nhere")

    monkeypatch.setattr(machine, "target_of", lambda _: "tpu-v5e")
    monkeypatch.setattr(block, "plan_module", refused)
    with caplog.at_level(logging.WARNING, "memplan"), memplan.planned(least_bytes=0) as made:
        np.testing.assert_array_equal(jax.jit(lambda x: x + 2.0)(X), X + 2.0)
    assert str(made) == "jit__lambda on cpu: as by jax.jit: no compiler here"
    assert caplog.messages == ["memplan.planned: jit__lambda is compiled as by jax.jit: no compiler here"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"planner": "oracle"}, "oracle"),
        ({"effort": "heroic"}, "heroic"),
        ({"compile_budget": 0}, "compile_budget must be an integer of at least 1, not 0"),
        ({"least_bytes": -1}, "least_bytes must be an integer of at least 0, not -1"),
        ({"least_bytes": "1MiB"}, "least_bytes must be an integer of at least 0, not '1MiB'"),
    ],
)
def test_mistakes(given: dict[str, Any], message: str) -> None:
    with pytest.raises(memplan.MemplanError, match=message), memplan.planned(**given):
        pass


def test_equinox_trains_as_without() -> None:
    eqx = pytest.importorskip("equinox")

    def trained() -> Any:
        model = eqx.nn.MLP(4, 2, 16, 2, key=jax.random.key(0))
        x, y = jnp.ones((8, 4)), jnp.zeros((8, 2))

        @eqx.filter_jit
        def step(model: Any) -> Any:
            gradient = eqx.filter_grad(lambda model: jnp.mean((jax.vmap(model)(x) - y) ** 2))(model)
            return eqx.apply_updates(model, jax.tree.map(lambda g: None if g is None else -0.1 * g, gradient))

        for _ in range(3):
            model = step(model)
        return eqx.filter(model, eqx.is_array)

    usual = trained()
    with memplan.planned(least_bytes=0) as made:
        ours = trained()
    assert any("step" in program.name for program in made.programs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, usual)


@pytest.mark.slow
def test_nnx_updates_its_state_as_without() -> None:
    nnx = pytest.importorskip("flax.nnx")

    def trained() -> Any:
        model = nnx.Sequential(nnx.Linear(4, 16, rngs=nnx.Rngs(0)), nnx.BatchNorm(16, rngs=nnx.Rngs(1)))
        x = jnp.arange(32.0).reshape(8, 4)

        @nnx.jit
        def step(model: Any) -> None:
            gradient = nnx.grad(lambda model: jnp.mean(model(x) ** 2))(model)
            nnx.update(model, jax.tree.map(lambda p, g: p - 0.1 * g, nnx.state(model, nnx.Param), gradient))

        for _ in range(3):
            step(model)
        return nnx.state(model)

    usual = trained()
    with memplan.planned(least_bytes=0) as made:
        ours = trained()
    assert any("step" in program.name for program in made.programs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), ours, usual)


ON_A_TPU = """
import jax, jax.numpy as jnp, memplan, numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

jax.config.update("jax_traceback_in_locations_limit", 0)  # texts do not tell from where they were compiled
devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices

def compiled(sharding=SingleDeviceSharding(devices[0])):
    def step(x, w):
        return jax.nn.relu(x @ w) + x
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding) for shape in ((8192, 512), (512, 512))]
    return jax.jit(step).lower(*shapes).compile()

usual = compiled().as_text()
with memplan.planned(compile_budget=3) as made:
    ours = compiled().as_text()
    compiled(NamedSharding(Mesh(np.array(devices).reshape(4), "d"), PartitionSpec("d")))
one, four = made.programs
assert one.ratio < 1.0 and ours != usual, str(made)
assert four.ratio is not None and four.ratio <= 1.0, str(made)
assert compiled().as_text() == usual
"""


@pytest.mark.tpu
@pytest.mark.slow
def test_a_program_for_a_tpu_gets_the_options_of_its_plan(tmp_path: Path) -> None:
    run_with_libtpu(ON_A_TPU, MEMPLAN_CACHE=str(tmp_path), JAX_COMPILATION_CACHE_DIR="")
