"""A rank for the keys and one for the values of each head of each attention: the levels of `matryoshka-kv`.

    scores   q kᵀ  →  (q U)(k U)ᵀ             U [D, rank]: orthonormal columns
    results  p v   →  (p (v U)) Uᵀ

The attentions are found in the program, and calls and loops around them are dissolved. U holds the first principal
components of what the keys (or values) of the head are on the given inputs, so that any first columns of it are a level
(Lin et al., "MatryoshkaKV", arXiv 2410.14731, who train U from there).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr

from memplan.compiler.errors import MemplanError
from memplan.passes import shape_cleanup
from memplan.passes.attention import attentions
from memplan.passes.base import Context
from memplan.passes.fit.inline_calls import in_one_piece
from memplan.passes.levels.distortion import Distortion
from memplan.passes.levels.encodings import AS_GIVEN
from memplan.passes.levels.network_levels import NetworkLevels
from memplan.passes.levels.program import evaluate
from memplan.planners.levels.problem import LayerLevels, Level

METHOD = "matryoshka-kv"

# Ranks are these shares of the size of a head; sixteenths.
_SHARES = 16


@dataclass(frozen=True)
class _Kept:
    """Keys or values of one attention.

    Attributes:
      name: such as "attention 0 keys".
      equation: the product with the queries, or with the probabilities.
      side: which operand they are.
      are_keys: whether they are keys.
      heads: which of the product's batch axes the heads are; None if there is one head.
    """

    name: str
    equation: Any
    side: int
    are_keys: bool
    heads: int | None

    @property
    def aval(self) -> Any:
        """Shape and dtype as the product reads them."""
        return self.equation.invars[self.side].aval

    def axes(self, side: int) -> tuple[list[int], list[int], list[int]]:
        """Returns an operand's batch axes, those of the heads first, its free axes and those that are summed over."""
        contracted, batched = self.equation.params["dimension_numbers"]
        batch = list(batched[side])
        free = [i for i in range(self.equation.invars[side].aval.ndim) if i not in (*batch, *contracted[side])]
        if self.heads is not None:
            batch.insert(0, batch.pop(self.heads))
        return batch, free, list(contracted[side])

    def in_order(self, x: Any, side: int) -> Any:
        """Returns an operand as `[heads, batch, free, summed over]`."""
        batch, free, summed = self.axes(side)
        heads = [] if self.heads is None else batch[:1]
        rest = batch[len(heads) :]
        shape = [math.prod(x.shape[i] for i in part) for part in (heads, rest, free, summed)]
        return x.transpose(*batch, *free, *summed).reshape(shape)

    def rows(self, x: Any) -> Any:
        """Returns the keys or values as `[heads, tokens of all examples, size of a head]`."""
        ordered = self.in_order(x, self.side)
        ordered = ordered if self.are_keys else jnp.swapaxes(ordered, 2, 3)
        return ordered.reshape(ordered.shape[0], -1, ordered.shape[-1])

    def product(self, operands: list[Any], bases: list[Any]) -> jax.Array:
        """Returns the product with each head's keys or values in its basis `[D, rank]`; None for a head as given."""
        precision = self.equation.params["precision"]
        kept, other = (
            self.in_order(operands[self.side], self.side),
            self.in_order(operands[1 - self.side], 1 - self.side),
        )
        found = []
        for head, basis in enumerate(bases):
            x, y = other[head], kept[head]  # [batch, T, K], [batch, free, K]
            if basis is not None and self.are_keys:
                x, y = (jnp.matmul(each, basis, precision=precision) for each in (x, y))
            elif basis is not None:
                y = jnp.einsum("bds,dr->brs", y, basis, precision=precision)
            z = jnp.einsum("btk,bsk->bts", x, y, precision=precision)
            found.append(z if basis is None or self.are_keys else jnp.matmul(z, basis.T, precision=precision))
        return self._back(jnp.stack(found), operands)

    def _back(self, found: jax.Array, operands: list[Any]) -> jax.Array:
        """Returns `[heads, batch, free of the other, free]` with the axes that the product returns."""
        batch, free, _ = self.axes(self.side)
        other_free = self.axes(1 - self.side)[1]
        kept, other = operands[self.side], operands[1 - self.side]
        shape = [*(kept.shape[i] for i in batch), *(other.shape[i] for i in other_free), *(kept.shape[i] for i in free)]
        found = found.reshape(shape)
        if self.heads is not None:
            found = jnp.moveaxis(found, 0, self.heads)
        if self.side == 0:
            places = np.arange(found.ndim)
            ends = np.cumsum([len(batch), len(other_free)])
            found = found.transpose([*places[: ends[0]], *places[ends[1] :], *places[ends[0] : ends[1]]])
        return found.astype(self.equation.outvars[0].aval.dtype)


