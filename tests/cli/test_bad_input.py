"""Mistakes in what the command is given: one message that says where, exit status 2, no traceback, no file left."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memplan.cli.main import main

Run = Callable[..., Any]


DUMPS: dict[str, Callable[[str], bytes]] = {
    "empty": lambda text: b"",
    "blank": lambda text: b" \n\n",
    "truncated in an instruction": lambda text: text[: text.index("exponential(") + 5].encode(),
    "truncated before the closing brace": lambda text: text[: text.rindex("}")].encode(),
    "truncated gzip": lambda text: gzip.compress(text.encode())[:-40],
    "corrupt gzip": lambda text: gzip.compress(text.encode())[:20] + b"\0" * 100,
    "binary": lambda text: bytes(range(256)) * 20,
    "an image": lambda text: b"\x89PNG\r\n\x1a\n" + b"\0" * 200,
    "some other text": lambda text: b"Dear compiler,\nplease place my tensors well.\n",
    "JSON": lambda text: json.dumps({"HloModule": "step"}).encode(),
    "an unknown operand": lambda text: text.replace("tanh(%dot)", "tanh(%dots)").encode(),
    "a name twice": lambda text: text.replace("%exp =", "%dot =").replace("dot(%exp", "dot(%dot").encode(),
    "a cycle": lambda text: text.replace("exponential(%x)", "add(%x, %dot)").encode(),
    "no closing parenthesis": lambda text: text.replace("tanh(%dot)", "tanh(%dot").encode(),
    "no closing bracket": lambda text: text.replace("bf16[1024,1024]{1,0:T(8,128)(2,1)} tanh", "bf16[1024,1024 tanh").encode(),
    "an unknown type": lambda text: text.replace("%x = bf16", "%x = bf17").encode(),
    "a dimension beyond 64 bits": lambda text: text.replace("[1024,1024]", "[1024,99999999999999999999]").encode(),
    "a size beyond 64 bits": lambda text: text.replace("[1024,1024]", "[4294967296,4294967296]").encode(),
    "a number of a million digits": lambda text: text.replace("[1024,1024]", f"[{'9' * 10**6}]").encode(),
    "a layout of another rank": lambda text: text.replace("%x = bf16[1024,1024]{1,0", "%x = bf16[1024,1024]{2,1,0").encode(),
    "a computation that is not there": lambda text: text.replace("tanh(%dot)", "fusion(%dot), calls=%nowhere").encode(),
    "StableHLO that is not one": lambda text: b"module @jit_f {\n  func.func public @main() {\n",
    "a proto cut off": lambda text: b"\x0a\x04main\x12\x04main\x1a\xff\xff",
}  # fmt: skip


@pytest.mark.parametrize("what", DUMPS)
def test_dump(run: Run, module: Path, tmp_path: Path, what: str) -> None:
    bad = tmp_path / "bad.hlo.txt"
    bad.write_bytes(DUMPS[what](module.read_text()))
    before = sorted(tmp_path.iterdir())
    done = run("plan", bad, "--target", "tpu-v5e", "--out", tmp_path / "plan.json", "--report", tmp_path / "report")
    assert done.status == 2, done
    assert done.out == ""
    assert len(done.err.splitlines()) == 1, done.err
    assert done.err.startswith("memplan: error: ")
    assert str(bad) in done.err
    assert len(done.err) < 1000
    assert sorted(tmp_path.iterdir()) == before


PLACES = {
    "an unknown operand": (10, "dots"),
    "a name twice": (9, "dot"),
    "no closing bracket": (10, ""),
    "an unknown type": (4, "bf17"),
    "a dimension beyond 64 bits": (3, "99999999999999999999"),
}


@pytest.mark.parametrize("what", PLACES)
def test_the_message_names_line_and_column(run: Run, module: Path, tmp_path: Path, what: str) -> None:
    line, word = PLACES[what]
    bad = tmp_path / "bad.txt"
    bad.write_bytes(DUMPS[what](module.read_text()))
    message = run("plan", bad).err
    place, _, _ = message.removeprefix(f"memplan: error: {bad}:").partition(" ")
    numbers = place.strip(":").split(":")
    assert len(numbers) == 2, message
    assert int(numbers[0]) == line, message
    assert int(numbers[1]) >= 1
    assert word in message


def test_a_truncated_real_dump(run: Run, dump: Path, tmp_path: Path) -> None:
    text = gzip.decompress(dump.read_bytes())
    bad = tmp_path / "bad.txt"
    for size in range(1000, len(text) - 100, len(text) // 12):
        bad.write_bytes(text[:size])
        done = run("plan", bad, "--planner", "slow", "--target", "tpu-v5e")
        assert done.status == 2, size
        assert len(done.errors) == 1


def test_the_extension_does_not_matter(run: Run, module: Path, tmp_path: Path) -> None:
    for name in ("step.pb", "step.gz", "step.mlir", "step"):
        file = tmp_path / name
        file.write_text(module.read_text())
        assert run("plan", file, "--planner", "slow").status == 0
    packed = tmp_path / "step.txt"
    packed.write_bytes(gzip.compress(module.read_bytes()))
    assert run("plan", packed, "--planner", "slow").status == 0


def test_an_unscheduled_module_is_ordered(run: Run, module: Path, tmp_path: Path) -> None:
    """Text order is no promise there: users may stand before what they use."""
    lines = module.read_text().replace(", is_scheduled=true", "").splitlines()
    exp, dot = (next(i for i, line in enumerate(lines) if f"%{name} =" in line) for name in ("exp", "dot"))
    lines[exp], lines[dot] = lines[dot], lines[exp]
    file = tmp_path / "unscheduled.txt"
    file.write_text("\n".join(lines) + "\n")
    done = run("plan", file, "--planner", "slow")
    assert done.status == 0, done.err


def test_a_file_that_is_not_there(run: Run, tmp_path: Path) -> None:
    done = run("plan", tmp_path / "nothing.txt")
    assert done.status == 2
    assert done.errors == [f"memplan: error: {tmp_path / 'nothing.txt'}: " + done.errors[0].split(": ", 3)[-1]]


def test_a_folder(run: Run, tmp_path: Path) -> None:
    done = run("plan", tmp_path)
    assert (done.status, len(done.errors)) == (2, 1)
    assert str(tmp_path) in done.err


# ---- targets

TARGETS = {
    "not TOML": lambda text: text + "\n= = =\n",
    "an unknown key": lambda text: text + '\n[surprise]\nkey = "value"\n',
    "empty": lambda text: "",
    "binary": lambda text: "\0\1\2",
}


@pytest.mark.parametrize("what", TARGETS)
def test_target(run: Run, module: Path, tmp_path: Path, what: str) -> None:
    from memplan.compiler.hardware import targets

    text = (Path(targets.__file__).parent / "tpu-v5e.toml").read_text()
    bad = tmp_path / "bad.toml"
    bad.write_text(TARGETS[what](text))
    done = run("plan", module, "--target", bad, "--out", tmp_path / "plan.json")
    assert (done.status, done.out, len(done.err.splitlines())) == (2, "", 1), done
    assert str(bad) in done.err
    assert not (tmp_path / "plan.json").exists()


@pytest.mark.parametrize("value", ["0", "-1", "1e400", "nan", '"much"', "true", "[1]"])
def test_a_nonsense_size(run: Run, module: Path, tmp_path: Path, value: str) -> None:
    import re

    from memplan.compiler.hardware import targets

    text = (Path(targets.__file__).parent / "tpu-v5e.toml").read_text()
    bad = tmp_path / "bad.toml"
    changed, count = re.subn(r"(?m)^size\s*=.*$", f"size = {value}", text, count=1)
    assert count == 1
    bad.write_text(changed)
    done = run("plan", module, "--target", bad)
    assert (done.status, done.out, len(done.err.splitlines())) == (2, "", 1), done
    assert str(bad) in done.err
    assert "size" in done.err


def test_an_unknown_target_and_planner(run: Run, module: Path) -> None:
    done = run("plan", module, "--target", "tpu-v99")
    assert (done.status, len(done.errors)) == (2, 1)
    assert "tpu-v99" in done.err
    assert "tpu-v5e" in done.err
    done = run("plan", module, "--planner", "oracle")
    assert (done.status, len(done.errors)) == (2, 1)
    assert "oracle" in done.err
    assert "greedy" in done.err


@pytest.mark.parametrize("limit", ["0", "-3", "nan", "inf"])
def test_a_nonsense_time_limit(run: Run, module: Path, limit: str) -> None:
    done = run("plan", module, "--target", "tpu-v5e", "--time-limit", limit)
    assert (done.status, done.out, len(done.err.splitlines())) == (2, "", 1)
    assert "time limit" in done.err


# ---- plans


@pytest.fixture(scope="module")
def planned(module_text: str, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A plan that the command made for the module, once for all tests."""
    folder = tmp_path_factory.mktemp("planned")
    (folder / "step.hlo.txt").write_text(module_text)
    assert main(["plan", str(folder / "step.hlo.txt"), "--planner", "greedy", "--out", str(folder / "plan.json")]) == 0
    return (folder / "plan.json").read_bytes()


