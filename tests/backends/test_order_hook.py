"""Orders that take effect in real compiles on the CPU, and those that are refused."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from order_programs import X, compiled, entry_order, fresh, temporaries

from memplan.backends import order_hook
from memplan.backends.order_hook import (
    ModuleOutcome,
    OrderError,
    Orders,
    fixed_order,
    is_supported,
    memory_order,
    ordering,
    reorder,
)
from memplan.compiler.ir.graph import Graph


@pytest.fixture(scope="module")
def default() -> Any:
    return compiled()


# An order takes effect.


def test_another_order_needs_less_memory_and_gives_the_same_result(default: Any) -> None:
    with ordering(memory_order, platform="cpu", module="jit_step") as outcome:
        better = compiled()
    (module,) = outcome.modules
    assert module.module == "jit_step"
    assert module.changed
    assert not module.refused
    assert outcome.changed == [module]
    assert "jit_step" in str(outcome)
    assert temporaries(better) < 0.5 * temporaries(default)
    np.testing.assert_array_equal(better(X), default(X))


def test_a_call_of_a_jitted_function_is_ordered_too() -> None:
    with ordering(memory_order, platform="cpu", module="jit_step") as outcome:
        result = fresh()(X)
    assert len(outcome.changed) == 1
    np.testing.assert_array_equal(result, compiled()(X))


def test_a_planned_order_is_the_one_that_runs() -> None:
    planned: dict[str, list[str]] = {}

    def latest_first(graph: Graph) -> Orders:
        instructions = graph.entry_computation.instructions
        order: list[int] = []
        while len(order) < len(instructions):
            order.append(
                max(i for i, ins in enumerate(instructions) if i not in order and set(ins.operands) <= set(order))
            )
        planned[graph.entry] = [instructions[i].name for i in order]
        return planned

    with ordering(latest_first, platform="cpu", module="jit_step"):
        first = compiled()
    with ordering(fixed_order(planned), platform="cpu", module="jit_step") as outcome:
        second = compiled()
    (order,) = planned.values()
    assert outcome.modules == [ModuleOutcome("jit_step", tuple(planned))]
    assert entry_order(second) == entry_order(first) == order


def test_a_planned_order_of_another_module_is_reported_and_not_applied(default: Any) -> None:
    with ordering(fixed_order({"main.77": ["a", "b"]}), platform="cpu", module="jit_step") as outcome:
        same = compiled()
    assert outcome.refused == outcome.modules
    assert "no computation 'main.77'" in str(outcome)
    assert entry_order(same) == entry_order(default)


def test_loops_and_updates_in_place_bear_any_legal_order() -> None:
    """XLA makes the copies that these need before it schedules, and for every order."""

    def updates(x: jax.Array) -> Any:
        y = jnp.sin(x)
        looped = jax.lax.fori_loop(0, 4, lambda i, c: jnp.tanh(c.at[i].set(c[i + 1] * 2) @ x), y)
        return looped, y.at[3].set(7.0) @ x, y.sum(0), jax.lax.cond(y[0, 0] > 0, lambda c: c * 2, lambda c: -c, y)

    def writers_first(graph: Graph) -> Orders:
        orders = {}
        for name, computation in graph.computations.items():
            if name != graph.entry and not any(
                name in i.called for _, i in graph.instructions() if i.opcode in ("while", "conditional")
            ):
                continue
            instructions, order = computation.instructions, list[int]()
            writers = ("while", "conditional", "fusion", "dynamic-update-slice", "call")
            while len(order) < len(instructions):
                ready = [i for i, ins in enumerate(instructions) if i not in order and set(ins.operands) <= set(order)]
                order.append(max(ready, key=lambda i: (instructions[i].opcode in writers, i)))
            orders[name] = [instructions[i].name for i in order]
        return orders

    x = np.cos(X)
    expected = jax.jit(updates)(x)
    with ordering(writers_first, platform="cpu", module="jit_again") as outcome:

        def again(x: jax.Array) -> Any:
            return updates(x)

        found = jax.jit(again)(x)
    assert outcome.changed
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)


# What is not legal is refused.

SMALL = """HloModule small, is_scheduled=true

body {
  p = f32[1000]{0} parameter(0)
  e = f32[1000]{0} exponential(p)
  ROOT n = f32[1000]{0} negate(e)
}

