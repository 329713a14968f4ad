"""The fused kernel in Pallas: gate, transform, product of spectra, transform back and gate for a tile of signals, with
all that lies between in on-chip memory; and its backward pass in another.

    forward     y = after · C(before · u)              C: the convolution, with the filter's spectrum S
    backward    du = before · C*(after · dy)           C*: with the conjugate of S
                dS = sum over the batch of  conj(F(after · dy)) · F(before · u)         F: the transform

The method is that of Fu et al., "FlashFFTConv", arXiv 2311.05908, sections 3.1 and 3.3, with the transform of
`kernel_form.py`. Everything in a kernel is a matrix of a signal's size: both Mosaic, for TPUs, and Triton, for GPUs,
take that.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl

from memplan.passes.fft.kernel_form import SUBLANES, KernelForm, tables

# Real and imaginary part.
Parts = tuple[jax.Array, jax.Array]

# Of a signal in a tile: number in the batch and channel.
Place = tuple[Any, Any]


def run_forward(
    form: KernelForm, u: jax.Array, spectrum: jax.Array, before: jax.Array | None, after: jax.Array | None, dtype: Any
) -> jax.Array:
    """Returns gated convolutions.

    Args:
      form: of the kernel.
      u: signals `[batch, channels, N1, N2]`.
      spectrum: of the filters, `[channels, 2, N1, N2]` float32, divided by the length.
      before, after: gates `[batch or 1, channels or 1, N1, N2]`, or None.
      dtype: of the result, `[batch, channels, N1, N2]`.
    """
    gates = [gate for gate in (before, after) if gate is not None]
    form = form.fitted(signals=2 + len(gates), spectra=1)

    def kernel(*refs: Any) -> None:
        (u_ref, spectrum_ref), rest, y_ref = refs[:2], list(refs[2:-1]), refs[-1]
        before_ref = rest.pop(0) if before is not None else None
        after_ref = rest.pop(0) if after is not None else None
        transforms = _Transforms(form, rest)

        def convolve(places: Sequence[Place]) -> None:
            spectra = transforms.forward([_times(form, u_ref, before_ref, place) for place in places])
            products = [_product(z, _filter(spectrum_ref, place)) for z, place in zip(spectra, places, strict=True)]
            for y, place in zip(transforms.backward(products), places, strict=True):
                _store(form, y_ref, place, _gated(form, y, after_ref, place))

        _for_all(form, convolve)

    return _call(
        form,
        kernel,
        [_laid(form, u), spectrum, *(_laid(form, gate) for gate in gates), *_constants(form)],
        [_signals(form, u.shape), _filters(form), *(_signals(form, gate.shape) for gate in gates), *_whole(form)],
        [dtype],
        [u.shape],
        form.flops,
        "fft_conv_forward",
    )[0]


def run_backward(
    form: KernelForm,
    dy: jax.Array,
    u: jax.Array,
    spectrum: jax.Array,
    before: jax.Array | None,
    after: jax.Array | None,
) -> tuple[jax.Array, jax.Array, jax.Array | None, jax.Array | None]:
    """Returns the gradients of the signals, the spectrum and the gates, the gates' before sums of what is shared.

    Args:
      dy: gradient of the result, as large as `u`.
      form, u, spectrum, before, after: as for `run_forward`.
    """
    gates = [gate for gate in (before, after) if gate is not None]
    form = form.fitted(signals=3 + 2 * len(gates), spectra=2)

    def kernel(*refs: Any) -> None:
        inputs, (du_ref, *gate_refs, ds_ref) = list(refs[: 6 + len(gates)]), refs[6 + len(gates) :]
        dy_ref, u_ref, spectrum_ref = inputs[:3]
        rest = inputs[3:]
        before_ref = rest.pop(0) if before is not None else None
        after_ref = rest.pop(0) if after is not None else None
        transforms = _Transforms(form, rest)
        _clear(form, ds_ref)

        def derive(places: Sequence[Place]) -> None:
            signals = transforms.forward([_times(form, u_ref, before_ref, place) for place in places])
            slopes = transforms.forward([_times(form, dy_ref, after_ref, place) for place in places])
            filters = [_filter(spectrum_ref, place) for place in places]
            for z, g, (_, j) in zip(signals, slopes, places, strict=True):
                # conj(g)·z, of which the imaginary part of the spectrum gets the opposite.
                ds_ref[0, j, 0] += z[0] * g[0] + z[1] * g[1]
                ds_ref[0, j, 1] += z[0] * g[1] - z[1] * g[0]
            back = transforms.backward([_product(g, _conjugate(s)) for g, s in zip(slopes, filters, strict=True)])
            for dv, place in zip(back, places, strict=True):
                _store(form, du_ref, place, _gated(form, dv, before_ref, place))
                if before_ref is not None:
                    _store(form, gate_refs[0], place, dv * _load(form, u_ref, place))
            if after_ref is not None:
                again = transforms.backward([_product(z, s) for z, s in zip(signals, filters, strict=True)])
                for y, place in zip(again, places, strict=True):
                    _store(form, gate_refs[-1], place, y * _load(form, dy_ref, place))

        _for_all(form, derive)

    *found, ds = _call(
        form,
        kernel,
        [_laid(form, x) for x in (dy, u)] + [spectrum, *(_laid(form, gate) for gate in gates), *_constants(form)],
        [
            _signals(form, u.shape),
            _signals(form, u.shape),
            _filters(form),
            *(_signals(form, gate.shape) for gate in gates),
            *_whole(form),
        ],
        # What is still to be summed is not rounded before.
        [u.dtype, *(gate.dtype if gate.shape == u.shape else jnp.float32 for gate in gates)],
        [u.shape] * (1 + len(gates)),
        form.flops * (4 if after is not None else 3) // 2,
        "fft_conv_backward",
        sums=True,
    )
    du, *rest = found
    d_before = rest.pop(0) if before is not None else None
    d_after = rest.pop(0) if after is not None else None
    return du, jnp.sum(ds, 0), d_before, d_after


class _Transforms:
    """The transforms of a tile, with the tables in `refs`."""

    def __init__(self, form: KernelForm, refs: Sequence[Any]):
        self._form = form
        first, twiddle, second = refs
        self._first = first[0], first[1]
        self._first_transposed = first[2], first[3]
        self._twiddle = twiddle[0], twiddle[1]
        self._second = second[0], second[1]

    def forward(self, signals: Sequence[jax.Array]) -> list[Parts]:
        """Returns the spectra of signals `[N1, N2]`."""
        turned = []
        for signal in signals:
            narrow = signal.astype(self._form.arithmetic.storage)
            turned.append(
                _product((self._dot(self._first[0], narrow), self._dot(self._first[1], narrow)), self._twiddle)
            )
        real, imaginary = self._joined(turned)
        b_real, b_imaginary = self._second
        return self._parted(
            self._dot(real, b_real) - self._dot(imaginary, b_imaginary),
            self._dot(real, b_imaginary) + self._dot(imaginary, b_real),
        )

    def backward(self, spectra: Sequence[Parts]) -> list[jax.Array]:
        """Returns the real signals `[N1, N2]` of spectra."""
        real, imaginary = self._joined(spectra)
        b_real, b_imaginary = self._second
        turned = self._parted(
            self._dot(real, b_real) + self._dot(imaginary, b_imaginary),
            self._dot(imaginary, b_real) - self._dot(real, b_imaginary),
        )
        signals = []
        for parts in turned:
            real, imaginary = self._narrow(_product(parts, _conjugate(self._twiddle)))
            a_real, a_imaginary = self._first_transposed
            signals.append(self._dot(a_real, real) + self._dot(a_imaginary, imaginary))
        return signals

    def _dot(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.dot(a, b, precision=self._form.arithmetic.precision, preferred_element_type=jnp.float32)

    def _narrow(self, parts: Parts) -> Parts:
        storage = self._form.arithmetic.storage
        return parts[0].astype(storage), parts[1].astype(storage)

    def _joined(self, parts: Sequence[Parts]) -> Parts:
        """Returns matrices under one another: the second factor is the same for all of them."""
        narrow = [self._narrow(pair) for pair in parts]
        if len(narrow) == 1:
            return narrow[0]
        return jnp.concatenate([pair[0] for pair in narrow]), jnp.concatenate([pair[1] for pair in narrow])

    def _parted(self, real: jax.Array, imaginary: jax.Array) -> list[Parts]:
        """Undoes `_joined`."""
        rows = self._form.rows
        if real.shape[0] == rows:
            return [(real, imaginary)]
        return [(real[top : top + rows], imaginary[top : top + rows]) for top in range(0, real.shape[0], rows)]


def _for_all(form: KernelForm, work: Callable[[Sequence[Place]], None]) -> None:
    """Works on all signals of a tile, a group at a time."""
    groups = form.batch_tile * form.channel_tile // form.group

    def one(number: Any, nothing: Any) -> Any:
        first = number * form.group
        if form.batch_tile == 1:
            work([(0, first + k) for k in range(form.group)])
        else:
            work([_divided(first + k, form.channel_tile) for k in range(form.group)])
        return nothing

    if groups == 1:
        one(0, 0)
    else:
        lax.fori_loop(0, groups, one, 0)


def _divided(number: Any, by: int) -> tuple[Any, Any]:
    """Returns quotient and remainder; of traced numbers without the care for negative ones that `divmod` takes."""
    if isinstance(number, int):
        return divmod(number, by)
    divisor = jnp.asarray(by, number.dtype)
    return lax.div(number, divisor), lax.rem(number, divisor)


def _signal(form: KernelForm, ref: Any, place: Place) -> tuple[Any, Any]:
    """Returns where a signal is: a part of a block, and an index into it.

    The block may have one signal for all of the batch, or for all channels.
    """
    i, j = place
    i = i if ref.shape[0] > 1 else 0
    if ref.shape[2] == form.rows:
        return ref, (i, j if ref.shape[1] > 1 else 0)
    eight, within = _divided(j, SUBLANES)
    return ref.at[i, eight], (pl.ds(within, form.rows, stride=SUBLANES), slice(None))


def _load(form: KernelForm, ref: Any, place: Place) -> jax.Array:
    part, index = _signal(form, ref, place)
    return part[index].astype(jnp.float32)


def _store(form: KernelForm, ref: Any, place: Place, signal: jax.Array) -> None:
    part, index = _signal(form, ref, place)
    part[index] = signal.astype(ref.dtype)


def _times(form: KernelForm, signal_ref: Any, gate_ref: Any, place: Place) -> jax.Array:
    return _gated(form, _load(form, signal_ref, place), gate_ref, place)


def _gated(form: KernelForm, signal: jax.Array, gate_ref: Any, place: Place) -> jax.Array:
    return signal if gate_ref is None else signal * _load(form, gate_ref, place)


def _filter(spectrum_ref: Any, place: tuple[int, int]) -> Parts:
    return spectrum_ref[place[1], 0], spectrum_ref[place[1], 1]


def _product(x: Parts, y: Parts) -> Parts:
    return x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]


def _conjugate(x: Parts) -> Parts:
    return x[0], -x[1]


def _clear(form: KernelForm, ds_ref: Any) -> None:
    """Begins a sum, which the tiles of the batch that follow add to where they run in order."""

    def clear() -> None:
        ds_ref[...] = jnp.zeros(ds_ref.shape, ds_ref.dtype)

    if form.in_order:
        pl.when(pl.program_id(1) == 0)(clear)
    else:
        clear()


def _laid(form: KernelForm, x: jax.Array) -> jax.Array:
    """Returns signals or gates `[batch or 1, channels or 1, N1, N2]` as the kernel takes them."""
    if not form.interleaved or x.shape[1] == 1:
        return x
    apart = x.reshape(x.shape[0], -1, SUBLANES, form.rows, form.columns)
    return apart.swapaxes(2, 3).reshape(x.shape[0], -1, form.rows * SUBLANES, form.columns)


def _unlaid(form: KernelForm, x: jax.Array) -> jax.Array:
    """Undoes `_laid`."""
    if x.shape[2] == form.rows:
        return x
    together = x.reshape(x.shape[0], -1, form.rows, SUBLANES, form.columns)
    return together.swapaxes(2, 3).reshape(x.shape[0], -1, form.rows, form.columns)


def _constants(form: KernelForm) -> list[jax.Array]:
    """Returns `[4, N1, N1]` A and its transpose, `[2, N1, N2]` T and `[2, N2, N2]` B, their parts one after another."""
    found = tables(form.rows, form.columns)
    first, turned = found.first, found.first.T
    storage = form.arithmetic.storage
    return [
        jnp.asarray(np.stack([first.real, first.imag, turned.real, turned.imag]).astype(storage)),
        jnp.asarray(np.stack([found.twiddle.real, found.twiddle.imag]).astype(np.float32)),
        jnp.asarray(np.stack([found.second.real, found.second.imag]).astype(storage)),
    ]


def _signals(form: KernelForm, shape: Sequence[int]) -> pl.BlockSpec:
    """Returns how signals, or gates that some of them share, go to grid steps `(channels, batch)`.

    Args:
      form: of the kernel.
      shape: `[batch or 1, channels or 1, N1, N2]`.
    """
    batch, channels = shape[0] > 1, shape[1] > 1
    i = form.batch_tile if batch else 1
    if form.interleaved and channels:
        block = (i, form.channel_tile // SUBLANES, form.rows * SUBLANES, form.columns)
    else:
        block = (i, form.channel_tile if channels else 1, form.rows, form.columns)
    return pl.BlockSpec(block, lambda c, b: (b if batch else 0, c if channels else 0, 0, 0))


def _filters(form: KernelForm) -> pl.BlockSpec:
    return pl.BlockSpec((form.channel_tile, 2, form.rows, form.columns), lambda c, b: (c, 0, 0, 0))


def _sums(form: KernelForm) -> pl.BlockSpec:
    in_order = form.in_order
    return pl.BlockSpec(
        (1, form.channel_tile, 2, form.rows, form.columns), lambda c, b: (0 if in_order else b, c, 0, 0, 0)
    )


def _whole(form: KernelForm) -> list[pl.BlockSpec]:
    """Returns that every grid step gets the whole tables."""
    shapes = (4, form.rows, form.rows), (2, form.rows, form.columns), (2, form.columns, form.columns)
    return [pl.BlockSpec(shape, lambda c, b: (0, 0, 0)) for shape in shapes]


def _call(
    form: KernelForm,
    kernel: Callable[..., None],
    operands: Sequence[jax.Array],
    in_specs: Sequence[pl.BlockSpec],
    dtypes: Sequence[Any],
    shapes: Sequence[tuple[int, ...]],
    flops: int,
    name: str,
    sums: bool = False,
) -> list[jax.Array]:
    """Returns what a kernel makes: signals of some dtypes and shapes, and last, if wanted, sums of spectra."""
    results = [
        jax.eval_shape(functools.partial(_laid, form), jax.ShapeDtypeStruct(*x))
        for x in zip(shapes, dtypes, strict=True)
    ]
    out_specs = [_signals(form, shape) for shape in shapes]
    if sums:
        partial_sums = 1 if form.in_order else form.grid[1]
        results.append(jax.ShapeDtypeStruct((partial_sums, form.channels, 2, form.rows, form.columns), jnp.float32))
        out_specs.append(_sums(form))
    moved = sum(x.size * x.dtype.itemsize for x in (*operands, *results))
    found = pl.pallas_call(
        kernel,
        out_shape=results,
        grid=form.grid,
        in_specs=list(in_specs),
        out_specs=out_specs,
        cost_estimate=pl.CostEstimate(flops=flops, bytes_accessed=moved, transcendentals=0),
        interpret=form.interpret,
        name=name,
        compiler_params=None if form.interpret else _parameters(form),
    )(*operands)
    return [_unlaid(form, x) if x.ndim == 4 else x for x in found]


def _parameters(form: KernelForm) -> Any:
    if form.platform == "tpu":
        from jax.experimental.pallas import tpu

        return tpu.CompilerParams(dimension_semantics=("parallel", "arbitrary"))
    from jax.experimental.pallas import triton

    return triton.CompilerParams(num_warps=8, num_stages=1)
