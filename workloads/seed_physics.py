"""Equations: multigrid, adaptive steps, filters, wavelets, many-body circuits and long implicit kernels."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from memplan.workloads import _layers as nn
from memplan.workloads import neural_ode
from memplan.workloads._weights import Weights, floats, images, ints, squared, train, upsample2, waves
from memplan.workloads.registry import Built, workload

FAMILY = "operator"


def v_cycle(p: Weights, f: jax.Array, u: jax.Array, levels: int, level: int = 0) -> jax.Array:
    """One multigrid cycle of the equation `A u = f` with convolutions of its own at each level.

    Args:
      p: kernels: `a` (the operator), `smooth` before and after, `down` and `up` between levels.
      f: [B, side, side, C] right-hand side.
      u: likewise, the guess; it stays alive through all coarser levels.
      levels: number of grids; the side is a multiple of 2^(levels − 1).
      level: the present one.
    """
    width, part = f.shape[-1], p / f"level{level}"
    u = u + part.conv("smooth1", f - part.conv("a", u, width), width)
    if level + 1 < levels:
        rest = part.conv("down", f - part.conv("a", u, width), width, 2, 2, padding="VALID")
        u = u + part.conv("up", upsample2(v_cycle(p, rest, jnp.zeros_like(rest), levels, level + 1)), width, 1)
    return u + part.conv("smooth2", f - part.conv("a", u, width), width)


@workload(
    "multigrid operator, 4 V-cycles of 24 channels from 256 × 256 to 8 × 8 on 8 functions, one Adam step, float32",
    family=FAMILY,
    source="He et al., arXiv 2310.19809 (MgNO)",
    kind="training",
    donate_argnums=(0, 1),
)
def mgno_train(tiny: bool = False, batch: int = 8) -> Built:
    width, layers, levels, side = (2, 1, 2, 4) if tiny else (24, 4, 6, 256)

    def apply(p: Weights, x: jax.Array) -> jax.Array:
        x = p.conv("lift", x, width, 1)
        for layer in range(layers):
            x = jax.nn.gelu(v_cycle(p / f"cycle{layer}", x, jnp.zeros_like(x), levels))
        return p.conv("project", x, 1, 1)

    return train(squared(apply), images(batch, side, 1, jnp.float32), images(batch, side, 1, jnp.float32))


def local_error(p: Weights, y: jax.Array, time: jax.Array, step: float) -> tuple[jax.Array, jax.Array]:
    """One embedded Runge–Kutta step of states [B, C]: where it ends, and its estimated error."""

    def rate(y: jax.Array) -> jax.Array:
        told = jnp.concatenate([y, jnp.broadcast_to(time, (len(y), 1))], axis=-1)
        return p.mlp("rate", told, 1024 if y.shape[-1] > 8 else 8, y.shape[-1], act=jnp.tanh)

    first = rate(y)
    second = rate(y + step / 2 * first)
    third = rate(y + 3 * step / 4 * second)
    end = y + step * (2 / 9 * first + 1 / 3 * second + 4 / 9 * third)
    fourth = rate(end)
    return end, step * (-5 / 72 * first + 1 / 12 * second + 1 / 9 * third - 1 / 8 * fourth)


@workload(
    "neural differential equation solved with adaptive steps, 512 states of 256, 16 times, float32",
    family="differential-equation",
    source="Pal et al., arXiv 2303.02262 (locally regularized neural differential equations)",
)
def local_nde(tiny: bool = False) -> Built:
    width, hidden, rows, times = (3, 8, 2, 3) if tiny else (256, 1024, 512, 16)
    config = neural_ode.NeuralOdeConfig(width=width, hidden=hidden)

    def fun(params: nn.Params, y: jax.Array, times: jax.Array) -> tuple[jax.Array, jax.Array]:
        return neural_ode.solve(lambda y, t: neural_ode.derivative(params, y, t), y, times, 1e-4)

    return fun, (nn.abstract(neural_ode.init, config), floats(rows, width), floats(times))


@workload(
    "one step of training at a random time, the local error added to the loss, 512 states of 256, Adam, float32",
    family="differential-equation",
    source="Pal et al., arXiv 2303.02262 (locally regularized neural differential equations)",
    kind="training",
    donate_argnums=(0, 1),
)
def local_nde_train(tiny: bool = False) -> Built:
    width, rows, steps = (3, 2, 2) if tiny else (256, 512, 32)

    def loss(p: Weights, y: jax.Array, wanted: jax.Array, seed: jax.Array) -> jax.Array:
        chosen = jax.random.randint(jax.random.key(seed), (), 0, steps)
        penalty = jnp.zeros(())
        for step in range(steps):
            y, error = local_error(p, y, jnp.float32(step / steps), 1 / steps)
            penalty += jnp.where(step == chosen, jnp.square(error).mean(), 0.0)
        return jnp.square(y - wanted).mean() + penalty

    return train(loss, floats(rows, width), floats(rows, width), ints())


def kalman(transition: jax.Array, noise: jax.Array, read: jax.Array, variance: jax.Array, seen: jax.Array) -> jax.Array:
    """Means of a linear system's states, given all that was seen so far.

    Args:
      transition: [S, S] from one step to the next.
      noise: [S, S] covariance that a step adds; the first state has it too.
      read: [S] what an observation sees of a state.
      variance: of an observation, a scalar.
      seen: [T] observations.

    Returns:
      [T, S].
    """

    def step(state: tuple[jax.Array, jax.Array], seen: jax.Array) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        mean, covariance = state
        mean, covariance = transition @ mean, transition @ covariance @ transition.T + noise
        gain = covariance @ read / (read @ covariance @ read + variance)
        mean = mean + gain * (seen - read @ mean)
        covariance = covariance - jnp.outer(gain, read @ covariance)
        return (mean, covariance), mean

    start = (jnp.zeros(len(read)), jnp.zeros_like(noise))
    return lax.scan(step, start, seen)[1]


@workload(
    "Tucker decomposition by functions of time: 24 Kalman filters over 2048 steps, a core of 8³, float32",
    family=FAMILY,
    source="Fang et al., arXiv 2311.04829 (FunBaT)",
)
def funbat(tiny: bool = False) -> Built:
    modes, rank, steps, entries = (3, 2, 4, 3) if tiny else (3, 8, 2048, 65_536)

    def fun(core: jax.Array, seen: jax.Array, variance: jax.Array, places: jax.Array) -> jax.Array:
        # A Matérn 3/2 process has two states.
        rate, dt = jnp.float32(1.7), jnp.float32(0.1)
        transition = jnp.exp(-rate * dt) * jnp.array([[1 + rate * dt, dt], [-(rate**2) * dt, 1 - rate * dt]])
        still = jnp.diag(jnp.array([1.0, rate**2]))
        noise = still - transition @ still @ transition.T
        read = jnp.array([1.0, 0.0])
        filters = jax.vmap(jax.vmap(partial(kalman, transition, noise, read, variance)))
        factors = filters(seen)[..., 0]  # modes, rank, steps
        chosen = [factors[mode][:, places[:, mode]] for mode in range(modes)]
        return jnp.einsum("abc,an,bn,cn->n", core, *chosen)

    return fun, (floats(*(rank,) * 3), floats(modes, rank, steps), floats(), ints(entries, modes))


def wavelets(length: int, scales: int) -> np.ndarray[Any, Any]:
    """Spectra [scales, length] float32 of band-pass filters, each half as wide as the one before."""
    frequencies = np.fft.fftfreq(length)
    centres = 0.4 / 2.0 ** np.arange(scales)
    return np.exp(-np.square(frequencies - centres[:, None]) / (2 * np.square(centres[:, None] / 4))).astype(np.float32)


def scatter(x: jax.Array, scales: int, orders: int) -> jax.Array:
    """Wavelet convolution and modulus again and again, then means over time: [B, T] to [B, number of paths]."""
    filters = jnp.asarray(wavelets(x.shape[-1], scales))
    found, paths = [x.mean(-1)], [(x, -1)]
    for _ in range(orders):
        longer = []
        for y, last in paths:
            spectrum = jnp.fft.fft(y)
            # Only coarser filters follow, since a modulus has no higher frequencies.
            for scale in range(last + 1, scales):
                longer.append((jnp.abs(jnp.fft.ifft(spectrum * filters[scale])), scale))
        paths = longer
        found += [y.mean(-1) for y, _ in paths]
    return jnp.stack(found, axis=-1)


@workload(
    "wavelet scattering of 64 signals of 8192, 8 scales, paths of up to 2 moduli, by FFT, float32",
    family=FAMILY,
    source="Mallat, arXiv 1101.2286 (group invariant scattering)",
)
def scattering(tiny: bool = False) -> Built:
    rows, length, scales = (2, 16, 3) if tiny else (64, 8192, 8)
    return partial(scatter, scales=scales, orders=2), (floats(rows, length),)


def circuit(gates: jax.Array, state: jax.Array) -> jax.Array:
    """Applies gates of two neighbours to a state of n two-level systems, layer by layer.

    Args:
      gates: [layers, n − 1, 4, 4] complex64, unitary; each layer acts on pairs (0, 1), (1, 2), … in turn.
      state: [2^n] complex64.
    """
    sites = gates.shape[1] + 1

    def layer(state: jax.Array, gates: jax.Array) -> tuple[jax.Array, None]:
        for site in range(sites - 1):
            pairs = state.reshape(1 << site, 4, -1)
            state = jnp.einsum("ij,ajb->aib", gates[site], pairs).reshape(-1)
        return state, None

    return lax.scan(layer, state, gates)[0]


@workload(
    "28 layers of gates on a state of 20 two-level systems, and 28 × 28 contractions of a picture, complex64",
    family=FAMILY,
    source="Quantum creep; tensor networks for pictures as in Stoudenmire and Schwab, arXiv 1605.05775",
)
def quantum_creep(tiny: bool = False) -> Built:
    sites, layers, side, bond = (3, 2, 3, 2) if tiny else (20, 28, 28, 16)

    def fun(gates: jax.Array, state: jax.Array, cores: jax.Array, pictures: jax.Array) -> tuple[jax.Array, jax.Array]:
        evolved = circuit(gates, state)
        local = jnp.stack([jnp.cos(pictures * jnp.pi / 2), jnp.sin(pictures * jnp.pi / 2)], axis=-1)

        def site(left: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            core, pixel = now
            left = jnp.einsum("bl,bs,lsr->br", left, pixel.astype(core.dtype), core)
            return left / jnp.sqrt(jnp.square(jnp.abs(left)).sum(-1, keepdims=True) + 1e-12), None

        start = jnp.ones((len(pictures), bond), cores.dtype)
        amplitudes, _ = lax.scan(site, start, (cores, local.swapaxes(0, 1)))
        return evolved, jnp.square(jnp.abs(amplitudes))

    return fun, (
        jax.ShapeDtypeStruct((layers, sites - 1, 4, 4), jnp.complex64),
        jax.ShapeDtypeStruct((1 << sites,), jnp.complex64),
        jax.ShapeDtypeStruct((side * side, bond, 2, bond), jnp.complex64),
        floats(64, side * side),
    )


def global_kernel(p: Weights, length: int, channels: int, hidden: int) -> jax.Array:
    """Taps [C, T] of a kernel as long as its input, by a perceptron of each tap's place."""
    places = waves(jnp.linspace(-1, 1, length)[:, None], 6)
    return p.mlp("taps", places, hidden, hidden, channels, act=jnp.sin).T / length


