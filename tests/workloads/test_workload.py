"""Every workload: it traces at its real size without an array, and what it donates can be reused."""

from collections import Counter

import jax
import pytest

from memplan.compiler.errors import MemplanError
from memplan.workloads import get, names


def test_names() -> None:
    assert len(names()) >= 12
    assert all(name.isidentifier() and name == name.lower() for name in names())


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(MemplanError, match=r"no workload is called 'lstn'.*lstm"):
        get("lstn")


@pytest.mark.parametrize("name", names())
def test_workload(name: str) -> None:
    workload = get(name)
    assert workload.name == name
    assert "\n" not in workload.description
    fun, args = workload.build()
    assert fun.__name__ == name, "the compiled module is named after the function"
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(args))
    results = jax.eval_shape(fun, *args)
    assert jax.tree.leaves(results)
    donated = Counter((leaf.shape, leaf.dtype) for i in workload.donate_argnums for leaf in jax.tree.leaves(args[i]))
    assert donated <= Counter((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(results))
    if name.endswith("_train"):
        assert results[0] == jax.tree.map(lambda x: x, args[0]), "a step returns parameters like those it took"
        assert results[-1].shape == (), "the loss comes last"
