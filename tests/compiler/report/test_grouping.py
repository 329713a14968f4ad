"""Names as groups."""

import pytest

from memplan.compiler.report.grouping import argument_of, fold, holder_of, scope_of


def test_numbers_that_differ_alone_are_one_row() -> None:
    names = [f"params['blocks'][{i}]['mlp']['up']['w']" for i in range(3)]
    assert set(fold(names)) == {"params['blocks'][*]['mlp']['up']['w']"}
    assert set(fold(["Model/layer_0/up/dot", "Model/layer_11/up/dot"])) == {"Model/layer_*/up/dot"}
    assert set(fold(["block1/up", "block2/up"])) == {"block*/up"}


def test_numbers_that_are_part_of_a_name_stay() -> None:
    names = ["layer_0/norm1", "layer_0/norm2", "w1", "w3", "conv2d", "f32"]
    assert fold(names) == names


def test_a_number_in_which_no_name_differs_stays() -> None:
    assert fold(["opt[0].mu['l_1']", "opt[0].mu['l_2']"]) == ["opt[0].mu['l_*']"] * 2
    assert fold(["opt[0].mu['l_1']", "opt[1].count"]) == ["opt[0].mu['l_1']", "opt[1].count"]


@pytest.mark.parametrize(
    ("op_name", "scope"),
    [
        ("jit(step)/jvp(MLP)/Dense_0/dot_general", "MLP/Dense_0"),
        ("jit(step)/transpose(jvp(MLP))/Dense_0/dot_general", "MLP/Dense_0"),
        ("jit(step)/jvp(layer_0/attention)/while/body/closed_call/mul", "layer_0/attention"),
        ("jit(step)/vmap(jvp())/checkpoint/rematted_computation/h.3/tanh", "h.3"),
        ("jit(step)/jvp(jit(_where))/select_n", ""),
        ("reduce_sum", ""),
        ("", ""),
        ("((((/", ""),
    ],
)
def test_scopes_are_without_transformations(op_name: str, scope: str) -> None:
    assert scope_of(op_name) == scope


def test_what_holds_an_array() -> None:
    assert holder_of("state[0].mu['w']") == "state[0].mu"
    assert holder_of("x") == "x"
    assert argument_of("state[0].mu['w']") == "state"
    assert argument_of("[") == "["
