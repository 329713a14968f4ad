"""Comparing modules compiled twice, and fitting what one predicts of the other."""

import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memplan.compiler.frontends import read
from memplan.compiler.hardware.calibration import Touched
from memplan.compiler.hardware.fidelity import (
    CompilationPair,
    EstimatedInstruction,
    fidelity,
    fit,
    observe,
    of_kind,
    pairs_of,
)
from memplan.compiler.hardware.target import KINDS, Exposure, Target, load_target, parse_target

ROOT = Path(__file__).parents[3]
DUMPS = ROOT / "workloads" / "dumps"
MIB = 2**20


@pytest.fixture
def machine() -> Target:
    """A slow memory of 1 MiB per second and a fast one of 16; nothing else takes time."""
    target = load_target("generic")
    spaces = tuple(
        replace(space, bandwidth=rate, peak_bandwidth=rate, exposed=dict.fromkeys(KINDS, Exposure(rate, rate)))
        for space, rate in zip(target.spaces, (1.0 * MIB, 16.0 * MIB), strict=True)
    )
    return replace(target, spaces=spaces)


def observation(
    size: int, space: int, estimate: float, repetitions: float = 1.0, kind: str = "vector"
) -> EstimatedInstruction:
    return EstimatedInstruction(kind, 0.0, (Touched(size * MIB, space),), estimate, repetitions)


def test_a_model_that_is_right(machine: Target) -> None:
    pairs = [(observation(size, 0, size + 1.0), observation(size, 1, size / 16 + 1.0)) for size in (4, 8, 16)]
    found = fidelity(pairs, machine)
    assert (found.count, found.median, found.high) == (3, pytest.approx(0.0, abs=1e-9), pytest.approx(0.0, abs=1e-9))
    assert (found.total, found.rank_correlation) == (pytest.approx(1.0), pytest.approx(1.0))


def test_errors(machine: Target) -> None:
    """It predicts 2 and 2 seconds for estimates of 4 and 2, the first executed three times."""
    pairs = [
        (observation(16, 0, 17.0), observation(16, 1, 4.0, repetitions=3.0)),
        (observation(16, 0, 17.0), observation(16, 1, 2.0)),
    ]
    found = fidelity(pairs, machine)
    assert (found.high, found.total) == (pytest.approx(0.5), pytest.approx((3 * 2 + 2) / (3 * 4 + 2)))


def test_ranks(machine: Target) -> None:
    """The largest saving predicted is the smallest one estimated, and so on."""
    pairs = [(observation(size, 0, 40.0), observation(size, 1, 40.0 - 1 / size)) for size in (18, 24, 30)]
    assert fidelity(pairs, machine).rank_correlation == pytest.approx(-1.0)


def test_nothing_to_compare(machine: Target) -> None:
    assert fidelity([], machine).count == 0


def test_pairs(machine: Target) -> None:
    one = observation(4, 0, 1.0)
    first = {("", "same"): one, ("", "moved"): one, ("", "other size"): one, ("", "gone"): one, ("", "other kind"): one}
    second = {
        ("", "same"): one, ("", "moved"): observation(4, 1, 0.5), ("", "other size"): observation(5, 1, 0.5),
        ("", "other kind"): observation(4, 1, 0.5, kind="matrix"),
    }  # fmt: skip
    assert pairs_of(first, second) == [(one, observation(4, 1, 0.5))]


def made(size: int, arithmetic: float, space: int) -> EstimatedInstruction:
    """Returns what is stated on a machine whose slow memory is two thirds as fast, and has a latency of a second."""
    data = 1.5 * size + 1.0 if space == 0 else size / 16
    estimate = max(arithmetic, 0.5 * arithmetic + data)
    return EstimatedInstruction("matrix", arithmetic, (Touched(size * MIB, space),), estimate, 1.0)


