"""Parts of steps in place are made wider where the arena has room, and the plan stays valid."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memplan import embedded
from memplan.compiler.embedded import EmbeddedPlan
from memplan.compiler.embedded.plan import check_plan
from memplan.compiler.errors import PlanError
from memplan.passes.embedded.wider_parts import with_wider_parts

_FILTERS = np.ones((3, 3, 1, 6), np.int8)


def _depthwise(x: Any) -> Any:
    names = ("NHWC", "HWIO", "NHWC")
    wide = jnp.asarray(_FILTERS).astype(jnp.int32)
    total = jax.lax.conv_general_dilated(
        x.astype(jnp.int32), wide, (1, 1), "SAME", dimension_numbers=names, feature_group_count=6
    )
    return jnp.clip(jnp.round(total.astype(jnp.float32) * 0.1), -128, 127).astype(jnp.int8)


def _plan(before: int) -> EmbeddedPlan:
    """Returns the plan of a layer of 384 bytes that comes after a sum over so many bytes."""

    def fun(x: Any, y: Any) -> Any:
        return _depthwise(x + y.sum(dtype=jnp.int32).astype(jnp.int8))

    return embedded(fun, jax.ShapeDtypeStruct((1, 8, 8, 6), jnp.int8), jax.ShapeDtypeStruct((before,), jnp.int8))


def _widths(plan: EmbeddedPlan) -> set[int]:
    return {way.width for way in plan.in_place if way is not None and way.slices is not None}


def test_room_that_other_steps_leave_is_used() -> None:
    plan = _plan(512)
    assert _widths(plan) == {4}
    assert plan.arena == plan.peak == 512 + 384 + 4
    assert plan.workspace(plan.order[-1]) >= 384
    assert with_wider_parts(plan).in_place == plan.in_place


def test_the_arena_does_not_grow() -> None:
    plan = _plan(64)
    assert _widths(plan) == {1}
    assert plan.arena == 384 + 64 + 4


def test_a_part_that_is_too_wide_for_its_workspace_is_found() -> None:
    plan = _plan(64)
    last = plan.order[-1]
    ways = list(plan.in_place)
    ways[last] = next(way for way in plan.program.steps[last].in_place if way.width == 4)
    with pytest.raises(PlanError, match="has no workspace"):
        check_plan(replace(plan, in_place=tuple(ways)))
