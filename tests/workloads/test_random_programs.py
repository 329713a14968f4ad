"""Random programs: what is drawn, that it is the same everywhere, and that every kind of block traces and runs."""

import os
import random
import subprocess
import sys
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memplan.compiler.errors import MemplanError
from memplan.workloads import names
from memplan.workloads._random_layers import FEEDS, MIXERS, Architecture
from memplan.workloads._weights import random_params
from memplan.workloads.random_programs import FAMILIES, architecture, program, random_program, tiny_of
from memplan.workloads.registry import HELD_OUT

PRIMITIVES = {
    "attention": "exp",
    "convolution": "conv_general_dilated",
    "fft": "fft",
    "recurrence": "scan",
    "tokens": "dot_general",
    "gather": "sort",
    "refine": "while",
    "mlp": "dot_general",
    "gated": "dot_general",
    "experts": "argmax",
    "cond": "cond",
    "none": "tanh",
}


def drawn(number: int, family: str) -> Architecture:
    return tiny_of(architecture(random.Random(number), family))


def one_layer(mixer: str, feed: str, **changes: Any) -> Architecture:
    base = replace(drawn(0, "random-hybrid"), pattern=((mixer, feed),), repeats=1, activation="tanh", vocab=0)
    return replace(base, dtype="float32", layout="unrolled", skips="none", variant=0, optimizer=None, **changes)


def primitives(fun: Any, args: Any) -> set[str]:
    found = set()
    waiting = [jax.make_jaxpr(fun)(*args).jaxpr]
    while waiting:
        for equation in waiting.pop().eqns:
            found.add(equation.primitive.name)
            for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "jaxpr")):
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    waiting.append(inner)
    return found


@pytest.mark.parametrize("kind", [*MIXERS, *FEEDS])
def test_every_kind_of_block_occurs_and_traces(kind: str) -> None:
    mixer, feed = (kind, "mlp") if kind in MIXERS else ("convolution", kind)
    assert PRIMITIVES[kind] in primitives(*program(one_layer(mixer, feed)))
    assert any(kind in pair for number in range(60) for pair in drawn(number, "random-hybrid").pattern)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_parameters(family: str) -> None:
    _, (params, *inputs) = program(replace(drawn(3, family), optimizer=None, repeats=1))
    assert jax.tree.leaves(params)
    assert inputs


@pytest.mark.slow  # gradients of twelve networks
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_traces_as_a_training_step(family: str) -> None:
    fun, args = program(replace(drawn(3, family), optimizer="adam", repeats=2))
    results = jax.eval_shape(fun, *args)
    assert results[0] == args[0], "a step returns parameters like those it took"
    assert results[-1].shape == ()


@pytest.mark.slow
def test_a_step_is_finite() -> None:
    layers = (("refine", "cond"), ("gather", "experts"))
    fun, (params, x, wanted) = program(replace(one_layer("fft", "none"), pattern=layers, optimizer="sgd"))
    rng = np.random.default_rng(0)
    arrays = [jnp.asarray(rng.normal(size=s.shape), s.dtype) for s in (x, wanted)]
    new, loss = jax.jit(fun)(random_params(params), *arrays)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((new, loss)))


def test_layouts_share_stack_or_repeat_weights() -> None:
    def count(layout: str) -> int:
        _, (params, *_) = program(replace(one_layer("attention", "mlp"), repeats=3, layout=layout))
        return sum(leaf.size for leaf in jax.tree.leaves(params))

    assert count("shared") < count("unrolled") == count("scanned")


@pytest.mark.slow
def test_the_same_seed_gives_the_same_program_in_another_process() -> None:
    source = "from memplan.workloads.random_programs import random_program as r\n"
    source += "import jax; print([(d.name, d.description, str(jax.make_jaxpr(d.build(tiny=True)[0])"
    source += "(*d.build(tiny=True)[1]))) for d in (r(5, 'random-graph'), r(6, 'random-hybrid'))])"
    done = subprocess.run(
        [sys.executable, "-c", source],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "7"},
    )
    here: list[Any] = []
    exec(source.replace("print(", "here.append("), {"here": here})
    assert done.stdout.strip() == str(here[0])


def test_programs_differ_and_say_what_they_are() -> None:
    made = [random_program(seed) for seed in range(40)]
    assert len({each.description for each in made}) > 35
    assert {each.kind for each in made} == {"inference", "training"}
    assert not {each.name for each in made} & set(names()), "they are not registered"


def test_a_split_holds_whole_families_out() -> None:
    held_out = {family for family in FAMILIES if family in HELD_OUT}
    assert 2 <= len(held_out) <= len(FAMILIES) // 2
    assert {random_program(seed, "random-graph").split for seed in range(3)} == {"held-out"}
    assert {random_program(seed, "random-decoder").split for seed in range(3)} == {"development"}


def test_bad_input() -> None:
    with pytest.raises(MemplanError, match="not negative"):
        random_program(-1)
    with pytest.raises(MemplanError, match="no random program is of family 'x'; families: random-convnet"):
        random_program(1, "x")
