"""memplan.jit where a plan is made: on a TPU that is there and for one that is not, both played by this machine's CPU."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compile_counter import compiles

import memplan
from memplan.backends.jit import machine, messages, planning, stages, wrapper
from memplan.backends.jit.function import Function
from memplan.backends.tpu.compile import CompiledModule, CompileError
from memplan.backends.tpu.devices import TOPOLOGY_OF_TARGET
from memplan.backends.tpu.outcome import Candidate, Outcome
from memplan.compiler.emulator.score import Score
from memplan.compiler.errors import MemplanError
from memplan.compiler.hardware.target import Target, load_target

X = jnp.arange(12.0).reshape(3, 4)

# Options that the CPU's compiler takes too, and one that it does not.
FAST, FASTER = {"xla_cpu_enable_fast_math": "True"}, {"xla_cpu_enable_fast_min_max": "True"}
REFUSED = {"xla_no_such_option": "1"}


def candidate(name: str, options: dict[str, str], latency: float | None) -> Candidate:
    score = None if latency is None else Score(latency, 1e9, latency, 0.0, ())
    return Candidate(name, options, f"HloModule {name}", score, "" if score else "refused", 0.1)


DEFAULT = candidate("default", {}, 4.0)


def outcome_of(*others: Candidate) -> Outcome:
    """Returns an outcome with these candidates beside the default; problem and plan are those of some function."""
    target = load_target("tpu-v5e")
    settings = planning.Settings(target, "greedy", 8, {})
    small = planning.plan_jaxpr(jax.jit(jnp.tanh).trace(X), [X], target, settings)
    candidates = (DEFAULT, *others)
    best = min((one for one in candidates if one.score), key=lambda one: one.score.latency if one.score else 0.0)
    return Outcome("tpu-v5e", DEFAULT, best, candidates, (), small.problem, small.plan)


@dataclass
class Optimizer:
    """In the place of the real one: answers what it was told to, and keeps what it was asked."""

    answer: Outcome | Exception
    asked: list[dict[str, Any]] = field(default_factory=list)

    def optimize(self, module: bytes, target: Target, **settings: Any) -> Outcome:
        libtpu_lock = os.environ.get("ALLOW_MULTIPLE_LIBTPU_LOAD")
        self.asked.append({"module": module, "target": target.name, "lock": libtpu_lock, **settings})
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def optimizer(monkeypatch: pytest.MonkeyPatch) -> Optimizer:
    made = Optimizer(outcome_of(candidate("plan", FAST, 3.0)))
    module = ModuleType("memplan.backends.tpu.optimize")
    module.optimize = made.optimize  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return made


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "_said", set())
    monkeypatch.delenv("ALLOW_MULTIPLE_LIBTPU_LOAD", raising=False)


@pytest.fixture
def tpu_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's CPU is a TPU v5e from now on."""
    monkeypatch.setattr(machine, "target_of", lambda device: "tpu-v5e")


def clock(*seconds: float) -> Callable[[Callable[[], Any]], float]:
    """Returns a timer that runs, and then says that programs took these seconds, in turn."""
    turns: Iterator[int] = iter(range(10**6))

    def timer(run: Callable[[], Any]) -> float:
        jax.block_until_ready(run())
        return seconds[next(turns) % len(seconds)]

    return timer


def jitted(
    fun: Callable[..., Any], timer: Callable[..., float], options: dict[str, Any] | None = None, **jit_kwargs: Any
) -> tuple[wrapper.Jitted, Function]:
    settings = planning.Settings(None, "greedy", 8, options or {})
    if options is not None:
        jit_kwargs["compiler_options"] = options
    made = Function(fun, settings, jit_kwargs, timer)
    return wrapper.handle_of(made), made


# A TPU that is there.


@pytest.mark.usefixtures("tpu_here")
def test_each_signature_is_planned_once(optimizer: Optimizer) -> None:
    traces: list[int] = []

    def fun(x: jax.Array, n: int) -> jax.Array:
        traces.append(n)
        return jnp.tanh(x) * n

    planned = memplan.jit(fun, static_argnums=1, planner="slow", compile_budget=3)
    for _ in range(3):
        for n in (2, 3):
            np.testing.assert_allclose(planned(X, n), np.tanh(X) * n, rtol=1e-6)
    assert traces == [2, 3]
    assert len(optimizer.asked) == 2
    first = optimizer.asked[0]
    assert (first["target"], first["planner"], first["compile_budget"], first["options"]) == ("tpu-v5e", "slow", 3, {})
    assert first["module"].startswith(b"ML\xefR")
    assert first["module"] != optimizer.asked[1]["module"]


@pytest.mark.usefixtures("tpu_here")
def test_workers_may_load_libtpu_beside_this_process(optimizer: Optimizer) -> None:
    memplan.jit(lambda x: x + 1)(X)
    assert optimizer.asked[0]["lock"] == "1"
    assert "ALLOW_MULTIPLE_LIBTPU_LOAD" not in os.environ


