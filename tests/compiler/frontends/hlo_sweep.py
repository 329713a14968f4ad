"""Measures the readers on many HLO texts: which ones XLA's parser takes, and what ours makes of them.

Run by `scripts/sweep_hlo`. Every text is examined in a child process, so that XLA's aborts, hangs and large requests
for memory end the child alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

OK = "ok"
# What a text may take before it counts as a hang. It is read four times and planned twice.
CPU_SECONDS, CPU_SECONDS_PER_BYTE = 10.0, 30e-6
WALL_SECONDS = 600
MEMORY = 2 << 30

# What a child does first with a text: XLA parses it and prints the module, or XLA only parses it, or neither.
PRINTED_BY_XLA, PARSED_BY_XLA, WITHOUT_XLA = "printed by XLA", "parsed by XLA", "without XLA"
STAGES = (PRINTED_BY_XLA, PARSED_BY_XLA, WITHOUT_XLA)

Record = dict[str, Any]


# --- the child ---


def serve(path: Path, with_plans: bool) -> None:
    """Examines the texts whose indices come on standard input, one record a line on standard output."""
    from hlo_examination import Examination, Verdict, examine, verdict_of_xla

    if with_plans:
        import memplan

        memplan.plan(memplan.trace(lambda x: x, 1.0), "generic", planner="bestfit")  # loads what planning needs
    texts = [entry["text"] for entry in json.loads(path.read_text())]
    out = os.fdopen(os.dup(1), "w")
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    _limit_memory()
    for line in sys.stdin:
        index, stage = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS + CPU_SECONDS_PER_BYTE * len(texts[index]))
        signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
        print(json.dumps({"stage": stage}), file=out, flush=True)
        verdict = Verdict("aborts")
        if stage != WITHOUT_XLA:
            verdict = verdict_of_xla(texts[index], only_parses=stage == PARSED_BY_XLA)
            print(json.dumps({"stage": WITHOUT_XLA}), file=out, flush=True)
        try:
            found = examine(texts[index], verdict, with_plans)
        except MemoryError:
            found = Examination(xla=verdict.message, traceback="MemoryError")
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps({"index": index, **found.as_dict()}), file=out, flush=True)


def _limit_memory() -> None:
    """Allows `MEMORY` more than what is loaded already."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


# --- the parent ---


class _Child:
    """A process that examines texts, and is started again where it has died."""

    def __init__(self, command: Sequence[str]):
        self.command = command
        self.process: subprocess.Popen[str] | None = None

    def examine(self, index: int) -> Record:
        """Returns the record of a text; where the child dies, another one does without what it died of."""
        for stage in STAGES:
            record = self._asked(index, stage)
            if "stage" not in record:
                return record
            if record["stage"] == WITHOUT_XLA:
                break
        died = record["died"]
        is_hang = died in (-signal.SIGPROF, -signal.SIGALRM)
        return {"index": index, "xla": "", "died": "hang" if is_hang else f"exit status {died}"}

    def _asked(self, index: int, stage: str) -> Record:
        """Returns the record of a text or, where the child died, the stage in which it did and its exit status."""
        if self.process is None:
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([index, stage]) + "\n")
        self.process.stdin.flush()
        record: Record = {"stage": stage}
        for line in self.process.stdout:
            record = json.loads(line)
            if "stage" not in record:
                return record
        died = self.process.wait()
        self.close()
        return {**record, "died": died}

    def close(self) -> None:
        if self.process is not None:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.close()
            self.process.stdout.close()
            self.process.wait()
            self.process = None


def child_command(path: Path, with_plans: bool) -> list[str]:
    """Returns what starts a child that examines the texts of a file."""
    return [sys.executable, __file__, str(path), "--serve", *([] if with_plans else ["--no-plans"])]


def sweep(command: Sequence[str], indices: Iterable[int], jobs: int) -> Iterator[Record]:
    """Yields the records of texts, as they are finished, examined by `jobs` children that `command` starts."""
    pending: SimpleQueue[int] = SimpleQueue()
    for index in indices:
        pending.put(index)
    finished: SimpleQueue[Record | None] = SimpleQueue()

    def work() -> None:
        child = _Child(command)
        try:
            while True:
                finished.put(child.examine(pending.get_nowait()))
        except Empty:
            pass
        finally:
            child.close()
            finished.put(None)

    with ThreadPoolExecutor(jobs) as pool:
        for _ in range(jobs):
            pool.submit(work)
        running = jobs
        while running:
            record = finished.get()
            if record is None:
                running -= 1
            else:
                yield record


# --- the table ---


def is_refused_for_a_good_reason(record: Record) -> bool:
    from hlo_examination import Examination

    return Examination(planned=record.get("planned", "")).is_refused_for_a_good_reason


