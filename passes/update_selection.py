"""Which parameters to train under a memory budget: the scheme of the greatest contribution that fits.

A contribution is measured by a short run for each choice alone, as in "On-Device Training Under 256KB Memory" (Lin et
al., arXiv 2206.15472, section 2.2): what training the weights of one convolution, or a share of their input channels,
adds to training biases only. Contributions are taken to add up. The paper searches by evolution; here the choice under
its additive model of memory is a multiple-choice knapsack for each number of biases, solved with proof
(`memplan.planners.levels`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from memplan.compiler.effort import Effort
from memplan.compiler.errors import MemplanError
from memplan.passes.update_scheme import ConvolutionShape, UpdateScheme, layer_memory, update_memory
from memplan.planners.levels import LayerLevels, Level, LevelProblem, solve_levels

__all__ = ["Contributions", "SchemeChoice", "choose_scheme", "choose_scheme_by_peak", "measure_contributions"]

# How often the budget is halved between one that fits and one that does not.
_HALVINGS = 8


@dataclass(frozen=True)
class Contributions:
    """What training more is worth, in any unit in which more is better.

    Attributes:
      biases: by the number of last convolutions whose biases are trained; the classifier is trained in each.
      weights: by convolution and share of its input channels, what training these weights adds to that.
    """

    biases: Mapping[int, float]
    weights: Mapping[tuple[int, float], float]


@dataclass(frozen=True)
class SchemeChoice:
    """A scheme, and what is known of it.

    Attributes:
      scheme: the choice.
      contribution: its own, by the sum.
      bound: no scheme within the budget of the analytic model has more; less is not proven.
      memory: bytes by the analytic model.
      peak: bytes that it was planned in; None if nobody asked.
    """

    scheme: UpdateScheme
    contribution: float
    bound: float
    memory: float
    peak: int | None = None


def measure_contributions(
    score: Callable[[UpdateScheme], float], bias_layers: Iterable[int], weights: Iterable[tuple[int, float]], count: int
) -> Contributions:
    """Measures each choice by a run of its own.

    Args:
      score: trains by a scheme for a short time, and returns how good the network is then, such as its accuracy.
      bias_layers: numbers of last convolutions whose biases may be trained.
      weights: convolutions and shares of their input channels whose weights may be trained.
      count: of the network's convolutions.

    Raises:
      MemplanError: weights are named whose biases none of `bias_layers` trains.
    """
    biases = {number: score(UpdateScheme(number)) for number in sorted(set(bias_layers))}
    gains = {}
    for layer, share in weights:
        enough = [number for number in biases if number >= count - layer]
        if not enough:
            raise MemplanError(
                f"the contribution of convolution {layer} needs a run that trains {count - layer} biases: the most is "
                f"{max(biases, default=0)}"
            )
        gains[layer, share] = score(UpdateScheme(enough[0], ((layer, share),))) - biases[enough[0]]
    return Contributions(biases, gains)


def choose_scheme(
    layers: Sequence[ConvolutionShape], contributions: Contributions, budget: float, effort: Effort = Effort.NORMAL
) -> SchemeChoice:
    """Returns the scheme of the greatest contribution whose memory, by the paper's model, is within a budget.

    >>> from memplan.workloads import mcu
    >>> layers = mcu.mobilenet_v2().layers
    >>> worth = Contributions({10: 0.1, 20: 0.2}, {(48, 1.0): 0.3, (48, 0.5): 0.2, (45, 1.0): 0.1})
    >>> choose_scheme(layers, worth, 25_000).scheme
    UpdateScheme(bias_layers=10, weights=((48, 0.5),))

    Args:
      layers: the convolutions of the network.
      contributions: of what may be chosen.
      budget: bytes, as `update_memory` counts them.
      effort: of the planner of levels.

    Raises:
      MemplanError: no scheme is within the budget; the message states the least.
    """
    found: list[SchemeChoice] = []
    least = float("inf")
    for bias_layers, worth in contributions.biases.items():
        base = update_memory(UpdateScheme(bias_layers), layers).total
        least = min(least, base)
        if base <= budget:
            found.append(_best_weights(layers, contributions, bias_layers, worth, budget - base, effort))
    if not found:
        raise MemplanError(f"no scheme takes at most {budget:,.0f} B: the least takes {least:,.0f} B")
    best = max(found, key=lambda choice: choice.contribution)
    bound = max(choice.bound for choice in found)
    return SchemeChoice(best.scheme, best.contribution, bound, update_memory(best.scheme, layers).total)


def _best_weights(
    layers: Sequence[ConvolutionShape],
    contributions: Contributions,
    bias_layers: int,
    worth: float,
    budget: float,
    effort: Effort,
) -> SchemeChoice:
    options: dict[int, list[float]] = {}
    for layer, share in contributions.weights:
        if layer >= len(layers) - bias_layers:
            options.setdefault(layer, []).append(share)
    rows, most = [], 0.0
    for layer, shares in sorted(options.items()):
        shape = layers[layer]
        biases_only = layer_memory(shape, 0).total
        gains = [0.0, *(contributions.weights[layer, share] for share in shares)]
        costs = [0.0, *(layer_memory(shape, int(shape.in_channels * share)).total - biases_only for share in shares)]
        top = max(gains)
        most += top
        names = ("none", *map(str, shares))
        levels = [Level(name, cost, top - gain) for name, cost, gain in zip(names, costs, gains, strict=True)]
        rows.append(LayerLevels(str(layer), tuple(levels)))
    plan = solve_levels(LevelProblem(tuple(rows), budget), effort)
    chosen = [
        (layer, shares[index - 1])
        for (layer, shares), index in zip(sorted(options.items()), plan.choice, strict=True)
        if index
    ]
    scheme = UpdateScheme(bias_layers, tuple(chosen))
    return SchemeChoice(scheme, worth + most - plan.error, worth + most - plan.bound, 0.0)


def choose_scheme_by_peak(
    layers: Sequence[ConvolutionShape],
    contributions: Contributions,
    limit: int,
    peak: Callable[[UpdateScheme], int],
    effort: Effort = Effort.NORMAL,
) -> SchemeChoice:
    """Returns the best scheme found whose planned peak is within a limit.

    A planned peak is no sum over layers. The budget of the analytic model is therefore searched by halving: the
    greatest whose best scheme is planned within the limit. `bound` is that of schemes whose memory alone is within it,
    which is less than their peak.

    Args:
      layers, contributions, effort: as in `choose_scheme`.
      limit: bytes.
      peak: plans a scheme, and returns its peak in bytes.

    Raises:
      MemplanError: no scheme fits that was tried; the message states the least peak of those.
    """
    peaks: dict[UpdateScheme, int] = {}
    found: list[SchemeChoice] = []

    def attempt(budget: float) -> bool:
        choice = choose_scheme(layers, contributions, budget, effort)
        if choice.scheme not in peaks:
            peaks[choice.scheme] = peak(choice.scheme)
        if peaks[choice.scheme] <= limit:
            found.append(
                SchemeChoice(choice.scheme, choice.contribution, choice.bound, choice.memory, peaks[choice.scheme])
            )
            return True
        return False

    low = min(update_memory(UpdateScheme(number), layers).total for number in contributions.biases)
    high = float(max(limit, low))
    bound = choose_scheme(layers, contributions, high, effort).bound
    if not attempt(high):
        if not attempt(low):
            raise MemplanError(
                f"no scheme is planned within {limit:,} B: the least of them takes {min(peaks.values()):,} B"
            )
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if attempt(middle) else (low, middle)
    best = max(found, key=lambda choice: choice.contribution)
    return SchemeChoice(best.scheme, best.contribution, bound, best.memory, best.peak)
