"""The programs of the dumps beside this file; the source lines in the dumps are lines of this file.

Run it as the README says; `names` choose programs, all without.
"""

import sys

import jax
import jax.numpy as jnp
from jax import lax


def mlp_grad(params, x, y):
    """Loss and gradients of a network of two layers."""

    def loss(params):
        hidden = jax.nn.relu(x @ params["w1"] + params["b1"])
        return jnp.square(hidden @ params["w2"] + params["b2"] - y).mean()

    return jax.value_and_grad(loss)(params)


def scan_rnn(state, w, inputs):
    """A recurrent network over its inputs; `state` is donated."""

    def step(h, x):
        h = jnp.tanh(h @ w + x)
        return h, h.sum(axis=-1)

    return lax.scan(step, state, inputs)


def while_cond(x, limit):
    """Doubles or turns `x` until its norm reaches `limit`: a trip count that only the data decides."""

    def turn(x):
        return jnp.flip(x) + 1.0

    def body(state):
        count, x = state
        return count + 1, lax.cond(count % 2 == 0, lambda x: 2.0 * x, turn, x)

    return lax.while_loop(lambda state: jnp.vdot(state[1], state[1]) < limit, body, (jnp.int32(0), x))


def f32(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


PROGRAMS = {
    "mlp_grad": (
        mlp_grad,
        ({"w1": f32(32, 64), "b1": f32(64), "w2": f32(64, 8), "b2": f32(8)}, f32(16, 32), f32(16, 8)),
        (),
    ),
    "scan_rnn": (scan_rnn, (f32(8, 32), f32(32, 32), f32(12, 8, 32)), (0,)),
    "while_cond": (while_cond, (f32(128), f32()), ()),
}

for name in sys.argv[1:] or PROGRAMS:
    fun, args, donated = PROGRAMS[name]
    jax.jit(fun, donate_argnums=donated).lower(*args).compile()