def summary(records: Sequence[Record]) -> dict[str, int]:
    """Counts records; what XLA refuses counts only where it ends in a traceback or a hang."""
    accepted = [record for record in records if record.get("xla") == OK]
    planned = [record for record in accepted if record.get("planned") == OK]
    good = [record for record in accepted if is_refused_for_a_good_reason(record)]
    refused_when_planned = [record for record in accepted if record.get("planned", "") not in ("", OK)]
    return {
        "strings": len(records),
        "accepted by XLA": len(accepted),
        "on which XLA aborts": sum(record.get("xla") == "aborts" for record in records),
        "read": sum(record.get("read") == OK for record in accepted),
        "identical again": sum(record.get("again") == OK for record in accepted),
        "shapes as XLA's": sum(record.get("shapes") == OK for record in accepted),
        "proto equal": sum(record.get("proto") == OK for record in accepted),
        "planned": len(planned),
        "refused for a stated good reason": len(good),
        "refused wrongly": sum(record.get("read", "") not in ("", OK) for record in accepted)
        + len(refused_when_planned)
        - len(good),
        "read though XLA refuses": sum(
            record.get("read") == OK and record.get("xla") not in (OK, "aborts") for record in records
        ),
        "loops with a stated trip count": sum(record.get("loops", 0) for record in accepted),
        "trip counts inferred wrongly": sum(len(record.get("wrong_loops", ())) for record in records),
        "trip counts missed": sum(len(record.get("missed_loops", ())) for record in records),
        "tracebacks": sum(bool(record.get("traceback")) for record in records),
        "hangs": sum(record.get("died") == "hang" for record in records),
        "crashes": sum(record.get("died", "hang") != "hang" for record in records),
    }


_PLACE = re.compile(r"^(?:problem: )?<[^>]*>(?::\d+:\d+)?: ")
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
_NUMBER = re.compile(r"\d+")
_SIZED = re.compile(r"\S+ \([\d,]+ bytes\)")


def normalized(message: str) -> str:
    """Returns a message without the names and numbers that make each one different."""
    return _NUMBER.sub("N", _QUOTED.sub("'…'", _SIZED.sub("X (N bytes)", _PLACE.sub("", message))))[:150]


def categories(records: Iterable[Record], step: str) -> list[tuple[str, list[int]]]:
    """Returns the messages of a step, normalized, each with the texts that it was said of; the most frequent first."""
    found: dict[str, list[int]] = {}
    for record in sorted(records, key=lambda record: record["index"]):
        message = record.get(step, "")
        if message and message != OK:
            found.setdefault(normalized(str(message)), []).append(record["index"])
    return sorted(found.items(), key=lambda item: -len(item[1]))


def print_table(records: Sequence[Record], entries: Sequence[Mapping[str, str]], num_listed: int) -> None:
    """Prints the counts and, per step, the most frequent refusals with the index of their first text."""
    for name, count in summary(records).items():
        print(f"{count:7} {name}")
    accepted = [record for record in records if record.get("xla") == OK]
    for step in ("read", "again", "shapes", "proto", "planned", "wrong_loops", "missed_loops", "traceback", "died"):
        chosen = records if step in ("traceback", "died") else accepted
        found = categories([record for record in chosen if record.get(step) not in ([], ())], step)
        if not found:
            continue
        print(f"\n{step}: {sum(len(indices) for _, indices in found)} in {len(found)} kinds")
        for message, indices in found[:num_listed]:
            source = entries[indices[0]].get("source", "")
            print(f"{len(indices):7} {message}   (text {indices[0]}, {source.rpartition('/')[2]})")


def _saved(path: Path | None) -> dict[int, Record]:
    """Returns the records that an earlier run has left, by index."""
    if path is None or not path.exists():
        return {}
    lines = path.read_text().splitlines()
    return {record["index"]: record for record in map(json.loads, lines)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="scripts/sweep_hlo", description=__doc__)
    parser.add_argument("file", type=Path, help='a JSON list of {"source": FILE, "text": HLO}')
    parser.add_argument("--start", type=int, default=0, help="index of the first text")
    parser.add_argument("--count", type=int, default=None, help="how many texts; by default, all that follow")
    parser.add_argument("--jobs", type=int, default=1, help="child processes")
    parser.add_argument(
        "--out", type=Path, help="where records are kept, a line each; a run goes on with what is missing"
    )
    parser.add_argument("--list", type=int, default=25, help="kinds of refusal to print per step")
    parser.add_argument("--no-plans", action="store_true", help="only read: build no problems and plan none")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        serve(options.file, not options.no_plans)
        return
    entries = json.loads(options.file.read_text())
    stop = len(entries) if options.count is None else min(options.start + options.count, len(entries))
    records = {index: record for index, record in _saved(options.out).items() if options.start <= index < stop}
    missing = [index for index in range(options.start, stop) if index not in records]
    out = options.out.open("a") if options.out else None
    command = child_command(options.file, not options.no_plans)
    for number, record in enumerate(sweep(command, missing, options.jobs), start=1):
        records[record["index"]] = record
        if out is not None:
            print(json.dumps(record), file=out, flush=True)
        if number % 500 == 0:
            print(f"{number} of {len(missing)}", file=sys.stderr)
    print_table(list(records.values()), entries, options.list)


if __name__ == "__main__":
    main()
