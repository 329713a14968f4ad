"""The command, run in this process, and small programs for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from memplan import workloads
from memplan.cli.main import main

# A module as a TPU compiler writes it: one operand was brought to VMEM ahead of its use.
MODULE = """\
HloModule step, is_scheduled=true, entry_computation_layout={(bf16[1024,1024]{1,0}, bf16[1024,1024]{1,0})->bf16[1024,1024]{1,0}}

ENTRY %main (x: bf16[1024,1024], w: bf16[1024,1024]) -> bf16[1024,1024] {
  %x = bf16[1024,1024]{1,0:T(8,128)(2,1)} parameter(0)
  %w = bf16[1024,1024]{1,0:T(8,128)(2,1)} parameter(1)
  %copy-start = (bf16[1024,1024]{1,0:T(8,128)(2,1)S(1)}, bf16[1024,1024]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}) copy-start(%w)
  %exp = bf16[1024,1024]{1,0:T(8,128)(2,1)S(1)} exponential(%x)
  %copy-done = bf16[1024,1024]{1,0:T(8,128)(2,1)S(1)} copy-done(%copy-start)
  %dot = bf16[1024,1024]{1,0:T(8,128)(2,1)S(1)} dot(%exp, %copy-done), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %tanh = bf16[1024,1024]{1,0:T(8,128)(2,1)} tanh(%dot)
}
"""


@dataclass(frozen=True)
class Outcome:
    """What a run of the command left behind."""

    status: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("memplan: error: ")]


@pytest.fixture
def run_unprepared(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs a command that needs no planner."""

    def run_command(*arguments: object) -> Outcome:
        capfd.readouterr()
        status = main([str(argument) for argument in arguments])
        return Outcome(status, *capfd.readouterr())

    return run_command


@pytest.fixture
def run(run_unprepared: Callable[..., Outcome], prepared: None) -> Callable[..., Outcome]:
    """Runs a command with the planners' kernels there."""
    return run_unprepared


@pytest.fixture(scope="session")
def module_text() -> str:
    return MODULE


@pytest.fixture
def module(module_text: str, tmp_path: Path) -> Path:
    path = tmp_path / "step.hlo.txt"
    path.write_text(module_text)
    return path


@pytest.fixture(scope="session")
def dump() -> Path:
    """A shipped dump with loops."""
    return workloads.dumps_folder() / "lstm.tpu-v5e.default.hlo.txt.gz"
