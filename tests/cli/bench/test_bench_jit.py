"""`memplan bench jit`: what it prints and writes, never how long anything takes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memplan.cli.bench import jit as bench_jit

Run = Callable[..., Any]


def test_rows_of_both_and_the_overhead(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "jit.json"
    done = run("bench", "jit", "--rounds", "2", "--json", file)
    assert done.status == 0
    data = json.loads(file.read_text())
    assert data["bench"] == "jit"
    assert [row["function"] for row in data["rows"]] == ["1 ms of work", "x + 1", "200 arrays"]
    for row in data["rows"]:
        assert row["jax"] > 0
        assert row["overhead"] == row["memplan"] / row["jax"] - 1
    assert data["summary"] == {"rounds": 2, "limit": 0.05, "overhead": data["rows"][0]["overhead"]}
    assert "asked: under 5%" in done.out


def test_both_are_called_equally_often() -> None:
    calls: list[int] = []

    class Counted:
        def __call__(self, x: float) -> Any:
            import jax

            return jax.pure_callback(lambda x: calls.append(1) or x, jax.ShapeDtypeStruct((), "float32"), x)

    bench_jit.measure(bench_jit.Case("counted", Counted(), (1.0,), 3), rounds=4)
    assert len(calls) == 2 * (1 + 4 * 3)


def test_mistakes(run: Run, tmp_path: Path) -> None:
    for arguments in (("--rounds", "0"), ("--json", tmp_path)):
        done = run("bench", "jit", *arguments)
        assert done.status == 2
        assert len(done.errors) == 1
