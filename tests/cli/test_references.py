"""What a plan is compared with, and what it is called."""

import pytest

from memplan.cli.references import reference_planners
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.hardware.target import load_target
from memplan.compiler.mapping.build import build_problem

PLAIN = """
HloModule plain, is_scheduled=true

ENTRY %main (a: f32[64]) -> f32[64] {
  %a = f32[64]{0} parameter(0)
  ROOT %b = f32[64]{0} negate(%a)
}
"""


@pytest.mark.parametrize(
    ("target", "label"),
    [("generic", "all in slow"), ("mcu-256kb", "all in flash and sram"), ("mcu-256kb-sdram", "all in sdram")],
)
def test_where_everything_is_at_home(target: str, label: str) -> None:
    problem = build_problem(parse_hlo(PLAIN), load_target(target))
    assert reference_planners(problem) == [(label, "slow")]


def test_what_the_compiler_decided_is_beside_it() -> None:
    fast = PLAIN.replace(
        "ROOT %b = f32[64]{0} negate(%a)", "%b = f32[64]{0:S(1)} negate(%a)\n  ROOT %c = f32[64]{0} negate(%b)"
    )
    problem = build_problem(parse_hlo(fast), load_target("generic"))
    assert reference_planners(problem) == [("all in slow", "slow"), ("XLA's own plan", "xla")]
