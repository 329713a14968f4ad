"""`memplan bench levels --methods`: each method of `memplan levels` on a small transformer that is trained here.

The network learns to repeat: the second half of each sequence of random tokens is the first half. The budget of each
row is what a uniform choice takes, so that neither has more bytes than the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from memplan.cli.bench.results import Row

COLUMNS = ("method", "budget", "uniform level", "its error", "error of the mix", "by the model", "mix ÷ uniform")
TEXT = ("method", "uniform level")

TOKENS, LENGTH, WIDTH, HEADS, DEPTH = 16, 16, 32, 4, 2

# The uniform levels whose bytes are the budgets.
BUDGETS = {
    "low-rank": ("rank 7/16", "rank 5/16"),
    "mixed-precision": ("4 bits", "2 bits"),
    "codebooks": ("32 entries", "8 entries"),
    "bonds": ("bond 7/16", "bond 5/16"),
    "matryoshka-kv": ("rank 12/16", "rank 8/16"),
}


def forward(params: Any, tokens: Any) -> Any:
    """Logits `[B, length, tokens]` of a decoder for tokens `[B, length]`."""
    import jax
    import jax.numpy as jnp

    def normed(x: Any) -> Any:
        return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6)

    x = params["embed"][tokens] + params["places"]
    for layer in params["layers"]:
        y = normed(x)
        q, k, v = ((y @ layer[name]).reshape(*y.shape[:2], HEADS, -1) for name in "qkv")
        x = x + jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(y.shape) @ layer["o"]
        x = x + jax.nn.gelu(normed(x) @ layer["up"]) @ layer["down"]
    return normed(x) @ params["out"]


def trained_network(steps: int = 600, batch: int = 32) -> tuple[Any, tuple[Any, Any]]:
    """Returns `forward`, and trained parameters and a batch that it was not trained on."""
    import jax
    import jax.numpy as jnp

    keys = iter(jax.random.split(jax.random.key(0), 64))

    def weight(*shape: int) -> Any:
        return jax.random.normal(next(keys), shape) * shape[0] ** -0.5

    layers = [
        {**{name: weight(WIDTH, WIDTH) for name in "qkvo"}, "up": weight(WIDTH, 64), "down": weight(64, WIDTH)}
        for _ in range(DEPTH)
    ]
    params = {
        "embed": weight(TOKENS, WIDTH),
        "places": weight(LENGTH, WIDTH),
        "layers": layers,
        "out": weight(WIDTH, TOKENS),
    }

    def drawn(key: Any) -> Any:
        half = jax.random.randint(key, (batch, LENGTH // 2), 0, TOKENS)
        return jnp.concatenate([half, half], 1)

    def loss(params: Any, tokens: Any) -> Any:
        chances = jax.nn.log_softmax(forward(params, tokens)[:, LENGTH // 2 - 1 : -1])
        return -jnp.take_along_axis(chances, tokens[:, LENGTH // 2 :, None], 2).mean()

    def step(state: Any, key: Any) -> Any:
        """One step of AdamW (Loshchilov and Hutter, arXiv 1711.05101)."""
        params, first, second, count = state
        gradient = jax.grad(loss)(params, drawn(key))
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
        second = jax.tree.map(lambda v, g: 0.99 * v + 0.01 * g * g, second, gradient)
        a, b = 1.0 - 0.9**count, 1.0 - 0.99**count

        def moved(p: Any, m: Any, v: Any) -> Any:
            return p - 3e-3 * (m / a / (jnp.sqrt(v / b) + 1e-8) + 0.1 * p)

        return (jax.tree.map(moved, params, first, second), first, second, count + 1.0), None

    zeros = jax.tree.map(jnp.zeros_like, params)
    state = (params, zeros, zeros, jnp.float32(1.0))
    params = jax.jit(partial(jax.lax.scan, step))(state, jax.random.split(next(keys), steps))[0][0]
    return forward, (params, drawn(next(keys)))


def method_rows(method: str, network: tuple[Any, tuple[Any, Any]]) -> Iterator[Row]:
    """Yields for each budget of a method what the mix and the uniform choice measure."""
    from memplan.passes.levels import choose_levels, levels_of

    fun, args = network
    levels = levels_of(fun, *args, method=method)
    for name in BUDGETS[method]:
        budget = 0
        for layer in levels.layers:
            budget += next((int(level.cost) for level in layer.levels if level.name == name), int(layer.levels[0].cost))
        found = choose_levels(levels, budget)
        assert found.uniform is not None
        yield {
            "method": method,
            "budget": budget,
            "share": budget / levels.before,
            "uniform": found.uniform.method.removeprefix("uniform "),
            "uniform_measured": found.uniform_measured,
            "measured": found.measured,
            "model": found.plan.error,
            "is_optimal": found.plan.is_optimal,
        }


def method_cells(row: Row) -> list[str]:
    """Returns the cells of a row under `COLUMNS`."""
    measured, uniform = row["measured"], row["uniform_measured"]
    errors = [f"{number:.3g}" for number in (uniform, measured, row["model"])]
    return [f"`{row['method']}`", f"{row['share']:.0%}", row["uniform"], *errors, f"{measured / uniform:.2f}"]
