"""A decoder-only transformer with pre-normalisation, as GPT-2.

Radford et al., "Language models are unsupervised multitask learners", 2019; attention from Vaswani et al., "Attention
is all you need", arXiv 1706.03762. The embedding is tied to the output layer. `transformer_infer` reads prompts and
returns the logits of the next token, `transformer_train` is one step of Adam on float32 parameters, computed in
bfloat16. `transformer_scan_train` is that step for twice the layers, run by one loop over stacked parameters, each
layer computed again on the way back (Chen et al., "Training deep nets with sublinear memory cost", arXiv 1604.06174).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from memplan.workloads import _layers as nn
from memplan.workloads import _optimizers as optimizers
from memplan.workloads.registry import Built, sized, workload


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of the model and of its input.

    Attributes:
      layers: number of blocks.
      width: features of the residual stream; the feed-forward block is four times as wide.
      heads: attention heads; they divide `width`.
      vocab: number of tokens.
      batch: sequences at once.
      length: tokens of a sequence, and number of learned positions.
      dtype: of activations.
    """

    layers: int = 6
    width: int = 768
    heads: int = 12
    vocab: int = 32768
    batch: int = 8
    length: int = 512
    dtype: Any = jnp.bfloat16


def init(key: jax.Array, config: TransformerConfig) -> nn.Params:
    """Returns the parameters, float32."""
    embed_key, position_key, *layer_keys = jax.random.split(key, 2 + config.layers)
    return {
        "embed": jax.random.normal(embed_key, (config.vocab, config.width)) * 0.02,
        "positions": jax.random.normal(position_key, (config.length, config.width)) * 0.01,
        "blocks": [_block_init(k, config) for k in layer_keys],
        "norm": nn.norm_init(config.width),
    }


def _block_init(key: jax.Array, config: TransformerConfig) -> nn.Params:
    qkv_key, out_key, mlp_key = jax.random.split(key, 3)
    return {
        "norm1": nn.norm_init(config.width),
        "qkv": nn.dense_init(qkv_key, config.width, 3 * config.width),
        "out": nn.dense_init(out_key, config.width, config.width),
        "norm2": nn.norm_init(config.width),
        "mlp": nn.mlp_init(mlp_key, config.width, 4 * config.width),
    }


def stack_blocks(params: nn.Params) -> nn.Params:
    """Returns `params` with the blocks' parameters stacked, a leading axis of [layers]: `features` then loops."""
    return params | {"blocks": jax.tree.map(lambda *leaves: jnp.stack(leaves), *params["blocks"])}


