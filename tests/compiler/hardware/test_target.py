"""Reading targets: the shipped ones, and every way in which a file can be wrong."""

import re
from importlib.metadata import EntryPoint, EntryPoints
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memplan.compiler.errors import TargetError
from memplan.compiler.hardware import target as target_module
from memplan.compiler.hardware.interconnect import Interconnect
from memplan.compiler.hardware.target import (
    KINDS,
    Exposure,
    Target,
    load_target,
    parse_target,
    read_target,
    register_target,
    target_names,
)

SHIPPED = (
    "generic", "h200", "mcu-256kb", "mcu-256kb-sdram", "tpu-7x", "tpu-v4", "tpu-v4i", "tpu-v5e", "tpu-v5p", "tpu-v6e",
)  # fmt: skip
FOLDER = Path(target_module.__file__).parent / "targets"

SMALL = """\
name = "small"
description = "Two memories and a wire"
clock = 1e9

[[space]]
name = "slow"
xla_number = 0
size = "1 GiB"
system_reserved = 1024
alignment = 64
peak_bandwidth = 100e9
bandwidth = 80e9
channel = "bus"

[[space]]
name = "fast"
xla_number = 1
size = "1.5 MiB"
scoped_limit = "64 KiB"
alignment = 8
peak_bandwidth = 1e12
exposed.vector = { read = 5e11, write_latency = 1e-7 }

[[link]]
from = "slow"
to = "fast"
peak_bandwidth = 90e9
latency = 1e-6
queue = "in"
channel = "bus"

[[link]]
from = "fast"
to = "slow"
peak_bandwidth = 50e9
bandwidth = 45e9
queue = "out"
channel = "bus"

[compute]
vector_flops = 1e12
transcendental_rate = 1e11
matrix_unit = [8, 16]
exposed = { matrix = 0.75 }

[compute.matrix_flops]
bf16 = 10e12

[compute.f32_passes]
highest = 6

[sources]
book = "A book"
"""


def test_all_that_a_file_says() -> None:
    target = parse_target(SMALL, "small.toml")
    slow, fast = target.spaces
    assert (slow.name, slow.size, slow.capacity, slow.alignment) == ("slow", 2**30, 2**30 - 1024, 64)
    assert (slow.peak_bandwidth, slow.bandwidth, slow.channel, slow.writable) == (100e9, 80e9, 0, True)
    assert (fast.size, fast.scoped_limit, fast.bandwidth, fast.channel) == (3 * 2**19, 2**16, 1e12, -1)
    assert slow.exposed == dict.fromkeys(KINDS, Exposure(80e9, 80e9))
    assert fast.exposed == {**dict.fromkeys(KINDS, Exposure(1e12, 1e12)), "vector": Exposure(5e11, 1e12, 0.0, 1e-7)}
    assert target.compute.exposed == {**dict.fromkeys(KINDS, 1.0), "matrix": 0.75}
    there, back = target.links
    assert (there.source, there.destination, there.bandwidth, there.latency, there.queue) == (0, 1, 90e9, 1e-6, 0)
    assert (back.source, back.destination, back.bandwidth, back.latency, back.queue) == (1, 0, 45e9, 0.0, 1)
    assert there.channel == back.channel == slow.channel
    assert target.compute.matrix_unit == (8, 16)
    assert target.compute.launch_seconds == 0.0
    assert target.cross_program_prefetches == 0
    assert target.sources == {"book": "A book"}
    assert target.space_named("fast") == 1
    assert [target.space_of_xla(number) for number in (0, 1, 2)] == [0, 1, -1]
    with pytest.raises(TargetError, match="no memory space 'vmem'; it has slow, fast"):
        target.space_named("vmem")


def test_rates_of_data_types() -> None:
    compute = load_target("tpu-v5e").compute
    assert compute.matrix_peak("bf16") == 197e12
    assert compute.matrix_peak("f16") == 197e12  # converted to bf16, as wide
    assert compute.matrix_peak("f8e5m2") == 197e12  # to the narrowest wider type that is no integer
    assert compute.matrix_peak("s8") == compute.matrix_peak("u8") == 394e12
    assert compute.matrix_peak("f64") == compute.vector_flops  # no unit is wide enough
    assert (compute.passes("f32", "default"), compute.passes("f32", "highest")) == (1, 6)
    assert compute.passes("bf16", "highest") == 1


