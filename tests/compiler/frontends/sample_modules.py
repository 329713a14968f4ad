"""Real modules that the tests of this folder read."""

from __future__ import annotations

import gzip
from functools import cache
from importlib.metadata import version
from pathlib import Path

from thorough import some

ROOT = Path(__file__).parents[3]
DATA = Path(__file__).parent / "data"
EVERY_OPCODE = DATA / "every_opcode.hlo"

# From the CPU, with its dumps before and after optimization.
CPU_TEXTS = sorted(file for file in (ROOT / "tests/data/hlo").iterdir() if file.name.endswith("_optimizations.txt"))
CPU_PROTOS = sorted(file for file in (ROOT / "tests/data/hlo").iterdir() if ".hlo.pb" in file.name)

# Compiled for TPUs; of the two solvers' modules the default one has the copies.
TPU_TEXTS = [
    *some(sorted((ROOT / "workloads/dumps").glob("*.tpu-v5e.default.hlo.txt.gz")), 3),
    ROOT / "workloads/dumps/lstm.tpu-v4.slow.hlo.txt.gz",
    ROOT / "workloads/dumps/transformer_infer.tpu-v4.default.hlo.txt.gz",
]

# Modules of small programs for a TPU v5e and an H100, compiled ahead of time: int4, nested loops, collectives, Triton.
OTHER_TEXTS = sorted(DATA.glob("*.txt.gz"))

ALL_TEXTS = [EVERY_OPCODE, *CPU_TEXTS, *OTHER_TEXTS, *TPU_TEXTS]


@cache
def text_of(file: Path) -> str:
    """Returns the text of a module, unpacked."""
    content = file.read_bytes()
    return (gzip.decompress(content) if file.suffix == ".gz" else content).decode()


def name_of(file: Path) -> str:
    """Names a parametrized test."""
    return file.name.removesuffix(".gz").removesuffix(".txt")


def readable_by_jaxlib(files: list[Path]) -> list[Path]:
    """Returns the files that jaxlib reads: what its own version, or an older one, has written."""
    is_old = tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 12)
    return [file for file in files if not (is_old and "jax012" in file.name)]
