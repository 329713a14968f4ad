"""The choice of what is trained, against all choices."""

from __future__ import annotations

import itertools
import random
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from gratings import gratings

from memplan.compiler.errors import MemplanError
from memplan.passes.update_scheme import UpdateScheme, update_memory
from memplan.passes.update_selection import (
    Contributions,
    choose_scheme,
    choose_scheme_by_peak,
    measure_contributions,
)
from memplan.workloads import mcu
from memplan.workloads.calibration import calibrated, quantized_image
from memplan.workloads.quantized_network import InvertedResidualSpec, network_of

LAYERS = mcu.tiny(16).layers
SHARES = (0.25, 0.5, 1.0)


def drawn(seed: int) -> Contributions:
    draw = random.Random(seed)
    weights = {(layer, share): draw.uniform(-0.2, 1.0) for layer in (6, 8, 9, 11) for share in SHARES}
    return Contributions({2: draw.random(), 4: draw.random(), 6: draw.random()}, weights)


def worth(contributions: Contributions, scheme: UpdateScheme) -> float:
    return contributions.biases[scheme.bias_layers] + sum(contributions.weights[each] for each in scheme.weights)


def all_schemes(contributions: Contributions) -> list[UpdateScheme]:
    found = []
    for biases in contributions.biases:
        options = [
            [(), *(((layer, share),) for share in SHARES)] for layer in (6, 8, 9, 11) if layer >= len(LAYERS) - biases
        ]
        found += [UpdateScheme(biases, tuple(itertools.chain(*each))) for each in itertools.product(*options)]
    return found


@pytest.mark.parametrize("seed", range(4))
def test_no_scheme_within_the_budget_is_worth_more(seed: int) -> None:
    contributions = drawn(seed)
    for budget in (700, 1500, 3000, 10_000):
        choice = choose_scheme(LAYERS, contributions, budget)
        assert choice.memory == update_memory(choice.scheme, LAYERS).total <= budget
        fitting = [s for s in all_schemes(contributions) if update_memory(s, LAYERS).total <= budget]
        best = max(worth(contributions, scheme) for scheme in fitting)
        assert choice.contribution == pytest.approx(worth(contributions, choice.scheme))
        assert choice.contribution == pytest.approx(best)
        assert choice.bound == pytest.approx(best, abs=1e-6)


def test_a_budget_below_the_least_says_so() -> None:
    least = update_memory(UpdateScheme(2), LAYERS).total
    with pytest.raises(MemplanError, match=f"at most 10 B: the least takes {least:,.0f} B"):
        choose_scheme(LAYERS, drawn(0), 10)


def test_the_planned_peak_is_what_is_limited() -> None:
    contributions, tried = drawn(1), []

    def peak(scheme: UpdateScheme) -> int:
        tried.append(scheme)
        return 5000 + int(2 * update_memory(scheme, LAYERS).total)

    choice = choose_scheme_by_peak(LAYERS, contributions, 8000, peak)
    assert choice.peak is not None
    assert choice.peak <= 8000
    # What it takes by the model is at most 1500 B then, and no such scheme that it tried is worth more.
    assert choice.memory <= 1500
    assert choice.contribution <= choice.bound
    assert choice.contribution == pytest.approx(choose_scheme(LAYERS, contributions, 1490).contribution, rel=0.05)
    assert len(set(tried)) == len(tried), "no scheme is planned twice"
    with pytest.raises(MemplanError, match="within 5,000 B"):
        choose_scheme_by_peak(LAYERS, contributions, 5000, peak)


def test_contributions_are_differences_of_scores() -> None:
    def score(scheme: UpdateScheme) -> float:
        return scheme.bias_layers / 10 + sum(share * layer for layer, share in scheme.weights)

    found = measure_contributions(score, (2, 4), [(11, 0.5), (9, 1.0)], 12)
    assert found.biases == {2: 0.2, 4: 0.4}
    assert found.weights == pytest.approx({(11, 0.5): 5.5, (9, 1.0): 9.0})
    with pytest.raises(MemplanError, match="convolution 1 needs a run that trains 11 biases: the most is 4"):
        measure_contributions(score, (2, 4), [(1, 1.0)], 12)


@pytest.mark.slow
def test_a_scheme_chosen_by_short_runs_beats_random_ones_of_its_memory() -> None:
    """Contributions are measured by training an int8 network, with one compiled step for all schemes."""
    images, labels = gratings(64, 0.0, 0, 12)
    blocks = (InvertedResidualSpec(16, 3, 2, 8), InvertedResidualSpec(16, 3, 1, 8))
    network, params = calibrated(network_of(8, blocks, 12, 4), images)
    count = len(network.layers)

    @jax.jit
    def trained(params: Any, masks: Any, image: jax.Array, labels: jax.Array) -> Any:
        def step(params: Any, start: jax.Array) -> Any:
            batch = (jax.lax.dynamic_slice_in_dim(part, start, 16) for part in (image, labels))
            new, loss = network.train_step(params, *batch, rate=0.3)
            return jax.tree.map(jnp.where, masks, new, params), loss

        return jax.lax.scan(step, params, jnp.tile(jnp.arange(0, 64, 16), 8))[0]

    def masks(scheme: UpdateScheme) -> Any:
        return network.masks(scheme.channels(network.layers), scheme.bias_layers)

    everything = UpdateScheme(count, tuple((layer, 1.0) for layer in range(count)))
    first = trained(params, masks(everything), quantized_image(network, images), labels)

    def run(scheme: UpdateScheme, seed: int) -> float:
        images, labels = gratings(64, 0.5, seed, 12)
        others, other_labels = gratings(200, 0.5, seed + 1, 12)
        params = trained(first, masks(scheme), quantized_image(network, images), labels)
        scores = jax.nn.log_softmax(network.forward(params, quantized_image(network, others)))
        return float(scores[jnp.arange(200), other_labels].mean())

    options = [(layer, share) for layer in range(1, count) for share in (0.5, 1.0)]
    contributions = measure_contributions(lambda scheme: run(scheme, 1), (2, count), options, count)
    budget = 0.5 * update_memory(everything, network.layers).total
    choice = choose_scheme(network.layers, contributions, budget)
    assert choice.memory <= budget
    draw = random.Random(0)
    others = []
    while len(others) < 8:
        weights = tuple((layer, draw.choice((0.5, 1.0))) for layer in range(1, count) if draw.random() < 0.5)
        scheme = UpdateScheme(draw.choice((2, count)), weights)
        if scheme.bias_layers == count and 0.8 * budget <= update_memory(scheme, network.layers).total <= budget:
            others.append(run(scheme, 3))
    of_choice = run(choice.scheme, 3)
    assert sum(of_choice > other for other in others) >= 6
