import pytest

from memplan.compiler.frontends.hlo_attributes import called_computations, in_one_spelling, parse_aliases
from memplan.compiler.frontends.hlo_lexical import MalformedText
from memplan.compiler.ir import Alias


@pytest.mark.parametrize(
    ("attributes", "called"),
    [
        ([("kind", "kLoop"), ("calls", "%f.1")], ("f.1",)),
        ([("condition", "c"), ("body", "b")], ("c", "b")),
        ([("branch_computations", "{%a, b,%a}")], ("a", "b", "a")),
        ([("false_computation", "%f"), ("true_computation", "%t")], ("t", "f")),
        ([("select", "%s"), ("scatter", "%t")], ("s", "t")),
        ([("called_computations", "{}")], ()),
        ([("new_kind_of_body", "%x"), ("more", "{%y, %z}")], ("x", "y", "z")),  # of a newer XLA
        ([("direction", "LT"), ("metadata", '{op_name="%f"}')], ()),
    ],
)
def test_called_computations(attributes: list[tuple[str, str]], called: tuple[str, ...]) -> None:
    assert called_computations(attributes) == called


@pytest.mark.parametrize(
    ("key", "value", "common"),
    [
        ("sharding", "{{single_device[device_id=3]}, {replicated}}", "{{maximal_mesh[device_id=3]}, {replicated}}"),
        ("sharding", '{replicated, metadata={{op_name="{single_device[0]"}}}', None),
        ("sharding", "{maximal_mesh[device_id=3]}", None),
        ("sparsity_config", "{rhs={sparsity=1x4 stride=1 idx=0}}", "{rhs={sparsity=1x4 stride=1}}"),
        ("sparsity_config", "{rhs={sparsity=1x4 stride=1 idx=01}}", None),
        ("sparsity_config", "{rhs={sparsity=1x4 stride=1 idx=2}}", None),
        ("backend_config", "{single_device[0]}", None),
    ],
)
def test_versions_of_xla_spell_alike(key: str, value: str, common: str | None) -> None:
    assert in_one_spelling(key, value) == (value if common is None else common)


@pytest.mark.parametrize(
    ("value", "aliases"),
    [
        ("{}", ()),
        ("{ {0}: (1, {}, must-alias) }", (Alias((0,), 1, (), True),)),
        ("{ {}: (0, {2, 1}, may-alias), {1,0}:(3,{}) }", (Alias((), 0, (2, 1), False), Alias((1, 0), 3, (), False))),
    ],
)
def test_aliases(value: str, aliases: tuple[Alias, ...]) -> None:
    assert parse_aliases(value, 0) == aliases


@pytest.mark.parametrize(
    "value", ["{ {0}: 1 }", "{ {0}: (1, {}) {1}: (2, {}) }", "{ {x}: (1, {}) }", "{ {1 2}: (1, {}) }"]
)
def test_malformed_aliases(value: str) -> None:
    with pytest.raises(MalformedText, match="expected an alias such as") as caught:
        parse_aliases(value, 100)
    assert 100 < caught.value.offset < 100 + len(value)