def project_qkv(params: nn.Params, x: jax.Array, heads: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """[B, T, C] to the queries, keys and values of a block, [B, T, H, D] each."""
    q, k, v = jnp.split(nn.dense(params["qkv"], nn.layer_norm(params["norm1"], x)), 3, axis=-1)
    return nn.split_heads(q, heads), nn.split_heads(k, heads), nn.split_heads(v, heads)


def finish_block(params: nn.Params, x: jax.Array, attended: jax.Array) -> jax.Array:
    """Adds to the stream `x` [B, T, C] what attention [B, T, H, D] found, then the feed-forward block's result."""
    x = x + nn.dense(params["out"], nn.merge_heads(attended))
    return x + nn.mlp(params["mlp"], nn.layer_norm(params["norm2"], x))


def logits_of(params: nn.Params, x: jax.Array) -> jax.Array:
    """[…, C] to the float32 logits […, vocab], by the tied embedding."""
    x = nn.layer_norm(params["norm"], x)
    return jnp.einsum("...c,vc->...v", x, params["embed"].astype(x.dtype), preferred_element_type=jnp.float32)


def features(params: nn.Params, tokens: jax.Array, config: TransformerConfig) -> jax.Array:
    """Token ids [B, T] to the stream after the last block, [B, T, C]."""
    length = tokens.shape[1]
    x = params["embed"].astype(config.dtype)[tokens] + params["positions"].astype(config.dtype)[:length]
    mask = nn.causal_mask(length)

    def run(block: nn.Params, x: jax.Array) -> jax.Array:
        q, k, v = project_qkv(block, x, config.heads)
        return finish_block(block, x, nn.attention(q, k, v, mask))

    if isinstance(params["blocks"], list):
        for block in params["blocks"]:
            x = run(block, x)
        return x
    again = jax.checkpoint(run)
    return lax.scan(lambda x, block: (again(block, x), None), x, params["blocks"])[0]


def next_token_logits(params: nn.Params, tokens: jax.Array, config: TransformerConfig) -> jax.Array:
    """Token ids [B, T] to the float32 logits of token T, [B, vocab]."""
    return logits_of(params, features(params, tokens, config)[:, -1])


def loss(params: nn.Params, tokens: jax.Array, config: TransformerConfig) -> jax.Array:
    """Mean cross-entropy of each of `tokens` [B, T + 1] given those before it."""
    return nn.cross_entropy(logits_of(params, features(params, tokens[:, :-1], config)), tokens[:, 1:])


def train_step(
    params: nn.Params, state: Any, tokens: jax.Array, config: TransformerConfig
) -> tuple[nn.Params, Any, jax.Array]:
    """One step of Adam; returns `(params, state, loss)`."""
    value, grads = jax.value_and_grad(loss)(params, tokens, config)
    params, state = optimizers.adam(params, state, grads, rate=3e-4)
    return params, state, value


TINY = TransformerConfig(layers=2, width=16, heads=2, vocab=11, batch=2, length=8, dtype=jnp.float32)


@workload(
    "GPT-2-style decoder, 6 layers of 768, prompts of 8 × 512 tokens, bfloat16",
    family="transformer",
    source="Radford et al. 2019 (GPT-2)",
)
def transformer_infer(tiny: bool = False, batch: int | None = None) -> Built:
    config = sized(TransformerConfig(), TINY, tiny, batch)

    def transformer_infer(params: nn.Params, tokens: jax.Array) -> jax.Array:
        return next_token_logits(params, tokens, config)

    tokens = jax.ShapeDtypeStruct((config.batch, config.length), jnp.int32)
    return transformer_infer, (nn.abstract(init, config, dtype=config.dtype), tokens)


@workload(
    "GPT-2-style decoder, 6 layers of 768, one Adam step on 8 × 512 tokens, bfloat16 over float32 parameters",
    family="transformer",
    source="Radford et al. 2019 (GPT-2)",
    kind="training",
    donate_argnums=(0, 1),
)
def transformer_train(tiny: bool = False, batch: int | None = None) -> Built:
    config = sized(TransformerConfig(), TINY, tiny, batch)

    def transformer_train(params: nn.Params, state: Any, tokens: jax.Array) -> tuple[nn.Params, Any, jax.Array]:
        return train_step(params, state, tokens, config)

    return transformer_train, _train_args(nn.abstract(init, config), config)


@workload(
    "GPT-2-style decoder, 12 layers of 768 in a loop, recomputed, one Adam step on 8 × 512 tokens, mixed precision",
    family="transformer",
    source="Radford et al. 2019 (GPT-2)",
    kind="training",
    donate_argnums=(0, 1),
)
def transformer_scan_train(tiny: bool = False, batch: int | None = None) -> Built:
    config = sized(TransformerConfig(layers=12), TINY, tiny, batch)

    def transformer_scan_train(params: nn.Params, state: Any, tokens: jax.Array) -> tuple[nn.Params, Any, jax.Array]:
        return train_step(params, state, tokens, config)

    return transformer_scan_train, _train_args(jax.eval_shape(stack_blocks, nn.abstract(init, config)), config)


def _train_args(params: nn.Params, config: TransformerConfig) -> tuple[Any, ...]:
    tokens = jax.ShapeDtypeStruct((config.batch, config.length + 1), jnp.int32)
    return params, jax.eval_shape(optimizers.adam_init, params), tokens
