"""One program with its tensors in several places."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from fake_compiler import FakeCompiler, program

from memplan.backends.tpu.compile import CompileError
from memplan.backends.tpu.steering import SORT_ORDER
from memplan.backends.tpu.variants import random_order, variants
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.hardware.target import load_target
from memplan.compiler.mapping.build import build_problem

V5E = load_target("tpu-v5e")


def test_all_of_them() -> None:
    compiler = FakeCompiler(lambda options: program("ab" if not options else "", cross_program=not options))
    found = dict(variants(b"module", V5E, compiler, 2))
    assert list(found) == ["default", "slow", "no cross-program", "random 0", "random 1"]
    assert [sorted(options) for options in compiler.requests] == [
        [], ["xla_msa_enable"], ["xla_msa_max_cross_program_prefetches"], [SORT_ORDER], [SORT_ORDER],
    ]  # fmt: skip
    assert compiler.requests[3] != compiler.requests[4]


def test_without_a_cross_program_prefetch_there_is_nothing_to_leave_out() -> None:
    compiler = FakeCompiler(lambda options: program("ab"))
    assert list(dict(variants(b"module", V5E, compiler, 0))) == ["default", "slow"]


def test_what_cannot_be_compiled_is_told_and_left_out() -> None:
    def answer(options: Mapping[str, str]) -> str:
        if SORT_ORDER in options:
            raise CompileError("too much", "refused")
        return program()

    told: list[str] = []
    assert list(dict(variants(b"module", V5E, FakeCompiler(answer), 1, told.append))) == ["default", "slow"]
    assert told == ["tpu-v5e: random 0: too much"]

    def refuse(options: Mapping[str, str]) -> str:
        raise CompileError("too much", "refused")

    with pytest.raises(CompileError):
        list(variants(b"module", V5E, FakeCompiler(refuse), 1))


def test_a_random_order_is_the_same_every_time_and_names_values_once() -> None:
    problem = build_problem(parse_hlo(program("ab")), V5E)
    text = random_order(problem, 3)
    assert text == random_order(problem, 3)
    places = text.count("assign_value: -"), text.count("assign_value: ") - text.count("assign_value: -")
    assert places == (len(problem.buffers) // 3,) * 2
    assert len({part.split(" override_options")[0] for part in text.split("overrides { ")}) == len(
        text.split("overrides { ")
    )
