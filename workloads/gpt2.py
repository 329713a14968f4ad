"""GPT-2 at the size of its small model: 124 M parameters, layers unrolled or in a loop.

Radford et al., "Language models are unsupervised multitask learners", 2019. The network is that of `transformer.py`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from memplan.workloads import _layers as nn
from memplan.workloads import transformer as model
from memplan.workloads.registry import Built, sized, workload
from memplan.workloads.train_step import adam_step
from memplan.workloads.train_transformer import loss
from memplan.workloads.transformer import TransformerConfig

SOURCE = "Radford et al. 2019 (GPT-2)"
SMALL = TransformerConfig(layers=12, vocab=50257, batch=4, length=1024)


def _params(config: TransformerConfig, scanned: bool, dtype: Any = None) -> Any:
    params = nn.abstract(model.init, config, dtype=dtype)
    return jax.eval_shape(model.stack_blocks, params) if scanned else params


def _infer(config: TransformerConfig, scanned: bool) -> Built:
    def fun(params: nn.Params, tokens: jax.Array) -> jax.Array:
        return model.next_token_logits(params, tokens, config)

    tokens = jax.ShapeDtypeStruct((config.batch, config.length), jnp.int32)
    return fun, (_params(config, scanned, config.dtype), tokens)


def _train(config: TransformerConfig, scanned: bool) -> Built:
    tokens = jax.ShapeDtypeStruct((config.batch, config.length + 1), jnp.int32)
    return adam_step(partial(loss, config), _params(config, scanned), tokens, clipped=True)


@workload("GPT-2 small, logits after 4 × 1024 tokens, bfloat16", family="transformer", source=SOURCE)
def gpt2_infer(tiny: bool = False, batch: int | None = None) -> Built:
    return _infer(sized(SMALL, model.TINY, tiny, batch), scanned=False)


@workload(
    "GPT-2 small, its layers in a loop, logits after 4 × 1024 tokens, bfloat16", family="transformer", source=SOURCE
)
def gpt2_scan_infer(tiny: bool = False, batch: int | None = None) -> Built:
    return _infer(sized(SMALL, model.TINY, tiny, batch), scanned=True)


@workload(
    "GPT-2 small, one Adam step with clipped gradients on 4 × 1024 tokens, mixed precision",
    family="transformer",
    source=SOURCE,
    kind="training",
    donate_argnums=(0, 1),
)
def gpt2_train(tiny: bool = False, batch: int | None = None) -> Built:
    return _train(sized(SMALL, model.TINY, tiny, batch), scanned=False)


@workload(
    "GPT-2 small, its layers in a loop, one Adam step with clipped gradients on 4 × 1024 tokens, mixed precision",
    family="transformer",
    source=SOURCE,
    kind="training",
    donate_argnums=(0, 1),
)
def gpt2_scan_train(tiny: bool = False, batch: int | None = None) -> Built:
    return _train(sized(SMALL, model.TINY, tiny, batch), scanned=True)
