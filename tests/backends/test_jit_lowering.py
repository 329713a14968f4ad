"""Programs that call back to Python, lowered for a TPU that is not here."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback
from libtpu_process import run_with_libtpu

import memplan
from memplan.backends.jit.lowering import lower_for_tpu
from memplan.backends.jit.planning import module_of
from memplan.cli.programs import Program
from memplan.cli.programs import lower_for_tpu as lower_program

STRUCT = jax.ShapeDtypeStruct((8, 8), jnp.float32)


def printing(x: jax.Array) -> jax.Array:
    jax.debug.print("{}", x[0, 0])
    return x @ x


def debugging(x: jax.Array) -> jax.Array:
    jax.debug.callback(lambda a: None, x)
    return x @ x


def asking(x: jax.Array) -> jax.Array:
    return x @ jax.pure_callback(np.sin, STRUCT, x)


def writing(x: jax.Array) -> jax.Array:
    io_callback(lambda a: None, None, x, ordered=True)
    return x @ x


def looping(x: jax.Array) -> jax.Array:
    def body(carried: jax.Array, _: None) -> tuple[jax.Array, None]:
        jax.debug.print("{}", carried[0, 0])
        return carried @ x, None

    return jax.lax.scan(body, x, None, length=3)[0]


PROGRAMS = (printing, debugging, asking, writing, looping)


@pytest.mark.parametrize("fun", PROGRAMS)
@pytest.mark.parametrize(
    "argument", [STRUCT, np.ones((8, 8), np.float32), jnp.ones((8, 8))], ids=["struct", "numpy", "jax"]
)
def test_callbacks_are_lowered(fun: Callable[..., Any], argument: Any) -> None:
    lowered = memplan.jit(fun, target="tpu-v5e").lower(argument)
    assert "stablehlo.send" in lowered.as_text()
    assert "is_host_transfer = true" in lowered.as_text()
    assert module_of(lowered)
    assert lower_program(Program("p", fun, (argument,)))


def test_outside_of_it_jax_refuses_as_before() -> None:
    first, second = (jax.jit(lambda x: printing(x)).trace(STRUCT) for _ in range(2))
    lower_for_tpu(first)
    with pytest.raises(ValueError, match="different from the lowering platform"):
        second.lower(lowering_platforms=("tpu",))


@pytest.mark.parametrize("fun", PROGRAMS)
def test_they_are_planned_by_our_model(fun: Callable[..., Any]) -> None:
    plan = memplan.jit(fun, target="generic", planner="greedy").plan(STRUCT)
    assert plan.report.subject.latency > 0


def test_what_the_plan_leaves_out_is_said_once(nothing_said: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", "memplan"):
        for _ in range(2):
            memplan.jit(asking, target="generic", planner="greedy").plan(STRUCT)
    (said,) = [message for message in caplog.messages if "pure_callback" in message]
    assert said.startswith("memplan.jit: asking: pure_callback is not known: its arithmetic counts as nothing")


# libtpu is loaded where it can take nobody down with it.
ON_A_TOPOLOGY = """
import sys
sys.path.insert(0, sys.argv[1])
import jax, memplan
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding
from test_jit_lowering import PROGRAMS, STRUCT
device = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices[0]
placed = jax.ShapeDtypeStruct(STRUCT.shape, STRUCT.dtype, sharding=SingleDeviceSharding(device))

def operations(argument):
    lines = memplan.jit(fun, target="tpu-v5e").lower(argument).as_text().splitlines()
    return [line for line in lines if "sdy." not in line and "@main" not in line]

for fun in PROGRAMS:
    assert operations(placed) == operations(STRUCT), fun
"""


@pytest.mark.tpu
@pytest.mark.slow
def test_the_module_is_that_of_arguments_on_a_topology() -> None:
    run_with_libtpu(ON_A_TOPOLOGY, os.path.dirname(__file__))
