"""The largest batch of a program that fits into a memory limit: predicted by the model, then stated by the compiler.

    as given       bytes of the program in the order that it was written in, for a batch
    with memplan   bytes of the plan that needs least, for a batch

    ┌─► the largest batch of a range that is within the limit by the model ──► compile there
    │                                        it fits: the range begins above it │ it does not: it ends below it
    └──────────────────────────────── what the compiler states corrects the model ◄┘

First this finds the largest batch of the program as given, then that of planned programs. A program is traced, but not
compiled, for each batch that the model is asked about. What a program needs does not have to rise with its batch, so
the largest batch that was found need not be the largest that there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from memplan.backends.fit.batch_model import BatchNeed, BatchProgram, BatchSource, check_takes_batch, largest_within
from memplan.backends.fit.compilers import compiler_for
from memplan.backends.fit.fit import FitPlanner, check_budget, planner_of
from memplan.backends.fit.limit import LARGEST_BATCH, limit_of
from memplan.backends.fit.result import CannotFitError, FitAttempt, FitResult
from memplan.compiler.effort import Effort, effort_of
from memplan.compiler.errors import MemplanError
from memplan.compiler.hardware.target import Target, load_target
from memplan.compiler.report.units import print_bytes, print_seconds

# How often the plan that needs least is looked for again, at the batch that the one before allows.
_REPLANS = 3

# Batches between one that fits and one that does not are tried only if they are more than this part of the first, where
# the model expects none of them to fit.
_CLOSE = 0.02

# Compiles of the program as given that find its own largest batch, and compiles for one batch.
_AS_GIVEN, _FOR_ONE = 3, 4


@dataclass(frozen=True)
class BatchAttempt:
    """One compile, for one batch.

    Attributes:
      batch: that the program was built for.
      compile: what was compiled and stated.
      fits: whether it is within the limit.
      is_planned: whether it is a planned program, and not the program as given.
    """

    batch: int
    compile: FitAttempt
    fits: bool
    is_planned: bool


@dataclass(frozen=True)
class BatchResult:
    """The largest batch that was found to fit into a limit.

    Attributes:
      batch: for which the compiler states that `fit` is within the limit.
      fit: the program for that batch.
      as_given: the largest batch for which it states that of the program as given; None if it does for none.
      as_given_needs: bytes that the program as given needs for that batch; None if there is none.
      predicted: the largest batch by the model, before any planned program was compiled; None if it expected none
        beyond `as_given`.
      at_most: the largest batch that was asked for.
      attempts: all compiles, in order.
    """

    batch: int
    fit: FitResult
    as_given: int | None
    as_given_needs: int | None
    predicted: int | None
    at_most: int
    attempts: tuple[BatchAttempt, ...]

    @property
    def refused(self) -> tuple[int, ...]:
        """The batches above the largest for which planned programs were compiled, and none fitted; ascending."""
        tried = {attempt.batch for attempt in self.attempts if attempt.is_planned}
        return tuple(sorted(batch for batch in tried if batch > self.batch))

    @property
    def is_bounded(self) -> bool:
        """Whether only the bound of the search kept the batch from being larger."""
        return self.batch == self.at_most

    @property
    def seconds_per_sample(self) -> float:
        """What the model says one sample takes in the program as given, at the batch of the result."""
        return self.fit.seconds / self.batch

    @property
    def added_per_sample(self) -> float:
        """What the model says one sample takes beyond that."""
        return self.fit.added_seconds / self.batch

    def summary(self) -> str:
        """Returns the result in a few lines."""
        fit, given = self.fit, "no batch that was tried"
        if self.as_given is not None and self.as_given_needs is not None:
            given = f"batch {self.as_given:,} ({print_bytes(self.as_given_needs)})"
        predicted = "" if fit.predicted is None else f"; {print_bytes(fit.predicted)} were predicted"
        lines = [
            f"batch {self.batch:,} needs {print_bytes(fit.memory.total)} of {print_bytes(fit.limit)}{predicted}",
            f"as given, {given} fits",
        ]
        if not fit.is_default:
            share = f", {self.added_per_sample / self.seconds_per_sample:.1%}" if fit.seconds else ""
            lines.append(
                f"adds {print_seconds(self.added_per_sample)} to the {print_seconds(self.seconds_per_sample)} of a "
                f"sample by the model{share}"
            )
        if self.refused:
            lines.append(f"did not fit: batch {', '.join(f'{batch:,}' for batch in self.refused)}")
        elif self.is_bounded:
            lines.append("no larger batch was asked for")
        return "\n".join(lines)


class NoBatchFitsError(CannotFitError):
    """Not even the smallest batch fits.

    Attributes:
      batch: the smallest one.
      cannot: why its program does not fit.
    """

    def __init__(self, batch: int, cannot: CannotFitError):
        super().__init__(
            cannot.limit, cannot.proven, cannot.least, cannot.standing, cannot.attempts, cannot.is_interface
        )
        self.batch, self.cannot = batch, cannot
        self.summary = f"batch {batch:,} does not fit: {cannot.summary}"
        self.args = (f"batch {batch:,} does not fit: {cannot}",)

    def __reduce__(self) -> Any:
        return NoBatchFitsError, (self.batch, self.cannot)


def max_batch(
    program: BatchProgram,
    *,
    limit: int | str,
    target: str | Target | None = None,
    multiple_of: int = 1,
    at_least: int = 1,
    at_most: int = LARGEST_BATCH,
    compile_budget: int = 16,
    donate_argnums: int | Sequence[int] = (),
    effort: str | Effort = Effort.NORMAL,
    planner: FitPlanner | None = None,
) -> BatchResult:
    """Returns the largest batch for which a program fits into a memory limit, by the word of the compiler.

    Args:
      program: takes the batch by the name `batch`, and returns `(fun, args)`: the function and its arguments, for
        which shapes are enough.
      limit: bytes for arguments, results and temporaries together, as an integer or like "12GiB".
      target: a TPU or a GPU to compile for, ahead of time; the CPU of this machine by default.
      multiple_of: only multiples of it are tried.
      at_least, at_most: only batches from one to the other are tried.
      compile_budget: how often the compiler may be asked for all batches together.
      donate_argnums: as for `jax.jit`, of `fun`.
      effort: how much work each plan takes: `fast`, `normal` or `high`.
      planner: see `fit`.

    Raises:
      NoBatchFitsError: the smallest batch does not fit; it names what stands at the peak.
      MemplanError: as `fit`, the program takes no batch, its shapes do not depend on it, it cannot be built for a
        batch, or there is no multiple within the bounds.
    """
    size = limit_of(limit)
    check_budget(compile_budget)
    for name, number in (("multiple_of", multiple_of), ("at_least", at_least), ("at_most", at_most)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise MemplanError(f"{name} must be a positive integer, not {number!r}")
    low, high = -(-at_least // multiple_of), at_most // multiple_of
    if low > high:
        raise MemplanError(f"there is no multiple of {multiple_of:,} from {at_least:,} to {at_most:,}")
    check_takes_batch(program)
    described = load_target(target) if isinstance(target, str) else target
    with closing(compiler_for(described)) as compiler:
        source = BatchSource(
            program, multiple_of, described, donate_argnums, planner or planner_of(effort_of(effort)), compiler
        )
        return _BatchSearch(source, size, low, high, compile_budget).run(at_most)


class _BatchSearch:
    """The search for the largest multiple of the unit, from `low` to `high` times it."""

    def __init__(self, source: BatchSource, limit: int, low: int, high: int, budget: int):
        self.source, self.limit, self.low, self.high, self.budget = source, limit, low, high, budget
        self.attempts: list[BatchAttempt] = []
        self.failures: dict[int, CannotFitError] = {}
        self.given, self.planned = BatchNeed(source, False), BatchNeed(source, True)
        self.best: tuple[int, FitResult] | None = None
        self.best_given: tuple[int, FitResult] | None = None
        self.predicted: int | None = None
        self.has_learned = False  # from a planned program

    def run(self, at_most: int) -> BatchResult:
        """Returns the answer; NoBatchFitsError if there is none."""
        self._check_depends()
        self._climb(self.given, max(min(_AS_GIVEN, self.budget - 2), 1), 1)
        self._climb(self.planned, self.budget, _FOR_ONE)
        unit = self.source.unit
        if self.best is None:
            raise NoBatchFitsError(self.low * unit, self.failures[self.low])
        k, fitted = self.best
        given = self.best_given
        return BatchResult(
            batch=k * unit,
            fit=fitted,
            as_given=given and given[0] * unit,
            as_given_needs=given and given[1].memory.total,
            predicted=self.predicted,
            at_most=at_most // unit * unit,
            attempts=tuple(self.attempts),
        )

    def _check_depends(self) -> None:
        """Raises MemplanError if the program is the same for two batches."""
        batches = sorted({self.low, min(2 * self.low, self.high)})
        written = {str(self.source.session(k).programs[0].closed) for k in batches}
        if len(written) < len(batches):
            first, second = (k * self.source.unit for k in batches)
            raise MemplanError(
                f"the program is the same for batch {first:,} and batch {second:,}: nothing in it depends on batch"
            )

    def _climb(self, need: BatchNeed, until: int, compiles: int) -> None:
        """Raises the best batch as far as the model expects a larger one to fit.

        Args:
          need: the model of what is compiled.
          until: no more compiles, if so many were made.
          compiles: for one batch at most.
        """
        fits, refused = self.best[0] if self.best else self.low - 1, self.high + 1
        is_first = True
        must_halve = False
        while refused - fits > 1 and len(self.attempts) < until:
            guess = self._guess(need, fits + 1, refused - 1)
            if is_first and need.is_planned:
                self.predicted = guess and guess * self.source.unit
            if guess is None:
                was_refused = refused <= self.high
                if not is_first and fits >= self.low and (not was_refused or refused - fits - 1 <= _CLOSE * fits):
                    return
                guess = (fits + refused) // 2 if was_refused else fits + 1
            elif must_halve:
                guess = min(guess, (fits + refused) // 2)
            if fits < self.low and until - len(self.attempts) <= compiles:
                guess = self.low  # the last chance to find one
            before = len(self.attempts)
            if need.is_planned and until - before < 2 and not self._is_known(guess):
                return  # it would be compiled as given, and no more
            if self._fit(need, guess, min(compiles, until - before)):
                fits = guess
            else:
                refused = guess
                must_halve = all(attempt.compile.stated is None for attempt in self.attempts[before:])
            is_first = False

    def _guess(self, need: BatchNeed, low: int, high: int) -> int | None:
        """Returns the largest batch of a range that the model expects to fit; None if it expects none."""
        found = largest_within(need, self.limit, low, high)
        if not need.is_planned:
            return found
        for _ in range(_REPLANS):
            before = found
            need.replan(found or low)
            found = largest_within(need, self.limit, found or low, high)
            if found == before:
                break
        return found

    def _is_known(self, k: int) -> bool:
        """Whether the compiler has stated what the program as given needs for k times the unit."""
        return "default" in vars(self.source.session(k))

    def _fit(self, need: BatchNeed, k: int, compiles: int) -> bool:
        """Fits the program for k times the unit; what the compiler states corrects the model."""
        session, is_known = self.source.session(k), self._is_known(k)
        expected = self.given(k)
        try:
            fitted = session.fit(self.limit, compiles + is_known)
            attempts = fitted.attempts
            self.best = k, fitted
            if fitted.is_default and (self.best_given is None or self.best_given[0] < k):
                self.best_given = k, fitted
        except CannotFitError as error:
            fitted, attempts = None, error.attempts
            self.failures[k] = error
        self._learn(k, attempts)
        for number, attempt in enumerate(attempts):
            if number == 0 and is_known:
                continue
            shown = replace(attempt, predicted=expected) if number == 0 else attempt
            within = not attempt.refused and attempt.stated is not None and attempt.stated <= self.limit
            self.attempts.append(BatchAttempt(k * self.source.unit, shown, within, number > 0))
        return fitted is not None

    def _learn(self, k: int, attempts: Sequence[FitAttempt]) -> None:
        """Corrects the model: the first attempt is the program as given, and each other one learned from the rest."""
        if not attempts:
            return
        if attempts[0].stated is not None:
            self.given.excess[k] = attempts[0].stated - self.given.by_model(k)
            if not self.has_learned:
                self.planned.excess = {k: self.given.excess[k]}
        planned = [each for each in attempts[1:] if each.stated is not None]
        if planned:
            if not self.has_learned:
                self.planned.excess.clear()
            self.has_learned = True
            learned = sum((each.stated or 0) - (each.predicted or 0) for each in planned)
            self.planned.excess[k] = self.given.excess.get(k, 0) + learned
