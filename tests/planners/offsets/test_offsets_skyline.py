"""Packing on skylines: the kernel beside one that looks at every block, and large instances, which it packs low."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_instances import instances

from memplan.compiler.effort import Guard
from memplan.planners.offsets.bounds import maximum_load
from memplan.planners.offsets.check import check
from memplan.planners.offsets.instance import Instance
from memplan.planners.offsets.pack import Status, pack
from memplan.planners.offsets.skyline import Preference, SkylinePacker
from memplan.planners.offsets.training_steps import training_step


def stacked(instance: Instance, value: list[float]) -> list[int]:
    """Returns the offsets of a skyline that is a list of heights, one for each time.

    The blocks, which have no gaps and are not fixed, come first by descending value; the later one if it is the same.
    """
    heights = [0] * int(instance.upper.max())
    offsets = [-1] * len(instance)
    rank = sorted(range(len(instance)), key=lambda block: (value[block], block), reverse=True)
    while -1 in offsets:
        lowest = min(heights)
        begin = heights.index(lowest)
        end = begin
        while end < len(heights) and heights[end] == lowest:
            end += 1
        for block in rank:
            lower, upper = int(instance.lower[block]), int(instance.upper[block])
            if offsets[block] < 0 and begin <= lower and upper <= end:
                alignment = int(instance.alignment[block])
                offsets[block] = -(-lowest // alignment) * alignment
                heights[lower:upper] = [offsets[block] + int(instance.size[block])] * (upper - lower)
                break
        else:
            heights[begin:end] = [min(heights[max(begin - 1, 0) : begin] + heights[end : end + 1])] * (end - begin)
    return offsets


@given(
    instances(max_blocks=12),
    st.sampled_from([Preference(0, 0.0, 1.0), Preference(0, 1.0, 1.0), Preference(2, 1.3, 0.1)]),
)
@settings(max_examples=150)
def test_the_kernel_beside_a_list_of_heights(instance: Instance, preference: Preference) -> None:
    real = instance.subset(np.flatnonzero((instance.size > 0) & (instance.fixed < 0)))
    if not len(real):
        return
    columns = (real.lower, real.upper, real.size, real.alignment)
    plain = Instance.of(*columns)
    packer = SkylinePacker(plain)
    found = packer.packed(preference, np.random.default_rng(0), 2**62 - 1)
    assert found is not None
    value = preference.duration * packer._log_duration[preference.fullness] + preference.size * packer._log_size
    # Times at which nothing begins or ends are no sections of their own, and times of no block are none at all.
    assert found.offsets.tolist() == stacked(compressed(plain), value.tolist())
    assert found.height == max(found.offsets + plain.size)
    assert check(plain, found.offsets, found.height) == []


def compressed(instance: Instance) -> Instance:
    times = np.unique(np.concatenate([instance.lower, instance.upper]))
    lower, upper = np.searchsorted(times, instance.lower), np.searchsorted(times, instance.upper)
    return Instance.of(lower, upper, instance.size, instance.alignment)


@given(instances())
@settings(max_examples=100)
def test_gaps_alignments_and_fixed_offsets_are_obeyed(instance: Instance) -> None:
    real = instance.subset(np.flatnonzero(instance.size > 0))
    found = SkylinePacker(real).best(0, 20 * len(real), 0, Guard())
    assert check(real, found.offsets, found.height) == []
    assert found.height == int(np.max(found.offsets + real.size, initial=0))


def test_a_pass_ends_at_its_limit() -> None:
    instance = Instance.of([0, 0], [2, 2], [3, 4])
    packer, draw = SkylinePacker(instance), np.random.default_rng(0)
    assert packer.packed(Preference(0, 0.0, 1.0), draw, 6) is None
    found = packer.packed(Preference(0, 0.0, 1.0), draw, 7)
    assert found is not None
    assert found.offsets.tolist() == [4, 0]


def test_the_guard_leaves_one_packing() -> None:
    instance = training_step(300, seed=2)
    found = SkylinePacker(instance).best(0, 10**9, 0, Guard(0.0))
    assert check(instance, found.offsets, found.height) == []


@pytest.mark.parametrize(("num_blocks", "share"), [(600, 1.0), (5_000, 1.005), (20_000, 1.005), (62_000, 1.01)])
def test_training_steps_are_packed_near_their_load(num_blocks: int, share: float) -> None:
    instance = training_step(num_blocks, seed=3)
    found = SkylinePacker(instance).best(maximum_load(instance), 4 * num_blocks, 0, Guard())
    assert maximum_load(instance) <= found.height <= share * maximum_load(instance)
    assert check(instance, found.offsets, found.height) == []


def test_the_same_seed_gives_the_same_packing() -> None:
    rng = np.random.default_rng(0)
    lower = rng.integers(0, 900, 1000)
    instance = Instance.of(lower, lower + rng.integers(1, 300, 1000), rng.integers(1, 10_000, 1000))
    first, second = (SkylinePacker(instance).best(0, 50_000, 5, Guard()) for _ in range(2))
    assert first.offsets.tolist() == second.offsets.tolist()


@pytest.mark.parametrize("capacity", [True, False])
def test_pack_takes_many_blocks(capacity: bool) -> None:
    instance = training_step(3_000, seed=1)
    load = maximum_load(instance)
    packing = pack(instance, load if capacity else None)
    assert packing.height == load
    assert packing.status == (Status.FITS if capacity else Status.OPTIMAL)
    assert pack(instance, load - 1).status == Status.INFEASIBLE


def test_nested_blocks_are_split_no_more_than_is_worth_it() -> None:
    """Each block lasts for all of what is inside it, so there are as many levels as blocks."""
    count = 20_000
    instance = Instance.of(np.arange(count), 2 * count - np.arange(count), 1 + np.arange(count) % 7)
    packing = pack(instance)
    assert packing.status == Status.OPTIMAL
