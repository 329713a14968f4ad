"""The readers under the fuzzer: everything is accepted or refused. `scripts/fuzz` makes more tries, and saves inputs."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import fuzzing
import pytest
from thorough import examples

from memplan.compiler.errors import ParseError

sys.path[:0] = [folder for folder in fuzzing.FOLDERS if folder not in sys.path]
import fuzzed_readers  # noqa: E402  (it needs the folders above)
from mutations import proto_fields, proto_message  # noqa: E402

TRIES, MANY_TRIES = examples(200, 500), 100_000


@pytest.mark.parametrize("name", fuzzed_readers.READERS)
def test_every_input_is_accepted_or_refused(name: str) -> None:
    check(name, TRIES)


@pytest.mark.slow
@pytest.mark.parametrize("name", fuzzed_readers.READERS)
def test_every_input_of_many_is_accepted_or_refused(name: str) -> None:
    check(name, MANY_TRIES, first=TRIES)


def check(name: str, tries: int, first: int = 0) -> None:
    outcome = fuzzing.fuzz(name, tries, seed=0, first=first)
    print(fuzzing.head(), fuzzing.row(name, outcome), sep="\n")
    assert not outcome.faults, "\n".join(
        f"{count} {fault.kind}, such as try {fault.number}: {fault.message}"
        for count, fault in fuzzing.kinds_of(outcome.faults)
    )
    assert outcome.tries == tries
    # A fuzzer whose inputs are all refused at once, or all accepted, tries nothing.
    assert outcome.accepted > tries / 100
    assert outcome.refused > tries / 100


def test_a_try_is_known_by_its_number() -> None:
    for name in fuzzed_readers.READERS:
        inputs = [fuzzed_readers.input_of(name, 5, number) for number in range(20)]
        assert inputs == [fuzzed_readers.input_of(name, 5, number) for number in range(20)]
        assert len(set(inputs)) > 10


def refuse(content: bytes) -> None:
    raise ParseError("no")


def exhaust(content: bytes) -> None:
    bytearray(3 << 30)


def hang(content: bytes) -> None:
    while True:
        pass


def crash(content: bytes) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail(content: bytes) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("read", "kind"),
    [(exhaust, "over memory"), (hang, "hangs"), (crash, "crashes"), (fail, "tracebacks"), (refuse, "")],
)
def test_what_goes_wrong_is_counted_and_the_next_try_is_made(
    read: Callable[[bytes], None], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tries are made by `serve`, in a child of this process that has another reader."""
    monkeypatch.setattr(fuzzing, "CPU_SECONDS", 1)
    monkeypatch.setattr(fuzzing, "WARM", 0)

    def bad_at_three(content: bytes) -> None:
        if content == b"3":
            read(content)

    readers = {"x": fuzzed_readers.FuzzedReader(lambda chance: b"", bad_at_three)}
    monkeypatch.setattr(fuzzed_readers, "READERS", readers)
    monkeypatch.setattr(fuzzed_readers, "input_of", lambda name, seed, number: str(number).encode())

    def run(name: str, seed: int, first: int, last: int, tally: str) -> tuple[int, bytes, bytes]:
        out = tmp_path / "out"
        process = os.fork()
        if process == 0:
            os.dup2(os.open(out, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 1)
            fuzzing.serve(name, seed, first, last, tally)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        return status, out.read_bytes(), b""

    monkeypatch.setattr(fuzzing, "run_child", run)
    outcome = fuzzing.fuzz("x", 6, seed=0)
    assert outcome.tries == 6
    assert [(fault.number, fault.kind) for fault in outcome.faults] == ([(3, kind)] if kind else [])
    assert (outcome.accepted, outcome.refused) == (5, 0 if kind else 1)
    fuzzing.save_faults(tmp_path / "saved", "x", 0, outcome.faults)
    if kind:
        assert (tmp_path / "saved" / "x-0-3").read_bytes() == b"3"
        assert (tmp_path / "saved" / "x-0-3.txt").read_text().startswith(kind)


def test_the_fields_of_a_message_are_put_together_again() -> None:
    for content in fuzzed_readers._protos():
        fields = proto_fields(content)
        assert fields
        assert proto_message(fields) == content
