"""`memplan train` and `memplan bench agent`, on a program of few moves; the learning itself is tested beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from memplan.cli.bench import agent as bench_agent
from memplan.cli.bindings import Bindings
from memplan.cli.main import main
from memplan.cli.train import read_problem
from memplan.compiler.errors import MemplanError
from memplan.workloads import dumps_folder

DUMP = dumps_folder() / "lstm.tpu-v5e.default.hlo.txt.gz"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--minutes", "0"], "must be more than 0"),
        (["--search", "alpha"], "must be one of gumbel, muzero, none"),
        (["--simulations", "0"], "a search needs at least one"),
        (["--resume", "--seed", "1"], "leave them out"),
        (["--resume"], "no run to resume"),
    ],
)
def test_mistakes(arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["train", str(DUMP), "--out", str(out), *arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("memplan: error: ")
    assert said in error
    assert not out.exists()


def test_a_problem_as_json(tmp_path: Path) -> None:
    problem = read_problem(DUMP, None, Bindings())
    problem.save(tmp_path / "problem.json")
    assert read_problem(tmp_path / "problem.json", None, Bindings()) == problem
    with pytest.raises(MemplanError, match="is a problem for tpu-v5e, not for tpu-v4"):
        read_problem(tmp_path / "problem.json", "tpu-v4", Bindings())


ROWS = [
    {
        "dump": "a",
        "moves": 12,
        "bound": 0.9,
        "violations": 0,
        "curves": {"greedy": [(0.1, 1.0)], "evolution": [(1.0, 1.5), (2.0, 1.2)], "agent": [(1.0, 1.1), (3.0, 0.9)]},
    },
    {
        "dump": "b",
        "moves": 30,
        "bound": 1.0,
        "violations": 0,
        "curves": {"greedy": [(0.1, 2.0)], "evolution": [(1.0, 2.0)], "agent": [(1.0, 2.2)]},
    },
]


def test_bench_summary() -> None:
    summary = bench_agent.summarize(ROWS)
    assert summary["agent"]["mean_ratio_to_greedy"] == pytest.approx((0.9 * 1.1) ** 0.5)
    assert summary["agent"]["better_than_greedy"] == 1
    assert summary["evolution"]["not_worse_than_greedy"] == 1
    assert summary["agent"]["proven_best"] == 1


def test_bench_picture(tmp_path: Path) -> None:
    bench_agent.draw(ROWS, tmp_path / "curves.svg")
    assert "latency" in (tmp_path / "curves.svg").read_text()
    with pytest.raises(MemplanError, match="cannot write"):
        bench_agent.draw(ROWS, tmp_path / "curves.nothing")


def test_bench_rows_are_json() -> None:
    assert json.loads(json.dumps(bench_agent.summarize(ROWS)))["greedy"]["mean_ratio_to_greedy"] == 1.0
