"""Orders that take effect in real compiles on the CPU: legality, threads, other hooks, the persistent cache."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import xla

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
from memplan.compiler.frontends import hlo_text
from memplan.compiler.ir.graph import Graph

POST_SCHEDULER = xla.PipelineStage.POST_SCHEDULER


def wide(x: jax.Array) -> jax.Array:
    """Six branches, each wide in the middle: breadth first keeps all of them at once."""
    branches = [jnp.sin(x * i).reshape(-1)[:, None] * jnp.ones((1, 8)) for i in range(6)]
    return sum((jnp.cumsum(branch, 0).sum(0) for branch in branches), jnp.zeros(8))


X = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)


def fresh() -> Any:
    """Returns the program anew, so that JAX compiles it once more; its module is called `jit_step`."""

    def step(x: jax.Array) -> jax.Array:
        return wide(x)

    return jax.jit(step)


def compiled() -> Any:
    return fresh().lower(X).compile()


def temporaries(executable: Any) -> int:
    return executable.memory_analysis().temp_size_in_bytes


def entry_order(executable: Any) -> list[str]:
    return list(hlo_text.parse(executable.as_text()).entry_computation.index)


@pytest.fixture(scope="module")
def default() -> Any:
    return compiled()


def recorded(seen: list[str]) -> order_hook.Rule:
    """A rule that notes the modules that it is given and leaves them."""

    def rule(graph: Graph) -> Orders | None:
        seen.append(graph.name)
        return None

    return rule


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


# Only what is meant is touched.


def test_other_modules_are_not_shown() -> None:
    seen: list[str] = []

    def other(x: jax.Array) -> jax.Array:
        return x * 3 + 1

    with ordering(recorded(seen), platform="cpu", module="jit_step"):
        jax.jit(other)(X)
        compiled()
    assert seen == ["jit_step"]
    with ordering(recorded(seen), platform="cpu"):
        jax.jit(lambda x: other(x))(X)
    assert seen == ["jit_step", "jit__lambda"]


def test_the_mark_keeps_what_the_module_says_and_the_original_has_none() -> None:
    from jaxlib.mlir import ir

    block = order_hook._OrderBlock("cpu", None, "token")
    with ir.Context():
        module = ir.Module.parse('module @m attributes {mhlo.frontend_attributes = {theirs = "kept"}} {}')
        text = str(block.marked(module))
        assert 'theirs = "kept"' in text
        assert 'memplan_order = "token"' in text
        assert "memplan_order" not in str(module)
        assert block.wants(module, "cpu")
        assert not block.wants(module, "tpu")


def test_what_is_compiled_already_is_not_compiled_again() -> None:
    step = fresh()
    step(X)
    with ordering(memory_order, platform="cpu") as outcome:
        step(X)
    assert outcome.modules == []
    assert "nothing was compiled" in str(outcome)


def test_of_nested_blocks_the_inner_one_counts() -> None:
    outer: list[str] = []
    inner: list[str] = []
    with ordering(recorded(outer), platform="cpu", module="jit_step"):
        with ordering(recorded(inner), platform="cpu", module="jit_step"):
            compiled()
        assert (outer, inner) == ([], ["jit_step"])
        compiled()
    assert (outer, inner) == (["jit_step"], ["jit_step"])
    compiled()
    assert (outer, inner) == (["jit_step"], ["jit_step"])


def test_a_rule_may_compile() -> None:
    seen: list[str] = []

    def rule(graph: Graph) -> Orders | None:
        seen.append(graph.name)
        jax.jit(lambda x: x * 5 + 2)(X)
        return None

    with ordering(rule, platform="cpu"):
        compiled()
    assert seen == ["jit_step"]


def in_threads(*works: Callable[[], None]) -> None:
    """Runs functions at once; raises what one of them raised."""
    errors: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    for error in errors:
        raise error


def test_a_compile_of_the_same_module_in_another_thread_is_left_alone(default: Any) -> None:
    """While the rule of one thread runs, another thread compiles the module to its end."""
    rule_runs, other_done = threading.Event(), threading.Event()
    found: dict[str, Any] = {}

    def slow(graph: Graph) -> Orders:
        rule_runs.set()
        assert other_done.wait(30)
        return memory_order(graph)

    def ordered() -> None:
        with ordering(slow, platform="cpu", module="jit_step") as found["outcome"]:
            found["ordered"] = compiled()

    def other() -> None:
        assert rule_runs.wait(30)
        found["other"] = compiled()
        other_done.set()

    in_threads(ordered, other)
    assert len(found["outcome"].modules) == 1
    assert temporaries(found["ordered"]) < temporaries(default)
    assert entry_order(found["other"]) == entry_order(default)


def test_threads_each_get_their_own_order(default: Any) -> None:
    start = threading.Barrier(3)
    found: dict[str, Any] = {}

    def work(name: str, rule: order_hook.Rule) -> Callable[[], None]:
        def run() -> None:
            with ordering(rule, platform="cpu", module="jit_step") as outcome:
                start.wait(30)
                found[name] = compiled(), outcome

        return run

    nowhere = fixed_order({"nowhere": []})
    in_threads(work("memory", memory_order), work("none", lambda graph: None), work("nowhere", nowhere))
    assert [len(outcome.modules) for _, outcome in found.values()] == [1, 1, 1]
    assert temporaries(found["memory"][0]) < temporaries(default)
    assert entry_order(found["none"][0]) == entry_order(found["nowhere"][0]) == entry_order(default)
    assert found["nowhere"][1].refused
    assert not found["none"][1].refused


def test_nothing_is_left_behind_and_others_hooks_stay() -> None:
    from jax._src import compiler

    before = compiler.compile_or_get_cached
    theirs: list[int] = []
    xla.register_hlo_module_transformation(
        lambda content: theirs.append(len(content)), name="theirs", stage=POST_SCHEDULER, platforms="cpu"
    )
    seen: list[str] = []
    try:
        with pytest.raises(KeyError), ordering(recorded(seen), platform="cpu"):
            raise KeyError
        with ordering(recorded(seen), platform="cpu"):
            compiled()
        compiled()
        assert seen == ["jit_step"]
        assert len(theirs) == 2
        assert compiler.compile_or_get_cached is before
        assert order_hook._thread.blocks == []
    finally:
        assert xla.clear_hlo_module_transformation("theirs", POST_SCHEDULER, "cpu")


def test_another_function_put_over_ours_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    from jax._src import compiler

    before = compiler.compile_or_get_cached
    calls: list[str] = []
    seen: list[str] = []
    with ordering(recorded(seen), platform="cpu"):
        ours = compiler.compile_or_get_cached

        def theirs(*args: Any, **kwargs: Any) -> Any:
            calls.append("")
            return ours(*args, **kwargs)

        compiler.compile_or_get_cached = theirs
    try:
        assert compiler.compile_or_get_cached is theirs
        with ordering(recorded(seen), platform="cpu"):
            compiled()
        assert seen == ["jit_step"]
        compiled()
        assert compiler.compile_or_get_cached is theirs
        assert seen == ["jit_step"]
        assert calls
    finally:
        compiler.compile_or_get_cached = before


CACHED = """
import json, sys
import jax
from memplan.backends.order_hook import memory_order, ordering
sys.path.insert(0, sys.argv[1])
from test_order_hook import X, compiled, entry_order, fresh

