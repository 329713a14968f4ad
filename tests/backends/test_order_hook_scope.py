"""Only the compiles that are meant are ordered: other modules, threads, hooks and caches are left alone."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache
from jax.extend import xla
from order_programs import X, compiled, entry_order, fresh, recorded, temporaries

from memplan.backends import compile_hook, order_hook
from memplan.backends.compile_hook import CompileRequest
from memplan.backends.order_hook import (
    Orders,
    fixed_order,
    memory_order,
    ordering,
)
from memplan.compiler.ir.graph import Graph

POST_SCHEDULER = xla.PipelineStage.POST_SCHEDULER


@pytest.fixture(scope="module")
def default() -> Any:
    return compiled()


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
        text = str(block._marked(CompileRequest({"computation": module}, lambda: None)))
        assert 'theirs = "kept"' in text
        assert 'memplan_order = "token"' in text
        assert "memplan_order" not in str(module)


def test_other_platforms_are_left_alone() -> None:
    request = CompileRequest({"backend": SimpleNamespace(platform="tpu")}, lambda: "theirs")
    assert order_hook._OrderBlock("cpu", None, "token").compile(request) == "theirs"


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


@pytest.fixture
def nothing_kept() -> Iterator[None]:
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", before)
    reset_cache()


def test_nothing_is_left_behind_and_others_hooks_stay(nothing_kept: None) -> None:
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
        assert compile_hook._thread.blocks == []
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
from order_programs import X, compiled, entry_order, fresh

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


@pytest.mark.slow
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
