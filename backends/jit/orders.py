"""The order of execution of what is compiled: of least memory on a CPU, as planned on a TPU."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import jax

from memplan.backends import order_hook
from memplan.backends.jit.messages import log, one_line_of, say_once
from memplan.backends.tpu.outcome import Candidate
from memplan.compiler.errors import MemplanError


def can_order(platform: str) -> bool:
    """Tells whether programs for a platform are compiled in an order of ours, without a target."""
    return platform == "cpu" and order_hook.is_supported("cpu")


def compile_in_order(compile: Callable[[], Any], name: str) -> Any:
    """Compiles so that programs run in the order of execution that needs the least memory."""
    try:
        with order_hook.ordering(order_hook.memory_order, platform="cpu") as outcome:
            compiled = compile()
    except (jax.errors.JaxRuntimeError, MemplanError) as error:
        log.warning("memplan.jit: %s is compiled as by jax.jit: %s", name, one_line_of(error))
        return compile()
    for module in outcome.modules:
        log.debug("memplan.jit: %s", module)
    return compiled


@contextmanager
def in_order_of(candidate: Candidate) -> Iterator[None]:
    """Within the block, compiles get the order that was planned for a candidate."""
    if not candidate.order:
        yield
        return
    with order_hook.ordering(order_hook.fixed_order(candidate.order), platform="tpu") as outcome:
        yield
    for module in outcome.refused:
        log.warning("memplan.jit: the planned order does not take effect: %s", module)


def say_what_applies(platform: str) -> None:
    """Says once what memplan does for programs on a platform that has no target."""
    if can_order(platform):
        applies = "programs run in the order that needs the least memory; plans of fast memory do not apply there"
    elif platform == "cpu":
        applies = f"nothing applies there with jax {version('jax')}; programs run as by jax.jit"
    else:
        applies = "nothing applies there; programs run as by jax.jit"
    say_once(logging.INFO, f"memplan.jit on {platform}: {applies}")
