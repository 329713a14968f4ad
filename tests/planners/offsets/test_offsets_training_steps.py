"""Made-up training steps have the live ranges of real ones."""

import numpy as np
import pytest

from memplan.planners.offsets.geometry import Sections
from memplan.planners.offsets.training_steps import training_step


@pytest.mark.parametrize("num_blocks", [0, 1, 25, 26, 700, 20_000])
def test_there_are_as_many_blocks_as_asked_for(num_blocks: int) -> None:
    assert len(training_step(num_blocks)) == num_blocks


def test_the_same_arguments_give_the_same_blocks() -> None:
    first, second, other = training_step(500, 1), training_step(500, 1), training_step(500, 2)
    assert first.size.tolist() == second.size.tolist()
    assert first.upper.tolist() == second.upper.tolist()
    assert first.size.tolist() != other.size.tolist()


def test_most_blocks_are_short_some_last_and_sizes_repeat_and_differ_much() -> None:
    instance = training_step(5_000)
    duration = instance.upper - instance.lower
    end = int(instance.upper.max())
    assert np.median(duration) < 0.01 * end
    assert np.mean(duration > 0.2 * end) > 0.1
    assert np.any(duration == end)
    assert len(np.unique(instance.size)) < 0.1 * len(instance)
    assert instance.size.max() > 1000 * np.median(instance.size)


def test_more_and_more_is_alive_during_the_forward_pass() -> None:
    instance = training_step(5_000)
    passing = instance.subset(np.flatnonzero(instance.upper - instance.lower < instance.upper.max()))
    alive = Sections.of(passing).loads(np.ones(len(passing), np.int64))
    assert alive[len(alive) // 10] < 0.5 * alive[len(alive) // 2]
