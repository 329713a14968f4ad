"""`memplan bench export-c`, on one program of a network that takes no time."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from memplan.backends.c import toolchain
from memplan.cli.bench import export_c as bench
from memplan.cli.bench import mcu_programs
from memplan.cli.bench.mcu_programs import McuProgram
from memplan.cli.main import main
from memplan.passes.update_scheme import UpdateScheme
from memplan.workloads import mcu
from memplan.workloads.quantized_network import InvertedResidualSpec, network_of

BLOCKS = (InvertedResidualSpec(8, 3, 1, 16), InvertedResidualSpec(32, 3, 2, 8))


@pytest.fixture
def one_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the training step of a network of six convolutions."""
    whole = mcu_programs.exported_programs

    def training(name: str, stripes: int) -> Iterator[McuProgram]:
        return (program for program in whole(name, stripes) if program.states)

    monkeypatch.setitem(mcu.NETWORKS, "mcunet", lambda: network_of(8, BLOCKS, 16, 4))
    monkeypatch.setitem(mcu_programs.PUBLISHED, "mcunet", {99: UpdateScheme(2, ((5, 1.0),))})
    monkeypatch.setattr(mcu_programs, "exported_programs", training)


@pytest.mark.skipif(not toolchain.is_installed("gcc"), reason="not installed: gcc")
def test_a_training_step_is_compiled_and_run(
    one_program: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "c.json"
    arguments = ["--networks", "mcunet", "--stripes", "2", "--effort", "fast", "--markdown"]
    assert main(["bench", "export-c", *arguments, "--json", str(file)]) == 0
    results = json.loads(file.read_text())
    (row,) = results["rows"]
    assert (row["network"], row["program"]) == ("mcunet", "training step, 99 kB scheme")
    assert sum(row["kernel_seconds"].values()) == pytest.approx(row["seconds"])
    if row["instructions"] is not None:
        assert sum(row["kernel_instructions"].values()) == row["instructions"] > 10_000
    if row["code"] is not None:
        assert 0 < row["code"] < row["flash"]
    assert results["summary"] == {"largest_arena": row["arena"], "largest_flash": row["flash"]}
    assert capsys.readouterr().out.strip() == bench.markdown_table([row])


def test_what_is_not_installed_leaves_its_columns_empty() -> None:
    row = {"network": "mbv2", "program": "inference", "steps": 3, "arena": 2048, "code": None, "flash": None}
    line = bench.markdown_table([row | {"instructions": None, "seconds": 0.0125}]).splitlines()[-1]
    assert line == "| mbv2 | inference | 3 | 2.0 KiB |  |  |  | 12.5 |"


def test_without_a_compiler_the_bench_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(toolchain, "is_installed", lambda program: False)
    assert main(["bench", "export-c"]) == 2
    assert "bench export-c needs gcc, which is not installed" in capsys.readouterr().err
