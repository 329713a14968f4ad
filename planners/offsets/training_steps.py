"""Made-up instances of any size, with the live ranges of real training steps.

    activations   ├──────────────────────────────────┤      from their layer to its turn in the backward pass
                     ├────────────────────────────┤
    temporaries     ├┤  ├─┤  ├┤  ├┤ … ├┤ ├─┤  ├┤   ├┤     for a few operations
    gradients                          ├──────────────────┤ of weights: from the backward pass to the optimizer's step
    state         ├───────────────────────────────────────┤ weights and what the optimizer keeps

Layers of a stage have the same shapes, so sizes repeat, and sizes of different tensors follow a power law. Some stages
are loops: what a loop carries lives from its forward to its backward pass, and the loops are nested. Instances of this
kind, of hundreds to some ten thousand blocks, are published with idealloc (https://github.com/cappadokes/idealloc).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from memplan.planners.offsets.instance import Instance

# Tensors of a layer: activations that the backward pass reads, temporaries of each pass, and weights.
_ACTIVATIONS, _TEMPORARIES, _WEIGHTS = 4, 7, 2
_PER_LAYER = _ACTIVATIONS + 2 * _TEMPORARIES + 4 * _WEIGHTS

# Layers of a stage, which have the same shapes; and how many stages a loop spans, where there is one.
_STAGE, _LOOP = 6, 3

# The share of activations that are read by other layers too, and the chance to end at each operation from then on.
_SKIPS, _SKIP_ENDS = 0.2, 0.02

# Sizes: the exponent of the power law, the smallest, the largest as a multiple of it, and what they are multiples of.
_EXPONENT, _SMALLEST, _SPREAD, _GRAIN = 0.55, 512, 1e5, 512

# What is added to some sizes, as runtimes do.
_HEADER = 1


@dataclass
class _Recorder:
    """Blocks that are made while operations pass, one unit of time each."""

    draw: np.random.Generator
    now: int = 0
    lower: list[int] = field(default_factory=list)
    upper: list[int] = field(default_factory=list)
    size: list[int] = field(default_factory=list)

    def add(self, lower: int, upper: int, size: int) -> None:
        self.lower.append(lower)
        self.upper.append(max(upper, lower + 1))
        self.size.append(size)

    def temporaries(self, sizes: list[int]) -> None:
        """Each is read by one of the next operations."""
        for size in sizes:
            self.add(self.now, self.now + 1 + int(self.draw.geometric(0.5)), size)
            self.now += 1


def training_step(num_blocks: int, seed: int = 0) -> Instance:
    """Returns the blocks of a made-up training step; the same for the same arguments.

    Args:
      num_blocks: how many.
      seed: of what is drawn at random.
    """
    draw = np.random.default_rng(seed)
    record = _Recorder(draw)
    num_layers = num_blocks // _PER_LAYER
    stages = [_Stage(draw) for _ in range(-(-num_layers // _STAGE))]
    saved: list[tuple[int, int]] = []
    loops: list[tuple[int, int]] = []
    for layer in range(num_layers):
        stage = stages[layer // _STAGE]
        if layer % (_STAGE * _LOOP) == 0:
            loops.append((record.now, stage.activations[0]))
        for size in stage.activations:
            saved.append((record.now, size))
            record.now += 1
        record.temporaries(stage.temporaries)
    gradients: list[tuple[int, int]] = []
    for layer in reversed(range(num_layers)):
        stage = stages[layer // _STAGE]
        for number in reversed(range(_ACTIVATIONS)):
            lower, size = saved[layer * _ACTIVATIONS + number]
            # Some are read later too: by other layers, through skip connections.
            is_skip = draw.random() < _SKIPS
            record.add(lower, record.now + 1 + (int(draw.geometric(_SKIP_ENDS)) if is_skip else 0), size)
            record.now += 1
        record.temporaries(stage.temporaries)
        gradients.extend((record.now, size) for size in stage.weights)
        if layer % (_STAGE * _LOOP) == 0:
            # What the loop carries lives from its forward to its backward pass.
            lower, size = loops.pop()
            record.add(lower, record.now, size)
    for lower, size in gradients:
        record.add(lower, record.now + 1, size)
        record.add(record.now, record.now + 2, size)
        record.now += 1
    end = max([record.now + 1, *record.upper])
    for layer in range(num_layers):
        for size in stages[layer // _STAGE].weights:
            record.add(0, end, size)
            record.add(0, end, 2 * size)
    missing = num_blocks - len(record.size)
    for lower, size in zip(draw.integers(0, end, max(missing, 0)), _sizes(draw, max(missing, 0)), strict=True):
        record.add(int(lower), int(lower) + 1 + int(draw.geometric(0.3)), size)
    return Instance.of(record.lower[:num_blocks], record.upper[:num_blocks], record.size[:num_blocks])


class _Stage:
    """The sizes of the tensors of each of its layers."""

    def __init__(self, draw: np.random.Generator):
        self.activations = _sizes(draw, _ACTIVATIONS)
        self.temporaries = _sizes(draw, _TEMPORARIES)
        self.weights = _sizes(draw, _WEIGHTS)


def _sizes(draw: np.random.Generator, count: int) -> list[int]:
    """Returns sizes that follow a bounded power law."""
    ratio = _SPREAD**-_EXPONENT
    amounts = _SMALLEST * (1 - draw.random(count) * (1 - ratio)) ** (-1 / _EXPONENT)
    headers = np.where(draw.random(count) < 0.5, _HEADER, 0)
    return [int(size) for size in _GRAIN * np.round(amounts / _GRAIN) + headers]
