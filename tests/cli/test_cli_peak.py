"""`memplan peak`: dumps, programs of the user's, and what XLA itself states about them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memplan.cli.peak import Grouping, is_file
from memplan.compiler.report.buffers import GroupBy

PROGRAM = """
import jax
import jax.numpy as jnp

from memplan import workloads


def f32(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def train(params, x):
    def loss(params):
        y = x
        for layer in params:
            y = y + jnp.tanh(y @ layer["up"]) @ layer["down"]
        return jnp.mean(y * y)

    value, gradients = jax.value_and_grad(loss)(params)
    return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients), value


def arguments():
    return ([{"up": f32(64, 256), "down": f32(256, 64)} for _ in range(3)], f32(512, 64))


def program():
    return train, arguments()


donated = workloads.Workload("donated", "a step", program, donate_argnums=(0,))


def attention():
    def attend(x, q, k, v):
        return jax.nn.softmax((x @ q) @ (x @ k).T / 16.0) @ (x @ v)

    return attend, (f32(256, 256),) * 4


def recurrent():
    def step(w, h, xs):
        return jax.grad(lambda w: jnp.sum(jax.lax.scan(lambda h, x: (jnp.tanh(h @ w + x),) * 2, h, xs)[1] ** 2))(w)

    return step, (f32(128, 128), f32(64, 128), f32(32, 64, 128))
"""


@pytest.fixture
def run(run_unprepared: Callable[..., Any]) -> Callable[..., Any]:
    return run_unprepared


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "step_of_mine.py").write_text(PROGRAM)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(found: dict[str, Any]) -> float:
    """What is stated of a module on the CPU: groups add up, and XLA's total is our peak and what holds nothing then."""
    main, stated = found["memories"][0], found["stated"]
    assert sum(group["bytes"] for group in main["groups"]) + main["reserved"] == main["peak"]
    assert main["peak"] + stated["idle"] - stated["uncounted"] == pytest.approx(stated["total"], abs=64)
    # Results that are not made yet, and donated arguments that were read for the last time, have blocks of their own.
    idle = {part["kind"]: part["idle"] for part in stated["parts"]}
    assert idle["temporaries"] <= 0.01 * stated["total"]
    return float(main["peak"] / stated["total"])


@pytest.mark.parametrize("name", ["program", "donated", "attention", "recurrent"])
def test_our_peak_is_that_of_xla(name: str, folder: Path, run: Callable[..., Any]) -> None:
    done = run("peak", f"step_of_mine:{name}", "--by", "line", "--json")
    found = json.loads(done.out)
    check(found)
    lines = {group["group"] for group in found["memories"][0]["groups"]}
    assert any("step_of_mine.py:" in line for line in lines)
    if name == "program":
        assert {each["argument"] for each in found["donations"]} == {
            f"params[{i}]['{key}']" for i in range(3) for key in ("up", "down")
        }
    if name == "donated":
        assert found["donations"] == []


def test_a_program_that_does_not_fit_has_the_same_report(folder: Path, run: Callable[..., Any]) -> None:
    whole = run("peak", "step_of_mine:program")
    small = run("peak", "step_of_mine:program", "--limit", "1MiB")
    assert (whole.status, small.status) == (0, 1)
    assert "at the peak, at" in whole.out
    assert [line for line in whole.out.splitlines()[3:] if line not in small.out.splitlines()] == []
    assert "does not fit, by" in small.out
    assert "`memplan fit` looks for the cheapest way" in small.err
    assert "params[*]" in whole.out  # layers are one row
    assert small.errors == []


def test_a_dump_and_a_limit(dump: Path, run: Callable[..., Any]) -> None:
    done = run("peak", dump, "--by", "shape")
    assert done.status == 0
    assert "hbm: " in done.out
    assert "vmem: " in done.out
    assert "scoped memory of" in done.out
    assert run("peak", dump, "--limit", "1MiB").status == 1
    assert run("peak", dump, "--target", "mcu-256kb").status == 1