def test_fit_finds_the_constants_that_the_estimates_were_made_with(machine: Target) -> None:
    machine = replace(machine, compute=replace(machine.compute, launch_seconds=2.0))
    sizes = [(size, share * size) for size in (2, 4, 8, 12, 16, 24, 32, 48) for share in (0.1, 1.0, 2.0, 3.0)]
    pairs = [(made(size, arithmetic, 0), made(size, arithmetic, 1)) for size, arithmetic in sizes]
    assert fidelity(pairs, machine).high > 1.0
    told: list[str] = []
    fitted = fit([CompilationPair(pairs, 1.0)], machine, told.append)
    unseen = [(made(size, 1.5 * size, 0), made(size, 1.5 * size, 1)) for size in (3, 10, 40)]
    for known in (pairs, unseen):
        for direction in (known, [(b, a) for a, b in known]):
            assert fidelity(direction, fitted).median < 0.05
    slow, fast = (space.exposed["matrix"] for space in fitted.spaces)
    assert slow.read == pytest.approx(MIB / 1.5, rel=0.2)
    assert slow.read <= fast.read <= 16.0 * MIB
    assert fitted.compute.exposed["matrix"] == pytest.approx(0.5, rel=0.2)
    # Of the other kinds nothing was seen.
    assert [space.exposed["vector"] for space in fitted.spaces] == [space.exposed["vector"] for space in machine.spaces]
    assert [line.rpartition(", loss")[0] for line in told] == ["generic: matrix: 32 instructions"]


@pytest.mark.parametrize(
    ("name", "median", "total"),
    [
        ("transformer_infer.tpu-v5e", 0.05, 0.2),
        ("resnet50_infer.tpu-v4", 0.15, 0.1),
        ("decode_kv.tpu-v6e", 0.02, 0.1),
        ("mlp_mixer.tpu-7x", 0.05, 0.1),
    ],
)
def test_real_modules(name: str, median: float, total: float) -> None:
    """The shipped constants predict most estimates of the other module of a pair, and their sum, in both directions."""
    target = load_target(name.split(".")[1])
    default, slow = (observe(read(DUMPS / f"{name}.{kind}.hlo.txt.gz"), target) for kind in ("default", "slow"))
    pairs = pairs_of(default, slow)
    assert len(pairs) > 50
    assert sum(len(of_kind(pairs, kind)) for kind in KINDS) == len(pairs)
    for direction in (pairs, [(b, a) for a, b in pairs]):
        found = fidelity(direction, target)
        assert found.median < median
        assert abs(found.total - 1.0) < total


SCRIPT = ROOT / "scripts" / "fit_cost_model"


@pytest.mark.slow
def test_the_script_prints_a_table(tmp_path: Path) -> None:
    for variant in ("default", "slow"):
        name = f"lstm.tpu-v5e.{variant}.hlo.txt.gz"
        (tmp_path / name).write_bytes((DUMPS / name).read_bytes())
    command = [sys.executable, str(SCRIPT), "--fit", "--target", "tpu-v5e", str(tmp_path)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[0].split()[:3] == ["target", "model", "kind"]
    assert lines[1].split()[:4] == ["tpu-v5e", "stored", "all", "backward"]
    assert lines.index("tpu-v5e: hbm:") < lines.index("tpu-v5e: vmem:") < lines.index("tpu-v5e: compute:")
    assert lines[lines.index("tpu-v5e: vmem:") + 1].startswith("    exposed.move = { read = ")


@pytest.mark.parametrize("name", ["tpu-v4", "tpu-v5e", "tpu-v5p", "tpu-v6e", "tpu-7x"])
def test_the_script_rewrites_a_target(name: str) -> None:
    """The shipped constants are as it writes them, and in their place: with others, only these lines change."""
    script: Any = runpy.run_path(str(SCRIPT))
    text = (ROOT / "compiler" / "hardware" / "targets" / f"{name}.toml").read_text()
    target = parse_target(text)
    assert script["rewritten"](text, script["constants"](target)) == text
    slow, fast = target.spaces
    slow = replace(slow, exposed={**slow.exposed, "vector": Exposure(123e9, 45.6e9, 0.0, 7.8e-7)})
    changed = script["rewritten"](text, script["constants"](replace(target, spaces=(slow, fast))))
    assert parse_target(changed).spaces[0].exposed == slow.exposed
    assert len(set(changed.splitlines()) - set(text.splitlines())) == 1
