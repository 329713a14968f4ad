"""A training run: iterations until the time is over, with checkpoints and the best plans as files.

OUT/checkpoints/    the last two
OUT/NAME.plan.json  the best plan ever seen of each problem
OUT/history.json    best latency over time, for pictures
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memplan.compiler.errors import MemplanError
from memplan.compiler.files import make_folder, write_atomically
from memplan.compiler.mapping.documents import check_fields, mapping, number, record, rows, text
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.printable import file_name
from memplan.rl_agent.learning import checkpoint
from memplan.rl_agent.learning.interrupts import Interrupts
from memplan.rl_agent.learning.options import TrainOptions
from memplan.rl_agent.learning.trainer import IterationReport, Trainer
from memplan.rl_agent.learning.values import Floats

# Seconds between checkpoints.
_CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True)
class Progress:
    """What is known after an iteration.

    Attributes:
      trainer: after it.
      report: of the iteration.
      seconds: of training, earlier runs included, without the first iteration of each, which compiles.
    """

    trainer: Trainer
    report: IterationReport
    seconds: float


@dataclass
class Training:
    """A run in a folder.

    Args:
      problems: to be played, with different names.
      options: how; of a run that is resumed, None or those it was started with.
      out: folder; None to write nothing.
      resume: whether to go on where a run in `out` stopped.
      weights: of features, to start from; None for zeros.

    Raises:
      MemplanError: problems of one name; `out` has a run already and `resume` is not asked for, or has none and it is;
        the run there was of other problems or options; a problem cannot be played.
    """

    problems: Sequence[MappingProblem]
    options: TrainOptions | None = None
    out: Path | None = None
    resume: bool = False
    weights: Floats | None = None
    seconds: float = field(default=0.0, init=False)
    points: list[dict[str, Any]] = field(default_factory=list, init=False)
    _last_saved: int | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        names = [problem_name(problem) for problem in self.problems]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise MemplanError(f"two problems are called {twice[0]}: give each once")
        self.names = names
        saved = self._saved()
        options = self.options or (saved.options if saved is not None else TrainOptions())
        if saved is not None and options != saved.options:
            raise MemplanError(f"{self.out}: its run has other options: leave them out to resume it")
        if saved is not None and saved.meta["problems"] != self._fingerprints():
            raise MemplanError(f"{self.out}: its run is of other problems: {', '.join(saved.meta['problems'])}")
        self.options = options
        self.trainer = Trainer(self.problems, options, self.weights)
        if saved is not None:
            try:
                self.trainer.restore(saved.state)
            except (KeyError, IndexError, TypeError, ValueError, MemplanError) as error:
                raise checkpoint.DamagedCheckpointError(
                    f"{self.out}: iteration {saved.iteration} is not one of this run: {error}"
                ) from None
            self.seconds, self.points = float(saved.meta["seconds"]), list(saved.meta["points"])
            self._last_saved = saved.iteration

    def _saved(self) -> checkpoint.Saved | None:
        # A run that was killed before its first checkpoint was complete left nothing to go on from.
        there = self.out is not None and checkpoint.is_there(self.out / "checkpoints")
        if self.resume:
            if self.out is None or not there:
                raise MemplanError(f"{self.out}: there is no run to resume")
            saved = checkpoint.load(self.out)
            check_fields(
                saved.meta,
                f"{self.out}: iteration {saved.iteration}",
                problems=mapping(text),
                seconds=number(at_least=0.0),
                points=rows(record(seconds=number(at_least=0.0), name=text, latency=number(at_least=0.0))),
            )
            return saved
        if there:
            raise MemplanError(f"{self.out}: there is a run already: resume it, or choose another folder")
        return None

    def _fingerprints(self) -> dict[str, str]:
        return {name: problem.fingerprint for name, problem in zip(self.names, self.problems, strict=True)}

    def run(
        self,
        seconds: float,
        iterations: int | None = None,
        on_progress: Callable[[Progress], None] = lambda progress: None,
        enough: float = 0.0,
        on_interrupt: Callable[[], None] = lambda: None,
    ) -> None:
        """Trains until the time is over, a number of iterations is done, or the user interrupts it; writes everything.

        The first iteration compiles all that the others need. The time begins after it, so there is always one. An
        interrupt ends the run after the iteration that it meets; a second one ends it at once, and what was learned
        since the last checkpoint is lost.

        Args:
          seconds, iterations: how long; None for as many iterations as time allows.
          on_progress: called after each iteration.
          enough: seconds of latency: ends when all best games are as fast, such as at a bound that none can beat.
          on_interrupt: called when an interrupt is heard.

        Raises:
          CheckpointError, MemplanError: something cannot be written; the last checkpoint is as it was.
        """
        before, done, begin, last_saved = self.seconds, 0, 0.0, -math.inf
        with Interrupts(on_interrupt) as interrupts:
            while not interrupts.is_asked and (iterations is None or done < iterations):
                if done and time.monotonic() - begin >= seconds:
                    break
                if all(contest.latency <= enough for contest in self.trainer.contests):
                    break
                report = self.trainer.step()
                done += 1
                now = time.monotonic()
                if done == 1:
                    begin = now
                self.seconds = before + now - begin
                if report.improved or report.iteration == 0:
                    self._note(report)
                try:
                    on_progress(Progress(self.trainer, report, self.seconds))
                except KeyboardInterrupt:
                    break
                if now - last_saved >= _CHECKPOINT_SECONDS:
                    self.save()
                    last_saved = time.monotonic()
            self.save()

    def _note(self, report: IterationReport) -> None:
        for problem in [report.problem] if report.improved else range(len(self.names)):
            latency = self.trainer.contests[problem].latency
            self.points.append({"seconds": self.seconds, "name": self.names[problem], "latency": latency})

    def save(self) -> None:
        """Writes a checkpoint, the best plans, and how they came."""
        if self.out is None:
            return
        make_folder(self.out)
        assert self.options is not None
        meta = {"problems": self._fingerprints(), "seconds": self.seconds, "points": self.points}
        if self.trainer.iteration != self._last_saved:
            checkpoint.save(self.out / "checkpoints", self.trainer.state(), self.options, meta)
            self._last_saved = self.trainer.iteration
        for name, contest in zip(self.names, self.trainer.contests, strict=True):
            contest.plan().save(self.out / f"{name}.plan.json")
        write_atomically(self.out / "history.json", json.dumps(self.points, indent=1) + "\n")


def problem_name(problem: MappingProblem) -> str:
    """Returns what a problem is called in files: its program and target."""
    return file_name(f"{problem.name}.{problem.target}")
