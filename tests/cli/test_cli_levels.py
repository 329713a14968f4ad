"""`memplan levels`, on a program of the user's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from memplan.cli.main import main

PROGRAM = """
import jax
import jax.numpy as jnp


def program():
    keys = jax.random.split(jax.random.key(0), 3)
    params = {name: jax.random.normal(key, (16, 16)) * scale for name, key, scale in zip("ab", keys, (1.0, 0.01))}

    def fun(params, x):
        return x @ params["a"] + x @ params["b"]

    return fun, (params, jax.random.normal(keys[2], (8, 16)))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "network_of_mine.py").write_text(PROGRAM)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ran(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(["levels", "network_of_mine:program", *arguments])
    done = capsys.readouterr()
    return status, done.out, done.err


def test_the_weight_that_matters_less_gets_fewer_bits(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = ran(capsys, "--method", "mixed-precision", "--budget", "24%", "--json")
    assert status == 0
    found = json.loads(out)
    assert found["before"] == 2048
    assert found["after"] <= found["budget"] == 491
    assert [level["name"] for level in found["levels"]] == ["8 bits", "2 bits"]
    assert found["measured"] < found["uniform"]["measured"]


def test_the_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = ran(capsys, "--method", "low-rank", "--budget", "1.5KiB")
    assert (status, err) == (0, "")
    assert "2.00 KiB of parameters become" in out
    assert "proven best by the model" in out
    assert "['b']  rank" in out


def test_a_program_without_attention_has_no_keys(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = ran(capsys, "--method", "matryoshka-kv", "--budget", "50%")
    assert (status, out) == (2, "")
    assert "matryoshka-kv finds no attention in the program" in err


def test_a_peak_as_it_is_planned(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limits = ("--method", "low-rank", "--budget", "80%", "--cost", "peak", "--effort", "fast")
    status, out, _ = ran(capsys, *limits, "--json")
    assert status == 0
    found = json.loads(out)
    assert found["budget"] == pytest.approx(0.8 * found["planned_before"])
    assert found["after"] < found["planned"] <= found["budget"]
    # The weight that matters less is the one that gives.
    assert found["levels"][0]["error"] >= found["levels"][1]["error"] or found["levels"][0]["name"] == "as given"
    assert found["bound"] <= found["error"]


def test_the_fewest_bits_take_longest(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To make weights from codes takes time: within the latency as given there is one choice."""
    limits = ("--method", "mixed-precision", "--budget", "100%", "--cost", "latency", "--effort", "fast")
    status, out, _ = ran(capsys, *limits)
    assert status == 0
    assert out.count("as given") >= 2
    assert "planned latency" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--method", "wavelets", "--budget", "30%"), "no method is called 'wavelets'"),
        (("--method", "low-rank", "--budget", "many"), "--budget many: must be bytes, such as 12MiB, or a share"),
        (
            ("--method", "low-rank", "--budget", "12KiB", "--cost", "latency"),
            "--budget 12KiB: must be a time, such as 20us or 1.5ms, or a share",
        ),
        (
            ("--method", "low-rank", "--budget", "1 ns", "--cost", "latency", "--effort", "fast"),
            "choices has an objective within 1e-09",
        ),
        (("--method", "low-rank", "--budget", "1%"), "no choice has a total cost within 20: the least is 256"),
    ],
)
def test_bad_input_is_named(
    arguments: tuple[str, ...], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = ran(capsys, *arguments)
    assert (status, out) == (2, "")
    assert message in err
