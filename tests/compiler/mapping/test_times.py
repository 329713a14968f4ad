"""When the copies that control flow implies are made: in small modules, and alike however a function was read."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from jax import lax
from jaxlib._jax import mlir
from random_programs import SIZE, random_function
from thorough import examples

from memplan.compiler.emulator.timing import latency
from memplan.compiler.frontends import hlo_proto, parse_hlo
from memplan.compiler.frontends.jaxpr import trace
from memplan.compiler.hardware.target import load_target
from memplan.compiler.mapping.build import BuiltProblem, build
from memplan.planners import planner as planners
from memplan.planners.planner import Budget

jax.config.update("jax_platforms", "cpu")

TARGET = load_target("tpu-v5e")
MIB_64 = 1 << 26
LARGE = jax.ShapeDtypeStruct((1 << 24,), jnp.float32)
TRUTH, NUMBER = jax.ShapeDtypeStruct((), jnp.bool_), jax.ShapeDtypeStruct((), jnp.int32)
ARRAY = jax.ShapeDtypeStruct((SIZE,), jnp.float32)
SCALARS = 4096  # bytes; what touches less costs nothing but the time of its bytes


def copying(built: BuiltProblem) -> list[tuple[str, int, list[tuple[str, str, int]]]]:
    """Returns name, region, and `(buffer, kind, bytes)` of the large accesses of all operations that copy."""
    buffers = built.problem.buffers
    return [
        (o.name, o.region, [(buffers[a.buffer].name, a.kind.value, a.bytes) for a in o.accesses if a.bytes > SCALARS])
        for o in built.problem.operations
        if o.opcode == "copy"
    ]


def slow_seconds(built: BuiltProblem) -> float:
    """Returns the latency with everything in slow memory."""
    return latency(built.problem, planners.get("slow").plan(built.problem, Budget()))


def traffic(built: BuiltProblem) -> float:
    """Returns the bytes of arrays that one run moves."""
    return sum(a.bytes * built.problem.runs_at(t) for t, a in built.problem.accesses if a.bytes > SCALARS)


def traced(fun: Callable[..., Any], *args: Any) -> BuiltProblem:
    return build(trace(fun, *args), TARGET)


def lowered(fun: Callable[..., Any], *args: Any) -> BuiltProblem:
    """Returns the problem of the StableHLO of a function."""
    module = mlir.mlir_module_to_xla_computation(jax.jit(fun).lower(*args).as_text())
    return build(hlo_proto.parse(module.as_serialized_hlo_module_proto(), "lowered"), TARGET)


SINGLE_CARRY = """
HloModule single_carry
step { v = f32[16777216]{0} parameter(0) ROOT w = f32[16777216]{0} add(v, v) }
sum { p = f32[] parameter(0) q = f32[] parameter(1) ROOT s = f32[] add(p, q) }
again {
  v = f32[16777216]{0} parameter(0)
  z = f32[] constant(0)
  t = f32[] reduce(v, z), dimensions={0}, to_apply=sum
  k = f32[] constant(1000)
  ROOT less = pred[] compare(t, k), direction=LT
}
ENTRY e {
  x = f32[16777216]{0} parameter(0)
  ROOT r = f32[16777216]{0} while(x), condition=again, body=step
}
"""

TUPLE_PARAMETER = """
HloModule tuple_parameter
step {
  s = (s32[], f32[16777216]{0}) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  v = f32[16777216]{0} get-tuple-element(s), index=1
  one = s32[] constant(1)
  j = s32[] add(i, one)
  w = f32[16777216]{0} add(v, v)
  ROOT o = (s32[], f32[16777216]{0}) tuple(j, w)
}
again {
  s = (s32[], f32[16777216]{0}) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  n = s32[] constant(10)
  ROOT less = pred[] compare(i, n), direction=LT
}
ENTRY e {
  x = (s32[], f32[16777216]{0}) parameter(0)
  ROOT r = (s32[], f32[16777216]{0}) while(x), condition=again, body=step
}
"""

IDENTITY_BRANCH = """
HloModule identity_branch
same { ROOT v = f32[16777216]{0} parameter(0) }
twice { v = f32[16777216]{0} parameter(0) ROOT w = f32[16777216]{0} add(v, v) }
ENTRY e {
  p = pred[] parameter(0)
  x = f32[16777216]{0} parameter(1)
  ROOT r = f32[16777216]{0} conditional(p, x, x), true_computation=same, false_computation=twice
}
"""

SWAPPED = """
HloModule swapped
step { s = (f32[4096], f32[4096]) parameter(0) a = f32[4096] get-tuple-element(s), index=0
  b = f32[4096] get-tuple-element(s), index=1 ROOT o = (f32[4096], f32[4096]) tuple(b, a) }
