"""`memplan contraction`."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from memplan.cli.main import main

CHAIN = "ij,jk,kl,l->i"


def test_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["contraction", CHAIN, "--sizes", "64"]) == 0
    out = capsys.readouterr().out
    assert "4 tensors: 24.6 k flops, a peak of 512 B beside the tensors" in out
    assert "proven: no order has less flops" in out
    assert "from left to right: 1.06 M flops, a peak of 32.0 KiB" in out
    assert "kl,l->k" in out


def test_json_has_the_path_of_einsum(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["contraction", CHAIN, "--sizes", "i=2,3,l=5", "--minimize", "peak", "--itemsize", "8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sizes"] == {"i": 2, "j": 3, "k": 3, "l": 5}
    assert (found["minimize"], found["is_optimal"]) == ("peak", True)
    arrays = [np.ones([found["sizes"][index] for index in part]) for part in ("ij", "jk", "kl", "l")]
    path = ["einsum_path", *map(tuple, found["path"])]
    assert np.einsum(CHAIN, *arrays, optimize=path).tolist() == [45.0, 45.0]


def test_many_steps_are_shown_at_both_ends(capsys: pytest.CaptureFixture[str]) -> None:
    indices = [chr(200 + number) for number in range(71)]
    expression = ",".join(a + b for a, b in itertools.pairwise(indices)) + f"->{indices[0]}{indices[-1]}"
    assert main(["contraction", expression, "--sizes", "3", "--effort", "fast"]) == 0
    out = capsys.readouterr().out
    assert "9 more" in out
    assert "the least flops that was found; no order has less than" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sizes", "i=2,z=3"], "'z=3' is not INDEX=SIZE"),
        (["--sizes", "i=2,x"], "'x' is not INDEX=SIZE"),
        (["--sizes", "3,4"], "the size of all others is there twice"),
        (["--sizes", "i=3,i=4,1"], "i is there twice"),
        (["--sizes", "i=3"], "the index j has no size"),
        (["--sizes", "8", "--limit", "12 potatoes"], "a memory limit must be bytes"),
        (["--sizes", "8", "--limit", "1GiB", "--minimize", "peak"], "must be a number of flops"),
        (["--sizes", "8", "--limit", "1"], "no order has a peak within 1 bytes: the least is 64"),
        (["--sizes", "8", "--limit", "10", "--minimize", "peak"], "no order has flops within 10"),
    ],
)
def test_mistakes_are_told(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["contraction", CHAIN, *arguments]) == 2
    assert message in capsys.readouterr().err
