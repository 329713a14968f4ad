"""The weights of features that come with the package, learned from other programs by `scripts/pretrain_agent`."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from memplan.compiler.files import write_atomically
from memplan.rl_agent.learning.values import FEATURES, Floats

PATH = Path(__file__).parents[1] / "pretrained.json"


@cache
def described() -> dict[str, Any]:
    """Returns the file: `played`, the programs that were learned from, and `weights`, per feature those of actions."""
    found: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
    return found


def weights() -> Floats:
    """Returns the weights, `[features, 3]`."""
    return np.array([described()["weights"][name] for name in FEATURES], np.float64)


def write(learned: Floats, played: list[str]) -> None:
    """Replaces what comes with the package."""
    rows = dict(zip(FEATURES, np.round(learned, 3).tolist(), strict=True))
    write_atomically(PATH, json.dumps({"played": played, "weights": rows}, indent=1) + "\n")
