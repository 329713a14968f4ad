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
    "target": refused(lambda: memplan.fit(step, parts, data, limit=small, target="tpu-v5e")),
    "jit": refused(lambda: memplan.jit(step, memory_limit=small)(parts, data)),
}))
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


def test_other_programs_of_several_devices_are_refused(found: dict[str, Any]) -> None:
    assert "its shard_map says what each does" in found["shard_map"]
    assert "memplan plans programs of one device" in found["target"]
    assert "memplan plans programs of one device" in found["jit"]
