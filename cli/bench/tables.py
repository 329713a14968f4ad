"""The tables of the documentation, and the commands that make them: what `scripts/run_benchmarks` runs.

A table is made of cells (memplan/cells.py). Each is one `memplan bench` command, for one dump or workload where the
bench takes them one by one. All are of one version, one effort and one compile budget. The exceptions say so by their
names.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memplan.compiler.effort import Effort

EFFORT = Effort.NORMAL
COMPILE_BUDGET = 8

# Stands in an argument for the folder of shipped dumps, which another machine has elsewhere.
DUMPS = "{dumps}"

# Programs whose peaks docs/peak.md has.
_PEAKS = (
    *("lstm", "mamba", "moe", "mlp_mixer", "decode_kv", "transformer_scan_train", "transformer_train", "lstm_train"),
    *("alexnet_train", "resnet50_train", "hyena", "neural_ode"),
)

# Dumps whose plans at the effort `normal` are above their bounds by more than 3 %.
_WITH_GAPS = (
    *("decode_kv.tpu-7x.default", "decode_kv.tpu-7x.slow", "transformer_train.tpu-v5e.default"),
    *("transformer_train.tpu-v5e.slow", "alexnet_train.tpu-v5p.default", "alexnet_train.tpu-v6e.default"),
    *("alexnet_train.tpu-v6e.slow", "transformer_scan_train.tpu-v5e.default", "transformer_scan_train.tpu-v5e.slow"),
)

# What a cell is named, and the arguments that it adds to those of its table.
Part = tuple[str, tuple[str, ...]]


def _one() -> list[Part]:
    return [("all", ())]


def _dumps() -> list[Part]:
    from memplan import workloads

    names = sorted(path.name for path in workloads.dumps_folder().glob("*.gz"))
    return [(name.removesuffix(".hlo.txt.gz"), ("--dumps", f"{DUMPS}/{name}")) for name in names]


def _with_gaps() -> list[Part]:
    return [(name, ("--dumps", f"{DUMPS}/{name}.hlo.txt.gz")) for name in _WITH_GAPS]


def _workloads() -> list[Part]:
    from memplan import workloads

    return [(name, ("--workloads", name)) for name in workloads.dumped_names()]


def _sharded() -> list[Part]:
    from memplan.workloads import sharded

    return [(each.name, ("--programs", each.name)) for each in sharded.PROGRAMS]


def _networks() -> list[Part]:
    return [(name, ("--networks", name)) for name in ("mbv2", "proxyless", "mcunet")]


def _maps() -> list[Part]:
    names = ("lstm.tpu-v5e", "transformer_train.tpu-v5e", "unet.tpu-v5e")
    return [(name, (f"{DUMPS}/{name}.default.hlo.txt.gz",)) for name in names]


@dataclass(frozen=True)
class BenchTable:
    """A table, and how it is made.

    Attributes:
      name: of the table, and of its result file in docs/results.
      arguments: of `memplan bench`, alike for all cells; of `memplan plan` for the table of memory maps.
      parts: returns the cells.
      module: of the bench, with functions `summarize` of rows and `markdown` of rows where there are several cells.
      summarize, markdown: names of these functions.
      alone: nothing runs beside it, since it measures seconds or has a limit of seconds.
      by_default: whether a run makes it that names no tables; the others take hours.
      left_out: lines of the table that the page does without.
    """

    name: str
    arguments: tuple[str, ...]
    parts: Callable[[], list[Part]] = _one
    module: str = ""
    summarize: str = "summarize"
    markdown: str = "markdown_table"
    alone: bool = False
    by_default: bool = True
    left_out: re.Pattern[str] | None = None

    def merged(self, found: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], str]:
        """Returns the result file and the table in Markdown.

        Args:
          found: `results` and `markdown` of each cell, in order.
        """
        if len(found) == 1:
            results, text = dict(found[0]["results"]), found[0]["markdown"]
        else:
            bench = importlib.import_module(f"memplan.cli.bench.{self.module}")
            rows = [row for cell in found for row in cell["results"]["rows"]]
            results = {**found[0]["results"], "rows": rows, "summary": getattr(bench, self.summarize)(rows)}
            text = getattr(bench, self.markdown)(rows)
        lines = text.strip().splitlines()
        if self.left_out is not None:
            lines = [line for line in lines if not self.left_out.search(line)]
        return results, "\n".join(lines)


_MAPPING = ("mapping", "--planners", "slow,xla,greedy,auto")
_TPU = ("tpu", "--planner", "greedy", "--compile-budget", str(COMPILE_BUDGET), "--effort", EFFORT.value)
# Twenty programs: with fewer compiles than the others.
_SHARDED = ("sharded", "--planner", "greedy", "--compile-budget", "4", "--effort", EFFORT.value)
_ON_V5E = tuple((name, ("--workloads", name, "--targets", "tpu-v5e")) for name in ("lstm", "moe", "neural_ode"))
_SLOW = re.compile(r"^\| \S+\.slow \|")

TABLES = (
    BenchTable("mapping_normal", (*_MAPPING, "--effort", EFFORT.value), _dumps, "mapping", left_out=_SLOW),
    BenchTable("mapping_high", (*_MAPPING, "--effort", "high"), _with_gaps, "mapping", by_default=False),
    BenchTable("mapping_fast", (*_MAPPING, "--effort", "fast"), _dumps, "mapping", left_out=_SLOW),
    BenchTable(
        "mapping_contended", (*_MAPPING, "--contended", "10000", "--time-limit", "60", "--markdown"), alone=True
    ),
    BenchTable(
        "mapping_contended_100000",
        ("mapping", "--contended", "100000", "--planners", "slow,greedy,auto", "--time-limit", "120", "--markdown"),
        alone=True,
    ),
    BenchTable("maps", ("plan", "--effort", EFFORT.value), _maps, "pictures", "no_summary", "no_table"),
    BenchTable("cold", ("cold", "--effort", EFFORT.value, "--markdown"), alone=True),
    BenchTable("tpu", _TPU, lambda: list(_ON_V5E), "tpu"),
    BenchTable("tpu_all", _TPU, _workloads, "tpu", by_default=False),
    BenchTable("sharded", _SHARDED, _sharded, "sharded", by_default=False),
    BenchTable("packing", ("packing", "--effort", EFFORT.value, "--markdown"), alone=True),
    BenchTable("memory", ("memory", "--effort", EFFORT.value), _workloads, "memory"),
    BenchTable(
        "memory_peak",
        ("memory", "--peak"),
        lambda: [(name, ("--workloads", name)) for name in _PEAKS],
        "memory_peak",
        "summarize_peaks",
        "peaks_markdown",
    ),
    BenchTable(
        "fit_planner",
        (
            "fit-planner",
            "--steps",
            "wide_mlp",
            "--sizes",
            "tiny",
            "--decoders",
            "1",
            "--effort",
            "normal",
            "--markdown",
        ),
    ),
    BenchTable("fit_planner_all", ("fit-planner", "--markdown"), alone=True, by_default=False),
    BenchTable("fit", ("fit", "--markdown"), alone=True, by_default=False),
    BenchTable("fidelity", ("fidelity", "--markdown")),
    BenchTable("fusion", ("fusion", "--effort", EFFORT.value, "--markdown")),
    BenchTable("fft", ("fft", "--markdown")),
    BenchTable("fft_cpu", ("fft", "--target", "cpu", "--markdown"), alone=True),
    BenchTable("passes", ("passes", "--markdown"), alone=True),
    BenchTable("levels", ("levels", "--markdown"), alone=True),
    BenchTable("contraction", ("contraction", "--effort", EFFORT.value, "--markdown"), alone=True),
    BenchTable("pipeline", ("pipeline", "--effort", EFFORT.value, "--markdown"), alone=True),
    BenchTable(
        "mcu",
        ("mcu", "--effort", "fast"),
        _networks,
        "mcu",
    ),
    BenchTable(
        "export_c",
        ("export-c", "--effort", "fast"),
        _networks,
        "export_c",
        alone=True,
    ),
    BenchTable("agent", ("agent", "--minutes", "2", "--markdown"), alone=True, by_default=False),
    BenchTable("jit", ("jit",), alone=True),
    BenchTable("parse", ("parse",), alone=True),
    BenchTable("game", ("game",), alone=True),
)


def table_named(name: str) -> BenchTable | None:
    """Returns the table of a name; None if there is none."""
    return next((table for table in TABLES if table.name == name), None)
