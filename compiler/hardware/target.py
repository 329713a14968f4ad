"""The Target: what memplan knows of a piece of hardware, read from a TOML file.

    [[space]] hbm  ◄── channel "hbm": its bus, used by compute and by copies ──►  [[link]] hbm → vmem, vmem → hbm
    [[space]] vmem ◄── used by compute only                                       [compute] peaks, clock

Space 0 is the slow memory in which everything fits. Sizes are bytes (a file may write `"16 GiB"`), rates per second.
Every bandwidth has two figures: the `peak` of the data sheet, and the part of it that programs reach. Plans are costed
with the latter. Shipped targets lie in `targets/*.toml`, and every number there names its public source.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any

from memplan.compiler import limits
from memplan.compiler.errors import MemplanError, TargetError
from memplan.compiler.files import read_text
from memplan.compiler.hardware.compute import Compute
from memplan.compiler.hardware.interconnect import Interconnect
from memplan.compiler.hardware.toml_table import TomlTable
from memplan.compiler.ir.shape import BITS_PER_ELEMENT
from memplan.compiler.printable import printable

GROUP = "memplan.targets"

# Characters of a name that is not known which are looked at.
_LONGEST_NAME = 100

# Kinds of instructions that use memory in different ways: those that only move data, those that also change which
# dimension is innermost, those of the vector unit, and those with a matrix product.
KINDS = ("move", "reorder", "vector", "matrix")


@dataclass(frozen=True, slots=True)
class Exposure:
    """By how much longer an instruction lasts because of an access to a memory: latency + bytes / rate.

    Attributes:
      read, write: bytes per second. They are less than what programs reach where accesses are inefficient, more where
        other work hides a part.
      read_latency, write_latency: seconds, of accesses that are not tiny.
    """

    read: float
    write: float
    read_latency: float = 0.0
    write_latency: float = 0.0


@dataclass(frozen=True, slots=True)
class TargetSpace:
    """One memory.

    Attributes:
      name: such as `hbm`.
      xla_number: XLA's number of it in layouts (`S(1)`), 0 the default memory; None where XLA has none for it.
      size: bytes of the hardware.
      system_reserved: bytes that programs cannot have.
      scoped_limit: bytes at its bottom that the compiler sets aside for each instruction's own use, unless told
        otherwise; 0 where instructions need none.
      alignment: offsets are multiples of it.
      peak_bandwidth: bytes per second between it and the processor, by the data sheet.
      bandwidth: bytes per second that programs reach.
      exposed: for each of `KINDS`, what accesses cost an instruction whose duration the compiler states.
      channel: number of the bus that it shares with copies; -1 where it shares none.
      writable: whether programs can write it.
    """

    name: str
    xla_number: int | None
    size: int
    system_reserved: int
    scoped_limit: int
    alignment: int
    peak_bandwidth: float
    bandwidth: float
    exposed: Mapping[str, Exposure]
    channel: int
    writable: bool

    @property
    def capacity(self) -> int:
        """Bytes that programs can have."""
        return self.size - self.system_reserved


@dataclass(frozen=True, slots=True)
class TargetLink:
    """A way to copy.

    Attributes:
      source, destination: indices of spaces.
      peak_bandwidth: bytes per second, by the data sheet.
      bandwidth: bytes per second that copies reach when they have the channel to themselves.
      latency: seconds before the first byte arrives.
      queue: copies of one queue are served in turn.
      channel: queues on one channel share its bandwidth.
    """

    source: int
    destination: int
    peak_bandwidth: float
    bandwidth: float
    latency: float
    queue: int
    channel: int


@dataclass(frozen=True)
class Target:
    """A piece of hardware.

    Attributes:
      name: by which it is asked for.
      description: one line.
      clock: cycles per second in which a dump's estimates are; 0 where none is meaningful.
      spaces: memories, the slow one first.
      links: ways to copy.
      compute: what the processor can do.
      cross_program_prefetches: how many arguments the runtime may leave in a fast memory from run to run.
      sources: where the numbers come from, by the tag that the file's comments use.
      file: where it was read from.
      interconnect: the links to other devices; None where nothing is known of them.
      optional_spaces, optional_links: memories that only programs with values in them see, such as the host's, numbered
        on after the others, and the links to them.
    """

    name: str
    description: str
    clock: float
    spaces: tuple[TargetSpace, ...]
    links: tuple[TargetLink, ...]
    compute: Compute
    cross_program_prefetches: int
    sources: Mapping[str, str]
    file: str = ""
    optional_spaces: tuple[TargetSpace, ...] = ()
    optional_links: tuple[TargetLink, ...] = ()
    interconnect: Interconnect | None = None

    @property
    def home(self) -> int:
        """Index of the first memory that programs can write, where all that they write is that is nowhere else."""
        return next(index for index, space in enumerate(self.spaces) if space.writable)

    @property
    def read_only(self) -> int:
        """Index of the first memory that programs can only read, optional ones counted on; -1 if there is none."""
        spaces = self.spaces + self.optional_spaces
        return next((index for index, space in enumerate(spaces) if not space.writable), -1)

    def number_of(self, index: int) -> int:
        """Returns XLA's number of a space, optional ones counted on; where XLA has none, a negative one of its own."""
        number = (self.spaces + self.optional_spaces)[index].xla_number
        return -1 - index if number is None else number

    def for_program(self, numbers: Collection[int]) -> Target:
        """Returns the target as a program with values in the memories of these numbers (`number_of`) sees it."""
        first = len(self.spaces)
        if not any(self.number_of(first + k) in numbers for k in range(len(self.optional_spaces))):
            return self
        spaces, links = self.spaces + self.optional_spaces, self.links + self.optional_links
        return replace(self, spaces=spaces, links=links, optional_spaces=(), optional_links=())

    def space_of_xla(self, number: int) -> int:
        """Returns the index of the space that has a number (`number_of`), -1 if this target does not model it."""
        return next((index for index in range(len(self.spaces)) if self.number_of(index) == number), -1)

    def space_named(self, name: str) -> int:
        """Returns the index of a space; raises TargetError if there is none of that name."""
        names = [space.name for space in self.spaces]
        if name not in names:
            raise TargetError(f"target {self.name} has no memory space {name!r}; it has {', '.join(names)}")
        return names.index(name)