@pytest.mark.usefixtures("tpu_here")
@pytest.mark.parametrize(("seconds", "chosen"), [((1.0, 2.0, 3.0), 0), ((2.0, 1.0, 3.0), 1), ((3.0, 2.0, 1.0), 2)])
def test_the_fastest_of_the_best_two_and_the_default_is_used(
    optimizer: Optimizer, seconds: tuple[float, ...], chosen: int, caplog: pytest.LogCaptureFixture
) -> None:
    slower = candidate("slower", {"xla_cpu_enable_fast_math": "False"}, 3.5)
    failed = candidate("failed", REFUSED, None)
    optimizer.answer = outcome_of(slower, failed, candidate("plan", FAST, 2.0), candidate("other", FASTER, 3.0))
    handle, function = jitted(lambda x: jnp.tanh(x), clock(*seconds))
    with caplog.at_level(logging.INFO, "memplan"):
        handle(X)
    expected = [function._with(FAST), function._with(FASTER), function.plain][chosen]
    assert function.choose((X,), {}) is expected
    name = ["plan", "other", "default"][chosen]
    assert f"is compiled for tpu-v5e as {name!r}: plan " in caplog.text
    assert len(function._with_options) == 2


@pytest.mark.usefixtures("tpu_here")
def test_the_default_alone_is_the_plain_function(optimizer: Optimizer) -> None:
    optimizer.answer = outcome_of()
    handle, function = jitted(lambda x: jnp.tanh(x), clock())
    handle(X)
    assert function.choose((X,), {}) is function.plain


@pytest.mark.usefixtures("tpu_here")
def test_the_callers_options_are_part_of_all_and_win(optimizer: Optimizer) -> None:
    optimizer.answer = outcome_of(candidate("plan", {**FAST, **FASTER}, 3.0))
    own = {"xla_cpu_enable_fast_math": False}
    handle, function = jitted(lambda x: jnp.tanh(x), clock(1.0, 2.0), own)
    handle(X)
    assert optimizer.asked[0]["options"] == {"xla_cpu_enable_fast_math": "False"}
    options = dict(function.choose((X,), {})._jit_info.compiler_options_kvs)
    assert options == {"xla_cpu_enable_fast_math": False, "xla_cpu_enable_fast_min_max": "True"}


@pytest.mark.usefixtures("tpu_here")
def test_donated_arguments_survive_the_timing(optimizer: Optimizer) -> None:
    handle, function = jitted(lambda state, x: (state + x, x.sum()), clock(1.0, 2.0), donate_argnums=0)
    state = jnp.zeros((3, 4))
    for turn in range(1, 4):
        previous = state
        state, _ = handle(state, x=X)
        assert previous.is_deleted()
        np.testing.assert_allclose(state, X * turn)
    assert function.choose((state, X), {}) is not function.plain


@pytest.mark.usefixtures("tpu_here")
def test_a_function_with_effects_is_not_run_to_be_timed(optimizer: Optimizer) -> None:
    happened: list[float] = []

    def noisy(x: jax.Array) -> jax.Array:
        jax.debug.callback(lambda value: happened.append(float(value)), x)
        return x + 1

    handle, function = jitted(noisy, clock(2.0, 1.0))
    handle(1.0)
    handle(2.0)
    jax.effects_barrier()
    assert happened == [1.0, 2.0]
    assert function.choose((1.0,), {}) is function._with(FAST)
    assert len(optimizer.asked) == 1


@pytest.mark.usefixtures("tpu_here")
def test_what_this_machine_does_not_compile_is_left_out(optimizer: Optimizer, caplog: pytest.LogCaptureFixture) -> None:
    optimizer.answer = outcome_of(candidate("plan", REFUSED, 2.0), candidate("other", FAST, 3.0))
    handle, function = jitted(lambda x: jnp.tanh(x), clock(1.0, 2.0))
    with caplog.at_level(logging.WARNING, "memplan"):
        handle(X)
    (record,) = caplog.records
    assert "is not compiled as 'plan'" in record.message
    assert function.choose((X,), {}) is function._with(FAST)


@pytest.mark.usefixtures("tpu_here")
def test_what_cannot_be_timed_is_judged_by_the_estimate(optimizer: Optimizer, caplog: pytest.LogCaptureFixture) -> None:
    def timer(run: Callable[[], Any]) -> float:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: no room for a copy")

    handle, function = jitted(lambda x: jnp.tanh(x), timer)
    with caplog.at_level(logging.WARNING, "memplan"):
        handle(X)
    (record,) = caplog.records
    assert "no room for a copy" in record.message
    assert function.choose((X,), {}) is function._with(FAST)