def attention_levels(fun: Callable[..., Any], args: tuple[Any, ...]) -> NetworkLevels:
    """Returns the levels of keys and of values of each head of each attention of a program.

    Of the axes that queries, keys and values share, the last one of the keys is that of the heads. If there is one only
    and the inputs begin with an axis as long, it is that of the examples, and the attention has one head.

    Bytes are those of the keys and values that the attentions read, and of the bases.

    Args:
      fun: the program.
      args: arrays; the first holds the parameters.

    Raises:
      MemplanError: the program has no attention, or the results have no error to measure.
    """
    params, *inputs = args
    closed, kept = _found(fun, args)
    arguments = jax.tree.leaves(args)
    before = [jnp.zeros(each.aval.shape, each.aval.dtype) for each in kept]
    distortion = Distortion(partial(_changed, closed, kept, arguments), before)
    rows = jax.jit(partial(_rows, closed, kept))(arguments)
    layers, bases = [], []
    for place, each in enumerate(kept):
        spectra = [np.linalg.eigh(x.T @ x)[1][:, ::-1] for x in np.asarray(rows[place], np.float64)]
        for head, vectors in enumerate(spectra):
            basis = np.asarray(vectors, each.aval.dtype)
            x = np.asarray(rows[place][head])
            levels, ranks = [Level(AS_GIVEN, x.nbytes, 0.0)], [len(vectors)]
            for share, rank in _ranks(len(vectors)):
                cost = rank * (x.shape[0] + x.shape[1]) * x.dtype.itemsize
                if cost < x.nbytes:
                    change = (x.astype(np.float64) @ vectors[:, :rank]) @ vectors[:, :rank].T - x.astype(np.float64)
                    error = distortion.model(place, _placed(each, head, change))
                    levels.append(Level(f"rank {share}/{_SHARES}", cost, error))
                    ranks.append(rank)
            layers.append(LayerLevels(f"{each.name}, head {head}", tuple(levels)))
            bases.append([None] + [jnp.asarray(basis[:, :rank]) for rank in ranks[1:]])
    if all(len(layer.levels) == 1 for layer in layers):
        raise MemplanError(f"{METHOD} finds no keys or values to compress: heads have a single number")
    counts = [len(x) for x in rows]

    def rewrite(choice: tuple[int, ...]) -> tuple[Callable[..., Any], Any]:
        chosen = iter([each[index] for each, index in zip(bases, choice, strict=True)])
        return partial(_compressed, fun), (params, [[next(chosen) for _ in range(count)] for count in counts])

    whole = sum(x.nbytes for x in rows)
    return NetworkLevels(tuple(layers), "keys and values", whole, tuple(inputs), rewrite, distortion)