@pytest.fixture
def plan_file(planned: bytes, tmp_path: Path) -> Path:
    file = tmp_path / "plan.json"
    file.write_bytes(planned)
    return file


PLANS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a list": lambda data: [],
    "another schema": lambda data: {**data, "schema": "memplan.plan/99"},
    "no residencies": lambda data: {key: value for key, value in data.items() if key != "residencies"},
    "residencies of text": lambda data: {**data, "residencies": [["a", "b", "c", "d", "e"]]},
    "a short residency": lambda data: {**data, "residencies": [[0, 0]]},
    "a huge number": lambda data: {**data, "residencies": [[0, 0, 10**40, 0, 1]]},
    "a fraction": lambda data: {**data, "residencies": [[0, 0, 0.5, 0, 1]]},
    "served by a text": lambda data: {**data, "served": "everything"},
    "another problem": lambda data: {**data, "problem": "0" * 64},
    "a name that is a number": lambda data: {**data, "name": 5},
}


@pytest.mark.parametrize("command", ["verify", "show"])
@pytest.mark.parametrize("what", PLANS)
def test_plan(run: Run, module: Path, plan_file: Path, command: str, what: str) -> None:
    plan_file.write_text(json.dumps(PLANS[what](json.loads(plan_file.read_text()))))
    done = run(command, plan_file, module)
    assert (done.status, done.out, len(done.err.splitlines())) == (2, "", 1), done
    assert str(plan_file) in done.err


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"schema": ', b"[" * 100_000])
def test_a_plan_that_is_not_json(run: Run, module: Path, plan_file: Path, content: bytes) -> None:
    plan_file.write_bytes(content)
    done = run("verify", plan_file, module)
    assert (done.status, done.out, len(done.err.splitlines())) == (2, "", 1), done
    assert str(plan_file) in done.err