def global_conv(u: jax.Array, k: jax.Array) -> jax.Array:
    """Circular convolution of each channel: u [B, C, T] with k [C, T], by FFT."""
    length = u.shape[-1]
    return jnp.fft.irfft(jnp.fft.rfft(u) * jnp.fft.rfft(k), n=length)


@workload(
    "4 blocks of 128 whose kernels as long as 4096 steps depend on their input, one Adam step on 8 rows, float32",
    family=FAMILY,
    source="Zhang, arXiv 2401.17948 (HyperZZW)",
    kind="training",
    donate_argnums=(0, 1),
)
def hyperzzw_train(tiny: bool = False) -> Built:
    rows, length, width, hidden, layers = (2, 8, 4, 4, 1) if tiny else (8, 4096, 128, 64, 4)

    def block(p: Weights, x: jax.Array) -> jax.Array:
        u = x.swapaxes(1, 2)
        slow = global_kernel(p, length, width, hidden)
        fast = jnp.tanh(p.dense("fast", x.mean(1), width))[..., None]
        y = global_conv(u, slow) * fast + u * (p("skip", width)[:, None] * slow)
        return x + p.dense("mix", p.layer_norm("norm", y.swapaxes(1, 2)), width)

    def apply(p: Weights, x: jax.Array) -> jax.Array:
        return p.dense("out", p.layers("block", block, p.dense("in", x, width), layers), 1)

    return train(squared(apply), floats(rows, length, 3), floats(rows, length, 1))


