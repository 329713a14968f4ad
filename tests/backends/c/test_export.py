"""Whole networks in C agree with JAX: forward bit for bit, one training step, on this machine and on an emulated board."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exported import differences, needs, run

from memplan import workloads
from memplan.backends.c import toolchain
from memplan.backends.c.export import ArenaTooSmallError, CExport, export_c
from memplan.backends.c.source import identifier, remark


@pytest.fixture(scope="module")
def network() -> CExport:
    fun, args = workloads.get("mbv2_int8_infer").build(tiny=True)
    return export_c(fun, *args, constant_argnums=0, effort="fast", name="tiny */ int evil(void); /* network")


@needs("gcc")
def test_an_int8_network_has_the_bits_of_jax(network: CExport, tmp_path: Path) -> None:
    assert run(network, tmp_path) == {"result_0": 0}


@needs("clang")
def test_clang_has_nothing_to_say(network: CExport, tmp_path: Path) -> None:
    assert run(network, tmp_path, "clang", ("-O1",)) == {"result_0": 0}


@needs("arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm")
def test_a_cortex_m7_runs_it(network: CExport, tmp_path: Path) -> None:
    network.write(tmp_path / "c")
    printed = toolchain.run_on_board(tmp_path / "c", tmp_path, "-O1")
    assert differences(printed) == {"result_0": 0}
    counts = toolchain.step_instructions(printed)
    assert len(counts) == len(network.plan.order)
    assert all(count > 0 and count % 40 == 0 and name.startswith("run_") for name, count in counts)
    assert toolchain.step_instructions(toolchain.run_on_board(tmp_path / "c", tmp_path, "-O1")) == counts
    sizes = toolchain.cortex_m7_sizes(tmp_path / "c", tmp_path, optimize="-O1")
    assert (sizes.bss, sizes.data) == (network.plan.arena, 0)
    assert 0 < sizes.code < sizes.text


@needs("gcc")
def test_a_training_step_writes_its_states_in_place(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    w = {"in": random.normal(size=(6, 5)).astype(np.float32), "out": random.normal(size=5).astype(np.float32)}

    def step(w: Any, x: Any, keep: Any) -> tuple[Any, Any]:
        def loss(w: Any) -> Any:
            hidden = jnp.where(keep, jnp.tanh(x @ w["in"]), 0)
            return ((hidden @ w["out"]) ** 2).mean()

        value, g = jax.value_and_grad(loss)(w)
        return jax.tree.map(lambda w, g: w - 0.1 * g, w, g), value

    made = export_c(
        step, w, random.normal(size=(4, 6)).astype(np.float32), random.random((4, 5)) > 0.5, state_argnums=0
    )
    assert set(run(made, tmp_path)) == {"state_argument_0_in", "state_argument_0_out", "result_0"}
    times = toolchain.step_seconds(tmp_path / "model_test")
    assert len(times) == len(made.plan.order)
    assert all("test_export.py" in name for name, _ in times)


def test_names_are_data(network: CExport) -> None:
    assert "evil(void); /*" not in network.files["model.c"]
    assert identifier('int x; system("rm")') == "int_x_system_rm"
    assert identifier("…") == "unnamed"
    text = remark("*/ evil(); /* // \\\n ??/")
    assert not any(each in text for each in ("*/", "/*", "\\", "\n", "??/"))


def test_files_say_what_the_arena_takes(network: CExport) -> None:
    header = network.files["model.h"]
    assert re.search(rf"#define MODEL_ARENA_BYTES {network.plan.arena}u$", header, re.MULTILINE)
    assert "int8_t *model_input_argument_1(void);" in header
    assert "malloc" not in "".join(network.files.values())


def test_a_budget_below_the_minimum_is_refused_with_it() -> None:
    fun, args = workloads.get("mbv2_int8_infer").build(tiny=True)
    with pytest.raises(ArenaTooSmallError, match=r"does not fit into 100 bytes: no arena below 1,280 bytes"):
        export_c(fun, *args, constant_argnums=0, budget=100, effort="fast")
