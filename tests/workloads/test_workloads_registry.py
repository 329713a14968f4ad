"""Every workload: it is built at its tiny size; at its real size it traces without an array, and reuses what it may."""

import inspect
from collections import Counter

import jax
import jax.numpy as jnp
import pytest

from memplan.cli.programs import find_program_of_batches
from memplan.compiler.errors import MemplanError
from memplan.workloads import dumped_names, get, names, workload
from memplan.workloads.registry import HELD_OUT, Built, num_parameters


def test_names() -> None:
    assert len(names()) >= 23
    assert all(name.isidentifier() and name == name.lower() for name in names())


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(MemplanError, match=r"no workload is called 'lstn'.*lstm"):
        get("lstn")


def test_no_family_with_a_shipped_dump_is_held_out() -> None:
    assert not {get(name).family for name in dumped_names()} & HELD_OUT
    assert {get(name).split for name in names() if get(name).family in HELD_OUT} == {"held-out"}


def test_a_decorated_function_is_registered_under_its_name(registries: None) -> None:
    @workload("a product", family="graph", source="a test")
    def product(tiny: bool = False, batch: int = 4) -> Built:
        params, x = jax.ShapeDtypeStruct((8, 2), jnp.float32), jax.ShapeDtypeStruct((batch, 8), jnp.float32)
        return lambda params, x: x @ params, (params, x)

    assert get("product") is product
    assert product.build()[0].__name__ == "product"
    assert num_parameters(product.build()) == 16
    build, _ = find_program_of_batches("product")
    assert build(batch=7)[1][1].shape == (7, 8)


BATCH = 17  # no other dimension at the tiny sizes


@pytest.mark.parametrize("name", [name for name in names() if not get(name).needs])
def test_workload(name: str) -> None:
    check_workload(name)


def check_workload(name: str) -> None:
    program = get(name)
    assert program.name == name
    assert "\n" not in program.description
    assert program.source
    assert program.family != "other"
    takes_batch = "batch" in inspect.signature(program.build).parameters
    fun, args = program.build(tiny=True, **({"batch": BATCH} if takes_batch else {}))
    assert fun.__name__ == name, "the compiled module is named after the function"
    if takes_batch:
        assert any(BATCH in leaf.shape for leaf in jax.tree.leaves(args)), "a batch that is asked for is made"


def check_traced(name: str) -> None:
    program = get(name)
    fun, args = program.build()
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(args))
    assert 20 * _elements(program.build(tiny=True)[1]) < _elements(args), "tiny is much smaller"
    results = jax.eval_shape(fun, *args)
    assert jax.tree.leaves(results)
    donated = Counter((leaf.shape, leaf.dtype) for i in program.donate_argnums for leaf in jax.tree.leaves(args[i]))
    assert donated <= Counter((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(results))
    if program.kind == "training":
        assert results[0] == jax.tree.map(lambda x: x, args[0]), "a step returns parameters like those it took"
        assert results[-1].shape == (), "the loss comes last"
        assert 0 in program.donate_argnums


def _elements(args: object) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(args))


@pytest.mark.parametrize("name", ["dlrm_train", "gcn_train", "lstm_train", "nerf_train", "scattering"])
def test_the_real_size_is_traced(name: str) -> None:
    check_traced(name)


@pytest.mark.slow  # a hundred networks
@pytest.mark.parametrize("name", names())
def test_the_real_size_of_all_is_traced(name: str) -> None:
    check_traced(name)
