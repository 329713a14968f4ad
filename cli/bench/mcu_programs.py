"""The programs of `memplan bench mcu`, and the figures that are published for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from memplan.passes.sparse_update import sparse_update
from memplan.passes.update_scheme import PUBLISHED, UpdateScheme, update_memory
from memplan.workloads import mcu
from memplan.workloads.calibration import calibrated, float_shapes, float_step, quantized_image
from memplan.workloads.quantized import Params
from memplan.workloads.quantized_network import RATE, QuantizedNetwork

T = TypeVar("T")

KB = 1024
# The stem and so many blocks, none of which a published scheme trains, run stripe by stripe.
STRIPED_BLOCKS = 2
# Bytes that the gradient of a block's hidden channels may take.
MOST_GRADIENT = 8 * KB

# Of MobileNetV2, in the order of the ladder: the lecture notes of MIT 6.5940 on on-device training, which state the
# peak of compile-time autodiff, of int8 with quantization-aware scaling, of sparse update, and with reordering.
_LADDER_OF_MBV2 = (5_700 * KB, 2_900 * KB, 355 * KB, 141 * KB, 141 * KB)
# mit-han-lab/tinyengine, README: peak memory of inference by TinyEngine.
_INFERENCE = {"mbv2-w0.3-r64": 61 * KB, "proxyless-w0.3-r176": 259 * KB}
_OF_SIDE = {"mbv2": ("mbv2-w0.3-r64", 64), "proxyless": ("proxyless-w0.3-r176", 176)}


@dataclass(frozen=True, eq=False)
class McuProgram:
    """A program to be planned.

    Attributes:
      network: a name of `mcu.NETWORKS`.
      kind: "ladder", "scheme", "inference" or "exported": the table that it belongs to.
      name: what it is.
      fun, args: the program.
      states, constants: arguments, as for `memplan.embedded`.
      in_place, reorder: as there.
      model_bytes: of a scheme, by the paper's model.
      published: the peak that its authors state, bytes; None if they state none.
    """

    network: str
    kind: str
    name: str
    fun: Callable[..., Any]
    args: tuple[Any, ...]
    states: tuple[int, ...] = ()
    constants: tuple[int, ...] = ()
    in_place: bool = True
    reorder: bool = True
    model_bytes: int | None = None
    published: int | None = None

    def given_to(self, planner: Callable[..., T], **options: Any) -> T:
        """Returns what `memplan.embedded`, or another function with its arguments, makes of the program."""
        return planner(self.fun, *self.args, state_argnums=self.states, constant_argnums=self.constants, **options)


def programs(name: str, stripes: int, kinds: frozenset[str]) -> Iterator[McuProgram]:
    """Yields the programs of a network, of the kinds that are asked for.

    Args:
      name: of the network.
      stripes: of the first blocks.
      kinds: of programs.
    """
    network = mcu.NETWORKS[name]()
    if "ladder" in kinds:
        yield from _ladder(name, network, stripes)
    if "scheme" in kinds:
        for size, scheme in PUBLISHED[name].items():
            model = int(update_memory(scheme, network.layers).total)
            yield sparse_program(name, network, scheme, stripes, "scheme", f"{size} kB scheme", model_bytes=model)
    if "inference" in kinds:
        yield from _inference(name, network, f"{name} at {network.stem.side} pixels", None, stripes)
        if name in _OF_SIDE:
            known, side = _OF_SIDE[name]
            of_side = mcu.mobilenet_v2(0.3, side, 1000) if name == "mbv2" else mcu.proxyless(side, 1000)
            yield from _inference(name, of_side, known, _INFERENCE[known], stripes)


def _ladder(name: str, network: QuantizedNetwork, stripes: int) -> Iterator[McuProgram]:
    published = _LADDER_OF_MBV2 if name == "mbv2" else (None,) * 5
    label = jax.ShapeDtypeStruct((1,), jnp.int32)
    image = jax.ShapeDtypeStruct(network.image().shape, jnp.float32)
    plain = partial(McuProgram, name, "ladder", states=(0,), in_place=False, reorder=False)
    step = partial(float_step, network, rate=RATE)
    yield plain("float32, all trained", step, (float_shapes(network), image, label), published=published[0])
    args = (network.abstract(), network.image(), label)
    yield plain("int8, all trained", network.train_step, args, published=published[1])
    size = middle_scheme(name)
    sparse = partial(sparse_program, name, network, PUBLISHED[name][size], kind="ladder")
    what = f"int8, {size} kB scheme"
    yield sparse(stripes=0, what=what, in_place=False, reorder=False, published=published[2])
    yield sparse(stripes=0, what=f"{what}, reordered, in place", published=published[3])
    yield sparse(stripes=stripes, what=f"{what}, by stripes and groups", published=published[4])


def middle_scheme(name: str) -> int:
    """Returns the size, in kB, of a network's published scheme that is nearest to 100 kB."""
    return min(PUBLISHED[name], key=lambda size: abs(size - 100))


