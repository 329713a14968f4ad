"""Distinct programs of a seeded grammar of architectures, for what learns from more programs than people write.

    program   →  stem  layer…  head                      inference, or a training step by `jax.grad` and an optimizer
    layer     →  norm mixer residual  norm feed residual       unrolled, in one loop (`lax.scan`), or of shared weights
    mixer     →  attention | convolution | fft | recurrence | tokens | gather | refine
    feed      →  mlp | gated | experts | cond | none

The family of a program says which of these it draws from, and which stem and head it has. Networks on images, on graphs
and on tables of embeddings have layers of their own (`_random_layers.py`). A layer's block may also read the result of
a layer far before it, as those of U-Nets do.

>>> drawn = random_program(1)
>>> drawn.name, drawn.family, drawn.kind
('random_decoder_1', 'random-decoder', 'inference')
>>> fun, args = drawn.build(tiny=True)

The same seed gives the same program wherever it is drawn, as long as `VERSION` stays.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax.numpy as jnp

from memplan.compiler.errors import MemplanError
from memplan.workloads import _random_layers as layers
from memplan.workloads._random_layers import Architecture
from memplan.workloads._weights import Apply, classified, floats, infer, ints, squared, train
from memplan.workloads.registry import Built, Kind, Workload

__all__ = ["FAMILIES", "random_program"]

# Of the grammar: another version draws other programs from the same seeds.
VERSION = 1

# Mixers and feeds of the families that work on sequences.
_SEQUENCES = {
    "decoder": (("attention",), ("mlp", "gated")),
    "encoder": (("attention",), ("mlp", "gated", "cond")),
    "mixture-of-experts": (("attention", "convolution"), ("experts", "mlp")),
    "state-space": (("recurrence", "convolution"), ("gated", "none")),
    "long-convolution": (("fft", "convolution"), ("mlp", "gated")),
    "mixer": (("tokens",), ("mlp", "gated")),
    "equilibrium": (("refine", "attention"), ("mlp", "cond")),
    "hybrid": (tuple(layers.MIXERS), tuple(layers.FEEDS)),
}
_OTHERS = ("convnet", "graph", "recommender", "unet")
_PREFIX = "random-"

# A family's name says which architecture it is of. It is in one split as a whole, see `registry.HELD_OUT`.
FAMILIES = tuple(_PREFIX + name for name in sorted((*_SEQUENCES, *_OTHERS)))


def random_program(seed: int, family: str | None = None) -> Workload:
    """Returns the program of a seed, as a workload that is not registered.

    Args:
      seed: any integer that is not negative.
      family: one of `FAMILIES`; None draws one.

    Raises:
      MemplanError: the seed is negative, or there is no such family.
    """
    if seed < 0:
        raise MemplanError(f"the seed of a random program is not negative, but {seed}")
    if family is not None and family not in FAMILIES:
        raise MemplanError(f"no random program is of family {family!r:.60}; families: {', '.join(FAMILIES)}")
    # A string is hashed by SHA-512, so that all processes and versions of Python draw alike.
    draw = random.Random(f"memplan {VERSION} {seed} {family}")
    drawn = architecture(draw, family or draw.choice(FAMILIES))
    name = f"{drawn.family.replace('-', '_')}_{seed}"

    def build(tiny: bool = False) -> Built:
        fun, args = program(tiny_of(drawn) if tiny else drawn)
        fun.__name__ = name
        return fun, args

    donated = () if drawn.optimizer is None else (0, 1) if drawn.optimizer == "adam" else (0,)
    kind: Kind = "inference" if drawn.optimizer is None else "training"
    return Workload(name, describe(drawn), build, donated, drawn.family, kind, f"grammar {VERSION}, seed {seed}")


def architecture(draw: random.Random, family: str) -> Architecture:
    """Returns an architecture of a family. Every choice is drawn in any case, so that choices do not shift others."""
    name = family.removeprefix(_PREFIX)
    mixers, feeds = _SEQUENCES.get(name, (("none",), ("none",)))
    # A pattern of layers that repeats, as in networks that alternate them.
    pattern = tuple((draw.choice(mixers), draw.choice(feeds)) for _ in range(draw.choice((1, 1, 2, 3))))
    repeats = draw.randint(2, 6) if len(pattern) == 1 else draw.randint(1, 3)
    optimizer = draw.choice((None, None, "sgd", "adam"))
    if optimizer is None:
        repeats *= 4  # A step runs each layer three times, forward and back, and updates its weights.
    heads = draw.choice((4, 8, 16))
    on_images = name in ("convnet", "unet")
    return Architecture(
        family=family,
        pattern=pattern,
        repeats=repeats,
        width=draw.choice((32, 64, 96)) if on_images else heads * draw.choice((32, 48, 64, 96)),
        heads=heads,
        expansion=draw.choice((2, 3, 4)),
        batch=draw.choice((8, 16, 32) if on_images else (1, 2, 4, 8)),
        length=draw.choice((32, 48, 64)) if on_images else draw.choice((128, 256, 384, 512, 1024)),
        vocab=draw.choice((0, 1000, 8000, 16000)),
        norm=draw.choice(("layer", "rms")),
        norm_first=draw.random() < 0.7,
        activation=draw.choice(tuple(layers.ACTIVATIONS)),
        causal=name == "decoder" or draw.random() < 0.3,
        layout=draw.choice(("unrolled", "unrolled", "unrolled", "scanned", "shared")),
        skips=draw.choice(("none", "none", "added", "concatenated")),
        dtype=draw.choice(("bfloat16", "bfloat16", "float32")),
        optimizer=optimizer,
        clipped=draw.random() < 0.3,
        variant=draw.randrange(1 << 16),
    )


def tiny_of(drawn: Architecture) -> Architecture:
    """Returns the same architecture at a size for tests."""
    vocab = min(drawn.vocab, 11)
    return replace(drawn, width=8, heads=2, expansion=2, batch=2, length=8, vocab=vocab)


def describe(drawn: Architecture) -> str:
    """Returns an architecture in one line."""
    count = len(drawn.pattern) * drawn.repeats
    kinds = " ".join("+".join(kind for kind in pair if kind != "none") or "block" for pair in drawn.pattern)
    step = "inference" if drawn.optimizer is None else f"a step of {drawn.optimizer}"
    size = f"{drawn.batch} x {drawn.length} x {drawn.width}, {drawn.dtype}"
    return f"{count} layers ({kinds}), {drawn.layout}, on {size}, {step}"


def program(drawn: Architecture) -> Built:
    """Returns `(fun, args)` of an architecture."""
    dtype = jnp.dtype(drawn.dtype)
    apply, inputs, wanted = _network(drawn)
    if drawn.optimizer is None:
        return infer(apply, *inputs, dtype=dtype)
    loss = classified if wanted.dtype == jnp.int32 else squared
    return train(loss(apply), *inputs, wanted, optimizer=drawn.optimizer, clipped=drawn.clipped)


def _network(drawn: Architecture) -> tuple[Apply, tuple[Any, ...], Any]:
    """Returns a network, the shapes of its inputs, and that of what its result is compared with in training."""
    batch, length, dtype = drawn.batch, drawn.length, jnp.dtype(drawn.dtype)
    name = drawn.family.removeprefix(_PREFIX)
    if name in ("convnet", "unet"):
        images = floats(batch, length, length, 3, dtype=dtype)
        network: Callable[..., object] = layers.convnet if name == "convnet" else layers.unet
        return partial(network, drawn), (images,), ints(batch) if name == "convnet" else images
    if name == "graph":
        nodes, edges = batch * length, batch * length * 4
        graph = (floats(nodes, drawn.width, dtype=dtype), ints(edges), ints(edges))
        return partial(layers.graph, drawn), graph, floats(nodes, drawn.width)
    if name == "recommender":
        inputs = (floats(batch * length, 16, dtype=dtype), ints(batch * length, layers.num_tables(drawn)))
        return partial(layers.recommender, drawn), inputs, floats(batch * length, 1)
    if drawn.vocab:
        return partial(layers.sequence, drawn), (ints(batch, length),), ints(batch, length)
    stream = floats(batch, length, drawn.width, dtype=dtype)
    return partial(layers.sequence, drawn), (stream,), floats(batch, length, drawn.width)
