"""`memplan fit`: programs of the user's within a limit, and what it says where nothing fits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from training_programs import threshold_planner

from memplan.cli.main import main

PROGRAM = """
import jax
import jax.numpy as jnp


def program(batch=512):
    def step(w, x):
        def loss(w):
            y = x
            for _ in range(6):
                y = y + jnp.tanh(jax.nn.gelu(y @ w) @ w.T)
            return jnp.mean(y * y)

        return jax.value_and_grad(loss)(w)

    return step, (jax.ShapeDtypeStruct((32, 128), jnp.float32), jax.ShapeDtypeStruct((batch, 32), jnp.float32))


def fixed(batch=512):
    return program()


def without():
    return program()


def broken(batch=512):
    raise ValueError(f"no {batch}")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "step_of_mine.py").write_text(PROGRAM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("memplan.backends.fit.fit.planner_of", lambda effort: threshold_planner)
    monkeypatch.setattr("memplan.backends.fit.batch.planner_of", lambda effort: threshold_planner)
    return tmp_path


def ran(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(["fit", *arguments, "--effort", "fast"])
    done = capsys.readouterr()
    return status, done.out, done.err


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    status, out, _ = ran(capsys, *arguments, "--json")
    found: dict[str, Any] = json.loads(out)
    assert status == (0 if found["fits"] else 1)
    return found


def test_a_program_within_a_limit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = as_json(capsys, "step_of_mine:program", "--limit", "1GiB")
    assert whole["needed"] == whole["default"]["total"]
    assert whole["decisions"] == []
    limit = whole["needed"] - int(0.4 * whole["memory"]["temporaries"])
    found = as_json(capsys, "step_of_mine:program", "--limit", str(limit))
    assert found["needed"] <= limit < found["default"]["total"]
    assert any("step_of_mine.py:" in decision["origin"] for decision in found["decisions"])
    status, out, _ = ran(capsys, "step_of_mine:program", "--limit", str(limit))
    assert status == 0
    assert "computed again" in out
    assert "step_of_mine.py:" in out


def test_nothing_fits(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    memory = as_json(capsys, "step_of_mine:program", "--limit", "1GiB")["memory"]
    limit = memory["arguments"] + memory["results"] + 1
    found = as_json(capsys, "step_of_mine:program", "--limit", str(limit))
    assert found["least"] > found["limit"] == limit
    assert sum(group["bytes"] for group in found["standing"]["groups"]) <= found["standing"]["peak"]
    status, out, err = ran(capsys, "step_of_mine:program", "--limit", str(limit))
    assert status == 1
    assert "nothing was found that fits into 96.0 KiB" in out
    assert "Traceback" not in err


def test_a_limit_below_the_arguments_is_refused_before_compiling(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = as_json(capsys, "step_of_mine:program", "--limit", "10KiB")
    assert (found["attempts"], found["least"], found["is_interface"]) == ([], None, True)
    assert found["standing"]["groups"][0]["buffers"][0]["shape"] == "f32[512,32]"
    status, out, _ = ran(capsys, "step_of_mine:program", "--limit", "10KiB")
    assert status == 1
    assert out.startswith("nothing fits into 10.0 KiB; the arguments and results alone need 96.0 KiB")


def test_the_curve_falls_and_is_drawn(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = ran(capsys, "step_of_mine:program", "--curve", "--points", "3", "--json", "--picture", "curve.svg")
    assert status == 0
    found = json.loads(out)
    limits = [point["limit"] for point in found["points"]]
    temporaries = found["default"]["temporaries"]
    assert limits == [found["interface"] + temporaries * k // 4 for k in (3, 2, 1)][: len(limits)]
    assert len(limits) + (found["missed"] is not None) >= 2
    assert all(point["stated"] <= point["limit"] for point in found["points"])
    added = [point["added_seconds"] for point in found["points"]]
    assert added == sorted(added)
    assert added[0] > 0
    assert [attempt["name"] for attempt in found["attempts"]].count("as given") == 1
    picture = Path("curve.svg").read_text()
    assert "cheapest within a limit" in picture
    assert "step_of_mine:program on cpu" in picture


def test_the_curve_is_printed_and_ends_at_the_first_limit_that_is_missed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = ran(capsys, "step_of_mine:program", "--curve", "--points", "1", "--compile-budget", "1")
    assert status == 0
    assert "step_of_mine:program on cpu: 96.0 KiB are arguments and results" in out
    assert "of the step" in out
    assert out.splitlines()[-1].startswith("nothing was found that fits into")


@pytest.mark.slow
def test_the_largest_batch(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("step_of_mine:program", "--limit", "1MiB", "--max-batch", "--multiple-of", "64")
    found = as_json(capsys, *arguments, "--compile-budget", "6")
    assert found["batch"] % 64 == 0
    assert found["needed"] <= 2**20
    assert found["as_given"]["batch"] < found["batch"]
    assert found["as_given"]["needed"] <= 2**20
    assert len(found["attempts"]) <= 6
    fits = {attempt["batch"] for attempt in found["attempts"] if attempt["fits"]}
    assert max(fits) == found["batch"]
    assert found["added_seconds_per_sample"] == found["added_seconds"] / found["batch"]
    assert any(decision["decision"] == "computed again" for decision in found["decisions"])


@pytest.mark.slow
def test_the_largest_batch_is_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = ran(capsys, "step_of_mine:program", "--limit", "1GiB", "--max-batch", "--at-most", "40")
    assert status == 0
    lines = out.splitlines()
    assert lines[0].startswith("step_of_mine:program on cpu: batch 40 needs")
    assert lines[2] == "no larger batch was asked for"
    assert lines[4].split() == ["batch", "compile", "predicted", "stated", "added", "per", "sample"]
    assert lines[5].split()[:3] == ["40", "as", "given"]
    status, out, _ = ran(capsys, "step_of_mine:program", "--limit", "1KiB", "--max-batch")
    assert status == 1
    assert out.startswith("batch 1 does not fit: nothing fits into 1.00 KiB; the arguments and results alone need")
    status, out, _ = ran(capsys, "step_of_mine:program", "--limit", "1KiB", "--max-batch", "--json")
    assert (status, json.loads(out)["fits"], json.loads(out)["batch"]) == (1, False, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["step_of_mine:program", "--limit", "much"], "a memory limit must be bytes"),
        (["step_of_mine:program", "--limit", "1GiB", "--target", "mcu-256kb"], "no compiler here states"),
        (["step_of_mine:program", "--limit", "1GiB", "--compile-budget", "0"], "compile_budget must be"),
        (["step_of_mine:nothing", "--limit", "1GiB"], "step_of_mine has no nothing"),
        (["step_of_mine:program"], "say either --limit SIZE or --curve"),
        (["step_of_mine:program", "--curve", "--limit", "1GiB"], "say either --limit SIZE or --curve"),
        (["step_of_mine:program", "--limit", "1GiB", "--picture", "a.png"], "add --curve"),
        (["step_of_mine:program", "--curve", "--picture", "no/a.png"], "no/a.png"),
        (["step_of_mine:program", "--limit", "1GiB", "--at-most", "8"], "are for --max-batch"),
        (["step_of_mine:program", "--max-batch", "--curve"], "--max-batch takes a --limit, and no --curve"),
        (["step_of_mine:program", "--max-batch"], "say either --limit SIZE or --curve"),
        (["step_of_mine:program", "--limit", "1GiB", "--max-batch", "--at-least", "0"], "at_least must be"),
        (["step_of_mine:without", "--limit", "1GiB", "--max-batch"], "step_of_mine:without takes no batch"),
        (["step_of_mine:fixed", "--limit", "1GiB", "--max-batch"], "nothing in it depends on batch"),
        (["step_of_mine:broken", "--limit", "1GiB", "--max-batch"], "cannot be built for batch 1: ValueError: no 1"),
        (["step_of_mine:program", "--curve", "--points", "0"], "the number of points must be"),
    ],
)
def test_mistakes(folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    status, out, err = ran(capsys, *arguments)
    assert (status, out) == (2, "")
    assert message in err