def moments_through(weights: jax.Array, mean: jax.Array, variance: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and variance [B, O] of a product with independent weights ±1 whose means are tanh(`weights`) [I, O]."""
    m = jnp.tanh(weights)
    return mean @ m, (variance + jnp.square(mean)) @ (1 - jnp.square(m)) + variance @ jnp.square(m)


@workload(
    "perceptron of weights ±1 known by their means, mean and variance through 4 layers of 1024, one SGD step, float32",
    family=FAMILY,
    source="Li et al., arXiv 2212.02846 (statistical mechanics of continual learning)",
    kind="training",
    donate_argnums=(0,),
)
def binary_continual_train(tiny: bool = False) -> Built:
    width, layers, rows = (4, 2, 3) if tiny else (1024, 4, 512)

    def loss(p: Weights, x: jax.Array, wanted: jax.Array, before: jax.Array) -> jax.Array:
        mean, variance, drift = x, jnp.zeros_like(x), jnp.zeros(())
        for layer in range(layers):
            w = p(f"w{layer}", width, width)
            mean, variance = moments_through(w, mean * width**-0.5, variance / width)
            spread = jnp.sqrt(variance + 1e-6)
            mean = jax.scipy.special.erf(mean / (spread * 2**0.5))  # of the sign of a normal variable
            variance = 1 - jnp.square(mean)
            share = jax.nn.sigmoid(2 * before[layer])
            drift += (share * (jnp.log(share + 1e-9) - jax.nn.log_sigmoid(2 * w))).mean()
        return jnp.square(mean - wanted).mean() + 0.1 * drift

    inputs = floats(rows, width), floats(rows, width), floats(layers, width, width)
    return train(loss, *inputs, optimizer="sgd")
