"""Sparse update: the pruned step beside the whole one, and its training on images that are made here."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gratings import gratings

from memplan.compiler.errors import MemplanError
from memplan.passes.sparse_update import SparseStep, merge, sparse_update
from memplan.passes.update_scheme import UpdateScheme
from memplan.workloads.calibration import calibrated, quantized_image
from memplan.workloads.quantized_network import InvertedResidualSpec, QuantizedNetwork, network_of

WIDTHS = (4, 6, 5, 3)


def mlp_step(params: list[Any], x: jax.Array) -> tuple[list[Any], jax.Array]:
    def loss(params: list[Any]) -> jax.Array:
        y = x
        for p in params:
            y = jnp.tanh(y @ p["w"] + p["b"])
        return jnp.square(y).mean()

    value, gradients = jax.value_and_grad(loss)(params)
    return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients), value


def mlp() -> tuple[list[Any], jax.Array]:
    draw = np.random.default_rng(0)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(draw.standard_normal(shape), jnp.float32)

    params = [{"w": normal(a, b), "b": normal(b)} for a, b in itertools.pairwise(WIDTHS)]
    return params, normal(2, WIDTHS[0])


def products(sparse: SparseStep) -> int:
    return Counter(equation.primitive.name for equation in sparse.closed.jaxpr.eqns)["dot_general"]


def test_chosen_parameters_move_as_in_the_whole_step_and_nothing_flows_below_them() -> None:
    params, x = mlp()
    updated = [{"w": False, "b": False}, {"w": False, "b": True}, {"w": True, "b": False}]
    sparse = sparse_update(mlp_step, updated, params, x)
    trained, loss = jax.jit(sparse.fun)(*sparse.split(params), x)
    wanted, wanted_loss = jax.jit(mlp_step)(params, x)
    np.testing.assert_allclose(loss, wanted_loss, rtol=1e-6)
    for new, old, choice in zip(trained, wanted, updated, strict=True):
        for name, is_chosen in choice.items():
            if is_chosen:
                np.testing.assert_allclose(new[name], old[name], rtol=1e-5)
            else:
                assert new[name] is None
    # Three products forward, the gradient of the last weights, and that of the activation below them.
    assert products(sparse) == 3 + 2
    everything = sparse_update(mlp_step, jax.tree.map(lambda _: True, updated), params, x)
    assert products(everything) == 3 + 3 + 2


def test_a_tree_that_was_split_is_merged_again() -> None:
    params, x = mlp()
    updated = jax.tree.map(lambda leaf: leaf.ndim == 1, params)
    halves = sparse_update(mlp_step, updated, params, x).split(params)
    assert len(jax.tree.leaves(halves[0])) == len(jax.tree.leaves(halves[1])) == 3
    assert jax.tree.structure(merge(*halves)) == jax.tree.structure(params)


@pytest.mark.parametrize(
    ("step", "updated", "message"),
    [
        (mlp_step, [{"w": True}] * 3, "another one"),
        (mlp_step, [{"w": False, "b": False}] * 3, "updates nothing"),
        (mlp_step, [{"w": 1, "b": False}] * 3, r"\[0\]\['w'\] is updated is 1"),
        (lambda params, x: params, [{"w": True, "b": True}] * 3, "returns list"),
        (lambda params, x: (params[0], x), [{"w": True, "b": True}] * 3, "not a tree like"),
        (lambda params, x: (params, x @ x), [{"w": True, "b": True}] * 3, "does not trace"),
    ],
)
def test_bad_input(step: Callable[..., Any], updated: Any, message: str) -> None:
    params, x = mlp()
    with pytest.raises(MemplanError, match=message):
        sparse_update(step, updated, params, x)


def test_another_tree_of_arguments_is_named() -> None:
    params, x = mlp()
    sparse = sparse_update(mlp_step, jax.tree.map(lambda leaf: leaf.ndim == 1, params), params, x)
    with pytest.raises(MemplanError, match="was pruned for arguments"):
        sparse.fun(params, params, x)


SIDE, BATCH, STEPS = 12, 16, 50
# Fewer parameters take larger steps, as in the paper's experiments.
RATE, SPARSE_RATE = 0.2, 0.3
SCHEME = UpdateScheme(6, ((2, 0.5), (4, 0.5), (6, 1.0)))
BLOCKS = (InvertedResidualSpec(16, 3, 2, 8), InvertedResidualSpec(16, 3, 1, 8))


def trainer(step: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that trains for `STEPS` steps on data, and returns parameters and all losses."""

    @jax.jit
    def train(params: Any, *data: jax.Array) -> Any:
        def one(params: Any, number: jax.Array) -> Any:
            start = number * BATCH % data[0].shape[0]
            return step(params, *(jax.lax.dynamic_slice_in_dim(part, start, BATCH) for part in data))

        return jax.lax.scan(one, params, jnp.arange(STEPS))

    return train


def pruned(network: QuantizedNetwork, params: Any, *batch: Any) -> tuple[SparseStep, Any]:
    """Returns the step of `SCHEME`, and the parameters that it takes."""
    channels = SCHEME.channels(network.layers)
    cut = network.cut(params, channels)
    step = partial(network.train_step, rate=SPARSE_RATE, kept_inputs=SCHEME.kept_inputs(network.layers))
    return sparse_update(step, network.updated(channels, SCHEME.bias_layers), cut, *batch), cut


def test_an_int8_network_learns_and_the_sparse_update_is_as_good() -> None:
    """A network that tells directions of waves apart learns others, by training all of it and by sparse update."""
    network = network_of(8, BLOCKS, SIDE, 4)
    first, labels = gratings(64, 0.0, 0, SIDE)
    network, params = calibrated(network, first)
    full = trainer(partial(network.train_step, rate=RATE))
    params, _ = full(params, quantized_image(network, first), labels)

    images, labels = gratings(64, 0.5, 1, SIDE)
    data = quantized_image(network, images), labels
    others, other_labels = gratings(200, 0.5, 2, SIDE)
    logits = jax.jit(network.forward)

    def accuracy(params: Any) -> float:
        return float((logits(params, quantized_image(network, others)).argmax(-1) == other_labels).mean())

    of_full, losses = full(params, *data)
    sparse, cut = pruned(network, params, *(part[:BATCH] for part in data))
    trained, frozen = sparse.split(cut)
    trained, sparse_losses = trainer(lambda trained, *batch: sparse.fun(trained, frozen, *batch))(trained, *data)
    for each in (losses, sparse_losses):
        assert each[-5:].mean() < 0.5 * each[:5].mean()
    assert accuracy(params) < 0.7
    assert accuracy(of_full) > 0.9
    assert accuracy(network.joined(merge(trained, frozen))) > accuracy(of_full) - 0.02


def test_a_pruned_int8_step_keeps_what_its_scheme_says() -> None:
    network = network_of(8, BLOCKS, SIDE, 4)
    batch = (network.image(), jax.ShapeDtypeStruct((1,), jnp.int32))
    sparse, cut = pruned(network, network.abstract(), *batch)
    names = Counter(equation.primitive.name for equation in sparse.closed.jaxpr.eqns)
    # Seven convolutions forward, three gradients of weights, and five of inputs: the lowest trained bias is the second.
    assert names["conv_general_dilated"] == 7 + 3 + 5
    assert jax.tree.structure(merge(sparse.trained, sparse.frozen)) == jax.tree.structure(cut)
    weights = sum(leaf.size for leaf in jax.tree.leaves(sparse.trained) if leaf.dtype == jnp.int8)
    assert weights == 9 * 8 + 4 * 16 + 16 * 8 + 8 * 4
