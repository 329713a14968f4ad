"""A network like AlphaTensor's: attention between the three faces of a cube, with a policy and a value head.

Fawzi et al., "Discovering faster matrix multiplication algorithms with reinforcement learning", Nature 610, 2022. The
tensor to decompose, S × S × S, and those of the last moves become three grids of S × S vectors. A layer of the torso
("attentive modes") takes each pair of grids and lets the vectors that share an index attend to one another. The policy
head decodes the tokens of a move against the grids, the value head predicts quantiles of the return. Sizes and heads
are simplified from the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from memplan.workloads import _layers as nn
from memplan.workloads.registry import Built, sized, workload


@dataclass(frozen=True)
class AlphaTensorConfig:
    """Sizes of the model and of its input.

    Attributes:
      size: S, the side of the tensor: n² for products of n × n matrices.
      history: tensors seen, the present one and those of the last moves.
      layers: of the torso.
      decoder_layers: of the policy head.
      width: features of a vector.
      heads: attention heads.
      tokens: of a move; each is a part of a factor.
      token_kinds: values that a token can take.
      quantiles: of the return.
      batch: positions at once.
      dtype: of activations.
    """

    size: int = 16
    history: int = 8
    layers: int = 6
    decoder_layers: int = 2
    width: int = 512
    heads: int = 16
    tokens: int = 12
    token_kinds: int = 625
    quantiles: int = 8
    batch: int = 8
    dtype: Any = jnp.bfloat16


Grids = tuple[jax.Array, jax.Array, jax.Array]


def init(key: jax.Array, config: AlphaTensorConfig) -> nn.Params:
    """Returns the parameters, float32."""
    keys = iter(jax.random.split(key, 8 + config.layers + config.decoder_layers))
    inputs = config.size * config.history + 1
    width = config.width
    return {
        "grids": [nn.dense_init(next(keys), inputs, width) for _ in range(3)],
        "torso": [[_attention_init(k, width) for k in jax.random.split(next(keys), 3)] for _ in range(config.layers)],
        "start": jax.random.normal(next(keys), (width,)) * 0.02,
        "embed": jax.random.normal(next(keys), (config.token_kinds, width)) * 0.02,
        "positions": jax.random.normal(next(keys), (config.tokens, width)) * 0.02,
        "decoder": [
            dict(zip(("self", "cross"), (_attention_init(k, width) for k in jax.random.split(next(keys))), strict=True))
            for _ in range(config.decoder_layers)
        ],
        "norm": nn.norm_init(width),
        "value": nn.mlp_init(next(keys), width, 512) | {"down": nn.dense_init(next(keys), 512, config.quantiles)},
    }


def _attention_init(key: jax.Array, width: int) -> nn.Params:
    q_key, kv_key, out_key, mlp_key = jax.random.split(key, 4)
    return {
        "norm": nn.norm_init(width),
        "q": nn.dense_init(q_key, width, width),
        "kv": nn.dense_init(kv_key, width, 2 * width),
        "out": nn.dense_init(out_key, width, width),
        "norm2": nn.norm_init(width),
        "mlp": nn.mlp_init(mlp_key, width, 4 * width),
    }


def attend(
    params: nn.Params, x: jax.Array, heads: int, context: jax.Array | None = None, mask: jax.Array | None = None
) -> jax.Array:
    """Attention of `x` [B, T, C] to itself or to `context` [B, S, C], then the feed-forward block; both residual."""
    normed = nn.layer_norm(params["norm"], x)
    k, v = jnp.split(nn.dense(params["kv"], normed if context is None else context), 2, axis=-1)
    q = nn.dense(params["q"], normed)
    attended = nn.attention(nn.split_heads(q, heads), nn.split_heads(k, heads), nn.split_heads(v, heads), mask)
    x = x + nn.dense(params["out"], nn.merge_heads(attended))
    return x + nn.mlp(params["mlp"], nn.layer_norm(params["norm2"], x))


def attentive_modes(layer: list[nn.Params], grids: Grids, heads: int) -> Grids:
    """One layer of the torso.

    Args:
      layer: parameters of the attention of each pair.
      grids: the grids of the index pairs (i, j), (j, k), (k, i), [B, S, S, C] each.
      heads: attention heads.
    """
    updated = list(grids)
    for params, (first, second) in zip(layer, ((0, 1), (1, 2), (2, 0)), strict=True):
        # The second index of one grid is the first of the next: align them, and attend along the other two.
        left, right = updated[first].swapaxes(1, 2), updated[second]
        batch, size, _, width = left.shape
        x = jnp.concatenate([left, right], axis=2).reshape(batch * size, 2 * size, width)
        x = attend(params, x, heads).reshape(batch, size, 2 * size, width)
        updated[first], updated[second] = x[:, :, :size].swapaxes(1, 2), x[:, :, size:]
    return updated[0], updated[1], updated[2]


def torso(params: nn.Params, tensors: jax.Array, progress: jax.Array, config: AlphaTensorConfig) -> jax.Array:
    """Tensors [B, history, S, S, S] and the share of moves made [B] to [B, 3 × S², C]."""
    batch, _, size, *_ = tensors.shape
    told = jnp.broadcast_to(progress[:, None, None, None], (batch, size, size, 1)).astype(config.dtype)
    grids = []
    # Each grid keeps two indices of the tensor; the third and the history become features.
    for dense, axes in zip(params["grids"], ((0, 2, 3, 1, 4), (0, 3, 4, 1, 2), (0, 4, 2, 1, 3)), strict=True):
        face = tensors.astype(config.dtype).transpose(axes).reshape(batch, size, size, -1)
        grids.append(nn.dense(dense, jnp.concatenate([face, told], axis=-1)))
    cube = (grids[0], grids[1], grids[2])
    for layer in params["torso"]:
        cube = attentive_modes(layer, cube, config.heads)
    return jnp.concatenate([grid.reshape(batch, size * size, -1) for grid in cube], axis=1)


def apply(
    params: nn.Params, tensors: jax.Array, progress: jax.Array, moves: jax.Array, config: AlphaTensorConfig
) -> tuple[jax.Array, jax.Array]:
    """Judges positions and moves in them.

    Args:
      tensors: [B, history, S, S, S], the present tensor first.
      progress: [B] float32, the share of the allowed moves made.
      moves: [B, tokens] int32, moves to judge.

    Returns:
      the float32 logits of each token of the moves given those before it, [B, tokens, token_kinds], and the quantiles
      of the return, [B, quantiles].
    """
    context = torso(params, tensors, progress, config)
    embedded = params["embed"].astype(config.dtype)[moves[:, :-1]]
    start = jnp.broadcast_to(params["start"].astype(config.dtype), (moves.shape[0], 1, config.width))
    x = jnp.concatenate([start, embedded], axis=1) + params["positions"].astype(config.dtype)
    for layer in params["decoder"]:
        x = attend(layer["self"], x, config.heads, mask=nn.causal_mask(config.tokens))
        x = attend(layer["cross"], x, config.heads, context=context)
    x = nn.layer_norm(params["norm"], x)
    logits = jnp.einsum("btc,vc->btv", x, params["embed"].astype(x.dtype), preferred_element_type=jnp.float32)
    return logits, nn.mlp(params["value"], x[:, 0]).astype(jnp.float32)


TINY = AlphaTensorConfig(
    size=4, history=2, layers=1, decoder_layers=1, width=8, heads=2, tokens=3, token_kinds=7, batch=2, dtype=jnp.float32
)


@workload(
    "AlphaTensor-like network, 6 torso layers of 512 on three 16 × 16 grids, 2 decoder layers, 8 positions, bfloat16",
    family="alphatensor",
    source="Fawzi et al., Nature 610, 2022",
)
def alphatensor(tiny: bool = False, batch: int | None = None) -> Built:
    config = sized(AlphaTensorConfig(), TINY, tiny, batch)

    def alphatensor(
        params: nn.Params, tensors: jax.Array, progress: jax.Array, moves: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        return apply(params, tensors, progress, moves, config)

    tensors = jax.ShapeDtypeStruct((config.batch, config.history, *(config.size,) * 3), jnp.int8)
    progress = jax.ShapeDtypeStruct((config.batch,), jnp.float32)
    moves = jax.ShapeDtypeStruct((config.batch, config.tokens), jnp.int32)
    return alphatensor, (nn.abstract(init, config, dtype=config.dtype), tensors, progress, moves)
