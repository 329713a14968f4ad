"""From arithmetic to seconds on machines with round numbers."""

from dataclasses import replace

import pytest

from memplan.compiler.frontends import parse_hlo
from memplan.compiler.hardware.compute import Compute
from memplan.compiler.hardware.cost_model import compute_seconds, matrix_seconds, work
from memplan.compiler.hardware.matrix_work import MatrixWork
from memplan.compiler.hardware.target import KINDS, Target, load_target
from memplan.compiler.hardware.work import Work


@pytest.fixture
def machine() -> Target:
    compute = Compute(
        matrix_flops={"bf16": 100.0, "f32": 100.0, "s8": 200.0},
        matrix_efficiency=0.5,
        matrix_unit=(8, 4),
        vector_flops=10.0,
        transcendental_rate=2.0,
        f32_passes={"high": 3, "highest": 6},
        launch_seconds=0.0,
        exposed=dict.fromkeys(KINDS, 1.0),
    )
    return replace(load_target("generic"), compute=compute)


def product(dtype: str, contracted: int, rows: int, columns: int, precision: str = "default") -> MatrixWork:
    return MatrixWork(dtype, precision, 2.0 * contracted * rows * columns, contracted, rows, columns)


def test_whole_units(machine: Target) -> None:
    assert matrix_seconds(product("bf16", 8, 4, 4), machine) == 256 / 50
    assert matrix_seconds(product("s8", 16, 4, 4), machine) == 512 / 100


def test_sums_and_columns_are_padded(machine: Target) -> None:
    """A sum over 3 takes a unit of depth 8; of 5 rows and 6 columns, the 6 fill 8 and the 5 would: 8 / 6 is less."""
    work = product("bf16", 3, 5, 6)
    assert matrix_seconds(work, machine) == pytest.approx(work.flops * (8 / 3) * (8 / 6) / 50)


def test_passes(machine: Target) -> None:
    once = matrix_seconds(product("f32", 8, 4, 4), machine)
    assert matrix_seconds(product("f32", 8, 4, 4, "high"), machine) == 3 * once
    assert matrix_seconds(product("f32", 8, 4, 4, "highest"), machine) == 6 * once
    assert matrix_seconds(product("bf16", 8, 4, 4, "highest"), machine) == once


def test_units_work_side_by_side(machine: Target) -> None:
    assert compute_seconds(Work(flops=30.0, transcendentals=4.0), machine) == 3.0
    assert compute_seconds(Work(flops=10.0, transcendentals=4.0), machine) == 2.0
    two = Work(flops=1.0, matrix=(product("bf16", 8, 4, 4), product("bf16", 8, 4, 4)))
    assert compute_seconds(two, machine) == 2 * 256 / 50
    assert compute_seconds(Work(), machine) == 0.0


@pytest.mark.parametrize(
    ("name", "cycles_of_the_compiler"),
    [("tpu-v4", 9337232), ("tpu-v5e", 9557312), ("tpu-v5p", 4652072), ("tpu-v6e", 2977840), ("tpu-7x", 2604600)],
)
def test_a_large_product_takes_what_the_compiler_estimates(name: str, cycles_of_the_compiler: int) -> None:
    """bf16, 8192 to the third, all in HBM: what libtpu 0.0.52 writes into the module."""
    text = """HloModule m
ENTRY %main { %a = bf16[8192,8192] parameter(0)
  ROOT %d = bf16[8192,8192] dot(%a, %a), lhs_contracting_dims={1}, rhs_contracting_dims={0} }
"""
    graph, target = parse_hlo(text), load_target(name)
    seconds = compute_seconds(work(graph, graph.entry_computation, graph.entry_computation.root_instruction), target)
    assert seconds * target.clock == pytest.approx(cycles_of_the_compiler, rel=0.02)
