"""What libraries do with a jitted function: copy and pickle it, ask for its attributes, put it on a class."""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import memplan

X = jnp.arange(3.0)


def plus(x: jax.Array, y: float = 1.0) -> jax.Array:
    """Adds."""
    return x + y


def through_cloudpickle(fun: Any) -> Any:
    return cloudpickle.loads(cloudpickle.dumps(fun))


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, through_cloudpickle], ids=lambda f: f.__name__)
@pytest.mark.parametrize("is_warm", [False, True])
def test_copies_and_pickles(duplicate: Callable[[Any], Any], is_warm: bool, dispatcher: str) -> None:
    scale = 2.0
    jitted = memplan.jit(
        lambda x, n: scale * x**n,
        static_argnums=1,
        donate_argnums=(),
        target="generic",
        planner="greedy",
        passes="none",
    )
    if is_warm:
        jitted(X, 3)
    made = duplicate(jitted)
    np.testing.assert_array_equal(made(X, 3), jitted(X, 3))
    assert made.plan(X, 3).plan.planner == "greedy"
    assert type(made).__mro__[1] is type(jitted).__mro__[1]


def test_a_function_of_a_module_is_pickled_by_name() -> None:
    made = pickle.loads(pickle.dumps(memplan.jit(plus, target="generic")))
    assert made.__wrapped__ is plus
    np.testing.assert_array_equal(made(X), X + 1)


@pytest.mark.slow
def test_pickled_for_another_process(tmp_path: Path) -> None:
    (tmp_path / "jitted").write_bytes(cloudpickle.dumps({"step": memplan.jit(lambda x: x * 2, static_argnames=())}))
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb'))['step'](21))"
    command = [sys.executable, "-P", "-c", code, str(tmp_path / "jitted")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "42\n"


def test_shardings_among_the_arguments_of_jit_are_not_copied() -> None:
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    made = copy.deepcopy(memplan.jit(plus, in_shardings=sharding, static_argnums=1))
    np.testing.assert_array_equal(made(X, 2.0), X + 2)


def test_it_has_every_attribute_that_the_result_of_jax_jit_has(dispatcher: str) -> None:
    def fun(x: jax.Array, y: float = 1.0) -> jax.Array:
        """Adds."""
        return x + y

    theirs, ours = jax.jit(fun), memplan.jit(fun)
    missing = [name for name in dir(theirs) if not hasattr(ours, name)]
    assert missing == []
    assert set(dir(theirs)) <= set(dir(ours))
    for name in ("__name__", "__qualname__", "__module__", "__doc__", "__wrapped__", "__signature__", "_fun"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours._jit_info.fun_signature == theirs._jit_info.fun_signature
    assert inspect.signature(ours) == inspect.signature(fun)
    assert isinstance(ours, jax.stages.Wrapped)
    with pytest.raises(AttributeError, match="no attribute 'frobnicate'"):
        ours.frobnicate  # noqa: B018


def test_the_size_of_the_cache(dispatcher: str) -> None:
    theirs, ours = (jit(lambda x: x + 1) for jit in (jax.jit, memplan.jit))
    for argument in (X, X, X[:2], 3):
        for jitted in (theirs, ours):
            jitted(argument)
        assert ours._cache_size() == theirs._cache_size()
    theirs._clear_cache()
    ours._clear_cache()
    assert ours._cache_size() == theirs._cache_size() == 0
    np.testing.assert_array_equal(ours(X), X + 1)


def test_it_is_an_object_like_others(dispatcher: str) -> None:
    jitted = memplan.jit(plus)
    assert {jitted: 1}[jitted] == 1
    assert jitted == jitted
    assert weakref.ref(jitted)() is jitted
    assert inspect.unwrap(jitted) is plus
    jitted.note = "ours"
    assert jitted.note == "ours"


class Layer:
    """A class whose methods are jitted in all the ways that there are."""

    scale = 3.0

    @functools.partial(memplan.jit, static_argnums=0)
    def method(self, x: jax.Array) -> jax.Array:
        return self.scale * x

    @staticmethod
    @memplan.jit
    def static(x: jax.Array) -> jax.Array:
        return 2 * x

    @classmethod
    @functools.partial(memplan.jit, static_argnums=0)
    def of_class(cls, x: jax.Array) -> jax.Array:
        return cls.scale * x

    @property
    @functools.partial(memplan.jit, static_argnums=0)
    def value(self) -> jax.Array:
        return jnp.float32(self.scale)


def test_on_a_class(dispatcher: str) -> None:
    layer = Layer()
    assert float(layer.method(2.0)) == float(Layer.method(layer, 2.0)) == 6.0
    assert float(layer.static(2.0)) == 4.0
    assert float(layer.of_class(2.0)) == 6.0
    assert float(layer.value) == 3.0


def test_what_jax_makes_of_it(dispatcher: str) -> None:
    ours, theirs = (jit(plus) for jit in (memplan.jit, jax.jit))
    assert jax.eval_shape(ours, X) == jax.eval_shape(theirs, X) == ours.eval_shape(X)
    assert str(jax.make_jaxpr(ours)(X)) == str(jax.make_jaxpr(theirs)(X))
    exported = jax.export.export(ours)(X)
    np.testing.assert_array_equal(exported.call(X), X + 1)
    np.testing.assert_array_equal(jax.tree_util.Partial(ours, y=2.0)(X), X + 2)
    np.testing.assert_array_equal(jax.checkpoint(ours)(X), X + 1)


def test_in_the_libraries_of_training() -> None:
    """A training step of flax and optax, with state that is donated, and a module as a static argument."""
    nnx = pytest.importorskip("flax.nnx")
    linen = pytest.importorskip("flax.linen")
    optax = pytest.importorskip("optax")

    model = linen.Dense(2)
    optimizer = optax.adam(0.1)
    params = model.init(jax.random.key(0), jnp.ones((4, 3)))

    def step(module: Any, params: Any, state: Any, x: jax.Array) -> Any:
        loss, slopes = jax.value_and_grad(lambda p: jnp.square(module.apply(p, x)).mean())(params)
        updates, state = optimizer.update(slopes, state)
        return optax.apply_updates(params, updates), state, loss

    results = []
    for jit in (jax.jit, memplan.jit):
        jitted = jit(step, static_argnums=0, donate_argnums=(1, 2))
        copied = jax.tree.map(jnp.copy, params)
        results.append(jitted(model, copied, optimizer.init(copied), jnp.ones((4, 3))))
    jax.tree.map(np.testing.assert_array_equal, *results)

    layer = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    graph, state = nnx.split(layer)
    outputs = [
        jit(lambda state, x: nnx.merge(graph, state)(x))(state, jnp.ones((1, 3))) for jit in (jax.jit, memplan.jit)
    ]
    np.testing.assert_array_equal(*outputs)