def test_links_between_devices() -> None:
    assert load_target("tpu-v5e").interconnect == Interconnect(50e9, 45e9, 1e-6)
    assert load_target("generic").interconnect is None
    links = "\n[interconnect]\npeak_bandwidth = 2e9\n"
    assert parse_target(SMALL + links).interconnect == Interconnect(2e9, 2e9, 0.0)
    with pytest.raises(TargetError, match=r"interconnect.bandwidth: 3e\+09 is more than the peak_bandwidth 2e\+09"):
        parse_target(f"{SMALL}{links}bandwidth = 3e9\n")
    with pytest.raises(TargetError, match=r"interconnect.sped: unknown key"):
        parse_target(f"{SMALL}{links}sped = 1\n")


class TestShipped:
    def test_names(self) -> None:
        assert [name for name in target_names() if name in SHIPPED] == list(SHIPPED)

    @pytest.mark.parametrize("name", SHIPPED)
    def test_makes_sense(self, name: str) -> None:
        target = load_target(name)
        assert target.name == name
        assert len(target.spaces) == 2
        assert target.spaces[0].capacity > target.spaces[1].capacity or name in ("h200", "mcu-256kb")
        for space in target.spaces:
            assert space.alignment & (space.alignment - 1) == 0
        assert {(link.source, link.destination) for link in target.links} >= {(0, 1)}

    @pytest.mark.parametrize("name", SHIPPED)
    def test_every_number_names_its_source(self, name: str) -> None:
        text = (FOLDER / f"{name}.toml").read_text()
        sources = load_target(name).sources
        for number, line in enumerate(text.splitlines(), 1):
            setting, _, comment = line.partition("#")
            if not re.search(r'=\s*[\[{]?\s*(\w+ = )?["\d]*\d', setting) or setting.startswith(("name", "description")):
                continue
            if setting.split("=")[0].strip() in sources:
                continue
            tags = re.findall(r"\[([\w-]+)\]", comment)
            assert tags or "assumption: " in comment, f"{name}.toml:{number}: {line}"
            assert set(tags) <= sources.keys(), f"{name}.toml:{number}: {line}"
        for tag in sources:
            assert f"[{tag}]" in text, f"{name}.toml: nothing comes from {tag}"

    def test_figures_of_jax(self) -> None:
        """JAX publishes the chips' capacities and peaks for its kernel authors."""
        tpu_info = pytest.importorskip("jax._src.pallas.mosaic.tpu_info")
        if not hasattr(tpu_info, "get_tpu_info_for_chip"):
            pytest.skip("this version of JAX has them only for a chip that is there")
        for name, version, cores in (
            ("tpu-v4", "TPU_V4", 1),
            ("tpu-v4i", "TPU_V4I", 1),
            ("tpu-v5e", "TPU_V5E", 1),
            ("tpu-v5p", "TPU_V5P", 2),
            ("tpu-v6e", "TPU_V6E", 1),
            ("tpu-7x", "TPU_7X", 1),
        ):
            info = tpu_info.get_tpu_info_for_chip(getattr(tpu_info.ChipVersion, version), cores)
            target = load_target(name)
            slow, fast = target.spaces
            assert fast.size == pytest.approx(info.cmem_capacity_bytes or info.vmem_capacity_bytes, rel=0.01)
            assert slow.size == pytest.approx(info.hbm_capacity_bytes * cores, rel=0.01)
            assert slow.peak_bandwidth == pytest.approx(info.mem_bw_bytes_per_second * cores, rel=0.13)
            assert target.compute.matrix_flops["bf16"] == pytest.approx(info.bf16_ops_per_second * cores, rel=0.01)


