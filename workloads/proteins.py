"""The pair representation of AlphaFold 2: triangle updates and triangle attention.

Jumper et al., "Highly accurate protein structure prediction with AlphaFold", Nature 596, 2021, algorithms 11 to 15.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from memplan.workloads import _layers as nn
from memplan.workloads._weights import Weights, floats, infer, squared, train
from memplan.workloads.registry import Built, workload

SOURCE = "Jumper et al., Nature 596, 2021 (AlphaFold 2)"


def triangle_update(p: Weights, x: jax.Array, hidden: int, outgoing: bool) -> jax.Array:
    """Pairs [N, N, C] told by the third sides of their triangles: edges that leave both ends, or that reach them."""
    y = p.layer_norm("norm", x)
    a, b = (jax.nn.sigmoid(p.dense(f"gate_{n}", y, hidden)) * p.dense(n, y, hidden) for n in ("a", "b"))
    product = jnp.einsum("ikc,jkc->ijc" if outgoing else "kic,kjc->ijc", a, b)
    width = x.shape[-1]
    return jax.nn.sigmoid(p.dense("gate", y, width)) * p.dense("out", p.layer_norm("norm_out", product), width)


def triangle_attention(p: Weights, x: jax.Array, heads: int, ending: bool) -> jax.Array:
    """Attention along each row of pairs [N, N, C], or along each column, biased by the third side."""
    x = x.swapaxes(0, 1) if ending else x
    y, width = p.layer_norm("norm", x), x.shape[-1]
    q, k, v = (nn.split_heads(p.dense(name, y, width, False), heads) for name in ("q", "k", "v"))
    bias = p.dense("bias", y, heads, False).astype(jnp.float32).transpose(2, 0, 1)
    logits = jnp.einsum("ijhd,ikhd->ihjk", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    weights = jax.nn.softmax(logits + bias).astype(x.dtype)
    attended = nn.merge_heads(jnp.einsum("ihjk,ikhd->ijhd", weights, v))
    y = p.dense("out", jax.nn.sigmoid(p.dense("gate", y, width)) * attended, width)
    return y.swapaxes(0, 1) if ending else y


def pair_stack(tiny: bool, scanned: bool, p: Weights, pairs: jax.Array) -> jax.Array:
    """Pairs of residues [N, N, C] through four blocks; C is 128 and there are 4 heads unless `tiny`."""
    heads, layers = (2, 2) if tiny else (4, 4)

    def block(p: Weights, x: jax.Array) -> jax.Array:
        for outgoing in (True, False):
            x = x + triangle_update(p / f"update{outgoing:d}", x, x.shape[-1], outgoing)
        for ending in (False, True):
            x = x + triangle_attention(p / f"attention{ending:d}", x, heads, ending)
        return x + p.mlp("mlp", p.layer_norm("norm", x), 4 * x.shape[-1], x.shape[-1], act=jax.nn.relu)

    return p.layers("block", block, pairs, layers, scanned)


@workload("4 blocks of triangle updates on 256 × 256 pairs of 128, bfloat16", family="protein", source=SOURCE)
def triangle_infer(tiny: bool = False) -> Built:
    n, width = (4, 8) if tiny else (256, 128)
    return infer(partial(pair_stack, tiny, False), floats(n, n, width, dtype=jnp.bfloat16))


@workload(
    "4 blocks of triangle updates in a loop, on 256 × 256 pairs of 128, bfloat16", family="protein", source=SOURCE
)
def triangle_scan_infer(tiny: bool = False) -> Built:
    n, width = (4, 8) if tiny else (256, 128)
    return infer(partial(pair_stack, tiny, True), floats(n, n, width, dtype=jnp.bfloat16))


@workload(
    "4 blocks of triangle updates, one SGD step on 128 × 128 pairs of 128, mixed precision",
    family="protein",
    source=SOURCE,
    kind="training",
    donate_argnums=(0,),
)
def triangle_train(tiny: bool = False) -> Built:
    n, width = (4, 8) if tiny else (128, 128)
    pairs = floats(n, n, width, dtype=jnp.bfloat16)
    return train(squared(partial(pair_stack, tiny, False)), pairs, pairs, optimizer="sgd")