ENTRY main {
  x = f32[1000]{0} parameter(0)
  a = f32[1000]{0} sine(x)
  b = f32[1000]{0} cosine(x), control-predecessors={a}
  c = f32[1000]{0} fusion(a), kind=kLoop, calls=body
  ROOT d = f32[1000]{0} add(b, c)
}
"""
AS_IT_STANDS = ["x", "a", "b", "c", "d"]


def proto(text: str) -> bytes:
    from jaxlib import _hlo

    return _hlo.hlo_module_from_text(text).as_serialized_hlo_module_proto()


def order_of(content: bytes) -> list[str]:
    from memplan.compiler.frontends import hlo_proto

    return list(hlo_proto.parse(content).entry_computation.index)


def test_a_legal_order_is_set() -> None:
    content, outcome = reorder(proto(SMALL), fixed_order({"main": ["x", "a", "c", "b", "d"]}))
    assert outcome == ModuleOutcome("small", ("main",))
    assert content is not None
    assert order_of(content) == ["x", "a", "c", "b", "d"]


@pytest.mark.parametrize(
    "rule", [fixed_order({"main": AS_IT_STANDS}), fixed_order({}), lambda graph: None, memory_order]
)
def test_where_nothing_changes_the_module_is_left(rule: order_hook.Rule) -> None:
    assert reorder(proto(SMALL), rule) == (None, ModuleOutcome("small"))


@pytest.mark.parametrize(
    ("orders", "reason"),
    [
        ({"main": ["x", "c", "a", "b", "d"]}, "main: 'c' runs before its operand 'a'"),
        ({"main": ["x", "b", "a", "c", "d"]}, "main: 'b' runs before its predecessor 'a'"),
        ({"main": ["x", "a", "b", "d"]}, "main: the order leaves out 'c'"),
        ({"main": ["x", "a", "b", "b", "c", "d"]}, "main: the order names an instruction twice"),
        ({"main": ["x", "a", "b", "c", "d", "e"]}, "main: the order names 'e', which is not there"),
        ({"other": []}, "module small has no computation 'other': the order is that of another module"),
        ({"body": ["e", "p", "n"]}, "body: 'e' runs before its operand 'p'"),
    ],
)
def test_what_is_not_legal_is_refused(orders: dict[str, list[str]], reason: str) -> None:
    assert reorder(proto(SMALL), fixed_order(orders)) == (None, ModuleOutcome("small", refused=reason))


def test_one_illegal_order_refuses_all_of_them() -> None:
    orders = {"main": ["x", "a", "c", "b", "d"], "nowhere": ["x"]}
    content, outcome = reorder(proto(SMALL), fixed_order(orders))
    assert content is None
    assert "nowhere" in outcome.refused


def test_the_body_of_a_fusion_has_no_order() -> None:
    two = SMALL.replace("exponential(p)", "exponential(p)\n  f = f32[1000]{0} sine(p)").replace(
        "negate(e)", "add(e, f)"
    )
    content, outcome = reorder(proto(two), fixed_order({"body": ["p", "f", "e", "n"]}))
    assert content is None
    assert outcome.refused == "body: runs in no order of its own"


def test_a_module_without_a_schedule_or_a_damaged_one_is_refused() -> None:
    for content in (proto(SMALL.replace(", is_scheduled=true", "")), b"no module"):
        changed, outcome = reorder(content, fixed_order({"main": AS_IT_STANDS}))
        assert changed is None
        assert outcome.refused


def test_an_error_in_the_rule_is_reported_and_the_compile_goes_on(default: Any) -> None:
    def broken(graph: Graph) -> Orders:
        raise ZeroDivisionError("one\ntwo")

    with ordering(broken, platform="cpu", module="jit_step") as outcome:
        same = compiled()
    assert outcome.modules == [ModuleOutcome("jit_step", refused="ZeroDivisionError: one")]
    assert entry_order(same) == entry_order(default)


# Which JAX can do it.


@pytest.mark.parametrize(
    ("installed", "platform", "supported"),
    [
        ("0.10.2", "cpu", True),
        ("0.10.1", "cpu", False),
        ("0.10.2", "tpu", False),
        ("0.11.9", "tpu", False),
        ("0.12.0", "tpu", True),
        ("0.12.0.1", "tpu", True),
        ("0.13.0.dev20270101", "tpu", True),
        ("1.0", "tpu", True),
        ("1.0", "cuda", False),
    ],
)
def test_which_versions_are_supported(
    installed: str, platform: str, supported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order_hook, "version", lambda package: installed)
    assert is_supported(platform) == supported


def test_a_platform_that_is_not_supported_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OrderError, match="known are cpu, tpu"), ordering(memory_order, platform="abacus"):
        pass
    monkeypatch.setattr(order_hook, "version", lambda package: "0.10.2")
    with (
        pytest.raises(OrderError, match=r"needs jax and jaxlib 0\.12\.0 or newer"),
        ordering(memory_order, platform="tpu"),
    ):
        pass
