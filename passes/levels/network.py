"""The entry: levels of a real network, the best choice of them, and the program with that choice.

The error of a level is what it does to the results by the second-order model: the weight w becomes w + d. For a program
that returns one number, a loss, it is `|dᵀ H d| ÷ 2` with the Hessian of the loss. For any other, it is the squared
change of the results to first order, `|J d|² ÷ |f|²`, which is the same with the Hessian of that distortion. Both take
one Jacobian- or Hessian-vector product for each level of each weight (Dong et al., "HAWQ-V2", arXiv 1911.03852, whose
sum over layers this is, with the product itself in the place of the trace). Errors of several weights are added; that
is the model. What the program really does is measured by running it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from memplan.compiler.effort import Effort
from memplan.compiler.errors import MemplanError
from memplan.passes.levels.encodings import METHODS
from memplan.passes.levels.program import bytes_of, with_encoded
from memplan.planners.levels.baselines import uniform_choice
from memplan.planners.levels.plan import LevelPlan
from memplan.planners.levels.problem import LayerLevels, Level, LevelProblem
from memplan.planners.levels.solve import solve_levels


@dataclass(frozen=True)
class CompressedProgram:
    """A program with compressed weights.

    Attributes:
      fun: takes `params` and then what the program takes after its parameters.
      params: the tree of parameters, with compressed weights.
      problem: the levels of each parameter; a parameter that the method leaves alone has one.
      plan: the best choice by the model.
      measured: the error of running the program with it, measured as the model's is.
      uniform: the best choice of one level for all weights at the same budget; None if none is within it.
      uniform_measured: its error.
      before: bytes of the parameters as given.
      taken: the choice by which `params` are compressed: `uniform` if that measures less, otherwise `plan`.
    """

    fun: Callable[..., Any]
    params: Any
    problem: LevelProblem
    plan: LevelPlan
    measured: float
    uniform: LevelPlan | None
    uniform_measured: float | None
    before: int
    taken: LevelPlan

    @property
    def is_uniform(self) -> bool:
        """Whether the uniform choice is taken."""
        return self.taken is self.uniform

    @property
    def after(self) -> int:
        """Bytes of the parameters now."""
        return bytes_of(self.params)


def compress(
    fun: Callable[..., Any], *args: Any, method: str, budget: int, effort: Effort = Effort.NORMAL
) -> CompressedProgram:
    """Compresses the first argument of a program to a budget of bytes, each weight to its own level.

    Args:
      fun: a JAX function; it is run.
      args: arrays. The first is a tree of parameters.
      method: `low-rank` or `mixed-precision`.
      budget: bytes of all parameters together.
      effort: of the solver.

    Raises:
      MemplanError: the method is not known, an argument has no values, no weight can be compressed, the results are
        not finite, or no choice is within the budget (the message states the least).
    """
    if method not in METHODS:
        raise MemplanError(f"no method is called {method!r}; known: {', '.join(METHODS)}")
    if not args or not jax.tree.leaves(args[0]):
        raise MemplanError("the program takes no parameters: its first argument must hold them")
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(args)):
        raise MemplanError("the arguments are shapes alone: levels are chosen by the values, so give arrays")
    args = jax.tree.map(jnp.asarray, args)
    params, *inputs = args
    paths, tree = jax.tree_util.tree_flatten_with_path(params)
    names, leaves = [jax.tree_util.keystr(path) for path, _ in paths], [leaf for _, leaf in paths]
    distortion = _Distortion(fun, params, tuple(inputs))
    options = [list(METHODS[method](leaf)) for leaf in leaves]
    if all(len(each) == 1 for each in options):
        raise MemplanError(f"{method} finds no weight to compress among {len(leaves)} parameters")
    layers = []
    for place, (name, each) in enumerate(zip(names, options, strict=True)):
        levels = []
        for number, (level, encoded) in enumerate(each):
            error = 0.0 if number == 0 else distortion.model(place, encoded.dense() - leaves[place])
            levels.append(Level(level, bytes_of(encoded), error))
        layers.append(LayerLevels(name, tuple(levels)))
    problem = LevelProblem(tuple(layers), budget)
    plan = solve_levels(problem, effort)
    uniform = uniform_choice(problem)
    program = with_encoded(fun)

    def chosen(found: LevelPlan) -> Any:
        return tree.unflatten([each[index][1] for each, index in zip(options, found.choice, strict=True)])

    measured, uniform_measured, taken = distortion.measured(program, chosen(plan)), None, plan
    if uniform is not None:
        uniform_measured = distortion.measured(program, chosen(uniform))
        # Where errors are large, the model may be wrong about which is better.
        taken = uniform if uniform_measured < measured else plan
    return CompressedProgram(
        fun=program,
        params=chosen(taken),
        problem=problem,
        plan=plan,
        measured=measured,
        uniform=uniform,
        uniform_measured=uniform_measured,
        before=bytes_of(params),
        taken=taken,
    )


class _Distortion:
    """What a change of the parameters does to the results: by the model, and as measured."""

    def __init__(self, fun: Callable[..., Any], params: Any, inputs: tuple[Any, ...]):
        self.params, self.inputs = params, inputs
        self.before = _flat(fun(params, *inputs))
        if not bool(jnp.isfinite(self.before).all()):
            raise MemplanError("the results of the program are not finite")
        self.is_loss = self.before.size == 1
        self.scale = max(float(jnp.square(self.before).sum()), 1e-30)
        self.leaves, self.tree = jax.tree.flatten(params)

        def results(params: Any) -> jax.Array:
            return _flat(fun(params, *inputs))

        def model(direction: Any) -> jax.Array:
            if self.is_loss:
                gradient = jax.grad(lambda params: results(params)[0], allow_int=True)
                product = jax.jvp(gradient, (params,), (direction,))[1]
                pairs = zip(jax.tree.leaves(direction), jax.tree.leaves(product), strict=True)
                return jnp.abs(sum(jnp.vdot(d, h) for d, h in pairs if d.dtype != jax.dtypes.float0)) / 2.0
            return jnp.square(jax.jvp(results, (params,), (direction,))[1]).sum() / self.scale

        self._model = jax.jit(model)

    def model(self, place: int, change: jax.Array) -> float:
        """Returns the error of changing one parameter by the second-order model."""
        zeros = [jnp.zeros_like(leaf) for leaf in self.leaves]
        zeros[place] = change
        return float(self._model(self.tree.unflatten(zeros)))

    def measured(self, program: Callable[..., Any], params: Any) -> float:
        """Returns the change of the loss, or the squared change of the results as a share of them."""
        change = _flat(jax.jit(program)(params, *self.inputs)) - self.before
        return float(jnp.abs(change[0])) if self.is_loss else float(jnp.square(change).sum()) / self.scale


def _flat(results: Any) -> jax.Array:
    """Returns all floating-point results as one vector of float32."""
    leaves = [leaf for leaf in map(jnp.asarray, jax.tree.leaves(results)) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    if not leaves:
        raise MemplanError("the program returns no floating-point numbers: there is no error to measure")
    return jnp.concatenate([leaf.astype(jnp.float32).ravel() for leaf in leaves])
