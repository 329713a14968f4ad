"""The ways to save memory that `memplan bench fit` compares: what each does to a training step."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

DEFAULT = "default"
OURS = "memplan"


@dataclass(frozen=True)
class Method:
    """A way to save memory.

    Attributes:
      name: as in `--methods`.
      part: what `jax.checkpoint` is put around, see `train_blocks.PARTS`; "" for nothing.
      policy: returns the policy of `jax.checkpoint`, given `jax.checkpoint_policies`; None to keep nothing.
      takes_limit: whether it is told the limit, so that each limit gives another program.
      tpu_only: whether it needs a compiler for TPUs.
      options: returns compiler options, given the bytes that the program may take in all.
    """

    name: str
    part: str = ""
    policy: Callable[[Any], Any] | None = None
    takes_limit: bool = False
    tpu_only: bool = False
    options: Callable[[int], dict[str, str]] | None = None

    def tracing(self) -> AbstractContextManager[None]:
        """Returns the context in which a step is to be traced."""
        if not self.part:
            return nullcontext()
        import jax

        from memplan.workloads.train_blocks import recomputing

        return recomputing(self.part, None if self.policy is None else self.policy(jax.checkpoint_policies))


def _rematerialization(limit: int) -> dict[str, str]:
    """Options of XLA:TPU's own rematerialization, as https://openxla.org/xla/errors/error_1000 describes them."""
    return {
        "xla_tpu_max_hbm_size_mib": str(math.ceil(limit / 2**20)),
        "xla_tpu_rematerialization_algo": "PEAK_PRIORITY",
    }


# `jax.checkpoint` without a policy keeps nothing, so that the policy `nothing_saveable` is the method "block".
METHODS = {
    method.name: method
    for method in (
        Method(DEFAULT),
        Method("block", "block"),
        Method("segments", "segment"),
        Method("loss", "loss"),
        Method("dots", "block", lambda policies: policies.dots_saveable),
        Method("dots-no-batch", "block", lambda policies: policies.dots_with_no_batch_dims_saveable),
        Method(
            "offload",
            "block",
            lambda policies: policies.offload_dot_with_no_batch_dims("device", "pinned_host"),
            tpu_only=True,
        ),
        Method("xla", takes_limit=True, tpu_only=True, options=_rematerialization),
        Method(OURS, takes_limit=True),
    )
}
