"""The PipelineProblem: a chain of layers that several devices train, each a contiguous part of it, in microbatches.

Narayanan et al., "Efficient large-scale language model training on GPU clusters using Megatron-LM", arXiv 2104.04473,
section 2.2. The chain is cut into `stages × chunks` pieces. Piece q is on device q mod stages, so that a device with
several chunks has pieces from all along the chain (the interleaved schedule, section 2.2.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

from memplan.compiler.errors import PlannerError

Schedule = Literal["1f1b", "gpipe"]
SCHEDULES = ("1f1b", "gpipe")

MAX_LAYERS = 10_000
MAX_STEPS = 1_000_000


@dataclass(frozen=True, slots=True)
class PipelineLayer:
    """One layer, for one microbatch.

    Attributes:
      name: for the reader.
      forward, backward: seconds.
      state: bytes that stand throughout: parameters, gradients and the optimizer's.
      kept: bytes that the forward pass keeps for the backward pass, the layer's input included.
      passed: bytes of its result, which go to the next layer; as many come back as a gradient.
    """

    name: str
    forward: float
    backward: float
    state: int
    kept: int
    passed: int


@dataclass(frozen=True)
class PipelineProblem:
    """Layers, devices and a schedule.

    Attributes:
      layers: in the order of the chain.
      stages: devices.
      microbatches: of a step; one at a time goes through a layer.
      chunks: pieces on each device; more than 1 is the interleaved schedule.
      schedule: "1f1b", one forward and one backward in turn, or "gpipe", all forwards before all backwards.
      limit: bytes of each device; None for no limit.
      bandwidth: of a send, bytes per second.
      latency: of a send, seconds. Sends go on while devices compute, and do not wait for each other.
      recompute: whether a piece may keep the inputs of its layers alone, and run the forward pass of each again before
        its backward pass (Chen et al., arXiv 1604.06174).
      first: bytes of the first layer's input.
    """

    layers: tuple[PipelineLayer, ...]
    stages: int
    microbatches: int
    chunks: int = 1
    schedule: Schedule = "1f1b"
    limit: int | None = None
    bandwidth: float = math.inf
    latency: float = 0.0
    recompute: bool = False
    first: int = 0

    @property
    def pieces(self) -> int:
        """How many parts the chain is cut into."""
        return self.stages * self.chunks

    def send(self, end: int) -> float:
        """Returns the seconds from one piece to the next, where a piece ends before layer `end`."""
        return 0.0 if self.stages == 1 else self.latency + self.layers[end - 1].passed / self.bandwidth

    def check(self) -> None:
        """Raises PlannerError, naming the place, if a number makes no sense."""
        for name in ("stages", "microbatches", "chunks"):
            _check_integer(getattr(self, name), f"{name} is", 1)
        if self.schedule not in SCHEDULES:
            raise PlannerError(f"the schedule is {self.schedule!r}: it must be one of {', '.join(SCHEDULES)}")
        if len(self.layers) > MAX_LAYERS:
            raise PlannerError(f"there are {len(self.layers):,} layers: memplan splits at most {MAX_LAYERS:,}")
        if len(self.layers) < self.pieces:
            raise PlannerError(f"{len(self.layers)} layers cannot be cut into {self.stages} × {self.chunks} pieces")
        if self.pieces * self.microbatches * 2 > MAX_STEPS:
            raise PlannerError(f"the schedule has more than {MAX_STEPS:,} steps: take fewer microbatches or stages")
        if self.chunks > 1 and self.schedule == "1f1b" and self.microbatches % self.stages:
            raise PlannerError(
                f"the interleaved schedule needs a multiple of {self.stages} microbatches, which is the number of "
                f"stages, and there are {self.microbatches}"
            )
        if self.chunks > 1 and self.stages == 1:
            raise PlannerError("one device has nothing to interleave: chunks must be 1")
        for number, layer in enumerate(self.layers):
            for field in fields(layer)[1:]:
                place = f"layer {number} ({layer.name}): {field.name} is"
                if field.name in ("forward", "backward"):
                    _check_number(getattr(layer, field.name), place)
                else:
                    _check_integer(getattr(layer, field.name), place, 0)
        _check_integer(self.first, "first is", 0)
        if self.limit is not None:
            _check_integer(self.limit, "the limit is", 1)
        _check_number(self.latency, "the latency is")
        if not isinstance(self.bandwidth, int | float) or not self.bandwidth > 0:
            raise PlannerError(f"the bandwidth is {self.bandwidth!r}: it must be a positive number")


def _check_integer(value: object, place: str, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**60:
        raise PlannerError(f"{place} {value!r}: it must be an integer of at least {least}")


def _check_number(value: object, place: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise PlannerError(f"{place} {value!r}: it must be a finite number that is not negative")
