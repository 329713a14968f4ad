"""`memplan bench fit`, on the tiniest steps: what it prints and writes, never how long anything takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memplan.backends import order_hook
from memplan.cli.bench import fit_methods, fit_summary
from memplan.cli.bench.fit import chosen_methods, headline
from memplan.cli.bench.fit_programs import difference

Run = Callable[..., Any]

SHORT = ("bench", "fit", "--size", "tiny", "--rounds", "1")


def row(method: str, ratio: float, temporaries: int, limit: int | None = None, **more: Any) -> dict[str, Any]:
    return {
        "step": "s", "method": method, "limit": limit, "temporaries": temporaries, "peak": temporaries + 50,
        "host": 0, "flops": 2e9, "cycles": 1e6 * ratio, "ratio": ratio,
    } | more  # fmt: skip


ROWS = [
    row("default", 1.0, 1000),
    row("block", 1.2, 400),
    row("dots", 1.05, 700),
    row("memplan", 1.0, 790, 80, predicted=800, first_stated=840, model_cost=0.01),
    row("memplan", 1.04, 600, 60, predicted=700, first_stated=650, model_cost=0.05),
    row("memplan", 1.3, 390, 40, predicted=440, first_stated=440, model_cost=0.12),
    row("memplan", 1.5, 300, 30, predicted=350, first_stated=None),
]


@pytest.mark.slow
def test_values_under_every_method_are_those_of_the_default(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "fit.json"
    methods = [method.name for method in chosen_methods(None, "cpu") if not method.takes_limit]
    arguments = (
        *SHORT, "--steps", "lstm", "--limits", "50,80", "--methods", ",".join(methods), "--json", file,
    )  # fmt: skip
    done = run(*arguments)
    assert done.status == 0, done.err
    data = json.loads(file.read_text())
    assert [row["method"] for row in data["rows"]] == methods
    for row in data["rows"]:
        assert "error" not in row
        assert row["difference"] < 1e-5
        assert row["peak"] > row["temporaries"] > 0
        assert row["flops"] > 0
    by_method = {row["method"]: row for row in data["rows"]}
    assert by_method["block"]["temporaries"] < 0.6 * by_method["default"]["temporaries"]
    assert data["summary"]["cells"] == 2
    # The rows of the file are complete, so nothing is measured again.
    again = run(*arguments, "--resume")
    assert json.loads(file.read_text()) == data
    assert again.out == done.out


@pytest.mark.skipif(not order_hook.is_supported("cpu"), reason="this jax sets no order")
def test_memplan_is_told_each_limit(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "fit.json"
    done = run(*SHORT, "--steps", "pair_counts", "--limits", "50,10", "--methods", "memplan", "--json", file)
    assert done.status == 0, done.err
    default, fits, cannot = json.loads(file.read_text())["rows"]
    assert (fits["method"], fits["limit"], cannot["limit"]) == ("memplan", 50, 10)
    assert fits["temporaries"] <= 0.5 * default["temporaries"]
    assert fits["difference"] == 0.0
    assert fits["compiles"] > 1
    assert "nothing was found that fits" in cannot["error"]


def test_cells_take_the_cheapest_baseline_that_fits() -> None:
    found = {cell.limit: cell for cell in fit_summary.cells(ROWS, [30, 40, 50, 60, 80])}
    assert [cell.baseline for cell in found.values()] == ["dots", "block", "block", "block", ""]
    assert found[80].cost == 0.0
    assert found[80].ratio == pytest.approx(0.01 / 0.06)
    assert found[60].ratio == pytest.approx(0.05 / 0.21)
    assert found[50].cost is None, "there is no row of ours"
    assert found[50].reason == ""
    assert found[40].reason == "costs +30.0 %, block +20.0 %"
    assert found[30].ratio is None
    assert found[30].reason == "", "no baseline fits"


def test_the_summary_counts_and_takes_the_mean() -> None:
    summary = fit_summary.summarize(ROWS, [30, 40, 60, 80])
    assert (summary["cells"], summary["baseline_fits"], summary["fits"], summary["fits_alone"]) == (4, 3, 4, 1)
    assert [cell["limit"] for cell in summary["lost"]] == [40]
    ratios = [0.01 / 0.06, 0.05 / 0.21, 0.31 / 0.21]
    assert summary["mean_ratio"] == pytest.approx(np.prod(ratios) ** (1 / 3))
    assert summary["cheap"] == {"80": 1, "60": 1, "40": 0, "30": 0}
    assert summary["cheap_by_model"] == {"80": 1, "60": 1, "40": 1, "30": 0}
    assert (summary["steps"], summary["above"], summary["same_program"]) == (1, 0, None)
    assert summary["median_prediction_error"] == pytest.approx(1 - 800 / 840), "of 0, 4.8 and 7.7 %"


def test_the_headline_says_what_the_figures_are() -> None:
    same = [
        row("default", 1.0, 1000, seconds=1.0),
        row("loss", 1.4, 1000, seconds=1.4),
        row("dots", 0.9, 1000, seconds=0.9),
    ]
    over = row("memplan", 1.0, 900, 80, seconds=1.0, predicted=999, first_stated=900)
    text = headline(fit_summary.summarize([*same, over], [80])).splitlines()
    assert text == [
        "1 cells (step and limit): a baseline fits 0, memplan fits 0, of them 0 that no baseline fits; 0 are lost",
        "programs of memplan above their limit: 1",
        "of 1 steps, memplan fits for less than 15 % more time: 0 at 80 %",
        "by its model of time: 0 at 80 %",
        "median difference of the first prediction from what the compiler stated: 11.0 %",
        "measured time of baselines that need as much as the default, over its time: 0.90 to 1.40",
    ]


def test_why_a_cell_is_lost() -> None:
    base = [row("default", 1.0, 1000), row("block", 1.2, 400)]

    def reason(ours: dict[str, Any]) -> str:
        return fit_summary.cells([*base, ours], [50])[0].reason

    assert reason(row("memplan", 1.0, 501, 50)) == "501 B of temporaries, 500 B allowed"
    assert reason({"step": "s", "method": "memplan", "limit": 50, "error": "no plan\nat its peak: …"}) == "no plan"
    assert reason(row("memplan", 1.21, 500, 50)) == "costs +21.0 %, block +20.0 %"
    assert reason(row("memplan", 1.21, 500, 50, seconds=1.0)) == "", "within the noise of a measurement"
    assert reason(row("memplan", 0.9, 500, 50)) == ""


def test_tables() -> None:
    lines = fit_summary.program_lines([*ROWS[:2], {"step": "s", "method": "xla", "limit": 50, "error": "refused"}])
    assert lines[1] == ("s", "block", "", "400 B", "40.0 %", "450 B", "2.00", "1,200,000", "", "+20.0 %")
    assert lines[2][:4] == ("s", "xla", "50 %", "–")
    cells = fit_summary.cell_lines(fit_summary.cells(ROWS, [60, 30]))
    assert cells == [
        ("s", "60 %", "block", "+20.0 %", "+4.0 %", "0.24", ""),
        ("s", "30 %", "none fits", "–", "+50.0 %", "", ""),
    ]


def test_differences_are_relative_to_the_largest_value() -> None:
    assert difference([np.array([1.0, 4.0])], [np.array([1.0, 5.0])]) == pytest.approx(0.2)
    assert difference([np.zeros(2)], [np.zeros(2)]) == 0.0
    assert difference([np.array([np.nan])], [np.array([1.0])]) == float("inf")


def test_xla_is_told_the_whole_limit() -> None:
    method = fit_methods.METHODS["xla"]
    assert method.options is not None
    assert method.options(3 * 2**20 + 1)["xla_tpu_max_hbm_size_mib"] == "4"


@pytest.mark.tpu
@pytest.mark.slow
def test_a_tpu_ahead_of_time(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "fit.json"
    done = run(
        "bench", "fit", "--size", "tiny", "--steps", "wide_mlp", "--target", "tpu-v5e", "--limits", "50",
        "--methods", "block,xla", "--markdown", "--json", file,
    )  # fmt: skip
    assert done.status == 0
    default, block, xla = json.loads(file.read_text())["rows"]
    assert default["cycles"] > 0
    assert block["ratio"] == block["cycles"] / default["cycles"]
    assert "RESOURCE_EXHAUSTED" in xla["error"], "the whole program takes less than the unit of the limit"
    assert "| wide_mlp | xla | 50 % | – |" in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "dotz"), "cpu has no method 'dotz'"),
        (("--methods", "offload"), "cpu has no method 'offload'"),
        (("--limits", "120"), "120 is more than 100 percent"),
        (("--limits", "none"), "'none' is not a number"),
        (("--target", "tpu-v1"), "one of cpu, tpu-7x"),
        (("--size", "huge"), "one of tiny, small, real"),
        (("--steps", "lstn"), "no training step is called 'lstn'"),
        (("--rounds", "0"), "at least 1"),
    ],
)
def test_mistakes(run: Run, arguments: tuple[str, ...], message: str) -> None:
    done = run("bench", "fit", *arguments)
    assert done.status == 2
    assert len(done.errors) == 1
    assert message in done.errors[0]
