"""Checkpoints for the fuzzer: a folder of one, of which a file is changed, with or without its checksum.

An input is a line `FILE` or `FILE signed`, and the new content of that file.
"""

from __future__ import annotations

import json
import random
import tempfile
from dataclasses import asdict
from functools import cache
from pathlib import Path

from mutations import mutated_bytes, mutated_text

from memplan.compiler.errors import ParseError
from memplan.rl_agent.learning import checkpoint
from memplan.rl_agent.learning.checksums import FILE, write_checksums
from memplan.rl_agent.learning.options import TrainOptions

META = "meta/metadata"
_POINTS = [{"seconds": 1.5, "name": "p.tpu-v5e", "latency": 2e-3}]
_META = {
    "version": checkpoint.VERSION,
    "options": asdict(TrainOptions()),
    "problems": {"p.tpu-v5e": "0" * 64},
    "seconds": 60.5,
    "points": _POINTS,
}


@cache
def _folder() -> tuple[tempfile.TemporaryDirectory[str], dict[str, bytes]]:
    """Returns a folder that lasts as long as this process, and the files of the checkpoint in it."""
    folder = tempfile.TemporaryDirectory(prefix="memplan-fuzz-")
    step = Path(folder.name)
    for name, content in (
        (META, json.dumps(_META).encode()),
        ("params/d/1", bytes(range(256))),
        ("rest/_METADATA", b"{}"),
    ):
        (step / name).parent.mkdir(parents=True, exist_ok=True)
        (step / name).write_bytes(content)
    write_checksums(step)
    return folder, {name: (step / name).read_bytes() for name in (META, "params/d/1", "rest/_METADATA", FILE)}


def make(chance: random.Random) -> bytes:
    """Returns a change of the checkpoint."""
    files = _folder()[1]
    name = chance.choice((META, META, META, *files))
    others = list(files.values())
    if name in (META, FILE):
        texts = [other.decode() for other in (files[META], files[FILE])]
        content = mutated_text(chance, files[name].decode(), texts).encode()
    else:
        content = mutated_bytes(chance, files[name], others)
    is_signed = name == META and chance.random() < 0.7
    return f"{name}{' signed' if is_signed else ''}\n".encode() + content


def read(content: bytes) -> None:
    """Reads what the checkpoint says of itself; raises AssertionError if a change without a checksum is accepted."""
    folder, files = _folder()
    step = Path(folder.name)
    line, _, changed = content.partition(b"\n")
    name, _, signed = line.decode().partition(" ")
    if name not in files:
        raise ParseError("no file of the checkpoint")
    try:
        (step / name).write_bytes(changed)
        if signed:
            write_checksums(step)
        meta, options = checkpoint.described_in(step)
        if not signed and name != FILE:
            assert changed == files[name], "a file is not as it was written, and was accepted"
        assert json.loads(json.dumps(asdict(options)))
        assert isinstance(meta, dict)
    finally:
        (step / name).write_bytes(files[name])
        (step / FILE).write_bytes(files[FILE])