def test_the_report_of_xla_is_read_beside_a_module_or_in_its_place(
    module: Path, run: Callable[..., Any], tmp_path: Path
) -> None:
    size = 2 * 2**20
    report = module.with_name("step.hlo-buffer-assignment.txt")
    lines = ["BufferAssignment:"]
    for number, (name, rest) in enumerate([("x", "parameter 0"), ("w", "parameter 1"), ("tanh", "maybe-live-out")]):
        lines += [
            f"allocation {number}: size {size}, {rest}:",
            f" value: <{number} {name} @0> (size={size},offset=0): bf16",
        ]
    report.write_text("\n".join(lines) + "\n")
    beside, instead = (json.loads(run("peak", path, "--json").out) for path in (module, report))
    assert beside == instead
    assert beside["stated"]["total"] == 3 * size
    other = tmp_path / "elsewhere.txt"
    report.rename(other)
    assert json.loads(run("peak", module, "--json").out)["stated"] is None
    assert json.loads(run("peak", module, "--assignment", other, "--json").out) == beside


def test_a_log_folder_for_xprof(folder: Path, run: Callable[..., Any]) -> None:
    compiled = run("peak", "step_of_mine:attention", "--xprof", "log", "--json")
    assert "`xprof --logdir log`" in compiled.err
    (proto,) = folder.glob("log/plugins/profile/*/*.hlo_proto.pb")
    again = run("peak", proto, "--xprof", "again", "--json")
    assert (compiled.status, again.status) == (0, 0)
    ours, theirs = (json.loads(done.out)["memories"][0]["groups"] for done in (compiled, again))
    assert [group["group"] for group in ours] == [group["group"] for group in theirs]
    (copy,) = folder.glob("again/plugins/profile/*/*.hlo_proto.pb")
    assert copy.read_bytes() == proto.read_bytes()


def test_a_text_has_nothing_for_xprof(module: Path, run: Callable[..., Any], tmp_path: Path) -> None:
    done = run("peak", module, "--xprof", tmp_path / "log")
    assert (done.status, len(done.errors)) == (2, 1)
    assert "--xla_dump_hlo_as_proto" in done.errors[0]
    assert not (tmp_path / "log").exists()


def test_mistakes_are_one_line(folder: Path, run: Callable[..., Any]) -> None:
    for arguments, message in [
        (["no/such.hlo.txt"], "no/such.hlo.txt"),
        (["step_of_mine:nothing"], "has no nothing"),
        (["no_such_workload"], "no_such_workload"),
        (["step_of_mine:program", "--limit", "much"], "memory limit"),
        (["step_of_mine:program", "--by", "colour"], "colour"),
        (["step_of_mine:program", "--target", "pdp-11"], "pdp-11"),
        ([folder / "m-buffer-assignment.txt"], "is not beside it"),
    ]:
        done = run("peak", *arguments)
        assert done.status == 2, arguments
        assert len(done.errors) == 1
        assert message in done.errors[0]


def test_what_is_a_file(folder: Path) -> None:
    assert is_file("-")
    assert is_file("step_of_mine.py")
    assert is_file("dumps/step")
    assert is_file("step.hlo.txt")
    assert not is_file("step_of_mine:program")
    assert not is_file("package.module:program")
    assert not is_file("lstm")


def test_groupings_are_those_of_the_report() -> None:
    assert [each.value for each in Grouping] == [each.value for each in GroupBy]


# Ten programs as they are, five of them training steps: minutes of compiles.
REAL = (
    "alexnet_train", "lstm_train", "resnet50_train", "transformer_scan_train", "transformer_train",
    "decode_kv", "lstm", "mamba", "mlp_mixer", "moe",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_our_peak_is_that_of_xla_on_real_programs(name: str, run: Callable[..., Any]) -> None:
    assert check(json.loads(run("peak", name, "--by", "line", "--json").out)) == pytest.approx(1.0, rel=0.01)
