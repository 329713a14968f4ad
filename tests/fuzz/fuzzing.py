"""Fuzzes the readers: many changed inputs, each of which must be accepted or refused. Run by `scripts/fuzz`.

A try is known by its reader, seed and number, and is the same on every machine. Tries run in child processes, many in
each, under limits of time and memory; where one ends its child, another child goes on behind it.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

# Of modules that the readers under test need.
FOLDERS = [str(ROOT / "tests" / folder) for folder in ("fuzz", "planners", "compiler/frontends")]

# Limits of a try. The second limit of time, on the clock, is for a try that waits for something.
CPU_SECONDS, WALL_SECONDS = 10, 120
MEMORY = 2 << 30

# What can be wrong with a try.
TRACEBACK, CHANGED, HANG, MEMORY_EXCEEDED, CRASH = FAULTS = (
    "tracebacks",
    "not read back",
    "hangs",
    "over memory",
    "crashes",
)

# Tries of one child; its memory is new then.
BATCH = 20_000

# Tries of another seed that a child makes before its memory is limited: they load what tries need.
WARM = 200

# The number of the try, and how many were accepted and refused so far.
_TALLY = struct.Struct("<qqq")


@dataclass(frozen=True)
class Fault:
    """A try that went wrong: its number, one of `FAULTS`, and what is known."""

    number: int
    kind: str
    message: str


@dataclass
class Outcome:
    """What the tries of one reader came to."""

    tries: int = 0
    accepted: int = 0
    refused: int = 0
    faults: list[Fault] = field(default_factory=list)
    seconds: float = 0.0

    def count(self, kind: str) -> int:
        return sum(fault.kind == kind for fault in self.faults)


# ---- the child


def serve(name: str, seed: int, first: int, last: int, tally_file: str) -> None:
    """Makes the tries `[first, last)`; a fault is a line of JSON on standard output."""
    sys.path[:0] = FOLDERS
    from fuzzed_readers import READERS, NotReadBack, input_of

    from memplan.compiler.errors import MemplanError

    out = os.fdopen(os.dup(1), "w")
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    reader = READERS[name]
    for number in range(first, min(first + WARM, last)):
        try:
            reader.read(input_of(name, seed + 1, number))
        except Exception:  # counted when its turn comes
            continue
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    accepted = refused = 0
    with open(tally_file, "r+b") as file, mmap.mmap(file.fileno(), _TALLY.size) as tally:
        for number in range(first, last):
            content = input_of(name, seed, number)
            _TALLY.pack_into(tally, 0, number, accepted, refused)
            signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
            signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
            kind, message = "", ""
            try:
                reader.read(content)
                accepted += 1
            except (MemplanError, UnicodeDecodeError):
                refused += 1
            except NotReadBack as error:
                kind, message = CHANGED, str(error)
            except MemoryError:
                kind = MEMORY_EXCEEDED
            except Exception as error:
                kind, message = TRACEBACK, _told(error)
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            if kind:
                print(json.dumps([number, kind, message]), file=out, flush=True)
        _TALLY.pack_into(tally, 0, last, accepted, refused)


def _told(error: Exception) -> str:
    lines = traceback.format_exception(error)
    if len(lines) > 24:  # a recursion
        lines = [*lines[:4], "  …\n", *lines[-8:]]
    return "".join(lines)


# ---- the parent


def fuzz(name: str, tries: int, seed: int, first: int = 0) -> Outcome:
    """Fuzzes a reader with the tries `[first, first + tries)` of a seed."""
    outcome, began = Outcome(), time.monotonic()
    start, end = first, first + tries
    with tempfile.NamedTemporaryFile() as tally:
        while start < end:
            last = min(end, start + BATCH)
            tally.seek(0)
            tally.write(_TALLY.pack(start, 0, 0))
            tally.flush()
            status, output, errors = run_child(name, seed, start, last, tally.name)
            faults = [Fault(*json.loads(line)) for line in output.splitlines()]
            tally.seek(0)
            number, accepted, refused = _TALLY.unpack(tally.read(_TALLY.size))
            if number == start and status > 0:
                raise RuntimeError(f"the fuzzer of {name} does not start:\n{errors.decode(errors='replace')}")
            if status != 0:
                faults.append(Fault(number, *_end_of(status)))
                number += 1
            outcome.tries += number - start
            outcome.accepted += accepted
            outcome.refused += refused
            outcome.faults += faults
            start = number
    outcome.seconds = time.monotonic() - began
    return outcome


def run_child(name: str, seed: int, first: int, last: int, tally: str) -> tuple[int, bytes, bytes]:
    """Returns the exit status, standard output and standard error of a child that makes the tries `[first, last)`."""
    command = [sys.executable, "-P", __file__, "--serve", name, str(seed), str(first), str(last), tally]
    done = subprocess.run(command, capture_output=True, check=False)
    return done.returncode, done.stdout, done.stderr


def _end_of(status: int) -> tuple[str, str]:
    """Returns the fault that ended a child, and its exit status in words."""
    if status in (-signal.SIGPROF, -signal.SIGALRM):
        return HANG, f"more than {CPU_SECONDS} s of a processor, or {WALL_SECONDS} s in all"
    return CRASH, f"exit status {status}"


def save_faults(folder: Path, name: str, seed: int, faults: Sequence[Fault]) -> None:
    """Writes the input of each fault to a folder, and what is known of it beside it."""
    from fuzzed_readers import input_of

    folder.mkdir(parents=True, exist_ok=True)
    for fault in faults:
        file = folder / f"{name}-{seed}-{fault.number}"
        file.write_bytes(input_of(name, seed, fault.number))
        file.with_name(f"{file.name}.txt").write_text(f"{fault.kind}\n{fault.message}\n", errors="replace")


def kinds_of(faults: Sequence[Fault]) -> Iterator[tuple[int, Fault]]:
    """Yields faults whose last lines are alike once, each with how many there are; the most frequent first."""

    def last_lines(fault: Fault) -> tuple[str, str]:
        lines = [line for line in fault.message.splitlines() if line.startswith("  File ") or not line.startswith(" ")]
        return fault.kind, " ".join(lines[-2:-1]) or fault.message[:60]

    counts = Counter(map(last_lines, faults))
    first = {last_lines(fault): fault for fault in reversed(faults)}
    for key, count in counts.most_common():
        yield count, first[key]


def head() -> str:
    """Returns the head of the table."""
    return f"{'reader':18}" + "".join(f"{title:>15}" for title in ("tries", "accepted", "refused", *FAULTS, "tries/s"))


def row(name: str, outcome: Outcome) -> str:
    """Returns the line of a reader in the table."""
    rate = outcome.tries / outcome.seconds if outcome.seconds else 0.0
    counts = (outcome.tries, outcome.accepted, outcome.refused, *map(outcome.count, FAULTS))
    return f"{name:18}" + "".join(f"{count:>15,}" for count in counts) + f"{rate:>15,.0f}"


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.path[:0] = FOLDERS
    if given[:1] == ["--serve"]:
        name, seed, first, last, tally = given[1:]
        serve(name, int(seed), int(first), int(last), tally)
        return 0
    from fuzzed_readers import READERS, input_of

    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--tries", type=int, default=2000, help="of each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first try")
    parser.add_argument("--reader", choices=list(READERS), action="append", help="by default, all of them in turn")
    parser.add_argument("--jobs", type=int, default=1, help="readers that are fuzzed at once")
    parser.add_argument("--out", type=Path, default=ROOT / "build/fuzz", help="where the inputs of faults are saved")
    parser.add_argument("--show", type=int, metavar="NUMBER", help="print the input of one try, and do nothing else")
    options = parser.parse_args(given)
    names = options.reader or list(READERS)
    if options.show is not None:
        sys.stdout.buffer.write(input_of(names[0], options.seed, options.show))
        return 0
    print(head(), flush=True)

    def work(name: str) -> tuple[str, Outcome]:
        return name, fuzz(name, options.tries, options.seed, options.first)

    faults: list[Any] = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for name, outcome in pool.map(work, names):
            print(row(name, outcome), flush=True)
            save_faults(options.out, name, options.seed, outcome.faults)
            faults += [(name, *kind) for kind in kinds_of(outcome.faults)]
    for name, count, fault in faults:
        print(f"\n{name}: {count} {fault.kind}, such as try {fault.number}\n{fault.message.strip()}")
    if faults:
        print(f"\nThe inputs are in {options.out}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
