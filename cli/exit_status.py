"""How the command ends."""

DONE = 0
VIOLATED = 1  # the plan breaks rules, all of them listed
NOT_FITTING = 1  # `memplan pack`: proven that nothing fits the capacity
FAILED = 2  # a mistake of the user, told in one line
TIME_RAN_OUT = 3  # `memplan pack`: whether it fits the capacity could not be told in time
INTERRUPTED = 130  # from the keyboard
READER_GONE = 141  # whoever read our output went away


class ReaderGoneError(Exception):
    """Nobody reads standard output any more. Typer and rich would exit with 1, which says that a plan breaks rules."""