@pytest.mark.usefixtures("tpu_here")
@pytest.mark.parametrize(
    ("error", "traceback"),
    [
        (CompileError("the TPU compiler did not answer within 600 s", "timeout"), False),
        (CompileError("the TPU compiler is not installed: pip install 'memplan[tpu]'", "missing"), False),
        (KeyError("a bug"), True),
    ],
)
def test_what_cannot_be_planned_runs_as_by_jax(
    optimizer: Optimizer, error: Exception, traceback: bool, caplog: pytest.LogCaptureFixture
) -> None:
    optimizer.answer = error
    with caplog.at_level(logging.WARNING, "memplan"):
        planned = memplan.jit(lambda x: x * 2)
        for _ in range(2):
            np.testing.assert_array_equal(planned(X), X * 2)
    (record,) = caplog.records
    assert "runs as by jax.jit, without a plan" in record.message
    assert str(error) in record.message
    assert bool(record.exc_info) == traceback
    assert len(optimizer.asked) == 1


@pytest.mark.usefixtures("tpu_here")
def test_under_transformations_nothing_is_planned(optimizer: Optimizer) -> None:
    planned = memplan.jit(lambda x: jnp.sum(x**2))
    np.testing.assert_array_equal(jax.grad(planned)(X), 2 * X)
    np.testing.assert_array_equal(jax.jit(jax.vmap(planned))(X), jnp.sum(X**2, 1))
    assert not optimizer.asked
    np.testing.assert_array_equal(memplan.jit(jax.grad(planned))(X), 2 * X)
    assert len(optimizer.asked) == 1


@pytest.mark.usefixtures("tpu_here")
def test_lowering_for_the_tpu_that_is_there_compiles_with_the_plan(optimizer: Optimizer) -> None:
    compiled = memplan.jit(lambda x: x * 2).lower(jax.ShapeDtypeStruct(X.shape, X.dtype)).compile(FASTER)
    assert optimizer.asked[0]["options"] == FASTER
    np.testing.assert_array_equal(compiled(X), X * 2)


