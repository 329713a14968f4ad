"""Every way to write in place, beside a look at each byte that each part reads and writes."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from test_affine import value

from memplan import embedded
from memplan.compiler.embedded import EmbeddedProgram, InPlaceWay, LoopNest
from memplan.compiler.embedded.expressions import Element, Reduction


def _bytes_of(program: EmbeddedProgram, buffer: int, index: int) -> set[int]:
    size = program.buffers[buffer].item_size
    return set(range(index * size, (index + 1) * size))


def touches(program: EmbeddedProgram, step: LoopNest, way: InPlaceWay) -> bool:
    """Whether some part writes what a later part reads."""
    order = list(range(len(step.loops)))
    if way.slices is not None:
        order.insert(0, order.pop(way.slices))
    outer = order[: way.num_outer]
    inner = {loop.number: loop.extent for e in step.expressions if isinstance(e, Reduction) for loop in e.loops}
    extents = [*step.loops, *(inner[number] for number in sorted(inner))]
    loads = {e.index for e in step.expressions if isinstance(e, Element) and e.buffer == way.buffer}
    count = program.buffers[way.buffer].num_elements
    parts: dict[tuple[int, ...], tuple[set[int], set[int]]] = {}
    for loops in itertools.product(*map(range, extents)):
        part = tuple(loops[k] // (way.width if k == way.slices else 1) for k in outer)
        read, written = parts.setdefault(part, (set(), set()))
        written |= _bytes_of(program, step.stores[way.store].buffer, value(step.stores[way.store].index, loops))
        for index in loads:
            if 0 <= (place := value(index, loops)) < count:  # Others are guarded.
                read |= _bytes_of(program, way.buffer, place)
    keys = sorted(parts, reverse=way.is_descending)
    return any(parts[a][1] & parts[b][0] for k, a in enumerate(keys) for b in keys[k + 1 :])


def _conv(x: Any, shape: tuple[int, ...], stride: int = 1, groups: int = 1) -> Any:
    names = ("NHWC", "HWIO", "NHWC")
    w = jnp.asarray(np.ones(shape), x.dtype)
    half = shape[0] // 2
    padding = [(half, half)] * 2
    return lax.conv_general_dilated(
        x, w, (stride, stride), padding, dimension_numbers=names, feature_group_count=groups
    )


def _network(x: Any) -> Any:
    x = jnp.tanh(_conv(x, (1, 1, 2, 6)))  # grows: backwards, pixel by pixel
    x = jnp.tanh(_conv(x, (3, 3, 1, 6), groups=6))  # channel by channel
    x = jnp.tanh(_conv(x, (3, 3, 1, 6), stride=2, groups=6))
    x = jnp.tanh(_conv(x, (1, 1, 6, 4)))  # shrinks: pixel by pixel
    y = jnp.exp(x.transpose(0, 2, 1, 3)[:, ::-1]).astype(jnp.int8)
    z = jnp.exp(y.astype(jnp.float32)).reshape(-1, 4)
    return jnp.exp(_conv(jnp.tanh(z @ jnp.ones((4, 4))).reshape(1, 2, 2, 4), (3, 3, 4, 4)))


def test_no_part_writes_what_a_later_one_reads() -> None:
    plan = embedded(_network, jax.ShapeDtypeStruct((1, 4, 4, 2), jnp.float32))
    ways = [(step, way) for step in plan.program.steps for way in step.in_place]
    assert {(way.slices is not None, way.is_descending) for _, way in ways} == {
        (True, False),
        (False, True),
        (False, False),
    }
    assert {way.width for _, way in ways} == {1, 4}
    for step, way in ways:
        assert not touches(plan.program, step, way)
    # A convolution over neighbours that mixes channels has no part of its own.
    spatial = [s for s in plan.program.steps if s.name == "conv_general_dilated" and len(s.loops) == 3]
    assert any(not step.in_place for step in spatial)


def test_the_look_at_bytes_finds_a_wrong_way() -> None:
    plan = embedded(lambda x: _conv(x, (3, 3, 2, 2)), jax.ShapeDtypeStruct((1, 4, 4, 2), jnp.float32))
    (step,) = plan.program.steps
    assert step.in_place == ()
    assert touches(
        plan.program, step, InPlaceWay(0, step.reads[0] if step.reads[0] in plan.program.inputs else step.reads[1], 1)
    )
