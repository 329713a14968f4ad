"""`memplan train` and `memplan bench agent`, on programs of few moves; the learning itself is tested beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from memplan.cli.bench import agent as bench_agent
from memplan.cli.bench.agent_problems import named_problem
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
        (["--resume", "--seed", "1"], "leave it out"),
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


def row(problem: str, arm: str, seed: int, start: float, *at: float, optimum: float | None = None) -> bench_agent.Row:
    return {"problem": problem, "arm": arm, "seed": seed, "start": start, "optimum": optimum, "at": list(at)}


ROWS = [
    row("a", "agent", 0, 10.0, 12.0, 8.0),
    row("a", "agent", 1, 10.0, 9.5, 9.0),
    row("a", "frozen", 0, 10.0, 11.0, 9.0),
    row("a", "frozen", 1, 10.0, 11.0, 9.0),
    row("b", "agent", 0, 10.0, 10.0, 10.0, optimum=9.9),
    row("b", "frozen", 0, 10.0, 10.0, 9.9, optimum=9.9),
    row("c", "agent", 0, 10.0, 10.0, 7.5, optimum=5.0),
]


def test_shares_of_the_room() -> None:
    """The best known latency of `a` is 8, that of `c` is planted, and `b` has too little room to count."""
    shares = {(found["problem"], found["arm"], found["seed"]): found["share"] for found in bench_agent.shares(ROWS)}
    assert shares["a", "agent", 0] == [-1.0, 1.0]
    assert shares["a", "frozen", 0] == [-0.5, 0.5]
    assert shares["c", "agent", 0] == [0.0, 0.5]
    assert not any(problem == "b" for problem, _, _ in shares)
    summary = bench_agent.summarize(ROWS)
    assert summary["room"] == pytest.approx({"a": 0.2, "b": 0.01, "c": 0.5})
    assert summary["arms"]["agent"]["shares"] == pytest.approx([(-1.0 + 0.25 + 0.0) / 3, (1.0 + 0.5 + 0.5) / 3])
    assert bench_agent.compared(ROWS, "frozen") == (1, 0), "the other pair is even"
    assert json.loads(json.dumps(summary)) == summary


def test_sign_test() -> None:
    assert bench_agent.sign_test(0, 0) == 1.0
    assert bench_agent.sign_test(3, 3) == 1.0
    assert bench_agent.sign_test(8, 0) == pytest.approx(2 / 2**8)
    assert bench_agent.sign_test(1, 9) == pytest.approx(2 * 11 / 2**10)


def test_problems_by_name() -> None:
    whole, half = named_problem("lstm.tpu-v5e").problem, named_problem("lstm.tpu-v5e@0.5").problem
    assert half.spaces[1].capacity == whole.spaces[1].capacity // 2
    planted = named_problem("placement:100")
    assert planted.optimum is not None
    assert planted.problem.end == 100
    for wrong, said in (
        ("placement:x", "number"),
        ("lstm.tpu-v5e@2", "part of the fast memory"),
        ("nothing", "nothing"),
    ):
        with pytest.raises(MemplanError, match=said):
            named_problem(wrong)


def test_the_bench_measures_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem = named_problem("placement:60").problem
    problem.save(tmp_path / "small.json")
    file = tmp_path / "rows.json"
    run = ["bench", "agent", "--problems", str(tmp_path / "small.json"), "--minutes", "0.0005,0.001", "--seeds", "1"]
    run += ["--arms", "random,search", "--json", str(file), "--markdown"]
    assert main(run) == 0
    shown = capsys.readouterr().out
    assert "| random |" in shown
    rows = json.loads(file.read_text())["rows"]
    assert [found["arm"] for found in rows] == ["random", "search"]
    assert all(found["violations"] == 0 and len(found["at"]) == 2 for found in rows)
    assert rows[1]["at"][-1] <= rows[1]["start"]
    assert main([*run, "--resume"]) == 0
    assert json.loads(file.read_text())["rows"] == rows, "what the file has is not measured again"
    assert main(["bench", "agent", "--minutes", "0"]) == 2
    assert main(["bench", "agent", "--arms", "luck"]) == 2
