"""Every training step: it traces, its blocks are marked, and it recomputes nothing unless it is told to."""

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from memplan.compiler.errors import MemplanError
from memplan.workloads import train_pair_counts, train_step
from memplan.workloads.train_blocks import recomputing
from memplan.workloads.train_step import TrainStep

# Nothing is differentiated in these.
WITHOUT_BLOCKS = {"pair_counts"}


def equations(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner)


def recomputed(step: TrainStep, part: str = "") -> tuple[int, Any]:
    """Returns how many parts of a step are recomputed, and the shapes of its results."""
    fun, args = step.build("tiny")
    assert fun.__name__ == step.name, "the compiled module is named after the function"
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(args))
    if part:
        with recomputing(part):
            jaxpr, results = jax.make_jaxpr(fun, return_shape=True)(*args)
    else:
        jaxpr, results = jax.make_jaxpr(fun, return_shape=True)(*args)
    donated = [leaf for i in step.donate_argnums for leaf in jax.tree.leaves(args[i])]
    returned = Counter((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(results))
    assert Counter((leaf.shape, leaf.dtype) for leaf in donated) <= returned
    return sum(equation.primitive.name in ("checkpoint", "remat2") for equation in equations(jaxpr.jaxpr)), results


def test_there_are_at_least_ten() -> None:
    assert len(train_step.names()) >= 10


@pytest.mark.parametrize("name", train_step.names())
def test_step(name: str) -> None:
    step = train_step.get(name)
    assert step.name == name
    assert "\n" not in step.description
    plain, results = recomputed(step)
    assert plain == 0
    wrapped, same = recomputed(step, "block")
    assert same == results
    assert (wrapped == 0) == (name in WITHOUT_BLOCKS)


@pytest.mark.slow
@pytest.mark.parametrize("name", train_step.names())
def test_the_sizes_ascend(name: str) -> None:
    counts = []
    for size in train_step.SIZES:
        _, args = train_step.get(name).build(size)
        counts.append(sum(leaf.size for leaf in jax.tree.leaves(args)))
    assert counts == sorted(set(counts))


@pytest.mark.slow
def test_histograms_of_pairs() -> None:
    columns = tuple(np.arange(12, dtype=np.uint8) * factor % 20 for factor in (1, 3))
    found = train_pair_counts.pair_histograms(columns)
    clipped = [np.minimum(columns[0], 9), np.minimum(columns[1], 12)]
    for (one, other), counts in zip(itertools.product((0, 1), repeat=2), found, strict=True):
        expected = np.zeros(counts.shape, int)
        np.add.at(expected, (clipped[one], clipped[other]), 1)
        np.testing.assert_array_equal(counts, expected)


@pytest.mark.slow  # the small size is the same code
@pytest.mark.parametrize("name", train_step.names())
def test_the_real_size_traces(name: str) -> None:
    fun, args = train_step.get(name).build("real")
    assert jax.tree.leaves(jax.eval_shape(fun, *args))


def test_an_unknown_size_or_name() -> None:
    with pytest.raises(MemplanError, match=r"no size 'huge'.*tiny, small, real"):
        train_step.get("lstm").build("huge")
    with pytest.raises(MemplanError, match=r"no training step is called 'lstn'.*lstm"):
        train_step.get("lstn")