again { s = (f32[4096], f32[4096]) parameter(0) ROOT t = pred[] constant(true) }
ENTRY e { x = f32[4096] parameter(0) y = f32[4096] parameter(1) i = (f32[4096], f32[4096]) tuple(x, y)
  ROOT r = (f32[4096], f32[4096]) while(i), condition=again, body=step }
"""

CONSTANT_CARRY = """
HloModule constant_carry
step { v = f32[4096] parameter(0) ROOT w = f32[4096] add(v, v) }
again { v = f32[4096] parameter(0) ROOT t = pred[] constant(true) }
ENTRY e { c = f32[4096] constant({...}) ROOT r = f32[4096] while(c), condition=again, body=step }
"""


def hlo(text: str) -> BuiltProblem:
    return build(parse_hlo(text), TARGET)


def test_what_a_loop_of_one_array_changes_is_copied_before_it() -> None:
    built = hlo(SINGLE_CARRY)
    assert copying(built) == [("r.copy", 0, [("x", "read", MIB_64), ("v", "write", MIB_64)])]
    assert [operation.name for operation in built.problem.operations][:2] == ["r.copy", "r.enter"]
    assert traffic(built) == 2 * MIB_64 + 5 * (1 + 3) * MIB_64


def test_a_tuple_that_is_a_parameter_is_copied_before_the_loop() -> None:
    built = hlo(TUPLE_PARAMETER)
    assert copying(built) == [("r.copy", 0, [("x{1}", "read", MIB_64), ("s{1}", "write", MIB_64)])]


def test_a_branch_that_returns_its_argument_writes_the_result() -> None:
    built = hlo(IDENTITY_BRANCH)
    ((name, region, accesses),) = copying(built)
    assert (name, accesses) == ("r.copy", [("x", "read", MIB_64), ("w", "write", MIB_64)])
    assert built.problem.regions[region].trip_count == 0.5


def test_carries_that_swap_are_copied_at_once_at_the_end_of_the_body() -> None:
    before, inside = copying(hlo(SWAPPED))
    assert (before[:2], inside[:2]) == (("r.copy", 0), ("r.copy", 1))
    assert [kind for _, kind, _ in inside[2]] == ["read", "read", "write", "write"]
    read, written = [name for name, _, _ in inside[2][:2]], [name for name, _, _ in inside[2][2:]]
    assert read == written[::-1]


def test_a_constant_is_copied_before_a_loop_that_changes_it() -> None:
    assert copying(hlo(CONSTANT_CARRY)) == [("r.copy", 0, [("c", "read", 16384), ("v", "write", 16384)])]


def test_a_carry_whose_initial_value_the_body_returns_needs_no_copy() -> None:
    """By `phi(x, x) = x`, and for `a` since it follows from `b`."""
    built = hlo(
        """
        HloModule unchanged
        step { s = (f32[4096], f32[4096], f32[4096]) parameter(0) b = f32[4096] get-tuple-element(s), index=1
          c = f32[4096] get-tuple-element(s), index=2 d = f32[4096] add(b, c)
          ROOT o = (f32[4096], f32[4096], f32[4096]) tuple(b, b, d) }
        again { s = (f32[4096], f32[4096], f32[4096]) parameter(0) ROOT t = pred[] constant(true) }
        ENTRY e { x = f32[4096] parameter(0) y = f32[4096] parameter(1)
          i = (f32[4096], f32[4096], f32[4096]) tuple(x, x, y)
          w = (f32[4096], f32[4096], f32[4096]) while(i), condition=again, body=step
          a = f32[4096] get-tuple-element(w), index=0 d = f32[4096] get-tuple-element(w), index=2
          ROOT r = f32[4096] add(a, d) }
        """
    )
    assert [[name for name, _, _ in accesses] for _, _, accesses in copying(built)] == [["y", "s{2}"]]


def test_an_identity_branch_of_64_mib_costs_its_copy() -> None:
    """Half of the runs copy: 64 MiB read and written. The others add: 64 MiB read twice, as the compiler's own
    estimates have it, which are the same for `x + x` as for `x + y`. Either takes one launch."""

    def same_or_twice(p: Any, x: Any) -> Any:
        return lax.cond(p, lambda x: x, lambda x: x + x, x)

    bandwidth, launch = TARGET.spaces[0].bandwidth, TARGET.compute.launch_seconds
    right = launch + (2 + 3) / 2 * MIB_64 / bandwidth
    for read in (traced, lowered):
        assert slow_seconds(read(same_or_twice, TRUTH, LARGE)) == pytest.approx(right, rel=1e-6)
    assert right == pytest.approx(255.42e-6, rel=1e-4)


def until(x: Any) -> Any:
    return lax.while_loop(lambda v: v[0] < 4.0, lambda v: v + v, x)


FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "one array": (until, (ARRAY,)),
    "swap": (lambda x, y: lax.fori_loop(0, 5, lambda i, c: (c[1], c[0]), (x, y)), (ARRAY, ARRAY)),
    "rotation": (lambda x, y: lax.fori_loop(0, 5, lambda i, c: (c[1], c[2], c[0] + y), (x, y, x)), (ARRAY, ARRAY)),
    "constant": (lambda x: lax.fori_loop(0, 3, lambda i, c: c + x, jnp.arange(SIZE, dtype=jnp.float32)), (ARRAY,)),
    "counted": (lambda n, x: lax.fori_loop(0, n, lambda i, c: c + c, x), (NUMBER, ARRAY)),
    "branch in a loop": (
        lambda p, x, y: lax.fori_loop(
            0, 3, lambda i, c: lax.cond(p, lambda a, b: (b, a), lambda a, b: (a, b + a), *c), (x, y)
        ),
        (TRUTH, ARRAY, ARRAY),
    ),
    "loop in a branch": (lambda p, x: lax.cond(p, until, lambda x: x, x), (TRUTH, ARRAY)),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_costs_the_same_traced_and_lowered(name: str) -> None:
    """But for scalars: the two count the iterations of a loop differently."""
    fun, args = FUNCTIONS[name]
    one, other = traced(fun, *args), lowered(fun, *args)
    assert traffic(one) == pytest.approx(traffic(other), rel=1e-12)
    assert slow_seconds(one) == pytest.approx(slow_seconds(other), rel=1e-3)


def instructions(built: BuiltProblem) -> list[tuple[str, float, int]]:
    """Returns opcode, runs, and number of arrays in the result of what gives arrays, in order of execution."""
    rows = []
    for step, is_copying, operation in zip(
        built.times.steps, built.times.is_copying, built.problem.operations, strict=True
    ):
        if step >= 0 and not is_copying and operation.opcode != "copy":
            leaves = [leaf for _, leaf in built.program.steps[step].instruction.shape.leaves()]
            if arrays := sum(leaf.bytes > SCALARS for leaf in leaves):
                rows.append((operation.opcode, round(built.problem.repetitions[operation.region], 9), arrays))
    return rows


def constants(built: BuiltProblem) -> int:
    """Returns how many arrays are constants."""
    return sum(storage.is_constant and storage.size > SCALARS for storage in built.program.storages)


@settings(max_examples=examples(15, 40))
@given(st.integers(0, 1 << 30))
@example(502)
@pytest.mark.slow
def test_random_control_flow_costs_the_same_traced_and_lowered(seed: int) -> None:
    """Where both carry the same instructions out in the same order, on the same constants.

    `jax.jit` leaves out more of what is not used, and writes a constant into each branch that returns it: such constants
    are several arrays, of which fewer results can take the place.
    """
    fun = random_function(random.Random(seed).randint)
    one, other = traced(fun, NUMBER, ARRAY, ARRAY), lowered(fun, NUMBER, ARRAY, ARRAY)
    assume(instructions(one) == instructions(other) and constants(one) == constants(other))
    assert traffic(one) == pytest.approx(traffic(other), rel=1e-9)
    assert slow_seconds(one) == pytest.approx(slow_seconds(other), rel=1e-3)
