"""Residuals of scans: what is stacked at which price, and that nothing changes but memory."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.extend.core import jaxpr_as_fun
from training_programs import array, close, scanned, traced, values

from memplan.compiler.hardware.target import load_target
from memplan.passes.fit.costs import Costs
from memplan.passes.fit.inline_calls import in_one_piece
from memplan.passes.fit.kinds import bytes_of
from memplan.passes.fit.program import program_of
from memplan.passes.fit.scan_pairs import scan_pairs
from memplan.passes.fit.scan_stacks import KEEP_ALL, alternatives, at_price, prices

GENERIC = load_target("generic")
COSTS = Costs(GENERIC)
X = array(16, 8)


def scans(closed: Any) -> list[Any]:
    return [equation for equation in closed.jaxpr.eqns if equation.primitive.name == "scan"]


def stacked_bytes(closed: Any) -> int:
    """Returns the bytes of all stacks that one scan leaves to another."""
    (pair,) = scan_pairs(closed.jaxpr)
    return sum(bytes_of(pair.atom(place).aval) for place, _ in pair.residuals)


def checked(fun: Any, *args: Any) -> list[Any]:
    """Returns all alternatives of a program, after comparing their values with its own."""
    closed = in_one_piece(jax.make_jaxpr(fun)(*args))
    found = [each.closed for each in alternatives(closed, COSTS)]
    expected = values(closed, args)
    for each in found:
        assert [v.aval for v in each.jaxpr.outvars] == [v.aval for v in closed.jaxpr.outvars]
        assert close(values(each, args), expected)
    return found


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scanned_step_can_stack_less_down_to_its_carry(reverse: bool) -> None:
    step, args = scanned(reverse=reverse)
    found = checked(step, *args)
    sizes = [stacked_bytes(each) for each in found]
    assert len(found) >= 3
    assert sizes == sorted(sizes, reverse=True)
    # The carry of an iteration is one array of 64 × 32 numbers.
    assert sizes[-1] == 64 * 32 * 4
    assert sizes[0] > 8 * sizes[-1]


@pytest.mark.slow
def test_less_is_stacked_by_the_compilers_own_word() -> None:
    step, args = scanned(layers=8, batch=256)
    found = checked(step, *args)
    sizes = [
        jax.jit(jaxpr_as_fun(each)).lower(*jax.tree.leaves(args)).compile().memory_analysis().temp_size_in_bytes
        for each in (found[0], found[-1])
    ]
    assert sizes[1] < 0.4 * sizes[0]


def test_a_higher_price_computes_no_more_again() -> None:
    step, args = scanned()
    closed = in_one_piece(traced(step, args))
    assert at_price(closed, KEEP_ALL, COSTS) is not None
    products = [str(at_price(closed, price, COSTS)).count("dot_general") for price in prices(closed, COSTS)]
    assert products == sorted(products)
    assert products[0] < products[-1]


def test_constants_of_the_loop_are_never_stacked() -> None:
    table = array(8, 8, seed=5)

    def loss(x: Any, w: Any) -> Any:
        y, _ = lax.scan(lambda y, _: (jnp.tanh(y @ w @ table), None), x, None, length=6)
        return jnp.sum(y)

    for each in checked(jax.grad(loss, argnums=(0, 1)), X, array(8, 8)):
        assert all(v.aval.shape[-2:] != (8, 8) for scan in scans(each)[:1] for v in scan.outvars if v.aval.ndim == 3)


@pytest.mark.slow
def test_random_numbers_within_a_loop_are_the_same_when_drawn_again() -> None:
    def loss(w: Any, key: Any) -> Any:
        def body(y: Any, key: Any) -> Any:
            return jnp.where(jax.random.bernoulli(key, 0.7, y.shape), jnp.tanh(y @ w), 0.0), None

        y, _ = lax.scan(body, X, jax.random.split(key, 5))
        return jnp.sum(y)

    found = checked(jax.grad(loss), array(8, 8), jax.random.key(7))
    assert str(found[-1]).count("random_bits") > str(found[0]).count("random_bits")


def test_stacks_that_are_results_too_stay() -> None:
    def loss(w: Any) -> Any:
        def body(y: Any, _: Any) -> Any:
            h = jnp.tanh(y @ w)
            return jnp.sin(h) + y, h

        y, history = lax.scan(body, X, None, length=4)
        return jnp.sum(y), history

    found = checked(jax.grad(loss, has_aux=True), array(8, 8))
    assert all(each.jaxpr.outvars[1].aval.shape == (4, 16, 8) for each in found)


@pytest.mark.slow
def test_several_scans_and_scans_within_scans() -> None:
    def layers(y: Any, w: Any) -> Any:
        return lax.scan(lambda y, w: (y + jnp.tanh(jnp.sin(y @ w)), None), y, w)[0]

    def loss(w: Any, rows: Any) -> Any:
        return jnp.mean(layers(layers(rows, w), w[::-1]) ** 2)

    def accumulated(w: Any, batches: Any) -> Any:
        return lax.scan(lambda g, rows: (g + jax.grad(loss)(w, rows), None), jnp.zeros_like(w), batches)[0]

    w, batches = array(3, 8, 8), array(4, 16, 8)
    flat = checked(jax.grad(loss), w, batches[0])
    assert len(scan_pairs(flat[0].jaxpr)) == 2
    assert len(checked(accumulated, w, batches)) > 1


def test_an_effect_in_a_body_happens_once_an_iteration() -> None:
    seen: list[Any] = []

    def loss(w: Any) -> Any:
        def body(y: Any, _: Any) -> Any:
            h = jnp.tanh(y @ w)
            jax.debug.callback(lambda value: seen.append(float(value)), h.sum())
            return jnp.sin(h), None

        return jnp.sum(lax.scan(body, X, None, length=4)[0])

    closed = in_one_piece(jax.make_jaxpr(jax.grad(loss))(array(8, 8)))
    least = alternatives(closed, COSTS)[-1].closed
    values(least, (array(8, 8),))
    jax.effects_barrier()
    assert len(seen) == 4


def test_a_program_without_pairs_has_no_alternative() -> None:
    closed = in_one_piece(jax.make_jaxpr(lambda x: lax.scan(lambda y, _: (jnp.sin(y), y), x, None, length=3))(X))
    assert prices(closed, COSTS) == []
    assert [each.closed for each in alternatives(closed, COSTS)] == [closed]


def test_the_user_s_lines_are_kept() -> None:
    step, args = scanned()
    least = alternatives(in_one_piece(traced(step, args)), COSTS)[-1].closed
    program = program_of(least, GENERIC)
    assert all("training_programs.py" in node.origin for node in program.problem.nodes if "scan" in node.name)
    inner = scans(least)[1].params["jaxpr"].jaxpr
    places = {str(equation.source_info.traceback).count("training_programs.py") > 0 for equation in inner.eqns}
    assert places == {True}


@pytest.mark.slow
def test_a_checkpoint_of_the_body_changes_nothing() -> None:
    def loss(w: Any, remat: bool) -> Any:
        def body(y: Any, w: Any) -> Any:
            return y + jnp.tanh(jnp.sin(y @ w) @ w), None

        return jnp.sum(lax.scan(jax.checkpoint(body) if remat else body, X, w)[0])

    w = array(4, 8, 8)
    found = [checked(jax.grad(lambda w, r=remat: loss(w, r)), w) for remat in (True, False)]
    assert close(*(values(each[-1], (w,)) for each in found))


def test_each_residual_is_reported_with_its_line_and_what_became_of_it() -> None:
    step, args = scanned()
    all_of_them, *_, least = alternatives(in_one_piece(traced(step, args)), COSTS)
    assert all_of_them.residuals == ()
    assert [residual.is_stacked for residual in least.residuals].count(True) == 1
    assert all("training_programs.py" in residual.origin for residual in least.residuals)
    carry = next(residual for residual in least.residuals if residual.is_stacked)
    assert (carry.shape, carry.size) == ("f32[4,64,32]", 4 * 64 * 32 * 4)
