"""Programs of several devices, which XLA partitions, under a limit of each device. They run in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import training_programs

_PROGRAM = """
import json
import sys

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from training_programs import mlp, scanned, threshold_planner

import memplan
from memplan.backends.tpu.compile import CompiledModule, TpuCompiler

mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("data", "model"))


def placed(x, *spec):
    return jax.device_put(x, NamedSharding(mesh, P(*spec)))


def fitted(step, args, share, **options):
    default = jax.jit(step, **options).lower(*args).compile()
    stats = default.memory_analysis()
    interface = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    limit = interface + int(share * stats.temp_size_in_bytes)
    result = memplan.fit(step, *args, limit=limit, effort="fast", planner=threshold_planner, **options)
    expected = default(*jax.tree.map(lambda x: x.copy(), args))
    got = result(*args)
    pairs = list(zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True))
    return {
        "fits": result.memory.total <= limit < interface + stats.temp_size_in_bytes,
        "is_default": result.is_default,
        "close": all(np.allclose(a, b, rtol=2e-5, atol=2e-6) for a, b in pairs),
        "shardings": all(a.sharding.is_equivalent_to(b.sharding, a.ndim) for a, b in pairs),
        "predicted": result.attempts[1].predicted / result.attempts[1].stated,
        "again": [d.shape for d in result.decisions if d.decision == "computed again"],
    }


def refused(call):
    try:
        call()
    except memplan.MemplanError as error:
        return str(error)
    return None


def for_tpus(step, *args):
    # A compiler that says that the program as given needs much, and every other one little.
    asked = []

    def compile(self, module, topology, options=None, order=None, devices=()):
        asked.append((topology, devices, b"optimization_barrier" in module))
        kinds = dict.fromkeys(("argument", "output", "alias"), 0) | {"temp": 10**7 if len(asked) == 1 else 10}
        return CompiledModule("", 0.0, False, {f"{kind}_size_in_bytes": size for kind, size in kinds.items()})

    TpuCompiler.compile = compile
    result = memplan.fit(step, *args, limit="8MB", target="tpu-v5e", effort="fast", planner=threshold_planner)
    return {"asked": asked, "sizes": [d.shape for d in result.decisions], "temporaries": result.memory.temporaries}


step, (params, x) = mlp(layers=3, batch=512)
whole = [(placed(up), placed(down)) for up, down in params]
parts = [(placed(up, None, "model"), placed(down, "model")) for up, down in params]
data = placed(x, "data")
loop, (stacked, y, scale) = scanned(layers=3, batch=512)
loop_args = (jax.tree.map(placed, stacked), placed(y, ("data", "model")), placed(scale))
body = jax.shard_map(lambda w, x: x @ w, mesh=mesh, in_specs=(P(), P("data")), out_specs=P("data"))
small = "1GiB"
print(json.dumps({
    "data": fitted(step, (whole, placed(x, ("data", "model"))), 0.7),
    "model": fitted(step, (parts, data), 0.7, donate_argnums=0),
    "loop": fitted(loop, loop_args, 0.6),
    "shard_map": refused(lambda: memplan.fit(body, params[0][0], x, limit=small)),
    "gpu": refused(lambda: memplan.fit(step, parts, data, limit=small, target="h200")),
    "tpu": for_tpus(step, parts, data),
    "jit": refused(lambda: memplan.jit(step, memory_limit=small)(parts, data)),
}))
"""

_ON_TPUS = """
import json

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

import memplan
from memplan.backends.fit.fit import session_of

mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("data", "model"))


def shaped(shape, *spec):
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, P(*spec)))


def step(weights, x):
    def loss(weights):
        y = x
        for up, down in weights:
            y = y + jnp.tanh(y @ up) @ down
        return jnp.mean(y**2)

    return jax.tree.map(lambda w, g: w - 0.1 * g, weights, jax.grad(loss)(weights))


weights = [(shaped((512, 2048), None, "model"), shaped((2048, 512), "model"))] * 2
with session_of(step, (weights, shaped((32768, 512), "data")), "tpu-v5e", (0,), (), "fast", None) as session:
    given = session.default.memory
    limit = given.interface + int(0.6 * given.temporaries)
    result = session.fit(limit, 6)
print(json.dumps([given.total, limit, result.memory.total, result.predicted]))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("devices") / "program.py"
    file.write_text(_PROGRAM)
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "PYTHONPATH": str(Path(training_programs.__file__).parent),
    }
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.parametrize("kind", ["data", "model", "loop"])
def test_a_step_fits_on_each_device_with_the_same_values_and_shardings(found: dict[str, Any], kind: str) -> None:
    one = found[kind]
    assert one["fits"]
    assert not one["is_default"]
    assert one["close"]
    assert one["shardings"]
    assert 0.7 < one["predicted"] < 1.5


@pytest.mark.parametrize(("kind", "shape"), [("data", "f32[128,128]"), ("model", "f32[256,64]")])
def test_sizes_are_those_of_one_device(found: dict[str, Any], kind: str, shape: str) -> None:
    assert shape in found[kind]["again"]


def test_on_tpus_the_compiler_is_asked_for_a_slice(found: dict[str, Any]) -> None:
    one = found["tpu"]
    assert one["asked"][0] == ["v5e:2x2", [], False]
    assert one["asked"][1:] == [["v5e:2x2", [], True]] * (len(one["asked"]) - 1) != []
    assert one["temporaries"] == 10
    assert "f32[256,64]" in one["sizes"]


@pytest.mark.tpu
@pytest.mark.slow
def test_a_step_of_four_tpus_fits_by_the_word_of_their_compiler(tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(_ON_TPUS)
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    default, limit, stated, predicted = json.loads(done.stdout.splitlines()[-1])
    assert stated <= limit < default
    assert abs(predicted / stated - 1.0) < 0.2


def test_other_programs_of_several_devices_are_refused(found: dict[str, Any]) -> None:
    assert "its shard_map says what each does" in found["shard_map"]
    assert "memplan plans programs of one device" in found["gpu"]
    assert "memplan plans programs of one device" in found["jit"]
