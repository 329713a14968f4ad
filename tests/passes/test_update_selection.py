"""The choice of what is trained, against all choices."""

from __future__ import annotations

import itertools
import random

import pytest

from memplan.compiler.errors import MemplanError
from memplan.passes.update_scheme import UpdateScheme, update_memory
from memplan.passes.update_selection import (
    Contributions,
    choose_scheme,
    choose_scheme_by_peak,
    measure_contributions,
)
from memplan.workloads import mcu

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
