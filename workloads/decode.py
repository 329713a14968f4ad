"""One step of autoregressive decoding with a cache of keys and values.

The transformer of `transformer.py`, one token for each sequence of a batch: every block writes the token's key and
value into its donated cache and attends to what the cache holds (Pope et al., "Efficiently scaling transformer
inference", arXiv 2211.05102). The weights and caches are read once for very little arithmetic.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from memplan.workloads import _layers as nn
from memplan.workloads import transformer
from memplan.workloads.registry import Built, sized, workload

Cache = dict[str, jax.Array]


def empty_caches(config: transformer.TransformerConfig) -> list[Cache]:
    """Returns each block's keys and values, [B, T, H, D], zero."""
    shape = (config.batch, config.length, config.heads, config.width // config.heads)
    return [{"k": jnp.zeros(shape, config.dtype), "v": jnp.zeros(shape, config.dtype)} for _ in range(config.layers)]


def decode_step(
    params: nn.Params,
    caches: list[Cache],
    tokens: jax.Array,
    position: jax.Array,
    config: transformer.TransformerConfig,
) -> tuple[list[Cache], jax.Array]:
    """Reads one token per sequence and predicts the next.

    Args:
      params: of `transformer.init`.
      caches: of the positions before `position`.
      tokens: [B] int32, the token at `position` of each sequence.
      position: int32 scalar.

    Returns:
      the caches with `position` filled, and the float32 logits of the next token, [B, vocab].
    """
    x = params["embed"].astype(config.dtype)[tokens] + params["positions"].astype(config.dtype)[position]
    x = x[:, None, :]
    visible = jnp.arange(config.length) <= position
    filled = []
    for block, cache in zip(params["blocks"], caches, strict=True):
        q, k, v = transformer.project_qkv(block, x, config.heads)
        keys = lax.dynamic_update_slice_in_dim(cache["k"], k, position, axis=1)
        values = lax.dynamic_update_slice_in_dim(cache["v"], v, position, axis=1)
        filled.append({"k": keys, "v": values})
        x = transformer.finish_block(block, x, nn.attention(q, keys, values, visible))
    return filled, transformer.logits_of(params, x[:, 0])


REAL = transformer.TransformerConfig(layers=8, width=1024, heads=16, batch=16, length=1024)
TINY = transformer.TransformerConfig(layers=2, width=16, heads=2, vocab=11, batch=3, length=6, dtype=jnp.float32)


@workload(
    "GPT-2-style decoder, 8 layers of 1024, one token for each of 16 sequences, caches of 1024 positions, bfloat16",
    family="transformer",
    source="Pope et al., arXiv 2211.05102",
    donate_argnums=(1,),
)
def decode_kv(tiny: bool = False, batch: int | None = None) -> Built:
    config = sized(
        transformer.TransformerConfig(layers=8, width=1024, heads=16, batch=16, length=1024), TINY, tiny, batch
    )

    def decode_kv(
        params: nn.Params, caches: list[Cache], tokens: jax.Array, position: jax.Array
    ) -> tuple[list[Cache], jax.Array]:
        caches, logits = decode_step(params, caches, tokens, position, config)
        return caches, jnp.argmax(logits, axis=-1).astype(jnp.int32)

    params = nn.abstract(transformer.init, config, dtype=config.dtype)
    caches = jax.eval_shape(lambda: empty_caches(config))
    tokens = jax.ShapeDtypeStruct((config.batch,), jnp.int32)
    return decode_kv, (params, caches, tokens, jax.ShapeDtypeStruct((), jnp.int32))
