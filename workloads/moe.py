"""A transformer with mixtures of experts for feed-forward blocks.

Lepikhin et al., "GShard", arXiv 2006.16668: each token goes to the two experts that its gate likes best, as long as
these have room; tokens are dispatched and combined by einsums with one-hot tensors. Each sequence is a group with its
own capacity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from memplan.workloads import _layers as nn
from memplan.workloads.registry import Built, sized, workload


@dataclass(frozen=True)
class MoeConfig:
    """Sizes of the model and of its input.

    Attributes:
      layers: number of blocks, each with attention and a mixture.
      width: features of the residual stream.
      hidden: features inside an expert.
      heads: attention heads.
      experts: of each mixture.
      capacity_factor: an expert's places, over its share if tokens were spread evenly.
      batch: sequences at once.
      length: tokens of a sequence.
      dtype: of activations.
    """

    layers: int = 2
    width: int = 1024
    hidden: int = 4096
    heads: int = 16
    experts: int = 8
    capacity_factor: float = 1.25
    batch: int = 8
    length: int = 512
    dtype: Any = jnp.bfloat16

    @property
    def capacity(self) -> int:
        """Places of each expert for a sequence."""
        return math.ceil(2 * self.length * self.capacity_factor / self.experts)


def init(key: jax.Array, config: MoeConfig) -> nn.Params:
    """Returns the parameters, float32."""
    return {"blocks": [_block_init(k, config) for k in jax.random.split(key, config.layers)]}


def _block_init(key: jax.Array, config: MoeConfig) -> nn.Params:
    keys = jax.random.split(key, 5)
    width, hidden, experts = config.width, config.hidden, config.experts
    return {
        "norm1": nn.norm_init(width),
        "qkv": nn.dense_init(keys[0], width, 3 * width),
        "out": nn.dense_init(keys[1], width, width),
        "norm2": nn.norm_init(width),
        "gate": jax.random.normal(keys[2], (width, experts)) / math.sqrt(width),
        "up": jax.random.normal(keys[3], (experts, width, hidden)) / math.sqrt(width),
        "down": jax.random.normal(keys[4], (experts, hidden, width)) / math.sqrt(hidden),
    }


def route(probabilities: jax.Array, capacity: int) -> tuple[jax.Array, jax.Array]:
    """Gives each token places at its two best experts, first choices first, then in order.

    Args:
      probabilities: [B, T, E] float32, of the gate.
      capacity: K, an expert's places for a sequence.

    Returns:
      combine [B, T, E, K] float32: the weight of the expert's output at that place; the two weights of a token that
      found both places sum to one. And the balance loss, a float32 scalar, one if experts are used evenly.
    """
    experts = probabilities.shape[-1]
    first = jax.nn.one_hot(probabilities.argmax(-1), experts)
    rest = probabilities * (1 - first)
    second = jax.nn.one_hot(rest.argmax(-1), experts)
    first_place = jnp.cumsum(first, axis=1) - first
    second_place = jnp.cumsum(second, axis=1) - second + first.sum(1, keepdims=True)
    weights = probabilities * (first + second)
    weights = weights / weights.sum(-1, keepdims=True)
    places = (first_place * first + second_place * second).astype(jnp.int32)
    # one_hot of a place beyond the capacity is all zeros: that token is not served.
    combine = weights[..., None] * jax.nn.one_hot(places, capacity)
    balance = experts * (first.mean((0, 1)) * probabilities.mean((0, 1))).sum()
    return combine, balance


def mixture(params: nn.Params, x: jax.Array, capacity: int) -> tuple[jax.Array, jax.Array]:
    """Each token [B, T, C] through its experts; a token without a place gives zeros. Returns the balance loss too."""
    logits = jnp.einsum("btc,ce->bte", x.astype(jnp.float32), params["gate"].astype(jnp.float32))
    combine, balance = route(jax.nn.softmax(logits), capacity)
    dispatch = (combine > 0).astype(x.dtype)
    inputs = jnp.einsum("btek,btc->ebkc", dispatch, x)
    hidden = jax.nn.gelu(jnp.einsum("ebkc,ech->ebkh", inputs, params["up"].astype(x.dtype)))
    outputs = jnp.einsum("ebkh,ehc->ebkc", hidden, params["down"].astype(x.dtype))
    return jnp.einsum("btek,ebkc->btc", combine.astype(x.dtype), outputs), balance


def apply(params: nn.Params, x: jax.Array, config: MoeConfig) -> tuple[jax.Array, jax.Array]:
    """Embedded tokens [B, T, C] through all blocks; returns them and the mean balance loss."""
    mask = nn.causal_mask(x.shape[1])
    balances = []
    for block in params["blocks"]:
        parts = jnp.split(nn.dense(block["qkv"], nn.layer_norm(block["norm1"], x)), 3, axis=-1)
        q, k, v = (nn.split_heads(part, config.heads) for part in parts)
        x = x + nn.dense(block["out"], nn.merge_heads(nn.attention(q, k, v, mask)))
        mixed, balance = mixture(block, nn.layer_norm(block["norm2"], x), config.capacity)
        x = x + mixed
        balances.append(balance)
    return x, jnp.stack(balances).mean()


TINY = MoeConfig(layers=1, width=6, hidden=10, heads=2, experts=4, batch=2, length=8, dtype=jnp.float32)


@workload(
    "2 blocks of 1024 with top-2 mixtures of 8 experts of 4096, on 8 × 512 tokens, bfloat16",
    family="mixture-of-experts",
    source="Lepikhin et al., arXiv 2006.16668",
)
def moe(tiny: bool = False, batch: int | None = None) -> Built:
    config = sized(MoeConfig(), TINY, tiny, batch)

    def moe(params: nn.Params, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return apply(params, x, config)

    x = jax.ShapeDtypeStruct((config.batch, config.length, config.width), config.dtype)
    return moe, (nn.abstract(init, config, dtype=config.dtype), x)
