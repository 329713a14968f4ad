"""Inference by numpyro (Phan et al., arXiv 1912.11554): Hamiltonian Monte Carlo and variational inference."""

from __future__ import annotations

from typing import Any

import jax

from memplan.workloads._weights import floats, ints
from memplan.workloads._zoo import KEY
from memplan.workloads.registry import Built, workload

SOURCE = "numpyro, arXiv 1912.11554"
NEEDS = ("numpyro", "optax")


def _regression(x: jax.Array, y: jax.Array) -> None:
    """Logistic regression with a scale of its weights that is learned."""
    import numpyro
    import numpyro.distributions as dist

    scale = numpyro.sample("scale", dist.HalfCauchy(1.0))
    weights = numpyro.sample("weights", dist.Normal(0.0, scale).expand([x.shape[-1]]).to_event(1))
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("y", dist.Bernoulli(logits=x @ weights), obs=y)


def _data(tiny: bool) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    rows, columns = (12, 3) if tiny else (65536, 256)
    return floats(rows, columns), ints(rows)


@workload(
    "numpyro.infer.HMC of a hierarchical logistic regression, one sample of 15 leapfrog steps, 65,536 rows, float32",
    family="sampling",
    source=SOURCE,
    needs=NEEDS,
)
def numpyro_hmc(tiny: bool = False) -> Built:
    from numpyro.infer import HMC

    return _sampler(HMC(_regression, step_size=0.01, num_steps=15, adapt_step_size=False), tiny)


@workload(
    "numpyro.infer.NUTS of a hierarchical logistic regression, one sample, 65,536 rows, float32",
    family="sampling",
    source=f"{SOURCE}; arXiv 1111.4246",
    needs=NEEDS,
)
def numpyro_nuts(tiny: bool = False) -> Built:
    from numpyro.infer import NUTS

    return _sampler(NUTS(_regression, step_size=0.01, max_tree_depth=6, adapt_step_size=False), tiny)


def _sampler(kernel: Any, tiny: bool) -> Built:
    x, y = _data(tiny)

    def begin(key: jax.Array, x: jax.Array, y: jax.Array) -> Any:
        return kernel.init(key, 0, None, (x, y), {})

    def fun(state: Any, x: jax.Array, y: jax.Array) -> Any:
        return kernel.sample(state, (x, y), {})

    return fun, (jax.eval_shape(begin, KEY, x, y), x, y)


@workload(
    "numpyro.infer.SVI with AutoMultivariateNormal of a logistic regression, one step of optax.adam, float32",
    family="sampling",
    source=f"{SOURCE}, and optax",
    kind="training",
    donate_argnums=(0,),
    needs=NEEDS,
)
def numpyro_svi(tiny: bool = False) -> Built:
    import optax
    from numpyro.infer import SVI, Trace_ELBO
    from numpyro.infer.autoguide import AutoMultivariateNormal

    svi = SVI(_regression, AutoMultivariateNormal(_regression), optax.adam(1e-3), Trace_ELBO())
    x, y = _data(tiny)
    return lambda state, x, y: svi.update(state, x, y), (jax.eval_shape(svi.init, KEY, x, y), x, y)
