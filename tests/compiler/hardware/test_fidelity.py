"""Comparing modules compiled twice, and fitting what one foretells of the other."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from memplan.compiler.frontends import read
from memplan.compiler.hardware.fidelity import Observation, fidelity, fit, observe, of_kind, pairs_of
from memplan.compiler.hardware.target import KINDS, Target, load_target
from memplan.compiler.hardware.work import Work

ROOT = Path(__file__).parents[3]
DUMPS = ROOT / "workloads" / "dumps"
MIB = 2**20


@pytest.fixture
def machine() -> Target:
    """A slow memory of 1 MiB per second and a fast one of 16; nothing else takes time."""
    target = load_target("generic")
    spaces = tuple(
        replace(space, bandwidth=rate, peak_bandwidth=rate, exposed_bandwidth=dict.fromkeys(KINDS, rate))
        for space, rate in zip(target.spaces, (1.0 * MIB, 16.0 * MIB), strict=True)
    )
    return replace(target, spaces=spaces)


def observation(
    size: int, space: int, estimate: float, repetitions: float = 1.0, opcode: str = "fusion"
) -> Observation:
    return Observation(opcode, Work(), ((size * MIB, space),), estimate, repetitions)


def test_a_model_that_is_right(machine: Target) -> None:
    pairs = [(observation(size, 0, size + 1.0), observation(size, 1, size / 16 + 1.0)) for size in (4, 8, 16)]
    found = fidelity(pairs, machine)
    assert (found.count, found.median, found.high) == (3, pytest.approx(0.0, abs=1e-9), pytest.approx(0.0, abs=1e-9))
    assert (found.total, found.rank_correlation) == (pytest.approx(1.0), pytest.approx(1.0))


def test_errors(machine: Target) -> None:
    """It foretells 2 and 2 seconds for estimates of 4 and 2, the first executed three times."""
    pairs = [
        (observation(16, 0, 17.0), observation(16, 1, 4.0, repetitions=3.0)),
        (observation(16, 0, 17.0), observation(16, 1, 2.0)),
    ]
    found = fidelity(pairs, machine)
    assert (found.high, found.total) == (pytest.approx(0.5), pytest.approx((3 * 2 + 2) / (3 * 4 + 2)))


def test_ranks(machine: Target) -> None:
    """The largest saving foretold is the smallest one estimated, and so on."""
    pairs = [(observation(size, 0, 40.0), observation(size, 1, 40.0 - 1 / size)) for size in (18, 24, 30)]
    assert fidelity(pairs, machine).rank_correlation == pytest.approx(-1.0)


def test_nothing_to_compare(machine: Target) -> None:
    assert fidelity([], machine).count == 0


def test_pairs(machine: Target) -> None:
    one = observation(4, 0, 1.0)
    first = {("", "same"): one, ("", "moved"): one, ("", "other size"): one, ("", "gone"): one}
    second = {
        ("", "same"): one, ("", "moved"): observation(4, 1, 0.5), ("", "other size"): observation(5, 1, 0.5),
    }  # fmt: skip
    assert pairs_of(first, second) == [(one, observation(4, 1, 0.5))]


def test_fit_finds_the_bandwidths_that_the_estimates_were_made_with(machine: Target) -> None:
    """Estimates of a machine whose slow memory is two thirds as fast for the vector unit, its fast one half."""
    pairs = []
    for size in (8, 12, 16, 24, 32, 48):
        overhead = size / 10
        pairs.append((observation(size, 0, overhead + 1.5 * size), observation(size, 1, overhead + size / 8)))
    assert fidelity(pairs, machine).median > 0.2
    fitted = fit(pairs, machine)
    assert fidelity(pairs, fitted).median < 0.05
    slow, fast = (space.exposed_bandwidth["vector"] / MIB for space in fitted.spaces)
    assert 1 / slow - 1 / fast == pytest.approx(1.5 - 1 / 8, rel=0.05)
    assert fast <= 16.0
    assert [space.exposed_bandwidth["matrix"] for space in fitted.spaces] == [1.0 * MIB, 16.0 * MIB]


@pytest.mark.parametrize(
    ("name", "median", "total"),
    [("transformer_infer.tpu-v5e", 0.15, 0.2), ("resnet50_infer.tpu-v4", 0.15, 0.1), ("decode_kv.tpu-v6e", 0.05, 0.2)],
)
def test_real_modules(name: str, median: float, total: float) -> None:
    """The shipped constants foretell most estimates of the other module of a pair, and their sum, in both directions."""
    target = load_target(name.split(".")[1])
    default, slow = (observe(read(DUMPS / f"{name}.{kind}.hlo.txt.gz"), target) for kind in ("default", "slow"))
    pairs = pairs_of(default, slow)
    assert len(pairs) > 50
    assert sum(len(of_kind(pairs, kind)) for kind in KINDS) == len(pairs)
    for direction in (pairs, [(b, a) for a, b in pairs]):
        found = fidelity(direction, target)
        assert found.median < median
        assert abs(found.total - 1.0) < total


def test_the_script_prints_a_table(tmp_path: Path) -> None:
    for variant in ("default", "slow"):
        name = f"lstm.tpu-v5e.{variant}.hlo.txt.gz"
        (tmp_path / name).write_bytes((DUMPS / name).read_bytes())
    command = [sys.executable, str(ROOT / "scripts" / "fit_cost_model"), "--fit", str(tmp_path)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[0].split()[:3] == ["target", "model", "kind"]
    assert lines[1].split()[:6] == ["tpu-v5e", "stored", "all", "slow", "to", "default"]
    assert any(line.startswith("tpu-v5e: vmem: exposed_bandwidth = { move = ") for line in lines)