_registered: dict[str, Target] = {}


def register_target(target: Target) -> Target:
    """Makes a target available under its name, before shipped ones. Returns it."""
    _registered[target.name] = target
    return target


def target_names() -> list[str]:
    """Returns the names of all targets that `load_target` knows, sorted."""
    points = {point.name for point in entry_points(group=GROUP)}
    return sorted(_shipped().keys() | points | _registered.keys())


def load_target(name_or_path: str | Path) -> Target:
    """Returns a target by name, or reads one from a TOML file; for what the user says, not for what a file says.

    >>> load_target("tpu-v5e").spaces[1].name
    'vmem'

    Args:
      name_or_path: a name, see `known_target`; or a path: it has a separator or ends in `.toml`.

    Raises:
      TargetError: it is not known, cannot be read, or makes no sense.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith(".toml") or "/" in text or "\\" in text:
        return read_target(name_or_path)
    return known_target(text)


def known_target(name: str) -> Target:
    """Returns a target by name, and opens no file that the name could be the path of.

    Args:
      name: of a registered target, of an entry point of the group `memplan.targets` (a `Target`, or the path of a TOML
        file), or of a shipped one, in this order.

    Raises:
      TargetError: it is not known, or what the entry point names makes no sense.
    """
    if name in _registered:
        return _registered[name]
    for point in entry_points(group=GROUP, name=name):
        value = point.load()
        if isinstance(value, Target):
            return value
        if isinstance(value, str | Path):
            return read_target(value)
        raise TargetError(f"entry point {name!r} of {GROUP} must be a Target or a path, not {type(value).__name__}")
    shipped = _shipped()
    if name in shipped:
        return parse_target(shipped[name].read_text(encoding="utf-8"), f"{name}.toml")
    names = target_names()
    close = difflib.get_close_matches(name[:_LONGEST_NAME], names, 1, 0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    shown = printable(name, limit=_LONGEST_NAME)
    raise TargetError(f"no target is called {shown!r}; known: {', '.join(names)}{hint}")


def read_target(path: str | Path) -> Target:
    """Reads a target from a TOML file; raises TargetError that names the file and the key."""
    try:
        text = read_text(path, limits.TARGET)
    except MemplanError as error:
        raise TargetError(str(error)) from None
    return parse_target(text, str(path))


def parse_target(text: str, file: str = "<string>") -> Target:
    """Reads a target from TOML; raises TargetError that names the file and the missing, unknown or wrong key."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at line (\d+), column (\d+)\)$", str(error))
        where = f"{file}:{place[1]}:{place[2]}" if place else file
        raise TargetError(f"{where}: {re.sub(r' *.at (line .*|end of document).$', '', str(error))}") from None
    except ValueError as error:  # a number of thousands of digits
        raise TargetError(f"{file}: not TOML that can be read: {error}") from None
    except RecursionError:
        raise TargetError(f"{file}: the TOML is nested too deeply") from None
    table = TomlTable(data, file, "")
    names: list[str] = []
    channels: list[str] = []
    queues: list[str] = []
    entries = table.tables("space", at_least=1), table.tables("optional_space")
    spaces = tuple(_space(entry, names, channels) for entry in entries[0])
    if not any(space.writable for space in spaces):
        raise table.error("space", "programs can write none of the memories")
    links = _links(table.tables("link"), names, channels, queues)
    optional = tuple(_space(entry, names, channels) for entry in entries[1])
    target = Target(
        name=table.text("name"),
        description=table.text("description"),
        clock=table.number("clock", positive=False),
        spaces=spaces,
        links=links,
        compute=_compute(table.table("compute")),
        cross_program_prefetches=table.integer("cross_program_prefetches", 0, below=2**31),
        sources={key: table.table("sources").text(key) for key in table.table("sources").data},
        file=file,
        optional_spaces=optional,
        optional_links=_links(table.tables("optional_link"), names, channels, queues),
        interconnect=_interconnect(table.table("interconnect")) if "interconnect" in data else None,
    )
    numbers = [space.xla_number for space in (*spaces, *optional)]
    for number, entry in zip(numbers, entries[0] + entries[1], strict=True):
        if number is not None and numbers.count(number) > 1:
            raise entry.error("xla_number", f"{number} is the number of two spaces")
    table.done()
    return target


