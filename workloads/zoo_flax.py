"""Networks of flax (Heek et al., 2020), by both of its interfaces, `linen` and `nnx`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from memplan.workloads._weights import floats, ints
from memplan.workloads._zoo import KEY, optax_step
from memplan.workloads.registry import Built, workload

SOURCE = "flax"
NEEDS = ("flax", "optax")


@workload(
    "encoder of flax.linen, eight rematerialized blocks in nn.scan, one step of optax.adafactor, 16 × 256 tokens, "
    "bfloat16",
    family="encoder",
    source=f"{SOURCE} and optax, arXiv 1706.03762",
    kind="training",
    donate_argnums=(0, 1),
    needs=NEEDS,
)
def flax_scan_train(tiny: bool = False, batch: int = 16) -> Built:
    import optax
    from flax import linen as nn

    layers, width, heads, length, vocabulary = (2, 8, 2, 6, 11) if tiny else (8, 512, 8, 256, 8192)

    class LinenBlock(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
            x = x + nn.MultiHeadDotProductAttention(heads, dtype=jnp.bfloat16)(nn.LayerNorm()(x))
            y = nn.gelu(nn.Dense(4 * width, dtype=jnp.bfloat16)(nn.LayerNorm()(x)))
            return x + nn.Dense(width, dtype=jnp.bfloat16)(y), None

    class LinenEncoder(nn.Module):
        @nn.compact
        def __call__(self, tokens: jax.Array) -> jax.Array:
            embed = nn.Embed(vocabulary, width)
            blocks = nn.scan(nn.remat(LinenBlock), {"params": 0}, split_rngs={"params": True}, length=layers)
            logits: jax.Array = embed.attend(blocks()(embed(tokens), None)[0])
            return logits

    net, tokens = LinenEncoder(), ints(batch, length)

    def loss(params: Any, tokens: jax.Array) -> jax.Array:
        logits: Any = net.apply(params, tokens)
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens).mean()

    return optax_step(loss, jax.eval_shape(net.init, KEY, tokens), optax.adafactor(1e-3), tokens)


@workload(
    "nn.Bidirectional of two nn.RNN with nn.OptimizedLSTMCell, 32 × 128 steps, float32",
    family="recurrent",
    source=SOURCE,
    needs=NEEDS,
)
def flax_bidirectional_infer(tiny: bool = False, batch: int = 32) -> Built:
    from flax import linen as nn

    width, length = (8, 6) if tiny else (512, 128)
    net: Any = nn.Bidirectional(nn.RNN(nn.OptimizedLSTMCell(width)), nn.RNN(nn.OptimizedLSTMCell(width)))
    sequence = floats(batch, length, width)
    return lambda params, x: net.apply(params, x), (jax.eval_shape(net.init, KEY, sequence), sequence)


@workload(
    "next frame by nn.RNN with nn.ConvLSTMCell, one step of optax.adamw, 8 videos of 16 frames, float32",
    family="recurrent",
    source=f"{SOURCE} and optax, arXiv 1506.04214",
    kind="training",
    donate_argnums=(0, 1),
    needs=NEEDS,
)
def flax_video_train(tiny: bool = False, batch: int = 8) -> Built:
    import optax
    from flax import linen as nn

    frames, size, channels = (3, 8, 4) if tiny else (16, 64, 64)

    class LinenVideo(nn.Module):
        @nn.compact
        def __call__(self, video: jax.Array) -> jax.Array:
            hidden = nn.RNN(nn.ConvLSTMCell(channels, (3, 3)))(video)
            return nn.Conv(1, (1, 1))(hidden)

    net, video = LinenVideo(), floats(batch, frames, size, size, 1)

    def loss(params: Any, video: jax.Array) -> jax.Array:
        predicted: Any = net.apply(params, video[:, :-1])
        return optax.l2_loss(predicted, video[:, 1:]).mean()

    return optax_step(loss, jax.eval_shape(net.init, KEY, video), optax.adamw(1e-3), video)


@workload(
    "decoder of flax.nnx, six causal blocks with nnx.MultiHeadAttention, 8 × 512 tokens, float32",
    family="decoder",
    source=SOURCE,
    needs=NEEDS,
)
def nnx_decoder_infer(tiny: bool = False, batch: int = 8) -> Built:
    from flax import nnx

    layers, width, heads, length, vocabulary = (1, 8, 2, 6, 11) if tiny else (6, 512, 8, 512, 16384)

    class NnxBlock(nnx.Module):
        def __init__(self, rngs: Any):
            self.attention = nnx.MultiHeadAttention(heads, width, decode=False, rngs=rngs)
            self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs), nnx.LayerNorm(width, rngs=rngs)])
            self.up, self.down = nnx.Linear(width, 4 * width, rngs=rngs), nnx.Linear(4 * width, width, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            x = x + self.attention(self.norms[0](x), mask=nnx.make_causal_mask(x[..., 0]))
            return x + self.down(nnx.gelu(self.up(self.norms[1](x))))

    class NnxDecoder(nnx.Module):
        def __init__(self, rngs: Any):
            self.embed = nnx.Embed(vocabulary, width, rngs=rngs)
            self.blocks = nnx.List([NnxBlock(rngs) for _ in range(layers)])

        def __call__(self, tokens: jax.Array) -> jax.Array:
            x = self.embed(tokens)
            for block in self.blocks:
                x = block(x)
            logits: jax.Array = self.embed.attend(x[:, -1])
            return logits

    graph, params, rest = nnx.split(nnx.eval_shape(lambda: NnxDecoder(nnx.Rngs(0))), nnx.Param, ...)

    def fun(params: Any, tokens: jax.Array) -> jax.Array:
        found: jax.Array = nnx.merge(graph, params, rest)(tokens)
        return found

    return fun, (params, ints(batch, length))
