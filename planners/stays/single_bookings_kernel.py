"""Bookings that planners make from Python, one at a time. Compiled by numba."""

from __future__ import annotations

from memplan.compiler.kernels import entry
from memplan.planners.stays.booking_kernel import book_run, serve
from memplan.planners.stays.tables import StayTables


@entry
def book(s: StayTables, run: int, sign: int) -> None:
    """Takes the room and the link time that a run remembers (`sign` 1), or gives them back (-1)."""
    book_run(s, run, sign)


@entry
def serve_fast(s: StayTables, access: int) -> None:
    """Serves an access from the fast space."""
    serve(s, access, True)