def _space(table: TomlTable, names: list[str], channels: list[str]) -> TargetSpace:
    name = table.text("name")
    if name in names:
        raise table.error("name", f"two spaces are called {name!r}")
    names.append(name)
    peak = table.number("peak_bandwidth")
    bandwidth = table.number("bandwidth", peak)
    channel = table.text("channel", "")
    exposed = table.table("exposed")
    space = TargetSpace(
        name=name,
        xla_number=table.integer("xla_number", None, below=2**31),
        size=table.size("size"),
        system_reserved=table.size("system_reserved", 0),
        scoped_limit=table.size("scoped_limit", 0),
        alignment=table.integer("alignment", minimum=1),
        peak_bandwidth=peak,
        bandwidth=bandwidth,
        exposed={kind: _exposure(exposed.table(kind), bandwidth) for kind in KINDS},
        channel=_index(channels, channel) if channel else -1,
        writable=table.boolean("writable", True),
    )
    capacity, limit = space.capacity, space.scoped_limit
    if space.bandwidth > peak:
        raise table.error("bandwidth", f"{space.bandwidth:g} is more than the peak_bandwidth {peak:g}")
    if capacity < space.alignment:
        raise table.error("size", f"{capacity} bytes are left for programs, less than the alignment {space.alignment}")
    exposed.done()
    if limit > capacity:
        raise table.error("scoped_limit", f"{limit} bytes is more than the {capacity} that programs have")
    table.done()
    return space


