"""Programs of several devices, in plain JAX, for `memplan bench sharded`.

Each is built for a mesh, abstract or not, and states its shardings: data, tensor, expert, pipeline and sequence
parallelism, alone and together, forward and in training. They are no workloads of the registry, whose programs run on
one device.

    P("data") on the batch             data parallelism: gradients are summed
    P("data") on the weights, too      fully sharded: weights are gathered layer by layer (ZeRO, arXiv 1910.02054)
    P("model") on the hidden width     tensor parallelism (Megatron-LM, arXiv 1909.08053)
    P("model") on the length           between layers: sequence parallelism (arXiv 2205.05198)
    shard_map, all-to-all              experts (GShard, arXiv 2006.16668), heads for positions (Ulysses, 2309.14509)
    shard_map, permutations            pipelines (GPipe, arXiv 1811.06965), ring attention (arXiv 2310.01889)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

Built = tuple[Callable[..., Any], tuple[Any, ...]]


@dataclass(frozen=True)
class ShardedProgram:
    """A program of several devices.

    Attributes:
      name: with the number of devices along each axis of its mesh.
      parallelism: what is divided, in words.
      axes: names and sizes of the axes of its mesh.
      build: returns `(fun, args)` for a mesh with these axes, as that of a workload does; tiny sizes for tests if
        `tiny`.
      donate_argnums: as for `jax.jit`.
    """

    name: str
    parallelism: str
    axes: tuple[tuple[str, int], ...]
    build: Callable[..., Built]
    donate_argnums: tuple[int, ...] = ()

    @property
    def devices(self) -> int:
        count = 1
        for _, size in self.axes:
            count *= size
        return count

    def mesh(self) -> Any:
        """Returns its mesh, an abstract one."""
        kinds = (jax.sharding.AxisType.Auto,) * len(self.axes)
        return jax.sharding.AbstractMesh(
            tuple(size for _, size in self.axes), tuple(name for name, _ in self.axes), kinds
        )


def _struct(mesh: Any, shape: Sequence[int], *spec: Any, dtype: Any = jnp.bfloat16) -> Any:
    return jax.ShapeDtypeStruct(tuple(shape), dtype, sharding=NamedSharding(mesh, P(*spec)))


def _step(forward: Callable[..., Any], params: Any, x: Any) -> Built:
    """Returns a step of gradient descent on the mean square of what `forward(params, x)` gives."""
    placed = jax.tree.map(lambda leaf: leaf.sharding, params)

    def step(params: Any, x: Any) -> Any:
        def loss(params: Any) -> Any:
            return jnp.mean(jnp.square(forward(params, x).astype(jnp.float32)))

        value, gradient = jax.value_and_grad(loss)(params)
        updated = jax.tree.map(lambda p, g: (p - 1e-3 * g).astype(p.dtype), params, gradient)
        return lax.with_sharding_constraint(updated, placed), value

    return step, (params, x)


def _normalized(x: Any) -> Any:
    wide = x.astype(jnp.float32)
    return (wide * lax.rsqrt(jnp.mean(jnp.square(wide), -1, keepdims=True) + 1e-6)).astype(x.dtype)


def mlp(mesh: Any, *, data: Any = None, model: Any = None, train: bool = False, tiny: bool = False) -> Built:
    """Residual blocks of two matrices."""
    batch, width, hidden, layers = (16, 32, 64, 2) if tiny else (2048, 512, 2048, 2)
    params = [
        (_struct(mesh, (width, hidden), None, model), _struct(mesh, (hidden, width), model, None))
        for _ in range(layers)
    ]

    def forward(params: Any, x: Any) -> Any:
        for up, down in params:
            x = x + jax.nn.gelu(_normalized(x) @ up) @ down
        return x

    x = _struct(mesh, (batch, width), data, None)
    return _step(forward, params, x) if train else (forward, (params, x))


def transformer(
    mesh: Any,
    *,
    data: Any = None,
    model: Any = None,
    fully: Any = None,
    by_length: bool = False,
    train: bool = False,
    tiny: bool = False,
) -> Built:
    """Blocks of attention and an MLP.

    Args:
      mesh: of the devices.
      data, model, fully: the axes over which batch, heads and hidden width, and all weights are divided.
      by_length: whether the values between blocks are divided by position over `model`.
      train: whether it is a training step.
      tiny: for tests.
    """
    batch, length, width, heads, layers = (8, 16, 32, 8, 1) if tiny else (16, 256, 512, 8, 2)
    params = [
        {
            "in": _struct(mesh, (width, 3, heads, width // heads), fully, None, model, None),
            "out": _struct(mesh, (heads, width // heads, width), model, None, fully),
            "up": _struct(mesh, (width, 4 * width), fully, model),
            "down": _struct(mesh, (4 * width, width), model, fully),
        }
        for _ in range(layers)
    ]
    between = NamedSharding(mesh, P(data, model if by_length else None, None))

    def attention(x: Any, block: Any) -> Any:
        q, k, v = jnp.unstack(jnp.einsum("bld,dthe->tblhe", x, block["in"]))
        scores = jnp.einsum("blhe,bmhe->bhlm", q, k) * (width // heads) ** -0.5
        mixed = jnp.einsum("bhlm,bmhe->blhe", jax.nn.softmax(scores.astype(jnp.float32)).astype(x.dtype), v)
        return jnp.einsum("blhe,hed->bld", mixed, block["out"])

    def forward(params: Any, x: Any) -> Any:
        for block in params:
            x = lax.with_sharding_constraint(x + attention(_normalized(x), block), between)
            x = lax.with_sharding_constraint(x + jax.nn.gelu(_normalized(x) @ block["up"]) @ block["down"], between)
        return x

    x = _struct(mesh, (batch, length, width), data, None, None)
    return _step(forward, params, x) if train else (forward, (params, x))


def decode(mesh: Any, *, model: Any, tiny: bool = False) -> Built:
    """One token for each of a batch, with a cache of keys and values whose heads are divided."""
    batch, length, width, heads, layers = (4, 16, 32, 8, 1) if tiny else (32, 1024, 512, 8, 2)
    size = width // heads
    cache = [_struct(mesh, (2, batch, length, heads, size), None, None, None, model, None) for _ in range(layers)]
    params = [
        {
            "in": _struct(mesh, (width, 3, heads, size), None, None, model, None),
            "out": _struct(mesh, (heads, size, width), model, None, None),
            "up": _struct(mesh, (width, 4 * width), None, model),
            "down": _struct(mesh, (4 * width, width), model, None),
        }
        for _ in range(layers)
    ]

    def forward(params: Any, cache: Any, x: Any, position: Any) -> Any:
        kept = []
        for block, known in zip(params, cache, strict=True):
            q, k, v = jnp.unstack(jnp.einsum("bd,dthe->tbhe", _normalized(x), block["in"]))
            known = lax.dynamic_update_slice_in_dim(known, jnp.stack([k, v])[:, :, None], position, 2)
            kept.append(known)
            scores = jnp.einsum("bhe,blhe->bhl", q, known[0]).astype(jnp.float32) * size**-0.5
            seen = jnp.where(jnp.arange(length) <= position, scores, -1e9)
            mixed = jnp.einsum("bhl,blhe->bhe", jax.nn.softmax(seen).astype(x.dtype), known[1])
            x = x + jnp.einsum("bhe,hed->bd", mixed, block["out"])
            x = x + jax.nn.gelu(_normalized(x) @ block["up"]) @ block["down"]
        return x, kept

    position = _struct(mesh, (), dtype=jnp.int32)
    return forward, (params, cache, _struct(mesh, (batch, width), None, None), position)


def experts(mesh: Any, *, expert: str, data: str | None = None, train: bool = False, tiny: bool = False) -> Built:
    """Layers in which each token goes to one of several MLPs, which devices share out."""
    tokens, width, hidden, count, layers = (64, 16, 32, 8, 1) if tiny else (4096, 512, 1024, 8, 1)
    both = (data, expert) if data else expert
    params = [
        (
            _struct(mesh, (width, count), None, None),
            _struct(mesh, (count, width, hidden), expert, None, None),
            _struct(mesh, (count, hidden, width), expert, None, None),
        )
        for _ in range(layers)
    ]

    def layer(x: Any, gate: Any, up: Any, down: Any) -> Any:
        weights = jax.nn.softmax((x @ gate).astype(jnp.float32))
        room = 2 * x.shape[0] // count
        chosen = jax.nn.one_hot(jnp.argmax(weights, -1), count, dtype=jnp.int32)
        place = jax.nn.one_hot(jnp.cumsum(chosen, 0) * chosen - 1, room)  # [tokens, experts, room]
        sent = jnp.einsum("tec,td->ecd", place.astype(x.dtype), x)
        sent = lax.all_to_all(sent, expert, 0, 1, tiled=True)
        made = jnp.einsum("ecf,efd->ecd", jax.nn.gelu(jnp.einsum("ecd,edf->ecf", sent, up)), down)
        back = lax.all_to_all(made, expert, 1, 0, tiled=True)
        return x + jnp.einsum("tec,te,ecd->td", place, weights, back.astype(jnp.float32)).astype(x.dtype)

    divided = jax.shard_map(
        layer, mesh=mesh, in_specs=(P(both), P(), P(expert), P(expert)), out_specs=P(both), check_vma=False
    )

    def forward(params: Any, x: Any) -> Any:
        for weights in params:
            x = divided(x, *weights)
        return x

    x = _struct(mesh, (tokens, width), both, None)
    return _step(forward, params, x) if train else (forward, (params, x))


def pipeline(mesh: Any, *, stage: str, train: bool = False, tiny: bool = False) -> Built:
    """Stages that pass microbatches on, each an MLP on a device of its own."""
    stages = dict(mesh.shape)[stage]
    batches, size, width, hidden = (2, 8, 16, 32) if tiny else (4, 1024, 512, 2048)
    params = (
        _struct(mesh, (stages, width, hidden), stage, None, None),
        _struct(mesh, (stages, hidden, width), stage, None, None),
    )

    def run(up: Any, down: Any, x: Any) -> Any:
        mine = lax.axis_index(stage)

        def tick(received: Any, t: Any) -> Any:
            first = lax.dynamic_index_in_dim(x, jnp.clip(t, 0, batches - 1), keepdims=False)
            given = jnp.where(mine == 0, first, received)
            made = given + jax.nn.gelu(_normalized(given) @ up[0]) @ down[0]
            passed = lax.ppermute(made, stage, [(i, i + 1) for i in range(stages - 1)])
            return passed, made

        _, made = lax.scan(tick, jnp.zeros(x.shape[1:], x.dtype), jnp.arange(batches + stages - 1))
        return lax.psum(jnp.where(mine == stages - 1, made[stages - 1 :], 0), stage)

    divided = jax.shard_map(run, mesh=mesh, in_specs=(P(stage), P(stage), P()), out_specs=P(), check_vma=False)

    def forward(params: Any, x: Any) -> Any:
        return divided(*params, x)

    x = _struct(mesh, (batches, size, width), None, None, None)
    return _step(forward, params, x) if train else (forward, (params, x))


def attention(mesh: Any, *, sequence: str, ring: bool, train: bool = False, tiny: bool = False) -> Built:
    """Attention over a sequence that is divided by position: keys go round, or heads are swapped for positions."""
    count = dict(mesh.shape)[sequence]
    batch, length, width, heads = (2, 32, 32, 8) if tiny else (1, 4096, 512, 8)
    size = width // heads
    params = (
        _struct(mesh, (width, 3, heads, size), None, None, None, None),
        _struct(mesh, (heads, size, width), None, None, None),
    )

    def by_ring(q: Any, k: Any, v: Any) -> Any:
        total = jnp.zeros((*q.shape[:3], 1), jnp.float32)
        most = jnp.full_like(total, -1e30)
        mixed = jnp.zeros(q.shape, jnp.float32)
        for turn in range(count):
            scores = jnp.einsum("blhe,bmhe->blhm", q, k).astype(jnp.float32) * size**-0.5
            higher = jnp.maximum(most, scores.max(-1, keepdims=True))
            kept, weights = jnp.exp(most - higher), jnp.exp(scores - higher)
            total = total * kept + weights.sum(-1, keepdims=True)
            mixed = mixed * kept + jnp.einsum("blhm,bmhe->blhe", weights.astype(v.dtype), v)
            most = higher
            if turn < count - 1:
                k, v = lax.ppermute((k, v), sequence, [(i, (i + 1) % count) for i in range(count)])
        return (mixed / total).astype(q.dtype)

    def by_heads(q: Any, k: Any, v: Any) -> Any:
        q, k, v = (lax.all_to_all(each, sequence, 2, 1, tiled=True) for each in (q, k, v))
        scores = jnp.einsum("blhe,bmhe->bhlm", q, k).astype(jnp.float32) * size**-0.5
        mixed = jnp.einsum("bhlm,bmhe->blhe", jax.nn.softmax(scores).astype(v.dtype), v)
        return lax.all_to_all(mixed, sequence, 1, 2, tiled=True)

    def layer(into: Any, out: Any, x: Any) -> Any:
        q, k, v = jnp.unstack(jnp.einsum("bld,dthe->tblhe", _normalized(x), into))
        return x + jnp.einsum("blhe,hed->bld", (by_ring if ring else by_heads)(q, k, v), out)

    by_position = P(None, sequence)
    divided = jax.shard_map(layer, mesh=mesh, in_specs=(P(), P(), by_position), out_specs=by_position, check_vma=False)

    def forward(params: Any, x: Any) -> Any:
        return divided(*params, x)

    x = _struct(mesh, (batch, length, width), None, sequence, None)
    return _step(forward, params, x) if train else (forward, (params, x))


def convnet(mesh: Any, *, data: str, train: bool = False, tiny: bool = False) -> Built:
    """Residual convolutions whose statistics are of the whole batch."""
    batch, side, width, layers = (8, 8, 8, 1) if tiny else (128, 28, 128, 2)
    params = [
        tuple(_struct(mesh, (3, 3, width, width), None, None, None, None) for _ in range(2)) for _ in range(layers)
    ]

    def convolved(x: Any, kernel: Any) -> Any:
        x = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        wide = x.astype(jnp.float32)
        mean, variance = wide.mean((0, 1, 2)), wide.var((0, 1, 2))
        return ((wide - mean) * lax.rsqrt(variance + 1e-5)).astype(x.dtype)

    def forward(params: Any, x: Any) -> Any:
        for first, second in params:
            x = jax.nn.relu(x + convolved(jax.nn.relu(convolved(x, first)), second))
        return x

    x = _struct(mesh, (batch, side, side, width), data, None, None, None)
    return _step(forward, params, x) if train else (forward, (params, x))


def _program(
    parallelism: str, axes: dict[str, int], build: Callable[..., Built], *, train: bool = False, **options: Any
) -> ShardedProgram:
    """Returns a program that is named after what builds it, what is divided, and the sizes of the axes."""
    what = f"{build.__name__}_{'_'.join(parallelism.replace(',', '').split())}"
    name = f"{what}_{'x'.join(map(str, axes.values()))}{'_train' if train else ''}"
    if train:
        options["train"] = True
    donated = (0,) if train else (1,) if build is decode else ()
    return ShardedProgram(name, parallelism, tuple(axes.items()), functools.partial(build, **options), donated)


PROGRAMS = (
    _program("data", {"data": 2}, mlp, data="data", train=True),
    _program("tensor", {"model": 2}, transformer, model="model"),
    _program("expert", {"expert": 2}, experts, expert="expert"),
    _program("stage", {"stage": 2}, pipeline, stage="stage", train=True),
    _program("ring", {"sequence": 2}, attention, sequence="sequence", ring=True),
    _program("tensor", {"model": 4}, mlp, model="model", train=True),
    _program("data", {"data": 4}, transformer, data="data", train=True),
    _program("fully sharded", {"data": 4}, transformer, data="data", fully="data", train=True),
    _program("tensor", {"model": 4}, transformer, model="model"),
    _program("data, tensor", {"data": 2, "model": 2}, transformer, data="data", model="model", train=True),
    _program(
        "data, sequence", {"data": 2, "model": 2}, transformer, data="data", model="model", by_length=True, train=True
    ),
    _program("tensor", {"model": 4}, decode, model="model"),
    _program("expert", {"expert": 4}, experts, expert="expert", train=True),
    _program("stage", {"stage": 4}, pipeline, stage="stage"),
    _program("ring", {"sequence": 4}, attention, sequence="sequence", ring=True, train=True),
    _program("heads", {"sequence": 4}, attention, sequence="sequence", ring=False),
    _program("data", {"data": 4}, convnet, data="data", train=True),
    _program("data, tensor", {"data": 2, "model": 4}, transformer, data="data", model="model", train=True),
    _program("fully sharded", {"data": 8}, transformer, data="data", fully="data"),
    _program("data, expert", {"data": 2, "expert": 4}, experts, data="data", expert="expert"),
)


def program(name: str) -> ShardedProgram | None:
    """Returns the program of a name; None if there is none."""
    return next((each for each in PROGRAMS if each.name == name), None)
