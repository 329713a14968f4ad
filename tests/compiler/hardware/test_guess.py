"""What a module says of the hardware that it was compiled for."""

import pytest

from memplan.compiler.frontends import parse_hlo
from memplan.compiler.hardware.guess import guess_target

HEADER = "HloModule m{}\nENTRY e {{ x = f32[8]{{0{}}} parameter(0)\n ROOT y = f32[8] negate(x) }}"


@pytest.mark.parametrize(
    ("attributes", "layout", "name", "reason"),
    [
        (', frontend_attributes={memplan.target="tpu-v5p"}', ":S(3)", "tpu-v5p", "the module names it"),
        ("", ":S(1)", "tpu-v5e", "the module has buffers in S(1)"),
        ("", ":S(3)", "tpu-v4", "the module has buffers in S(3)"),
        ("", ":S(5)", "generic", "the module does not say what it was compiled for"),
        ("", "", "generic", "the module does not say what it was compiled for"),
    ],
)
def test_a_guess_says_why(attributes: str, layout: str, name: str, reason: str) -> None:
    guess = guess_target(parse_hlo(HEADER.format(attributes, layout)))
    assert (guess.name, guess.reason) == (name, reason)