def _exposure(table: TomlTable, bandwidth: float) -> Exposure:
    exposure = Exposure(
        read=table.number("read", bandwidth),
        write=table.number("write", bandwidth),
        read_latency=table.number("read_latency", 0.0, positive=False),
        write_latency=table.number("write_latency", 0.0, positive=False),
    )
    table.done()
    return exposure


def _links(entries: list[TomlTable], *known: list[str]) -> tuple[TargetLink, ...]:
    links = tuple(_link(entry, *known) for entry in entries)
    pairs = [(link.source, link.destination) for link in links]
    if twice := [entry for pair, entry in zip(pairs, entries, strict=True) if pairs.count(pair) > 1]:
        raise twice[0].error("to", "there are two links between the same spaces")
    return links


def _link(table: TomlTable, names: list[str], channels: list[str], queues: list[str]) -> TargetLink:
    ends = []
    for key in ("from", "to"):
        name = table.text(key)
        if name not in names:
            raise table.error(key, f"no space is called {name!r}; there are {', '.join(names)}")
        ends.append(names.index(name))
    if ends[0] == ends[1]:
        raise table.error("to", "a link leads to another space")
    peak = table.number("peak_bandwidth")
    link = TargetLink(
        source=ends[0],
        destination=ends[1],
        peak_bandwidth=peak,
        bandwidth=table.number("bandwidth", peak),
        latency=table.number("latency", 0.0, positive=False),
        queue=_index(queues, table.text("queue")),
        channel=_index(channels, table.text("channel")),
    )
    if link.bandwidth > peak:
        raise table.error("bandwidth", f"{link.bandwidth:g} is more than the peak_bandwidth {peak:g}")
    table.done()
    return link


def _interconnect(table: TomlTable) -> Interconnect:
    peak = table.number("peak_bandwidth")
    found = Interconnect(peak, table.number("bandwidth", peak), table.number("latency", 0.0, positive=False))
    if found.bandwidth > peak:
        raise table.error("bandwidth", f"{found.bandwidth:g} is more than the peak_bandwidth {peak:g}")
    table.done()
    return found


def _compute(table: TomlTable) -> Compute:
    matrix = table.table("matrix_flops")
    for dtype in matrix.data:
        if dtype not in BITS_PER_ELEMENT:
            raise matrix.error(dtype, "not a data type of XLA, such as bf16 or s8")
    unit = table.integers("matrix_unit", [1, 1])
    passes = table.table("f32_passes")
    for precision in passes.data:
        if precision not in ("high", "highest"):
            raise passes.error(precision, "not a precision; known: high, highest")
    if len(unit) != 2 or min(unit) < 1:
        raise table.error("matrix_unit", "must be two positive integers, rows and columns")
    exposed = table.table("exposed")
    compute = Compute(
        matrix_flops={dtype: matrix.number(dtype) for dtype in matrix.data},
        matrix_efficiency=table.number("matrix_efficiency", 1.0),
        matrix_unit=(unit[0], unit[1]),
        vector_flops=table.number("vector_flops"),
        transcendental_rate=table.number("transcendental_rate"),
        f32_passes={precision: passes.integer(precision, minimum=1, below=1000) for precision in passes.data},
        launch_seconds=table.number("launch_seconds", 0.0, positive=False),
        exposed={kind: exposed.number(kind, 1.0) for kind in KINDS},
        overlap=table.boolean("overlap", True),
    )
    exposed.done()
    for kind, part in compute.exposed.items():
        if part > 1.0:
            raise exposed.error(kind, "is more than 1")
    if compute.matrix_efficiency > 1.0:
        raise table.error("matrix_efficiency", "is more than 1")
    table.done()
    return compute


def _index(names: list[str], name: str) -> int:
    if name not in names:
        names.append(name)
    return names.index(name)


def _shipped() -> dict[str, Any]:
    """Returns the shipped files by target name."""
    folder = files("memplan.compiler.hardware.targets")
    return {entry.name.removesuffix(".toml"): entry for entry in folder.iterdir() if entry.name.endswith(".toml")}
