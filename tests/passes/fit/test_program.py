"""Programs in JAX as problems: what is a node, what is a value, and what may not be repeated."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from training_programs import array, mlp, scanned, traced

from memplan.compiler.errors import MemplanError
from memplan.compiler.hardware.target import load_target
from memplan.passes.fit.groups import groups_of
from memplan.passes.fit.inline_calls import in_one_piece
from memplan.passes.fit.program import host_link, program_of
from memplan.planners.fit.verifier import verify_fit

GENERIC = load_target("generic")
X = array(8, 4)


def program(fun: Any, *args: Any, **options: Any) -> Any:
    made = program_of(jax.make_jaxpr(fun)(*args), GENERIC, **options)
    made.problem.check()
    return made


def names(fun: Any, *args: Any) -> list[str]:
    return [node.name.rpartition(".")[0] for node in program(fun, *args).problem.nodes]


def test_elementwise_equations_are_part_of_what_reads_them() -> None:
    assert names(lambda x: jnp.sum(jnp.exp(x * 2) + 1), X) == ["reduce_sum"]


def test_an_expensive_value_with_two_readers_has_a_buffer_and_a_cheap_one_has_none() -> None:
    assert names(lambda x: (jnp.exp(x).sum(0), jnp.exp(x).sum(1)), X) == ["exp", "reduce_sum", "reduce_sum"]
    assert names(lambda x: ((x * 2).sum(0), (x * 2).sum(1)), X) == ["reduce_sum", "reduce_sum"]


def test_what_is_padded_or_concatenated_has_a_buffer() -> None:
    assert names(lambda x: jnp.sum(jnp.pad(x * 2, 1) + 1), X) == ["pad", "reduce_sum"]
    assert names(lambda x: jnp.sum(jnp.concatenate([x * 2, x]) + 1), X) == ["concatenate", "reduce_sum"]


def test_what_a_matrix_product_reads_has_a_buffer() -> None:
    assert names(lambda x: (x + 1) @ (x - 1).T, X) == ["add", "sub", "dot_general"]


def test_a_product_of_two_vectors_computes_what_it_reads() -> None:
    """XLA makes the sum of a product of elements of it."""
    assert names(lambda x: jnp.vdot(x * 2, x + 1), X) == ["dot_general"]
    assert names(lambda x: (x * 2) @ (x + 1).T, X) == ["mul", "add", "dot_general"]


def test_a_view_is_read_through() -> None:
    made = program(lambda x: jnp.exp(x).reshape(4, 8) @ array(8, 8), X)
    assert [node.name.rpartition(".")[0] for node in made.problem.nodes] == ["exp", "dot_general"]


def test_a_long_chain_with_many_readers_is_cut() -> None:
    def fun(x: Any) -> Any:
        total = 0.0
        for _ in range(400):
            x = x + 1.5
            total = total + x.sum()
        return total

    made = program(fun, X)
    members = sum(len(group.members) for group in made.groups)
    assert members < 100 * len(made.closed.jaxpr.eqns)


def test_calls_and_checkpoints_are_inlined_and_equal_equations_merged() -> None:
    @jax.custom_jvp
    def cube(x: Any) -> Any:
        return x**3

    cube.defjvps(lambda dx, _, x: 3 * x**2 * dx)

    def loss(w: Any) -> Any:
        return jnp.sum(jax.checkpoint(lambda w: jnp.tanh(cube(jax.nn.relu(X @ w))))(w))

    closed = in_one_piece(jax.make_jaxpr(jax.value_and_grad(loss))(array(4, 4)))
    found = [equation.primitive.name for equation in closed.jaxpr.eqns]
    assert not {"jit", "pjit", "remat2", "checkpoint", "custom_jvp_call"} & set(found)
    assert found.count("dot_general") == 2


def test_sizes_donation_results_and_origins() -> None:
    made = program(lambda p, x: p - (x.T @ x), array(4, 4), X, donated=(True, False))
    by_name = {value.name: value for value in made.problem.values}
    assert by_name["p"].is_donated
    assert by_name["p"].size == 64
    assert not by_name["x"].is_donated
    (result,) = [value for value in made.problem.values if value.is_result]
    assert result.shape == "f32[4,4]"
    assert "test_program.py" in result.origin
    # The result may overwrite the donated argument.
    last = made.problem.nodes[-1]
    assert next(made.problem.values[read].name for _, read in last.in_place) == "p"


def test_an_operand_that_is_read_out_of_place_is_not_overwritten() -> None:
    flipped = program(lambda x: x[::-1] + x, X, donated=(True,))
    assert flipped.problem.nodes[-1].in_place == ()


def test_effects_stay_in_order_and_are_not_repeated() -> None:
    def fun(x: Any) -> Any:
        jax.debug.print("{}", x.sum(), ordered=True)
        y = jnp.exp(x) @ x.T
        jax.debug.print("{}", y.sum(), ordered=True)
        return y

    nodes = program(fun, X).problem.nodes
    effects = [node for node in nodes if "debug" in node.name]
    assert len(effects) == 2
    assert not any(node.can_repeat for node in effects)
    assert set(effects[0].outputs) & set(effects[1].inputs)
    assert all(node.can_repeat for node in nodes if node not in effects)


def test_a_callback_is_not_repeated_and_neither_is_a_loop_around_one() -> None:
    def once(x: Any) -> Any:
        return jax.pure_callback(lambda x: np.asarray(x), jax.ShapeDtypeStruct((8, 4), "float32"), x)

    assert not program(once, X).problem.nodes[0].can_repeat
    assert not program(lambda x: lax.fori_loop(0, 3, lambda _, x: once(x), x), X).problem.nodes[-1].can_repeat


def test_random_numbers_are_repeated_and_keys_are_not_moved() -> None:
    made = program(lambda key, x: jax.random.bernoulli(key, 0.5, x.shape) * x @ x.T, jax.random.key(0), X)
    assert all(node.can_repeat for node in made.problem.nodes)
    assert not made.problem.values[0].can_offload
    assert made.problem.values[0].size == 8


@pytest.mark.parametrize("make", [mlp, scanned])
def test_a_training_step_has_a_sound_problem(make: Any) -> None:
    step, args = make()
    made = program_of(traced(step, args), GENERIC)
    made.problem.check()
    plan = made.as_written
    assert verify_fit(made.problem, plan).violations == ()
    assert plan.peak > 0
    assert made.seconds > 0
    assert all(node.seconds > 0 for node in made.problem.nodes)
    covered = {member for group in made.groups for member in group.members}
    assert covered == set(range(len(made.closed.jaxpr.eqns)))


def test_a_loop_needs_room_for_what_its_body_makes() -> None:
    small, large = (scanned(width=width)[1] for width in (16, 64))
    step = scanned()[0]
    rooms = [
        max(node.workspace for node in program_of(traced(step, args), GENERIC).problem.nodes) for args in (small, large)
    ]
    assert rooms[1] > 2 * rooms[0] > 0


def test_every_equation_of_a_group_is_computed_once_in_it() -> None:
    step, args = mlp()
    closed = in_one_piece(traced(step, args))
    for group in groups_of(closed.jaxpr):
        assert len(set(group.members)) == len(group.members)
        assert not set(group.reads) & set(group.writes)


def test_links_to_the_host() -> None:
    assert host_link(load_target("h200")).to_host == 55e9
    assert host_link(load_target("tpu-v5e")).from_host == 15e9
    with pytest.raises(MemplanError, match="generic has no link to the memory of a host"):
        host_link(GENERIC)
    with pytest.raises(MemplanError, match="2 donations are stated for 1 arguments"):
        program(lambda x: x + 1, X, donated=(True, False))