def test_a_plan_for_another_module(run: Run, plan_file: Path, dump: Path) -> None:
    done = run("verify", plan_file, dump)
    assert (done.status, done.out, len(done.errors)) == (2, "", 1), done
    assert str(plan_file) in done.err


def test_a_plan_for_another_target(run: Run, plan_file: Path, module: Path) -> None:
    done = run("verify", plan_file, module, "--target", "tpu-v4")
    assert (done.status, done.out, len(done.errors)) == (2, "", 1), done


def test_indices_out_of_range_are_violations(run: Run, module: Path, plan_file: Path) -> None:
    """They are well-formed, so it is `verify` that has to survive them."""
    data = json.loads(plan_file.read_text())
    data["residencies"][0] = [2**62, -5, -(2**62), -7, 2**62]
    data["served"] = [10**9 for _ in data["served"]]
    data["copies"] = [[10**9, -4, 2**60, -(2**60)]]
    plan_file.write_text(json.dumps(data))
    done = run("verify", plan_file, module)
    assert done.status == 1
    assert "the plan breaks the rules" in done.err


# ---- outputs


def test_outputs_that_cannot_be_written(run: Run, module: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    for arguments in (
        ("--out", tmp_path),
        ("--out", tmp_path / "nowhere" / "plan.json"),
        ("--out", taken / "plan.json"),
        ("--report", taken),
        ("--report", taken / "deeper"),
        ("--out", "/proc/plan.json"),
        ("--report", "/proc/report"),
    ):
        before = sorted(tmp_path.iterdir())
        done = run("plan", module, "--target", "tpu-v5e", "--planner", "slow", *arguments)
        assert (done.status, done.out, len(done.err.splitlines())) == (2, "", 1), (arguments, done)
        assert sorted(tmp_path.iterdir()) == before
    assert taken.read_text() == "mine"


def test_a_failed_run_leaves_the_old_plan(run: Run, module: Path, plan_file: Path, tmp_path: Path) -> None:
    before = plan_file.read_bytes()
    module.write_text(module.read_text()[:-60])
    assert run("plan", module, "--out", plan_file).status == 2
    assert plan_file.read_bytes() == before
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_benches(run: Run, tmp_path: Path) -> None:
    for arguments in (
        ("parse", "--sizes", "many"),
        ("parse", "--sizes", "0"),
        ("parse", "--sizes", "-5,10"),
        ("parse", "--sizes", "1e3"),
        ("parse", "--sizes", "10", "--json", tmp_path),
        ("mapping", "--planners", "oracle"),
        ("mapping", "--dumps", tmp_path / "nothing"),
        ("mapping", "--json", tmp_path / "nowhere" / "x.json"),
    ):
        done = run("bench", *arguments)
        assert (done.status, done.out, len(done.err.splitlines())) == (2, "", 1), (arguments, done)
