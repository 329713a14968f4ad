"""What stands in `backend_config`, as libtpu writes it and as it might be damaged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan.compiler.hardware.estimates import estimated_cycles, reserved_bytes, states_reserved
from memplan.compiler.ir import Instruction, Shape


def instruction(config: str) -> Instruction:
    attributes = (("kind", "kLoop"), ("backend_config", config)) if config else ()
    return Instruction("fusion", "fusion", Shape("f32"), attributes=attributes)


FULL = (
    '{"flag_configs":[],"window_config":{"kernel_window_bounds":["1","96","6"],"estimated_cycles":"59250",'
    '"iteration_bounds":["1","4"],"estimated_vmem_bytes":"0"},"scoped_memory_configs":[{"memory_space":"7","size":"9"}],'
    '"used_scoped_memory_configs":[{"memory_space":"1","offset":"0","size":"8187904"},'
    '{"memory_space":"1","offset":"100","size":"28"},{"memory_space":"3","offset":"0","size":"0"}],'
    '"retry_config":{"retry_count":"0"}}'
)


def test_as_libtpu_writes_it() -> None:
    assert estimated_cycles(instruction(FULL)) == 59250
    assert reserved_bytes(instruction(FULL)) == {1: 8187904}
    assert states_reserved(instruction(FULL))


@pytest.mark.parametrize(
    ("config", "cycles"),
    [
        ("", None),
        ("{}", None),
        ('{"window_config":{"estimated_cycles":"0"}}', None),
        ('{"window_config":{"estimated_cycles":"9223372036854775807"}}', None),
        ('{"window_config":{"estimated_cycles":"-1"}}', None),
        ('{"window_config":{"estimated_cycles": 12 }}', 12),
        ('{"window_config":{"estimated_cycles":"1"}}', 1),
        ('{"my_estimated_cycles":"5"}', None),
        ('{"estimated_cycles":', None),
    ],
)
def test_estimates(config: str, cycles: int | None) -> None:
    assert estimated_cycles(instruction(config)) == cycles


@pytest.mark.parametrize(
    ("config", "expected", "states"),
    [
        ("", {}, False),
        ('{"scoped_memory_configs":[{"memory_space":"1","size":"8"}]}', {}, False),
        ('{"used_scoped_memory_configs":[]}', {}, True),
        ('{"used_scoped_memory_configs":[{"size":"8"}]}', {0: 8}, True),
        ('{"used_scoped_memory_configs":[{"memory_space":"1","offset":"16","size":"8"}]}', {1: 24}, True),
        ('{"used_scoped_memory_configs":[{"memory_space":"1","offset":"16"}]}', {}, True),
        (
            '{"used_scoped_memory_configs":[{"memory_space":1,"size":4},{"memory_space":3,"size":5}]}',
            {1: 4, 3: 5},
            True,
        ),
        ('{"used_scoped_memory_configs":[{"memory_space":"1","size":"8"', {}, True),
    ],
)
def test_reserved(config: str, expected: dict[int, int], states: bool) -> None:
    assert reserved_bytes(instruction(config)) == expected
    assert states_reserved(instruction(config)) == states


@given(st.text(alphabet='{}[]":,0123456789estimated_cycles used_scoped_memory_configs', max_size=200))
def test_any_text_is_answered(config: str) -> None:
    cycles = estimated_cycles(instruction(config))
    assert cycles is None or cycles > 0
    assert all(size > 0 for size in reserved_bytes(instruction(config)).values())