class TestLookUp:
    def test_by_path(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.toml"
        path.write_text(SMALL)
        assert load_target(path).name == load_target(str(path)).name == "small"
        assert load_target(path).file == str(path)

    def test_registered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(target_module, "_registered", {})
        mine = register_target(parse_target(SMALL))
        assert load_target("small") is mine
        assert "small" in target_names()

    @pytest.mark.parametrize("value", ["mine", "path"])
    def test_entry_point(self, value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "small.toml").write_text(SMALL)
        (tmp_path / "a_users_module.py").write_text(
            "from memplan.compiler.hardware.target import read_target\n"
            f"path = {str(tmp_path / 'small.toml')!r}\n"
            "mine = read_target(path)\nwrong = 3\n"
        )
        monkeypatch.syspath_prepend(tmp_path)

        def entry_points(group: str, name: str | None = None) -> EntryPoints:
            points = [
                EntryPoint("theirs", f"a_users_module:{value}", group),
                EntryPoint("bad", "a_users_module:wrong", group),
            ]
            return EntryPoints([point for point in points if name in (None, point.name)])

        monkeypatch.setattr(target_module, "entry_points", entry_points)
        assert load_target("theirs").name == "small"
        assert "theirs" in target_names()
        with pytest.raises(TargetError, match=r"'bad' of memplan.targets must be a Target or a path, not int"):
            load_target("bad")

    def test_unknown(self) -> None:
        with pytest.raises(TargetError, match=r"no target is called 'tpu-v5'; known: generic, .*did you mean 'tpu-v5"):
            load_target("tpu-v5")
        with pytest.raises(TargetError, match=r"cannot read nowhere/x.toml: No such file"):
            load_target("nowhere/x.toml")

    def test_not_text(self, tmp_path: Path) -> None:
        path = tmp_path / "x.toml"
        path.write_bytes(b"\xff\xfe")
        with pytest.raises(TargetError, match="byte 0 is not UTF-8"):
            read_target(path)


WRONG = [
    ('name = "small"', "name = small", r"x.toml:1:8: Invalid value"),
    ('name = "small"\n', "", "x.toml: name: is missing"),
    ('name = "small"', 'name = " "', "x.toml: name: must be a text that is not empty"),
    ('name = "small"', "name = 3", "x.toml: name: must be a text"),
    ("clock = 1e9", "clock = -1e9", "clock: must be zero or more and finite, not -1e"),
    ("clock = 1e9", "clock = nan", "clock: must be zero or more and finite, not nan"),
    ("clock = 1e9", "clock = inf", "clock: must be zero or more and finite, not inf"),
    ("clock = 1e9", "clock = true", "clock: must be a number, not True"),
    ("clock = 1e9", 'clock = "fast"', "clock: must be a number, not 'fast'"),
    ("clock = 1e9", "clock = 1e9\nclok = 1", "x.toml: clok: unknown key; did you mean 'clock'?"),
    ("clock = 1e9", "clock = 1e9\nzzz = 1", "x.toml: zzz: unknown key; known: clock, compute"),
    ("clock = 1e9", "clock = 1e9\ncross_program_prefetches = 1.5", "cross_program_prefetches: must be an integer"),
    ("clock = 1e9", "clock = 1e9\ncross_program_prefetches = -1", "cross_program_prefetches: must be an integer of at"),
    ('size = "1 GiB"', 'size = "1 GB"', r"space\[0\].size: must be bytes, as an integer or like"),
    ('size = "1 GiB"', "size = 0", r"space\[0\].size: must be a positive number of bytes below 2\^62, not 0"),
    ('size = "1 GiB"', "size = -5", r"space\[0\].size: must be a positive"),
    ('size = "1 GiB"', "size = 1e9", r"space\[0\].size: must be bytes"),
    ('size = "1 GiB"', 'size = "99999999 TiB"', r"space\[0\].size: must be a positive number of bytes below 2\^62"),
    ('size = "1 GiB"', "size = 1025", r"space\[0\].size: 1 bytes are left for programs, less than the alignment 64"),
    ("alignment = 64", "alignment = 0", r"space\[0\].alignment: must be an integer of at least 1"),
    ("alignment = 64", "alignment = 64\nsped = 1", r"space\[0\].sped: unknown key"),
    ("peak_bandwidth = 100e9", "peak_bandwidth = 0", r"space\[0\].peak_bandwidth: must be positive and finite, not 0"),
    ("bandwidth = 80e9", "bandwidth = 180e9", r"space\[0\].bandwidth: 1.8e\+11 is more than the peak_bandwidth 1e\+11"),
    ('scoped_limit = "64 KiB"', 'scoped_limit = "2 MiB"', r"space\[1\].scoped_limit: 2097152 bytes is more than the"),
    ("exposed.vector", "exposed.scalar", r"space\[1\].exposed.scalar: unknown key; known: matrix, move, reorder, vector"),
    ("{ read = 5e11", "{ rate = 5e11", r"space\[1\].exposed.vector.rate: unknown key; did you mean 'write'"),
    ("{ read = 5e11", "{ read = -1", r"space\[1\].exposed.vector.read: must be positive"),
    ("write_latency = 1e-7", "write_latency = -1", r"space\[1\].exposed.vector.write_latency: must be zero or more"),
    ("{ matrix = 0.75 }", "{ matrix = 1.5 }", r"compute.exposed.matrix: is more than 1"),
    ("{ matrix = 0.75 }", "{ matrix = 0 }", r"compute.exposed.matrix: must be positive"),
    ('name = "fast"', 'name = "slow"', r"space\[1\].name: two spaces are called 'slow'"),
    ("xla_number = 1", "xla_number = 0", r"space\[0\].xla_number: 0 is the number of two spaces"),
    ("xla_number = 1", "xla_number = true", r"space\[1\].xla_number: must be an integer"),
    ('from = "slow"', 'from = "snow"', r"link\[0\].from: no space is called 'snow'; there are slow, fast"),
    ('to = "fast"', 'to = "slow"', r"link\[0\].to: a link leads to another space"),
    ('from = "fast"\nto = "slow"', 'from = "slow"\nto = "fast"', r"link\[0\].to: there are two links between the same"),
    ("latency = 1e-6", "latency = -1e-6", r"link\[0\].latency: must be zero or more"),
    ("bandwidth = 45e9", "bandwidth = 55e9", r"link\[1\].bandwidth: 5.5e\+10 is more than"),
    ('queue = "in"\n', "", r"link\[0\].queue: is missing"),
    ("vector_flops = 1e12\n", "", r"compute.vector_flops: is missing"),
    ("matrix_unit = [8, 16]", "matrix_unit = [8]", r"compute.matrix_unit: must be two positive integers"),
    ("matrix_unit = [8, 16]", "matrix_unit = [0, 16]", r"compute.matrix_unit: must be two positive integers"),
    ("matrix_unit = [8, 16]", "matrix_unit = [8.5, 16]", r"compute.matrix_unit: must be a list of integers"),
    ("matrix_unit = [8, 16]", "matrix_efficiency = 1.5", r"compute.matrix_efficiency: is more than 1"),
    ("bf16 = 10e12", "bf17 = 10e12", r"compute.matrix_flops.bf17: not a data type of XLA"),
    ("highest = 6", "higher = 6", r"compute.f32_passes.higher: not a precision; known: high, highest"),
    ("highest = 6", "highest = 0", r"compute.f32_passes.highest: must be an integer of at least 1"),
    ('book = "A book"', "book = 3", r"sources.book: must be a text"),
    ("clock = 1e9", "clock = 1e31", "clock: must be from 1e-30 to 1e"),
    ("clock = 1e9", "clock = " + "9" * 400, "clock: must be zero or more and finite, not inf"),
    ("clock = 1e9", "clock = 0x" + "f" * 5000, "clock: must be zero or more and finite, not inf"),
    ("alignment = 64", "alignment = 0x" + "f" * 5000, r"alignment: must be an integer below .*thousands of digits"),
    ('size = "1 GiB"', "size = 0x" + "f" * 5000, r"space\[0\].size: .* not a number of thousands of digits"),
    ("peak_bandwidth = 100e9", "peak_bandwidth = 1e-300", r"space\[0\].peak_bandwidth: must be from 1e-30 to 1e"),
    ("matrix_unit = [8, 16]", "matrix_unit = [8, 5000000000]", r"compute.matrix_unit: must be integers below 2\^31"),
    ("highest = 6", "highest = 1000", r"compute.f32_passes.highest: must be an integer below 1,000"),
    ("[sources]", "[[sources]]", r"sources: must be a table"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), WRONG, ids=[f"{new[:40]}" for _, new, _ in WRONG])
def test_what_is_wrong_is_named(old: str, new: str, message: str) -> None:
    assert SMALL.count(old) >= 1
    with pytest.raises(TargetError, match=message) as caught:
        parse_target(SMALL.replace(old, new, 1), "x.toml")
    assert str(caught.value).startswith("x.toml:")


def test_no_space_at_all() -> None:
    text = re.sub(r"\[\[(space|link)\]\]\n(?:.+\n)+", "", SMALL)
    with pytest.raises(TargetError, match="space: is missing: a target has at least 1"):
        parse_target(text)
    with pytest.raises(TargetError, match=r"space: must be tables, written as \[\[space\]\]"):
        parse_target("space = 3\n" + text)


@settings(max_examples=100)
@given(st.data())
def test_any_damage_is_a_target_error(data: st.DataObject) -> None:
    """Cut, doubled or replaced text is read, or refused with a message, and never anything else."""
    start = data.draw(st.integers(0, len(SMALL)))
    end = data.draw(st.integers(start, min(len(SMALL), start + 40)))
    text = (
        SMALL[:start]
        + data.draw(st.sampled_from(["", SMALL[start:end] * 2, "1e400", '"', "[", "= -1\n"]))
        + SMALL[end:]
    )
    message = ""
    try:
        assert isinstance(parse_target(text, "x.toml"), Target)
    except TargetError as error:
        message = str(error)
    assert message == "" or message.startswith("x.toml:")


def test_a_target_that_can_write_nothing_is_refused() -> None:
    text = (files("memplan.compiler.hardware.targets") / "generic.toml").read_text()
    text = text.replace("[[space]]\n", "[[space]]\nwritable = false\n")
    with pytest.raises(TargetError, match=r"dead\.toml: .*programs can write none of the memories"):
        parse_target(text, "dead.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clock = " + "9" * 5000, r"^long\.toml: not TOML that can be read: "),
        ("clock = " + "[" * 50_000, r"^long\.toml: the TOML is nested too deeply$"),
        ("clock = 2026-02-31", r"^long\.toml"),
        ("clock = 1_000", r"^long\.toml: "),
    ],
)
def test_what_python_refuses_to_convert_is_a_target_error(text: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        parse_target(text, "long.toml")


def test_a_target_has_a_limited_number_of_memories() -> None:
    space = SMALL[SMALL.index("[[space]]") : SMALL.index("[[space]]", SMALL.index("[[space]]") + 1)]
    many = "".join(space.replace('name = "slow"', f'name = "s{i}"').replace("xla_number = 0\n", "") for i in range(65))
    with pytest.raises(TargetError, match="space: there are 67 of them, more than 64"):
        parse_target(SMALL.replace("[[space]]", many + "[[space]]", 1))


def test_a_memory_that_only_programs_with_values_there_see() -> None:
    text = SMALL.replace(
        "[compute]",
        """[[optional_space]]
name = "host"
xla_number = 5
size = "1 TiB"
alignment = 64
peak_bandwidth = 10e9

[[optional_link]]
from = "host"
to = "slow"
peak_bandwidth = 10e9
queue = "host"
channel = "pcie"

[compute]""",
        1,
    )
    target = parse_target(text)
    assert ([space.name for space in target.spaces], len(target.links)) == (["slow", "fast"], 2)
    assert target.for_program({0, 1}) is target
    seen = target.for_program({0, 5})
    assert [space.name for space in seen.spaces] == ["slow", "fast", "host"]
    assert [(link.source, link.destination) for link in seen.links] == [(0, 1), (1, 0), (2, 0)]
    assert seen.for_program({5}) is seen
    with pytest.raises(TargetError, match=r"space\[1\].xla_number: 1 is the number of two spaces"):
        parse_target(text.replace("xla_number = 5", "xla_number = 1"))


@pytest.mark.parametrize("name", [name for name in SHIPPED if name.startswith("tpu")])
def test_every_tpu_has_the_memory_of_its_host(name: str) -> None:
    target = load_target(name)
    seen = target.for_program({5})
    host = seen.space_of_xla(5)
    assert seen.spaces[host].size > seen.spaces[0].size
    assert {(0, host), (host, 0)} <= {(link.source, link.destination) for link in seen.links}