@pytest.mark.usefixtures("tpu_here")
@pytest.mark.parametrize(
    "answer", [CompileError("the TPU compiler died", "crashed"), candidate("plan", REFUSED, 1.0)], ids=["error", "plan"]
)
def test_what_was_lowered_is_compiled_as_by_jax_if_the_plan_fails(
    optimizer: Optimizer, answer: Candidate | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    optimizer.answer = outcome_of(answer) if isinstance(answer, Candidate) else answer
    with caplog.at_level(logging.WARNING, "memplan"):
        compiled = memplan.jit(lambda x: x * 2).lower(X).compile()
    np.testing.assert_array_equal(compiled(X), X * 2)
    assert len(caplog.records) == 1


@pytest.mark.usefixtures("tpu_here")
def test_each_contender_is_compiled_once(optimizer: Optimizer) -> None:
    optimizer.answer = outcome_of(candidate("plan", FAST, 2.0), candidate("other", FASTER, 3.0))
    with compiles() as seen:
        handle, _ = jitted(lambda x: jnp.tanh(x), clock(2.0, 1.0, 3.0))
        handle(X)
        handle(X)
    assert len(seen) == 3


@pytest.mark.usefixtures("tpu_here")
def test_another_target_than_the_tpu_that_is_there(optimizer: Optimizer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "memplan"):
        planned = memplan.jit(lambda x: x * 2, target="tpu-v4")
        np.testing.assert_array_equal(planned(X), X * 2)
    assert not optimizer.asked
    assert "tpu-v4 is not on this machine" in caplog.text


def test_contenders_are_the_best_two_and_the_default() -> None:
    names = [
        [one.name for one in planning.contenders(outcome_of(*others))]
        for others in (
            (),
            (candidate("worse", FAST, 5.0),),
            (candidate("a", FAST, 3.0), candidate("b", FASTER, 2.0), candidate("c", REFUSED, 3.5)),
            (candidate("a", FAST, 3.0), candidate("same", FAST, 2.9), candidate("failed", REFUSED, None)),
        )
    ]
    assert names == [["default"], ["default", "worse"], ["b", "a", "default"], ["same", "default"]]


# A TPU that is not there.


def test_compiling_for_a_target_that_is_not_here(optimizer: Optimizer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fun(tree: dict[str, jax.Array], n: int, *, flag: bool) -> jax.Array:
        return tree["a"] * n if flag else tree["a"]

    order = {"main": ("a", "b")}
    optimizer.answer = outcome_of(replace(candidate("plan", FAST, 3.0), order=order))
    planned = memplan.jit(fun, target="tpu-v5e", static_argnums=1, static_argnames="flag", compile_budget=2)
    lowered = planned.lower({"a": jax.ShapeDtypeStruct((4,), jnp.float32)}, 3, flag=True)
    assert "stablehlo.multiply" in lowered.as_text()
    compiled = lowered.compile()
    assert compiled.as_text() == "HloModule plan"
    assert compiled.outcome is optimizer.answer
    assert compiled.plan is compiled.outcome.plan
    assert compiled.report().subject.plan is compiled.plan
    assert compiled.in_tree == jax.tree.structure((({"a": 0},), {}))
    assert compiled.out_tree == jax.tree.structure(0)
    assert compiled.out_info.shape == (4,)
    assert jax.tree.leaves(compiled.args_info)[0].shape == (4,)
    (asked,) = optimizer.asked
    assert (asked["target"], asked["compile_budget"], asked["lock"]) == ("tpu-v5e", 2, None)
    with pytest.raises(MemplanError, match="compiled for tpu-v5e, which is not on this machine"):
        compiled({"a": X[0]})

    class Compiler:
        def __enter__(self) -> Compiler:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def compile(self, *given: Any) -> CompiledModule:
            assert given == (asked["module"], "v5e:2x2", FAST, {"main": ("a", "b")}, ())
            return CompiledModule("", 0.0, cached=True, memory={"temp_size_in_bytes": 7})

    monkeypatch.setattr(stages, "TpuCompiler", Compiler)
    assert compiled.memory_analysis().temp_size_in_bytes == 7


def test_options_of_the_compile_and_of_the_function(optimizer: Optimizer) -> None:
    planned = memplan.jit(jnp.tanh, target="tpu-v5e", compiler_options={"a": True, "b": 1})
    planned.lower(X).compile({"b": 2, "c": "x"})
    assert optimizer.asked[0]["options"] == {"a": "True", "b": "2", "c": "x"}
    with pytest.raises(MemplanError, match="takes no device_assignment"):
        planned.lower(X).compile(device_assignment=())


def test_an_error_of_the_compile_is_the_users(optimizer: Optimizer) -> None:
    optimizer.answer = CompileError("the TPU compiler is not installed: pip install 'memplan[tpu]'", "missing")
    with pytest.raises(CompileError, match="pip install"):
        memplan.jit(jnp.tanh, target="tpu-v5e").lower(X).compile()
    with pytest.raises(CompileError, match="pip install"):
        memplan.jit(jnp.tanh, target="tpu-v5e").plan(X)


def test_plan_for_a_target_with_a_compiler(optimizer: Optimizer) -> None:
    found = memplan.jit(jnp.tanh, target="tpu-v5e").plan(jax.ShapeDtypeStruct((8, 8), jnp.float32))
    assert found.outcome is optimizer.answer
    assert found.plan is found.outcome.plan
    assert found.problem is found.outcome.problem
    assert [contender.label for contender in found.report.contenders] == ["all in hbm", "greedy"]


def test_a_target_of_ones_own_is_asked_for_by_name(optimizer: Optimizer) -> None:
    smaller = replace(load_target("tpu-v5e"), description="half of it")
    memplan.jit(jnp.tanh, target=smaller).lower(X).compile()
    assert optimizer.asked[0]["target"] == "tpu-v5e"
    another = replace(smaller, name="tpu-v5e-half")
    with pytest.raises(MemplanError, match="no compiler carries out plans for tpu-v5e-half"):
        memplan.jit(jnp.tanh, target=another).lower(X).compile()


# Which device.


@dataclass(frozen=True)
class Device:
    platform: str
    device_kind: str
    id: int = 0


def test_targets_of_devices() -> None:
    assert machine.target_of(Device("tpu", "TPU v5 lite")) == "tpu-v5e"
    assert machine.target_of(Device("tpu", "TPU v3")) == ""
    assert machine.target_of(Device("gpu", "TPU v4")) == ""
    assert set(machine.TARGET_OF_KIND.values()) == set(TOPOLOGY_OF_TARGET)
    assert not machine.is_here(Device("tpu", "TPU v4"))
    assert machine.is_here(jax.devices()[0])


def test_the_device_is_where_the_arguments_are() -> None:
    device = jax.devices()[0]
    assert machine.device_of([]) is device
    assert machine.device_of([1.0, "text", X, np.ones(3)]) is device
    assert machine.device_of([jax.device_put(X, device)]) is device
    assert machine.device_of([jax.ShapeDtypeStruct((3,), "float32")]) is device
    assert machine.device_of([jax.sharding.SingleDeviceSharding(device)]) is device
    with jax.default_device(device):
        assert machine.device_of([X]) is device
    with jax.default_device("cpu"):
        assert machine.device_of([X]) is device
    abstract = jax.sharding.NamedSharding(
        jax.sharding.AbstractMesh((2,), ("d",)), jax.sharding.PartitionSpec("d")
    )  # fmt: skip
    assert machine.device_of([abstract]) is device
