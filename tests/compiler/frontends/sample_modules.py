"""Real modules that the tests of this folder read."""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[3]
DATA = Path(__file__).parent / "data"
EVERY_OPCODE = DATA / "every_opcode.hlo"

# From the CPU, with its dumps before and after optimization.
CPU_TEXTS = sorted(file for file in (ROOT / "tests/data/hlo").iterdir() if file.name.endswith("_optimizations.txt"))
CPU_PROTOS = sorted(file for file in (ROOT / "tests/data/hlo").iterdir() if ".hlo.pb" in file.name)

# Compiled for TPUs; of the two solvers' modules the default one has the copies.
TPU_TEXTS = [
    *sorted((ROOT / "workloads/dumps").glob("*.tpu-v5e.default.hlo.txt.gz")),
    ROOT / "workloads/dumps/lstm.tpu-v4.slow.hlo.txt.gz",
    ROOT / "workloads/dumps/transformer_infer.tpu-v4.default.hlo.txt.gz",
]
ALL_TEXTS = [EVERY_OPCODE, *CPU_TEXTS, *TPU_TEXTS]


@cache
def text_of(file: Path) -> str:
    """Returns the text of a module, unpacked."""
    content = file.read_bytes()
    return (gzip.decompress(content) if file.suffix == ".gz" else content).decode()


def name_of(file: Path) -> str:
    """Names a parametrized test."""
    return file.name.removesuffix(".gz").removesuffix(".txt")
