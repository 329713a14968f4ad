"""`memplan bench mcu`, on a network that takes no time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from memplan.cli.bench import mcu as bench
from memplan.cli.bench import mcu_programs
from memplan.cli.bench.rows import chosen_names
from memplan.cli.bench.tables import table_named
from memplan.cli.main import main
from memplan.passes.update_scheme import UpdateScheme, update_memory
from memplan.workloads import mcu
from memplan.workloads.quantized_network import InvertedResidualSpec, network_of

BLOCKS = (InvertedResidualSpec(8, 3, 1, 16), InvertedResidualSpec(32, 3, 2, 8), InvertedResidualSpec(16, 3, 1, 8))
SCHEME = UpdateScheme(3, ((6, 0.5), (8, 1.0)))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mcu.NETWORKS, "mcunet", lambda: network_of(8, BLOCKS, 32, 4))
    monkeypatch.setitem(mcu_programs.PUBLISHED, "mcunet", {99: SCHEME})


def test_each_rung_of_the_ladder_takes_less(small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mcu.json"
    arguments = ["bench", "mcu", "--networks", "mcunet", "--stripes", "4", "--effort", "fast", "--json", str(file)]
    assert main([*arguments, "--markdown"]) == 0
    rows = json.loads(file.read_text())["rows"]
    ladder = [row["peak"] for row in rows if row["kind"] == "ladder"]
    assert ladder == sorted(ladder, reverse=True)
    assert len(set(ladder)) == len(ladder) == 5
    assert all(row["bound"] <= row["peak"] <= row["arena"] for row in rows)
    (scheme,) = (row for row in rows if row["kind"] == "scheme")
    assert scheme["model"] == int(update_memory(SCHEME, mcu.NETWORKS["mcunet"]().layers).total)
    whole, striped = (row["peak"] for row in rows if row["kind"] == "inference")
    assert striped < whole
    printed = capsys.readouterr().out
    assert printed.strip() == bench.markdown_table(rows)
    assert "| mcunet | 99 kB scheme |" in printed


def test_published_figures_are_counted() -> None:
    rows = [
        {"kind": "ladder", "arena": 9, "peak": 8, "published": 8},
        {"kind": "scheme", "arena": 7, "peak": 6, "published": None},
        {"kind": "inference", "arena": 5, "peak": 5, "published": 4},
    ]
    assert bench.summarize(rows) == {"largest_scheme_arena": 7, "published": 2, "at_most_published": 1}


def test_an_unknown_network_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "mcu", "--networks", "mbv3"]) == 2
    assert "there is no 'mbv3'; there are: mbv2, proxyless, mcunet" in capsys.readouterr().err


def test_the_table_has_a_cell_for_each_network() -> None:
    table = table_named("mcu")
    assert table is not None
    assert [name for name, _ in table.parts()] == list(bench.NETWORKS)


def test_a_list_of_names_may_have_spaces_and_repeats() -> None:
    assert chosen_names("mbv2, mcunet,mbv2", "--networks", bench.NETWORKS) == ["mbv2", "mcunet"]
