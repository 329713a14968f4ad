"""A log folder that XProf opens: its memory viewer shows what XLA's buffer assignment says of a module.

    DIR/plugins/profile/RUN/MODULE.hlo_proto.pb     the module and its buffer assignment, as XLA itself writes them
                            memplan.xplane.pb       a profile without events that names the module

The viewer reads the first file. XProf offers the viewer for runs with a profile in which a module is, so the second
holds the module as well, where profiles have it: as a statistic of the plane `/host:metadata`
(tsl/profiler/protobuf/xplane.proto).
"""

from __future__ import annotations

from pathlib import Path

from memplan.compiler import limits
from memplan.compiler.errors import MemplanError, ParseError
from memplan.compiler.files import STANDARD, make_folder, read_bytes, unpacked, write_files
from memplan.compiler.frontends import hlo_proto, protobuf
from memplan.compiler.printable import file_name

PROFILE = "memplan.xplane.pb"

# Fields of HloProto.
_MODULE, _BUFFER_ASSIGNMENT = 1, 3


def read_hlo_proto(path: Path) -> bytes:
    """Returns the HloProto in a dump, with the buffer assignment that XProf's memory viewer shows.

    Raises:
      MemplanError: it is a text, a module alone, or cannot be read.
    """
    if str(path) == STANDARD:
        raise MemplanError("--xprof needs a file, not standard input")
    content = unpacked(read_bytes(path, limits.PROGRAM), str(path), limits.PROGRAM)
    if not _has_assignment(content):
        raise MemplanError(
            f"{path}: XProf needs the module and its buffer assignment as one proto: --xla_dump_hlo_as_proto writes "
            "them as …after_optimizations.hlo.pb"
        )
    return content


def write_xprof(folder: Path, hlo: bytes) -> Path:
    """Writes the run of a module into a log folder, which is made if it is not there, and returns the run's folder.

    Args:
      folder: of logs, as `xprof --logdir` takes it.
      hlo: a serialized HloProto with buffer assignment.

    Raises:
      MemplanError: a folder cannot be made, or a file not be written.
    """
    name = file_name(protobuf.string(protobuf.read_message(hlo_proto.module_bytes(hlo)), 1))
    run = folder / "plugins" / "profile" / name
    make_folder(run, "a log of XProf")
    write_files({run / f"{name}.hlo_proto.pb": hlo, run / PROFILE: _profile(name, hlo)})
    return run


def _has_assignment(content: bytes) -> bool:
    try:
        message = protobuf.read_message(content)
        module = protobuf.raw(message, _MODULE)
        return bool(protobuf.raw(message, _BUFFER_ASSIGNMENT)) and hlo_proto.module_bytes(content) == module
    except (protobuf.MalformedMessage, ParseError):
        return False


def _profile(name: str, hlo: bytes) -> bytes:
    """Returns an XSpace with one plane, whose only metadata are those of the module."""
    statistic = _field(1, 1) + _field(6, hlo)  # XStat: metadata_id, bytes_value
    event = _field(1, 1) + _field(2, name) + _field(5, statistic)  # XEventMetadata: id, name, stats
    kind = _field(1, 1) + _field(2, "Hlo Proto")  # XStatMetadata: id, name
    # XPlane: id, name, event_metadata, stat_metadata; the last two are maps.
    plane = _field(1, 1) + _field(2, "/host:metadata") + _field(4, _entry(event)) + _field(5, _entry(kind))
    return _field(1, plane)


def _entry(value: bytes) -> bytes:
    return _field(1, 1) + _field(2, value)


def _field(number: int, value: int | str | bytes) -> bytes:
    """Returns a field of a message: a varint, or a length and that many bytes."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
