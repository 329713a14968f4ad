"""The choice of decompositions."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from memplan.passes.fft.choice import CPU, TPU, decompose, decompose_at_least, seconds
from memplan.passes.fft.decomposition import Decomposition


@settings(max_examples=30)
@example(1597, 1, CPU)
@example(1597, 1, TPU)
@example(2 * 2063, 1, TPU)
@given(st.integers(1, 5000), st.integers(1, 1000), st.sampled_from([TPU, CPU]))
def test_lengths(length: int, rows: int, machine) -> None:
    longer = decompose_at_least(length, rows, machine, length)
    assert length <= longer.length <= 2 * length + 2
    found = decompose(length, rows, machine)
    # There is one exactly if the largest prime factor is no larger than a matrix may be, in a row and in bytes.
    prime = max(factor for factor in range(1, length + 1) if length % factor == 0 and is_prime(factor))
    assert (found is not None) == (prime <= 2048 and 4 * prime**2 * machine.item <= 32 << 20)
    if found is not None:
        assert found.length == length


def is_prime(number: int) -> bool:
    return all(number % divisor for divisor in range(2, int(number**0.5) + 1))


@pytest.mark.parametrize(
    ("length", "measured"),
    [
        (2048, {((64, 32),): 99267, ((32, 64),): 106492, ((16, 16, 8),): 156090}),
        (8192, {((128, 64),): 332241, ((64, 128),): 436302, ((32, 16, 16),): 471410}),
        (16384, {((256, 64),): 642341, ((512, 32),): 654093, ((64, 16, 16),): 841069}),
    ],
)
def test_the_model_ranks_as_the_tpu_compiler_does(length: int, measured: dict) -> None:
    """Estimated cycles of whole convolutions of 512 signals of half the length, compiled for a TPU v5e."""
    predicted = {groups: seconds(Decomposition(groups), 512, TPU, True, length // 2) for groups in measured}
    assert sorted(measured, key=lambda groups: measured[groups]) == sorted(
        predicted, key=lambda groups: predicted[groups]
    )
    assert decompose_at_least(length, 512, TPU, length // 2).groups == min(measured, key=lambda g: measured[g])


def test_long_transforms_have_groups_so_that_matrices_stay_small() -> None:
    found = decompose_at_least(1 << 22, 16, TPU, 1 << 21)
    assert len(found.groups) > 1
    for step in range(len(found.factors)):
        assert found.forward(step, real=True, half=True).size * TPU.item <= 32 << 20
    assert math.prod(found.factors) == found.length


def test_what_is_too_long_or_has_a_large_prime() -> None:
    assert decompose(4099, 1, CPU) is None
    with pytest.raises(ValueError, match="too long for 4 steps"):
        decompose_at_least(1 << 60, 1, CPU, 1)