def _ranks(width: int) -> list[tuple[int, int]]:
    """Returns shares in sixteenths and the ranks of them, the largest first, each rank once."""
    shares = {-(-share * width // _SHARES): share for share in range(1, _SHARES)}
    return [(share, rank) for rank, share in reversed(shares.items()) if rank < width]


def _found(fun: Callable[..., Any], args: Any) -> tuple[ClosedJaxpr, list[_Kept]]:
    """Returns the program without calls, its loops around attention unrolled, and its keys and values in order."""
    closed = _in_one_piece(jax.make_jaxpr(fun)(*args))
    if any(_has_attention(body) for body in _scanned(closed)):
        unrolled = jax.make_jaxpr(lambda *leaves: evaluate(closed.jaxpr, closed.consts, list(leaves), _unrolled))
        closed = _in_one_piece(unrolled(*jax.tree.leaves(args)))
    examples = {leaf.shape[0] for leaf in jax.tree.leaves(args[1:]) if leaf.ndim}
    kept = []
    for number, found in enumerate(attentions(closed)):
        for name, equation, side in (
            ("keys", found.dot, found.key_side),
            ("values", found.product, 1 - found.side),
        ):
            batch = equation.params["dimension_numbers"][1][side]
            heads = int(np.argmax(batch)) if batch else None
            if len(batch) == 1 and equation.invars[side].aval.shape[batch[0]] in examples:
                heads = None
            kept.append(_Kept(f"attention {number} {name}", equation, side, name == "keys", heads))
    if not kept:
        raise MemplanError(f"{METHOD} finds no attention in the program: a product, softmax, and another product")
    return closed, kept


def _in_one_piece(closed: ClosedJaxpr) -> Any:
    return shape_cleanup.rewrite(in_one_piece(closed), Context()).jaxpr


def _scanned(closed: Any) -> list[Any]:
    return [equation.params["jaxpr"] for equation in closed.jaxpr.eqns if equation.primitive.name == "scan"]


def _has_attention(closed: Any) -> bool:
    return bool(attentions(closed)) or any(_has_attention(body) for body in _scanned(closed))


def _unrolled(equation: Any, operands: list[Any]) -> Any:
    """Returns the results of a loop around attention, step by step; None for any other equation."""
    if equation.primitive.name != "scan" or not _has_attention(equation.params["jaxpr"]):
        return None
    body, params = equation.params["jaxpr"], equation.params
    consts, state = operands[: params["num_consts"]], operands[params["num_consts"] :]
    state, sliced = state[: params["num_carry"]], state[params["num_carry"] :]
    steps = range(params["length"])
    made: list[list[Any]] = []
    for step in reversed(steps) if params["reverse"] else steps:
        arguments = [*consts, *state, *(x[step] for x in sliced)]
        results = evaluate(body.jaxpr, body.consts, arguments, _unrolled)
        state = results[: params["num_carry"]]
        made.append(results[params["num_carry"] :])
    if params["reverse"]:
        made.reverse()
    return [*state, *(jnp.stack(each) for each in zip(*made, strict=True))]


def _rule(kept: list[_Kept], act: Callable[[int, list[Any]], Any]) -> Callable[[Any, list[Any]], Any]:
    """Returns a rule for `evaluate` that leaves all to `act` at the products that read keys or values, by number."""
    places = {id(each.equation): number for number, each in enumerate(kept)}

    def rule(equation: Any, operands: list[Any]) -> Any:
        number = places.get(id(equation))
        return None if number is None else act(number, operands)

    return rule


def _changed(closed: ClosedJaxpr, kept: list[_Kept], arguments: list[Any], changes: list[Any]) -> list[Any]:
    """Returns the results of the program with something added to its keys and values."""

    def change(number: int, operands: list[Any]) -> None:
        operands[kept[number].side] = operands[kept[number].side] + changes[number]

    return evaluate(closed.jaxpr, closed.consts, arguments, _rule(kept, change))


def _rows(closed: ClosedJaxpr, kept: list[_Kept], arguments: list[Any]) -> list[Any]:
    """Returns what the keys and values are on the arguments, in rows."""
    found = {}

    def note(number: int, operands: list[Any]) -> None:
        found[number] = kept[number].rows(operands[kept[number].side])

    evaluate(closed.jaxpr, closed.consts, arguments, _rule(kept, note))
    return [found[number] for number in range(len(kept))]


def _placed(kept: _Kept, head: int, change: Any) -> jax.Array:
    """Returns the change of one head's rows as a change of all keys or values."""
    whole = np.zeros(jax.eval_shape(kept.rows, kept.aval).shape, kept.aval.dtype)
    whole[head] = change
    # The transpose of a permutation of entries takes them back.
    (back,) = jax.linear_transpose(kept.rows, kept.aval)(jnp.asarray(whole))
    return jnp.asarray(back)


def _compressed(fun: Callable[..., Any], compressed: Any, *inputs: Any) -> Any:
    """Is the program with the keys and values of each head in its basis.

    Args:
      fun: the program as given.
      compressed: its parameters, and for all keys and values in order the bases of all heads.
      inputs: what it takes after the parameters.
    """
    params, bases = compressed
    closed, kept = _found(fun, (params, *inputs))

    def product(number: int, operands: list[Any]) -> Any:
        if all(basis is None for basis in bases[number]):
            return None
        return kept[number].product(operands, bases[number])

    results = evaluate(closed.jaxpr, closed.consts, jax.tree.leaves((params, *inputs)), _rule(kept, product))
    tree = jax.tree.structure(jax.eval_shape(fun, params, *inputs))
    return jax.tree.unflatten(tree, results)
