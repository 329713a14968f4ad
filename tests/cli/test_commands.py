"""plan, verify and show, on programs that are in order."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import memplan
from memplan.compiler.report.files import FILES

Run = Callable[..., Any]


def test_plan_prints_the_report(run: Run, module: Path) -> None:
    done = run("plan", module, "--target", "tpu-v5e", "--effort", "fast")
    assert (done.status, done.err) == (0, "")
    for words in (
        "step on tpu-v5e",
        "all in hbm",
        "XLA's own plan",
        "auto",
        "bound that no plan beats",
        "gap to bound",
    ):
        assert words in done.out


def test_plan_writes_the_plan_and_verify_accepts_it(run: Run, module: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    assert run("plan", module, "--effort", "fast", "--out", file).status == 0
    plan = memplan.Plan.load(file)
    assert (plan.planner, plan.target) == ("auto", "tpu-v5e")
    done = run("verify", file, module)
    assert (done.status, done.err) == (0, "")
    assert "plan.json is valid for step on tpu-v5e: " in done.out


def test_plan_writes_the_report(run: Run, module: Path, tmp_path: Path) -> None:
    done = run("plan", module, "--planner", "greedy", "--report", tmp_path / "report")
    assert done.status == 0
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == sorted(FILES)
    for name in FILES:
        assert name in done.out


def test_json_is_all_that_is_printed(run: Run, module: Path, tmp_path: Path) -> None:
    done = run("plan", module, "--target", "tpu-v5e", "--effort", "fast", "--json", "--report", tmp_path / "report")
    assert (done.status, done.err) == (0, "")
    data = json.loads(done.out)
    assert data == json.loads((tmp_path / "report" / "report.json").read_text())
    assert [mapping["planner"] for mapping in data["mappings"]] == ["slow", "xla", "auto"]


def test_a_time_limit_that_is_over_before_planning_is_said(run: Run, module: Path, tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    done = run("plan", module, "--target", "tpu-v5e", "--time-limit", "0.000001", "--out", out)
    assert done.status == 0, done.err
    assert done.err.count("the time limit of 1e-06 s is over before planning") == 1
    assert "The planner was stopped by its time limit" in done.out
    assert run("verify", out, module, "--target", "tpu-v5e").status == 0


def test_show_says_of_a_plan_what_plan_said(run: Run, module: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    planned = run("plan", module, "--planner", "greedy", "--out", file)
    shown = run("show", file, module)
    assert (shown.status, shown.err) == (0, "")
    assert shown.out == planned.out
    as_json = run("show", file, module, "--json", "--report", tmp_path / "report")
    assert json.loads(as_json.out)["program"]["name"] == "step"
    assert (tmp_path / "report" / "memory.png").stat().st_size > 10_000


def test_open_hands_the_page_to_the_browser(
    run: Run, module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or len(opened) < 3)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    file, folder = tmp_path / "plan.json", tmp_path / "report"
    done = run("plan", module, "--target", "tpu-v5e", "--planner", "slow", "--out", file, "--report", folder, "--open")
    assert (done.status, done.err) == (0, f"memplan: opened {folder / 'report.html'}\n")
    done = run("show", file, module, "--open")
    (written,) = tmp_path.glob("memplan-*/report.html")
    assert (done.status, done.err) == (0, f"memplan: opened {written}\n")
    assert opened == [(folder / "report.html").as_uri(), written.as_uri()]
    assert written.read_text() == (folder / "report.html").read_text()
    done = run("show", file, module, "--report", folder, "--open")
    assert (done.status, done.err) == (
        0,
        f"memplan: no browser could be opened here; the page is {folder / 'report.html'}\n",
    )


def test_the_plan_with_which_it_is_compared_is_not_shown_twice(run: Run, module: Path) -> None:
    data = json.loads(run("plan", module, "--planner", "xla", "--json").out)
    assert [mapping["planner"] for mapping in data["mappings"]] == ["slow", "xla"]


def test_the_target_is_guessed_and_said(run: Run, module: Path, dump: Path) -> None:
    done = run("plan", module, "--planner", "slow")
    assert (
        "memplan: planning for tpu-v5e, since the module has buffers in S(1) (--target chooses another)\n" in done.err
    )
    done = run("plan", dump, "--planner", "slow")
    assert "memplan: planning for tpu-v5e, since the module names it (--target chooses another)\n" in done.err


def test_violations_are_listed_and_the_status_is_1(run: Run, module: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    run("plan", module, "--planner", "greedy", "--out", file)
    data = json.loads(file.read_text())
    fast = next(row for row in data["residencies"] if row[1] == 1)
    fast[2] = -128  # offset
    file.write_text(json.dumps(data))
    done = run("verify", file, module)
    assert done.status == 1
    assert "-128" in done.out
    assert len(done.out.splitlines()) == 1
    assert "memplan: the plan breaks the rules in 1 place\n" in done.err
    # A plan that breaks rules is worth nothing: there is nothing to show.
    done = run("show", file, module, "--report", tmp_path / "report")
    assert done.status == 1
    assert "-128" in done.out
    assert not (tmp_path / "report").exists()


def test_a_planner_whose_plan_is_wrong_writes_nothing(run: Run, module: Path, tmp_path: Path, registries: None) -> None:
    import dataclasses

    from memplan.planners import planner as planners

    slow = planners.get("slow")

    def solve(problem: memplan.MappingProblem, budget: memplan.Budget) -> memplan.Plan:
        plan = slow.solve(problem, budget)
        return dataclasses.replace(plan, residencies=plan.residencies[:-1], planner="careless")

    memplan.register_planner(memplan.Planner("careless", "forgets a residency", solve))
    file = tmp_path / "plan.json"
    done = run("plan", module, "--planner", "careless", "--out", file, "--report", tmp_path / "report")
    assert done.status == 1
    assert "the plan breaks the rules" in done.err
    assert not file.exists()
    assert not (tmp_path / "report").exists()


def test_a_program_of_another_origin(run: Run, tmp_path: Path) -> None:
    """A module from a CPU says nothing of memories: it is planned for the generic target, and has no plan of XLA's."""
    file = tmp_path / "cpu.txt"
    file.write_text(
        "HloModule cpu\n\nENTRY main {\n  x = f32[256]{0} parameter(0)\n  y = f32[256]{0} exponential(x)\n"
        "  ROOT z = f32[256]{0} add(x, y)\n}\n"
    )
    done = run("plan", file, "--planner", "greedy")
    assert done.status == 0
    assert "memplan: planning for generic, since the module does not say what it was compiled for" in done.err
    assert "XLA's own plan" not in done.out


def test_a_target_of_ones_own(run: Run, module: Path, tmp_path: Path) -> None:
    from memplan.compiler.hardware import targets

    text = (Path(targets.__file__).parent / "tpu-v5e.toml").read_text()
    own = tmp_path / "my-chip.toml"
    own.write_text(text.replace("tpu-v5e", "my-chip"))
    done = run("plan", module, "--planner", "greedy", "--target", own, "--out", tmp_path / "plan.json")
    assert done.status == 0
    assert "step on my-chip" in done.out
    # The plan names a target that only its file describes.
    assert run("verify", tmp_path / "plan.json", module).status == 2
    assert run("verify", tmp_path / "plan.json", module, "--target", own).status == 0


def test_warnings_are_printed_once_each(run: Run, tmp_path: Path, module: Path) -> None:
    file = tmp_path / "new.txt"
    file.write_text(
        module.read_text().replace("exponential(", "hyperbolic-dream(").replace("tanh(", "hyperbolic-dream(")
    )
    done = run("plan", file, "--planner", "greedy")
    assert done.status == 0
    warnings = [line for line in done.err.splitlines() if line.startswith("memplan: warning:")]
    assert len(warnings) == 1
    assert "hyperbolic-dream" in warnings[0]
