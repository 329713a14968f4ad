"""DLRM: embeddings of many categories, and products between all pairs of them.

Naumov et al., "Deep learning recommendation model", arXiv 1906.00091; the layers and 26 tables of its benchmark on
Criteo's data, each table cut to a quarter of a million rows.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from memplan.workloads._weights import Weights, floats, infer, ints, train
from memplan.workloads.registry import Built, workload

SOURCE = "Naumov et al., arXiv 1906.00091"


def dlrm(tiny: bool, p: Weights, dense: jax.Array, categories: jax.Array) -> jax.Array:
    """Dense features [B, 13] and categories [B, tables, looked up] int32 to the logit of a click, [B] float32."""
    rows, width = (10, 4) if tiny else (250_000, 64)
    bottom, top = ((8, width), (8, 1)) if tiny else ((512, 256, width), (512, 256, 1))
    x = jax.nn.relu(p.mlp("bottom", dense, *bottom, act=jax.nn.relu))
    tables = [p(f"table{t}", rows, width)[categories[:, t]].sum(1) for t in range(categories.shape[1])]
    vectors = jnp.stack([x, *(table.astype(x.dtype) for table in tables)], axis=1)
    pairs = jnp.einsum("bic,bjc->bij", vectors, vectors)[:, *np.tril_indices(vectors.shape[1], -1)]
    return p.mlp("top", jnp.concatenate([x, pairs], axis=-1), *top, act=jax.nn.relu)[:, 0].astype(jnp.float32)


def loss(tiny: bool, p: Weights, dense: jax.Array, categories: jax.Array, clicked: jax.Array) -> jax.Array:
    """Mean binary cross-entropy of `clicked` [B], zeros and ones."""
    logit = dlrm(tiny, p, dense, categories)
    return (jnp.logaddexp(0.0, logit) - clicked * logit).mean()


@workload("DLRM, 26 tables of 250,000 × 64, 2048 rows, bfloat16", family="recommender", source=SOURCE)
def dlrm_infer(tiny: bool = False, batch: int = 2048) -> Built:
    tables = 3 if tiny else 26
    return infer(partial(dlrm, tiny), floats(batch, 13, dtype=jnp.bfloat16), ints(batch, tables, 4))


@workload(
    "DLRM, 26 tables of 250,000 × 64, one SGD step on 2048 rows, float32",
    family="recommender",
    source=SOURCE,
    kind="training",
    donate_argnums=(0,),
)
def dlrm_train(tiny: bool = False, batch: int = 2048) -> Built:
    tables = 3 if tiny else 26
    inputs = floats(batch, 13), ints(batch, tables, 4), floats(batch)
    return train(partial(loss, tiny), *inputs, optimizer="sgd")