jax.config.update("jax_compilation_cache_dir", sys.argv[2])
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if event.endswith("/cache_hits") else None)

def ordered():
    with ordering(memory_order, platform="cpu", module="jit_step") as outcome:
        executable = compiled()
    return executable, len(outcome.changed)

found = []
for kind in sys.argv[3:]:
    hits.clear()
    executable, changed = ordered() if kind == "ordered" else (compiled(), 0)
    found.append([kind, changed, len(hits), entry_order(executable)])
print(json.dumps(found))
"""


def test_the_persistent_cache_neither_serves_nor_keeps_what_is_ordered(tmp_path: Path) -> None:
    def run(*kinds: str) -> list[list[Any]]:
        command = [sys.executable, "-c", CACHED, str(Path(__file__).parent), str(tmp_path), *kinds]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    def entries() -> list[str]:
        return [path.name for path in tmp_path.glob("jit_step*-cache")]

    ((_, changed, hits, other_order),) = run("ordered")
    assert (changed, hits) == (1, 0)
    assert entries() == []
    # After an ordered compile a plain one is compiled, and after that an ordered one is not served the plain one.
    first, second, third, fourth = run("plain", "ordered", "plain", "ordered")
    assert first[1:3] == [0, 0]
    assert second[1:] == [1, 0, other_order]
    assert third[1:] == [0, 1, first[3]]
    assert fourth[1:] == [1, 0, other_order]
    assert first[3] != other_order
    assert len(entries()) == 1


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