def sparse_program(
    name: str,
    network: QuantizedNetwork,
    scheme: UpdateScheme,
    stripes: int,
    kind: str,
    what: str,
    given: tuple[Params, Any, Any] | None = None,
    **options: Any,
) -> McuProgram:
    """Returns the training step of a scheme.

    Args:
      name, kind, what: as `McuProgram.network`, `kind` and `name`.
      network: whose step it is.
      scheme: says what is trained.
      stripes: of the first blocks, whose backward passes go by groups of channels then; 0 for neither.
      given: parameters, image and label; None for shapes alone.
      options: other attributes.
    """
    channels = scheme.channels(network.layers)
    step = partial(network.train_step, kept_inputs=scheme.kept_inputs(network.layers))
    if stripes:
        step = partial(step, striped_blocks=STRIPED_BLOCKS, stripes=stripes, most_gradient=MOST_GRADIENT)
    params, *batch = given or (network.abstract(), network.image(), jax.ShapeDtypeStruct((1,), jnp.int32))
    updated, cut = network.updated(channels, scheme.bias_layers), network.cut(params, channels)
    sparse = sparse_update(step, updated, cut, *batch)
    return McuProgram(name, kind, what, sparse.fun, (*sparse.split(cut), *batch), (0,), (1,), **options)


def _inference(
    name: str, network: QuantizedNetwork, what: str, published: int | None, stripes: int
) -> Iterator[McuProgram]:
    args = (network.abstract(), network.image())
    made = partial(McuProgram, name, "inference", args=args, constants=(0,), published=published)
    yield made(what, network.forward)
    yield made(f"{what}, by stripes", _in_stripes(network, stripes))


def _in_stripes(network: QuantizedNetwork, stripes: int) -> Callable[..., Any]:
    rows = network.blocks[STRIPED_BLOCKS - 1].layers[-1].out_side
    return partial(network.forward, striped_blocks=STRIPED_BLOCKS, stripes=min(stripes, rows))


def exported_programs(name: str, stripes: int, seed: int = 0) -> Iterator[McuProgram]:
    """Yields programs with values, to be run: inference, and the training step of the scheme nearest to 100 kB.

    Args:
      name: of the network, whose steps of activations are measured on four images of noise.
      stripes: of the first blocks.
      seed: of the images and of the weights.
    """
    draw = np.random.default_rng(seed)
    network = mcu.NETWORKS[name]()
    images = draw.standard_normal((4, network.stem.side, network.stem.side, 3)).astype(np.float32)
    network, params = calibrated(network, images, seed)
    image = quantized_image(network, jnp.asarray(images[:1]))
    run = partial(McuProgram, name, "exported", args=(params, image), constants=(0,))
    yield run("inference", network.forward)
    yield run("inference, by stripes", _in_stripes(network, stripes))
    size = middle_scheme(name)
    what, given = f"training step, {size} kB scheme", (params, image, jnp.zeros(1, jnp.int32))
    yield sparse_program(name, network, PUBLISHED[name][size], stripes, "exported", what, given)
