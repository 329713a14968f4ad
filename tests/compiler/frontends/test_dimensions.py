"""Sizes that the user states for dimensions that a program leaves open."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import export
from jaxlib import _hlo

import memplan
from memplan.compiler.errors import GraphError, MemplanError, ParseError
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.frontends.dimensions_worker import OpenDimension, SizesRefusal, bound_sizes, specifications
from memplan.compiler.frontends.reader import parse_bytes
from memplan.compiler.ir.printer import print_graph
from memplan.compiler.ir.sizes import check_sizes, open_dimensions

UNBOUNDED = """module @m {
  func.func public @main(%a: tensor<?x4096xf32>, %b: tensor<?x4096xf32>) -> tensor<?x4096xf32> {
    %0 = stablehlo.add %a, %b : tensor<?x4096xf32>
    return %0 : tensor<?x4096xf32>
  }
}
"""
BOUNDED = UNBOUNDED.replace("tensor<?x4096xf32>", "tensor<?x4096xf32, #stablehlo.bounds<16, ?>>")
HLO = """HloModule m
ENTRY e { a = f64[?,8] parameter(0) b = f64[?,8] parameter(1) ROOT c = f64[?,8] add(a, b) }"""


@pytest.fixture(scope="module")
def exported() -> bytes:
    """A function of `x: f32[b,2*n]` and `w: f32[2*n,8]`, as jax.export states it."""
    b, n = export.symbolic_shape("b, n")
    function = jax.jit(lambda x, w: jnp.tanh(x @ w).reshape(-1))
    arguments = jax.ShapeDtypeStruct((b, 2 * n), "float32"), jax.ShapeDtypeStruct((2 * n, 8), "float32")
    return bytes(export.export(function)(*arguments).mlir_module_serialized)


def written(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "program"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def shapes_of(graph: memplan.Graph) -> list[str]:
    entry = graph.entry_computation
    return [str(entry.instructions[i].shape) for i in (*entry.parameters, entry.root)]


@pytest.mark.slow
def test_stablehlo(tmp_path: Path) -> None:
    path = written(tmp_path, UNBOUNDED)
    with pytest.raises(ParseError) as caught:
        memplan.read(path)
    assert str(caught.value) == (
        f"{path}: dimension 0 of argument 0, tensor<?x4096xf32>, has an unknown size: state it by --dim arg0.0=N --dim arg1.0=N, "
        "or in Python by dims={'arg0.0': N, 'arg1.0': N}"
    )
    graph = memplan.read(path, dims={"arg0.0": 32, "arg1.0": 32})
    assert shapes_of(graph) == ["f32[32,4096]{1,0}"] * 3
    with pytest.raises(ParseError, match="dimension 0 of argument 1"):
        memplan.read(path, dims={"arg0.0": 32})
    with pytest.raises(ParseError, match=r"do not follow from these sizes: .*same shape for all operands"):
        memplan.read(path, dims={"arg0.0": 32, "arg1.0": 33})
    with pytest.raises(ParseError, match=r"no dimension of unknown size is called b: there are arg0.0, arg1.0"):
        memplan.read(path, dims={"arg0.0": 32, "arg1.0": 32, "b": 1})


@pytest.mark.slow
def test_dimension_variables_of_jax_export(exported: bytes, tmp_path: Path) -> None:
    path = written(tmp_path, exported)
    with pytest.raises(ParseError, match=r"dimension 0 \(b\) of argument 0, .* state it by --dim b=N --dim n=N"):
        memplan.read(path)
    graph = memplan.read(path, dims={"b": 32, "n": 8})
    assert shapes_of(graph) == ["f32[32,16]{1,0}", "f32[16,8]{1,0}", "f32[256]{0}"]
    by_argument = memplan.read(path, dims={"b": 32, "arg0.1": 16, "arg1.0": 16})
    assert shapes_of(by_argument) == shapes_of(graph)
    with pytest.raises(ParseError, match=r"dimension 1 \(2\*n\) of argument 0"):
        memplan.read(path, dims={"b": 32})
    with pytest.raises(ParseError, match="Division had remainder 1 when computing the value of 'n'"):
        memplan.read(path, dims={"b": 32, "arg0.1": 15, "arg1.0": 15})


@pytest.mark.parametrize("is_proto", [False, True])
def test_hlo(is_proto: bool, tmp_path: Path) -> None:
    proto = _hlo.hlo_module_from_text(HLO).as_serialized_hlo_module_proto()
    path = written(tmp_path, proto if is_proto else HLO)
    with pytest.raises(
        GraphError, match=r"e/a is f64\[\?,8\].* dimension of unknown size: state it by --dim arg0.0=N --dim arg1.0=N"
    ):
        memplan.read(path)
    graph = memplan.read(path, dims={"arg0.0": 64, "arg1.0": 64})
    assert shapes_of(graph) == ["f64[64,8]{1,0}"] * 3


@pytest.mark.slow
def test_sizes_that_follow_from_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, 'HloModule m ENTRY e { ROOT a = f32[?] custom-call(), custom_call_target="f" }')
    with pytest.raises(GraphError, match=r"e/a is f32\[\?\].*: state it by a bound in the program, such as"):
        memplan.read(path)
    with pytest.raises(MemplanError):
        memplan.read(path, dims={"arg0.0": 3})


@pytest.mark.slow
def test_programs_without_open_dimensions(tmp_path: Path) -> None:
    path = written(tmp_path, UNBOUNDED.replace("?", "8"))
    with pytest.raises(ParseError, match="no dimension of unknown size is called b: there are none"):
        memplan.read(path, dims={"b": 3})


@pytest.mark.parametrize(
    "content",
    [
        BOUNDED,
        "HloModule m ENTRY e { a = f32[<=16,4096] parameter(0) b = f32[<=16,4096] parameter(1) ROOT c = f32[<=16,4096] add(a, b) }",
    ],
)
def test_bounded_dimensions_take_their_bound(content: str, tmp_path: Path) -> None:
    graph = memplan.read(written(tmp_path, content))
    problem = memplan.problem(graph, "generic")
    assert [buffer.size for buffer in problem.buffers] == [16 * 4096 * 4] * 3
    proto = _hlo.hlo_module_from_text(print_graph(graph)).as_serialized_hlo_module_proto()
    assert memplan.problem(parse_bytes(proto), "generic").buffers == problem.buffers


def test_no_problem_counts_an_unknown_size_as_nothing() -> None:
    graph = parse_hlo(HLO)
    assert open_dimensions(graph) == ["arg0.0", "arg1.0"]
    with pytest.raises(GraphError, match="dimension of unknown size"):
        memplan.problem(graph, "generic")
    in_tuple = parse_hlo(
        "ENTRY e { a = (f32[4], (f32[?])) parameter(0) ROOT b = f32[4] get-tuple-element(a), index=0 }"
    )
    with pytest.raises(GraphError, match="e/a is "):
        check_sizes(in_tuple)


def dimensions(*expressions: str) -> list[OpenDimension]:
    return [OpenDimension(i, 0, "tensor<?xf32>", expression) for i, expression in enumerate(expressions)]


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_sizes_are_computed_as_jax_computes_them(b: int, n: int) -> None:
    expressions = {
        "b": b, "2*n": 2 * n, "b + n": b + n, "-1*b + 2000": 2000 - b, "floordiv(b, 3)": b // 3, "mod(b, 3)": b % 3,
        "max(b, n)": max(b, n), "min(b, 5)": min(b, 5), "b^2": b * b, "b*n + 1": b * n + 1, "3*b^2*n": 3 * b * b * n,
    }  # fmt: skip
    found = bound_sizes(dimensions(*expressions), {"b": b, "n": n})
    assert list(found.values()) == list(expressions.values())


@pytest.mark.parametrize("expression", ["b^b^b^b", "b.c", "b(1)", "floordiv(b, 0)", "b < b", "b +", "[b]", "b^100000"])
def test_expressions_that_are_no_sizes(expression: str) -> None:
    with pytest.raises(SizesRefusal, match="cannot be computed"):
        bound_sizes(dimensions(expression), {"b": 9, "c": 1} if "c" in expression else {"b": 9})


def test_sizes_have_a_range() -> None:
    for expression, size in (("b", -1), ("b - 5", 3), ("b", 2**63)):
        with pytest.raises(SizesRefusal, match="must be between 0 and 2\\^62"):
            bound_sizes(dimensions(expression), {"b": size})


def test_specifications() -> None:
    text = "polymorphic shapes specifications: args[0]['x'].shape = (b,),kwargs['w'].shape = (floordiv(b, 2), 8). Obtained dimension variables"
    assert specifications(text) == [["b"], ["floordiv(b, 2)", "8"]]
    assert specifications("nothing of that kind") == []
