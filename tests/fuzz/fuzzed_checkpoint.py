"""Checkpoints for the fuzzer: the file of one is changed, with or without its checksum.

An input is a line `plain` or `signed`, and the content of the file, or what the checksum is of.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from functools import cache

import numpy as np
from mutations import mutated_bytes, mutated_text

from memplan.compiler.cache import opened, sealed
from memplan.compiler.errors import ParseError
from memplan.rl_agent.learning import checkpoint
from memplan.rl_agent.learning.options import TrainOptions

_POINTS = [{"seconds": 1.5, "name": "p.tpu-v5e", "latency": 2e-3}]
_META = {"problems": {"p.tpu-v5e": "0" * 64}, "seconds": 60.5, "points": _POINTS}
_STATE = {"iteration": np.array(3), "weights": np.zeros((2, 3)), "contests": {"0": {"history": np.zeros(5, np.int8)}}}


@cache
def _content() -> bytes:
    return checkpoint.content_of(_STATE, TrainOptions(), _META)


def make(chance: random.Random) -> bytes:
    """Returns a change of the checkpoint."""
    kind = chance.random()
    if kind < 0.4:  # what it says of itself
        said = json.dumps({"version": checkpoint.VERSION, "options": asdict(TrainOptions()), **_META})
        text = mutated_text(chance, said, [said])
        try:
            meta = json.loads(text)
        except ValueError:
            meta = None
        if isinstance(meta, dict):
            return b"signed\n" + opened(checkpoint.content_of(_STATE, TrainOptions(), meta))
    if kind < 0.7:
        return b"signed\n" + mutated_bytes(chance, opened(_content()), [_content()])
    return b"plain\n" + mutated_bytes(chance, _content(), [_content()])


def read(content: bytes) -> None:
    """Reads a checkpoint; raises AssertionError if a change without a checksum is accepted."""
    kind, _, changed = content.partition(b"\n")
    if kind not in (b"plain", b"signed"):
        raise ParseError("no checkpoint")
    saved = checkpoint.read(sealed(changed) if kind == b"signed" else changed, "checkpoint")
    assert kind == b"signed" or changed == _content(), "a file is not as it was written, and was accepted"
    assert json.loads(json.dumps(asdict(saved.options)))
    assert isinstance(saved.meta, dict)
